"""Packets from bytes and back, in the three versions, and what is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sib.mqtt import codec, wire
from sib.mqtt.codec import MQTT_3_1, MQTT_3_1_1, MQTT_5
from sib.mqtt.errors import MqttProtocolError, Reason
from sib.mqtt.properties import Property

VERSIONS = [MQTT_3_1, MQTT_3_1_1, MQTT_5]
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


def body_of(packet: bytes) -> bytes:
    length, at = wire.decode_varint(packet, 1)
    assert len(packet) == at + length
    return packet[at:]


def connect_body(
    version=MQTT_3_1_1, flags=2, client_id="c", tail=b"", name=None, properties=b"\0", keep_alive_s=60
) -> bytes:
    name = name or ("MQIsdp" if version == MQTT_3_1 else "MQTT")
    middle = properties if version == MQTT_5 else b""
    return (
        wire.encode_string(name)
        + bytes((version, flags))
        + wire.encode_uint16(keep_alive_s)
        + middle
        + wire.encode_string(client_id)
        + tail
    )


@given(st.integers(0, wire.VARINT_MAX))
def test_varint_comes_back(value):
    encoded = wire.encode_varint(value)
    assert wire.decode_varint(encoded, 0) == (value, len(encoded))


@pytest.mark.parametrize("value", [-1, wire.VARINT_MAX + 1])
def test_varint_out_of_range_is_refused(value):
    with pytest.raises(ValueError):
        wire.encode_varint(value)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x80\x80\x80\x01", b"\x80\x00", b"\xff\xff\xff\xff"])
def test_bad_varint_is_malformed(data):
    with pytest.raises(MqttProtocolError) as refused:
        wire.decode_varint(data, 0)
    assert refused.value.reason == Reason.MALFORMED_PACKET


@pytest.mark.parametrize("raw", [b"\xff", b"\xed\xa0\x80", b"a\0b", b"\xc0\x80"])
def test_bad_text_is_malformed(raw):
    with pytest.raises(MqttProtocolError):
        wire.decode_text(raw)


@pytest.mark.parametrize("version", VERSIONS)
def test_connect_with_everything(version):
    will = (b"\0" if version == MQTT_5 else b"") + wire.encode_string("will/topic") + wire.encode_binary(b"gone")
    tail = will + wire.encode_string("ana") + wire.encode_binary(b"secret")
    connect = codec.decode_connect(0, connect_body(version, 0b1111_0110, "device", tail))
    assert (connect.version, connect.client_id, connect.is_clean, connect.keep_alive_s) == (version, "device", True, 60)
    assert (connect.username, connect.password) == ("ana", b"secret")
    assert connect.will == codec.Will("will/topic", b"gone", qos=2, is_retain=True)
    assert "secret" not in repr(connect)


@pytest.mark.parametrize(("tail", "username"), [(b"", None), (wire.encode_string("ana"), "ana")])
def test_connect_of_mqtt_3_1_may_flag_credentials_that_it_lacks(tail, username):
    connect = codec.decode_connect(0, connect_body(MQTT_3_1, 0b1100_0010, tail=tail))
    assert (connect.username, connect.password) == (username, None)
    with pytest.raises(MqttProtocolError):
        codec.decode_connect(0, connect_body(MQTT_3_1_1, 0b1100_0010, tail=tail))


def test_connect_of_mqtt_5_has_its_properties():
    properties = codec.encode_properties(((Property.SESSION_EXPIRY, 30), (Property.RECEIVE_MAX, 5)))
    will_properties = codec.encode_properties(((Property.WILL_DELAY, 7), (Property.CONTENT_TYPE, "text")))
    tail = will_properties + wire.encode_string("t") + wire.encode_binary(b"m")
    connect = codec.decode_connect(0, connect_body(MQTT_5, 0b0000_0110, tail=tail, properties=properties))
    assert connect.session_expiry_s == 30
    assert connect.will.delay_s == 7
    assert connect.will.properties == ((Property.CONTENT_TYPE, "text"),)


@pytest.mark.parametrize(
    ("name", "version"), [("MQTT", 6), ("MQTT", 3), ("MQIsdp", 4), ("MQIsdp", 5), ("MQTT", 0), ("MQTT", 0x84)]
)
def test_unserved_level_is_told_apart(name, version):
    with pytest.raises(codec.UnsupportedVersionError):
        codec.decode_connect(0, connect_body(version, name=name))


@pytest.mark.parametrize(
    "body",
    [
        connect_body(name="hj"),
        connect_body(flags=3),
        connect_body(flags=0b0001_1110, tail=wire.encode_string("t") + wire.encode_binary(b"")),
        connect_body(flags=0b0010_0010),
        connect_body(flags=0b0000_1010),
        connect_body(flags=0b0100_0010, tail=wire.encode_binary(b"p")),
        connect_body(tail=b"x"),
        connect_body()[:-1],
        b"",
        connect_body(MQTT_5, properties=b"\x05\x11\0\0\0"),
    ],
)
def test_wrong_connect_is_malformed(body):
    with pytest.raises(MqttProtocolError) as refused:
        codec.decode_connect(0, body)
    assert refused.value.reason == Reason.MALFORMED_PACKET


@given(
    texts,
    st.binary(max_size=400),
    st.sampled_from([0, 1, 2]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 65_535),
    st.sampled_from(VERSIONS),
)
def test_publish_comes_back(topic, payload, qos, is_retain, is_dup, packet_id, version):
    sent = codec.Publish(topic, payload, qos, is_retain, is_dup, packet_id if qos else 0)
    packet = codec.encode_publish(sent, version)
    assert packet[0] >> 4 == codec.PUBLISH
    assert codec.decode_publish(packet[0] & 15, body_of(packet), version) == sent


@given(st.sampled_from([codec.PUBACK, codec.PUBREC, codec.PUBREL, codec.PUBCOMP]), st.integers(1, 65_535))
def test_acknowledgement_comes_back(kind, packet_id):
    for version, reason in ((MQTT_3_1, 0), (MQTT_3_1_1, 0), (MQTT_5, 0), (MQTT_5, Reason.PACKET_ID_NOT_FOUND)):
        packet = codec.encode_acknowledgement(kind, packet_id, reason, version)
        assert packet[0] >> 4 == kind
        decoded = codec.decode_acknowledgement(kind, packet[0] & 15, body_of(packet), version)
        assert decoded == (packet_id, reason)


def test_reasons_are_not_sent_before_mqtt_5():
    assert codec.encode_acknowledgement(codec.PUBACK, 1, Reason.UNSPECIFIED, MQTT_3_1_1) == b"\x40\x02\x00\x01"


@pytest.mark.parametrize("kind", [codec.SUBSCRIBE, codec.UNSUBSCRIBE, codec.PUBREL])
def test_only_mqtt_3_1_may_set_dup_on_a_request(kind):
    body = b"\0\1" + (b"" if kind == codec.PUBREL else b"\0\1a" + (b"\0" if kind == codec.SUBSCRIBE else b""))
    decoders = {
        codec.SUBSCRIBE: codec.decode_subscribe,
        codec.UNSUBSCRIBE: codec.decode_unsubscribe,
        codec.PUBREL: lambda flags, data, version: codec.decode_acknowledgement(codec.PUBREL, flags, data, version),
    }
    decoders[kind](0b1010, body, MQTT_3_1)
    with pytest.raises(MqttProtocolError):
        decoders[kind](0b1010, body, MQTT_3_1_1)


def test_subscribe_with_options():
    body = b"\0\7" + codec.encode_properties(((Property.SUBSCRIPTION_ID, 9),)) + wire.encode_string("a/#") + b"\x2e"
    request = codec.decode_subscribe(2, body, MQTT_5)
    assert (request.packet_id, request.subscription_id) == (7, 9)
    assert request.filters == [codec.FilterRequest("a/#", 2, True, True, 2)]


@pytest.mark.parametrize(
    ("body", "version"),
    [
        (b"\0\0\0\1a\0", MQTT_3_1_1),
        (b"\0\1", MQTT_3_1_1),
        (b"\0\1\0\1a", MQTT_3_1_1),
        (b"\0\1\0\1a\3", MQTT_3_1_1),
        (b"\0\1\0\1a\x04", MQTT_3_1_1),
        (b"\0\1\0\0\1a\x30", MQTT_5),
        (b"\0\1\0\0\1a\x40", MQTT_5),
        (b"\0\1\2\x0b\0\0\1a\0", MQTT_5),
        (b"\0\1\0" + wire.encode_string("$share/g/a") + b"\x04", MQTT_5),
    ],
)
def test_wrong_subscribe_is_refused(body, version):
    with pytest.raises(MqttProtocolError):
        codec.decode_subscribe(2, body, version)


def test_connack_says_session_present_from_3_1_1_on():
    assert codec.encode_connack(MQTT_3_1, 0, is_session_present=True) == b"\x20\x02\0\0"
    assert codec.encode_connack(MQTT_3_1_1, 0, is_session_present=True) == b"\x20\x02\1\0"
    assert codec.encode_connack(MQTT_5, 0, is_session_present=True) == b"\x20\x03\1\0\0"


@given(st.integers(1, 15), st.integers(0, 15), st.binary(max_size=80), st.sampled_from(VERSIONS))
def test_any_bytes_raise_nothing_but_protocol_errors(kind, flags, body, version):
    decoders = {
        codec.CONNECT: lambda: codec.decode_connect(flags, body),
        codec.PUBLISH: lambda: codec.decode_publish(flags, body, version),
        codec.SUBSCRIBE: lambda: codec.decode_subscribe(flags, body, version),
        codec.UNSUBSCRIBE: lambda: codec.decode_unsubscribe(flags, body, version),
        codec.DISCONNECT: lambda: codec.decode_disconnect(flags, body, version),
    }
    decode = decoders.get(kind, lambda: codec.decode_acknowledgement(codec.PUBREL, flags, body, version))
    with suppress(MqttProtocolError):
        decode()


def test_the_error_carries_its_reason_through_args():
    error = MqttProtocolError("no", Reason.PACKET_TOO_LARGE)
    assert type(error)(*error.args).reason == Reason.PACKET_TOO_LARGE
    assert error.message == "no"
