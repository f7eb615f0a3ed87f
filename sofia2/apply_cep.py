"""The sections ``cep_events`` and ``cep_rules`` of the applied file."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sib.cep.definitions import CepEvent, CepRule, circle_of, misread, problems_of, streams_of
from sib.cep.events import EventDefinition
from sib.errors import SibError
from sofia2.applyfile import Declared, Section, read_name, read_ontology_name, read_user_name
from sofia2.applysections import Extension, Planning
from sofia2.filereaders import list_reader, nullable, read_flag, read_text

EVENTS = Section(
    "cep_events",
    "CEP event",
    "name",
    {
        "name": read_name,
        "owner": read_user_name,
        "ontology": read_ontology_name,
        "attributes": list_reader(read_name),
        "time": nullable(read_name),
    },
)
RULES = Section(
    "cep_rules",
    "CEP rule",
    "name",
    {
        "name": read_name,
        "owner": read_user_name,
        "from": read_text,
        "select": read_text,
        "insert_into": read_text,
        "active": read_flag,
    },
)
_BOXES = {"from": "from_box", "select": "select_box", "insert_into": "insert_box"}


def plan_event(planning: Planning, declared: Declared) -> CepEvent | None:
    """The event that shall be; None after a refusal."""
    given = declared.given
    current = planning.configuration.cep_events.get(declared.name)
    changes: dict[str, Any] = dict(planning.known_owner(declared))
    if "ontology" in given:
        changes["ontology"] = planning.known("ontologies", "ontology", given["ontology"])
    if "attributes" in given:
        changes["attributes"] = tuple(map(str, given["attributes"]))
    if "time" in given:
        changes["time_path"] = str(given["time"] or "")
    if current is None and not all([
        planning.require(declared, ("owner",), "a new CEP event needs an owner."),
        planning.require(declared, ("ontology",), "a new CEP event needs an ontology."),
    ]):  # fmt: skip
        return None
    event = replace(current, **changes) if current else CepEvent(declared.name, **changes)
    alike = [other.name for other in planning.others("cep_events") if other.name.casefold() == event.name.casefold()]
    if set(alike) - {event.name}:
        planning.refuse(declared.line, f"another CEP event differs from {event.name!r} only in case.")
    if planning.ontology(event.ontology) is not None:
        try:
            event.definition(planning.compiled(event.ontology))
        except SibError as error:
            planning.refuse(declared.line_of("attributes"), error.message)
    return event


def plan_rule(planning: Planning, declared: Declared) -> CepRule | None:
    """The rule that shall be; None after a refusal."""
    given = declared.given
    current = planning.configuration.cep_rules.get(declared.name)
    changes: dict[str, Any] = dict(planning.known_owner(declared))
    changes |= {field: str(given[key]) for key, field in _BOXES.items() if key in given}
    if "active" in given:
        changes["active"] = given["active"]
    needed = [
        planning.require(declared, (key,), f"a new CEP rule needs the key {key}.")
        for key in ("owner", *_BOXES)
        if current is None
    ]
    if not all(needed) or declared.is_faulty:
        return None
    rule = replace(current, **changes) if current else CepRule(declared.name, **changes)
    problems = problems_of(rule)
    for problem in problems:
        planning.refuse(declared.line_of("from"), f"the rule {rule.name!r}: {problem}")
    return None if problems else rule


def check_rule(planning: Planning, declared: Declared) -> None:
    """Refuse a rule that could not run: it would read its own outputs, or what its events do not have."""
    active = {rule.name: rule for rule in planning.others("cep_rules") if rule.active}
    circle = circle_of(declared.name, active.values())
    if circle:
        planning.refuse(declared.line_of("from"), f"these CEP rules feed themselves: {' -> '.join(circle)}.")
    if declared.name in active:
        rule = active[declared.name].parse()
        for problem in misread(rule, _events_of(planning, streams_of(rule))):
            planning.refuse(declared.line_of("from"), f"the rule {declared.name!r}: {problem}")


def _events_of(planning: Planning, streams: Iterable[str]) -> dict[str, EventDefinition]:
    """The events among these streams."""
    events = {event.name.casefold(): event for event in planning.others("cep_events")}
    found = {}
    for stream in streams:
        if stream in events:
            with suppress(SibError):  # it is refused where it is declared
                found[stream] = events[stream].definition(planning.compiled(events[stream].ontology))
    return found


def export_event(event: CepEvent) -> dict[str, Any]:
    """An event as the file has it."""
    return {
        "name": event.name,
        "owner": event.owner,
        "ontology": event.ontology,
        "attributes": list(event.attributes),
        "time": event.time_path or None,
    }


def export_rule(rule: CepRule) -> dict[str, Any]:
    """A rule as the file has it."""
    boxes = {key: getattr(rule, field) for key, field in _BOXES.items()}
    return {"name": rule.name, "owner": rule.owner, **boxes, "active": rule.active}


def extensions() -> tuple[Extension, ...]:
    """The sections, for the registry: events first, since rules read them."""
    return (
        Extension(EVENTS, "cep_events", plan_event, export_event),
        Extension(RULES, "cep_rules", plan_rule, export_rule, check_rule),
    )
