"""CEP events and rules, and the snapshots of their windows."""

import sqlalchemy as sa
from alembic import op

from storage.bdc import types

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cep_events",
        sa.Column("id", types.key_type(), sa.Identity(always=False), nullable=False),
        sa.Column("name", types.name_type(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("ontology_id", sa.BigInteger(), nullable=False),
        sa.Column("attributes", types.Json(), nullable=False),
        sa.Column("time_path", types.OptionalText(255), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name", name="uq_cep_events_name"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_cep_events_owner"),
        sa.ForeignKeyConstraint(["ontology_id"], ["ontologies.id"], name="fk_cep_events_ontology"),
    )
    op.create_index("ix_cep_events_owner", "cep_events", ["owner_id"])
    op.create_index("ix_cep_events_ontology", "cep_events", ["ontology_id"])
    op.create_table(
        "cep_rules",
        sa.Column("id", types.key_type(), sa.Identity(always=False), nullable=False),
        sa.Column("name", types.name_type(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("is_active", types.Flag(), nullable=False),
        sa.Column("version_no", sa.Integer(), nullable=False),
        sa.Column("from_box", types.LongText(), nullable=True),
        sa.Column("select_box", types.LongText(), nullable=True),
        sa.Column("insert_box", types.LongText(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name", name="uq_cep_rules_name"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_cep_rules_owner"),
    )
    op.create_index("ix_cep_rules_owner", "cep_rules", ["owner_id"])
    op.create_table(
        "cep_snapshots",
        sa.Column("shard_name", types.name_type(), nullable=False),
        sa.Column("taken_at", types.moment_type(), nullable=False),
        sa.Column("positions", types.Json(), nullable=False),
        sa.Column("state", types.Blob(), nullable=True),
        sa.PrimaryKeyConstraint("shard_name", name="pk_cep_snapshots"),
    )
