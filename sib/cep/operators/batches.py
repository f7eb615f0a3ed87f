"""Windows that end: ``timeBatch`` and ``hop`` (aligned to the epoch), ``lengthBatch``, ``session``.

A window in time is made of panes, as wide as the greatest common divisor of its size and step: an event enters one
pane, and a window that ends merges its panes. A window without events gives nothing.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Any

from sib.cep.language import ast
from sib.cep.operators.base import BY_EVENT, Operator, Out
from sib.cep.operators.filters import Prefilter
from sib.cep.operators.growing import GrowingGroups
from sib.cep.scope import Scope
from sib.cep.streams import Event


class _Batches(Operator):
    """Base: filters, groups, and the edge of ``output on change``."""

    has_timers = True
    tells_edges = True

    def __init__(self, scope: Scope, filters: Sequence[ast.Expression], key_paths: Sequence[ast.Path]) -> None:
        super().__init__(scope)
        self._prefilter = Prefilter(scope, filters)
        self._groups = GrowingGroups(scope, tuple(key_paths))
        self.state = {"on": set()}
        is_edge = scope.rule.rate is not None and scope.rule.rate.kind == "change" and scope.having is not None
        self._edges = is_edge

    @property
    def _on(self) -> set[Any] | None:
        return self.state["on"] if self._edges else None

    def _group_of(self, groups: dict[Any, Any], event: Event) -> Any:
        key = self._groups.key(event)
        group = groups.get(key)
        if group is None:
            if len(groups) >= self.limits.keys:
                self.limits.dropped["keys"] += 1
                return None
            group = groups[key] = self._groups.new()
        return group


class Hopping(_Batches):
    """``hop(size, step)``, and ``timeBatch(size)``, whose step is its size. Outputs have the end of the window as ts."""

    takes_late = True

    def __init__(
        self, scope: Scope, size_ms: int, step_ms: int, filters: Sequence[ast.Expression], key_paths: Sequence[ast.Path]
    ) -> None:
        super().__init__(scope, filters, key_paths)
        self._size, self._step = size_ms, step_ms
        self._pane = math.gcd(size_ms, step_ms)
        self._partitions = len(scope.partition_paths)
        self.state.update(panes={}, closed=None, held=0)

    def feed(self, events: Sequence[Any], watermark: int) -> list[Out]:
        outs: list[Out] = []
        state, pane_ms, add = self.state, self._pane, self._groups.add
        due = self._next_end()
        for event in self._prefilter(events):
            if due is not None and event[0] >= due:
                outs += self._close(event[0])
                due = None
            if self._groups.is_outside(event):
                continue
            groups = state["panes"].setdefault(event[0] // pane_ms, {})
            group = self._group_of(groups, event)
            if group is None:
                continue
            add(group, event)
            state["held"] += 1
            if due is None:
                due = self._next_end()
        if state["held"] > self.limits.events:
            self._bound()
        return outs + self._close(watermark)

    def feed_late(self, event: Event, watermark: int) -> list[Out] | None:
        pane = event[0] // self._pane
        last_end = ((pane * self._pane) // self._step) * self._step + self._size
        closed = self.state["closed"]
        if last_end <= (watermark if closed is None else max(closed, watermark)):
            return None
        self.feed((event,), self.state["closed"] or event[0])
        return []

    def _next_end(self) -> int | None:
        """The end of the first window that has events and has not ended; forgets panes between windows."""
        panes, closed = self.state["panes"], self.state["closed"]
        while panes:
            first = min(panes) * self._pane
            start = -(-(first + self._pane - self._size) // self._step) * self._step
            end = start + self._size
            if closed is not None and end <= closed:
                end += ((closed - end) // self._step + 1) * self._step
            if end - self._size <= first:
                return int(end)
            self._forget(first // self._pane)
        return None

    def _forget(self, pane: int) -> None:
        groups = self.state["panes"].pop(pane)
        self.state["held"] = max(0, self.state["held"] - sum(self._size_of(group) for group in groups.values()))

    def _size_of(self, group: list[Any]) -> int:
        return len(group) if self._groups.keeps_events else 1

    def _close(self, now: int) -> list[Out]:
        outs: list[Out] = []
        while (end := self._next_end()) is not None and end <= now:
            outs += self._groups_of(end)
            self.state["closed"] = end
            for pane in [pane for pane in self.state["panes"] if pane * self._pane < end - self._size + self._step]:
                self._forget(pane)
        return outs

    def _groups_of(self, end: int) -> list[Out]:
        panes = self.state["panes"]
        first, last = (end - self._size) // self._pane, end // self._pane
        inside = [panes[pane] for pane in sorted(panes) if first <= pane < last]
        if len(inside) == 1:
            merged = inside[0]
        else:
            merged = {}
            for groups in inside:
                for key, group in groups.items():
                    together = merged.get(key)
                    if together is None:
                        together = merged[key] = self._groups.new()
                    self._groups.merge(together, group)
        if not self._partitions or not self.scope.rule.select.limit:
            return self._groups.finish(merged.items(), end, self._on)
        by_partition: dict[Any, list[Any]] = {}
        for key, group in merged.items():
            event = group[0] if group else None
            by_partition.setdefault(self._groups.partition(event) if event else None, []).append((key, group))
        return [out for part in by_partition.values() for out in self._groups.finish(part, end, self._on)]

    def _bound(self) -> None:
        """Too many events or groups are held: the oldest panes go."""
        held = sum(self._size_of(group) for groups in self.state["panes"].values() for group in groups.values())
        self.state["held"] = held
        while self.state["held"] > self.limits.events and len(self.state["panes"]) > 1:
            before = self.state["held"]
            self._forget(min(self.state["panes"]))
            self.limits.dropped["events"] += before - self.state["held"]

    def held(self) -> int:
        return int(self.state["held"])


class LengthBatch(_Batches):
    """``lengthBatch(n)``: the n-th event of a partition ends its window."""

    has_timers = False

    def __init__(
        self, scope: Scope, size: int, filters: Sequence[ast.Expression], key_paths: Sequence[ast.Path]
    ) -> None:
        super().__init__(scope, filters, key_paths)
        self._size = size
        self.state["windows"] = {}

    def feed(self, events: Sequence[Any], watermark: int) -> list[Out]:
        outs: list[Out] = []
        windows = self.state["windows"]
        for event in self._prefilter(events):
            if self._groups.is_outside(event):
                continue
            partition = self._groups.partition(event)
            window = windows.get(partition)
            if window is None:
                if len(windows) >= self.limits.keys:
                    self.limits.dropped["keys"] += 1
                    continue
                window = windows[partition] = [0, {}]
            window[0] += 1
            group = self._group_of(window[1], event)
            if group is not None:
                self._groups.add(group, event)
            if window[0] >= self._size:
                del windows[partition]
                outs += self._groups.finish(window[1].items(), event[0], self._on, BY_EVENT)
        return outs

    def held(self) -> int:
        return sum(window[0] for window in self.state["windows"].values())


class Sessions(_Batches):
    """``session(gap)``: a window per group that ends when the group is silent for the gap; ts = last event + gap."""

    is_sorted = False
    takes_late = True

    def __init__(
        self, scope: Scope, gap_ms: int, filters: Sequence[ast.Expression], key_paths: Sequence[ast.Path]
    ) -> None:
        super().__init__(scope, filters, key_paths)
        self._gap = gap_ms
        self.state.update(sessions={}, ends=[], began=0)

    def feed(self, events: Sequence[Any], watermark: int) -> list[Out]:
        outs: list[Out] = []
        state = self.state
        sessions, ends = state["sessions"], state["ends"]
        for event in self._prefilter(events):
            if ends and ends[0][0] <= event[0]:
                outs += self._close(event[0])
            if self._groups.is_outside(event):
                continue
            key = self._groups.key(event)
            session = sessions.get(key)
            if session is None:
                if len(sessions) >= self.limits.keys:
                    self.limits.dropped["keys"] += 1
                    continue
                state["began"] += 1
                session = sessions[key] = [event[0], event[0], state["began"], self._groups.new()]
                heapq.heappush(ends, (event[0] + self._gap, state["began"], key))
            self._extend(session, event)
        return outs + self._close(watermark)

    def _extend(self, session: list[Any], event: Event) -> None:
        session[0], session[1] = min(session[0], event[0]), max(session[1], event[0])
        group = session[3]
        last = group[0] if group and not self._groups.keeps_events else None
        self._groups.add(group, event)
        if last is not None and last[0] > event[0]:
            group[0] = last

    def feed_late(self, event: Event, watermark: int) -> list[Out] | None:
        passed = self._prefilter((event,))
        session = self.state["sessions"].get(self._groups.key(event)) if passed else None
        if session is None or not session[0] - self._gap < event[0] < session[1] + self._gap:
            return None if passed else []
        self._extend(session, event)
        return []

    def _close(self, now: int) -> list[Out]:
        outs: list[Out] = []
        sessions, ends = self.state["sessions"], self.state["ends"]
        while ends and ends[0][0] <= now:
            end, began, key = heapq.heappop(ends)
            session = sessions[key]
            if session[1] + self._gap > end:  # the session went on: its end has moved
                heapq.heappush(ends, (session[1] + self._gap, began, key))
                continue
            del sessions[key]
            for ts, cause, _, row, group in self._groups.finish([(key, session[3])], end, self._on):
                outs.append((ts, cause, began, row, group))
        return outs

    def held(self) -> int:
        return len(self.state["sessions"])
