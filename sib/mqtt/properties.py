"""Properties of MQTT 5: a sequence of (identifier, value), each allowed in some packets only.

They stay a tuple of pairs, in the order in which they came: user properties may repeat and keep their order when a
message is passed on. Source: MQTT 5, section 2.2.2 and table 2-4.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import Any, TypeAlias

from sib.mqtt import wire
from sib.mqtt.errors import MqttProtocolError, malformed

PropertyValue: TypeAlias = int | str | bytes | tuple[str, str]
Properties: TypeAlias = tuple[tuple[int, PropertyValue], ...]

NO_PROPERTIES: Properties = ()
WILL = 0
"""Packet kind under which the properties of a will are checked; the others are the packet's own kind."""


class Property(IntEnum):
    """Identifiers of properties."""

    PAYLOAD_FORMAT = 1
    MESSAGE_EXPIRY = 2
    CONTENT_TYPE = 3
    RESPONSE_TOPIC = 8
    CORRELATION_DATA = 9
    SUBSCRIPTION_ID = 11
    SESSION_EXPIRY = 17
    ASSIGNED_CLIENT_ID = 18
    SERVER_KEEP_ALIVE = 19
    AUTHENTICATION_METHOD = 21
    AUTHENTICATION_DATA = 22
    REQUEST_PROBLEM_INFORMATION = 23
    WILL_DELAY = 24
    REQUEST_RESPONSE_INFORMATION = 25
    RESPONSE_INFORMATION = 26
    SERVER_REFERENCE = 28
    REASON_STRING = 31
    RECEIVE_MAX = 33
    TOPIC_ALIAS_MAX = 34
    TOPIC_ALIAS = 35
    QOS_MAX = 36
    RETAIN_AVAILABLE = 37
    USER = 38
    PACKET_BYTES_MAX = 39
    WILDCARDS_AVAILABLE = 40
    SUBSCRIPTION_IDS_AVAILABLE = 41
    SHARED_SUBSCRIPTIONS_AVAILABLE = 42


_BYTE, _UINT16, _UINT32, _VARINT, _STRING, _BINARY, _PAIR = range(7)
_CONNECT, _CONNACK, _PUBLISH, _SUBSCRIBE, _DISCONNECT, _AUTH = 1, 2, 3, 8, 14, 15
_ALL_BUT_CONNECT_AND_REQUESTS = frozenset({2, 4, 5, 6, 7, 9, 11, 14, 15})

_TABLE: dict[int, tuple[int, frozenset[int]]] = {
    1: (_BYTE, frozenset({_PUBLISH, WILL})),
    2: (_UINT32, frozenset({_PUBLISH, WILL})),
    3: (_STRING, frozenset({_PUBLISH, WILL})),
    8: (_STRING, frozenset({_PUBLISH, WILL})),
    9: (_BINARY, frozenset({_PUBLISH, WILL})),
    11: (_VARINT, frozenset({_PUBLISH, _SUBSCRIBE})),
    17: (_UINT32, frozenset({_CONNECT, _CONNACK, _DISCONNECT})),
    18: (_STRING, frozenset({_CONNACK})),
    19: (_UINT16, frozenset({_CONNACK})),
    21: (_STRING, frozenset({_CONNECT, _CONNACK, _AUTH})),
    22: (_BINARY, frozenset({_CONNECT, _CONNACK, _AUTH})),
    23: (_BYTE, frozenset({_CONNECT})),
    24: (_UINT32, frozenset({WILL})),
    25: (_BYTE, frozenset({_CONNECT})),
    26: (_STRING, frozenset({_CONNACK})),
    28: (_STRING, frozenset({_CONNACK, _DISCONNECT})),
    31: (_STRING, _ALL_BUT_CONNECT_AND_REQUESTS),
    33: (_UINT16, frozenset({_CONNECT, _CONNACK})),
    34: (_UINT16, frozenset({_CONNECT, _CONNACK})),
    35: (_UINT16, frozenset({_PUBLISH})),
    36: (_BYTE, frozenset({_CONNACK})),
    37: (_BYTE, frozenset({_CONNACK})),
    38: (_PAIR, frozenset(range(16)) - {12, 13}),
    39: (_UINT32, frozenset({_CONNECT, _CONNACK})),
    40: (_BYTE, frozenset({_CONNACK})),
    41: (_BYTE, frozenset({_CONNACK})),
    42: (_BYTE, frozenset({_CONNACK})),
}
_NEVER_ZERO = frozenset(
    {Property.SUBSCRIPTION_ID, Property.RECEIVE_MAX, Property.PACKET_BYTES_MAX, Property.TOPIC_ALIAS}
)


def decode_properties(data: bytes, at: int, packet: int) -> tuple[Properties, int]:
    """Read the property section at ``at`` of a packet of kind ``packet`` (1 to 15, or ``WILL``).

    Raises:
        MqttProtocolError: Malformed, unknown, repeated, not allowed in this packet, or out of range.
    """
    size, at = wire.decode_varint(data, at)
    if not size:
        return NO_PROPERTIES, at
    end = at + size
    if end > len(data):
        raise malformed("the properties are longer than their packet")
    return _decode_section(data[at:end], packet), end


def _decode_section(section: bytes, packet: int) -> Properties:
    found: list[tuple[int, PropertyValue]] = []
    seen: set[int] = set()
    at = 0
    while at < len(section):
        identifier, at = wire.decode_varint(section, at)
        kind, packets = _TABLE.get(identifier, (None, frozenset()))
        if kind is None or packet not in packets:
            raise malformed(f"property {identifier} is not allowed in this packet")
        if identifier in seen and not (
            identifier == Property.USER or (identifier == Property.SUBSCRIPTION_ID and packet == _PUBLISH)
        ):
            raise MqttProtocolError(f"property {identifier} is given twice")
        seen.add(identifier)
        value, at = _decode_value(section, at, kind)
        if (kind == _BYTE and value not in (0, 1)) or (value == 0 and identifier in _NEVER_ZERO):
            raise MqttProtocolError(f"property {identifier} is out of range")
        found.append((identifier, value))
    return tuple(found)


def _decode_value(data: bytes, at: int, kind: int) -> tuple[PropertyValue, int]:
    if kind == _PAIR:
        name, at = wire.decode_string(data, at)
        value, at = wire.decode_string(data, at)
        return (name, value), at
    return _READERS[kind](data, at)


_READERS: dict[int, Callable[[bytes, int], tuple[PropertyValue, int]]] = {
    _BYTE: wire.decode_byte,
    _UINT16: wire.decode_uint16,
    _UINT32: wire.decode_uint32,
    _VARINT: wire.decode_varint,
    _STRING: wire.decode_string,
    _BINARY: wire.decode_binary,
}


def encode_properties(properties: Iterable[tuple[int, PropertyValue]]) -> bytes:
    """The property section with its length in front; a single zero byte when there is none."""
    section = bytearray()
    for identifier, value in properties:
        section.append(identifier)
        section += _encode_value(_TABLE[identifier][0], value)
    return wire.encode_varint(len(section)) + section


def _encode_value(kind: int, value: PropertyValue) -> bytes:
    if isinstance(value, tuple):
        return wire.encode_string(value[0]) + wire.encode_string(value[1])
    if isinstance(value, str):
        return wire.encode_string(value)
    if isinstance(value, bytes):
        return wire.encode_binary(value)
    if kind == _BYTE:
        return bytes((value,))
    if kind == _UINT16:
        return wire.encode_uint16(value)
    if kind == _UINT32:
        return wire.encode_uint32(value)
    return wire.encode_varint(value)


def number_in(properties: Properties, identifier: int) -> int | None:
    """The value of an integer property, None where it is not given."""
    for found, value in properties:
        if found == identifier and isinstance(value, int):
            return value
    return None


def without(properties: Properties, *identifiers: int) -> Properties:
    """The properties but those named."""
    return tuple(pair for pair in properties if pair[0] not in identifiers)


def to_json(properties: Properties) -> list[list[Any]]:
    """Properties as plain JSON; binary values as ``{"base64": ...}``."""
    return [
        [identifier, {"base64": b64encode(value).decode()} if isinstance(value, bytes) else value]
        for identifier, value in properties
    ]


def from_json(stored: Iterable[Sequence[Any]]) -> Properties:
    """The inverse of ``to_json``, also after a round through JSON text."""
    return tuple((identifier, _value_from_json(value)) for identifier, value in stored)


def _value_from_json(value: Any) -> PropertyValue:
    if isinstance(value, dict):
        return b64decode(value["base64"])
    if isinstance(value, list):
        return (str(value[0]), str(value[1]))
    return value  # type: ignore[no-any-return]
