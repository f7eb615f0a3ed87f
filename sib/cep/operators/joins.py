"""Joins of two streams, each with a window, and of a stream with a table.

An arriving event enters the window of its side and is put together with what the other side holds. Equalities between
the sides become a hash key, the rest of ``on`` is checked for each candidate.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from sib.cep.codegen import Generator, tuple_source
from sib.cep.language import ast
from sib.cep.operators.base import BY_EVENT, Operator, Out, frozen_key
from sib.cep.operators.filters import Prefilter
from sib.cep.operators.sliding import SlidingWindow
from sib.cep.scope import Bound, Scope
from sib.cep.streams import Event
from sib.cep.tables import Table

Equality = tuple[ast.Expression, ast.Expression]


class Side:
    """One side of a join: its filters, its join key, its window. ``bound`` names its event in code."""

    def __init__(self, source: ast.Source, stream: int | None, bound: Bound, window: SlidingWindow | None) -> None:
        self.source, self.stream, self.bound, self.window = source, stream, bound, window
        self.prefilter: Callable[[Sequence[Event]], Sequence[Event]] = lambda events: events
        self.key: Callable[[Event], Any] = lambda event: None
        self.unique: Callable[[Event], Any] = lambda event: None

    @property
    def is_table(self) -> bool:
        return self.stream is None

    def prepare(self, scope: Scope, keys: Sequence[ast.Expression]) -> None:
        """Make the functions of an event ``e`` of this side."""
        own = Bound("e", self.bound.layout)
        names = {name: own for name, bound in scope.sources.items() if bound is self.bound}
        inner = Scope(scope.rule, scope.limits, scope.tables, names, own, namespace=scope.namespace)
        inner.times.update(eventtime="e[0]", lasteventtime="e[0]")
        self.prefilter = Prefilter(inner, self.source.filters)
        generator = inner.generator()
        source = tuple_source([generator.safe(key) for key in keys])
        self.key = eval(f"lambda e: {source}", scope.namespace)  # noqa: S307 - own source, see codegen
        if self.window is not None and self.window.kind == "unique":
            unique = tuple_source([generator.safe(path) for path in self.window.attributes])
            self.unique = eval(f"lambda e: {unique}", scope.namespace)  # noqa: S307 - own source, see codegen


class Join(Operator):
    """State of a side: ``index`` = join key to {number: event}; ``queue`` of (place, number, join key); ``unique``."""

    is_tagged = True

    def __init__(
        self, scope: Scope, sides: tuple[Side, Side], join: ast.JoinInput, equalities: Sequence[Equality], rest: Any
    ) -> None:
        super().__init__(scope)
        self._sides = sides
        self._join = join
        self._condition: Callable[[Any, Any], bool] | None = rest
        self._table: Table | None = None
        self._project: Callable[[int, Any], Event] | None = None
        for place, side in enumerate(sides):
            side.prepare(scope, [pair[place] for pair in equalities])
        self._table_attribute = self._lookup_attribute(equalities)
        scope.times.update(eventtime="ts", lasteventtime="ts")
        generator = scope.generator()
        self._row = scope.row_function("l, r, ts", generator)
        having = [scope.having] if scope.having is not None else []
        self._passes = scope.condition("l, r, ts", having, generator)
        self.state = {"numbers": 0, "sides": [_new_side(), _new_side()]}

    def _lookup_attribute(self, equalities: Sequence[Equality]) -> tuple[int, str] | None:
        """Which equality finds the rows of the table side: its number and the table's attribute."""
        for place, side in enumerate(self._sides):
            if not side.is_table:
                continue
            self._table = self.scope.tables(side.source.name)
            for number, pair in enumerate(equalities):
                path = pair[place]
                if isinstance(path, ast.Path) and all(index is None for _, index in path.parts):
                    parts = [name for name, _ in path.parts]
                    is_qualified = len(parts) > 1 and self.scope.sources.get(parts[0].casefold()) is side.bound
                    return number, ".".join(parts[1:] if is_qualified else parts)
        return None

    def feed(self, events: Sequence[Any], watermark: int) -> list[Out]:
        outs: list[Out] = []
        for tag, event in events:
            for place, side in enumerate(self._sides):
                if side.stream == tag and side.prefilter((event,)):
                    self._arrive(place, side, event, outs)
        return outs

    def _arrive(self, place: int, side: Side, event: Event, outs: list[Out]) -> None:
        ts = event[0]
        key = frozen_key(side.key(event))
        is_joinable = None not in key
        other = 1 - place
        if is_joinable and side.window is not None:
            self._enter(place, side, event, key)
        if place == 1 and self._join.is_unidirectional and not self._sides[0].is_table:
            return
        found = False
        for candidate in self._candidates(other, key, ts) if is_joinable else ():
            left, right = (event, candidate) if place == 0 else (candidate, event)
            if self._matches(left, right):
                found = True
                self._emit(left, right, ts, outs)
        is_outer = self._join.kind == "full" or (self._join.kind == "left" and place == 0)
        if not found and is_outer:
            self._emit(event if place == 0 else None, event if place == 1 else None, ts, outs)

    def _matches(self, left: Event, right: Event) -> bool:
        within_ms = self._join.within_ms
        if within_ms is not None and not self._table and abs(left[0] - right[0]) > within_ms:
            return False
        return self._condition is None or bool(self._condition(left, right))

    def _emit(self, left: Any, right: Any, ts: int, outs: list[Out]) -> None:
        if self._passes is None or self._passes(left, right, ts):
            outs.append((ts, BY_EVENT, 0, self._row(left, right, ts), None))

    def _candidates(self, place: int, key: tuple[Any, ...], ts: int) -> Iterable[Event]:
        side = self._sides[place]
        if side.is_table:
            return self._rows(side, key)
        held = self.state["sides"][place]
        if side.window is not None and side.window.kind == "time":
            _expire(held, ts)
        return list(held["index"].get(key, {}).values())

    def _rows(self, side: Side, key: tuple[Any, ...]) -> Iterator[Event]:
        table = self._table
        if table is None:
            return
        rows: Sequence[Any] = table.rows
        if self._table_attribute is not None:
            number, attribute = self._table_attribute
            rows = table.lookup(attribute, key[number])
        if self._project is None:
            self._project = side.bound.layout.projector()
        project = self._project
        for row in side.prefilter([project(0, row) for row in rows]):
            if frozen_key(side.key(row)) == key:
                yield row

    def _enter(self, place: int, side: Side, event: Event, key: tuple[Any, ...]) -> None:
        window, held = side.window, self.state["sides"][place]
        if window is None:
            return
        self.state["numbers"] += 1
        number = self.state["numbers"]
        if window.kind == "unique":
            unique = frozen_key(side.unique(event))
            old = held["unique"].pop(unique, None)
            if old is not None:
                _remove(held, *old)
            held["unique"][unique] = (number, key)
        else:
            is_time = window.kind == "time"
            partition = () if is_time else key[: len(self.scope.partition_paths)]
            queue = held["queues"].setdefault(partition, deque())
            queue.append((event[0] + window.size if is_time else 0, number, key))
            if is_time:
                _expire(held, event[0])
            elif len(queue) > window.size:
                _, oldest, old_key = queue.popleft()
                _remove(held, oldest, old_key)
        held["index"].setdefault(key, {})[number] = event
        held["count"] += 1
        self._bound(held)

    def _bound(self, held: dict[str, Any]) -> None:
        if held["count"] <= self.limits.events:
            return
        if held["unique"]:
            oldest = held["unique"].pop(next(iter(held["unique"])))
        else:
            queue = next(iter(held["queues"].values()))
            oldest = queue.popleft()[1:]
        _remove(held, *oldest)
        self.limits.dropped["events"] += 1

    def held(self) -> int:
        return sum(side["count"] for side in self.state["sides"])


def _new_side() -> dict[str, Any]:
    return {"index": {}, "queues": {}, "unique": {}, "count": 0}


def _remove(held: dict[str, Any], number: int, key: Any) -> None:
    events = held["index"].get(key)
    if events is not None and events.pop(number, None) is not None:
        held["count"] -= 1
        if not events:
            del held["index"][key]


def _expire(held: dict[str, Any], now: int) -> None:
    """Let go what is out of a time window."""
    queue = held["queues"].get(())
    while queue and queue[0][0] <= now:
        _, number, key = queue.popleft()
        _remove(held, number, key)


def split_condition(
    on: ast.Expression | None, owner: Callable[[ast.Expression], int | None]
) -> tuple[list[Equality], list[ast.Expression]]:
    """The equalities between the sides, as (left, right), and what else ``on`` asks for.

    ``owner`` says which side an expression reads: 0, 1, or None for both or neither.
    """
    equalities: list[Equality] = []
    rest: list[ast.Expression] = []
    for part in ast.conjuncts(on) if on is not None else ():
        if isinstance(part, ast.Binary) and part.operator == "==":
            owners = owner(part.left), owner(part.right)
            if owners == (0, 1):
                equalities.append((part.left, part.right))
                continue
            if owners == (1, 0):
                equalities.append((part.right, part.left))
                continue
        rest.append(part)
    return equalities, rest


def owner_of(generator: Generator) -> Callable[[ast.Expression], int | None]:
    """Which side an expression reads, from its code: the left event is ``l``, the right ``r``."""

    def owner(expression: ast.Expression) -> int | None:
        sources = [generator.safe(path) for path in ast.walk(expression) if isinstance(path, ast.Path)]
        sides = {0 if "l[" in s or "(l," in s else 1 for s in sources}
        return sides.pop() if len(sides) == 1 else None

    return owner
