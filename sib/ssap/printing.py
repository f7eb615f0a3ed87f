"""Prints stored values for the wire: extended JSON (ONE), and the spacing of the old Java driver (LEGACY).

Both say the same; LEGACY only has other blanks: ``{ "k" : v , "k2" : v2}``, ``[ a , b]``, ``{ }``, ``[ ]``.
Clients compare the empty result with ``[ ]`` literally. Source: captures of the real server in AIoTES/SIL-Bridge-Sofia2
(src/test/resources/observations, Sofia2Client.java:357).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

import orjson
from bson import DatetimeMS, Decimal128, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.errors import InvalidId

_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_NON_STR_KEYS
_REGEX_FLAGS = ((2, "i"), (4, "l"), (8, "m"), (16, "s"), (64, "x"))  # the values of Python's re flags


def print_one(value: Any) -> bytes:
    """The extended JSON of a value, compact: dates ``{"$date":"2014-04-29T08:24:54.005Z"}``, ids ``{"$oid":"..."}``.

    Integers have no point, other numbers are in shortest form; NaN and the infinities are null, for JSON has no such.
    """
    try:
        return orjson.dumps(value, _extended, _OPTIONS)
    except TypeError:  # an integer beyond 64 bits, a lone surrogate, deep nesting: rare, and slower
        return json.dumps(_finite(value), default=_extended, separators=(",", ":")).encode()


def print_legacy(value: Any) -> str:
    """The same as the old Java driver printed it."""
    return respace(print_one(value).decode())


def print_rows_one(documents: Iterable[dict[str, Any]]) -> bytes:
    """The rows of an answer as a JSON array."""
    return print_one(list(documents))


def print_rows_legacy(documents: Iterable[dict[str, Any]]) -> str:
    """The rows of an answer as the old Java driver printed them; no rows are ``[ ]``."""
    return print_legacy(list(documents))


def respace(compact: str) -> str:
    """Gives compact JSON the blanks of the old Java driver. What stands inside strings is left alone."""
    has_escapes = "\\" in compact
    if has_escapes:  # these two characters cannot stand in JSON: they keep escaped quotes from ending a string
        compact = compact.replace("\\\\", "\x00").replace('\\"', "\x01")
    pieces = compact.split('"')
    outside = '"'.join(pieces[::2])
    outside = outside.replace("{", "{ ").replace("[", "[ ").replace(":", " : ").replace(",", " , ")
    pieces[::2] = outside.split('"')
    spaced = '"'.join(pieces)
    if has_escapes:
        spaced = spaced.replace("\x01", '\\"').replace("\x00", "\\\\")
    return spaced


def legacy_id(object_id: ObjectId) -> str:
    """An id as LEGACY clients know it. Not JSON, on purpose."""
    return f'{{"_id":ObjectId("{object_id}")}}'


def one_id(object_id: ObjectId) -> dict[str, dict[str, str]]:
    """An id as ONE clients know it."""
    return {"_id": {"$oid": str(object_id)}}


def parse_id(text: str) -> ObjectId | None:
    """The id in 24 hexadecimal digits, or None."""
    try:
        return ObjectId(text)
    except (InvalidId, TypeError):
        return None


def _extended(value: Any) -> Any:
    """The extended JSON of a value that JSON does not have."""
    if isinstance(value, ObjectId):
        return {"$oid": str(value)}
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            value = value.astimezone(UTC).replace(tzinfo=None)
        return {"$date": value.isoformat(timespec="milliseconds") + "Z"}
    return _seldom(value)


def _seldom(value: Any) -> Any:
    if isinstance(value, date):
        return {"$date": f"{value.isoformat()}T00:00:00.000Z"}
    if isinstance(value, (bytes, bytearray)):  # bson's Binary is one
        return {"$binary": base64.b64encode(value).decode(), "$type": f"{getattr(value, 'subtype', 0):02x}"}
    if isinstance(value, Decimal128):
        return {"$numberDecimal": str(value)}
    if isinstance(value, Regex):
        flags = "".join(letter for flag, letter in _REGEX_FLAGS if value.flags & flag)
        return {"$regex": value.pattern, "$options": flags}
    if isinstance(value, DatetimeMS):
        return {"$date": {"$numberLong": str(int(value))}}
    if isinstance(value, Timestamp):
        return {"$timestamp": {"t": value.time, "i": value.inc}}
    if isinstance(value, MinKey):
        return {"$minKey": 1}
    if isinstance(value, MaxKey):
        return {"$maxKey": 1}
    return str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and value - value != 0:
        return None
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
