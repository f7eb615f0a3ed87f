"""Sliding windows in full: ``unique``, ``expired events`` and ``all events``, and no window at all.

Slower than :mod:`.sliding`, because events leave at their own time instead of when somebody looks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from sib.cep.language import ast
from sib.cep.nulls import numeric
from sib.cep.operators.base import BY_EVENT, BY_TIME, Operator, Out, frozen_key
from sib.cep.operators.filters import Prefilter
from sib.cep.operators.groups import Groups
from sib.cep.operators.sliding import SlidingWindow
from sib.cep.scope import Scope
from sib.cep.streams import Event


class General(Operator):
    """A sliding window whose events are told when they arrive (current), when they leave (expired), or both (all).

    An item of the window is (place, group key, event). Items of a time window leave in the order they came; a length
    window has one queue per partition; a unique window holds one item per partition and unique key.
    """

    tells_edges = True

    def __init__(
        self, scope: Scope, window: SlidingWindow, filters: Sequence[ast.Expression], key_paths: Sequence[ast.Path]
    ) -> None:
        super().__init__(scope)
        self._window = window
        self._prefilter = Prefilter(scope, filters)
        self._groups = Groups(scope, tuple(key_paths), only_grows=window.kind == "endless")
        self._groups.keeps_events = False
        self._tells_current = scope.rule.out_kind != "expired"
        self._tells_expired = scope.rule.out_kind != "current"
        self.has_timers = window.kind == "time" and self._tells_expired
        generator = scope.generator()
        source = scope.key_source(window.attributes[:1] if window.kind == "external" else window.attributes, generator)
        self._attribute = eval(f"lambda e: {source}", scope.namespace)  # noqa: S307 - own source, see codegen
        is_edge = scope.rule.rate is not None and scope.rule.rate.kind == "change" and scope.having is not None
        self.state = {"groups": {}, "sizes": {}, "items": {}, "queue": deque(), "counts": {}, "on": set()}
        self._on: set[Any] | None = self.state["on"] if is_edge else None

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        if self._on is not None:
            self._on = self.state["on"]

    def feed(self, events: Sequence[Any], watermark: int) -> list[Out]:
        outs: list[Out] = []
        is_time = self._window.kind == "time"
        for event in self._prefilter(events):
            if is_time:
                outs += self._expire(self.state["queue"], event[0], event[0])
            if not self._groups.is_outside(event):
                outs += self._arrive(event)
        if is_time:
            outs += self._expire(self.state["queue"], watermark, watermark)
        return outs

    def _arrive(self, event: Event) -> list[Out]:
        key = self._groups.key(event)
        groups = self.state["groups"]
        if key not in groups and len(groups) >= self.limits.keys:
            self.limits.dropped["keys"] += 1
            return []
        outs = self._make_room(event, key)
        if outs is None:
            return []
        group = groups.get(key)
        if group is None:
            group = groups[key] = self._groups.new()
        self._groups.add(group, event)
        if self._window.kind != "endless":
            self.state["sizes"][key] = self.state["sizes"].get(key, 0) + 1
        if self._tells_current:
            outs += self._groups.finish([(key, group)], event[0], self._on, BY_EVENT)
        return outs

    def _make_room(self, event: Event, key: Any) -> list[Out] | None:
        """Put the event into the window and let go what it pushes out; None = it cannot enter."""
        state, window, ts = self.state, self._window, event[0]
        partition = self._groups.partition(event)
        match window.kind:
            case "time":
                state["queue"].append((ts + window.size, key, event))
                return self._bound(state["queue"], ts)
            case "external":
                place = numeric(self._attribute(event))
                if place is None:
                    return None
                queue = state["items"].setdefault(partition, deque())
                outs = self._expire(queue, place, ts)
                queue.append((place + window.size, key, event))
                return outs + self._bound(queue, ts)
            case "length":
                queue = state["items"].setdefault(partition, deque())
                count = state["counts"][partition] = state["counts"].get(partition, 0) + 1
                outs = self._expire(queue, count, ts)
                queue.append((count + window.size, key, event))
                return outs
            case "unique":
                unique = (partition, frozen_key(self._attribute(event)))
                old = state["items"].get(unique)
                if old is None and len(state["items"]) >= self.limits.keys:
                    self.limits.dropped["keys"] += 1
                    return None
                state["items"][unique] = (ts, key, event)
                return self._leave(old, ts, BY_EVENT) if old is not None else []
        return []

    def _expire(self, queue: deque[Any], place: Any, now: int) -> list[Out]:
        """Let go the items that have to leave at or before the place; those of a time window at their own time."""
        outs: list[Out] = []
        is_time = self._window.kind == "time"
        while queue and queue[0][0] <= place:
            item = queue.popleft()
            outs += self._leave(item, item[0] if is_time else now, BY_TIME if is_time else BY_EVENT)
        return outs

    def _leave(self, item: tuple[Any, Any, Event], ts: int, cause: int) -> list[Out]:
        _, key, event = item
        groups = self.state["groups"]
        group = groups[key]
        for aggregate, value in zip(group[1:], self._groups.values(event), strict=True):
            aggregate.remove(value)
        outs: list[Out] = []
        if self._tells_expired:
            told = [event, *group[1:]]
            outs = self._groups.finish([(key, told)], ts, self._on, cause)
        sizes = self.state["sizes"]
        sizes[key] -= 1
        if not sizes[key]:
            del groups[key], sizes[key]
        return outs

    def _bound(self, queue: deque[Any], ts: int) -> list[Out]:
        if len(queue) <= self.limits.events:
            return []
        self.limits.dropped["events"] += 1
        return self._leave(queue.popleft(), ts, BY_EVENT)

    def held(self) -> int:
        items = self.state["items"].values()
        return len(self.state["queue"]) + sum(len(item) if isinstance(item, deque) else 1 for item in items)
