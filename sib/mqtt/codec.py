"""Packets of MQTT 3.1, 3.1.1 and 5, bodies to objects and objects to bytes. Sans-io: framing is the connection's.

Decoders get the body of one complete packet (what follows the fixed header) and the low four bits of its first byte.
They raise nothing but ``MqttProtocolError``. Only what a server receives is decoded and what it sends is encoded;
PUBLISH and the acknowledgements go both ways.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sib.mqtt import wire
from sib.mqtt.errors import MqttProtocolError, Reason, malformed
from sib.mqtt.properties import (
    NO_PROPERTIES,
    WILL,
    Properties,
    Property,
    decode_properties,
    encode_properties,
    number_in,
    without,
)

MQTT_3_1, MQTT_3_1_1, MQTT_5 = 3, 4, 5
(
    CONNECT,
    CONNACK,
    PUBLISH,
    PUBACK,
    PUBREC,
    PUBREL,
    PUBCOMP,
    SUBSCRIBE,
    SUBACK,
    UNSUBSCRIBE,
    UNSUBACK,
    PINGREQ,
    PINGRESP,
    DISCONNECT,
    AUTH,
) = range(1, 16)

PINGRESP_PACKET = b"\xd0\x00"
SESSION_EXPIRY_NEVER = 0xFFFF_FFFF
RECEIVE_MAX_DEFAULT = 65_535
_PROTOCOLS = {("MQIsdp", MQTT_3_1), ("MQTT", MQTT_3_1_1), ("MQTT", MQTT_5)}


class UnsupportedVersionError(MqttProtocolError):
    """A CONNECT of a protocol level that is not served: answered with a CONNACK, then closed."""

    code = "mqtt.version"


@dataclass(slots=True)
class Will:
    """The message that is published when its connection ends without a DISCONNECT."""

    topic: str
    payload: bytes
    qos: int
    is_retain: bool
    properties: Properties = NO_PROPERTIES
    delay_s: int = 0


@dataclass(slots=True)
class Connect:
    """A CONNECT. ``client_id`` may be empty; ``repr`` shows no password."""

    version: int
    client_id: str
    is_clean: bool
    keep_alive_s: int
    will: Will | None = None
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)
    properties: Properties = NO_PROPERTIES

    @property
    def session_expiry_s(self) -> int:
        """Seconds that the session outlives its connection, as MQTT 5 asks for; 0 where it does not say."""
        return number_in(self.properties, Property.SESSION_EXPIRY) or 0


@dataclass(slots=True)
class Publish:
    """A PUBLISH. ``packet_id`` is 0 at QoS 0."""

    topic: str
    payload: bytes
    qos: int = 0
    is_retain: bool = False
    is_dup: bool = False
    packet_id: int = 0
    properties: Properties = NO_PROPERTIES


@dataclass(slots=True, frozen=True)
class FilterRequest:
    """One line of a SUBSCRIBE. ``retain_handling`` is 0 (send), 1 (only when new) or 2 (never)."""

    filter: str
    qos: int
    is_no_local: bool = False
    is_retain_as_published: bool = False
    retain_handling: int = 0


@dataclass(slots=True)
class Subscribe:
    """A SUBSCRIBE with at least one filter. ``subscription_id`` is 0 where none is given."""

    packet_id: int
    filters: list[FilterRequest]
    subscription_id: int = 0


@dataclass(slots=True)
class Unsubscribe:
    """An UNSUBSCRIBE with at least one filter."""

    packet_id: int
    filters: list[str]


@dataclass(slots=True)
class Disconnect:
    """A DISCONNECT; before MQTT 5 always the reason 0."""

    reason: int = 0
    properties: Properties = NO_PROPERTIES


def decode_connect(flags: int, body: bytes) -> Connect:
    """Read a CONNECT of any version.

    Raises:
        UnsupportedVersionError: The protocol's name is known, its level is not.
        MqttProtocolError: Anything else that is wrong.
    """
    if flags:
        raise malformed("CONNECT with reserved flags")
    name, at = wire.decode_string(body, 0)
    version, at = wire.decode_byte(body, at)
    if (name, version) not in _PROTOCOLS:
        if name in ("MQTT", "MQIsdp"):
            raise UnsupportedVersionError(f"protocol {name} level {version} is not served", Reason.UNSUPPORTED_VERSION)
        raise malformed("the first packet is not a CONNECT of MQTT")
    connect_flags, at = wire.decode_byte(body, at)
    keep_alive_s, at = wire.decode_uint16(body, at)
    if connect_flags & 1:
        raise malformed("CONNECT with reserved flags")
    properties = NO_PROPERTIES
    if version == MQTT_5:
        properties, at = decode_properties(body, at, CONNECT)
    client_id, at = wire.decode_string(body, at)
    will, at = _decode_will(connect_flags, body, at, version)
    username = password = None
    # MQTT 3.1, section 3.1: the length of the packet counts for more than the flags, since V3 had no such fields.
    may_lack = version == MQTT_3_1
    if connect_flags & 0x80 and not (may_lack and at == len(body)):
        username, at = wire.decode_string(body, at)
    if connect_flags & 0x40 and not (may_lack and at == len(body)):
        if username is None and version != MQTT_5:
            raise malformed("CONNECT with a password and without a user name")
        password, at = wire.decode_binary(body, at)
    _expect_end(body, at)
    return Connect(version, client_id, bool(connect_flags & 2), keep_alive_s, will, username, password, properties)


def _decode_will(connect_flags: int, body: bytes, at: int, version: int) -> tuple[Will | None, int]:
    qos = connect_flags >> 3 & 3
    if not connect_flags & 4:
        if connect_flags & 0x38 and version != MQTT_3_1:
            raise malformed("CONNECT with will flags and without a will")
        return None, at
    if qos == 3:
        raise malformed("a will of QoS 3")
    properties = NO_PROPERTIES
    if version == MQTT_5:
        properties, at = decode_properties(body, at, WILL)
    topic, at = wire.decode_string(body, at)
    payload, at = wire.decode_binary(body, at)
    delay_s = number_in(properties, Property.WILL_DELAY) or 0
    properties = without(properties, Property.WILL_DELAY)
    return Will(topic, payload, qos, bool(connect_flags & 0x20), properties, delay_s), at


def decode_publish(flags: int, body: bytes, version: int) -> Publish:
    """Read a PUBLISH. Whether the topic's name is a good one is not checked here: a KP publishes to the empty one."""
    qos = flags >> 1 & 3
    if qos == 3:
        raise malformed("a PUBLISH of QoS 3")
    topic, at = wire.decode_string(body, 0)
    packet_id = 0
    if qos:
        packet_id, at = _decode_packet_id(body, at)
    properties = NO_PROPERTIES
    if version == MQTT_5:
        properties, at = decode_properties(body, at, PUBLISH)
    return Publish(topic, body[at:], qos, bool(flags & 1), bool(flags & 8), packet_id, properties)


def decode_acknowledgement(kind: int, flags: int, body: bytes, version: int) -> tuple[int, int]:
    """Packet id and reason of a PUBACK, PUBREC, PUBREL or PUBCOMP.

    MQTT 3.1 may set DUP on a PUBREL that is sent again.
    """
    expected = 2 if kind == PUBREL else 0
    if flags != expected and not (version == MQTT_3_1 and flags & ~8 == expected):
        raise malformed("an acknowledgement with reserved flags")
    packet_id, at = wire.decode_uint16(body, 0)
    if version != MQTT_5 or at == len(body):
        _expect_end(body, at)
        return packet_id, 0
    reason, at = wire.decode_byte(body, at)
    if at < len(body):
        _, at = decode_properties(body, at, kind)
        _expect_end(body, at)
    return packet_id, reason


def decode_subscribe(flags: int, body: bytes, version: int) -> Subscribe:
    """Read a SUBSCRIBE; whether its filters are good ones is answered one by one, by ``topics``."""
    _check_request_flags(flags, version)
    packet_id, at = _decode_packet_id(body, 0)
    subscription_id = 0
    if version == MQTT_5:
        properties, at = decode_properties(body, at, SUBSCRIBE)
        subscription_id = number_in(properties, Property.SUBSCRIPTION_ID) or 0
    filters: list[FilterRequest] = []
    while at < len(body):
        pattern, at = wire.decode_string(body, at)
        options, at = wire.decode_byte(body, at)
        filters.append(_filter_request(pattern, options, version))
    if not filters:
        raise MqttProtocolError("a SUBSCRIBE without a filter")
    return Subscribe(packet_id, filters, subscription_id)


def _filter_request(pattern: str, options: int, version: int) -> FilterRequest:
    qos = options & 3
    if version == MQTT_5:
        retain_handling = options >> 4 & 3
        if qos == 3 or retain_handling == 3 or options & 0xC0:
            raise malformed("a SUBSCRIBE with bad options")
        if options & 4 and pattern.startswith("$share/"):
            raise MqttProtocolError("no-local on a shared subscription")
        return FilterRequest(pattern, qos, bool(options & 4), bool(options & 8), retain_handling)
    if qos == 3 or (options & 0xFC and version != MQTT_3_1):
        raise malformed("a SUBSCRIBE with bad options")
    return FilterRequest(pattern, qos)


def decode_unsubscribe(flags: int, body: bytes, version: int) -> Unsubscribe:
    """Read an UNSUBSCRIBE."""
    _check_request_flags(flags, version)
    packet_id, at = _decode_packet_id(body, 0)
    if version == MQTT_5:
        _, at = decode_properties(body, at, UNSUBSCRIBE)
    filters: list[str] = []
    while at < len(body):
        pattern, at = wire.decode_string(body, at)
        filters.append(pattern)
    if not filters:
        raise MqttProtocolError("an UNSUBSCRIBE without a filter")
    return Unsubscribe(packet_id, filters)


def decode_disconnect(flags: int, body: bytes, version: int) -> Disconnect:
    """Read a DISCONNECT."""
    if flags:
        raise malformed("DISCONNECT with reserved flags")
    if version != MQTT_5 or not body:
        _expect_end(body, 0)
        return Disconnect()
    reason, at = wire.decode_byte(body, 0)
    properties = NO_PROPERTIES
    if at < len(body):
        properties, at = decode_properties(body, at, DISCONNECT)
        _expect_end(body, at)
    return Disconnect(reason, properties)


def _decode_packet_id(body: bytes, at: int) -> tuple[int, int]:
    packet_id, at = wire.decode_uint16(body, at)
    if not packet_id:
        raise MqttProtocolError("a packet id of 0")
    return packet_id, at


def _check_request_flags(flags: int, version: int) -> None:
    # MQTT 3.1 sets DUP on a SUBSCRIBE or UNSUBSCRIBE that is sent again.
    if flags != 2 and not (version == MQTT_3_1 and flags & ~8 == 2):
        raise malformed("a request with reserved flags")


def _expect_end(body: bytes, at: int) -> None:
    if at != len(body):
        raise malformed("the packet is longer than its fields")


def encode_packet(kind: int, flags: int, *parts: bytes) -> bytes:
    """A packet from its body's parts, with the fixed header in front."""
    body = b"".join(parts)
    return bytes((kind << 4 | flags,)) + wire.encode_varint(len(body)) + body


def encode_connack(
    version: int, reason: int, *, is_session_present: bool = False, properties: Properties = NO_PROPERTIES
) -> bytes:
    """A CONNACK; ``reason`` is a return code of 3.1.1 below MQTT 5. MQTT 3.1 knows no session present flag."""
    present = is_session_present and version != MQTT_3_1
    head = bytes((int(present), reason))
    return encode_packet(CONNACK, 0, head, encode_properties(properties) if version == MQTT_5 else b"")


def encode_publish(message: Publish, version: int) -> bytes:
    """A whole PUBLISH."""
    flags = message.is_dup << 3 | message.qos << 1 | message.is_retain
    return encode_packet(
        PUBLISH,
        flags,
        wire.encode_string(message.topic),
        wire.encode_uint16(message.packet_id) if message.qos else b"",
        encode_properties(message.properties) if version == MQTT_5 else b"",
        message.payload,
    )


def encode_acknowledgement(kind: int, packet_id: int, reason: int, version: int) -> bytes:
    """A PUBACK, PUBREC, PUBREL or PUBCOMP; a reason is sent only in MQTT 5 and only when it is not success."""
    first = kind << 4 | (2 if kind == PUBREL else 0)
    if reason and version == MQTT_5:
        return bytes((first, 3, packet_id >> 8, packet_id & 0xFF, reason))
    return bytes((first, 2, packet_id >> 8, packet_id & 0xFF))


def encode_suback(packet_id: int, reasons: bytes, version: int) -> bytes:
    """A SUBACK with one granted QoS or refusal per filter."""
    return encode_packet(SUBACK, 0, wire.encode_uint16(packet_id), b"\0" if version == MQTT_5 else b"", reasons)


def encode_unsuback(packet_id: int, reasons: bytes, version: int) -> bytes:
    """An UNSUBACK; before MQTT 5 it carries no reasons."""
    return encode_packet(UNSUBACK, 0, wire.encode_uint16(packet_id), b"\0" + reasons if version == MQTT_5 else b"")


def encode_disconnect(reason: int, properties: Properties = NO_PROPERTIES) -> bytes:
    """A DISCONNECT of a server: MQTT 5 only."""
    if not properties:
        return bytes((DISCONNECT << 4, 1, reason))
    return encode_packet(DISCONNECT, 0, bytes((reason,)), encode_properties(properties))
