"""The state of an engine as JSON values, and back. A snapshot of other rules is good for the rules that did not change.

Events that wait go along: each is given the attributes that rules read now, and one on its way from rule to rule names the
rule and the stream that it is for, so that it reaches no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sib.cep.codec import decode_state, encode_state
from sib.cep.compiled import CompiledRule
from sib.cep.errors import CepSnapshotError
from sib.cep.lanes import Raw
from sib.cep.routing import HANDED, LaneRules
from sib.cep.streams import EVERYTHING, TIME, AttributePath, Event, Layout

if TYPE_CHECKING:
    from sib.cep.engine import Engine

SNAPSHOT_VERSION = 1


def snapshot(engine: Engine) -> dict[str, Any]:
    """All state, with a version."""
    written = {rule.target.casefold() for rule in engine.rules if rule.change_table is not None}
    return {
        "version": SNAPSHOT_VERSION,
        "started": engine.started,
        "lanes": {str(lane.lane.timing.delay_ms): _dump_lane(engine, lane) for lane in engine.lanes},
        "rules": {rule.key: _dump_rule(rule) for rule in engine.rules},
        "slots": {name: [list(path) for path in layout.slots] for name, layout in engine.layouts.items()},
        "tables": {name: encode_state(engine.tables[name].rows) for name in sorted(written)},
    }


def _dump_rule(rule: CompiledRule) -> dict[str, Any]:
    return {"signature": rule.signature, "delay_ms": rule.timing.delay_ms, "state": encode_state(rule.dump())}


def _dump_lane(engine: Engine, lane: LaneRules) -> Any:
    state = lane.lane.dump()
    waiting = [
        (ts, arrival, (ts, _address(engine, stream), event)) for ts, arrival, (_, stream, event) in state["waiting"]
    ]
    return encode_state({**state, "waiting": waiting})


def _address(engine: Engine, stream: str) -> Any:
    """The stream, or for an output on its way to a rule: (the rule, the stream that it is an event of)."""
    if not stream.startswith(HANDED):
        return stream
    number, tag = map(int, stream[1:].split(":"))
    rule = engine.rules[number]
    return rule.key, rule.streams[tag]


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
    slots = {stream: [tuple(path) for path in paths] for stream, paths in state["slots"].items()}
    fresh, moved = [], []
    for rule in engine.rules:
        kept = state["rules"].get(rule.key)
        if kept is not None and kept["signature"] == rule.signature and _fits(engine, rule, slots):
            rule.load(decode_state(kept["state"]))
            if kept["delay_ms"] != rule.timing.delay_ms:
                moved.append((rule, int(kept["delay_ms"])))
        else:
            fresh.append(str(rule.label))
    lanes = {int(delay_ms): decode_state(kept) for delay_ms, kept in state["lanes"].items()}
    _restore_lanes(engine, lanes, slots, moved)
    for name, rows in state["tables"].items():
        if name in engine.tables:
            engine.tables[name].replace(decode_state(rows))
    engine.watch_tables()
    return fresh


def _fits(engine: Engine, rule: CompiledRule, slots: Mapping[str, Sequence[AttributePath]]) -> bool:
    """Whether the events in a rule's saved state have all attributes that the rule reads, where it reads them now."""
    for stream in rule.streams:
        saved = slots.get(stream, ())
        if list(saved) != list(engine.layouts[stream].slots)[: len(saved)] or rule.slots[stream] > len(saved):
            return False
    return True


# What waits


def _restore_lanes(
    engine: Engine,
    lanes: Mapping[int, dict[str, Any]],
    slots: Mapping[str, Sequence[AttributePath]],
    moved: Sequence[tuple[CompiledRule, int]],
) -> None:
    """Each lane goes on where that of its delay was, a new one where the nearest was; what waits goes to where it is read."""
    if not lanes:
        return
    rules = {rule.key: (number, rule) for number, rule in enumerate(engine.rules)}
    lane_of = {rule.key: lane.lane for lane in engine.lanes for rule in lane.rules}
    delays = {lane.lane.timing.delay_ms for lane in engine.lanes}
    waiting: dict[int, list[tuple[int, int, Raw]]] = {delay_ms: [] for delay_ms in delays}
    elsewhere: list[tuple[CompiledRule, Raw]] = []
    for was_ms, kept in lanes.items():
        for ts, arrival, (_, address, event) in sorted(kept["waiting"], key=lambda item: item[:2]):
            if isinstance(address, str):
                stream, readers = address.casefold(), [rule for rule, delay_ms in moved if delay_ms == was_ms]
            else:
                stream, readers = address[1], [rules[address[0]][1]] if address[0] in rules else []
            fitted = _fitted(engine, slots, stream, event)
            if fitted is None:
                continue
            if isinstance(address, str) and was_ms in delays:
                waiting[was_ms].append((ts, arrival, (ts, address, fitted)))
            for rule in readers:
                if stream not in rule.streams:
                    continue
                raw = ts, f"{HANDED}{rules[rule.key][0]}:{rule.streams.index(stream)}", fitted
                if rule.timing.delay_ms == was_ms:
                    waiting[was_ms].append((ts, arrival, raw))
                else:
                    elsewhere.append((rule, raw))
    for lane in engine.lanes:
        delay_ms = lane.lane.timing.delay_ms
        nearest = lanes[min(lanes, key=lambda known: (abs(known - delay_ms), known))]
        lane.lane.load({**nearest, "waiting": sorted(waiting[delay_ms], key=lambda item: item[:2])})
    for rule, raw in elsewhere:
        lane_of[rule.key].insert(raw)


def _fitted(engine: Engine, slots: Mapping[str, Sequence[AttributePath]], stream: str, event: Event) -> Event | None:
    """A waiting event with the attributes that are read now; None when nobody reads its stream any more."""
    layout = engine.layouts.get(stream)
    return _laid_out(layout, slots[stream], event) if layout is not None else None


def _laid_out(layout: Layout, paths: Sequence[AttributePath], event: Event) -> Event:
    if list(paths) == list(layout.slots):
        return event
    known = dict(zip(paths, event, strict=False))
    if EVERYTHING in known:
        return layout.projector()(event[0], known[EVERYTHING])
    known[EVERYTHING] = {str(path[0]): value for path, value in known.items() if len(path) == 1 and path != TIME}
    return tuple(known.get(path) for path in layout.slots)
