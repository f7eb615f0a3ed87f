"""REST callbacks stay at the gateway where they were asked for, wherever their session speaks."""

import sqlalchemy as sa
from alembic import op

from storage.bdc import types

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("subscriptions", sa.Column("gateway", types.OptionalText(length=191), nullable=True))
    # No gateway has this name: those there are belong to the first one.
    op.execute("UPDATE subscriptions SET gateway = 'http' WHERE endpoint IS NOT NULL")
