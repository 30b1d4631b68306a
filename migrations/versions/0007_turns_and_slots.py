"""A job's turn in the queue, by priority and age; the GPUs of each host, leased one by one."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_LEASED = ("jobs", "evaluations")
_QUEUED = sa.text("status = 'queued'")
# Whoever ends or moves a lease, by whatever statement: the slots fall free with it.
_RELEASE = """
    CREATE FUNCTION release_slots() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE gpu_slots SET lease_token = NULL, leased_at = NULL WHERE lease_token = OLD.lease_token;
        RETURN NULL;
    END $$
"""


def upgrade() -> None:
    for table in _LEASED:
        now = sa.text("now()")
        op.add_column(table, sa.Column("turn_at", TIMESTAMP(timezone=True), server_default=now, nullable=False))
        op.add_column(table, sa.Column("lease_host", sa.Text(), nullable=True))
        op.add_column(table, sa.Column("lease_devices", JSONB(), nullable=True))
        op.execute(f"UPDATE {table} SET turn_at = created_at - priority * interval '1 hour'")
    op.add_column("jobs", sa.Column("device", sa.Text(), server_default="auto", nullable=False))
    op.add_column("jobs", sa.Column("gpus", sa.BigInteger(), server_default="1", nullable=False))
    op.execute("UPDATE jobs SET device = coalesce(resolved_spec #>> '{resources,device}', 'auto')")
    op.drop_index("ix_jobs_queue", "jobs")
    op.create_index("ix_jobs_queue", "jobs", ["turn_at", "id"], postgresql_where=_QUEUED)
    op.create_index("ix_evaluations_queue", "evaluations", ["turn_at", "id"], postgresql_where=_QUEUED)
    op.create_table(
        "gpu_slots",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("leased_at", TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("host", "index", name=op.f("pk_gpu_slots")),
    )
    op.create_index("ix_gpu_slots_lease_token", "gpu_slots", ["lease_token"])
    op.execute(_RELEASE)
    op.execute(
        "CREATE TRIGGER release_slots AFTER UPDATE OF lease_token ON jobs FOR EACH ROW "
        "WHEN (OLD.lease_token IS NOT NULL AND OLD.lease_token IS DISTINCT FROM NEW.lease_token) "
        "EXECUTE FUNCTION release_slots()"
    )
    op.execute(
        "CREATE TRIGGER release_slots_of_deleted AFTER DELETE ON jobs FOR EACH ROW "
        "WHEN (OLD.lease_token IS NOT NULL) EXECUTE FUNCTION release_slots()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER release_slots ON jobs")
    op.execute("DROP TRIGGER release_slots_of_deleted ON jobs")
    op.execute("DROP FUNCTION release_slots()")
    op.drop_table("gpu_slots")
    op.drop_index("ix_evaluations_queue", "evaluations")
    op.drop_index("ix_jobs_queue", "jobs")
    op.create_index("ix_jobs_queue", "jobs", [sa.literal_column("priority DESC"), "created_at", "id"], postgresql_where=_QUEUED)
    op.drop_column("jobs", "gpus")
    op.drop_column("jobs", "device")
    for table in _LEASED:
        op.drop_column(table, "lease_devices")
        op.drop_column(table, "lease_host")
        op.drop_column(table, "turn_at")
