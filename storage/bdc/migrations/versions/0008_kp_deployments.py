"""KPs that run inside the platform."""

import sqlalchemy as sa
from alembic import op

from storage.bdc import types

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "kp_bundles",
        sa.Column("digest", types.name_type(64), nullable=False),
        sa.Column("content", types.Blob(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", types.moment_type(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_kp_bundles"),
    )
    op.create_table(
        "kp_deployments",
        sa.Column("id", types.key_type(), sa.Identity(always=False), nullable=False),
        sa.Column("kp_id", sa.BigInteger(), nullable=False),
        sa.Column("instance_name", types.name_type(), nullable=False),
        sa.Column("run_state", types.name_type(16), nullable=False),
        sa.Column("detail_text", types.LongText(), nullable=True),
        sa.Column("release_no", sa.Integer(), nullable=False),
        sa.Column("starts", sa.Integer(), nullable=False),
        sa.Column("changed_at", types.moment_type(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("kp_id", "instance_name", name="uq_kp_deployments"),
        sa.ForeignKeyConstraint(["kp_id"], ["kps.id"], name="fk_kp_deployments_kp", ondelete="CASCADE"),
    )
    op.create_table(
        "kp_releases",
        sa.Column("deployment_id", sa.BigInteger(), nullable=False),
        sa.Column("release_no", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("bundle_digest", types.name_type(64), nullable=False),
        sa.Column("manifest", types.Json(), nullable=False),
        sa.Column("deployed_by", types.name_type(), nullable=False),
        sa.Column("created_at", types.moment_type(), nullable=False),
        sa.PrimaryKeyConstraint("deployment_id", "release_no", name="pk_kp_releases"),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["kp_deployments.id"], name="fk_kp_releases", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "kp_secrets",
        sa.Column("kp_id", sa.BigInteger(), nullable=False),
        sa.Column("secret_name", types.name_type(), nullable=False),
        sa.Column("secret_text", types.LongText(), nullable=True),
        sa.PrimaryKeyConstraint("kp_id", "secret_name", name="pk_kp_secrets"),
        sa.ForeignKeyConstraint(["kp_id"], ["kps.id"], name="fk_kp_secrets_kp", ondelete="CASCADE"),
    )
