"""Times of schedules: cron lines and fixed periods. Times are naive UTC.

Source: crontab(5) for the five fields, lists, ranges, steps and names, and for the rule that a day matches when the day of the
month *or* that of the week does, if both are restricted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from sib.errors import ConfigurationError

LOOK_AHEAD_DAYS = 366 * 8 + 2
"""A line that has no time within eight years (29 February across 2100 included) has none."""
PERIOD_S_MIN, PERIOD_S_MAX = 0.1, 366 * 86_400.0

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7))
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_PERIOD = re.compile(r"(?:every\s+)?(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Cron:
    """The times of one cron line."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    is_any_day: bool
    is_any_weekday: bool

    def next_after(self, moment: datetime) -> datetime:
        """The first time after ``moment``.

        Raises:
            ConfigurationError: there is none, as on 30 February.
        """
        candidate = moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
        last = candidate + timedelta(days=LOOK_AHEAD_DAYS)
        while candidate < last:
            if candidate.month not in self.months:
                candidate = _first_of_next_month(candidate)
            elif not self._is_day(candidate):
                candidate = candidate.replace(hour=0, minute=0) + timedelta(days=1)
            elif candidate.hour not in self.hours:
                candidate = candidate.replace(minute=0) + timedelta(hours=1)
            elif candidate.minute not in self.minutes:
                candidate += timedelta(minutes=1)
            else:
                return candidate
        raise ConfigurationError(f"the schedule {self.text!r} has no time within eight years")

    def _is_day(self, moment: datetime) -> bool:
        is_day, is_weekday = moment.day in self.days, moment.isoweekday() % 7 in self.weekdays
        if self.is_any_day or self.is_any_weekday:
            return is_day and is_weekday
        return is_day or is_weekday


@dataclass(frozen=True, slots=True)
class Period:
    """Once at the beginning and then every so many seconds."""

    text: str
    seconds: float

    def next_after(self, moment: datetime) -> datetime:
        """One period after ``moment``."""
        return moment + timedelta(seconds=self.seconds)


Schedule = Cron | Period


def parse_schedule(text: str) -> Schedule:
    """A cron line, or a period such as ``10s``, ``every 5 min`` or ``1h``.

    Raises:
        ConfigurationError: it is neither; the message says which part is wrong.
    """
    return parse_period(text) if _PERIOD.fullmatch(text.strip()) else parse_cron(text)


def parse_period(text: str) -> Period:
    """A period: a number and one of ms, s, m (or min), h, d.

    Raises:
        ConfigurationError: it is none, or not from 0.1 s to a year.
    """
    found = _PERIOD.fullmatch(text.strip())
    if found is None:
        raise ConfigurationError(f"a period is a number with ms, s, m, h or d, for example 10s, not {text[:80]!r}")
    seconds = float(found[1]) * _UNITS_S[found[2].lower()]
    if not PERIOD_S_MIN <= seconds <= PERIOD_S_MAX:
        raise ConfigurationError(f"a period is from {PERIOD_S_MIN:g} s to 366 days, not {text!r}")
    return Period(text, seconds)


def parse_cron(text: str) -> Cron:
    """A cron line: five fields, or a name such as ``@hourly``.

    Raises:
        ConfigurationError: it is none; the message names the field.
    """
    fields = _NAMES.get(text.strip().lower(), text).split()
    if len(fields) != len(_FIELDS):
        raise ConfigurationError(
            f"a cron line has five fields (minute, hour, day of the month, month, day of the week), not {text[:80]!r}"
        )
    found = [_values(field, *bounds) for field, bounds in zip(fields, _FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = found
    cron = Cron(
        text,
        minutes,
        hours,
        days,
        months,
        frozenset(day % 7 for day in weekdays),
        is_any_day=fields[2][0] in "*?",
        is_any_weekday=fields[4][0] in "*?",
    )
    cron.next_after(datetime(2000, 1, 1))
    return cron


def _first_of_next_month(moment: datetime) -> datetime:
    return (moment.replace(day=1, hour=0, minute=0) + timedelta(days=32)).replace(day=1)


def _values(field: str, name: str, least: int, most: int) -> frozenset[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, name, 1, most) if slash else 1
        if span in ("*", "?"):
            first, last = least, most if name != "day of the week" else 6
        else:
            begin, dash, end = span.partition("-")
            first = _number(begin, name, least, most)
            last = _number(end, name, least, most) if dash else most if slash else first
        if first > last:
            raise ConfigurationError(f"the {name} of a schedule runs from the smaller to the greater, not {part!r}")
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _number(text: str, name: str, least: int, most: int) -> int:
    names = {"month": _MONTHS, "day of the week": _DAYS}.get(name, ())
    lowered = text.lower()[:3]
    if len(text) >= 3 and lowered in names:
        return names.index(lowered) + least
    if text.isascii() and text.isdigit() and least <= int(text[:6]) <= most:
        return int(text)
    raise ConfigurationError(f"the {name} of a schedule is from {least} to {most}, not {text[:20]!r}")
