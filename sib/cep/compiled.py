"""One rule inside an engine: its operator, what its outputs pass through, whom they feed, and what was dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from sib.cep.build import Builder, Built
from sib.cep.lanes import Timing
from sib.cep.language import ast
from sib.cep.language.durations import parse_duration_ms
from sib.cep.operators.base import BY_TIME, Out
from sib.cep.output import Output, Repeats, within_64_bits
from sib.cep.rates import Dedupe, Rate, Told
from sib.cep.scope import Bound, Scope
from sib.cep.streams import EVERYTHING, Event, Layout

_BY_PLACE = slice(0, 3)


@dataclass
class Consumer:
    """A rule that reads another's outputs: where from the row, and under which tag."""

    rule: CompiledRule
    tag: int
    convert: Callable[[int, Event], Event]


@dataclass(eq=False)
class CompiledRule:
    """A rule that runs. ``order`` is its place behind all rules it reads from."""

    rule: ast.Rule
    built: Built
    timing: Timing
    version: int = 1
    order: int = 0
    consumers: list[Consumer] = field(default_factory=list)
    late_consumers: list[Consumer] = field(default_factory=list)
    repeats: Repeats = field(default_factory=Repeats)
    repeats_late: Repeats = field(default_factory=Repeats)
    is_started: bool = False
    slots: dict[str, int] = field(default_factory=dict)
    """By stream how long the tuples must be that it reads."""

    def __post_init__(self) -> None:
        rule, scope = self.rule, self.built.scope
        self.operator = self.built.operator
        self.streams = self.built.streams
        self.label = rule.label
        self.target = rule.target
        self.title = rule.name or rule.target
        self.key = self.title if rule.name is not None else f"{self.title}#{rule.number}"
        """What names the rule in snapshots, also beside other rules."""
        self.identity = (self.title, self.version)
        self.is_star = rule.select.is_star
        self.names = ("*",) if self.is_star else scope.names
        self.limits = scope.limits
        items = ", ".join(f"{name!r}: row[{place}]" for place, name in enumerate(self.names))
        source = "lambda row: dict(row[0])" if self.is_star else f"lambda row: {{{items}}}"
        self.data: Callable[[tuple[Any, ...]], dict[str, Any]] = eval(source)  # noqa: S307 - names are quoted
        """The data of an output row."""
        is_edge = rule.select.having is not None and self.operator.tells_edges
        self.rate = Rate(rule.rate, self.limits, is_edge=is_edge)
        self.dedupe = self._make_dedupe()
        self.is_simple = self.rate.is_open and self.dedupe is None
        self.change_table: Callable[[dict[str, Any]], None] | None = None
        self.late_slots: dict[str, int] = {}

    def _make_dedupe(self) -> Dedupe | None:
        for annotation in self.rule.annotations:
            if annotation.name == "dedupe":
                key, duration = annotation.plain
                name = (key.name if isinstance(key, ast.Path) else str(key)).casefold()
                column = [column.casefold() for column in self.names].index(name)
                return Dedupe(column, _milliseconds(duration), self.limits)
        return None

    @property
    def signature(self) -> str:
        """Of everything that shapes the state: equal = a snapshot of one rule is good for the other."""
        rule = self.rule
        shape = (
            rule.input,
            rule.partition,
            rule.select.group_by,
            rule.rate,
            rule.out_kind,
            self.built.scope.aggregates,
        )
        kept = (*shape, [a for a in rule.annotations if a.name in ("panes", "dedupe")])
        return blake2b(_without_positions(repr(kept)).encode(), digest_size=8).hexdigest()

    def run(self, events: Sequence[Any], watermark: int) -> Sequence[Told]:
        """Feed the operator; what gets out of the rule, in order of time."""
        outs = self.operator.feed(events, watermark)
        return self.pass_on(outs, watermark)

    def pass_on(self, outs: list[Out], watermark: int) -> Sequence[Told]:
        """What the rate and the removal of doubles let out."""
        if len(outs) > 1 and not self.operator.is_sorted:
            outs.sort(key=_place)
        if self.is_simple:
            return [(out[0], out) for out in outs]
        told = self.rate.pass_on(outs, watermark)
        return told if self.dedupe is None else self.dedupe.pass_on(told)

    @property
    def waits(self) -> bool:
        """Whether time alone can make the rule speak."""
        return self.operator.has_timers or not self.rate.is_open

    def output(self, out: Out) -> Output:
        """The output of an operator's tuple."""
        ts, row = out[0], out[3]
        data = within_64_bits(self.data(row))
        number, is_timed = self.repeats.number(ts, row), out[1] == BY_TIME
        return Output(self.label, self.target, ts, data, self.identity, number, is_timed=is_timed)

    def late_output(self, stream: str, event: Event) -> Output:
        """The output for a late event (``late='side'``)."""
        attributes = event[self.late_slots[stream]]
        repeat = self.repeats_late.number(event[0], (attributes,))
        return Output(self.label, self.late_target, event[0], dict(attributes), self.identity, repeat)

    @property
    def late_target(self) -> str:
        """The stream of late events."""
        return f"{self.title}__late"

    # Snapshots

    def dump(self) -> dict[str, Any]:
        """All state, as Python values."""
        return {
            "operator": self.operator.state,
            "rate": self.rate.state,
            "dedupe": self.dedupe.state if self.dedupe else None,
            "repeats": self.repeats.dump(),
            "late": self.repeats_late.dump(),
            "dropped": dict(self.limits.dropped),
            "started": self.is_started,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over :meth:`dump`."""
        self.operator.load(state["operator"])
        self.rate.state = state["rate"]
        if self.dedupe is not None:
            self.dedupe.state = state["dedupe"]
        self.repeats.load(state["repeats"])
        self.repeats_late.load(state["late"])
        self.limits.dropped.clear()
        self.limits.dropped.update(state["dropped"])
        self.is_started = state["started"]


def _place(out: Out) -> tuple[int, int, int]:
    return out[_BY_PLACE]  # type: ignore[return-value]


def _without_positions(text: str) -> str:
    parts = text.split("Position(")
    return parts[0] + "".join(part.split(")", 1)[1] for part in parts[1:])


def _milliseconds(value: Any) -> int:
    return value if isinstance(value, int) else parse_duration_ms(str(value))


def timing_of(rule: ast.Rule, default: Timing) -> Timing:
    """The ``@watermark`` of a rule; what it does not say is the default."""
    for annotation in rule.annotations:
        if annotation.name == "watermark":
            named = dict(annotation.named)
            delay_ms = _milliseconds(named["delay"]) if "delay" in named else default.delay_ms
            idle_ms = _milliseconds(named["idle"]) if "idle" in named else default.idle_ms
            return Timing(delay_ms, str(named.get("late", default.late)).lower(), idle_ms)
    return default


def compile_rule(builder: Builder, rule: ast.Rule, default: Timing, version: int = 1) -> CompiledRule:
    """The running form of a checked rule."""
    for layout in builder.layouts.values():
        layout.farthest = 0
    compiled = CompiledRule(rule, builder.build(rule), timing_of(rule, default), version)
    compiled.slots = {stream: builder.layout(stream).farthest + 1 for stream in compiled.streams}
    if compiled.timing.late == "side":
        for stream in compiled.streams:
            compiled.late_slots[stream] = builder.layout(stream).slot(EVERYTHING)[0]
    if rule.target.casefold() in builder.tables or rule.update_on is not None:
        compiled.change_table = _table_change(builder, rule, compiled)
    return compiled


def _table_change(builder: Builder, rule: ast.Rule, compiled: CompiledRule) -> Callable[[dict[str, Any]], None]:
    """What an output does to the table it goes into: adds a row, or with ``update on`` changes those that match."""
    table = builder.table(rule.target)
    if rule.update_on is None:
        return table.insert
    rows, new = Layout(rule.target), Layout("output")
    scope = Scope(rule, compiled.limits, builder.table)
    scope.add(None, rule.target, Bound("t", rows))
    scope.current = Bound("o", new)
    matches = scope.condition("t, o", [rule.update_on], scope.generator())
    attribute = _shared_attribute(rule)
    project_row, project_new = rows.projector(), new.projector()

    def change(row: dict[str, Any]) -> None:
        output = project_new(0, row)
        table.update_or_insert(row, attribute, lambda old: matches(project_row(0, old), output))

    return change


def _shared_attribute(rule: ast.Rule) -> str | None:
    """An attribute for which ``update on`` asks that table and output have the same value."""
    for part in ast.conjuncts(rule.update_on) if rule.update_on is not None else ():
        match part:
            case ast.Binary("==", ast.Path() as left, ast.Path() as right) if left.name == right.name:
                if len(left.parts) + len(right.parts) == 3:
                    return left.name
    return None
