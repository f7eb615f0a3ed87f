"""Absence: ``not X for t``, by key, also for keys of a table that never came.

One deadline per key. The heap is lazy: an event only notes when it came, and a deadline that comes up too early is put
back. Fires once per silence; ``every`` fires again each t. An event at the very deadline comes too late.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sib.cep.codegen import Ref
from sib.cep.language import ast
from sib.cep.nulls import slot_of
from sib.cep.operators.base import BY_TIME, Operator, Out, frozen_key
from sib.cep.operators.filters import Prefilter
from sib.cep.scope import Scope

FIRINGS_MAX = 100_000
"""Firings of ``every not`` in one step of time; what a leap of time would make beyond is counted and left out."""

_NEVER = 2**62


class Absence(Operator):
    """State: ``last`` = key to (ts, number of arrival, event or None); ``deadlines`` = heap of (ts, number, key)."""

    has_timers = True

    def __init__(
        self,
        scope: Scope,
        duration_ms: int,
        filters: Sequence[ast.Expression],
        *,
        is_every: bool,
        table_keys: Callable[[], list[Any]] | None,
    ) -> None:
        super().__init__(scope)
        self._prefilter = Prefilter(scope, filters)
        self._duration = duration_ms
        self._is_every = is_every
        self._table_keys = table_keys
        self.state = {"last": {}, "deadlines": [], "mute": set(), "arrivals": 0}
        paths = scope.partition_paths
        self._parts = len(paths)
        key = scope.key_source(paths, scope.generator())
        scope.namespace.update(frozen_key=frozen_key, heappush=heapq.heappush, slot_of=slot_of)
        self._step = scope.namespace.function(self._source(key), "step")
        self._bind_outputs()
        self._row: Callable[..., tuple[Any, ...]] = scope.row_function("e, k, ts, last", scope.generator())
        having = [scope.having] if scope.having is not None else []
        self._passes = scope.condition("e, k, ts, last", having, scope.generator())

    def _bind_outputs(self) -> None:
        """In outputs the names of partition keys mean the key; the other attributes are those of the last event, if any."""
        scope = self.scope
        optional = {bound: replace(bound, is_optional=True) for bound in scope.sources.values()}
        scope.sources = {name: optional[bound] for name, bound in scope.sources.items()}
        scope.current = next(iter(optional.values()))
        for index, path in enumerate(scope.partition_paths):
            source = "k" if self._parts == 1 else f"k[{index}]"
            scope.key_refs[path.name.casefold()] = Ref(source, source)
        scope.key_refs.setdefault("ts", Ref("ts", "ts", "number"))
        scope.times.update(eventtime="ts", lasteventtime="last")

    def _source(self, key: str) -> str:
        skip = {0: "", 1: "   if k is None: continue\n"}.get(self._parts, "   if None in k: continue\n")
        return (
            "def step(b, state, due, fire, admit, D=" + str(self._duration) + "):\n"
            " last = state['last']; mute = state['mute']; H = state['deadlines']; n = state['arrivals']\n"
            " get = last.get\n"
            " for e in b:\n"
            "  ts = e[0]\n"
            "  if ts >= due: due = fire(ts)\n"
            "  n += 1\n"
            "  try:\n"
            f"   k = {key}\n"
            f"{skip}"
            "   known = get(k)\n"
            "  except TypeError:\n"
            "   k = frozen_key(k)\n"
            "   known = get(k)\n"
            "  if known is None or mute:\n"
            "   if known is not None and k not in mute:\n"
            "    last[k] = (ts, n, e)\n"
            "    continue\n"
            "   if known is None and not admit(): continue\n"
            "   mute.discard(k)\n"
            "   heappush(H, (ts + D, n, k))\n"
            "   if H[0][0] < due: due = H[0][0]\n"
            "  last[k] = (ts, n, e)\n"
            " state['arrivals'] = n\n"
        )

    def start(self, ts: int) -> None:
        """Arm what is watched from the start: the keys of the table, or the one absence without partition."""
        if self._table_keys is not None:
            for key in self._table_keys():
                self._arm(frozen_key(key), ts)
        elif not self._parts:
            self._arm(None, ts)

    def _arm(self, key: Any, ts: int) -> None:
        if key in self.state["last"] or not self._admit():
            return
        self.state["arrivals"] += 1
        self.state["last"][key] = (ts, self.state["arrivals"], None)
        heapq.heappush(self.state["deadlines"], (ts + self._duration, self.state["arrivals"], key))

    def watch_table(self, ts: int) -> None:
        """Arm the keys of the table that are not watched yet."""
        for key in self._table_keys() if self._table_keys is not None else ():
            self._arm(frozen_key(key), ts)

    def _admit(self) -> bool:
        if len(self.state["last"]) < self.limits.keys:
            return True
        self.limits.dropped["keys"] += 1
        return False

    def feed(self, events: Sequence[Any], watermark: int) -> list[Out]:
        outs: list[Out] = []
        events = self._prefilter(events)
        if events:
            self._step(events, self.state, self._due(), lambda ts: self._fire(ts, outs), self._admit)
        if self._due() <= watermark:
            self._fire(watermark, outs)
        return outs

    def _due(self) -> int:
        deadlines = self.state["deadlines"]
        return int(deadlines[0][0]) if deadlines else _NEVER

    def _fire(self, now: int, outs: list[Out]) -> int:
        """Tell the keys whose deadline has come; the next deadline."""
        deadlines, last = self.state["deadlines"], self.state["last"]
        told = 0
        while deadlines and deadlines[0][0] <= now:
            deadline, number, key = heapq.heappop(deadlines)
            seen, arrival, event = last[key]
            if seen + self._duration > deadline:
                heapq.heappush(deadlines, (seen + self._duration, arrival, key))
                continue
            if self._is_every:
                following = deadline + self._duration
                told += 1
                if told > FIRINGS_MAX and following <= now:  # time made a great leap: do not tell each silence in it
                    self.limits.dropped["firings"] += (now - following) // self._duration
                    following += (now - following) // self._duration * self._duration
                heapq.heappush(deadlines, (following, number, key))
            else:
                self.state["mute"].add(key)
            self._tell(outs, deadline, number, key, event)
        return self._due()

    def _tell(self, outs: list[Out], deadline: int, number: int, key: Any, event: Any) -> None:
        arguments = (event, key, deadline, event[0] if event is not None else None)
        if self._passes is None or self._passes(*arguments):
            outs.append((deadline, BY_TIME, number, self._row(*arguments), key))

    def held(self) -> int:
        return len(self.state["last"])
