"""`mhpo keys`: make, list and revoke API keys, in the database itself, so that the first one can be made too."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.table import Table
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from api import keys
from api.key_views import KeyView, NewKeyView
from api.models import ApiKey, Scope
from api.settings import Settings
from cli.credentials import keep, kept_key
from cli.embedded import Postgres
from cli.errors import CliError, ExitCode
from cli.lock import owned
from cli.say import say, say_json, wide_console


def create(settings: Settings, name: str, project: str, scope: str, lifetime: str | None, *, as_json: bool) -> None:
    """Make a key and print it: nothing else will."""
    if scope not in list(Scope):
        raise CliError(f"{scope!r} is no scope; there are {', '.join(Scope)}", ExitCode.REFUSED)
    if not re.fullmatch(keys.PROJECT_NAME, project):
        message = f"{project!r} is no name of a project: small letters, digits, - and _, at most 63"
        raise CliError(message, ExitCode.REFUSED)
    with record(settings) as session:
        key_id, key = keys.make_key(session, name, project, Scope(scope), _lifetime(lifetime))
        made = KeyView.of(session.get_one(ApiKey, key_id))
    if as_json:
        say_json(NewKeyView(key=key, **made.model_dump()).model_dump(mode="json"))
        return
    say(key)
    sys.stderr.write(f"The key of {name}: scope {scope}, project {project}. It is shown this once.\n")


def show(settings: Settings, *, as_json: bool) -> None:
    """List the keys of all projects, newest first."""
    with record(settings) as session:
        found = keys.list_keys(session)
        views = [KeyView.of(key).model_dump(mode="json") for key in found]
        rows = [_row(key) for key in found]
    if as_json:
        for view in views:
            say_json(view)
        return
    table = Table("key", "name", "project", "scope", "begins with", "state", "last used", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    wide_console().print(table)


def revoke(settings: Settings, key_id: str, *, as_json: bool) -> None:
    """Make a key useless."""
    with record(settings) as session:
        if (key := keys.revoke_key(session, key_id)) is None:
            raise CliError(f"no key has the id {key_id!r}; `mhpo keys list` shows them", ExitCode.NOT_FOUND)
        session.refresh(key)
        view = KeyView.of(key).model_dump(mode="json")
    if as_json:
        say_json(view)
    else:
        say(f"{key_id} revoked")


def local_key(data_dir: Path, url: str, database_url: str) -> tuple[str, bool]:
    """(the key of whoever runs the service, whether it was made now); kept in the data folder with the service's address."""
    with _session(database_url) as session:
        key = kept_key(data_dir)
        works = key is not None and keys.find_caller(session, key) is not None
        if key is None or not works:
            _, key = keys.make_key(session, "made by mhpo up", "default", Scope.ADMIN)
    keep(data_dir, url, key)
    return key, not works


def somebody_has_a_key(database_url: str) -> bool:
    with _session(database_url) as session:
        return keys.has_usable_key(session)


@contextmanager
def record(settings: Settings) -> Iterator[Session]:
    """A transaction in the service's database: the given one, that of the `mhpo up` that runs, or the one in its folder."""
    if "database_url" in settings.model_fields_set:
        with _session(settings.database_url) as session:
            yield session
        return
    postgres = Postgres(settings.data_dir)
    if postgres.answers():
        with _session(postgres.url) as session:
            yield session
        return
    with owned(settings.data_dir.resolve()):
        postgres.start()
        try:
            _migrate(postgres.url)
            with _session(postgres.url) as session:
                yield session
        finally:
            postgres.ask_to_stop()
            postgres.finish()


@contextmanager
def _session(database_url: str) -> Iterator[Session]:
    try:
        with Session(create_engine(database_url, poolclass=NullPool)) as session, session.begin():
            yield session
    except SQLAlchemyError as error:
        message = f"the database cannot be used: {str(error).splitlines()[0]}; see MHPO_DATABASE_URL"
        raise CliError(message, ExitCode.UNREACHABLE) from error


def _migrate(database_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "migrations"],
        check=False,
        env={**os.environ, "MHPO_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise CliError(f"the schema could not be migrated: {done.stderr.strip().splitlines()[-1]}")


def _lifetime(text: str | None) -> timedelta | None:
    if text is None:
        return None
    try:
        return keys.parse_lifetime(text)
    except ValueError as error:
        raise CliError(str(error), ExitCode.REFUSED) from error


def _row(key: ApiKey) -> tuple[str, ...]:
    used = "never" if key.last_used_at is None else f"{key.last_used_at.astimezone(UTC):%Y-%m-%d %H:%M}"
    return key.id, key.name, key.project, key.scope, key.prefix, _state(key), used


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "works"
    word = "expired" if key.expires_at <= datetime.now(UTC) else "works until"
    return f"{word} {key.expires_at.astimezone(UTC):%Y-%m-%d %H:%M}"
