"""Long curves in pieces, word of every change of a job, requests that make a job once, OpenAI's form, webhooks."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_SIZES = (8, 64, 512, 4096)

_FROM_STEPS = """
    INSERT INTO metric_segments (job_id, size, name, start, n, not_finite, min, max, sum, last, last_step)
    SELECT job_id, 8, key, step / 8 * 8, count(value), count(*) - count(value), min(value), max(value), sum(value),
           (array_agg(value ORDER BY step DESC))[1], max(step)
    FROM (
        SELECT DISTINCT ON (m.job_id, m.step, p.key) m.job_id, m.step, p.key, p.value::double precision AS value
        FROM (
            SELECT DISTINCT ON (m.job_id, m.step) m.job_id, m.step, m.metrics
            FROM step_metrics m JOIN jobs j ON j.id = m.job_id AND m.step < (j.step + 1) / 8 * 8
            ORDER BY m.job_id, m.step, m.attempt DESC
        ) m CROSS JOIN LATERAL jsonb_each_text(m.metrics) p
    ) point
    GROUP BY job_id, key, step / 8
"""
_FROM_SEGMENTS = """
    INSERT INTO metric_segments (job_id, size, name, start, n, not_finite, min, max, sum, last, last_step)
    SELECT s.job_id, :size, s.name, s.start / :size * :size, sum(s.n), sum(s.not_finite), min(s.min), max(s.max), sum(s.sum),
           (array_agg(s.last ORDER BY s.start DESC))[1], max(s.last_step)
    FROM metric_segments s JOIN jobs j ON j.id = s.job_id AND s.start < (j.step + 1) / :size * :size
    WHERE s.size = :size / 8
    GROUP BY s.job_id, s.name, s.start / :size
"""
# A transaction tells of a job once, however many of its rows it writes.
_TELL = """
    CREATE FUNCTION tell_of_job() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_TABLE_NAME = 'jobs' THEN
            PERFORM pg_notify('job_changes', NEW.id);
        ELSE
            PERFORM pg_notify('job_changes', NEW.job_id);
        END IF;
        RETURN NULL;
    END $$
"""
# The payload is that of OpenAI's webhooks.
_DELIVER = """
    CREATE FUNCTION deliver_webhooks() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO webhook_deliveries (id, webhook_id, type, payload)
        SELECT 'msg-' || replace(gen_random_uuid()::text, '-', ''), w.id, t.type, jsonb_build_object(
            'id', 'evt-' || replace(gen_random_uuid()::text, '-', ''), 'object', 'event', 'type', t.type,
            'created_at', extract(epoch FROM now())::bigint, 'data', jsonb_build_object('id', NEW.id)
        )
        FROM webhooks w, (SELECT 'fine_tuning.job.' || NEW.status AS type) t
        WHERE w.events ? t.type AND w.project = coalesce(to_jsonb(NEW) ->> 'project', 'default');
        RETURN NULL;
    END $$
"""
_TOLD = {
    "jobs": "AFTER INSERT OR UPDATE OF status, phase, status_reason, step, attempt, cancel_requested",
    "events": "AFTER INSERT",
    "step_metrics": "AFTER INSERT OR UPDATE",
}


def upgrade() -> None:
    op.add_column("checkpoints", sa.Column("contents", JSONB(), nullable=True))
    _order_metrics()
    _create_segments()
    _create_creations()
    _create_openai()
    _create_webhooks()
    _tell_of_changes()


def downgrade() -> None:
    for table in _TOLD:
        op.execute(f"DROP TRIGGER tell_of_job ON {table}")
    op.execute("DROP FUNCTION tell_of_job()")
    op.execute("DROP TRIGGER deliver_webhooks ON jobs")
    op.execute("DROP FUNCTION deliver_webhooks()")
    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")
    op.drop_table("openai_jobs")
    op.drop_constraint("ck_files_purpose", "files")
    op.drop_column("files", "purpose")
    op.drop_table("creations")
    op.drop_table("metric_segments")
    op.execute("ALTER TABLE step_metrics RESET (toast_tuple_target)")
    op.drop_index("ix_step_metrics_job_id_seq", "step_metrics")
    op.drop_column("step_metrics", "seq")
    op.drop_column("checkpoints", "contents")


def _order_metrics() -> None:
    op.add_column("step_metrics", sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False))
    op.create_index("ix_step_metrics_job_id_seq", "step_metrics", ["job_id", "seq"], unique=False)
    op.execute("ALTER TABLE step_metrics SET (toast_tuple_target = 8160)")


def _create_segments() -> None:
    op.create_table(
        "metric_segments",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("not_finite", sa.Integer(), nullable=False),
        sa.Column("min", sa.Double(), nullable=True),
        sa.Column("max", sa.Double(), nullable=True),
        sa.Column("sum", sa.Double(), nullable=True),
        sa.Column("last", sa.Double(), nullable=True),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_metric_segments_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "size", "name", "start", name=op.f("pk_metric_segments")),
    )
    op.execute(_FROM_STEPS)
    for size in _SIZES[1:]:
        op.get_bind().execute(sa.text(_FROM_SEGMENTS), {"size": size})


def _create_creations() -> None:
    op.create_table(
        "creations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("created_at", TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_creations_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_creations")),
    )
    op.create_index("uq_creations_project_key", "creations", ["project", "key"], unique=True)
    op.create_index("ix_creations_fingerprint", "creations", ["fingerprint"], unique=False)
    op.create_index("ix_creations_created_at", "creations", ["created_at"], unique=False)


def _create_openai() -> None:
    purposes = ("fine-tune", "evals", "user_data", "batch", "assistants", "vision", "derived")
    purpose = sa.Enum(*purposes, name="purpose", native_enum=False, create_constraint=True, length=32)
    op.add_column("files", sa.Column("purpose", purpose, server_default="fine-tune", nullable=False))
    op.create_table(
        "openai_jobs",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("request", JSONB(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_openai_jobs_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_openai_jobs")),
    )


def _create_webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("events", JSONB(), nullable=False),
        sa.Column("created_at", TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_index("ix_webhooks_project", "webhooks", ["project"], unique=False)
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("webhook_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("payload", JSONB(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("next_at", TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_at", TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("delivered_at", TIMESTAMP(timezone=True), nullable=True),
        sa.Column("failed_at", TIMESTAMP(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_webhook_deliveries_webhook_id_webhooks"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
    )
    op.create_index(
        "ix_webhook_deliveries_webhook_id_created_at",
        "webhook_deliveries",
        ["webhook_id", sa.literal_column("created_at DESC")],
        unique=False,
    )
    op.create_index(
        "ix_webhook_deliveries_next_at",
        "webhook_deliveries",
        ["next_at"],
        unique=False,
        postgresql_where=sa.text("delivered_at IS NULL AND failed_at IS NULL"),
    )
    op.execute(_DELIVER)
    op.execute(
        "CREATE TRIGGER deliver_webhooks AFTER UPDATE OF status ON jobs FOR EACH ROW "
        "WHEN (NEW.status IN ('succeeded', 'failed', 'cancelled') AND OLD.status IS DISTINCT FROM NEW.status) "
        "EXECUTE FUNCTION deliver_webhooks()"
    )


def _tell_of_changes() -> None:
    op.execute(_TELL)
    for table, when in _TOLD.items():
        op.execute(f"CREATE TRIGGER tell_of_job {when} ON {table} FOR EACH ROW EXECUTE FUNCTION tell_of_job()")
