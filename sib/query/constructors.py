"""The functions of the Mongo shell that make values: ``ISODate("...")``, ``ObjectId("...")``, ``NumberLong(5)``...

Each takes the arguments as values and raises ValueError with a sentence when they are wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from bson import Int64, MaxKey, MinKey, ObjectId

from sib.query.extended import (
    binary,
    date_of_milliseconds,
    decimal,
    milliseconds_of,
    number,
    object_id,
    parse_date,
    print_date,
    regex,
    timestamp,
    uuid,
)

Clock = Callable[[], datetime]  # naive UTC
Arguments = list[Any]
_MONTHS_PER_YEAR = 12
_FIRST_MOMENT = [1970, 0, 1, 0, 0, 0, 0]


def construct(name: str, arguments: Arguments, now: Clock | None) -> Any:
    """The value of a call such as ``ISODate(...)`` or ``Date.now()``.

    Raises:
        ValueError: the function is not one of the shell's, its arguments are wrong, or the time is not known here.
    """
    if name in ("ISODate", "Date"):
        return _current(now) if not arguments else _date(arguments)
    if name == "Date.now":
        return Int64(milliseconds_of(_current(now)))
    if name == "Date.UTC":
        return Int64(milliseconds_of(_date_of_parts(arguments)))
    function = _FUNCTIONS.get(name)
    if function is None:
        raise ValueError(f"{name}() is not accepted; the functions are {', '.join(sorted(FUNCTION_NAMES))}")
    try:
        return function(*arguments)
    except TypeError:
        raise ValueError(f"{name}() does not take {len(arguments)} argument(s) of this kind") from None


def call_method(value: Any, name: str) -> Any:
    """``.getTime()``, ``.valueOf()`` and ``.toISOString()`` of a date. Raises ValueError for anything else."""
    if isinstance(value, datetime):
        if name in ("getTime", "valueOf"):
            return Int64(milliseconds_of(value))
        if name == "toISOString":
            return print_date(value)
    raise ValueError(f".{name}() is not accepted on a value")


def _current(now: Clock | None) -> datetime:
    if now is None:
        raise ValueError("the current time is not known here: write the date itself")
    moment = now()
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _date(arguments: Arguments) -> datetime:
    first = arguments[0]
    if len(arguments) > 1:
        return _date_of_parts(arguments)
    if isinstance(first, datetime):
        return first
    if isinstance(first, str):
        return parse_date(first)
    return date_of_milliseconds(number(first, float))


def _date_of_parts(arguments: Arguments) -> datetime:
    """``new Date(year, month from 0, day, hour, minute, second, millisecond)``, taken as UTC."""
    parts = [number(each, int) for each in arguments]
    if not 2 <= len(parts) <= 7:
        raise ValueError("a date of parts takes year, month (from 0), day, hour, minute, second, millisecond")
    parts += _FIRST_MOMENT[len(parts) :]
    year, month, day, hour, minute, second, millisecond = parts
    try:
        start = datetime(year + month // _MONTHS_PER_YEAR, month % _MONTHS_PER_YEAR + 1, 1)
        return start + timedelta(days=day - 1, hours=hour, minutes=minute, seconds=second, milliseconds=millisecond)
    except (ValueError, OverflowError):
        raise ValueError("the date is outside the years 1 to 9999") from None


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "ObjectId": lambda text=None: ObjectId() if text is None else object_id(text),
    "ObjectID": lambda text=None: ObjectId() if text is None else object_id(text),
    "NumberLong": lambda value: Int64(number(value, int)),
    "Long": lambda value: Int64(number(value, int)),
    "NumberInt": lambda value: number(value, int),
    "Number": lambda value: number(value, float),
    "Double": lambda value: number(value, float),
    "NumberDecimal": lambda value: decimal(value),
    "Decimal128": lambda value: decimal(value),
    "Timestamp": lambda seconds=0, increment=0: timestamp(seconds, increment),
    "UUID": uuid,
    "BinData": binary,
    "RegExp": regex,
    "MinKey": MinKey,
    "MaxKey": MaxKey,
}
FUNCTION_NAMES = frozenset({*_FUNCTIONS, "ISODate", "Date", "Date.now", "Date.UTC"})
