"""Sliding windows that are fast: ``time``, ``length``, ``externalTime``; see :mod:`.general` for the others.

Each arriving event gives an output for its group. The whole step is one generated function. A group lets go of old
events when it is looked at, and all groups are looked at every few window lengths, which also sums anew and forgets empty
groups; both happen at event times, never at batch ends, so the answers do not depend on how events were batched.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sib.cep.language import ast
from sib.cep.operators.base import Operator, Out, frozen_key, is_null_key
from sib.cep.operators.filters import Prefilter
from sib.cep.operators.parts import AggregateParts, indent
from sib.cep.scope import Scope
from sib.cep.streams import Event

SWEEP_WINDOWS = 4
"""So many window lengths lie between two looks at all groups."""


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """kind: time, length, external, unique or endless; ``size`` in ms or events; ``attributes``: time or unique keys."""

    kind: str
    size: int = 0
    attributes: tuple[ast.Path, ...] = ()
    pane: int = 1
    """Times are cut down to a multiple of this many ms (``@panes``)."""


class Sliding(Operator):
    """Aggregates over a sliding window, per group, one output per event."""

    takes_late = True
    tells_edges = True

    def __init__(
        self, scope: Scope, window: SlidingWindow, filters: Sequence[ast.Expression], key_paths: Sequence[ast.Path]
    ) -> None:
        super().__init__(scope)
        self._window = window
        self._prefilter = Prefilter(scope, filters)
        self._on_change = scope.rule.rate is not None and scope.rule.rate.kind == "change"
        self.state = {"groups": {}, "counts": {}, "on": set(), "due": None, "held": 0}
        scope.times.update(eventtime="e[0]", lasteventtime="e[0]")
        self._step = self._generate(tuple(key_paths))

    def _generate(self, key_paths: tuple[ast.Path, ...]) -> Any:
        scope, generator = self.scope, self.scope.generator()
        row_fast, row_safe = scope.row_sources(generator)
        having = scope.having
        having_fast = generator.truth(having) if having is not None else ""
        having_safe = generator.safe(having) if having is not None else ""
        parts = AggregateParts(scope, generator)
        parts.plan()
        parts_of_key = len(scope.partition_paths)
        scope.namespace.update(
            deque=deque,
            frozen_key=frozen_key,
            new_group=self._new_group,
            is_null_key=is_null_key,
            parts_of_key=parts_of_key,
        )
        self._make_group = scope.namespace.function(f"def make():\n return {parts.new_group()}\n", "make")
        lines = []
        if parts_of_key:
            partition = scope.key_source(scope.partition_paths, generator)
            lines.append(f"if is_null_key({partition}, {parts_of_key}): continue")
        lines += self._place(generator)
        lines.append(f"k = {scope.key_source(key_paths, generator)}")
        lines += ["try:", " s = get(k)", "except TypeError:", " k = frozen_key(k)", " s = get(k)"]
        lines += ["if s is None:", " s = new_group(k)", " if s is None: continue"]
        lines += parts.read() + parts.leave() + parts.enter() + parts.result()
        emit = self._emit(row_fast, row_safe)
        if having is not None:
            lines += ["try:", f" ok = {having_fast}", "except FAILURES:", f" ok = {having_safe} is True", "if ok:"]
            if self._on_change:
                lines += [" if k not in ON:", "  ON.add(k)", *(f"  {line}" for line in emit), "else: ON.discard(k)"]
            else:
                lines += [f" {line}" for line in emit]
        else:
            lines += emit
        source = "def step(b, get, C, ON):\n out = []\n for e in b:\n  ts = e[0]\n"
        source += indent(lines, 2) + " return out\n"
        expire = "def expire(s, lim):\n" + indent([*parts.leave(), *parts.refresh(), f"return {parts.empty()}"], 1)
        self._expire = scope.namespace.function(expire, "expire")
        return scope.namespace.function(source, "step")

    def _emit(self, row_fast: str, row_safe: str) -> list[str]:
        if row_fast == row_safe:
            return [f"out.append((ts, 1, 0, {row_fast}, k))"]
        return ["try:", f" r = {row_fast}", "except FAILURES:", f" r = {row_safe}", "out.append((ts, 1, 0, r, k))"]

    def _place(self, generator: Any) -> list[str]:
        """Code that sets the event's place ``p`` and the last place ``lim`` that is out of the window."""
        window = self._window
        if window.kind == "time":
            place = "ts" if window.pane == 1 else f"ts - ts % {window.pane}"
            return [f"p = {place}", f"lim = p - {window.size}"]
        if window.kind == "external":
            return [
                f"p = {generator.safe(window.attributes[0])}",
                "if numeric(p) is None: continue",
                f"lim = p - {window.size}",
            ]
        partition = self.scope.key_source(self.scope.partition_paths, generator)
        return [
            f"g = frozen_key({partition})" if partition != "None" else "g = None",
            "p = C.get(g, 0) + 1",
            "C[g] = p",
            f"lim = p - {window.size}",
        ]

    def _new_group(self, key: Any) -> Any:
        groups = self.state["groups"]
        if len(groups) >= self.limits.keys:
            self.limits.dropped["keys"] += 1
            return None
        group = groups[key] = self._make_group()
        return group

    def feed(self, events: Sequence[Any], watermark: int) -> list[Out]:
        events = self._prefilter(events)
        if not events:
            return []
        state = self.state
        state["held"] += len(events)
        if state["due"] is None:
            state["due"] = events[0][0] + SWEEP_WINDOWS * self._window.size
        get, counts, on = state["groups"].get, state["counts"], state["on"]
        outs: list[Out] = []
        if self._window.kind == "time":
            while events and events[-1][0] > state["due"]:
                cut = bisect_right(events, state["due"], key=itemgetter(0))
                outs += self._step(events[:cut], get, counts, on)
                self._sweep(events[cut][0])
                events = events[cut:]
        outs += self._step(events, get, counts, on)
        if state["held"] > self.limits.events:
            self._bound()
        return outs

    def feed_late(self, event: Event, watermark: int) -> list[Out] | None:
        """A late event enters a time window that still reaches back to it, but not before the events behind it."""
        if self._window.kind == "time" and event[0] <= watermark - self._window.size:
            return None
        return self.feed((event,), watermark)

    def _sweep(self, place: int) -> None:
        """Let go what is old in every group and forget the empty ones."""
        groups = self.state["groups"]
        for key in [key for key, group in groups.items() if self._expire(group, place - self._window.size)]:
            del groups[key]
        self.state["due"] = place + SWEEP_WINDOWS * self._window.size
        self.state["held"] = self.held()

    def held(self) -> int:
        return sum(
            len(part) for group in self.state["groups"].values() for part in group[:1] if isinstance(part, deque)
        )

    def _bound(self) -> None:
        """Drop the oldest events where the windows hold more than they may, a tenth more than needed."""
        groups = self.state["groups"]
        held = self.state["held"] = self.held()
        excess = held - self.limits.events
        if excess <= 0:
            return
        places = sorted(item[0] for group in groups.values() if isinstance(group[0], deque) for item in group[0])
        place = places[min(len(places) - 1, excess + self.limits.events // 10)]
        for group in groups.values():
            self._expire(group, place)
        self.state["held"] = self.held()
        self.limits.dropped["events"] += held - self.state["held"]
