"""Sets of moments: which days a condition can be true on. Half-open, ordered, without overlaps; ``EVER`` is all of time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

Interval = tuple[datetime, datetime]
Intervals = tuple[Interval, ...]

EVER: Intervals = ((datetime.min, datetime.max),)
NEVER: Intervals = ()
INTERVALS_MAX = 1_000
"""More than this are replaced by the one interval around them."""
_TICK = timedelta(microseconds=1)


def since(moment: datetime) -> Intervals:
    """From a moment on."""
    return ((moment, datetime.max),)


def until(moment: datetime) -> Intervals:
    """Before a moment."""
    return ((datetime.min, moment),) if moment > datetime.min else NEVER


def up_to(moment: datetime) -> Intervals:
    """Up to a moment, included."""
    return until(after(moment))


def after(moment: datetime) -> datetime:
    """The next moment that can be told from this one."""
    return moment + _TICK if moment < datetime.max - _TICK else datetime.max


def of_day(day: date) -> Intervals:
    """One day."""
    start = datetime(day.year, day.month, day.day)
    return ((start, start + timedelta(days=1) if day < date.max else datetime.max),)


def both(one: Intervals, other: Intervals) -> Intervals:
    """What is in both."""
    found = [(max(a, c), min(b, d)) for a, b in one for c, d in other if max(a, c) < min(b, d)]
    return _bounded(sorted(found))


def either(one: Intervals, other: Intervals) -> Intervals:
    """What is in one of them."""
    found: list[Interval] = []
    for start, end in sorted([*one, *other]):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return _bounded(found)


def touches(intervals: Intervals, first: datetime, last: datetime) -> bool:
    """Whether anything from ``first`` to ``last`` (both included) is in the set."""
    return any(start <= last and first < end for start, end in intervals)


def touches_day(intervals: Intervals, day: date) -> bool:
    """Whether a part of a day is in the set."""
    return bool(both(of_day(day), intervals))


def printed(intervals: Intervals) -> str:
    """For people: ``2026-01-01 00:00:00 to 2026-01-02 00:00:00``, open ends as ``…``."""
    if intervals == EVER:
        return "all"
    shown = [
        f"{'…' if start == datetime.min else start} to {'…' if end == datetime.max else end}"
        for start, end in intervals
    ]
    return ", ".join(shown) or "none"


def _bounded(found: Sequence[Interval]) -> Intervals:
    if len(found) > INTERVALS_MAX:
        return ((found[0][0], max(end for _, end in found)),)
    return tuple(found)
