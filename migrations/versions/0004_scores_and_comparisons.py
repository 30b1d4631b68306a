"""Scores on checkpoints, registered benchmarks, comparisons."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("checkpoints", sa.Column("validation_reward", sa.Float(), nullable=True))
    op.add_column("checkpoints", sa.Column("scores", JSONB(), nullable=True))
    op.create_table(
        "benchmarks",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("entry", JSONB(), nullable=False),
        sa.Column("created_at", TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("project", "name", name=op.f("pk_benchmarks")),
    )
    op.create_table(
        "comparisons",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("spec", JSONB(), nullable=False),
        sa.Column("created_at", TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_comparisons")),
    )
    newest_first = [sa.text("created_at DESC"), sa.text("id DESC")]
    op.create_index("ix_comparisons_project_created_at_id", "comparisons", ["project", *newest_first])
    op.create_table(
        "comparison_jobs",
        sa.Column("comparison_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["comparison_id"],
            ["comparisons.id"],
            name=op.f("fk_comparison_jobs_comparison_id_comparisons"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_comparison_jobs_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("comparison_id", "job_id", name=op.f("pk_comparison_jobs")),
    )


def downgrade() -> None:
    op.drop_table("comparison_jobs")
    op.drop_index("ix_comparisons_project_created_at_id", table_name="comparisons")
    op.drop_table("comparisons")
    op.drop_table("benchmarks")
    op.drop_column("checkpoints", "scores")
    op.drop_column("checkpoints", "validation_reward")
