"""Retained MQTT messages. Sessions stay keyed by client id alone: a client has one session, whichever gateway it is at."""

import sqlalchemy as sa
from alembic import op

from storage.bdc import types

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mqtt_retained",
        sa.Column("topic_hash", types.name_type(64), nullable=False),
        sa.Column("topic", types.LongText(), nullable=True),
        sa.Column("payload", types.Blob(), nullable=True),
        sa.Column("qos", sa.SmallInteger(), nullable=False),
        sa.Column("properties", types.Json(), nullable=False),
        sa.Column("stamp", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", types.moment_type(), nullable=True),
        sa.PrimaryKeyConstraint("topic_hash", name="pk_mqtt_retained"),
    )
