"""Which subscriptions does a change concern: thousands of conditions on one ontology, matched together.

Equalities on a path are one dictionary look-up and thresholds one binary search, whatever their number; what fits neither
is matched one by one with the exact matcher. Invariant: the answer is always that of the exact matcher.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sib.errors import SibError
from sib.query.matcher import compile_filter

SUBSCRIPTIONS_PER_ONTOLOGY_MAX = 100_000

Document = dict[str, Any]
Matcher = Callable[[Document], bool]
_MISSING = object()
_IRREGULAR = object()
_THRESHOLDS = {"$gt", "$gte", "$lt", "$lte"}


class SubscriptionIndex:
    """The conditions of one ontology's subscriptions."""

    def __init__(self) -> None:
        self._filters: dict[str, Mapping[str, Any]] = {}
        self._everything: dict[str, None] = {}
        self._equalities: dict[str, _Equalities] = {}
        self._thresholds: dict[str, _Thresholds] = {}
        self._others: dict[str, Matcher] = {}

    def __len__(self) -> int:
        return len(self._filters)

    def __contains__(self, subscription: str) -> bool:
        return subscription in self._filters

    def add(self, subscription: str, condition: Mapping[str, Any]) -> None:
        """Register a condition (a filter on the whole document); the same id again replaces it.

        Raises:
            QuerySyntaxError: The condition cannot be used; nothing is registered.
        """
        matcher = _forgiving(compile_filter(condition))
        self.remove(subscription)
        self._filters[subscription] = condition
        if not condition:
            self._everything[subscription] = None
            return
        path, operand = _best_key(condition)
        if path is None:
            self._others[subscription] = matcher
        elif isinstance(operand, Mapping):
            ((operator, limit),) = operand.items()
            self._thresholds.setdefault(path, _Thresholds(path)).add(subscription, operator, limit, matcher)
        else:
            check = None if len(condition) == 1 else matcher
            self._equalities.setdefault(path, _Equalities(path)).add(subscription, operand, check, matcher)

    def remove(self, subscription: str) -> None:
        """Forget a condition; an unknown id is no error."""
        condition = self._filters.pop(subscription, None)
        if condition is None:
            return
        if not condition:
            del self._everything[subscription]
        elif subscription in self._others:
            del self._others[subscription]
        else:
            path, operand = _best_key(condition)
            assert path is not None
            keyed: dict[str, Any] = self._thresholds if isinstance(operand, Mapping) else self._equalities
            keyed[path].remove(subscription)
            if not keyed[path]:
                del keyed[path]

    def match(
        self, instances: Sequence[Document | None], whole: Callable[[int], Document]
    ) -> list[tuple[int, list[str]]]:
        """The subscriptions that each instance concerns, as (position, ids) for those with any.

        Args:
            instances: Instances without ``_id`` and ``contextData``; None where there is nothing to match.
            whole: Gives the complete document of a position; called only where a condition needs it.
        """
        if not self._filters:
            return []
        hits = []
        keyed: list[_Equalities | _Thresholds] = [*self._equalities.values(), *self._thresholds.values()]
        for position, instance in enumerate(instances):
            if instance is None:
                continue
            found = list(self._everything)
            document: Document | None = None
            for group in keyed:
                candidates = group.candidates(instance)
                if not candidates:
                    continue
                for subscription, check in candidates:
                    if check is not None:
                        document = document or whole(position)
                        if not check(document):
                            continue
                    found.append(subscription)
            if self._others:
                document = document or whole(position)
                found += [subscription for subscription, matcher in self._others.items() if matcher(document)]
            if found:
                hits.append((position, found))
        return hits


def _forgiving(matcher: Matcher) -> Matcher:
    """An instance on which the condition fails (a division by zero in ``$expr``) does not match; others are not affected."""

    def matches(document: Document) -> bool:
        try:
            return matcher(document)
        except (SibError, RecursionError):
            return False

    return matches


def _best_key(condition: Mapping[str, Any]) -> tuple[str | None, Any]:
    """The conjunct to index: an equality with a string or number, else a lone threshold on a number."""
    for path, operand in condition.items():
        if _is_own_path(path) and _is_scalar(operand):
            return path, operand
    if len(condition) == 1:
        ((path, operand),) = condition.items()
        if _is_own_path(path) and isinstance(operand, Mapping) and len(operand) == 1:
            ((operator, limit),) = operand.items()
            if operator == "$eq" and _is_scalar(limit):
                return path, limit
            if operator in _THRESHOLDS and _is_number(limit):
                return path, operand
    return None, None


def _is_own_path(path: str) -> bool:
    return not path.startswith("$") and path.split(".")[0] not in ("_id", "contextData")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and value == value


def _is_scalar(value: Any) -> bool:
    return type(value) is str or _is_number(value)


def _reader(path: str) -> Callable[[Document], Any]:
    """Read a dotted path through objects only; an array on the way or at the end is irregular."""
    parts = path.split(".")

    def read(instance: Document) -> Any:
        value: Any = instance
        try:
            for part in parts:
                value = value[part]
        except (KeyError, TypeError):
            return _IRREGULAR if type(value) is list else _MISSING
        return _IRREGULAR if type(value) is list else value

    return read


Candidates = Iterable[tuple[str, Matcher | None]]


class _Equalities:
    def __init__(self, path: str) -> None:
        self._read = _reader(path)
        self._by_value: dict[tuple[bool, Any], dict[str, Matcher | None]] = {}
        self._value_of: dict[str, tuple[bool, Any]] = {}
        self._exact: dict[str, Matcher] = {}

    def __len__(self) -> int:
        return len(self._exact)

    def add(self, subscription: str, value: Any, check: Matcher | None, exact: Matcher) -> None:
        key = self._value_of[subscription] = type(value) is str, value
        self._by_value.setdefault(key, {})[subscription] = check
        self._exact[subscription] = exact

    def remove(self, subscription: str) -> None:
        if self._exact.pop(subscription, None):
            key = self._value_of.pop(subscription)
            subscriptions = self._by_value[key]
            del subscriptions[subscription]
            if not subscriptions:
                del self._by_value[key]

    def candidates(self, instance: Document) -> Candidates:
        value = self._read(instance)
        kind = type(value)
        if kind is str:
            return self._by_value.get((True, value), {}).items()
        if kind is float or kind is int:
            return self._by_value.get((False, value), {}).items()
        if value is _MISSING or value is None or kind is bool:
            return ()
        return self._exact.items()


class _Thresholds:
    """Limits on one path: for each operator the sorted limits, so that those that hold are one slice."""

    def __init__(self, path: str) -> None:
        self._read = _reader(path)
        self._sorted: dict[str, tuple[list[float], list[str]]] = {}
        """By operator: the limits, and the subscription of each."""
        self._limit_of: dict[str, tuple[str, float]] = {}
        self._exact: dict[str, Matcher] = {}

    def __len__(self) -> int:
        return len(self._exact)

    def add(self, subscription: str, operator: str, limit: float, exact: Matcher) -> None:
        limits, subscriptions = self._sorted.setdefault(operator, ([], []))
        at = bisect_left(limits, limit)
        limits.insert(at, limit)
        subscriptions.insert(at, subscription)
        self._limit_of[subscription] = operator, limit
        self._exact[subscription] = exact

    def remove(self, subscription: str) -> None:
        if self._exact.pop(subscription, None):
            operator, limit = self._limit_of.pop(subscription)
            limits, subscriptions = self._sorted[operator]
            at = subscriptions.index(subscription, bisect_left(limits, limit))
            del limits[at], subscriptions[at]

    def candidates(self, instance: Document) -> Candidates:
        value = self._read(instance)
        if type(value) not in (int, float):
            return () if type(value) in (str, bool) or value is _MISSING or value is None else self._exact.items()
        found: list[str] = []
        for operator, (limits, subscriptions) in self._sorted.items():
            if operator == "$gte":
                found += subscriptions[: bisect_right(limits, value)]
            elif operator == "$gt":
                found += subscriptions[: bisect_left(limits, value)]
            elif operator == "$lte":
                found += subscriptions[bisect_left(limits, value) :]
            else:
                found += subscriptions[bisect_right(limits, value) :]
        return [(subscription, None) for subscription in found]
