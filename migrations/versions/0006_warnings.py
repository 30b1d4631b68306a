"""Warnings of a job are counted in the list of jobs."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_index("ix_events_warnings", "events", ["job_id", "type", "id"], postgresql_where=sa.text("level = 'warn'"))


def downgrade() -> None:
    op.drop_index("ix_events_warnings", "events")
