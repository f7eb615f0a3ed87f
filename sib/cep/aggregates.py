"""Aggregates that take values and give them back: exact, incremental, one object per group of a window.

Null and ill-typed values are skipped. An aggregate of nothing is null, ``count`` and ``distinctCount`` of nothing are 0.
The windows that are fast inline the simple ones and use these objects for the rest.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter
from typing import Any, ClassVar, Protocol

from sib.cep.nulls import FAILURES, less, numeric


class Aggregate(Protocol):
    """What a window keeps for one aggregate of one group."""

    def add(self, value: Any) -> None: ...
    def remove(self, value: Any) -> None: ...
    def merge(self, other: Any) -> None: ...
    def value(self) -> Any: ...
    def dump(self) -> list[Any]: ...


class Count:
    """How many values are not null."""

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def add(self, value: Any) -> None:
        self.count += value is not None

    def remove(self, value: Any) -> None:
        self.count -= value is not None

    def merge(self, other: Count) -> None:
        self.count += other.count

    def value(self) -> Any:
        return self.count

    def dump(self) -> list[Any]:
        return [self.count]


class Sum(Count):
    """The sum; back to exactly nothing when the window empties, so that rounding does not pile up."""

    def __init__(self, count: int = 0, total: Any = 0) -> None:
        super().__init__(count)
        self.total = total

    def add(self, value: Any) -> None:
        value = numeric(value)
        if value is not None:
            self.count += 1
            self.total += value

    def remove(self, value: Any) -> None:
        value = numeric(value)
        if value is not None:
            self.count -= 1
            self.total = self.total - value if self.count else 0

    def merge(self, other: Any) -> None:
        self.count += other.count
        self.total += other.total

    def value(self) -> Any:
        return self.total if self.count else None

    def dump(self) -> list[Any]:
        return [self.count, self.total]


class Average(Sum):
    """The mean."""

    def value(self) -> Any:
        return self.total / self.count if self.count else None


class Deviation:
    """The standard deviation of the population, from sums shifted by the first value (no cancellation)."""

    def __init__(self, count: int = 0, shift: Any = 0, total: Any = 0, squares: Any = 0) -> None:
        self.count, self.shift, self.total, self.squares = count, shift, total, squares

    def add(self, value: Any) -> None:
        value = numeric(value)
        if value is None:
            return
        if not self.count:
            self.shift, self.total, self.squares = value, 0, 0
        self.count += 1
        self.total += value - self.shift
        self.squares += (value - self.shift) * (value - self.shift)

    def remove(self, value: Any) -> None:
        value = numeric(value)
        if value is None:
            return
        self.count -= 1
        self.total -= value - self.shift
        self.squares -= (value - self.shift) * (value - self.shift)

    def merge(self, other: Deviation) -> None:
        if not other.count:
            return
        if not self.count:
            self.__init__(*other.dump())  # type: ignore[misc]
            return
        moved = other.shift - self.shift
        self.squares += other.squares + 2 * moved * other.total + other.count * moved * moved
        self.total += other.total + other.count * moved
        self.count += other.count

    def value(self) -> Any:
        if not self.count:
            return None
        mean = self.total / self.count
        return math.sqrt(max(0.0, self.squares / self.count - mean * mean))

    def dump(self) -> list[Any]:
        return [self.count, self.shift, self.total, self.squares]


class Sorted:
    """All values in order; the base of what needs ranks. O(log n) to find, a fast memmove to insert."""

    def __init__(self, values: list[Any] | None = None) -> None:
        self.values: list[Any] = values if values is not None else []

    def accept(self, value: Any) -> Any:
        return numeric(value)

    def add(self, value: Any) -> None:
        value = self.accept(value)
        if value is not None:
            try:
                insort(self.values, value)
            except FAILURES:
                return

    def remove(self, value: Any) -> None:
        value = self.accept(value)
        if value is None:
            return
        try:
            place = bisect_left(self.values, value)
        except FAILURES:
            return
        if place < len(self.values) and self.values[place] == value:
            del self.values[place]

    def merge(self, other: Any) -> None:
        try:
            self.values = sorted(self.values + other.values)
        except FAILURES:
            return

    def dump(self) -> list[Any]:
        return [self.values]


class Minimum(Sorted):
    """The least value, also of texts; a value that cannot be compared with the others is skipped."""

    def accept(self, value: Any) -> Any:
        return value

    def value(self) -> Any:
        return self.values[0] if self.values else None


class Maximum(Minimum):
    """The greatest value."""

    def value(self) -> Any:
        return self.values[-1] if self.values else None


class Percentile(Sorted):
    """The value below which a share of the values lies, linear between neighbours."""

    def __init__(self, values: list[Any] | None = None, percent: float = 50.0) -> None:
        super().__init__(values)
        self.percent = percent

    def value(self) -> Any:
        if not self.values:
            return None
        place = (len(self.values) - 1) * self.percent / 100
        low = math.floor(place)
        high = min(low + 1, len(self.values) - 1)
        if place == low or self.values[low] == self.values[high]:
            return self.values[low]
        return self.values[low] + (self.values[high] - self.values[low]) * (place - low)

    def dump(self) -> list[Any]:
        return [self.values, self.percent]


class DistinctCount:
    """How many different values."""

    def __init__(self, counts: list[list[Any]] | None = None) -> None:
        self.counts: Counter[Any] = Counter({hashable(value): count for value, count in counts or ()})

    def add(self, value: Any) -> None:
        if value is not None:
            self.counts[hashable(value)] += 1

    def remove(self, value: Any) -> None:
        if value is None:
            return
        key = hashable(value)
        self.counts[key] -= 1
        if self.counts[key] <= 0:
            del self.counts[key]

    def merge(self, other: DistinctCount) -> None:
        self.counts += other.counts

    def value(self) -> Any:
        return len(self.counts)

    def dump(self) -> list[Any]:
        return [[[value, count] for value, count in self.counts.items()]]


class Ends:
    """The first and the last value that came in, nulls too; for windows that only grow."""

    is_first: ClassVar[bool] = True

    def __init__(self, values: list[Any] | None = None) -> None:
        self.values: list[Any] = values if values is not None else []

    def add(self, value: Any) -> None:
        self.values.append(value)

    def remove(self, value: Any) -> None:
        if value in self.values:
            self.values.remove(value)

    def merge(self, other: Ends) -> None:
        self.values.extend(other.values)

    def value(self) -> Any:
        return (self.values[0] if self.is_first else self.values[-1]) if self.values else None

    def dump(self) -> list[Any]:
        return [self.values]


class First(Ends):
    """The oldest value of the window."""


class Last(Ends):
    """The newest value of the window."""

    is_first: ClassVar[bool] = False


class SoFar:
    """Base of what keeps one value of a window that only grows."""

    def __init__(self, kept: Any = None, is_set: bool = False) -> None:
        self.kept, self.is_set = kept, is_set

    def replaces(self, value: Any) -> bool:
        raise NotImplementedError

    def add(self, value: Any) -> None:
        if not self.is_set or self.replaces(value):
            self.kept, self.is_set = value, True

    def merge(self, other: SoFar) -> None:
        if other.is_set:
            self.add(other.kept)

    def value(self) -> Any:
        return self.kept

    def dump(self) -> list[Any]:
        return [self.kept, self.is_set]


class FirstSoFar(SoFar):
    """The first value."""

    def replaces(self, value: Any) -> bool:
        return False


class LastSoFar(SoFar):
    """The last value."""

    def replaces(self, value: Any) -> bool:
        return True


class LowestSoFar(SoFar):
    """The least value."""

    def replaces(self, value: Any) -> bool:
        return less(value, self.kept) is True

    def add(self, value: Any) -> None:
        if value is not None:
            super().add(value)


class HighestSoFar(LowestSoFar):
    """The greatest value."""

    def replaces(self, value: Any) -> bool:
        return less(self.kept, value) is True


CLASSES: dict[str, type[Any]] = {
    "count": Count,
    "sum": Sum,
    "avg": Average,
    "min": Minimum,
    "max": Maximum,
    "stddev": Deviation,
    "first": First,
    "last": Last,
    "distinctcount": DistinctCount,
    "median": Percentile,
    "percentile": Percentile,
    "first so far": FirstSoFar,
    "last so far": LastSoFar,
    "min so far": LowestSoFar,
    "max so far": HighestSoFar,
}

_NAMES = {cls: name for name, cls in reversed(CLASSES.items())}


def new_aggregate(name: str, percent: float | None = None, *, only_grows: bool = False) -> Any:
    """An empty aggregate by the name it has in the language; ``only_grows`` = nothing is ever removed from it."""
    if percent is not None:
        return Percentile(percent=percent)
    return CLASSES.get(f"{name} so far" if only_grows else name, CLASSES[name])()


def dump_aggregate(aggregate: Any) -> list[Any]:
    """Name and state of an aggregate, for a snapshot."""
    return [_NAMES[type(aggregate)], *aggregate.dump()]


def load_aggregate(dumped: list[Any]) -> Any:
    """The aggregate of :func:`dump_aggregate`."""
    return CLASSES[dumped[0]](*dumped[1:])


def hashable(value: Any) -> Any:
    """The value, or a text that stands for it where it cannot be a key (lists, objects)."""
    try:
        hash(value)
    except TypeError:
        return f"\x00{value!r}"
    return value
