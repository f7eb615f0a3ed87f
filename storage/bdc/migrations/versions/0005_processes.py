"""Schedules, runs and file loads of the Process module."""

import sqlalchemy as sa
from alembic import op

from storage.bdc import types

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "processes",
        sa.Column("id", types.key_type(), sa.Identity(always=False), nullable=False),
        sa.Column("name", types.name_type(), nullable=False),
        sa.Column("kind", types.name_type(16), nullable=False),
        sa.Column("ontology", types.OptionalText(191), nullable=True),
        sa.Column("schedule_text", types.LongText(), nullable=True),
        sa.Column("is_active", types.Flag(), nullable=False),
        sa.Column("options", types.Json(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name", name="uq_processes_name"),
    )
    op.create_table(
        "process_states",
        sa.Column("name", types.name_type(255), nullable=False),
        sa.Column("schedule_text", types.LongText(), nullable=True),
        sa.Column("next_at", types.moment_type(), nullable=True),
        sa.Column("is_paused", types.Flag(), nullable=False),
        sa.Column("run_state", types.OptionalText(16), nullable=True),
        sa.Column("run_detail", types.Json(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_process_states"),
    )
    op.create_table(
        "file_loads",
        sa.Column("id", types.key_type(), sa.Identity(always=False), nullable=False),
        sa.Column("path", types.LongText(), nullable=True),
        sa.Column("file_format", types.name_type(16), nullable=False),
        sa.Column("ontology", types.name_type(), nullable=False),
        sa.Column("user_name", types.name_type(), nullable=False),
        sa.Column("digest", types.name_type(64), nullable=False),
        sa.Column("state", types.name_type(16), nullable=False),
        sa.Column("n_done", sa.BigInteger(), nullable=False),
        sa.Column("n_stored", sa.BigInteger(), nullable=False),
        sa.Column("n_rejected", sa.BigInteger(), nullable=False),
        sa.Column("reject_path", types.LongText(), nullable=True),
        sa.Column("reject_bytes", sa.BigInteger(), nullable=False),
        sa.Column("error_text", types.LongText(), nullable=True),
        sa.Column("started_at", types.moment_type(), nullable=False),
        sa.Column("ended_at", types.moment_type(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_file_loads_digest", "file_loads", ["digest"])
