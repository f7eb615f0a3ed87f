"""Extended JSON in an instance against the values that BSON stores: in place on the way in, a copy on the way out.

Going in, a dict that is one of ``{"$date": …} {"$oid": …} {"$numberLong": …}`` and their kin becomes that value;
everything else, ``{"$regex": …}`` too, is data.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bson import Binary, Decimal128

from sib.query.extended import from_extended, parse_date

Json = Any

DEPTH_MAX = 100
"""Levels of nesting of an instance. MongoDB's own bound for a document."""

_CONTAINERS = (dict, list)
_NUMBERS = frozenset({"$numberLong", "$numberInt", "$numberDouble", "$numberDecimal"})


class UnconvertibleError(Exception):
    """A value that no BSON value stands for. ``culprit`` is the object itself, so that its path can be found."""

    def __init__(self, culprit: object, reason: str) -> None:
        super().__init__(reason)
        self.culprit = culprit
        self.reason = reason


def to_bson(value: Json, depth: int = 1) -> Any:
    """Convert extended JSON to BSON values; dicts and lists are changed in place. Idempotent.

    Raises:
        UnconvertibleError: a date, id or number that cannot be read, or more than ``DEPTH_MAX`` levels.
    """
    if type(value) is dict:
        _check_depth(value, depth)
        for key, item in value.items():
            if type(item) in _CONTAINERS:
                value[key] = to_bson(item, depth + 1)
        return _to_bson_if_extended(value)
    if type(value) is list:
        _check_depth(value, depth)
        for index, item in enumerate(value):
            if type(item) in _CONTAINERS:
                value[index] = to_bson(item, depth + 1)
    return value


def date_to_bson(value: Json) -> Any:
    """``to_bson`` for a place where the schema allows only ``{"$date": …}``: quick for the usual spelling.

    Raises:
        UnconvertibleError: the date cannot be read, or is outside the years 1 to 9999.
    """
    if type(value) is dict and len(value) == 1:
        return _quick_date(value.get("$date")) or to_bson(value)
    return to_bson(value)


def unwrap_numbers(value: Json, depth: int = 1) -> Json:
    """A copy in which ``{"$numberLong": "5"}`` and its like are the plain numbers that they spell.

    Raises:
        UnconvertibleError: one of them is no number, or more than ``DEPTH_MAX`` levels.
    """
    if isinstance(value, dict):
        _check_depth(value, depth)
        if len(value) == 1 and next(iter(value)) in _NUMBERS:
            number = _to_bson_if_extended(value)
            return float(str(number)) if isinstance(number, Decimal128) else +number  # a plain int of an Int64
        return {key: unwrap_numbers(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        _check_depth(value, depth)
        return [unwrap_numbers(item, depth + 1) for item in value]
    return value


def _to_bson_if_extended(value: dict[str, Any]) -> Any:
    if not 1 <= len(value) <= 2 or not next(iter(value)).startswith("$"):
        return value
    try:
        date = value.get("$date")
        if moment := len(value) == 1 and _quick_date(date):
            return moment
        read: Any = value if _is_interval(date) else from_extended(value)
    except Exception as error:
        raise UnconvertibleError(value, str(error)) from error
    return bytes(read) if type(read) is Binary and read.subtype == 0 else read  # as it will come out of the store


def _quick_date(text: Any) -> datetime | None:
    """A date in the usual spelling (``…Z``), None for any other: ``parse_date`` knows them all but takes longer."""
    if type(text) is not str or text[-1:] != "Z":
        return None
    try:
        moment = datetime.fromisoformat(text[:-1])
    except ValueError:
        return None
    return moment if moment.tzinfo is None and moment.microsecond % 1000 == 0 else None


def _is_interval(text: Any) -> bool:
    """``{"$date": "start/end"}`` of the governance rules is no moment: it is checked and kept as it is."""
    if type(text) is not str or "/" not in text:
        return False
    for moment in text.split("/", 1):
        parse_date(moment)
    return True


def _check_depth(value: object, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise UnconvertibleError(value, f"nested deeper than {DEPTH_MAX} levels")
