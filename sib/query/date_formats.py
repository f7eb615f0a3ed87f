"""The text of dates: formats with ``%`` as ``$dateToString`` and ``$dateFromString`` have them.

Source: MongoDB manual, "$dateToString" (format specifiers).
"""

from __future__ import annotations

import calendar
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo

from sib.errors import QueryError
from sib.query.calendar_units import to_utc

DEFAULT_FORMAT = "%Y-%m-%dT%H:%M:%S.%LZ"
LOCAL_FORMAT = "%Y-%m-%dT%H:%M:%S.%L"

MAX_FORMAT_LENGTH = 1000


def _offset(local: datetime) -> timedelta:
    return local.utcoffset() or timedelta()


def _offset_text(local: datetime) -> str:
    minutes = _offset(local) // timedelta(minutes=1)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}"


_SPECIFIERS: dict[str, Callable[[datetime], str]] = {
    "Y": lambda local: f"{local.year:04d}",
    "m": lambda local: f"{local.month:02d}",
    "d": lambda local: f"{local.day:02d}",
    "H": lambda local: f"{local.hour:02d}",
    "M": lambda local: f"{local.minute:02d}",
    "S": lambda local: f"{local.second:02d}",
    "L": lambda local: f"{local.microsecond // 1000:03d}",
    "j": lambda local: f"{local.timetuple().tm_yday:03d}",
    "w": lambda local: str(local.isoweekday() % 7 + 1),
    "u": lambda local: str(local.isoweekday()),
    "U": lambda local: f"{(local.timetuple().tm_yday + 6 - local.isoweekday() % 7) // 7:02d}",
    "V": lambda local: f"{local.isocalendar().week:02d}",
    "G": lambda local: f"{local.isocalendar().year:04d}",
    "b": lambda local: calendar.month_abbr[local.month],
    "B": lambda local: calendar.month_name[local.month],
    "z": _offset_text,
    "Z": lambda local: str(_offset(local) // timedelta(minutes=1)),
    "%": lambda _: "%",
}


def format_date(local: datetime, pattern: str) -> str:
    """The text of a local time.

    Raises:
        QueryError: an unknown specifier, or a pattern that is too long.
    """
    if len(pattern) > MAX_FORMAT_LENGTH:
        raise QueryError(f"a date format has at most {MAX_FORMAT_LENGTH} characters")
    made: list[str] = []
    characters = iter(pattern)
    for character in characters:
        if character != "%":
            made.append(character)
            continue
        specifier = next(characters, "")
        if specifier not in _SPECIFIERS:
            raise QueryError(f"unknown date format specifier %{specifier}")
        made.append(_SPECIFIERS[specifier](local))
    return "".join(made)


_PYTHON_SPECIFIERS = frozenset("YmdHMSjuVGbBz%")


def _python_format(pattern: str) -> str:
    made: list[str] = []
    characters = iter(pattern)
    for character in characters:
        if character != "%":
            made.append(character)
            continue
        specifier = next(characters, "")
        if specifier == "L":
            made.append("%f")
        elif specifier in _PYTHON_SPECIFIERS:
            made.append("%" + specifier)
        else:
            raise QueryError(f"$dateFromString cannot read the specifier %{specifier}")
    return "".join(made)


def parse_date(text: str, pattern: str | None = None, zone: tzinfo | None = None) -> datetime:
    """Reads a date: ISO 8601 in its usual spellings, or by a format. Without an offset it is in the zone, or UTC.

    Raises:
        QueryError: it cannot be read, or it has an offset although a zone is given.
    """
    if len(text) > MAX_FORMAT_LENGTH or (pattern is not None and len(pattern) > MAX_FORMAT_LENGTH):
        raise QueryError(f"a date text has at most {MAX_FORMAT_LENGTH} characters")
    try:
        read = (
            datetime.fromisoformat(text.strip())
            if pattern is None
            else datetime.strptime(text, _python_format(pattern))
        )
    except (ValueError, OverflowError):
        wanted = "ISO 8601, such as 2014-04-29T08:24:54.005Z" if pattern is None else f"the format {pattern!r}"
        raise QueryError(f"cannot read the date {text[:80]!r}: {wanted} is needed") from None
    if read.tzinfo is None:
        return to_utc(read.replace(tzinfo=zone or UTC))
    if zone is not None and pattern is None and not text.strip().endswith("Z"):
        raise QueryError("the date text has an offset already: leave timezone out")
    return to_utc(read)
