"""Accumulators: what ``$group``, ``$bucket`` and windows gather from many documents.

Source: MongoDB manual, "Aggregation Operators" (accumulators).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from bson import Decimal128

from sib.errors import QueryError
from sib.query import numbers
from sib.query.budget import check_array_length
from sib.query.values import MISSING, SortKey, is_number, sort_key, type_name


class Accumulator(Protocol):
    """Takes values one by one and gives a result at any time."""

    def add(self, value: Any) -> None:
        """Takes the next value; MISSING where a document has none."""

    def result(self) -> Any:
        """The result so far; MISSING is possible."""


class Sum:
    """The sum of what is a number; 0 of nothing."""

    __slots__ = ("_total",)

    def __init__(self) -> None:
        self._total: Any = 0

    def add(self, value: Any) -> None:
        kind = type(value)
        if kind is float or kind is int:
            total = self._total
            if type(total) is kind and kind is float:
                self._total = total + value
                return
        elif not is_number(value):
            return
        self._total = numbers.add(self._total, value)

    def result(self) -> Any:
        return self._total


class Average:
    """The mean of what is a number; null of nothing. A double, or a decimal if any value is one."""

    __slots__ = ("_count", "_total")

    def __init__(self) -> None:
        self._total: Any = 0
        self._count = 0

    def add(self, value: Any) -> None:
        if is_number(value):
            self._total = numbers.add(self._total, value)
            self._count += 1

    def result(self) -> Any:
        if not self._count:
            return None
        if isinstance(self._total, Decimal128):
            return numbers.from_decimal(numbers.DECIMAL_CONTEXT.divide(numbers.to_decimal(self._total), self._count))
        return float(self._total) / self._count


class _Extreme:
    """The least or greatest value by the BSON order; null and missing do not count."""

    __slots__ = ("_key", "_value")

    def __init__(self) -> None:
        self._key: SortKey | None = None
        self._value: Any = None

    def _is_better(self, key: SortKey, best: SortKey) -> bool:
        raise NotImplementedError

    def add(self, value: Any) -> None:
        if value is None or value is MISSING:
            return
        key = sort_key(value)
        if self._key is None or self._is_better(key, self._key):
            self._key, self._value = key, value

    def result(self) -> Any:
        return self._value


class Minimum(_Extreme):
    """The least value."""

    __slots__ = ()

    def _is_better(self, key: SortKey, best: SortKey) -> bool:
        return key < best


class Maximum(_Extreme):
    """The greatest value."""

    __slots__ = ()

    def _is_better(self, key: SortKey, best: SortKey) -> bool:
        return key > best


class First:
    """The value of the first document; null when it has none."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value: Any = self

    def add(self, value: Any) -> None:
        if self._value is self:
            self._value = None if value is MISSING else value

    def result(self) -> Any:
        return None if self._value is self else self._value


class Last:
    """The value of the last document; null when it has none."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value: Any = None

    def add(self, value: Any) -> None:
        self._value = None if value is MISSING else value

    def result(self) -> Any:
        return self._value


class Push:
    """All values in order; a missing one is left out."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: list[Any] = []

    def add(self, value: Any) -> None:
        if value is not MISSING:
            self._values.append(value)
            check_array_length(len(self._values))

    def result(self) -> Any:
        return list(self._values)


class AddToSet:
    """The distinct values, in the order of their first appearance."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[SortKey, Any] = {}

    def add(self, value: Any) -> None:
        if value is not MISSING:
            self._values.setdefault(sort_key(value), value)
            check_array_length(len(self._values))

    def result(self) -> Any:
        return list(self._values.values())


class Count:
    """How many documents."""

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = 0

    def add(self, value: Any) -> None:
        self._count += 1

    def result(self) -> Any:
        return self._count


class MergeObjects:
    """The objects merged, later ones winning."""

    __slots__ = ("_merged",)

    def __init__(self) -> None:
        self._merged: dict[str, Any] = {}

    def add(self, value: Any) -> None:
        if value is None or value is MISSING:
            return
        if not isinstance(value, dict):
            raise QueryError(f"$mergeObjects needs objects, not {type_name(value)}")
        self._merged.update(value)

    def result(self) -> Any:
        return dict(self._merged)


class StandardDeviation:
    """The standard deviation of what is a number, by Welford's method; null of too few."""

    __slots__ = ("_count", "_is_sample", "_mean", "_squares")

    def __init__(self, is_sample: bool) -> None:
        self._is_sample = is_sample
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0

    def add(self, value: Any) -> None:
        if not is_number(value):
            return
        number = numbers.as_float(value)
        self._count += 1
        delta = number - self._mean
        self._mean += delta / self._count
        self._squares += delta * (number - self._mean)

    def result(self) -> Any:
        divisor = self._count - 1 if self._is_sample else self._count
        if divisor <= 0:
            return None
        variance = self._squares / divisor
        return math.sqrt(variance) if variance >= 0 else math.nan


ACCUMULATORS: dict[str, Callable[[], Accumulator]] = {
    "$sum": Sum,
    "$avg": Average,
    "$min": Minimum,
    "$max": Maximum,
    "$first": First,
    "$last": Last,
    "$push": Push,
    "$addToSet": AddToSet,
    "$count": Count,
    "$mergeObjects": MergeObjects,
    "$stdDevPop": lambda: StandardDeviation(is_sample=False),
    "$stdDevSamp": lambda: StandardDeviation(is_sample=True),
}
"""Accumulators that take one expression."""


class FirstN:
    """The first n values; missing as null."""

    __slots__ = ("_most", "_values")

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: list[Any] = []

    def add(self, value: Any) -> None:
        if len(self._values) < self._most:
            self._values.append(None if value is MISSING else value)

    def result(self) -> Any:
        return list(self._values)


class LastN:
    """The last n values; missing as null."""

    __slots__ = ("_most", "_values")

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: list[Any] = []

    def add(self, value: Any) -> None:
        self._values.append(None if value is MISSING else value)
        if len(self._values) > 2 * self._most:
            del self._values[: -self._most]

    def result(self) -> Any:
        return self._values[-self._most :]


class ExtremeN:
    """The n least or greatest values, best first; null and missing do not count."""

    __slots__ = ("_is_greatest", "_most", "_values")

    def __init__(self, most: int, is_greatest: bool) -> None:
        self._most = most
        self._is_greatest = is_greatest
        self._values: list[Any] = []

    def add(self, value: Any) -> None:
        if value is None or value is MISSING:
            return
        self._values.append(value)
        if len(self._values) > 2 * self._most + 16:
            self._values = self.result()

    def result(self) -> Any:
        return sorted(self._values, key=sort_key, reverse=self._is_greatest)[: self._most]


class TopN:
    """The outputs of the n first documents by a sort; of the last ones for ``$bottomN``."""

    __slots__ = ("_is_bottom", "_most", "_pairs")

    def __init__(self, most: int, is_bottom: bool) -> None:
        self._most = most
        self._is_bottom = is_bottom
        self._pairs: list[tuple[Any, Any]] = []

    def add(self, value: Any) -> None:
        """Takes a pair of the document's sort key and its output."""
        key, output = value
        self._pairs.append((key, None if output is MISSING else output))
        if len(self._pairs) > 2 * self._most + 16:
            self._pairs = self._best()

    def _best(self) -> list[tuple[Any, Any]]:
        ordered = sorted(self._pairs, key=lambda pair: pair[0])
        return ordered[-self._most :] if self._is_bottom else ordered[: self._most]

    def result(self) -> Any:
        return [output for _, output in self._best()]


class Single:
    """The one value of an accumulator of n = 1; null of none."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Accumulator) -> None:
        self._inner = inner

    def add(self, value: Any) -> None:
        self._inner.add(value)

    def result(self) -> Any:
        values = self._inner.result()
        return values[0] if values else None
