"""The data types that all MQTT packets are made of: variable byte integers, strings, binary data.

Readers take the packet's body and a position and give the value and the position after it. Whatever the bytes are,
they raise nothing but ``MqttProtocolError``. Source: MQTT 5, section 1.5.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from sib.mqtt.errors import malformed

VARINT_MAX = 268_435_455
STRING_BYTES_MAX = 65_535

_uint16 = struct.Struct("!H")
_uint32 = struct.Struct("!I")
encode_uint16 = _uint16.pack
encode_uint32 = _uint32.pack


@lru_cache(maxsize=4096)
def encode_varint(value: int) -> bytes:
    """The shortest form of 0 to ``VARINT_MAX``, one to four bytes."""
    if not 0 <= value <= VARINT_MAX:
        raise ValueError(f"{value} does not fit a variable byte integer")
    encoded = bytearray()
    while True:
        value, digit = value >> 7, value & 0x7F
        encoded.append(digit | 0x80 if value else digit)
        if not value:
            return bytes(encoded)


def decode_varint(data: bytes, at: int) -> tuple[int, int]:
    """One to four bytes; a longer form than needed is an error, as MQTT 5 wants it."""
    value = 0
    for count in range(4):
        if at >= len(data):
            raise malformed("a variable byte integer is cut off")
        digit = data[at]
        at += 1
        value |= (digit & 0x7F) << 7 * count
        if digit < 0x80:
            if count and not digit:
                raise malformed("a variable byte integer is longer than it has to be")
            return value, at
    raise malformed("a variable byte integer has more than four bytes")


def decode_byte(data: bytes, at: int) -> tuple[int, int]:
    """One byte."""
    if at >= len(data):
        raise malformed("the packet ends before its fields do")
    return data[at], at + 1


def decode_uint16(data: bytes, at: int) -> tuple[int, int]:
    """Two bytes, big-endian."""
    if at + 2 > len(data):
        raise malformed("the packet ends before its fields do")
    return data[at] << 8 | data[at + 1], at + 2


def decode_uint32(data: bytes, at: int) -> tuple[int, int]:
    """Four bytes, big-endian."""
    if at + 4 > len(data):
        raise malformed("the packet ends before its fields do")
    return int.from_bytes(data[at : at + 4], "big"), at + 4


def decode_binary(data: bytes, at: int) -> tuple[bytes, int]:
    """Binary data with its two-byte length in front."""
    size, at = decode_uint16(data, at)
    end = at + size
    if end > len(data):
        raise malformed("a string is longer than its packet")
    return data[at:end], end


def decode_string(data: bytes, at: int) -> tuple[str, int]:
    """A UTF-8 string with its two-byte length in front."""
    raw, at = decode_binary(data, at)
    return decode_text(raw), at


def decode_text(raw: bytes) -> str:
    """UTF-8 without U+0000 and without surrogates."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise malformed("a string is not UTF-8") from None
    if "\0" in text:
        raise malformed("a string holds U+0000")
    return text


def encode_binary(value: bytes) -> bytes:
    """Binary data with its length in front. At most ``STRING_BYTES_MAX`` bytes."""
    if len(value) > STRING_BYTES_MAX:
        raise ValueError("a string has more than 65,535 bytes")
    return encode_uint16(len(value)) + value


def encode_string(value: str) -> bytes:
    """A UTF-8 string with its length in front. At most ``STRING_BYTES_MAX`` bytes."""
    return encode_binary(value.encode())
