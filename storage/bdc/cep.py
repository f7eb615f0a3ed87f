"""CEP in the configuration database: events and rules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, delete, select

from sib.cep.definitions import CepEvent, CepRule, streams_of
from sib.errors import SibError
from storage.bdc.cep_models import CepEventRow, CepRuleRow
from storage.bdc.configuration import Configuration
from storage.bdc.models import Ontology, User
from storage.bdc.records import Outcome

if TYPE_CHECKING:
    from sib.cep.language.ast import Rule

_EVENTS = (
    select(CepEventRow.__table__, User.name.label("owner"), Ontology.name.label("ontology"))
    .join(User, User.id == CepEventRow.owner_id)
    .join(Ontology, Ontology.id == CepEventRow.ontology_id)
)
_RULES = select(CepRuleRow.__table__, User.name.label("owner")).join(User, User.id == CepRuleRow.owner_id)


class CepEventRepository:
    """The CEP events, as one transaction sees them."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    def all(self) -> list[CepEvent]:
        return [_event(row) for row in self._configuration.connection.execute(_EVENTS.order_by(CepEventRow.name))]

    def get(self, name: str) -> CepEvent | None:
        row = self._configuration.connection.execute(_EVENTS.where(CepEventRow.name == name)).first()
        return None if row is None else _event(row)

    def put(self, event: CepEvent) -> Outcome:
        """Make this event what the record says.

        Raises:
            NotFoundError: its owner or ontology does not exist.
        """
        current = self.get(event.name)
        if current == event:
            return Outcome.UNCHANGED
        values = {
            "owner_id": self._configuration.user_id(event.owner),
            "ontology_id": self._configuration.ontology_id(event.ontology),
            "attributes": list(event.attributes),
            "time_path": event.time_path,
        }
        self._configuration.store(CepEventRow, {"name": event.name}, values, is_new=current is None)
        return Outcome.CREATED if current is None else Outcome.CHANGED

    def delete(self, name: str) -> None:
        """Delete an event; rules that read it do not run any more. Idempotent."""
        if self._configuration.connection.execute(delete(CepEventRow).where(CepEventRow.name == name)).rowcount:
            self._configuration.is_changed = True


class CepRuleRepository:
    """The CEP rules, as one transaction sees them."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    def all(self) -> list[CepRule]:
        return [_rule(row) for row in self._configuration.connection.execute(_RULES.order_by(CepRuleRow.name))]

    def get(self, name: str) -> CepRule | None:
        row = self._configuration.connection.execute(_RULES.where(CepRuleRow.name == name)).first()
        return None if row is None else _rule(row)

    def put(self, rule: CepRule) -> Outcome:
        """Make this rule what the record says; its version counts up by itself.

        Raises:
            NotFoundError: its owner does not exist.
        """
        current = self.get(rule.name)
        if current == rule:
            return Outcome.UNCHANGED
        values: dict[str, Any] = {
            "owner_id": self._configuration.user_id(rule.owner),
            "is_active": rule.active,
            "version_no": 1 if current is None else current.version + 1,
            "from_box": rule.from_box,
            "select_box": rule.select_box,
            "insert_box": rule.insert_box,
        }
        self._configuration.store(CepRuleRow, {"name": rule.name}, values, is_new=current is None)
        return Outcome.CREATED if current is None else Outcome.CHANGED

    def delete(self, name: str) -> None:
        """Delete a rule. Idempotent."""
        if self._configuration.connection.execute(delete(CepRuleRow).where(CepRuleRow.name == name)).rowcount:
            self._configuration.is_changed = True


def outputs(configuration: Configuration) -> dict[str, list[tuple[str, frozenset[str]]]]:
    """What active rules put out: by target, in lower case, the owner of each such rule and the ontologies that it reads."""
    ontology_of = _ontologies(configuration)
    found: dict[str, list[tuple[str, frozenset[str]]]] = {}
    for rule, parsed in running_rules(configuration):
        read = frozenset(ontology_of[stream] for stream in streams_of(parsed) if stream in ontology_of)
        found.setdefault(parsed.target.casefold(), []).append((rule.owner, read))
    return found


def origin(configuration: Configuration, output: str) -> str:
    """The ontology that an output comes from, as ``cepData`` names it; "" if no active rule makes this output.

    It is that of the first event in the From box of its rule, or in that of the rule whose outputs this one reads.
    """
    ontology_of = _ontologies(configuration)
    read: dict[str, list[str]] = {}
    for _, parsed in running_rules(configuration):
        read.setdefault(parsed.target.casefold(), streams_of(parsed))
    made: set[str] = set()
    waiting = [output.casefold()]
    while waiting:
        stream = waiting.pop()
        if made and stream in ontology_of:
            return ontology_of[stream]
        if stream not in made:
            made.add(stream)
            waiting += reversed(read.get(stream, []))
    return ""


def _ontologies(configuration: Configuration) -> dict[str, str]:
    return {event.name.casefold(): event.ontology for event in configuration.cep_events.all()}


def running_rules(configuration: Configuration) -> Iterator[tuple[CepRule, Rule]]:
    """The active rules, with what their boxes say; those that cannot be read do not run and are left out."""
    for rule in configuration.cep_rules.all():
        if rule.active:
            with suppress(SibError, ValueError):  # of an older version's making
                yield rule, rule.parse()


def _event(row: Row[Any]) -> CepEvent:
    return CepEvent(row.name, row.owner, row.ontology, tuple(row.attributes), row.time_path)


def _rule(row: Row[Any]) -> CepRule:
    return CepRule(
        row.name, row.owner, row.from_box, row.select_box, row.insert_box, bool(row.is_active), row.version_no
    )
