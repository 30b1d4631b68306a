"""API keys, and the project of each job and file."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_NEWEST_FIRST = (sa.text("created_at DESC"), sa.text("id DESC"))
_OWNED = ("jobs", "files")


def upgrade() -> None:
    for table in _OWNED:
        op.add_column(table, sa.Column("project", sa.Text(), server_default="default", nullable=False))
        op.drop_index(f"ix_{table}_created_at_id", table_name=table)
        op.create_index(f"ix_{table}_project_created_at_id", table, ["project", *_NEWEST_FIRST], unique=False)
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column(
            "scope",
            sa.Enum("read", "write", "admin", name="scope", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("created_at", TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", TIMESTAMP(timezone=True), nullable=True),
        sa.Column("revoked_at", TIMESTAMP(timezone=True), nullable=True),
        sa.Column("last_used_at", TIMESTAMP(timezone=True), nullable=True),
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    op.create_index("ix_api_keys_project_created_at_id", "api_keys", ["project", *_NEWEST_FIRST], unique=False)
    op.create_index("uq_api_keys_sha256", "api_keys", ["sha256"], unique=True)


def downgrade() -> None:
    op.drop_table("api_keys")
    for table in _OWNED:
        op.drop_index(f"ix_{table}_project_created_at_id", table_name=table)
        op.create_index(f"ix_{table}_created_at_id", table, [*_NEWEST_FIRST], unique=False)
        op.drop_column(table, "project")
