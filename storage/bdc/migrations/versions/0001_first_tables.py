"""The first tables of the BDC."""

import sqlalchemy as sa
from alembic import op

from storage.bdc import types

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "config_counter",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "mqtt_messages",
        sa.Column("client_id", types.name_type(255), nullable=False),
        sa.Column("seq_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("topic", types.LongText(), nullable=True),
        sa.Column("payload", types.Blob(), nullable=True),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("qos", sa.SmallInteger(), nullable=False),
        sa.Column("is_retained", types.Flag(), nullable=False),
        sa.Column("properties", types.Json(), nullable=False),
        sa.Column("expires_at", types.moment_type(), nullable=True),
        sa.PrimaryKeyConstraint("client_id", "seq_no", name="pk_mqtt_messages"),
    )
    op.create_table(
        "mqtt_sessions",
        sa.Column("client_id", types.name_type(255), nullable=False),
        sa.Column("gateway", types.OptionalText(length=191), nullable=True),
        sa.Column("subscriptions", types.Json(), nullable=False),
        sa.Column("expiry_s", sa.BigInteger(), nullable=False),
        sa.Column("disconnected_at", types.moment_type(), nullable=True),
        sa.PrimaryKeyConstraint("client_id", name="pk_mqtt_sessions"),
    )
    op.create_index("ix_mqtt_sessions_gateway", "mqtt_sessions", ["gateway"])

    op.create_table(
        "process_log",
        sa.Column("id", types.key_type(), sa.Identity(always=False), nullable=False),
        sa.Column("logged_at", types.moment_type(), nullable=False),
        sa.Column("kind", types.name_type(16), nullable=False),
        sa.Column("user_name", types.OptionalText(length=191), nullable=True),
        sa.Column("kp", types.OptionalText(length=191), nullable=True),
        sa.Column("instance", types.OptionalText(length=191), nullable=True),
        sa.Column("summary", types.LongText(), nullable=True),
        sa.Column("details", types.Json(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_process_log_kind", "process_log", ["kind", "id"])

    op.create_table(
        "sessions",
        sa.Column("session_key", types.name_type(64), nullable=False),
        sa.Column("kp", types.name_type(), nullable=False),
        sa.Column("instance", types.LongText(), nullable=True),
        sa.Column("user_name", types.name_type(), nullable=False),
        sa.Column("credential", types.name_type(64), nullable=False),
        sa.Column("gateway", types.OptionalText(length=191), nullable=True),
        sa.Column("client_ref", types.LongText(), nullable=True),
        sa.Column("dialect", sa.SmallInteger(), nullable=False),
        sa.Column("is_ciphered", types.Flag(), nullable=False),
        sa.Column("created_at", types.moment_type(), nullable=False),
        sa.Column("used_at", types.moment_type(), nullable=False),
        sa.Column("expires_at", types.moment_type(), nullable=False),
        sa.PrimaryKeyConstraint("session_key", name="pk_sessions"),
    )
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])

    op.create_table(
        "settings",
        sa.Column("name", types.name_type(), nullable=False),
        sa.Column("value_json", types.Json(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "subscriptions",
        sa.Column("subscription_id", types.name_type(64), nullable=False),
        sa.Column("session_key", types.name_type(64), nullable=False),
        sa.Column("ontology", types.name_type(), nullable=False),
        sa.Column("query_text", types.LongText(), nullable=True),
        sa.Column("query_type", types.name_type(16), nullable=False),
        sa.Column("params", types.Json(), nullable=False),
        sa.Column("filter_text", types.LongText(), nullable=True),
        sa.Column("ms_refresh", sa.BigInteger(), nullable=False),
        sa.Column("dialect", sa.SmallInteger(), nullable=False),
        sa.Column("is_ciphered", types.Flag(), nullable=False),
        sa.Column("endpoint", types.LongText(), nullable=True),
        sa.Column("created_at", types.moment_type(), nullable=False),
        sa.PrimaryKeyConstraint("subscription_id", name="pk_subscriptions"),
    )
    op.create_index("ix_subscriptions_session_key", "subscriptions", ["session_key"])

    op.create_table(
        "templates",
        sa.Column("id", types.key_type(), sa.Identity(always=False), nullable=False),
        sa.Column("name", types.name_type(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("category", types.OptionalText(length=191), nullable=True),
        sa.Column("description", types.LongText(), nullable=True),
        sa.Column("schema_text", types.LongText(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name", "version", name="uq_templates_name_version"),
    )
    op.create_table(
        "users",
        sa.Column("id", types.key_type(), sa.Identity(always=False), nullable=False),
        sa.Column("name", types.name_type(), nullable=False),
        sa.Column("password_hash", types.OptionalText(length=255), nullable=True),
        sa.Column("user_role", types.name_type(16), nullable=False),
        sa.Column("email", types.OptionalText(length=254), nullable=True),
        sa.Column("is_active", types.Flag(), nullable=False),
        sa.Column("api_key", types.name_type(64), nullable=False),
        sa.Column("created_at", types.moment_type(), nullable=False),
        sa.CheckConstraint("user_role in ('ADMINISTRADOR', 'COLABORADOR', 'USUARIO')", name="ck_users_role"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("api_key", name="uq_users_api_key"),
        sa.UniqueConstraint("name", name="uq_users_name"),
    )
    op.create_table(
        "kps",
        sa.Column("id", types.key_type(), sa.Identity(always=False), nullable=False),
        sa.Column("name", types.name_type(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("description", types.LongText(), nullable=True),
        sa.Column("cipher_key", types.name_type(), nullable=False),
        sa.Column("is_cipher_only", types.Flag(), nullable=False),
        sa.Column("meta", types.Json(), nullable=False),
        sa.Column("created_at", types.moment_type(), nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_kps_owner"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name", name="uq_kps_name"),
    )
    op.create_index("ix_kps_owner", "kps", ["owner_id"])

    op.create_table(
        "ontologies",
        sa.Column("id", types.key_type(), sa.Identity(always=False), nullable=False),
        sa.Column("name", types.name_type(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("description", types.LongText(), nullable=True),
        sa.Column("template", types.OptionalText(length=255), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("is_active", types.Flag(), nullable=False),
        sa.Column("is_public", types.Flag(), nullable=False),
        sa.Column("parent_id", sa.BigInteger(), nullable=True),
        sa.Column("index_list", types.Json(), nullable=False),
        sa.Column("window_s", sa.BigInteger(), nullable=True),
        sa.Column("created_at", types.moment_type(), nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_ontologies_owner"),
        sa.ForeignKeyConstraint(["parent_id"], ["ontologies.id"], name="fk_ontologies_parent"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name", name="uq_ontologies_name"),
    )
    op.create_index("ix_ontologies_owner", "ontologies", ["owner_id"])
    op.create_index("ix_ontologies_parent", "ontologies", ["parent_id"])

    op.create_table(
        "assets",
        sa.Column("id", types.key_type(), sa.Identity(always=False), nullable=False),
        sa.Column("identificacion", types.name_type(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("descripcion", types.LongText(), nullable=True),
        sa.Column("tipo", types.OptionalText(length=191), nullable=True),
        sa.Column("kp_id", sa.BigInteger(), nullable=True),
        sa.Column("properties", types.Json(), nullable=False),
        sa.Column("created_at", types.moment_type(), nullable=False),
        sa.ForeignKeyConstraint(["kp_id"], ["kps.id"], name="fk_assets_kp", ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_assets_owner"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("identificacion", name="uq_assets_identificacion"),
    )
    op.create_index("ix_assets_kp", "assets", ["kp_id"])
    op.create_index("ix_assets_owner", "assets", ["owner_id"])

    op.create_table(
        "defined_queries",
        sa.Column("id", types.key_type(), sa.Identity(always=False), nullable=False),
        sa.Column("name", types.name_type(), nullable=False),
        sa.Column("ontology_id", sa.BigInteger(), nullable=False),
        sa.Column("query_type", types.name_type(16), nullable=False),
        sa.Column("query_text", types.LongText(), nullable=True),
        sa.Column("params", types.Json(), nullable=False),
        sa.ForeignKeyConstraint(["ontology_id"], ["ontologies.id"], name="fk_defined_queries_ontology"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name", name="uq_defined_queries_name"),
    )
    op.create_index("ix_defined_queries_ontology", "defined_queries", ["ontology_id"])

    op.create_table(
        "kp_instances",
        sa.Column("kp_id", sa.BigInteger(), nullable=False),
        sa.Column("name", types.name_type(), nullable=False),
        sa.Column("is_static", types.Flag(), nullable=False),
        sa.Column("last_address", types.OptionalText(length=255), nullable=True),
        sa.Column("last_seen_at", types.moment_type(), nullable=True),
        sa.ForeignKeyConstraint(["kp_id"], ["kps.id"], name="fk_kp_instances_kp", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("kp_id", "name", name="pk_kp_instances"),
    )
    op.create_table(
        "kp_ontologies",
        sa.Column("kp_id", sa.BigInteger(), nullable=False),
        sa.Column("ontology_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["kp_id"], ["kps.id"], name="fk_kp_ontologies_kp", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["ontology_id"], ["ontologies.id"], name="fk_kp_ontologies_ontology", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("kp_id", "ontology_id", name="pk_kp_ontologies"),
    )
    op.create_index("ix_kp_ontologies_ontology", "kp_ontologies", ["ontology_id"])

    op.create_table(
        "ontology_versions",
        sa.Column("ontology_id", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("schema_text", types.LongText(), nullable=True),
        sa.Column("created_at", types.moment_type(), nullable=False),
        sa.ForeignKeyConstraint(["ontology_id"], ["ontologies.id"], name="fk_ontology_versions", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("ontology_id", "version", name="pk_ontology_versions"),
    )
    op.create_table(
        "permissions",
        sa.Column("ontology_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("permission", types.name_type(8), nullable=False),
        sa.CheckConstraint("permission in ('ALL', 'INSERT', 'QUERY')", name="ck_permissions_permission"),
        sa.ForeignKeyConstraint(["ontology_id"], ["ontologies.id"], name="fk_permissions_ontology", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_permissions_user", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("ontology_id", "user_id", name="pk_permissions"),
    )
    op.create_index("ix_permissions_user", "permissions", ["user_id"])

    op.create_table(
        "tokens",
        sa.Column("id", types.key_type(), sa.Identity(always=False), nullable=False),
        sa.Column("token", types.name_type(64), nullable=False),
        sa.Column("kp_id", sa.BigInteger(), nullable=False),
        sa.Column("is_active", types.Flag(), nullable=False),
        sa.Column("created_at", types.moment_type(), nullable=False),
        sa.Column("used_at", types.moment_type(), nullable=True),
        sa.ForeignKeyConstraint(["kp_id"], ["kps.id"], name="fk_tokens_kp", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token", name="uq_tokens_token"),
    )
    op.create_index("ix_tokens_kp", "tokens", ["kp_id"])
    op.execute("INSERT INTO config_counter (id, version) VALUES (1, 0)")
