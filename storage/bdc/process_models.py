"""The tables of the Process module: what was defined, how far each process is, and loads of files."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Identity, Index, PrimaryKeyConstraint, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from storage.bdc.models import Base
from storage.bdc.types import Flag, Json, LongText, OptionalText, key_type, moment_type, name_type


class Process(Base):
    """A process that the administrator defined, or a predefined one that he changed."""

    __tablename__ = "processes"
    __table_args__ = (UniqueConstraint("name", name="uq_processes_name"),)
    id: Mapped[int] = mapped_column(key_type(), Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(name_type())
    kind: Mapped[str] = mapped_column(name_type(16))
    ontology: Mapped[str] = mapped_column(OptionalText(191), nullable=True)
    schedule_text: Mapped[str] = mapped_column(LongText, nullable=True)
    is_active: Mapped[bool] = mapped_column(Flag)
    options: Mapped[Any] = mapped_column(Json, nullable=False)


class ProcessState(Base):
    """How far a process is: when it runs next, whether it is paused, its last run. No part of the configuration."""

    __tablename__ = "process_states"
    __table_args__ = (PrimaryKeyConstraint("name", name="pk_process_states"),)
    name: Mapped[str] = mapped_column(name_type(255))
    schedule_text: Mapped[str] = mapped_column(LongText, nullable=True)
    next_at: Mapped[datetime | None] = mapped_column(moment_type())
    is_paused: Mapped[bool] = mapped_column(Flag)
    run_state: Mapped[str] = mapped_column(OptionalText(16), nullable=True)
    run_detail: Mapped[Any] = mapped_column(Json, nullable=False)


class FileLoad(Base):
    """A file that is or was loaded into an ontology."""

    __tablename__ = "file_loads"
    __table_args__ = (Index("ix_file_loads_digest", "digest"),)
    id: Mapped[int] = mapped_column(key_type(), Identity(), primary_key=True)
    path: Mapped[str] = mapped_column(LongText, nullable=True)
    file_format: Mapped[str] = mapped_column(name_type(16))
    ontology: Mapped[str] = mapped_column(name_type())
    user_name: Mapped[str] = mapped_column(name_type())
    digest: Mapped[str] = mapped_column(name_type(64))
    state: Mapped[str] = mapped_column(name_type(16))
    n_done: Mapped[int] = mapped_column(BigInteger)
    n_stored: Mapped[int] = mapped_column(BigInteger)
    n_rejected: Mapped[int] = mapped_column(BigInteger)
    reject_path: Mapped[str] = mapped_column(LongText, nullable=True)
    reject_bytes: Mapped[int] = mapped_column(BigInteger)
    error_text: Mapped[str] = mapped_column(LongText, nullable=True)
    started_at: Mapped[datetime] = mapped_column(moment_type())
    ended_at: Mapped[datetime | None] = mapped_column(moment_type())
