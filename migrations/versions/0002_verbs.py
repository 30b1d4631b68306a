"""Pausing a job; where it came from; its turn; what has ended never changes."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_LEASED = ("jobs", "evaluations")


def upgrade() -> None:
    for table in _LEASED:
        op.add_column(table, sa.Column("pause_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False))
        op.add_column(table, sa.Column("priority", sa.BigInteger(), server_default="0", nullable=False))
        op.add_column(table, sa.Column("not_before", TIMESTAMP(timezone=True), nullable=True))
    op.add_column("outbox", sa.Column("not_before", TIMESTAMP(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("parent_id", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("diff", JSONB(), nullable=True))
    op.create_foreign_key(op.f("fk_jobs_parent_id_jobs"), "jobs", "jobs", ["parent_id"], ["id"], ondelete="SET NULL")
    op.create_index("ix_jobs_parent_id", "jobs", ["parent_id"])
    op.create_index(
        "ix_jobs_queue",
        "jobs",
        [sa.literal_column("priority DESC"), "created_at", "id"],
        postgresql_where=sa.text("status = 'queued'"),
    )
    _keep_terminal_status()


def downgrade() -> None:
    for table in _LEASED:
        op.execute(f"DROP TRIGGER keep_terminal_status ON {table}")
    op.execute("DROP FUNCTION keep_terminal_status()")
    op.drop_column("outbox", "not_before")
    op.drop_index("ix_jobs_queue", "jobs")
    op.drop_column("jobs", "diff")
    op.drop_column("jobs", "parent_id")
    for table in _LEASED:
        op.drop_column(table, "not_before")
        op.drop_column(table, "priority")
        op.drop_column(table, "pause_requested")


def _keep_terminal_status() -> None:
    op.execute("""
    CREATE FUNCTION keep_terminal_status() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '% % is %, which never changes', TG_TABLE_NAME, OLD.id, OLD.status USING ERRCODE = 'check_violation';
    END $$
    """)
    for table in _LEASED:
        op.execute(f"""
        CREATE TRIGGER keep_terminal_status BEFORE UPDATE OF status ON {table} FOR EACH ROW
        WHEN (OLD.status IN ('succeeded', 'failed', 'cancelled') AND NEW.status <> OLD.status)
        EXECUTE FUNCTION keep_terminal_status()
        """)
