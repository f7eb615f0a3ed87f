"""A token bucket: what comes faster than its rate waits."""

from __future__ import annotations

from collections.abc import Callable


class TokenBucket:
    """``rate`` tokens a second, at most ``burst`` of them saved up. May go into debt once: then the wait is longer."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate, self._burst, self._clock = rate, max(1.0, burst), clock
        self._tokens, self._at_s = self._burst, clock()

    def take(self, count: float = 1) -> float:
        """Take tokens; returns the seconds to wait before taking more: 0 while there are some."""
        now_s = self._clock()
        self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._rate) - count
        self._at_s = now_s
        return 0.0 if self._tokens > 0 else (1.0 - self._tokens) / self._rate
