"""From a checked rule to its operator: which kind it is, what its names mean, which windows it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sib.cep.language import ast
from sib.cep.language.functions import AGGREGATES
from sib.cep.limits import Limits
from sib.cep.operators.absence import Absence
from sib.cep.operators.base import Operator, plain_source
from sib.cep.operators.batches import Hopping, LengthBatch, Sessions
from sib.cep.operators.chains import flatten
from sib.cep.operators.filters import Filter
from sib.cep.operators.general import General
from sib.cep.operators.joins import Join, Side, owner_of, split_condition
from sib.cep.operators.linear import LinearPattern, is_linear
from sib.cep.operators.patterns import Pattern
from sib.cep.operators.sliding import Sliding, SlidingWindow
from sib.cep.scope import Bound, Scope
from sib.cep.streams import Declaration, Layout, StreamTypes
from sib.cep.tables import Row, Table

_SLIDING = {"time": "time", "length": "length", "externaltime": "external", "unique": "unique"}


@dataclass
class Built:
    """An operator, the streams it reads (in the order of its tags), its output names, and its equality to index by."""

    operator: Operator
    scope: Scope
    streams: list[str]
    equality: tuple[int, tuple[Any, ...]] | None = None
    """(slot, values): events whose slot has none of the values cannot matter."""


@dataclass
class Builder:
    """Builds operators that share the layouts of their streams and the tables."""

    declared: Mapping[str, Declaration]
    tables: dict[str, Table]
    layouts: dict[str, Layout] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        streams: StreamTypes | None,
        tables: Mapping[str, list[Row]] | None,
        slots: Mapping[str, list[list[str | int]]] | None = None,
    ) -> Builder:
        """From declared streams, the rows of tables, and the slots that a snapshot's tuples have."""
        declared = {name.casefold(): Declaration.of(attributes) for name, attributes in (streams or {}).items()}
        builder = cls(declared, {name.casefold(): Table(name, rows) for name, rows in (tables or {}).items()})
        for stream, paths in (slots or {}).items():
            for path in paths:
                builder.layout(stream).slot(tuple(path))
        return builder

    def layout(self, stream: str) -> Layout:
        """The layout of a stream."""
        name = stream.casefold()
        if name not in self.layouts:
            self.layouts[name] = Layout(name, self.declared.get(name))
        return self.layouts[name]

    def table(self, name: str) -> Table:
        """The table of a name; one that nobody gave is empty."""
        return self.tables.setdefault(name.casefold(), Table(name))

    def build(self, rule: ast.Rule) -> Built:
        """The operator of a rule that the checker let through."""
        scope = Scope(rule, Limits.of(rule), self.table)
        if isinstance(rule.input, ast.JoinInput):
            return self._join(scope, rule.input)
        source = plain_source(rule)
        if source is not None:
            return self._plain(scope, source, _alias(rule))
        chain = flatten(rule.input)
        if len(chain.steps) == 1 and chain.slots[0].is_absent:
            return self._absence(scope, rule.input)
        layouts = [self.layout(stream) for stream in chain.streams]
        kind = LinearPattern if is_linear(chain) else Pattern
        return Built(kind(scope, chain, layouts), scope, chain.streams)

    # One stream

    def _plain(self, scope: Scope, source: ast.Source, alias: str | None) -> Built:
        rule, window = scope.rule, source.window
        bound = Bound("e", self.layout(source.name))
        scope.add(alias, source.name, bound)
        scope.current = bound
        operator = self._windowed(scope, window, source.filters, _group_paths(rule))
        return Built(operator, scope, [source.name.casefold()], _equality(scope, source.filters))

    def _windowed(
        self, scope: Scope, window: ast.Window | None, filters: tuple[ast.Expression, ...], keys: tuple[ast.Path, ...]
    ) -> Operator:
        rule = scope.rule
        if window is None:
            is_edge = rule.rate is not None and rule.rate.kind == "change" and rule.select.having is not None
            if is_edge or has_aggregates(rule):
                return General(scope, SlidingWindow("endless"), filters, keys)
            return Filter(scope, filters, keys)
        numbers = [argument.value for argument in window.arguments if isinstance(argument, ast.Const)]
        paths = tuple(argument for argument in window.arguments if isinstance(argument, ast.Path))
        match window.name:
            case "timebatch":
                return Hopping(scope, numbers[0], numbers[0], filters, keys)
            case "hop":
                return Hopping(scope, numbers[0], numbers[1], filters, keys)
            case "lengthbatch":
                return LengthBatch(scope, numbers[0], filters, keys)
            case "session":
                return Sessions(scope, numbers[0], filters, _without_repeats((*keys, *paths)))
        sliding = sliding_window(window, rule)
        if sliding.kind == "unique" or rule.out_kind != "current":
            return General(scope, sliding, filters, keys)
        return Sliding(scope, sliding, filters, keys)

    def _absence(self, scope: Scope, rule_input: ast.PatternInput) -> Built:
        step = rule_input.chain.steps[0]
        is_every = step.is_every
        atom = step.atoms[0]
        while isinstance(atom, ast.GroupAtom):
            step = atom.chain.steps[0]
            is_every, atom = is_every or step.is_every, step.atoms[0]
        if not isinstance(atom, ast.AbsentAtom):
            raise AssertionError("only an absence comes here")
        bound = Bound("e", self.layout(atom.source.name))
        scope.add(atom.source.alias, atom.source.name, bound)
        scope.current = bound
        table_keys: Callable[[], list[Any]] | None = None
        partition = scope.rule.partition
        if partition is not None and partition.table is not None:
            table = self.table(partition.table.parts[0][0])
            attribute = ".".join(name for name, _ in partition.table.parts[1:]) or "id"
            table_keys = lambda: [_shaped(key, len(partition.paths)) for key in table.keys(attribute)]  # noqa: E731
        operator = Absence(scope, atom.duration_ms or 1, atom.source.filters, is_every=is_every, table_keys=table_keys)
        return Built(operator, scope, [atom.source.name.casefold()], _equality(scope, atom.source.filters))

    # Two sides

    def _join(self, scope: Scope, join: ast.JoinInput) -> Built:
        tables = [self._is_table(source, join) for source in (join.left, join.right)]
        streams: list[str] = []
        sides = []
        is_outer = join.kind != "inner"
        for place, source in enumerate((join.left, join.right)):
            name = source.name.casefold()
            layout = Layout(name) if tables[place] else self.layout(name)
            bound = Bound("lr"[place], layout, is_optional=is_outer)
            stream = None
            if not tables[place]:
                if name not in streams:
                    streams.append(name)
                stream = streams.index(name)
            else:
                self.table(name)
            sides.append(Side(source, stream, bound, _side_window(source, join, scope.rule)))
            scope.add(source.alias, source.name, bound)
        scope.current = sides[0].bound
        generator = scope.generator()
        on = join.on
        equalities, rest = split_condition(on, owner_of(generator))
        if not any(tables):
            keyed = [(_keyed(path, join.left), _keyed(path, join.right)) for path in scope.partition_paths]
            equalities = [*keyed, *equalities]
        condition = scope.condition("l, r", rest, generator)
        return Built(Join(scope, (sides[0], sides[1]), join, equalities, condition), scope, streams)

    def _is_table(self, source: ast.Source, join: ast.JoinInput) -> bool:
        if source.name.casefold() in self.tables:
            return True
        has_windows = join.left.window or join.right.window or join.within_ms is not None
        return not has_windows and source is join.right and join.left.name.casefold() not in self.tables


def _alias(rule: ast.Rule) -> str | None:
    atom = rule.input.chain.steps[0].atoms[0] if isinstance(rule.input, ast.PatternInput) else None
    return atom.name if isinstance(atom, ast.EventAtom) else None


def _keyed(path: ast.Path, source: ast.Source) -> ast.Path:
    """A partition key as an attribute of one side."""
    return ast.Path((((source.alias or source.name), None), (path.name, None)), path.position)


def _shaped(key: Any, parts: int) -> Any:
    return (key,) if parts > 1 and not isinstance(key, (list, tuple)) else tuple(key) if parts > 1 else key


def _side_window(source: ast.Source, join: ast.JoinInput, rule: ast.Rule) -> SlidingWindow | None:
    if source.window is not None:
        return sliding_window(source.window, rule)
    return SlidingWindow("time", join.within_ms + 1) if join.within_ms is not None else None


def sliding_window(window: ast.Window, rule: ast.Rule) -> SlidingWindow:
    """The sliding window of a clause; ``@panes(60)`` makes a time window move on in sixtieths of its length."""
    numbers = [argument.value for argument in window.arguments if isinstance(argument, ast.Const)]
    paths = tuple(argument for argument in window.arguments if isinstance(argument, ast.Path))
    size = numbers[0] if numbers else 0
    panes = next((a.plain[0] for a in rule.annotations if a.name == "panes" and a.plain), None)
    pane = max(1, size // panes) if panes and window.name == "time" else 1
    return SlidingWindow(_SLIDING[window.name], size, paths, pane)


def has_aggregates(rule: ast.Rule) -> bool:
    """Whether the rule's outputs or having use an aggregate."""
    expressions = [column.expression for column in rule.select.columns]
    if rule.select.having is not None:
        expressions.append(rule.select.having)
    return any(
        isinstance(part, ast.Call) and part.name in AGGREGATES
        for expression in expressions
        for part in ast.walk(expression)
    )


def _group_paths(rule: ast.Rule) -> tuple[ast.Path, ...]:
    partition = rule.partition.paths if rule.partition else ()
    return _without_repeats((*partition, *rule.select.group_by))


def _without_repeats(paths: tuple[ast.Path, ...]) -> tuple[ast.Path, ...]:
    return tuple(dict.fromkeys(paths))


def _equality(scope: Scope, filters: tuple[ast.Expression, ...]) -> tuple[int, tuple[Any, ...]] | None:
    """An equality with a constant that every event the rule cares for fulfils."""
    bound = next(iter(scope.sources.values()))
    for condition in (part for item in filters for part in ast.conjuncts(item)):
        match condition:
            case ast.Binary("==", ast.Path() as path, ast.Const(value)) | ast.Binary(
                "==", ast.Const(value), ast.Path() as path
            ):
                values: tuple[Any, ...] = (value,)
            case ast.InList(ast.Path() as path, values):
                pass
            case _:
                continue
        source = scope.resolve(path).safe
        for slot in bound.layout.slots.values():
            if source in (f"e[{slot}]", f"slot_of(e, {slot})"):
                return slot, tuple(value for value in values if value is not None)
    return None
