"""Filters: no state, one comprehension over the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sib.cep.language import ast
from sib.cep.nulls import FAILURES
from sib.cep.operators.base import Operator, Out
from sib.cep.scope import Scope
from sib.cep.streams import Event


class Filter(Operator):
    """``from S[...] select ...``: every event that passes gives an output."""

    takes_late = True

    def __init__(self, scope: Scope, conditions: Sequence[ast.Expression], key_paths: Sequence[ast.Path]) -> None:
        super().__init__(scope)
        scope.times.update(eventtime="e[0]", lasteventtime="e[0]")
        generator = scope.generator()
        conditions = [*conditions, *([scope.having] if scope.having is not None else [])]
        row_fast, row_safe = scope.row_sources(generator)
        key = scope.key_source(key_paths, generator)
        fast = " and ".join(map(generator.truth, conditions))
        safe = " and ".join(f"{generator.safe(condition)} is True" for condition in conditions)
        self._fast = self._comprehension(fast, row_fast, key)
        self._safe = self._comprehension(safe, row_safe, key)

    def _comprehension(self, condition: str, row: str, key: str) -> Callable[[Sequence[Event]], list[Out]]:
        source = f"lambda b: [(e[0], 1, 0, {row}, {key}) for e in b{' if ' + condition if condition else ''}]"
        return eval(source, self.scope.namespace)  # type: ignore[no-any-return]  # noqa: S307 - own source, see codegen

    def feed(self, events: Sequence[Any], watermark: int) -> list[Out]:
        try:
            return self._fast(events)
        except FAILURES:
            return self._one_by_one(events)

    def _one_by_one(self, events: Sequence[Any]) -> list[Out]:
        """Only the odd events of a batch pay for being odd."""
        outs: list[Out] = []
        for event in events:
            try:
                outs += self._fast((event,))
            except FAILURES:
                outs += self._safe((event,))
        return outs

    def feed_late(self, event: Event, watermark: int) -> list[Out] | None:
        return self.feed((event,), watermark)


class Prefilter:
    """The filters of a source in front of an operator with state: passes on the events for which all are true."""

    def __init__(self, scope: Scope, conditions: Sequence[ast.Expression]) -> None:
        self._all = not conditions
        generator = scope.generator()
        fast = " and ".join(map(generator.truth, conditions)) or "True"
        safe = " and ".join(f"{generator.safe(condition)} is True" for condition in conditions) or "True"
        self._fast = eval(f"lambda b: [e for e in b if {fast}]", scope.namespace)  # noqa: S307 - own source, see codegen
        self._safe = eval(f"lambda b: [e for e in b if {safe}]", scope.namespace)  # noqa: S307 - own source, see codegen

    def __call__(self, events: Sequence[Event]) -> Sequence[Event]:
        if self._all:
            return events
        try:
            return self._fast(events)  # type: ignore[no-any-return]
        except FAILURES:
            return [event for event in events if self._passes(event)]

    def _passes(self, event: Event) -> bool:
        try:
            return bool(self._fast((event,)))
        except FAILURES:
            return bool(self._safe((event,)))
