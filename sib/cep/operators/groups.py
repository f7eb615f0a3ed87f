"""Groups of a window that only grows, as the batch windows have: aggregates, the last event, and the finished rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from sib.cep.aggregates import hashable, new_aggregate
from sib.cep.codegen import tuple_source
from sib.cep.language import ast
from sib.cep.operators.base import Out, frozen_key, is_null_key
from sib.cep.scope import Scope
from sib.cep.streams import Event

Group: TypeAlias = list[Any]
"""[last event, aggregate, ...], or [events ...] where a rule has no aggregates and no groups."""


class Groups:
    """Makes, feeds, merges and finishes the groups of one rule."""

    def __init__(self, scope: Scope, key_paths: tuple[ast.Path, ...], *, only_grows: bool = True) -> None:
        self._scope = scope
        self._only_grows = only_grows
        scope.times.update(eventtime="ts", lasteventtime="e[0]")
        generator = scope.generator()
        row_fast, row_safe = scope.row_sources(generator)
        having = scope.having
        conditions = (generator.truth(having), generator.safe(having)) if having is not None else None
        self.calls = scope.aggregates
        self.keeps_events = not self.calls and not scope.rule.select.group_by
        names = ", ".join(f"A{index}" for index in range(len(self.calls)))
        arguments = f"e, ts{', ' + names if names else ''}"
        self.row: Callable[..., tuple[Any, ...]] = scope.guarded(arguments, row_fast, row_safe)
        self.passes: Callable[..., bool] | None = None
        if conditions is not None:
            self.passes = scope.guarded(arguments, conditions[0], f"{conditions[1]} is True")
        values = tuple_source([generator.safe(call.argument) if call.argument else "True" for call in self.calls])
        self.values: Callable[[Event], tuple[Any, ...]] = eval(f"lambda e: {values}", scope.namespace)  # noqa: S307
        self._partition = self._key_function(scope.partition_paths)
        self._key = self._key_function(key_paths)
        self._same_key = tuple(key_paths) == tuple(scope.partition_paths)
        self._order = self._ordering()

    def _key_function(self, paths: Iterable[ast.Path]) -> Callable[[Event], Any]:
        source = self._scope.key_source(paths, self._scope.generator())
        return eval(f"lambda e: {source}", self._scope.namespace)  # type: ignore[no-any-return]  # noqa: S307

    def _ordering(self) -> list[tuple[int, bool]]:
        """Columns to order by, the last criterion first, and whether descending."""
        names = [column.name.casefold() for column in self._scope.columns]
        paths = [column.expression for column in self._scope.columns]
        order = []
        for path, is_descending in reversed(self._scope.rule.select.order_by):
            place = names.index(path.name.casefold()) if path.name.casefold() in names else paths.index(path)
            order.append((place, is_descending))
        return order

    def partition(self, event: Event) -> Any:
        """The partition key."""
        return frozen_key(self._partition(event))

    def key(self, event: Event) -> Any:
        """Partition and group key together, as one dictionary key."""
        return frozen_key(self._key(event))

    def is_outside(self, event: Event) -> bool:
        """Whether the event has no partition, because a key of it is null."""
        parts = len(self._scope.partition_paths)
        return bool(parts) and is_null_key(self._partition(event), parts)

    def new(self) -> Group:
        """An empty group."""
        if self.keeps_events:
            return []
        return [None, *(new_aggregate(c.name, c.percent, only_grows=self._only_grows) for c in self.calls)]

    def add(self, group: Group, event: Event) -> None:
        """Take an event into a group."""
        if self.keeps_events:
            group.append(event)
            return
        group[0] = event
        place = 1
        for value in self.values(event):
            group[place].add(value)
            place += 1

    def merge(self, group: Group, other: Group) -> None:
        """Take a later group's content into a group."""
        if self.keeps_events:
            group.extend(other)
            return
        group[0] = other[0]
        for mine, theirs in zip(group[1:], other[1:], strict=True):
            mine.merge(theirs)

    def finish(self, groups: Iterable[tuple[Any, Group]], ts: int, on: set[Any] | None, cause: int = 0) -> list[Out]:
        """The outputs of groups whose window ends, ordered and limited; ``on`` holds the groups whose having is true."""
        outs: list[Out] = []
        for key, group in groups:
            for arguments in self._arguments(group, ts):
                is_wanted = self.passes is None or self.passes(*arguments)
                if on is not None:
                    is_new = is_wanted and key not in on
                    (on.add if is_wanted else on.discard)(key)
                    is_wanted = is_new
                if is_wanted:
                    outs.append((ts, cause, len(outs), self.row(*arguments), key))
        return self._ordered(outs)

    def _arguments(self, group: Group, ts: int) -> Iterable[tuple[Any, ...]]:
        if self.keeps_events:
            return ((event, ts) for event in group)
        return ((group[0], ts, *(aggregate.value() for aggregate in group[1:])),)

    def _ordered(self, outs: list[Out]) -> list[Out]:
        limit = self._scope.rule.select.limit
        if not self._order and limit is None:
            return outs
        for place, is_descending in self._order:
            outs.sort(key=lambda out: order_key(out[3][place]), reverse=is_descending)
        return [(ts, cause, n, row, key) for n, (ts, cause, _, row, key) in enumerate(outs[:limit])]


def order_key(value: Any) -> tuple[int, Any]:
    """Nulls first, then numbers, then texts, then the rest by their text."""
    if value is None:
        return (0, 0)
    if isinstance(value, (int, float)):
        return (1, value)
    return (2, value) if isinstance(value, str) else (3, str(hashable(value)))
