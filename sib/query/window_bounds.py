"""The bounds of windows: how far before and after a document its window reaches."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sib.errors import QueryError, QuerySyntaxError
from sib.query import calendar_units
from sib.query.numbers import add, as_whole
from sib.query.values import MISSING, SortKey, is_number, sort_key

UNBOUNDED, CURRENT = "unbounded", "current"


@dataclass(frozen=True, slots=True)
class Window:
    """Bounds relative to a document: by position, or by the value that the documents are sorted by.

    Attributes:
        lower, upper: "unbounded", "current", or an offset.
        is_range: offsets are of the sort value, not of positions.
        unit: the unit of time of a range over dates.
    """

    lower: Any = UNBOUNDED
    upper: Any = UNBOUNDED
    is_range: bool = False
    unit: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the window is the whole partition."""
        return bool(self.lower == UNBOUNDED and self.upper == UNBOUNDED)

    @property
    def is_running(self) -> bool:
        """Whether the window grows by one document at a time from the start of the partition."""
        return not self.is_range and self.lower == UNBOUNDED and self.upper == CURRENT

    def slices(self, sort_values: Sequence[Any]) -> list[tuple[int, int]]:
        """For every document of the sorted partition: the first position of its window, and the one behind the last.

        Raises:
            QueryError: a range over values that are no numbers (or no dates, with a unit).
        """
        if not self.is_range:
            return [self._positions(at, len(sort_values)) for at in range(len(sort_values))]
        keys = [sort_key(None if value is MISSING else value) for value in sort_values]
        return [self._range(value, keys) for value in sort_values]

    def _positions(self, at: int, length: int) -> tuple[int, int]:
        start = 0 if self.lower == UNBOUNDED else at + (0 if self.lower == CURRENT else self.lower)
        end = length if self.upper == UNBOUNDED else at + 1 + (0 if self.upper == CURRENT else self.upper)
        start, end = max(start, 0), min(end, length)
        return (start, end) if start < end else (0, 0)

    def _range(self, value: Any, keys: list[SortKey]) -> tuple[int, int]:
        start = 0 if self.lower == UNBOUNDED else bisect.bisect_left(keys, self._moved(value, self.lower))
        end = len(keys) if self.upper == UNBOUNDED else bisect.bisect_right(keys, self._moved(value, self.upper))
        return (start, end) if start < end else (0, 0)

    def _moved(self, value: Any, bound: Any) -> SortKey:
        offset = 0 if bound == CURRENT else bound
        if self.unit is not None:
            if not isinstance(value, datetime):
                raise QueryError("a window range with a unit needs dates in the field that it is sorted by")
            return sort_key(calendar_units.shift(value, self.unit, int(offset)))
        if not is_number(value):
            raise QueryError("a window range needs numbers in the field that it is sorted by (dates need a unit)")
        return sort_key(add(value, offset))


def read_window(spec: Any, sort: list[tuple[str, int]]) -> Window:
    """Reads ``{documents: [lower, upper]}`` or ``{range: [lower, upper], unit}``.

    Raises:
        QuerySyntaxError: neither, or bounds that are not understood or in the wrong order.
    """
    if (
        not isinstance(spec, Mapping)
        or set(spec) - {"documents", "range", "unit"}
        or ("documents" in spec and len(spec) > 1)
    ):
        raise QuerySyntaxError(
            "a window needs either documents: [lower, upper] or range: [lower, upper] with a unit for dates"
        )
    if not spec:
        return Window()
    is_range = "range" in spec
    bounds = spec.get("range" if is_range else "documents")
    if not isinstance(bounds, list) or len(bounds) != 2:
        raise QuerySyntaxError("a window needs two bounds: [lower, upper]")
    if is_range and (len(sort) != 1 or sort[0][1] != 1):
        raise QuerySyntaxError("a window range needs a sortBy of one ascending field")
    unit = spec.get("unit")
    if unit is not None:
        try:
            calendar_units.check_unit("window", unit)
        except QueryError as error:
            raise QuerySyntaxError(error.message) from None
    if not sort and bounds != [UNBOUNDED, UNBOUNDED]:
        raise QuerySyntaxError("a window with bounds needs a sortBy")
    lower, upper = (_bound(bound, is_whole=not is_range or unit is not None) for bound in bounds)
    if _rank(lower, -1) > _rank(upper, 1):
        raise QuerySyntaxError("the lower bound of a window must not be above its upper bound")
    return Window(lower, upper, is_range, unit)


def _bound(bound: Any, *, is_whole: bool) -> Any:
    if isinstance(bound, str) and bound in (UNBOUNDED, CURRENT):
        return bound
    if is_number(bound):
        whole = as_whole(bound)
        if whole is not None:
            return whole if abs(whole) <= calendar_units.MAX_AMOUNT else UNBOUNDED
        if not is_whole and isinstance(bound, float) and bound == bound:
            return bound
    raise QuerySyntaxError(f"a window bound is 'unbounded', 'current' or a number, not {bound!r}")


def _rank(bound: Any, side: int) -> float:
    if bound == UNBOUNDED:
        return float("inf") * side
    return 0.0 if bound == CURRENT else float(bound)
