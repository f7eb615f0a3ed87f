"""The common pattern, fast: one plain event after the other, ``every a -> b -> c``, by key."""

from __future__ import annotations

from typing import Any

from sib.cep.operators.base import BY_EVENT, Out
from sib.cep.operators.chains import FlatChain
from sib.cep.operators.patterns import Pattern


def is_linear(chain: FlatChain) -> bool:
    """Whether a chain is nothing but plain events with ``->`` between them, with at most a ``within`` for the whole."""
    return (
        len(chain.steps) > 1
        and not chain.withins
        and chain.flight_end in (None, len(chain.steps) - 1)
        and all(
            len(step.slots) == 1
            and not step.is_counted
            and not step.has_absence
            and not step.is_strict
            and step.every_from is None
            for step in chain.steps
        )
    )


class LinearPattern(Pattern):
    """As :class:`Pattern`, for chains that :func:`is_linear`: the slot of a step has the step's number."""

    def _event(self, event: Any, key: Any, hits: int, outs: list[Out]) -> int:
        state = self.state
        matches = state["matches"].get(key)
        has_ended = False
        if matches:
            has_ended = self._advance(matches, event, key, hits, outs)
            if not matches:
                del state["matches"][key]
                matches = None
        if hits & 1 and not (has_ended and self._flies) and key not in state["done"]:
            self._start(matches, event, key)
        sweep = state["sweep"]
        return 2**62 if sweep is None else int(sweep)

    def _advance(self, matches: dict[int, Any], event: Any, key: Any, hits: int, outs: list[Out]) -> bool:
        """Offer the event to all matches of its key. Whether one ended."""
        ts, within_ms, conditions, last = event[0], self._chain.within_ms, self._correlated, self._last
        gone = []
        has_ended = False
        for number, match in matches.items():
            if within_ms is not None and ts - match[1] > within_ms:
                gone.append(number)
                continue
            place = match[0]
            if not hits >> place & 1:
                continue
            condition = conditions[place]
            if condition is not None and not condition(event, match[3]):
                continue
            match[3][place] = event
            if place < last:
                match[0] = place + 1
                continue
            has_ended = True
            gone.append(number)
            if self._passes is None or self._passes(match[3], ts, key):
                outs.append((ts, BY_EVENT, match[2], self._row(match[3], ts, key), key))
            if self._flies:
                break
        if has_ended and self._flies:
            matches.clear()
            if not self._chain.starts_every:
                self.state["done"].add(key)
        else:
            for number in gone:
                del matches[number]
        return has_ended

    @property
    def _flies(self) -> bool:
        return self._chain.flight_end is not None

    def _start(self, matches: dict[int, Any] | None, event: Any, key: Any) -> None:
        state = self.state
        condition = self._correlated[0]
        captured = [event, *[None] * self._last]
        if condition is not None and not condition(event, captured):
            return
        if matches is None:
            if len(state["matches"]) + len(state["done"]) >= self.limits.keys:
                self.limits.dropped["keys"] += 1
                return
            matches = state["matches"][key] = {}
        elif len(matches) >= self.limits.partials:
            del matches[next(iter(matches))]
            self.limits.dropped["partials"] += 1
        if self._sweeps is not None and state["sweep"] is None:
            state["sweep"] = event[0] + self._sweeps + 1
        number = state["ids"] = state["ids"] + 1
        matches[number] = [1, event[0], number, captured, 0]
