"""Script rules, their queue and their dead letters."""

import sqlalchemy as sa
from alembic import op

from storage.bdc import types

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "script_rules",
        sa.Column("id", types.key_type(), sa.Identity(always=False), nullable=False),
        sa.Column("name", types.name_type(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("rule_type", types.name_type(16), nullable=False),
        sa.Column("is_active", types.Flag(), nullable=False),
        sa.Column("version_no", sa.Integer(), nullable=False),
        sa.Column("definition", types.Json(), nullable=False),
        sa.Column("changed_at", types.moment_type(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name", name="uq_script_rules_name"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_script_rules_owner"),
    )
    op.create_index("ix_script_rules_owner", "script_rules", ["owner_id"])
    op.create_table(
        "rule_timers",
        sa.Column("rule_name", types.name_type(), nullable=False),
        sa.Column("version_no", sa.Integer(), nullable=False),
        sa.Column("due_at", types.moment_type(), nullable=False),
        sa.PrimaryKeyConstraint("rule_name", name="pk_rule_timers"),
    )
    op.create_table(
        "rule_queue",
        sa.Column("execution_key", types.name_type(64), nullable=False),
        sa.Column("rule_name", types.name_type(), nullable=False),
        sa.Column("due_at", types.moment_type(), nullable=False),
        sa.Column("content", types.Json(), nullable=False),
        sa.PrimaryKeyConstraint("execution_key", name="pk_rule_queue"),
    )
    op.create_index("ix_rule_queue_due", "rule_queue", ["due_at"])
    op.create_table(
        "rule_dead_letters",
        sa.Column("id", types.key_type(), sa.Identity(always=False), nullable=False),
        sa.Column("rule_name", types.name_type(), nullable=False),
        sa.Column("execution_key", types.name_type(64), nullable=False),
        sa.Column("failed_at", types.moment_type(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("reason_text", types.LongText(), nullable=True),
        sa.Column("content", types.Json(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("rule_name", "execution_key", name="uq_rule_dead_letters"),
    )
    op.create_index("ix_rule_dead_letters", "rule_dead_letters", ["rule_name", "id"])
    op.create_table(
        "rule_done",
        sa.Column("execution_key", types.name_type(64), nullable=False),
        sa.Column("effect_no", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("done_at", types.moment_type(), nullable=False),
        sa.PrimaryKeyConstraint("execution_key", "effect_no", name="pk_rule_done"),
    )
    op.create_index("ix_rule_done_at", "rule_done", ["done_at"])
    op.create_table(
        "rule_values",
        sa.Column("rule_name", types.name_type(), nullable=False),
        sa.Column("value_key", types.name_type(), nullable=False),
        sa.Column("content", types.Json(), nullable=False),
        sa.PrimaryKeyConstraint("rule_name", "value_key", name="pk_rule_values"),
    )
