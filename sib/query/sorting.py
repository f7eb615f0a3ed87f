"""Sorting documents as MongoDB does: by type first, an array by its least or greatest element, missing as null.

Sorting is stable.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import total_ordering
from itertools import islice
from typing import Any

from sib.errors import QuerySyntaxError
from sib.query.budget import Budget
from sib.query.paths import checked_parts, values_at
from sib.query.values import EMPTY_ARRAY_IN_SORT, MISSING, SortKey, is_number, sort_key

MAX_SORT_FIELDS = 32
"""Fields of one sort. Source: MongoDB manual, "$sort"."""

NULL_KEY = sort_key(None)

NATURAL = "$natural"
"""Stands alone in a sort: the order in which the documents come, or its reverse."""


def read_sort(spec: Mapping[str, Any] | Sequence[tuple[str, Any]]) -> list[tuple[str, int]]:
    """Reads ``{path: 1 | -1}`` or pairs into pairs.

    Raises:
        QuerySyntaxError: no field, too many, an empty path, or a direction that is not 1 or -1.
    """
    pairs = list(spec.items()) if isinstance(spec, Mapping) else list(spec)
    if not pairs or len(pairs) > MAX_SORT_FIELDS:
        raise QuerySyntaxError(f"a sort needs 1 to {MAX_SORT_FIELDS} fields")
    for path, direction in pairs:
        if checked_parts(path, "sort")[0].startswith("$") and (path != NATURAL or len(pairs) > 1):
            raise QuerySyntaxError(f"sort by {path!r}: a field cannot start with $")
        if not is_number(direction) or not isinstance(direction, (int, float)) or direction not in (1, -1):
            raise QuerySyntaxError(f"sort by {path!r}: the direction must be 1 or -1, not {direction!r}")
    return [(path, int(direction)) for path, direction in pairs]


def sort_key_at(document: Any, path: str, direction: int) -> SortKey:
    """The key that the document sorts by at one path: the least element ascending, the greatest descending."""
    if "." not in path:
        value = document.get(path)
        if not isinstance(value, list):
            return NULL_KEY if value is None else sort_key(value)
    keys = [key for value in values_at(document, path, expand=False) for key in _element_keys(value)]
    if not keys:
        return NULL_KEY
    return min(keys) if direction > 0 else max(keys)


def _element_keys(value: Any) -> list[SortKey]:
    if isinstance(value, list):
        return [sort_key(element) for element in value] if value else [(EMPTY_ARRAY_IN_SORT,)]
    return [NULL_KEY if value is MISSING else sort_key(value)]


@total_ordering
class _Descending:
    __slots__ = ("key",)

    def __init__(self, key: SortKey) -> None:
        self.key = key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and self.key == other.key

    def __lt__(self, other: _Descending) -> bool:
        return other.key < self.key

    __hash__ = None  # type: ignore[assignment]


def sort_key_function(pairs: Sequence[tuple[str, int]]) -> Callable[[Any], Any]:
    """A key for ``sorted`` that orders documents by all the pairs."""
    if len(pairs) == 1 and pairs[0][1] > 0:
        path = pairs[0][0]
        return lambda document: sort_key_at(document, path, 1)

    def key(document: Any) -> tuple[Any, ...]:
        return tuple(
            sort_key_at(document, path, 1) if direction > 0 else _Descending(sort_key_at(document, path, -1))
            for path, direction in pairs
        )

    return key


def sort_documents(
    documents: Iterable[dict[str, Any]],
    spec: Mapping[str, Any] | Sequence[tuple[str, Any]],
    limit: int | None = None,
    budget: Budget | None = None,
) -> list[dict[str, Any]]:
    """Sorts documents, stably. With a limit only that many are kept in memory.

    Raises:
        QuerySyntaxError: a wrong sort.
        LimitError: more documents than the budget allows to keep.
        QueryTimeoutError: the budget's time is over.
    """
    pairs = read_sort(spec)
    if pairs[0][0] == NATURAL:
        return _natural(documents, pairs[0][1], limit, budget)
    spending = _spending(documents, budget, limit)
    if limit is not None:
        return heapq.nsmallest(limit, spending, key=sort_key_function(pairs))
    result = list(spending)
    for path, direction in reversed(pairs):
        result.sort(key=lambda document: sort_key_at(document, path, direction), reverse=direction < 0)
    return result


def _natural(
    documents: Iterable[dict[str, Any]], direction: int, limit: int | None, budget: Budget | None
) -> list[dict[str, Any]]:
    if direction > 0:
        return list(islice(_spending(documents, budget, limit), limit))
    return list(deque(_spending(documents, budget, limit), limit))[::-1]


def _spending(
    documents: Iterable[dict[str, Any]], budget: Budget | None, limit: int | None
) -> Iterable[dict[str, Any]]:
    """Passes documents on and counts those that are kept: all of them, or as many as the limit."""
    if budget is None:
        yield from documents
        return
    for position, document in enumerate(documents):
        if limit is None or position < limit:
            budget.hold()
        else:
            budget.spend()
        yield document
