"""When a KP that has failed is started again, and when no more. What the platform cannot do now is no failure of the KP."""

from __future__ import annotations

from dataclasses import dataclass

PAUSE_S_FIRST, PAUSE_S_MAX = 1.0, 60.0
FAILURES_MAX = 5
"""In a row; then it is paused until somebody starts it."""
STEADY_S = 60.0
"""A program that ran so long has not failed in a row."""
HINDERED_S_MAX = 10.0
"""The longest pause where the platform itself cannot start it."""


@dataclass(slots=True)
class Restarts:
    """The failures in a row of one release of a KP."""

    failures: int = 0
    hindrances: int = 0

    def started(self) -> None:
        """Its program runs."""
        self.hindrances = 0

    def hindered(self) -> float:
        """The platform could not start it. Gives the seconds to wait; it is tried for ever, and counts for nothing."""
        self.hindrances += 1
        return float(min(PAUSE_S_FIRST * 2 ** min(self.hindrances - 1, 10), HINDERED_S_MAX))

    def succeeded(self) -> None:
        """It ended well, or was stopped."""
        self.failures = 0

    def failed(self, ran_s: float) -> float | None:
        """It failed after ``ran_s``. Gives the seconds to wait before the next start; None: no next start."""
        self.failures = 1 if ran_s >= STEADY_S else self.failures + 1
        if self.failures >= FAILURES_MAX:
            return None
        return float(min(PAUSE_S_FIRST * 2 ** (self.failures - 1), PAUSE_S_MAX))
