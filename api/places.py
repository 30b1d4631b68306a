"""What a spec may name: files under the deployment's folders, and hub ids of its list.

Outside the data folder a path may lie under MHPO_ALLOWED_ROOTS (the working directory where it is not set), below no name
that begins with a dot. In the data folder it may lie in the first run's folder and in run folders of the caller's project;
an uploaded file is named by its id. Symbolic links and `..` are followed first, so a link leads to nothing more.
"""

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

from sqlalchemy.orm import Session

from api.models import Job, is_id
from api.settings import settings
from trainer.strict import SpecError

_NAMES_LOOKED_AT = 10_000  # in a model's folder


def check_place(session: Session, text: str, param: str) -> Path:
    """The file or folder that `text` names, links followed; raises SpecError where it, or a link in it, is out of bounds."""
    place = _resolved(text, param)
    if not _is_allowed(session, place) or not all(_is_allowed(session, target) for target in _linked_from(place, param)):
        roots = ", ".join(map(str, _roots()))
        raise SpecError(
            param, f"{text!r} is not in a folder that jobs may read files from; MHPO_ALLOWED_ROOTS names those: {roots}"
        )
    return place


def check_hub_id(hub_id: str, revision: str | None, param: str) -> None:
    """Raises SpecError for a hub id that is not in the deployment's list, where it has one."""
    if ".." in hub_id or ".." in (revision or ""):
        raise SpecError(param, f"{hub_id!r} at revision {revision!r}: `..` is in no hub id and no revision")
    allowed = settings().hub_allow
    if allowed and not any(fnmatchcase(hub_id, pattern) for pattern in allowed):
        raise SpecError(param, f"{hub_id!r} is not among the hub ids that jobs may name (MHPO_HUB_ALLOW: {', '.join(allowed)})")


def exists(text: str, param: str) -> bool:
    """Whether `text` names a file or folder; raises SpecError for what no file system can hold (a name that is too long)."""
    return _resolved(text, param).exists()


def _resolved(text: str, param: str) -> Path:
    try:
        place = Path(text).resolve()
        place.exists()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle; ValueError: NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise SpecError(param, f"this cannot be a path: {reason}") from error
    return place


def _linked_from(folder: Path, param: str) -> Iterator[Path]:
    """Where the links in a folder lead."""
    if folder.is_dir():
        names = (Path(parent, name) for parent, folders, files in os.walk(folder) for name in (*folders, *files))
        yield from (_resolved(str(path), param) for path in islice(names, _NAMES_LOOKED_AT) if path.is_symlink())


def _is_allowed(session: Session, place: Path) -> bool:
    data = settings().data_dir.resolve()
    if place.is_relative_to(data):
        inside = [root for root in _roots() if root != data and root.is_relative_to(data)]
        return _is_own_data(session, place.relative_to(data).parts) or any(_is_below(place, root) for root in inside)
    return any(_is_below(place, root) for root in _roots())


def _is_own_data(session: Session, parts: tuple[str, ...]) -> bool:
    match parts:
        case ("first-run", *_):
            return True
        case ("runs", job_id, _, *_):
            return is_id("job", job_id) and session.get(Job, job_id) is not None
    return False


def _is_below(place: Path, root: Path) -> bool:
    return place.is_relative_to(root) and not any(part.startswith(".") for part in place.relative_to(root).parts)


def _roots() -> tuple[Path, ...]:
    return tuple(root.resolve() for root in settings().allowed_roots or (Path(),))
