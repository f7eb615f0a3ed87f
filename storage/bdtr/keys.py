"""Index keys: bytes that sort as BSON values compare, in any database that can compare bytes.

A key starts with a tag byte in the order of the BSON types, so a range over one type is a range of bytes
("type bracketing"). Keys are bounded: what is longer, or is no exact double, gives a key that is *inexact*: it still
never sorts the wrong way round, but different values may share it. A look-up by key therefore finds a superset, and
the exact matcher decides.

Source: https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
from bson.datetime_ms import DatetimeMS
from bson.decimal128 import Decimal128
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp

KEY_BYTES_MAX = 250
"""Longer keys are cut (inexact). Small enough for a composite primary key in every database."""

TAG_MIN, TAG_NULL, TAG_NUMBER, TAG_STRING, TAG_OBJECT, TAG_ARRAY = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
TAG_BINARY, TAG_OBJECT_ID, TAG_BOOL, TAG_DATE, TAG_TIMESTAMP, TAG_REGEX, TAG_OTHER, TAG_MAX = range(0x07, 0x0F)

NULL_KEY = bytes([TAG_NULL])
ANY_KEY = b"\x00"
"""Stands for "has too many keys to list": its document is a candidate for everything."""

_EPOCH = datetime(1970, 1, 1)
_MILLISECOND = timedelta(milliseconds=1)
_EXACT_INTEGER = float(2**53)
_pack_double, _pack_u64, _unpack_u64 = struct.Struct(">d").pack, struct.Struct(">Q").pack, struct.Struct(">Q").unpack
_pack_u16, _pack_u32 = struct.Struct(">H").pack, struct.Struct(">I").pack
_NAN = bytes([TAG_NUMBER]) + b"\0" * 8


def milliseconds(moment: datetime) -> int:
    """Milliseconds since 1970 of a naive UTC or an aware datetime."""
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return (moment - _EPOCH) // _MILLISECOND


def _double_bytes(value: float) -> bytes:
    (bits,) = _unpack_u64(_pack_double(value or 0.0))  # -0.0 and 0.0 are one key
    return _pack_u64(bits ^ 0xFFFFFFFFFFFFFFFF if bits >> 63 else bits | 0x8000000000000000)


def number_key(value: int | float) -> bytes:
    """The key of a number; integers that no double holds are told apart by two more bytes."""
    try:
        double = float(value)
    except OverflowError:
        double = float("inf") if value > 0 else float("-inf")
    if double != double:
        return _NAN
    key = b"\x03" + _double_bytes(double)
    if -_EXACT_INTEGER < double < _EXACT_INTEGER:
        return key
    rest = 0 if isinstance(value, float) or double in (float("inf"), float("-inf")) else value - int(double)
    return key + _pack_u16(0x8000 + max(-0x7FFF, min(0x7FFF, rest)))


def _decimal_key(value: Decimal128) -> tuple[bytes, bool]:
    decimal = value.to_decimal()
    if decimal.is_nan():
        return _NAN, True
    double = float(decimal)
    if decimal == decimal.to_integral_value() and abs(decimal) < 2**63:
        return number_key(int(decimal)), True
    return number_key(double), decimal.is_infinite() or decimal == decimal.from_float(double)


class _Encoder:
    """Encodes values that stand inside others, where each must say itself where it ends."""

    def __init__(self) -> None:
        self.is_exact = True

    def text(self, text: str) -> bytes:
        return text.encode("utf-8", "surrogatepass").replace(b"\0", b"\0\xff") + b"\0\0"

    def nested(self, value: Any) -> bytes:
        if isinstance(value, str):
            return b"\x04" + self.text(value)
        if isinstance(value, dict):
            parts = [bytes([TAG_OBJECT])]
            for name, member in value.items():
                encoded = self.nested(member)
                parts += (encoded[:1], self.text(name), encoded)
            parts.append(b"\0")
            return b"".join(parts)
        if isinstance(value, (list, tuple)):
            return b"".join((bytes([TAG_ARRAY]), *map(self.nested, value), b"\0"))
        return self.scalar(value)

    def scalar(self, value: Any) -> bytes:
        """Values of a length that their first bytes tell."""
        if value is None:
            return NULL_KEY
        if isinstance(value, bool):
            return b"\x09\x01" if value else b"\x09\x00"
        if isinstance(value, (int, float)):
            return number_key(value)
        if isinstance(value, datetime):
            return date_key(milliseconds(value))
        if isinstance(value, ObjectId):
            return b"\x08" + bytes(value.binary)
        if isinstance(value, Decimal128):
            key, is_exact = _decimal_key(value)
            self.is_exact = self.is_exact and is_exact
            return key
        if isinstance(value, bytes):
            return b"\x07" + _pack_u32(len(value)) + bytes([getattr(value, "subtype", 0)]) + bytes(value)
        if isinstance(value, DatetimeMS):
            return date_key(int(value))
        if isinstance(value, (Regex, re.Pattern)):
            self.is_exact = False
            return bytes([TAG_REGEX]) + self.text(str(value.pattern)) + self.text(str(int(value.flags) & ~re.UNICODE))
        if isinstance(value, Timestamp):
            return bytes([TAG_TIMESTAMP]) + _pack_u32(value.time) + _pack_u32(value.inc)
        if isinstance(value, MinKey):
            return bytes([TAG_MIN])
        if isinstance(value, MaxKey):
            return bytes([TAG_MAX])
        encoded: bytes = bson.encode({"": value})
        self.is_exact = False
        return bytes([TAG_OTHER]) + encoded


def date_key(time_ms: int) -> bytes:
    """The key of a date, from milliseconds since 1970."""
    return b"\x0a" + _pack_u64(max(0, min(time_ms + 2**63, 2**64 - 1)))


def key_of(value: Any) -> tuple[bytes, bool]:
    """The key of one value and whether it is exact."""
    if isinstance(value, str):
        key = b"\x04" + value.encode("utf-8", "surrogatepass")
        return (key, True) if len(key) <= KEY_BYTES_MAX else (key[:KEY_BYTES_MAX], False)
    encoder = _Encoder()
    key = encoder.nested(value)
    return (key, encoder.is_exact) if len(key) <= KEY_BYTES_MAX else (key[:KEY_BYTES_MAX], False)


def compound_key(values: Iterable[tuple[Any, int | str]]) -> tuple[bytes, bool]:
    """The key of several values, each with its direction: descending ones are turned over bit by bit."""
    encoder = _Encoder()
    key = b"".join(
        _turned(encoder.nested(value)) if direction == -1 else encoder.nested(value) for value, direction in values
    )
    return (key, encoder.is_exact) if len(key) <= KEY_BYTES_MAX else (key[:KEY_BYTES_MAX], False)


def nested_key(value: Any, direction: int | str) -> bytes:
    """One value as a compound key contains it, uncut."""
    encoded = _Encoder().nested(value)
    return _turned(encoded) if direction == -1 else encoded


def _turned(key: bytes) -> bytes:
    return key.translate(_TURN)


_TURN = bytes(255 - byte for byte in range(256))


def type_range(tag: int) -> tuple[bytes, bytes]:
    """The keys of one type lie in [low, high)."""
    return bytes([tag]), bytes([tag + 1])
