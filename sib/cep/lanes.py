"""Event time: order, watermark, late events and idle inputs, for all rules that wait equally long.

Watermark = least, over the inputs, of the newest event time, minus the delay. Events wait until the watermark passes
them and leave in order of time. An event older than the watermark is late.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sib.cep.limits import WINDOW_EVENTS_MAX

BEGINNING = -(2**62)
"""The watermark before any event."""

INPUTS_MAX = 4_096
"""Inputs (partitions of ontologies) that a lane tells apart; further ones count as the first."""

Raw = tuple[int, str, Any]
"""(ts, stream, attributes or tuple)"""


@dataclass(frozen=True, slots=True)
class Timing:
    """``@watermark(delay=…, late=…, idle=…)``; late: drop, side or accept; ``idle_ms`` None = inputs never idle."""

    delay_ms: int = 0
    late: str = "drop"
    idle_ms: int | None = None


@dataclass
class Release:
    """What a lane lets through: events in order, the late ones, and the watermark behind them."""

    events: Sequence[Raw]
    late: Sequence[tuple[int, Raw]]
    """Each with the watermark that it came behind."""
    watermark: int


class Lane:
    """The order of one delay. Inputs are told apart by ``source``; with one input and no delay nothing waits."""

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self.watermark = BEGINNING
        self._inputs: dict[Any, list[Any]] = {}
        """source to [newest event time, clock when it last spoke; None: the silence is measured from the next tick on]"""
        self._waiting: list[tuple[int, int, Raw]] = []
        self._arrivals = 0
        self.dropped_waiting = 0

    def expect(self, sources: Sequence[Any]) -> None:
        """These are the inputs, also those that never sent anything; time waits for each until it is idle."""
        self._inputs = {source: self._inputs.get(source, [BEGINNING, None]) for source in sources[:INPUTS_MAX]}

    def take(self, events: Sequence[Raw], source: Any, now_ms: int | None) -> Release:
        """Events of one input, in the order they came; ``now_ms`` is of the clock that measures silence."""
        known = self._inputs.get(source)
        if known is None:
            source = source if len(self._inputs) < INPUTS_MAX else next(iter(self._inputs))
            known = self._inputs.setdefault(source, [BEGINNING, now_ms])
        known[1] = now_ms
        if self.timing.delay_ms == 0 and len(self._inputs) == 1 and not self._waiting:
            return self._take_at_once(events, known)
        late: list[tuple[int, Raw]] = []
        released: list[Raw] = []
        for event in events:
            if event[0] < self.watermark:
                late.append((self.watermark, event))
                continue
            self._arrivals += 1
            heapq.heappush(self._waiting, (event[0], self._arrivals, event))
            if event[0] > known[0]:
                known[0] = event[0]
                self._advance(self._least(), released, is_closed=False)
        self._bound(released)
        return Release(released, late, self.watermark)

    def _take_at_once(self, events: Sequence[Raw], known: list[Any]) -> Release:
        """One input, no delay: what is in order needs no queue."""
        if not events:
            return Release((), (), self.watermark)
        times = [event[0] for event in events]
        if times[0] >= self.watermark and times == sorted(times):
            self.watermark = known[0] = times[-1]
            return Release(events, (), self.watermark)
        on_time: list[Raw] = []
        late: list[tuple[int, Raw]] = []
        newest = self.watermark
        for event in events:
            if event[0] < newest:
                late.append((newest, event))
            else:
                newest = event[0]
                on_time.append(event)
        self.watermark = known[0] = newest
        return Release(on_time, late, newest)

    def in_order(self, first: int, last: int) -> None:
        """Note that one input sent events in order, from ``first`` to ``last``; only without delay, see the engine."""
        known = self._inputs.setdefault(None, [BEGINNING, None])
        self.watermark = known[0] = last

    def insert(self, event: Raw) -> None:
        """Let an output of a rule wait among the events; it does not move the time of any input."""
        self._arrivals += 1
        heapq.heappush(self._waiting, (event[0], self._arrivals, event))

    @property
    def is_direct(self) -> bool:
        """Whether events go through without waiting: no delay and at most the default input."""
        return self.timing.delay_ms == 0 and not self._waiting and not (self._inputs.keys() - {None})

    def _least(self) -> int:
        return int(min(newest for newest, _ in self._inputs.values())) - self.timing.delay_ms

    def _advance(self, watermark: int, released: list[Raw], *, is_closed: bool) -> None:
        """Move the watermark on; ``is_closed`` = events of that very time will not come any more."""
        self.watermark = max(self.watermark, watermark)
        waiting = self._waiting
        while waiting and (waiting[0][0] < self.watermark or (is_closed and waiting[0][0] == self.watermark)):
            released.append(heapq.heappop(waiting)[2])

    def _bound(self, released: list[Raw]) -> None:
        """Too many events wait: the oldest go on, and the watermark with them."""
        while len(self._waiting) > WINDOW_EVENTS_MAX:
            ts, _, event = heapq.heappop(self._waiting)
            self.watermark = max(self.watermark, ts)
            self.dropped_waiting += 1
            released.append(event)

    def advance(self, watermark_ms: int) -> Release:
        """Somebody knows that no event before this time will come."""
        released: list[Raw] = []
        self._advance(watermark_ms, released, is_closed=True)
        return Release(released, (), self.watermark)

    def tick(self, wall_ms: int, now_ms: int) -> Release:
        """Time: an input that was silent for ``idle`` by the one clock follows the other."""
        idle_ms = self.timing.idle_ms
        released: list[Raw] = []
        if idle_ms is None or not self._inputs:
            return Release((), (), self.watermark)
        for known in self._inputs.values():
            if known[1] is None:
                known[1] = now_ms
            elif now_ms - known[1] >= idle_ms:
                known[0] = max(known[0], wall_ms)
        self._advance(self._least(), released, is_closed=False)
        return Release(released, (), self.watermark)

    @property
    def newest(self) -> int:
        """The newest event time of all inputs."""
        return max((newest for newest, _ in self._inputs.values()), default=BEGINNING)

    def dump(self) -> dict[str, Any]:
        """State for a snapshot."""
        inputs = [[source, *known] for source, known in self._inputs.items()]
        return {"watermark": self.watermark, "inputs": inputs, "waiting": self._waiting, "arrivals": self._arrivals}

    def load(self, state: dict[str, Any]) -> None:
        """Take over the state of a snapshot; the silence of inputs is measured anew."""
        self.watermark, self._arrivals = state["watermark"], state["arrivals"]
        self._inputs = {source: [newest, None] for source, newest, _ in state["inputs"]}
        self._waiting = list(state["waiting"])
