"""Calendar arithmetic of date operators: units, time zones, truncation, differences.

Moments are UTC datetimes without a zone, as BSON decodes them; a zone matters only while the calendar is looked at.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from sib.errors import QueryError

EPOCH = datetime(1970, 1, 1)
REFERENCE_YEAR = 2000
"""Bins of ``$dateTrunc`` are counted from the start of this year. Source: MongoDB manual, "$dateTrunc"."""

MILLISECONDS = {"millisecond": 1, "second": 1000, "minute": 60_000, "hour": 3_600_000}
"""Units of a fixed length, in milliseconds."""

MONTHS = {"month": 1, "quarter": 3, "year": 12}
"""Units that are counted in months."""

DAYS = {"day": 1, "week": 7}
"""Units that are counted in days of the calendar."""

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

MAX_AMOUNT = 10**12
"""Units that a date may be moved by, before the year bound is looked at."""

_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})?")


@lru_cache(maxsize=512)
def find_zone(name: str) -> tzinfo:
    """The zone of an Olson name (``Europe/Madrid``), of an offset (``+02:00``, ``-0530``, ``+03``), or UTC.

    Raises:
        QueryError: there is no such zone.
    """
    if name in ("UTC", "GMT", "Z"):
        return UTC
    match = _OFFSET.fullmatch(name)
    try:
        if match is not None:
            sign, hours, minutes = match.groups()
            offset = timedelta(hours=int(hours), minutes=int(minutes or 0))
            return timezone(-offset if sign == "-" else offset)
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise QueryError(
            f"unknown time zone {name[:60]!r}: use an Olson name such as Europe/Madrid, or +02:00"
        ) from None


def to_local(moment: datetime, zone: tzinfo) -> datetime:
    """The moment on the clocks of the zone (with the zone)."""
    try:
        return moment.replace(tzinfo=UTC).astimezone(zone)
    except OverflowError:
        raise out_of_range() from None


def to_utc(local: datetime) -> datetime:
    """The moment of a local time, without a zone and in whole milliseconds."""
    try:
        moment = local.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        raise out_of_range() from None
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def out_of_range() -> QueryError:
    """The refusal of a date outside of what can be stored."""
    return QueryError("the date is outside the years 1 to 9999")


def check_unit(name: str, unit: Any) -> str:
    """The unit of time.

    Raises:
        QueryError: it is none.
    """
    if type(unit) is str and (unit in MILLISECONDS or unit in MONTHS or unit in DAYS):
        return unit
    raise QueryError(f"{name} needs a unit from millisecond to year, not {unit!r}")


def check_weekday(name: str, day: Any) -> int:
    """The number of a weekday (Monday is 0) from its name or three letters.

    Raises:
        QueryError: it is none.
    """
    if type(day) is str:
        for number, full in enumerate(WEEKDAYS):
            if day.lower() in (full, full[:3]):
                return number
    raise QueryError(f"{name} needs a weekday such as 'monday', not {day!r}")


def shift(moment: datetime, unit: str, amount: int, zone: tzinfo = UTC) -> datetime:
    """Moves a moment by an amount of units; days and longer by the calendar of the zone, months clamped to their last day."""
    if abs(amount) > MAX_AMOUNT:
        raise out_of_range()
    try:
        if unit in MILLISECONDS:
            return moment + timedelta(milliseconds=MILLISECONDS[unit] * amount)
        local = to_local(moment, zone)
        if unit in DAYS:
            return to_utc(local + timedelta(days=DAYS[unit] * amount))
        months = local.year * 12 + local.month - 1 + MONTHS[unit] * amount
        year, month = divmod(months, 12)
        last_day = calendar.monthrange(year, month + 1)[1] if 1 <= year <= 9999 else 0
        return to_utc(local.replace(year=year, month=month + 1, day=min(local.day, last_day)))
    except (OverflowError, ValueError):
        raise out_of_range() from None


def truncate(moment: datetime, unit: str, bin_size: int, zone: tzinfo = UTC, week_start: int = 6) -> datetime:
    """The start of the bin of ``bin_size`` units that holds the moment."""
    local = to_local(moment, zone)
    try:
        if unit in MILLISECONDS:
            reference = to_utc(datetime(REFERENCE_YEAR, 1, 1, tzinfo=zone))
            width = timedelta(milliseconds=MILLISECONDS[unit] * bin_size)
            return reference + (moment - reference) // width * width
        if unit in DAYS:
            reference_day = datetime(REFERENCE_YEAR, 1, 1)
            if unit == "week":
                reference_day += timedelta(days=(week_start - reference_day.weekday()) % 7)
            days = (local.replace(tzinfo=None) - reference_day).days
            width_days = DAYS[unit] * bin_size
            start = reference_day + timedelta(days=days // width_days * width_days)
            return to_utc(start.replace(tzinfo=zone))
        width_months = MONTHS[unit] * bin_size
        months = (local.year - REFERENCE_YEAR) * 12 + local.month - 1
        year, month = divmod(months // width_months * width_months, 12)
        return to_utc(datetime(REFERENCE_YEAR + year, month + 1, 1, tzinfo=zone))
    except (OverflowError, ValueError):
        raise out_of_range() from None


def difference(start: datetime, end: datetime, unit: str, zone: tzinfo = UTC, week_start: int = 6) -> int:
    """How many boundaries of the unit lie between the two moments (negative when end is earlier)."""
    if unit in ("millisecond", "second", "minute"):
        width = timedelta(milliseconds=MILLISECONDS[unit])
        return (end - EPOCH) // width - (start - EPOCH) // width
    first, last = to_local(start, zone), to_local(end, zone)
    if unit == "hour":
        # Offsets of whole hours do not move the boundaries; others do.
        partial = (first.utcoffset() or timedelta()) % timedelta(hours=1)
        hour = timedelta(hours=1)
        return (end + partial - EPOCH) // hour - (start + partial - EPOCH) // hour
    if unit == "day":
        return last.toordinal() - first.toordinal()
    if unit == "week":
        return (last.toordinal() - 1 - week_start) // 7 - (first.toordinal() - 1 - week_start) // 7
    return (last.year * 12 + last.month - 1) // MONTHS[unit] - (first.year * 12 + first.month - 1) // MONTHS[unit]
