"""Tokens are found by the credential that sessions keep of them."""

import hashlib

import sqlalchemy as sa
from alembic import op

from storage.bdc import types

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tokens", sa.Column("credential", types.name_type(64), nullable=True))
    tokens = sa.table("tokens", sa.column("id"), sa.column("token"), sa.column("credential"))
    connection = op.get_bind()
    for row in connection.execute(sa.select(tokens.c.id, tokens.c.token)).all():
        digest = hashlib.blake2b(row.token.encode(), digest_size=16).hexdigest()
        connection.execute(tokens.update().where(tokens.c.id == row.id).values(credential=f"token:{digest}"))
    op.create_index("ix_tokens_credential", "tokens", ["credential"], unique=True)
