"""``output ...`` and ``@dedupe``: which of a rule's outputs get out, and when.

``first`` lets one out and holds the rest back for the time or number; ``last`` and ``all`` collect until their time or
number is full, counted from the first they hold; ``snapshot`` tells the newest output of each group in every period.
With ``group by`` (or ``partition by``) ``first`` and ``last`` work per group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sib.cep.aggregates import hashable
from sib.cep.language import ast
from sib.cep.limits import Limits
from sib.cep.operators.base import BY_TIME, Out

Told = tuple[int, Out]
"""When an output gets out, and the output."""

PERIODS_MAX = 10_000
"""Periods of ``output snapshot`` told in one step of time; what a leap of time would make beyond is counted, left out."""

_NEVER = 2**62


class Rate:
    """The gate of one rule. ``state`` is plain data for the snapshot."""

    def __init__(self, rate: ast.Rate | None, limits: Limits, *, is_edge: bool) -> None:
        self._rate = rate
        self._limits = limits
        self._kind = rate.kind if rate else ""
        if self._kind == "change" and is_edge:
            self._kind = ""  # the operator itself tells only when having turns true
        self.state: dict[str, Any] = {"due": None, "held": [], "count": 0, "groups": {}}

    @property
    def is_open(self) -> bool:
        """Whether every output gets out at once."""
        return not self._kind

    @property
    def due(self) -> int:
        """When time alone lets something out."""
        due = self.state["due"]
        return int(due) if due is not None else _NEVER

    def pass_on(self, outs: Sequence[Out], watermark: int) -> list[Told]:
        """What gets out of these outputs (in order of time), and by the watermark."""
        if not self._kind:
            return [(out[0], out) for out in outs]
        told: list[Told] = []
        for out in outs:
            self._let_time_pass(out[0], told)
            self._take(out, told)
        self._let_time_pass(watermark, told)
        return told

    def _take(self, out: Out, told: list[Told]) -> None:
        groups, group, rate = self.state["groups"], hashable(out[4]), self._rate
        if group not in groups and len(groups) >= self._limits.keys:
            self._limits.dropped["keys"] += 1
            return
        every_ms, every_count = (rate.every_ms, rate.every_count) if rate else (None, None)
        match self._kind:
            case "change":
                if group not in groups or groups[group] != out[3]:
                    told.append((out[0], out))
                groups[group] = out[3]
            case "first" if every_ms is not None:
                if group not in groups or out[0] >= groups[group] + every_ms:
                    groups[group] = out[0]
                    told.append((out[0], out))
            case "first":
                count = groups.get(group, 0)
                if count == 0:
                    told.append((out[0], out))
                groups[group] = (count + 1) % (every_count or 1)
            case "last" if every_count is not None:
                count = groups.get(group, 0) + 1
                if count >= every_count:
                    told.append((out[0], out))
                groups[group] = count % every_count
            case "last" | "snapshot":
                if self.state["due"] is None:
                    self.state["due"] = out[0] + (every_ms or 0)
                if self._kind == "last":
                    groups.pop(group, None)  # the order is that of the last outputs
                groups[group] = out
            case _:
                self._collect(out, told, every_ms, every_count)

    def _collect(self, out: Out, told: list[Told], every_ms: int | None, every_count: int | None) -> None:
        held = self.state["held"]
        held.append(out)
        if every_count is not None:
            if len(held) >= every_count:
                told += [(out[0], item) for item in held]
                held.clear()
            return
        if self.state["due"] is None:
            self.state["due"] = out[0] + (every_ms or 0)
        if len(held) > self._limits.events:
            del held[0]
            self._limits.dropped["events"] += 1

    def _let_time_pass(self, now: int, told: list[Told]) -> None:
        state = self.state
        periods = 0
        while state["due"] is not None and state["due"] <= now:
            due = state["due"]
            if self._kind == "snapshot":
                periods += 1
                every_ms = (self._rate.every_ms if self._rate else None) or 1
                if periods > PERIODS_MAX and due + every_ms <= now:  # time made a great leap
                    state["due"] = due + (now - due) // every_ms * every_ms
                    self._limits.dropped["periods"] += (now - due) // every_ms
                    continue
                told += [(due, (due, BY_TIME, n, out[3], out[4])) for n, out in enumerate(state["groups"].values())]
                state["due"] = due + every_ms
                continue
            told += [(due, out) for out in (state["groups"].values() if self._kind == "last" else state["held"])]
            state["groups"], state["held"], state["due"] = {}, [], None


class Dedupe:
    """``@dedupe(key, '10 min')``: an output whose column has a value told within the time before is not told again."""

    def __init__(self, column: int, duration_ms: int, limits: Limits) -> None:
        self._column, self._duration, self._limits = column, duration_ms, limits
        self.state: dict[str, Any] = {"told": {}}

    def pass_on(self, told: Sequence[Told]) -> list[Told]:
        """What is left of these."""
        known: dict[Any, int] = self.state["told"]
        result = []
        for when, out in told:
            value = hashable(out[3][self._column])
            if value in known and when - known[value] < self._duration:
                continue
            known.pop(value, None)
            known[value] = when
            while known and (when - next(iter(known.values())) >= self._duration or len(known) > self._limits.keys):
                del known[next(iter(known))]
            result.append((when, out))
        return result
