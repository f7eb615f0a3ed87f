"""The files of the history and what each holds."""

import sqlalchemy as sa
from alembic import op

from storage.bdc import types

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "history_files",
        sa.Column("id", types.key_type(), sa.Identity(always=False), nullable=False),
        sa.Column("ontology", types.name_type(), nullable=False),
        sa.Column("day_text", types.name_type(10), nullable=False),
        sa.Column("file_name", types.name_type(80), nullable=False),
        sa.Column("n_rows", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("first_at", types.moment_type(), nullable=True),
        sa.Column("last_at", types.moment_type(), nullable=True),
        sa.Column("layout", types.name_type(32), nullable=False),
        sa.Column("stale_rows", types.Json(), nullable=False),
        sa.Column("created_at", types.moment_type(), nullable=False),
        sa.Column("retired_at", types.moment_type(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("ontology", "day_text", "file_name", name="uq_history_files_path"),
    )
