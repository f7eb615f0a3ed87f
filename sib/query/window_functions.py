"""Functions over a sorted partition: ranks, neighbours, accumulators over windows, and series (derivative, fill …).

Each takes a partition and gives one value for every document of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from sib.errors import LimitError, QueryError, QuerySyntaxError
from sib.query import numbers
from sib.query.accumulator_specs import AccumulatorSpec
from sib.query.budget import Context
from sib.query.calendar_units import DAYS, MILLISECONDS
from sib.query.expressions import Expression, compile_expression, evaluate_constant
from sib.query.expressions.compiler import is_nullish, named_arguments
from sib.query.expressions.mathematics import milliseconds_between
from sib.query.paths import read, split_path
from sib.query.sorting import sort_key_at
from sib.query.values import MISSING, is_int, is_number
from sib.query.window_bounds import Window

MAX_WINDOW_ELEMENTS = 5_000_000
"""Elements that ``$push`` and its like may gather over all windows of one partition."""


@dataclass(frozen=True, slots=True)
class Partition:
    """The documents of one partition in their order, and what they are sorted by."""

    rows: list[dict[str, Any]]
    sort: list[tuple[str, int]]
    context: Context

    def column(self, expression: Expression) -> list[Any]:
        """The value of an expression for every document."""
        variables = self.context.variables
        self.context.budget.spend(len(self.rows))
        return [expression(row, variables) for row in self.rows]

    def sort_values(self) -> list[Any]:
        """The value of the first sort field for every document."""
        if not self.sort:
            return [None] * len(self.rows)
        parts = split_path(self.sort[0][0])
        return [read(row, parts) for row in self.rows]

    def sort_keys(self) -> list[Any]:
        """The keys that decide whether documents are peers."""
        return [tuple(sort_key_at(row, path, direction) for path, direction in self.sort) for row in self.rows]


WindowFunction: TypeAlias = Callable[[Partition], list[Any]]


def compile_window_accumulator(accumulator: AccumulatorSpec, window: Window) -> WindowFunction:
    """An accumulator over the window of every document; windows that only grow are computed in one pass."""

    def compute(partition: Partition) -> list[Any]:
        values = partition.column(accumulator.read)
        if window.is_whole:
            return [_gather(accumulator, values, partition)] * len(values)
        if window.is_running:
            return _bounded(_running(accumulator, values), partition)
        slices = window.slices(partition.sort_values())
        return _bounded((_gather(accumulator, values[start:end], partition) for start, end in slices), partition)

    return compute


def _running(accumulator: AccumulatorSpec, values: list[Any]) -> Iterator[Any]:
    running = accumulator.make()
    for value in values:
        running.add(value)
        yield running.result()


def _gather(accumulator: AccumulatorSpec, values: list[Any], partition: Partition) -> Any:
    partition.context.budget.spend(len(values) + 1)
    gathered = accumulator.make()
    for value in values:
        gathered.add(value)
    return gathered.result()


def _bounded(results: Iterator[Any], partition: Partition) -> list[Any]:
    """All results; arrays (of ``$push`` over overlapping windows) count together."""
    kept: list[Any] = []
    elements = 0
    for result in results:
        size = len(result) if isinstance(result, list) else 0
        elements += size
        if elements > MAX_WINDOW_ELEMENTS:
            raise LimitError(
                f"the windows of the query gather more than {MAX_WINDOW_ELEMENTS} elements: make them smaller"
            )
        partition.context.budget.spend(size + 1)
        kept.append(result)
    return kept


# Ranks


def _document_number(partition: Partition) -> list[Any]:
    return list(range(1, len(partition.rows) + 1))


def _rank(partition: Partition) -> list[Any]:
    keys = partition.sort_keys()
    ranks: list[Any] = []
    for position, key in enumerate(keys):
        ranks.append(ranks[-1] if position and key == keys[position - 1] else position + 1)
    return ranks


def _dense_rank(partition: Partition) -> list[Any]:
    keys = partition.sort_keys()
    ranks: list[Any] = []
    for position, key in enumerate(keys):
        is_peer = position > 0 and key == keys[position - 1]
        ranks.append((ranks[-1] if ranks else 0) + (0 if is_peer else 1))
    return ranks


RANKS: dict[str, WindowFunction] = {"$documentNumber": _document_number, "$rank": _rank, "$denseRank": _dense_rank}


# Neighbours and series


def _shift(name: str, argument: Any, window: Window | None, context: Context) -> WindowFunction:
    named = named_arguments(name, argument, ("output", "by"), ("default",))
    by = named["by"]
    if window is not None or not is_int(by):
        raise QuerySyntaxError("$shift needs a whole number in by, and takes no window")
    output = compile_expression(named["output"], context)
    default = evaluate_constant(named.get("default"), context)

    def compute(partition: Partition) -> list[Any]:
        values = [None if value is MISSING else value for value in partition.column(output)]
        length = len(values)
        return [values[at + by] if 0 <= at + by < length else default for at in range(length)]

    return compute


def _exponential_average(name: str, argument: Any, window: Window | None, context: Context) -> WindowFunction:
    named = named_arguments(name, argument, ("input",), ("N", "alpha"))
    if window is not None or ("N" in named) == ("alpha" in named):
        raise QuerySyntaxError("$expMovingAvg needs either N or alpha, and takes no window")
    weight = named.get("alpha", named.get("N"))
    if not is_number(weight) or numbers.as_float(weight) <= 0 or ("alpha" in named and numbers.as_float(weight) >= 1):
        raise QuerySyntaxError("$expMovingAvg needs a positive N, or alpha between 0 and 1")
    alpha = numbers.as_float(weight) if "alpha" in named else 2 / (numbers.as_float(weight) + 1)
    source = compile_expression(named["input"], context)

    def compute(partition: Partition) -> list[Any]:
        average: float | None = None
        results: list[Any] = []
        for value in partition.column(source):
            if is_number(value):
                number = numbers.as_float(value)
                average = number if average is None else number * alpha + average * (1 - alpha)
            results.append(average)
        return results

    return compute


def _over_time(name: str, argument: Any, window: Window | None, context: Context) -> WindowFunction:
    named = named_arguments(name, argument, ("input",), ("unit",))
    unit = named.get("unit")
    scale = None
    if unit is not None:
        if type(unit) is not str:
            raise QuerySyntaxError(f"{name} needs a unit from millisecond to week")
        if unit in MILLISECONDS:
            scale = MILLISECONDS[unit]
        elif unit in DAYS:
            scale = DAYS[unit] * MILLISECONDS["hour"] * 24
        else:
            raise QuerySyntaxError(f"{name} needs a unit from millisecond to week")
    if window is None and name == "$derivative":
        raise QuerySyntaxError("$derivative needs a window")
    source = compile_expression(named["input"], context)
    bounds = window if window is not None else Window()
    apply = _derivative if name == "$derivative" else _integral

    def compute(partition: Partition) -> list[Any]:
        sort_values = partition.sort_values()
        points = [
            (_position(name, at, scale), value) for at, value in zip(sort_values, partition.column(source), strict=True)
        ]
        results: list[Any] = []
        for start, end in bounds.slices(sort_values):
            partition.context.budget.spend(end - start + 1)
            results.append(apply(points[start:end]))
        return results

    return compute


def _position(name: str, value: Any, scale: int | None) -> float:
    if isinstance(value, datetime) and scale is not None:
        return float(milliseconds_between(datetime(1970, 1, 1), value)) / scale
    if is_number(value) and scale is None:
        return numbers.as_float(value)
    raise QueryError(f"{name} needs numbers in the field that it is sorted by, or dates together with a unit")


def _derivative(points: list[tuple[float, Any]]) -> Any:
    if len(points) < 2 or not is_number(points[0][1]) or not is_number(points[-1][1]):
        return None
    width = points[-1][0] - points[0][0]
    return None if width == 0 else (numbers.as_float(points[-1][1]) - numbers.as_float(points[0][1])) / width


def _integral(points: list[tuple[float, Any]]) -> Any:
    known = [(at, numbers.as_float(value)) for at, value in points if is_number(value)]
    pairs = itertools.pairwise(known)
    return sum(((right[0] - left[0]) * (left[1] + right[1]) / 2 for left, right in pairs), 0.0)


def _last_carried_forward(name: str, argument: Any, window: Window | None, context: Context) -> WindowFunction:
    _refuse_window(name, window)
    source = compile_expression(argument, context)

    def compute(partition: Partition) -> list[Any]:
        last: Any = None
        results: list[Any] = []
        for value in partition.column(source):
            last = last if is_nullish(value) else value
            results.append(last)
        return results

    return compute


def _linear_fill(name: str, argument: Any, window: Window | None, context: Context) -> WindowFunction:
    _refuse_window(name, window)
    source = compile_expression(argument, context)

    def compute(partition: Partition) -> list[Any]:
        values = [None if is_nullish(value) else value for value in partition.column(source)]
        if not all(value is None or is_number(value) for value in values):
            raise QueryError("$linearFill needs numbers")
        positions = [
            float(milliseconds_between(datetime(1970, 1, 1), at))
            if isinstance(at, datetime)
            else _position(name, at, None)
            for at in partition.sort_values()
        ]
        known = [at for at, value in enumerate(values) if value is not None]
        for left, right in itertools.pairwise(known):
            width = positions[right] - positions[left]
            start, end = numbers.as_float(values[left]), numbers.as_float(values[right])
            for at in range(left + 1, right):
                share = (positions[at] - positions[left]) / width if width else 0.0
                values[at] = start + (end - start) * share
        return values

    return compute


def _refuse_window(name: str, window: Window | None) -> None:
    if window is not None:
        raise QuerySyntaxError(f"{name} takes no window")


WINDOW_FUNCTIONS: dict[str, Callable[[str, Any, Window | None, Context], WindowFunction]] = {
    "$shift": _shift,
    "$expMovingAvg": _exponential_average,
    "$derivative": _over_time,
    "$integral": _over_time,
    "$locf": _last_carried_forward,
    "$linearFill": _linear_fill,
}
