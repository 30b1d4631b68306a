"""What Alembic runs for each command: one connection, one transaction, one migrator at a time."""

from alembic import context
from sqlalchemy import create_engine, pool, text

from api.database import OLDEST_POSTGRESQL
from api.models import Base
from api.settings import settings

_LOCK = 0x6D68706F  # "mhpo": two starting services migrate one after the other


def run() -> None:
    engine = create_engine(settings().database_url, poolclass=pool.NullPool)
    with engine.begin() as connection:
        if (connection.dialect.server_version_info or ()) < OLDEST_POSTGRESQL:
            raise RuntimeError(
                f"the service needs PostgreSQL {OLDEST_POSTGRESQL[0]} or newer, and MHPO_DATABASE_URL is an older one"
            )
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True, compare_server_default=True)
        context.run_migrations()


run()
