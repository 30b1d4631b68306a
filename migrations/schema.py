"""Moving the schema, from a checkout or an installed wheel."""

from pathlib import Path

from alembic import command
from alembic.config import Config


def config() -> Config:
    """Alembic's settings for the migrations beside this file; the database is that of `api.settings`."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made


def upgrade(revision: str = "head") -> None:
    """Bring the database to `revision`; one that is there already is left as it is."""
    command.upgrade(config(), revision)


def downgrade(revision: str) -> None:
    """Take the database back to `revision`; `base` leaves no table of ours."""
    command.downgrade(config(), revision)
