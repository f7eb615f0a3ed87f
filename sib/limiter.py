"""The JOIN limiter: it only slows failures down, a JOIN with right credentials is never refused or delayed."""

from __future__ import annotations

from collections import OrderedDict

KEYS_MAX = 100_000
"""Addresses and KPs remembered; beyond it the one that failed longest ago is forgotten."""
KP_CHARS_COMPARED = 200
"""A name that somebody makes up may have a million characters; it must not be kept."""
WINDOW_S = 60.0
DELAY_S_FIRST = 0.1


class FailureLimiter:
    """Counts failures per key over a minute and says how long the answer to the next one has to wait."""

    def __init__(self, failures_per_minute: int, delay_s_max: float) -> None:
        self.failures_per_minute, self.delay_s_max = failures_per_minute, delay_s_max
        self._failures: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def failed(self, address: str, kp: str, now_s: float) -> float:
        """Count a failure; returns the seconds by which its answer is delayed: 0 up to the limit, then growing to the maximum."""
        key = (address, kp[:KP_CHARS_COMPARED])
        began, count = self._failures.pop(key, (now_s, 0))
        if now_s - began >= WINDOW_S:
            began, count = now_s, 0
        count += 1
        self._failures[key] = (began, count)
        if len(self._failures) > KEYS_MAX:
            self._failures.popitem(last=False)
        over = count - self.failures_per_minute
        return 0.0 if over <= 0 else min(self.delay_s_max, DELAY_S_FIRST * 2 ** min(over - 1, 20))
