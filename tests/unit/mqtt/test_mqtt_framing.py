"""Remaining lengths, and what is kept of a PUBLISH that is thrown away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sib.mqtt import wire
from sib.mqtt.errors import MqttProtocolError
from sib.mqtt.framing import HEAD_BYTES, OversizedPublish, decode_length


@given(st.integers(0, wire.VARINT_MAX))
def test_length_comes_back_and_is_incomplete_before(length):
    data = b"\x30" + wire.encode_varint(length)
    assert decode_length(data, 1) == (length, len(data))
    for end in range(1, len(data)):
        assert decode_length(data[:end], 1) == (-1, 0)


def test_a_length_of_five_bytes_is_malformed():
    with pytest.raises(MqttProtocolError):
        decode_length(b"\x30\x80\x80\x80\x80\x01", 1)


@given(st.binary(max_size=70), st.integers(0, 2000), st.lists(st.integers(1, 900), max_size=30))
def test_topic_and_packet_id_are_kept_however_it_is_cut(topic, size, cuts):
    body = wire.encode_binary(topic) + b"\x12\x34" + b"x" * size
    packet = OversizedPublish(0b0010, len(body))
    stream, at = body + b"\xc0\x00", 0
    for cut in [*cuts, len(stream)]:
        if packet.is_complete:
            break
        piece = stream[at : at + cut]
        at += packet.feed(piece, 0)
    assert packet.is_complete
    assert at == len(body)
    assert (packet.topic(), packet.packet_id(), packet.qos) == (topic, b"\x12\x34", 1)
    assert packet.head(has_properties=False) == b"x" * min(size, HEAD_BYTES - 2)
    assert len(packet._kept) <= 2 + len(topic) + HEAD_BYTES


@pytest.mark.parametrize(
    ("properties", "head"), [(b"\0", b"xxx"), (b"\3abc", b"xxx"), (b"\x80\x10" + b"p" * 2048, b""), (b"", b"")]
)
def test_the_head_of_an_mqtt_5_payload_begins_behind_its_properties(properties, head):
    body = b"\0\1t" + properties + (b"xxx" if properties else b"")
    packet = OversizedPublish(0, len(body))
    packet.feed(body, 0)
    assert packet.head(has_properties=True) == head


@pytest.mark.parametrize("body", [b"\0", b"\0\5abc", b"\0\1a\0"])
def test_too_short_for_its_fields_is_malformed(body):
    packet = OversizedPublish(0b0010, len(body))
    packet.feed(body, 0)
    with pytest.raises(MqttProtocolError):
        packet.packet_id()
