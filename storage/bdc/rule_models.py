"""The tables of script rules: the rules, what waits for its time, what failed, and what has been done already."""

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
from storage.bdc.types import Flag, Json, LongText, key_type, moment_type, name_type

EXECUTION_CHARS = 64


class ScriptRule(Base):
    """A script rule; ``definition`` has what its columns do not."""

    __tablename__ = "script_rules"
    __table_args__ = (
        UniqueConstraint("name", name="uq_script_rules_name"),
        ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_script_rules_owner"),
        Index("ix_script_rules_owner", "owner_id"),
    )
    id: Mapped[int] = mapped_column(key_type(), Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(name_type())
    owner_id: Mapped[int] = mapped_column(BigInteger)
    rule_type: Mapped[str] = mapped_column(name_type(16))
    is_active: Mapped[bool] = mapped_column(Flag)
    version_no: Mapped[int] = mapped_column(Integer)
    definition: Mapped[Any] = mapped_column(Json, nullable=False)
    changed_at: Mapped[datetime] = mapped_column(moment_type())


class RuleTimer(Base):
    """When a timed rule runs next."""

    __tablename__ = "rule_timers"
    __table_args__ = (PrimaryKeyConstraint("rule_name", name="pk_rule_timers"),)
    rule_name: Mapped[str] = mapped_column(name_type())
    version_no: Mapped[int] = mapped_column(Integer)
    due_at: Mapped[datetime] = mapped_column(moment_type())


class RuleQueueItem(Base):
    """An execution that another rule has asked for."""

    __tablename__ = "rule_queue"
    __table_args__ = (
        PrimaryKeyConstraint("execution_key", name="pk_rule_queue"),
        Index("ix_rule_queue_due", "due_at"),
    )
    execution_key: Mapped[str] = mapped_column(name_type(EXECUTION_CHARS))
    rule_name: Mapped[str] = mapped_column(name_type())
    due_at: Mapped[datetime] = mapped_column(moment_type())
    content: Mapped[Any] = mapped_column(Json, nullable=False)


class RuleDeadLetter(Base):
    """What triggered an execution that has failed for good."""

    __tablename__ = "rule_dead_letters"
    __table_args__ = (
        UniqueConstraint("rule_name", "execution_key", name="uq_rule_dead_letters"),
        Index("ix_rule_dead_letters", "rule_name", "id"),
    )
    id: Mapped[int] = mapped_column(key_type(), Identity(), primary_key=True)
    rule_name: Mapped[str] = mapped_column(name_type())
    execution_key: Mapped[str] = mapped_column(name_type(EXECUTION_CHARS))
    failed_at: Mapped[datetime] = mapped_column(moment_type())
    attempts: Mapped[int] = mapped_column(Integer)
    reason_text: Mapped[str] = mapped_column(LongText, nullable=True)
    content: Mapped[Any] = mapped_column(Json, nullable=False)


class RuleDone(Base):
    """An effect that cannot be seen where it went to, and so has to be remembered here."""

    __tablename__ = "rule_done"
    __table_args__ = (
        PrimaryKeyConstraint("execution_key", "effect_no", name="pk_rule_done"),
        Index("ix_rule_done_at", "done_at"),
    )
    execution_key: Mapped[str] = mapped_column(name_type(EXECUTION_CHARS))
    effect_no: Mapped[int] = mapped_column(Integer, autoincrement=False)
    done_at: Mapped[datetime] = mapped_column(moment_type())


class RuleValue(Base):
    """What a rule keeps under a key."""

    __tablename__ = "rule_values"
    __table_args__ = (PrimaryKeyConstraint("rule_name", "value_key", name="pk_rule_values"),)
    rule_name: Mapped[str] = mapped_column(name_type())
    value_key: Mapped[str] = mapped_column(name_type())
    content: Mapped[Any] = mapped_column(Json, nullable=False)
