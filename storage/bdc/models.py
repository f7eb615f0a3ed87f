"""The tables of the BDC. Portable rules: names of at most 30 characters, no reserved words, indexes named by hand."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from storage.bdc.types import Blob, Flag, Json, LongText, OptionalText, key_type, moment_type, name_type

SCHEMA_REVISION = "0010"
"""The migration these models stand for."""


class Base(DeclarativeBase):
    """Common base of all tables of the BDC."""


def _generated_key() -> Mapped[int]:
    return mapped_column(key_type(), Identity(), primary_key=True)


def _json() -> Mapped[Any]:
    return mapped_column(Json, nullable=False)


class ConfigCounter(Base):
    """One row: the number of the configuration, counted up by every transaction that changes it."""

    __tablename__ = "config_counter"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    version: Mapped[int] = mapped_column(BigInteger)


class User(Base):
    """A user of the platform; the owner of KPs and ontologies."""

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("name", name="uq_users_name"),
        UniqueConstraint("api_key", name="uq_users_api_key"),
        CheckConstraint("user_role in ('ADMINISTRADOR', 'COLABORADOR', 'USUARIO')", name="ck_users_role"),
    )
    id: Mapped[int] = _generated_key()
    name: Mapped[str] = mapped_column(name_type())
    password_hash: Mapped[str] = mapped_column(OptionalText(255), nullable=True)
    user_role: Mapped[str] = mapped_column(name_type(16))
    email: Mapped[str] = mapped_column(OptionalText(254), nullable=True)
    is_active: Mapped[bool] = mapped_column(Flag)
    api_key: Mapped[str] = mapped_column(name_type(64))
    created_at: Mapped[datetime] = mapped_column(moment_type())


class Template(Base):
    """A schema to start an ontology from, beside the built-in catalogue."""

    __tablename__ = "templates"
    __table_args__ = (UniqueConstraint("name", "version", name="uq_templates_name_version"),)
    id: Mapped[int] = _generated_key()
    name: Mapped[str] = mapped_column(name_type())
    version: Mapped[int] = mapped_column(Integer)
    category: Mapped[str] = mapped_column(OptionalText(191), nullable=True)
    description: Mapped[str] = mapped_column(LongText, nullable=True)
    schema_text: Mapped[str] = mapped_column(LongText, nullable=True)


class Ontology(Base):
    """An ontology; ``version`` is the number of the schema in force."""

    __tablename__ = "ontologies"
    __table_args__ = (
        UniqueConstraint("name", name="uq_ontologies_name"),
        ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_ontologies_owner"),
        ForeignKeyConstraint(["parent_id"], ["ontologies.id"], name="fk_ontologies_parent"),
        Index("ix_ontologies_owner", "owner_id"),
        Index("ix_ontologies_parent", "parent_id"),
    )
    id: Mapped[int] = _generated_key()
    name: Mapped[str] = mapped_column(name_type())
    owner_id: Mapped[int] = mapped_column(BigInteger)
    description: Mapped[str] = mapped_column(LongText, nullable=True)
    template: Mapped[str] = mapped_column(OptionalText(255), nullable=True)
    version: Mapped[int] = mapped_column(Integer)
    is_active: Mapped[bool] = mapped_column(Flag)
    is_public: Mapped[bool] = mapped_column(Flag)
    parent_id: Mapped[int | None] = mapped_column(BigInteger)
    index_list: Mapped[Any] = _json()
    window_s: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(moment_type())


class OntologyVersion(Base):
    """The schema of one version of an ontology, byte for byte as it was given."""

    __tablename__ = "ontology_versions"
    __table_args__ = (
        PrimaryKeyConstraint("ontology_id", "version", name="pk_ontology_versions"),
        ForeignKeyConstraint(["ontology_id"], ["ontologies.id"], name="fk_ontology_versions", ondelete="CASCADE"),
    )
    ontology_id: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(Integer)
    schema_text: Mapped[str] = mapped_column(LongText, nullable=True)
    created_at: Mapped[datetime] = mapped_column(moment_type())


class OntologyPermission(Base):
    """What a user who is not the owner may do with an ontology."""

    __tablename__ = "permissions"
    __table_args__ = (
        PrimaryKeyConstraint("ontology_id", "user_id", name="pk_permissions"),
        ForeignKeyConstraint(["ontology_id"], ["ontologies.id"], name="fk_permissions_ontology", ondelete="CASCADE"),
        ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_permissions_user", ondelete="CASCADE"),
        CheckConstraint("permission in ('ALL', 'INSERT', 'QUERY')", name="ck_permissions_permission"),
        Index("ix_permissions_user", "user_id"),
    )
    ontology_id: Mapped[int] = mapped_column(BigInteger)
    user_id: Mapped[int] = mapped_column(BigInteger)
    permission: Mapped[str] = mapped_column(name_type(8))


class Kp(Base):
    """A registered KP."""

    __tablename__ = "kps"
    __table_args__ = (
        UniqueConstraint("name", name="uq_kps_name"),
        ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_kps_owner"),
        Index("ix_kps_owner", "owner_id"),
    )
    id: Mapped[int] = _generated_key()
    name: Mapped[str] = mapped_column(name_type())
    owner_id: Mapped[int] = mapped_column(BigInteger)
    description: Mapped[str] = mapped_column(LongText, nullable=True)
    cipher_key: Mapped[str] = mapped_column(name_type())
    is_cipher_only: Mapped[bool] = mapped_column(Flag)
    meta: Mapped[Any] = _json()
    created_at: Mapped[datetime] = mapped_column(moment_type())


class KpOntology(Base):
    """An ontology that a KP is registered to use."""

    __tablename__ = "kp_ontologies"
    __table_args__ = (
        PrimaryKeyConstraint("kp_id", "ontology_id", name="pk_kp_ontologies"),
        ForeignKeyConstraint(["kp_id"], ["kps.id"], name="fk_kp_ontologies_kp", ondelete="CASCADE"),
        ForeignKeyConstraint(["ontology_id"], ["ontologies.id"], name="fk_kp_ontologies_ontology", ondelete="CASCADE"),
        Index("ix_kp_ontologies_ontology", "ontology_id"),
    )
    kp_id: Mapped[int] = mapped_column(BigInteger)
    ontology_id: Mapped[int] = mapped_column(BigInteger)


class Token(Base):
    """A token of exactly one KP. Kept in clear because the token list must return it; never logged."""

    __tablename__ = "tokens"
    __table_args__ = (
        UniqueConstraint("token", name="uq_tokens_token"),
        ForeignKeyConstraint(["kp_id"], ["kps.id"], name="fk_tokens_kp", ondelete="CASCADE"),
        Index("ix_tokens_kp", "kp_id"),
        Index("ix_tokens_credential", "credential", unique=True),
    )
    id: Mapped[int] = _generated_key()
    token: Mapped[str] = mapped_column(name_type(64))
    credential: Mapped[str] = mapped_column(name_type(64), nullable=True)
    kp_id: Mapped[int] = mapped_column(BigInteger)
    is_active: Mapped[bool] = mapped_column(Flag)
    created_at: Mapped[datetime] = mapped_column(moment_type())
    used_at: Mapped[datetime | None] = mapped_column(moment_type())


class KpInstance(Base):
    """A KP instance: registered beforehand (static) or seen when it joined."""

    __tablename__ = "kp_instances"
    __table_args__ = (
        PrimaryKeyConstraint("kp_id", "name", name="pk_kp_instances"),
        ForeignKeyConstraint(["kp_id"], ["kps.id"], name="fk_kp_instances_kp", ondelete="CASCADE"),
    )
    kp_id: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(name_type())
    is_static: Mapped[bool] = mapped_column(Flag)
    last_address: Mapped[str] = mapped_column(OptionalText(255), nullable=True)
    last_seen_at: Mapped[datetime | None] = mapped_column(moment_type())


class Session(Base):
    """An SSAP session. By names, without foreign keys: it is checked again whenever the configuration changes."""

    __tablename__ = "sessions"
    __table_args__ = (
        PrimaryKeyConstraint("session_key", name="pk_sessions"),
        Index("ix_sessions_expires_at", "expires_at"),
    )
    session_key: Mapped[str] = mapped_column(name_type(64))
    kp: Mapped[str] = mapped_column(name_type())
    instance: Mapped[str] = mapped_column(LongText, nullable=True)
    user_name: Mapped[str] = mapped_column(name_type())
    credential: Mapped[str] = mapped_column(name_type(64))
    gateway: Mapped[str] = mapped_column(OptionalText(191), nullable=True)
    client_ref: Mapped[str] = mapped_column(LongText, nullable=True)
    dialect: Mapped[int] = mapped_column(SmallInteger)
    is_ciphered: Mapped[bool] = mapped_column(Flag)
    created_at: Mapped[datetime] = mapped_column(moment_type())
    used_at: Mapped[datetime] = mapped_column(moment_type())
    expires_at: Mapped[datetime] = mapped_column(moment_type())


class Subscription(Base):
    """A subscription of a session."""

    __tablename__ = "subscriptions"
    __table_args__ = (
        PrimaryKeyConstraint("subscription_id", name="pk_subscriptions"),
        Index("ix_subscriptions_session_key", "session_key"),
    )
    subscription_id: Mapped[str] = mapped_column(name_type(64))
    session_key: Mapped[str] = mapped_column(name_type(64))
    ontology: Mapped[str] = mapped_column(name_type())
    query_text: Mapped[str] = mapped_column(LongText, nullable=True)
    query_type: Mapped[str] = mapped_column(name_type(16))
    params: Mapped[Any] = _json()
    filter_text: Mapped[str] = mapped_column(LongText, nullable=True)
    ms_refresh: Mapped[int] = mapped_column(BigInteger)
    dialect: Mapped[int] = mapped_column(SmallInteger)
    is_ciphered: Mapped[bool] = mapped_column(Flag)
    endpoint: Mapped[str] = mapped_column(LongText, nullable=True)
    gateway: Mapped[str] = mapped_column(OptionalText(191), nullable=True)
    created_at: Mapped[datetime] = mapped_column(moment_type())


class CommandListener(Base):
    """A SUBSCRIBECOMMAND with a REST endpoint. By names, as a session, and checked again like one."""

    __tablename__ = "command_listeners"
    __table_args__ = (PrimaryKeyConstraint("listener_id", name="pk_command_listeners"),)
    listener_id: Mapped[str] = mapped_column(name_type(64))
    kp: Mapped[str] = mapped_column(name_type())
    instance: Mapped[str] = mapped_column(LongText, nullable=True)
    command_type: Mapped[str] = mapped_column(LongText, nullable=True)
    user_name: Mapped[str] = mapped_column(name_type())
    credential: Mapped[str] = mapped_column(name_type(64))
    gateway: Mapped[str] = mapped_column(OptionalText(191), nullable=True)
    dialect: Mapped[int] = mapped_column(SmallInteger)
    endpoint: Mapped[str] = mapped_column(LongText, nullable=True)
    created_at: Mapped[datetime] = mapped_column(moment_type())


class DefinedQuery(Base):
    """A predefined (SIB_DEFINED) query."""

    __tablename__ = "defined_queries"
    __table_args__ = (
        UniqueConstraint("name", name="uq_defined_queries_name"),
        ForeignKeyConstraint(["ontology_id"], ["ontologies.id"], name="fk_defined_queries_ontology"),
        Index("ix_defined_queries_ontology", "ontology_id"),
    )
    id: Mapped[int] = _generated_key()
    name: Mapped[str] = mapped_column(name_type())
    ontology_id: Mapped[int] = mapped_column(BigInteger)
    query_type: Mapped[str] = mapped_column(name_type(16))
    query_text: Mapped[str] = mapped_column(LongText, nullable=True)
    params: Mapped[Any] = _json()


class Asset(Base):
    """An asset of the inventory."""

    __tablename__ = "assets"
    __table_args__ = (
        UniqueConstraint("identificacion", name="uq_assets_identificacion"),
        ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_assets_owner"),
        ForeignKeyConstraint(["kp_id"], ["kps.id"], name="fk_assets_kp", ondelete="SET NULL"),
        Index("ix_assets_owner", "owner_id"),
        Index("ix_assets_kp", "kp_id"),
    )
    id: Mapped[int] = _generated_key()
    identificacion: Mapped[str] = mapped_column(name_type())
    owner_id: Mapped[int] = mapped_column(BigInteger)
    descripcion: Mapped[str] = mapped_column(LongText, nullable=True)
    tipo: Mapped[str] = mapped_column(OptionalText(191), nullable=True)
    kp_id: Mapped[int | None] = mapped_column(BigInteger)
    properties: Mapped[Any] = _json()
    created_at: Mapped[datetime] = mapped_column(moment_type())


class ProcessLog(Base):
    """What devices reported (LOG, ERROR, STATUS, LOCATION), what processes did and who changed what."""

    __tablename__ = "process_log"
    __table_args__ = (Index("ix_process_log_kind", "kind", "id"),)
    id: Mapped[int] = _generated_key()
    logged_at: Mapped[datetime] = mapped_column(moment_type())
    kind: Mapped[str] = mapped_column(name_type(16))
    user_name: Mapped[str] = mapped_column(OptionalText(191), nullable=True)
    kp: Mapped[str] = mapped_column(OptionalText(191), nullable=True)
    instance: Mapped[str] = mapped_column(OptionalText(191), nullable=True)
    summary: Mapped[str] = mapped_column(LongText, nullable=True)
    details: Mapped[Any] = _json()


class Setting(Base):
    """A setting that was applied; it wins over the settings file."""

    __tablename__ = "settings"
    name: Mapped[str] = mapped_column(name_type(), primary_key=True)
    value_json: Mapped[Any] = _json()


class MqttSession(Base):
    """A persistent MQTT session."""

    __tablename__ = "mqtt_sessions"
    __table_args__ = (
        PrimaryKeyConstraint("client_id", name="pk_mqtt_sessions"),
        Index("ix_mqtt_sessions_gateway", "gateway"),
    )
    client_id: Mapped[str] = mapped_column(name_type(255))
    gateway: Mapped[str] = mapped_column(OptionalText(191), nullable=True)
    subscriptions: Mapped[Any] = _json()
    expiry_s: Mapped[int] = mapped_column(BigInteger)
    disconnected_at: Mapped[datetime | None] = mapped_column(moment_type())


class MqttMessage(Base):
    """A message that waits for the client of a persistent MQTT session."""

    __tablename__ = "mqtt_messages"
    __table_args__ = (PrimaryKeyConstraint("client_id", "seq_no", name="pk_mqtt_messages"),)
    client_id: Mapped[str] = mapped_column(name_type(255))
    seq_no: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    topic: Mapped[str] = mapped_column(LongText, nullable=True)
    payload: Mapped[bytes] = mapped_column(Blob, nullable=True)
    size_bytes: Mapped[int] = mapped_column(Integer)
    qos: Mapped[int] = mapped_column(SmallInteger)
    is_retained: Mapped[bool] = mapped_column(Flag)
    properties: Mapped[Any] = _json()
    expires_at: Mapped[datetime | None] = mapped_column(moment_type())


class MqttRetained(Base):
    """A retained MQTT message. Keyed by the SHA-256 of its topic: a topic is longer than any database's key."""

    __tablename__ = "mqtt_retained"
    __table_args__ = (PrimaryKeyConstraint("topic_hash", name="pk_mqtt_retained"),)
    topic_hash: Mapped[str] = mapped_column(name_type(64))
    topic: Mapped[str] = mapped_column(LongText, nullable=True)
    payload: Mapped[bytes] = mapped_column(Blob, nullable=True)
    qos: Mapped[int] = mapped_column(SmallInteger)
    properties: Mapped[Any] = _json()
    stamp: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[datetime | None] = mapped_column(moment_type())


class HistoryFile(Base):
    """A Parquet file of the history. By the ontology's name, without a foreign key: history outlives the configuration."""

    __tablename__ = "history_files"
    __table_args__ = (UniqueConstraint("ontology", "day_text", "file_name", name="uq_history_files_path"),)
    id: Mapped[int] = _generated_key()
    ontology: Mapped[str] = mapped_column(name_type())
    day_text: Mapped[str] = mapped_column(name_type(10))
    file_name: Mapped[str] = mapped_column(name_type(80))
    n_rows: Mapped[int] = mapped_column(BigInteger)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    first_at: Mapped[datetime | None] = mapped_column(moment_type())
    last_at: Mapped[datetime | None] = mapped_column(moment_type())
    layout: Mapped[str] = mapped_column(name_type(32))
    stale_rows: Mapped[Any] = _json()
    created_at: Mapped[datetime] = mapped_column(moment_type())
    retired_at: Mapped[datetime | None] = mapped_column(moment_type())
