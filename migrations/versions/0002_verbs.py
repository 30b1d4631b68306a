"""Pausing a job."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_LEASED = ("jobs", "evaluations")


def upgrade() -> None:
    for table in _LEASED:
        op.add_column(table, sa.Column("pause_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False))


def downgrade() -> None:
    for table in _LEASED:
        op.drop_column(table, "pause_requested")
