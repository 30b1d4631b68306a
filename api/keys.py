"""API keys: made, found, revoked. Only a key's hash is kept; the key itself is told once, to who makes it."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, func, insert, or_, select, update
from sqlalchemy.orm import Session

from api.caller import Caller
from api.models import ApiKey, Scope, is_id, new_id

_SHAPE = re.compile(r"mhpo-[a-z2-7]{40}")
_SHOWN = len("mhpo-") + 6
_USE_SECONDS = 60  # how exact `last_used_at` is
PROJECT_NAME = r"[a-z0-9][a-z0-9_-]{0,62}"
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"


def make_key(session: Session, name: str, project: str, scope: Scope, lifetime: timedelta | None = None) -> tuple[str, str]:
    """(the new key's id, the key itself, which nothing keeps). Without `lifetime` it does not expire."""
    key = "mhpo-" + "".join(secrets.choice(_BASE32) for _ in range(40))
    key_id = new_id("key")
    row = {
        "id": key_id,
        "name": name,
        "prefix": key[:_SHOWN],
        "sha256": sha256(key),
        "project": project,
        "scope": scope,
        "expires_at": None if lifetime is None else func.now() + lifetime,
    }
    session.execute(insert(ApiKey).values(row))
    return key_id, key


def is_key(text: str) -> bool:
    """Whether `text` has the form of a key."""
    return _SHAPE.fullmatch(text) is not None


def find_caller(session: Session, key: str) -> Caller | None:
    """Whose key it is; None for one that is not known, has expired or was revoked. Notes that it was used."""
    if not is_key(key):
        return None
    found = session.execute(select(ApiKey.id, ApiKey.project, ApiKey.scope).where(ApiKey.sha256 == sha256(key), *usable()))
    row = found.one_or_none()
    if row is None:
        return None
    long_ago = ApiKey.last_used_at < func.now() - timedelta(seconds=_USE_SECONDS)
    session.execute(
        update(ApiKey)
        .where(ApiKey.id == row.id, or_(ApiKey.last_used_at.is_(None), long_ago))
        .values(last_used_at=func.now())
        .execution_options(synchronize_session=False)
    )
    return Caller(row.project, row.scope, row.id)


def usable() -> tuple[ColumnElement[bool], ...]:
    """The guards of a key that works now."""
    return ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now())


def has_usable_key(session: Session) -> bool:
    """Whether anyone could use the service by a key."""
    return session.scalar(select(ApiKey.id).where(*usable()).limit(1)) is not None


def list_keys(session: Session) -> Sequence[ApiKey]:
    """Newest first, those that no longer work too."""
    return session.scalars(select(ApiKey).order_by(ApiKey.created_at.desc(), ApiKey.id.desc())).all()


def find_key(session: Session, key_id: str) -> ApiKey | None:
    """A key by its id."""
    return session.get(ApiKey, key_id) if is_id("key", key_id) else None


def revoke_key(session: Session, key_id: str) -> ApiKey | None:
    """Make a key useless from now on; None if there is no such key. One that was revoked keeps its time."""
    if not is_id("key", key_id):
        return None
    revoked = (
        update(ApiKey)
        .where(ApiKey.id == key_id)
        .values(revoked_at=func.coalesce(ApiKey.revoked_at, func.now()))
        .returning(ApiKey)
        .execution_options(synchronize_session=False)
    )
    return session.scalars(revoked).one_or_none()


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def parse_lifetime(text: str) -> timedelta:
    """`90d`, `12h` or `30m` as a time; raises ValueError that says so."""
    units = {"d": "days", "h": "hours", "m": "minutes"}
    if not re.fullmatch(r"[1-9][0-9]{0,4}[dhm]", text):
        raise ValueError(f"{text!r} is no lifetime; write 90d, 12h or 30m")
    return timedelta(**{units[text[-1]]: int(text[:-1])})
