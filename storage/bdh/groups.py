"""Groups of instances: what one instance for a period and key says of those that it stands for. Pure and light."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sib.query.extended import EPOCH

DAY_S = 86_400
CONTEXT, MARK = "contextData", "grouped"

FUNCTIONS = ("avg", "sum", "min", "max", "first", "last", "count")


@dataclass(frozen=True, slots=True)
class GroupBy:
    """One instance for each period and key.

    ``every_s`` divides a day. ``by``: paths of the key. ``values``: by path, how the values of a group become one (one of
    ``FUNCTIONS``); all else is that of the group's first instance.
    """

    every_s: int
    by: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)

    def period_of(self, moment: datetime) -> datetime:
        """The beginning of the period that a moment is in."""
        return moment - (moment - EPOCH) % timedelta(seconds=self.every_s)


class Group:
    """What is known of one period and key."""

    def __init__(self, group: GroupBy, period: datetime, document: dict[str, Any], moment: datetime) -> None:
        self._group = group
        self._period = period
        self._base, self._base_at = document, moment
        self._n = 0
        self._until = moment
        self._values = {path: _Value(function) for path, function in group.values.items()}

    def add(self, document: dict[str, Any], moment: datetime) -> None:
        """Add an instance, or what stands for several."""
        mark = document.get(CONTEXT, {}).get(MARK) if is_group(document) else None
        until: datetime = moment if mark is None else mark["until"]
        weights: Mapping[str, int] = {} if mark is None else mark["counts"]
        self._n += 1 if mark is None else mark["n"]
        self._until = max(self._until, until)
        if moment < self._base_at:
            self._base, self._base_at = document, moment
        for path, value in self._values.items():
            value.add(value_at(document, path), moment, until, weights.get(path) if mark else None)

    def document(self) -> dict[str, Any]:
        """The one instance for all of them."""
        document = copy.deepcopy(self._base)
        context = document.setdefault(CONTEXT, {})
        context["timestamp"] = self._period
        counts = {path: value.count for path, value in self._values.items()}
        context[MARK] = {"every_s": self._group.every_s, "n": self._n, "until": self._until, "counts": counts}
        for path, value in self._values.items():
            if value.count:
                _put_at(document, path, value.result())
        return document


class _Value:
    """The values at one path of a group. A group that is merged into another counts with its ``weight``."""

    def __init__(self, function: str) -> None:
        self._function = function
        self.count = 0
        self._sum: float = 0
        self._chosen: Any = None
        self._chosen_at: datetime | None = None

    def add(self, value: Any, moment: datetime, until: datetime, weight: int | None) -> None:
        function = self._function
        if value is None or weight == 0:
            return
        if function == "count":
            self.count += 1 if weight is None else weight
            return
        if function in ("first", "last"):
            self.count += weight or 1
            at = moment if function == "first" else until
            is_better = self._chosen_at is None or (
                at < self._chosen_at if function == "first" else at >= self._chosen_at
            )
            if is_better:
                self._chosen, self._chosen_at = value, at
            return
        if not isinstance(value, int | float) or isinstance(value, bool):
            return
        self.count += weight or 1
        if function in ("min", "max"):
            better = min if function == "min" else max
            self._chosen = value if self._chosen is None else better(self._chosen, value)
        else:
            self._sum += value * (weight or 1) if function == "avg" else value

    def result(self) -> Any:
        if self._function == "count":
            return self.count
        if self._function == "avg":
            return self._sum / self.count
        return self._sum if self._function == "sum" else self._chosen


def is_group(document: Mapping[str, Any]) -> bool:
    """Whether an instance stands for several."""
    context = document.get(CONTEXT)
    return isinstance(context, dict) and isinstance(context.get(MARK), dict)


def value_at(document: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path of objects; None if there is none."""
    value: Any = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _put_at(document: dict[str, Any], path: str, value: Any) -> None:
    *names, last = path.split(".")
    inner = document
    for name in names:
        found = inner.get(name)
        if not isinstance(found, dict):
            found = inner[name] = {}
        inner = found
    inner[last] = value
