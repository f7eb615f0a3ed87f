"""SUBSCRIBECOMMANDs with a REST endpoint outlive their gateway."""

import sqlalchemy as sa
from alembic import op

from storage.bdc import types

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "command_listeners",
        sa.Column("listener_id", types.name_type(64), nullable=False),
        sa.Column("kp", types.name_type(), nullable=False),
        sa.Column("instance", types.LongText(), nullable=True),
        sa.Column("command_type", types.LongText(), nullable=True),
        sa.Column("user_name", types.name_type(), nullable=False),
        sa.Column("credential", types.name_type(64), nullable=False),
        sa.Column("gateway", types.OptionalText(length=191), nullable=True),
        sa.Column("dialect", sa.SmallInteger(), nullable=False),
        sa.Column("endpoint", types.LongText(), nullable=True),
        sa.Column("created_at", types.moment_type(), nullable=False),
        sa.PrimaryKeyConstraint("listener_id", name="pk_command_listeners"),
    )
