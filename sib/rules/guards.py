"""What keeps one rule from harming the others: a circuit breaker and quotas. Times are seconds of a clock that never goes back."""

from __future__ import annotations

from collections.abc import Mapping

from sib.errors import LimitError

FAILURES_MAX = 10
"""Runs that fail for good, one after the other; then the rule is not run for a while."""
PAUSE_S_FIRST, PAUSE_S_MAX = 10.0, 300.0
MINUTE_S = 60.0


class Breaker:
    """Opens after so many failures in a row. After its pause one run is let through: it closes, or the next pause is longer."""

    def __init__(self) -> None:
        self._failures = self._openings = 0
        self._until_s = float("-inf")
        self._is_trying = False

    @property
    def is_trying(self) -> bool:
        """Whether the one run that was let through has not ended yet."""
        return self._is_trying

    def is_open(self, now_s: float) -> bool:
        """Whether the next run is to be refused. When the pause is over, one caller is told no."""
        if self._failures < FAILURES_MAX:
            return False
        if now_s < self._until_s or self._is_trying:
            return True
        self._is_trying = True
        return False

    def succeeded(self) -> None:
        self._failures = self._openings = 0
        self._is_trying = False

    def failed(self, now_s: float) -> bool:
        """A run has failed for good; says whether this opened the breaker."""
        self._failures += 1
        self._is_trying = False
        if self._failures < FAILURES_MAX:
            return False
        self._until_s = now_s + min(PAUSE_S_MAX, PAUSE_S_FIRST * 2 ** min(self._openings, 10))
        self._openings += 1
        return True

    def until_s(self, now_s: float) -> float | None:
        """When a run is let through again; None while it is closed."""
        return self._until_s if self._failures >= FAILURES_MAX and now_s < self._until_s else None


class Quota:
    """How much of each kind one rule may do a minute. What is not named is not counted."""

    def __init__(self, per_minute: Mapping[str, int]) -> None:
        self.per_minute = dict(per_minute)
        self._minute = float("-inf")
        self._used: dict[str, int] = {}

    def take(self, kind: str, now_s: float, count: int = 1) -> None:
        """Use some of it.

        Raises:
            LimitError: it would be more than this minute has; nothing is used.
        """
        if now_s - self._minute >= MINUTE_S:
            self._minute = now_s
            self._used.clear()
        used = self._used.get(kind, 0) + count
        most = self.per_minute.get(kind)
        if most is not None and used > most:
            raise LimitError(f"a rule may {_WORDS.get(kind, kind)} {most} times a minute (rules.{kind}_per_minute)")
        self._used[kind] = used


_WORDS = {"writes": "write", "mails": "send mail", "http": "make HTTP requests", "queries": "query"}
