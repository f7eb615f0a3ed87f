"""The state of an engine as JSON values, and back. A snapshot of other rules is good for the rules that did not change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sib.cep.codec import decode_state, encode_state
from sib.cep.compiled import CompiledRule
from sib.cep.errors import CepSnapshotError

if TYPE_CHECKING:
    from sib.cep.engine import Engine

SNAPSHOT_VERSION = 1


def snapshot(engine: Engine) -> dict[str, Any]:
    """All state, with a version."""
    written = {rule.target.casefold() for rule in engine.rules if rule.change_table is not None}
    return {
        "version": SNAPSHOT_VERSION,
        "started": engine.started,
        "lanes": {str(lane.lane.timing.delay_ms): encode_state(lane.lane.dump()) for lane in engine.lanes},
        "rules": {
            _identity(rule): {"signature": rule.signature, "state": encode_state(rule.dump())} for rule in engine.rules
        },
        "slots": {name: [list(path) for path in layout.slots] for name, layout in engine.layouts.items()},
        "tables": {name: encode_state(engine.tables[name].rows) for name in sorted(written)},
    }


def restore(engine: Engine, state: Mapping[str, Any]) -> list[str]:
    """Put a snapshot into an engine; the rules that start empty.

    Raises:
        CepSnapshotError: Another version, or damaged.
    """
    if state.get("version") != SNAPSHOT_VERSION:
        raise CepSnapshotError(f"a snapshot of version {state.get('version')!r}, not {SNAPSHOT_VERSION}")
    try:
        return _restore(engine, state)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise CepSnapshotError("the snapshot is damaged: start without it and replay") from error


def _restore(engine: Engine, state: Mapping[str, Any]) -> list[str]:
    engine.started = state["started"]
    for lane in engine.lanes:
        kept = state["lanes"].get(str(lane.lane.timing.delay_ms))
        if kept is not None:
            lane.lane.load(decode_state(kept))
    fresh = []
    for rule in engine.rules:
        kept = state["rules"].get(_identity(rule))
        if kept is not None and kept["signature"] == rule.signature and _fits(engine, rule, state["slots"]):
            rule.load(decode_state(kept["state"]))
        else:
            fresh.append(str(rule.label))
    for name, rows in state["tables"].items():
        if name in engine.tables:
            engine.tables[name].replace(decode_state(rows))
    engine.watch_tables()
    return fresh


def _fits(engine: Engine, rule: CompiledRule, slots: Mapping[str, Any]) -> bool:
    """Whether the events in a rule's saved state have their attributes where the rule reads them now."""
    for stream in rule.streams:
        saved = [tuple(path) for path in slots.get(stream, ())]
        if saved != list(engine.layouts[stream].slots)[: len(saved)]:
            return False
    return True


def _identity(rule: CompiledRule) -> str:
    return f"{rule.title}#{rule.rule.number}" if rule.rule.name is None else rule.title
