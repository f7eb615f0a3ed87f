"""The tables of CEP: events, rules, and the state of the windows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from storage.bdc.models import Base
from storage.bdc.types import Blob, Flag, Json, LongText, OptionalText, key_type, moment_type, name_type


class CepEventRow(Base):
    """A CEP event: an ontology and its ticked attributes."""

    __tablename__ = "cep_events"
    __table_args__ = (
        UniqueConstraint("name", name="uq_cep_events_name"),
        ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_cep_events_owner"),
        ForeignKeyConstraint(["ontology_id"], ["ontologies.id"], name="fk_cep_events_ontology"),
        Index("ix_cep_events_owner", "owner_id"),
        Index("ix_cep_events_ontology", "ontology_id"),
    )
    id: Mapped[int] = mapped_column(key_type(), Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(name_type())
    owner_id: Mapped[int] = mapped_column(BigInteger)
    ontology_id: Mapped[int] = mapped_column(BigInteger)
    attributes: Mapped[Any] = mapped_column(Json, nullable=False)
    time_path: Mapped[str] = mapped_column(OptionalText(255), nullable=True)


class CepRuleRow(Base):
    """A CEP rule: the three boxes."""

    __tablename__ = "cep_rules"
    __table_args__ = (
        UniqueConstraint("name", name="uq_cep_rules_name"),
        ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_cep_rules_owner"),
        Index("ix_cep_rules_owner", "owner_id"),
    )
    id: Mapped[int] = mapped_column(key_type(), Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(name_type())
    owner_id: Mapped[int] = mapped_column(BigInteger)
    is_active: Mapped[bool] = mapped_column(Flag)
    version_no: Mapped[int] = mapped_column(Integer)
    from_box: Mapped[str] = mapped_column(LongText, nullable=True)
    select_box: Mapped[str] = mapped_column(LongText, nullable=True)
    insert_box: Mapped[str] = mapped_column(LongText, nullable=True)


class CepSnapshot(Base):
    """The state of one shard, and up to which change of each partition it goes."""

    __tablename__ = "cep_snapshots"
    __table_args__ = (PrimaryKeyConstraint("shard_name", name="pk_cep_snapshots"),)
    shard_name: Mapped[str] = mapped_column(name_type())
    taken_at: Mapped[datetime] = mapped_column(moment_type())
    positions: Mapped[Any] = mapped_column(Json, nullable=False)
    state: Mapped[bytes] = mapped_column(Blob, nullable=True)
