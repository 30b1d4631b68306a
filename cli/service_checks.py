"""The service and its parts, as this machine reaches them."""

from collections.abc import Iterator

import redis
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from api.database import OLDEST_POSTGRESQL
from api.models import Job, Status
from api.settings import Settings
from api.workers import workers_seen
from cli.checks import Finding, State, Watch
from cli.client import Client
from cli.credentials import source_of_key
from cli.embedded import Postgres
from cli.errors import CliError, ExitCode
from migrations import schema

START = "start it with `mhpo up`"
_TIMEOUT_SECONDS = 5.0


def service(settings: Settings, url: str) -> Iterator[Finding]:
    """API, key, and as far as this machine reaches them database, workers, broker."""
    client = Client(url, timeout=_TIMEOUT_SECONDS)
    ready = False
    for finding in _api(client):
        ready = ready or (finding.part == "ready" and finding.state is State.OK)
        yield finding
    if client.local or "database_url" in settings.model_fields_set:
        yield from _database(settings)
    if "redis_url" in settings.model_fields_set:
        yield _redis(settings)
    elif ready:
        yield Finding("redis", State.OK, "embedded; the API reaches it")
    elif client.local:
        yield Finding("redis", State.AWAY, "embedded; not running", START)


def _api(client: Client) -> Iterator[Finding]:
    watch = Watch()
    try:
        client.get("/healthz")
    except CliError as error:
        yield Finding("api", State.AWAY, str(error).partition(";")[0], f"{START}, or name another with --url or MHPO_URL")
        return
    yield Finding("api", State.OK, f"{client.url}, {watch}")
    watch = Watch()
    try:
        client.get("/readyz")
        yield Finding("ready", State.OK, f"database, broker and background work are there, {watch}")
    except CliError as error:
        yield Finding("ready", State.FAIL, str(error), "the service's log says more: MHPO_DATA_DIR/logs/api.log")
    yield _key(client)


def _key(client: Client) -> Finding:
    source = source_of_key(client.url)
    try:
        client.get("/v1/jobs", limit=1)
    except CliError as error:
        denied = error.code is ExitCode.DENIED
        fix = "set MHPO_API_KEY; `mhpo keys create NAME` on the service's machine makes one" if denied else ""
        return Finding("key", State.FAIL, str(error).partition(";")[0], fix)
    return Finding("key", State.OK, f"from {source}" if source else "none needed")


def _database(settings: Settings) -> Iterator[Finding]:
    """The database and, where it has the schema of this version, who works for it."""
    given = "database_url" in settings.model_fields_set
    embedded = Postgres(settings.data_dir)
    if not given and not embedded.answers():
        yield Finding("postgresql", State.AWAY, "embedded; not running", START)
        return
    watch = Watch()
    try:
        engine = create_engine(settings.database_url if given else embedded.url, poolclass=NullPool)
        with engine.connect() as connection:
            version = connection.execute(text("SHOW server_version")).scalar_one()
            took = str(watch)
            revision = MigrationContext.configure(connection).get_current_revision()
            head = ScriptDirectory.from_config(schema.config()).get_current_head()
            where = "" if given else "embedded, "
            if (connection.dialect.server_version_info or ()) < OLDEST_POSTGRESQL:
                found = f"{where}{version}, {took}; the service needs {OLDEST_POSTGRESQL[0]} or newer"
                yield Finding("postgresql", State.FAIL, found, "move to a newer server")
                return
            if revision != head:
                found = f"{where}{version}, {took}; its schema is {revision or 'not there'}, this version needs {head}"
                yield Finding("postgresql", State.FAIL, found, "python -m migrations; `mhpo up` does it at its start")
                return
            yield Finding("postgresql", State.OK, f"{where}{version}, {took}, schema {revision}")
            yield _workers(connection)
    except SQLAlchemyError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        yield Finding("postgresql", State.FAIL, f"does not answer: {reason}", "see MHPO_DATABASE_URL")


def _workers(connection: Connection) -> Finding:
    count = connection.execute(workers_seen()).scalar_one()
    queued = connection.execute(select(func.count()).where(Job.status == Status.QUEUED)).scalar_one()
    if count:
        return Finding("workers", State.OK, f"{count} seen in the last minute; {queued} jobs queued")
    fix = "`mhpo up` starts two; with containers: docker compose up --detach worker evaluator"
    return Finding("workers", State.FAIL, f"none in the last minute: {queued} queued jobs wait", fix)


def _redis(settings: Settings) -> Finding:
    watch = Watch()
    client = redis.Redis.from_url(settings.redis_url, socket_connect_timeout=_TIMEOUT_SECONDS, socket_timeout=_TIMEOUT_SECONDS)
    try:
        with client:
            client.ping()
            took = str(watch)
            version = client.info("server")["redis_version"]
    except redis.RedisError as error:
        return Finding("redis", State.FAIL, f"does not answer: {error}", "see MHPO_REDIS_URL")
    return Finding("redis", State.OK, f"{version}, {took}")
