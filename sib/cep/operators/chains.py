"""A chain of steps with groups, ``every`` and ``within``, made flat for the matcher of :mod:`.patterns`."""

from __future__ import annotations

from dataclasses import dataclass, field

from sib.cep.language import ast


@dataclass
class Slot:
    """One atom: where its events are captured and what it wants. ``duration_ms`` not None = absence."""

    number: int
    alias: str | None
    source: ast.Source
    stream: int
    count_min: int = 1
    count_max: int | None = 1
    duration_ms: int | None = None

    def __post_init__(self) -> None:
        self.is_absent = self.duration_ms is not None
        self.is_list = (self.count_min, self.count_max) != (1, 1)


@dataclass
class FlatStep:
    """One step; ``is_strict`` = the next event must match (``,``); ``is_any`` = one of its atoms is enough (``or``)."""

    slots: list[Slot]
    is_any: bool = False
    is_strict: bool = False
    every_from: int | None = None
    """When this step is done the match begins again at that step (``every`` inside a chain)."""

    def __post_init__(self) -> None:
        self.is_counted = self.slots[0].is_list
        self.has_absence = any(slot.is_absent for slot in self.slots)


@dataclass
class FlatChain:
    """Steps in a row. ``flight_end``: last step of the part of which only one match per key succeeds at a time."""

    steps: list[FlatStep] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)
    withins: list[tuple[int, int, int]] = field(default_factory=list)
    """(first step, last step, ms) of groups with a time of their own."""
    within_ms: int | None = None
    starts_every: bool = False
    flight_end: int | None = None


def flatten(rule_input: ast.PatternInput) -> FlatChain:
    """The flat form of a pattern."""
    flat = FlatChain(within_ms=rule_input.within_ms)
    _append(flat, rule_input.chain, is_strict=False)
    first = rule_input.chain.steps[0]
    whole = len(flat.steps) - 1
    flat.starts_every = first.is_every or _inner_every(first)
    if not flat.starts_every:
        flat.flight_end = whole
    elif _is_flight(first):
        flat.flight_end = _length(first) - 1
    if len(flat.withins) == 1 and flat.withins[0][:2] == (0, whole):
        group_ms = flat.withins.pop()[2]
        flat.within_ms = group_ms if flat.within_ms is None else min(flat.within_ms, group_ms)
    return flat


def _is_flight(step: ast.Step) -> bool:
    """Whether ``every`` stands before a group that is more than one plain event."""
    if not step.is_every or not isinstance(step.atoms[0], ast.GroupAtom):
        return False
    inner = step.atoms[0].chain.steps
    return len(inner) > 1 or len(inner[0].atoms) > 1


def _inner_every(step: ast.Step) -> bool:
    atom = step.atoms[0]
    return isinstance(atom, ast.GroupAtom) and (atom.chain.steps[0].is_every or _inner_every(atom.chain.steps[0]))


def _length(step: ast.Step) -> int:
    atom = step.atoms[0]
    return sum(map(_length, atom.chain.steps)) if isinstance(atom, ast.GroupAtom) else 1


def _append(flat: FlatChain, chain: ast.Chain, *, is_strict: bool) -> None:
    for number, step in enumerate(chain.steps):
        strict = is_strict if number == 0 else chain.arrows[number - 1] == ","
        begin = len(flat.steps)
        atom = step.atoms[0]
        if len(step.atoms) == 1 and isinstance(atom, ast.GroupAtom):
            _append(flat, atom.chain, is_strict=strict)
            if atom.within_ms is not None:
                flat.withins.append((begin, len(flat.steps) - 1, atom.within_ms))
        else:
            slots = [_slot(flat, single) for single in step.atoms]
            flat.steps.append(FlatStep(slots, "or" in step.operators, strict and not slots[0].is_absent))
        if step.is_every and begin > 0:
            flat.steps[-1].every_from = begin


def _slot(flat: FlatChain, atom: ast.Atom) -> Slot:
    if isinstance(atom, ast.GroupAtom):
        inner = atom.chain.steps[0].atoms[0]
        if isinstance(inner, ast.GroupAtom):
            return _slot(flat, inner)
        atom = inner
    name = atom.source.name.casefold()
    if name not in flat.streams:
        flat.streams.append(name)
    stream = flat.streams.index(name)
    if isinstance(atom, ast.AbsentAtom):
        slot = Slot(len(flat.slots), atom.source.alias, atom.source, stream, duration_ms=atom.duration_ms)
    else:
        slot = Slot(len(flat.slots), atom.name, atom.source, stream, atom.count_min, atom.count_max)
    flat.slots.append(slot)
    return slot
