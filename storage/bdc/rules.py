"""Script rules: what they are (as part of the configuration), and what must outlive the process that runs them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from sib.rules.rule import Rule, RuleType, read_definition
from storage.bdc.configuration import Configuration
from storage.bdc.engine import Database
from storage.bdc.identities import chunks
from storage.bdc.models import User
from storage.bdc.records import Outcome
from storage.bdc.rule_models import RuleDeadLetter, RuleDone, RuleQueueItem, RuleTimer, RuleValue, ScriptRule

DEAD_LETTERS_MAX = 10_000
"""Of one rule; beyond it the oldest are forgotten."""
QUEUE_MAX = 100_000
"""Executions that wait for their time, of all rules."""
VALUES_MAX = 10_000
"""Keys of one rule."""

_SELECT = select(ScriptRule.__table__, User.name.label("owner")).join(User, User.id == ScriptRule.owner_id)


class RuleRepository:
    """The rules, as one transaction sees them."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    def all(self) -> list[Rule]:
        rows = self._configuration.connection.execute(_SELECT.order_by(ScriptRule.name))
        return [_rule(row) for row in rows]

    def get(self, name: str) -> Rule | None:
        row = self._configuration.connection.execute(_SELECT.where(ScriptRule.name == name)).first()
        return None if row is None else _rule(row)

    def put(self, rule: Rule) -> Outcome:
        """Make this rule what the record says; its version counts up by itself.

        Raises:
            NotFoundError: its owner does not exist.
        """
        current = self.get(rule.name)
        if current == rule:
            return Outcome.UNCHANGED
        values: dict[str, Any] = {
            "owner_id": self._configuration.user_id(rule.owner),
            "rule_type": rule.type.value,
            "is_active": rule.active,
            "version_no": 1 if current is None else current.version + 1,
            "definition": rule.definition(),
            "changed_at": self._configuration.now(),
        }
        self._configuration.store(ScriptRule, {"name": rule.name}, values, is_new=current is None)
        return Outcome.CREATED if current is None else Outcome.CHANGED

    def delete(self, name: str) -> None:
        """Delete a rule and everything that is kept for it. Idempotent."""
        connection = self._configuration.connection
        if connection.execute(delete(ScriptRule).where(ScriptRule.name == name)).rowcount:
            self._configuration.is_changed = True
        for table in (RuleTimer, RuleQueueItem, RuleDeadLetter, RuleValue):
            connection.execute(delete(table).where(table.rule_name == name))


def _rule(row: Row[Any]) -> Rule:
    return Rule(
        name=row.name,
        owner=row.owner,
        type=RuleType(row.rule_type),
        active=bool(row.is_active),
        version=row.version_no,
        **read_definition(row.definition),
    )


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An execution that has failed for good. ``id`` is None before it is kept."""

    rule: str
    key: str
    reason: str
    attempts: int
    content: Mapping[str, Any]
    """Its trigger, as JSON."""
    at: datetime
    id: int | None = None


@dataclass(frozen=True, slots=True)
class QueuedRun:
    """An execution that another rule asked for."""

    key: str
    rule: str
    due_at: datetime
    content: Mapping[str, Any]


class RuleStore:
    """Dead letters, queue, timers, values and the record of effects. Each call is one transaction; safe for threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # What has been done

    def done(self, key: str) -> frozenset[int]:
        """The effects of an execution that are recorded as done, by their numbers."""
        statement = select(RuleDone.effect_no).where(RuleDone.execution_key == key)
        with self._database.read() as connection:
            return frozenset(int(row[0]) for row in connection.execute(statement))

    def record(
        self,
        key: str,
        numbers: Iterable[int],
        now: datetime,
        *,
        rule: str = "",
        puts: Mapping[str, Any] | None = None,
        deletes: Iterable[str] = (),
        queued: Sequence[QueuedRun] = (),
    ) -> None:
        """Remember effects as done, in one transaction with the values and executions that they are. Idempotent.

        What is recorded already is left out with what belongs to it: the caller asks ``done`` first.
        """
        with self._database.write() as connection:
            present = connection.execute(select(RuleDone.effect_no).where(RuleDone.execution_key == key))
            missing = sorted(set(numbers) - {int(row[0]) for row in present})
            if not missing:
                return
            rows = [{"execution_key": key, "effect_no": number, "done_at": now} for number in missing]
            connection.execute(insert(RuleDone), rows)
            _put_values(connection, rule, puts or {}, deletes)
            _enqueue(connection, queued)

    def forget_done(self, before: datetime) -> None:
        """Forget what was done long ago: it does not come again."""
        with self._database.write() as connection:
            connection.execute(delete(RuleDone).where(RuleDone.done_at < before))

    # Values

    def values(self, rule: str) -> dict[str, Any]:
        """All values of a rule by their keys."""
        statement = select(RuleValue.value_key, RuleValue.content).where(RuleValue.rule_name == rule)
        with self._database.read() as connection:
            return {row.value_key: row.content for row in connection.execute(statement)}

    # Queue and timers

    def due(self, now: datetime, limit: int) -> list[QueuedRun]:
        """The executions whose time has come, the oldest first."""
        statement = (
            select(RuleQueueItem.__table__)
            .where(RuleQueueItem.due_at <= now)
            .order_by(RuleQueueItem.due_at, RuleQueueItem.execution_key)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [
                QueuedRun(row.execution_key, row.rule_name, row.due_at, row.content)
                for row in connection.execute(statement)
            ]

    def unqueue(self, keys: Sequence[str]) -> None:
        """These have been carried out."""
        with self._database.write() as connection:
            for chunk in chunks(list(keys)):
                connection.execute(delete(RuleQueueItem).where(RuleQueueItem.execution_key.in_(chunk)))

    def timers(self) -> dict[str, tuple[int, datetime]]:
        """When each timed rule runs next, and for which version of it that was decided."""
        with self._database.read() as connection:
            rows = connection.execute(select(RuleTimer.__table__))
            return {row.rule_name: (row.version_no, row.due_at) for row in rows}

    def set_timer(self, rule: str, version: int, due_at: datetime) -> None:
        values = {"version_no": version, "due_at": due_at}
        with self._database.write() as connection:
            changed = connection.execute(update(RuleTimer).where(RuleTimer.rule_name == rule).values(**values))
            if not changed.rowcount:
                connection.execute(delete(RuleTimer).where(RuleTimer.rule_name == rule))
                connection.execute(insert(RuleTimer).values(rule_name=rule, **values))

    # Dead letters

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep executions that have failed for good. One that is there already is replaced."""
        with self._database.write() as connection:
            for letter in letters:
                connection.execute(
                    delete(RuleDeadLetter).where(
                        RuleDeadLetter.rule_name == letter.rule, RuleDeadLetter.execution_key == letter.key
                    )
                )
                connection.execute(insert(RuleDeadLetter).values(**_letter_row(letter)))
            for rule in {letter.rule for letter in letters}:
                _forget_oldest_letters(connection, rule)

    def dead_letters(self, rule: str | None = None, *, limit: int = 1000) -> list[DeadLetter]:
        """The newest dead letters, newest first: of one rule, or of all."""
        statement = select(RuleDeadLetter.__table__).order_by(RuleDeadLetter.id.desc()).limit(limit)
        if rule is not None:
            statement = statement.where(RuleDeadLetter.rule_name == rule)
        with self._database.read() as connection:
            return [_letter(row) for row in connection.execute(statement)]

    def dead_letter_counts(self) -> dict[str, int]:
        """How many dead letters each rule has."""
        statement = select(RuleDeadLetter.rule_name, func.count()).group_by(RuleDeadLetter.rule_name)
        with self._database.read() as connection:
            return {row[0]: int(row[1]) for row in connection.execute(statement)}

    def raise_letters(self, ids: Sequence[int]) -> None:
        """These have been carried out after all, or are not wanted any more."""
        with self._database.write() as connection:
            for chunk in chunks(list(ids)):
                connection.execute(delete(RuleDeadLetter).where(RuleDeadLetter.id.in_(chunk)))


def _put_values(connection: Connection, rule: str, puts: Mapping[str, Any], deletes: Iterable[str]) -> None:
    for chunk in chunks(sorted({*puts, *deletes})):
        connection.execute(delete(RuleValue).where(RuleValue.rule_name == rule, RuleValue.value_key.in_(chunk)))
    if puts:
        rows = [{"rule_name": rule, "value_key": key, "content": value} for key, value in puts.items()]
        connection.execute(insert(RuleValue), rows)


def _enqueue(connection: Connection, queued: Sequence[QueuedRun]) -> None:
    if queued:
        rows = [
            {"execution_key": run.key, "rule_name": run.rule, "due_at": run.due_at, "content": dict(run.content)}
            for run in queued
        ]
        connection.execute(insert(RuleQueueItem), rows)


def _letter_row(letter: DeadLetter) -> dict[str, Any]:
    return {
        "rule_name": letter.rule,
        "execution_key": letter.key,
        "failed_at": letter.at,
        "attempts": letter.attempts,
        "reason_text": letter.reason,
        "content": dict(letter.content),
    }


def _letter(row: Row[Any]) -> DeadLetter:
    return DeadLetter(
        row.rule_name, row.execution_key, row.reason_text, row.attempts, row.content, row.failed_at, int(row.id)
    )


def _forget_oldest_letters(connection: Connection, rule: str) -> None:
    mine = RuleDeadLetter.rule_name == rule
    surplus = connection.execute(select(func.count()).select_from(RuleDeadLetter).where(mine)).scalar_one()
    surplus -= DEAD_LETTERS_MAX
    if surplus <= 0:
        return
    oldest = select(RuleDeadLetter.id).where(mine).order_by(RuleDeadLetter.id).limit(surplus)
    for ids in chunks(list(connection.execute(oldest).scalars())):
        connection.execute(delete(RuleDeadLetter).where(RuleDeadLetter.id.in_(ids)))
