"""The distinct values of a field: arrays are unrolled, missing fields skipped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sib.query.budget import Budget, check_array_length
from sib.query.paths import checked_parts, values_at
from sib.query.values import MISSING, SortKey, sort_key


def distinct_values(documents: Iterable[dict[str, Any]], path: str, budget: Budget | None = None) -> list[Any]:
    """The distinct values at a path, in the order in which they are met first. 1 and 1.0 are one value.

    Raises:
        QuerySyntaxError: the path has an empty segment.
        LimitError: too many values.
        QueryTimeoutError: the budget's time is over.

    Source: MongoDB manual, "distinct".
    """
    checked_parts(path, "distinct")
    found: dict[SortKey, Any] = {}
    for document in documents:
        if budget is not None:
            budget.spend()
        for value in values_at(document, path, expand=False):
            for item in value if isinstance(value, list) else (value,):
                if item is not MISSING:
                    found.setdefault(sort_key(item), item)
        check_array_length(len(found))
    return list(found.values())
