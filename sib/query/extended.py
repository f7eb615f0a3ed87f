"""Extended JSON to BSON values and back: ``{"$date": ...}``, ``{"$oid": ...}``, ``{"$numberLong": ...}`` and their kin.

Source: MongoDB extended JSON, version 1 and 2, as old drivers and the Sofia2 clients write it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import InvalidOperation
from typing import Any
from uuid import UUID

from bson import Binary, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.errors import InvalidId

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
EPOCH = datetime(1970, 1, 1)  # naive UTC, as bson decodes dates

_DATE = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})"
    r"(?:[Tt ](\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?\s?(?:([Zz])|([+-])(\d{2}):?(\d{2})?)?)?\Z",
    re.ASCII,
)
_HEX_ID = re.compile(r"[0-9a-fA-F]{24}\Z")
_REGEX_OPTIONS = frozenset("ilmsux")
_IGNORED_REGEX_OPTIONS = frozenset("gyd")  # of JavaScript; they mean nothing for a match


def parse_date(text: str) -> datetime:
    """A date of ISO 8601 as naive UTC in milliseconds; without an offset it is UTC, without a time it is midnight.

    Raises:
        ValueError: the text is not such a date.
    """
    match = _DATE.match(text.strip())
    if match is None:
        raise ValueError(f"{_shown(text)} is not a date like 2014-04-29T08:24:54.005Z")
    year, month, day, hour, minute, second, fraction, _, sign, offset_h, offset_min = match.groups()
    milliseconds = int((fraction or "0")[:3].ljust(3, "0"))
    try:
        moment = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0))
        offset = timedelta(hours=int(offset_h or 0), minutes=int(offset_min or 0))
        return moment + timedelta(milliseconds=milliseconds) + (offset if sign == "-" else -offset)
    except (ValueError, OverflowError):
        raise ValueError(f"{_shown(text)} is not a date of the calendar") from None


def date_of_milliseconds(milliseconds: float) -> datetime:
    """The date so many milliseconds after 1970. Raises ValueError outside the years 1 to 9999."""
    try:
        return EPOCH + timedelta(milliseconds=int(milliseconds))
    except (OverflowError, ValueError):
        raise ValueError("the date is outside the years 1 to 9999") from None


def milliseconds_of(moment: datetime) -> int:
    """Milliseconds since 1970 of a naive UTC date."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


def print_date(moment: datetime) -> str:
    """The date as it stands on the wire: ``2014-04-29T08:24:54.005Z``."""
    return moment.isoformat(timespec="milliseconds") + "Z"


def object_id(text: Any) -> ObjectId:
    """The ObjectId of 24 hex digits. Raises ValueError otherwise."""
    try:
        return ObjectId(text if isinstance(text, str) else None if text is None else str(text))
    except (InvalidId, TypeError):
        raise ValueError(f"{_shown(text)} is not an ObjectId (24 hex digits)") from None


def is_object_id(text: str) -> bool:
    """Whether the text is the 24 hex digits of an ObjectId."""
    return _HEX_ID.match(text) is not None


def decimal(value: Any) -> Decimal128:
    """A Decimal128. Raises ValueError when the text is no number."""
    try:
        return Decimal128(str(value))
    except (InvalidOperation, ValueError, TypeError):
        raise ValueError(f"{_shown(value)} is not a decimal number") from None


def regex(pattern: Any, options: Any = "") -> Regex[str]:
    """A regular expression as BSON keeps it; options of JavaScript that mean nothing for a match are left out."""
    if not isinstance(pattern, str) or not isinstance(options, str):
        raise ValueError("a regular expression takes a pattern and options, both strings")
    if "\0" in pattern:
        raise ValueError("a regular expression cannot contain the character NUL")
    kept = set(options) - _IGNORED_REGEX_OPTIONS
    if not kept <= _REGEX_OPTIONS:
        raise ValueError(f"{_shown(options)} are not options of a regular expression (i, m, s, x are)")
    return Regex(pattern, "".join(sorted(kept)))


def number(value: Any, kind: type[int] | type[float]) -> Any:
    """An integer of 64 bits, or a finite float, from a number or its text. Raises ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{_shown(value)} is not a number")
    try:
        result = kind(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{_shown(value)} is not a number") from None
    if isinstance(result, float) and (result != result or result in (float("inf"), float("-inf"))):
        raise ValueError(f"{_shown(value)} is not a finite number")
    if isinstance(result, int) and not INT64_MIN <= result <= INT64_MAX:
        raise ValueError(f"{_shown(value)} does not fit into 64 bits")
    return result


def binary(subtype: Any, encoded: Any) -> Any:
    """Binary data from its Base64 text; plain bytes for subtype 0, as bson decodes them."""
    if not isinstance(encoded, str) or not isinstance(subtype, int) or not 0 <= subtype <= 255:
        raise ValueError("binary data takes a subtype (0 to 255) and Base64 text")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the binary data are not Base64") from None
    return Binary(data, subtype) if subtype else data


def uuid(text: Any) -> Any:
    """A UUID as BSON keeps it (binary, subtype 4)."""
    try:
        return Binary(UUID(str(text)).bytes, 4)
    except ValueError:
        raise ValueError(f"{_shown(text)} is not a UUID") from None


def timestamp(seconds: Any, increment: Any) -> Timestamp:
    """A BSON timestamp of two unsigned 32-bit numbers."""
    both = (number(seconds, int), number(increment, int))
    if not all(0 <= each < 2**32 for each in both):
        raise ValueError("a Timestamp takes two numbers of 32 bits")
    return Timestamp(*both)


def from_extended(document: dict[str, Any]) -> Any:
    """The BSON value that one object of extended JSON stands for, or the object itself if it stands for none.

    ``{"$regex": ...}`` stays as it is: in a query it is an operator.

    Raises:
        ValueError: the object is extended JSON but its content is wrong; the text says what is.
    """
    if not 1 <= len(document) <= 2:
        return document
    key = next(iter(document))
    if key == "$type" and "$binary" in document:
        key = "$binary"
    if len(document) == 2 and key != "$binary":
        return document
    convert = _CONVERTERS.get(key)
    return document if convert is None else convert(document)


def to_extended(value: Any) -> Any:
    """Extended JSON (as instances arrive) of a value with BSON types in it; integers stay plain numbers."""
    if isinstance(value, Mapping):
        return {key: to_extended(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_extended(each) for each in value]
    if isinstance(value, Int64):
        return int(value)
    for kind, convert in _PRINTERS.items():
        if isinstance(value, kind):
            return convert(value)
    return value


def _date(document: dict[str, Any]) -> datetime:
    value = document["$date"]
    if isinstance(value, datetime):
        return value
    if isinstance(value, str):
        return parse_date(value)
    return date_of_milliseconds(number(value, int))


def _binary(document: dict[str, Any]) -> Any:
    value = document["$binary"]
    inner = isinstance(value, Mapping)
    encoded = value.get("base64") if inner else value
    subtype = value.get("subType", "00") if inner else document.get("$type", "00")
    if isinstance(subtype, str):
        try:
            subtype = int(subtype, 16)
        except ValueError:
            subtype = None
    return binary(subtype, encoded)


def _timestamp(document: dict[str, Any]) -> Timestamp:
    value = document["$timestamp"]
    if not isinstance(value, Mapping) or set(value) != {"t", "i"}:
        raise ValueError("$timestamp takes {t: seconds, i: increment}")
    return timestamp(value["t"], value["i"])


def _regular_expression(document: dict[str, Any]) -> Regex[str]:
    value = document["$regularExpression"]
    if not isinstance(value, Mapping):
        raise ValueError("$regularExpression takes {pattern, options}")
    return regex(value.get("pattern"), value.get("options", ""))


def _symbol(document: dict[str, Any]) -> str:
    if not isinstance(document["$symbol"], str):
        raise ValueError("$symbol takes a string")
    return document["$symbol"]


_CONVERTERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "$oid": lambda document: object_id(document["$oid"]),
    "$date": _date,
    "$numberLong": lambda document: Int64(number(document["$numberLong"], int)),
    "$numberInt": lambda document: number(document["$numberInt"], int),
    "$numberDouble": lambda document: number(document["$numberDouble"], float),
    "$numberDecimal": lambda document: decimal(document["$numberDecimal"]),
    "$binary": _binary,
    "$uuid": lambda document: uuid(document["$uuid"]),
    "$timestamp": _timestamp,
    "$regularExpression": _regular_expression,
    "$symbol": _symbol,
    "$undefined": lambda document: None,
    "$minKey": lambda document: MinKey(),
    "$maxKey": lambda document: MaxKey(),
}

_PRINTERS: dict[type, Callable[[Any], Any]] = {
    datetime: lambda value: {"$date": print_date(value)},
    ObjectId: lambda value: {"$oid": str(value)},
    Decimal128: lambda value: {"$numberDecimal": str(value)},
    Binary: lambda value: {"$binary": base64.b64encode(value).decode(), "$type": f"{value.subtype:02x}"},
    bytes: lambda value: {"$binary": base64.b64encode(value).decode(), "$type": "00"},
    Regex: lambda value: {"$regularExpression": {"pattern": value.pattern, "options": regex_options(value)}},
    Timestamp: lambda value: {"$timestamp": {"t": value.time, "i": value.inc}},
    MinKey: lambda value: {"$minKey": 1},
    MaxKey: lambda value: {"$maxKey": 1},
}


def regex_options(value: Regex[str]) -> str:
    """The options of a regular expression as letters."""
    flags = ((re.IGNORECASE, "i"), (re.LOCALE, "l"), (re.MULTILINE, "m"), (re.DOTALL, "s"), (re.UNICODE, "u"))
    letters = [letter for flag, letter in flags if value.flags & flag]
    return "".join([*letters, *("x" if value.flags & re.VERBOSE else "")])


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return f"'{text[:40]}...'" if len(text) > 40 else f"'{text}'"
