"""Patterns and sequences: matches that have begun, by key, and how an event or the time moves them on.

Each event that fits the first step begins a match. Where only one may succeed at a time (no ``every``, or ``every`` before
a group) all of them run, the first to get through wins and the others are dropped; so a match that runs out of its
``within`` never hides a later one. An event that can both close a step and be one more of a counted step closes it.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any, TypeAlias

from sib.cep.limits import CAPTURES_MAX
from sib.cep.operators.base import BY_EVENT, BY_TIME, Operator, Out, frozen_key
from sib.cep.operators.chains import FlatChain, FlatStep, Slot
from sib.cep.operators.conditions import PatternCode
from sib.cep.scope import Scope
from sib.cep.streams import Event, Layout

Match: TypeAlias = list[Any]
"""[step, ts of the first event, number of its beginning, captured events, bits of the step's done atoms]"""

_STEP, _START, _BEGAN, _CAPTURED, _DONE = range(5)
_NEVER = 2**62


class Pattern(Operator):
    """State: ``matches`` = key to {id: match}; ``deadlines`` = heap of (ts, id, step, slot, key); ``done`` keys."""

    is_sorted = False

    def __init__(self, scope: Scope, chain: FlatChain, layouts: Sequence[Layout]) -> None:
        super().__init__(scope)
        self._chain = chain
        self._steps = chain.steps
        self._last = len(chain.steps) - 1
        self.is_tagged = len(chain.streams) > 1
        self.has_timers = any(step.has_absence for step in chain.steps)
        self._is_strict = self.reads_all = any(step.is_strict for step in chain.steps)
        self._sweeps = chain.within_ms
        self.state = {"matches": {}, "deadlines": [], "done": set(), "ids": 0, "sweep": None}
        code = PatternCode(scope, chain, layouts)
        self._correlated, self._row, self._passes = code.correlated, code.row, code.passes
        scope.namespace.update(frozen_key=frozen_key)
        self._scan = scope.namespace.function(code.scanner(is_tagged=self.is_tagged, is_strict=self._is_strict), "scan")
        self._optional_tail = self._tail_start()

    def _tail_start(self) -> int:
        """The first step from which on nothing is needed any more."""
        start = len(self._steps)
        while start > 0 and self._steps[start - 1].slots[0].count_min == 0:
            start -= 1
        return start

    # Feeding

    def feed(self, events: Sequence[Any], watermark: int) -> list[Out]:
        outs: list[Out] = []
        state = self.state
        if events:
            matches = state["matches"]
            self._scan(events, matches, self._due(), lambda ts: self._pass(ts, outs), self._event, outs)
        if self._due() <= watermark:
            self._pass(watermark, outs)
        return outs

    def _due(self) -> int:
        deadlines, sweep = self.state["deadlines"], self.state["sweep"]
        due = deadlines[0][0] if deadlines else _NEVER
        return int(due if sweep is None else min(due, sweep))

    def _event(self, event: Event, key: Any, hits: int, outs: list[Out]) -> int:
        """An event came whose own conditions hold for the slots of ``hits``. Gives the next time to look at."""
        state = self.state
        matches = state["matches"].get(key)
        has_flown = False
        if matches:
            for number in list(matches):
                match = matches.get(number)
                if match is not None:
                    has_flown = self._move(number, match, matches, event, key, hits, outs) or has_flown
        if not (has_flown and self._chain.flight_end is not None):
            self._begin(event, key, hits, matches, outs)
        matches = state["matches"].get(key)
        if matches is not None and not matches:
            del state["matches"][key]
        return self._due()

    def _begin(self, event: Event, key: Any, hits: int, matches: dict[int, Match] | None, outs: list[Out]) -> None:
        step = self._steps[0]
        captured: list[Any] = [[] if slot.is_list else None for slot in self._chain.slots]
        done = self._fill(step, captured, event, hits, 0)
        if not done or key in self.state["done"]:
            return
        if step.is_counted and matches and self._collect(event, key, matches, outs):
            return
        if matches is None:
            if len(self.state["matches"]) + len(self.state["done"]) >= self.limits.keys:
                self.limits.dropped["keys"] += 1
                return
            matches = self.state["matches"].setdefault(key, {})
        if len(matches) >= self.limits.partials:
            del matches[next(iter(matches))]
            self.limits.dropped["partials"] += 1
        if self._sweeps is not None and self.state["sweep"] is None:
            self.state["sweep"] = event[0] + self._sweeps + 1
        self.state["ids"] += 1
        number = self.state["ids"]
        match: Match = [0, event[0], number, captured, done]
        matches[number] = match
        self._settle(number, match, matches, event[0], key, outs, BY_EVENT)

    def _collect(self, event: Event, key: Any, matches: dict[int, Match], outs: list[Out]) -> bool:
        """Give the event to the match that still counts its first events, if there is one; the oldest may be too old."""
        slot = self._steps[0].slots[0]
        for number, match in matches.items():
            captured = match[_CAPTURED][slot.number]
            if self._collects(match):
                captured.append(event)
                self._let_go(match, event[0])
                self._settle(number, match, matches, event[0], key, outs, BY_EVENT)
                return True
        return False

    # Moving a match on

    def _move(
        self, number: int, match: Match, matches: dict[int, Match], event: Event, key: Any, hits: int, outs: list[Out]
    ) -> bool:
        """Offer the event to a match. Whether it got through the part of which only one may succeed."""
        ts, place = event[0], match[_STEP]
        if self._collects(match):
            return False
        if self._is_late(match, ts):
            del matches[number]
            return False
        reach = self._reach(match)
        for target in range(reach, place - 1, -1):
            if not self._fits_groups(match, target, ts):
                continue
            flown = self._offer(number, match, matches, target, event, key, hits, outs)
            if flown is not None:
                return flown
        if self._steps[min(reach, self._last)].is_strict:
            del matches[number]
        return False

    def _collects(self, match: Match) -> bool:
        """Whether a match still counts its first events; :meth:`_collect` feeds it."""
        slot = self._steps[0].slots[0]
        return match[_STEP] == 0 and slot.is_list and len(match[_CAPTURED][0]) < slot.count_min

    def _let_go(self, match: Match, now: int) -> None:
        """Forget the oldest of the first events while they are too old."""
        captured = match[_CAPTURED][0]
        while captured and self._chain.within_ms is not None and now - captured[0][0] > self._chain.within_ms:
            del captured[0]
        if captured:
            match[_START] = captured[0][0]

    def _reach(self, match: Match) -> int:
        """The furthest step that may come next: counted steps with enough events may be left."""
        place = int(match[_STEP])
        while place < self._last and self._has_enough(match, place):
            place += 1
        return place

    def _has_enough(self, match: Match, place: int) -> bool:
        slot = self._steps[place].slots[0]
        return slot.is_list and len(match[_CAPTURED][slot.number]) >= slot.count_min

    def _offer(
        self,
        number: int,
        match: Match,
        matches: dict[int, Match],
        target: int,
        event: Event,
        key: Any,
        hits: int,
        outs: list[Out],
    ) -> bool | None:
        """Try the event on one step. None = does not fit; else whether the match got through the flight part."""
        step = self._steps[target]
        done = match[_DONE] if target == match[_STEP] else 0
        if step.has_absence and self._violates(step, match, event, hits, done):
            if not step.is_any or len(step.slots) == 1:
                del matches[number]
                return False
            match[_DONE] = done | self._absent_bits(step) << 16  # it can no more be the absence that satisfies
            return None
        captured = match[_CAPTURED]
        new = self._fill(step, captured, event, hits, done)
        if not new or (new == done and not step.is_counted):
            return None
        if target != match[_STEP]:
            match[_STEP] = target
        match[_DONE] = new
        return self._settle(number, match, matches, event[0], key, outs, BY_EVENT)

    def _fill(self, step: FlatStep, captured: list[Any], event: Event, hits: int, done: int) -> int:
        """Capture the event in the slots of the step that want it; the bits that are done then (0 = nothing)."""
        if step.is_counted:
            slot = step.slots[0]
            if not self._wants(slot, event, captured, hits) or len(captured[slot.number]) >= CAPTURES_MAX:
                return 0
            captured[slot.number].append(event)
            return 1
        for bit, slot in enumerate(step.slots):
            if slot.is_absent or done >> bit & 1 or not self._wants(slot, event, captured, hits):
                continue
            captured[slot.number] = event
            done |= 1 << bit
        return done

    def _wants(self, slot: Slot, event: Event, captured: list[Any], hits: int) -> bool:
        if not hits >> slot.number & 1:
            return False
        condition = self._correlated[slot.number]
        return condition is None or bool(condition(event, captured))

    def _violates(self, step: FlatStep, match: Match, event: Event, hits: int, done: int) -> bool:
        return any(
            slot.is_absent and not done >> bit & 1 and self._wants(slot, event, match[_CAPTURED], hits)
            for bit, slot in enumerate(step.slots)
        )

    @staticmethod
    def _absent_bits(step: FlatStep) -> int:
        return sum(1 << bit for bit, slot in enumerate(step.slots) if slot.is_absent)

    def _is_complete(self, match: Match) -> bool:
        step, done = self._steps[match[_STEP]], match[_DONE]
        if step.is_counted:
            slot = step.slots[0]
            count = len(match[_CAPTURED][slot.number])
            if slot.count_max is not None and count >= slot.count_max:
                return True
            return count >= slot.count_min and match[_STEP] + 1 >= self._optional_tail
        full = (1 << len(step.slots)) - 1
        return bool(done & full) if step.is_any else done & full == full

    def _settle(
        self, number: int, match: Match, matches: dict[int, Match], ts: int, key: Any, outs: list[Out], cause: int
    ) -> bool:
        """Go on as far as the match is complete. Whether it got through the part of which only one may succeed."""
        has_flown = False
        while self._is_complete(match):
            place = match[_STEP]
            if self._steps[place].every_from is not None:
                self._again(match, self._steps[place].every_from or 0, matches, ts, key)
            if place == self._chain.flight_end:
                has_flown = True
                self._drop_others(number, place, matches)
            if place + 1 >= self._optional_tail:
                del matches[number]
                self._emit(match, ts, key, outs, cause)
                break
            match[_STEP], match[_DONE] = place + 1, 0
            self._arm(number, match, ts, key)
        if has_flown and not self._chain.starts_every:
            self.state["done"].add(key)
        return has_flown

    def _drop_others(self, number: int, place: int, matches: dict[int, Match]) -> None:
        for other in [other for other, match in matches.items() if match[_STEP] <= place and other != number]:
            del matches[other]

    def _again(self, match: Match, place: int, matches: dict[int, Match], ts: int, key: Any) -> None:
        """The match that waits at ``place`` once more, with what it had captured before."""
        captured = [list(events) if isinstance(events, list) else events for events in match[_CAPTURED]]
        for step in self._steps[place:]:
            for slot in step.slots:
                captured[slot.number] = [] if slot.is_list else None
        self.state["ids"] += 1
        again: Match = [place, match[_START], match[_BEGAN], captured, 0]
        if len(matches) < self.limits.partials:
            matches[self.state["ids"]] = again
            self._arm(self.state["ids"], again, ts, key)
        else:
            self.limits.dropped["partials"] += 1

    def _emit(self, match: Match, ts: int, key: Any, outs: list[Out], cause: int) -> None:
        captured = match[_CAPTURED]
        if self._passes is None or self._passes(captured, ts, key):
            outs.append((ts, cause, match[_BEGAN], self._row(captured, ts, key), key))

    # Time

    def _is_late(self, match: Match, ts: int) -> bool:
        within_ms = self._chain.within_ms
        return within_ms is not None and ts - match[_START] > within_ms

    def _fits_groups(self, match: Match, target: int, ts: int) -> bool:
        for first, last, within_ms in self._chain.withins:
            if first < target <= last or first == target == last:
                times = [self._first_time(match[_CAPTURED][slot.number]) for slot in self._steps[first].slots]
                known = [time for time in times if time is not None]
                if known and ts - min(known) > within_ms:
                    return False
        return True

    @staticmethod
    def _first_time(captured: Any) -> int | None:
        if not captured:
            return None
        return int(captured[0][0] if isinstance(captured, list) else captured[0])

    def _arm(self, number: int, match: Match, ts: int, key: Any) -> None:
        for slot in self._steps[match[_STEP]].slots:
            if slot.duration_ms is not None:
                deadline = (ts + slot.duration_ms, number, match[_STEP], slot.number, key)
                heapq.heappush(self.state["deadlines"], deadline)

    def _pass(self, now: int, outs: list[Out]) -> int:
        """Let time pass: absences that are complete by now, and matches too old to succeed. The next time to look."""
        state = self.state
        deadlines = state["deadlines"]
        while deadlines and deadlines[0][0] <= now:
            ts, number, place, slot_number, key = heapq.heappop(deadlines)
            matches = state["matches"].get(key)
            match = matches.get(number) if matches else None
            if match is None or matches is None or match[_STEP] != place:
                continue
            if self._is_late(match, ts):
                del matches[number]
            else:
                bit = [slot.number for slot in self._steps[place].slots].index(slot_number)
                if not match[_DONE] >> 16 + bit & 1:
                    match[_DONE] |= 1 << bit
                    self._settle(number, match, matches, ts, key, outs, BY_TIME)
            if not matches:
                del state["matches"][key]
        if state["sweep"] is not None and state["sweep"] <= now:
            self._sweep(now)
        return self._due()

    def _sweep(self, now: int) -> None:
        for key, matches in list(self.state["matches"].items()):
            for number, match in list(matches.items()):
                if self._collects(match):
                    self._let_go(match, now)
                if self._is_late(match, now):
                    del matches[number]
            if not matches:
                del self.state["matches"][key]
        has_matches = bool(self.state["matches"]) and self._sweeps is not None
        self.state["sweep"] = now + (self._sweeps or 0) + 1 if has_matches else None

    def held(self) -> int:
        return sum(map(len, self.state["matches"].values()))
