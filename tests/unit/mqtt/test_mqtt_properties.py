"""Properties of MQTT 5."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sib.mqtt import codec
from sib.mqtt.errors import MqttProtocolError
from sib.mqtt.properties import (
    WILL,
    Property,
    decode_properties,
    encode_properties,
    from_json,
    number_in,
    to_json,
    without,
)

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
publish_properties = st.tuples(
    st.lists(st.tuples(st.just(int(Property.USER)), st.tuples(texts, texts)), max_size=3),
    st.lists(st.tuples(st.just(int(Property.SUBSCRIPTION_ID)), st.integers(1, 268_435_455)), max_size=3),
    st.lists(st.tuples(st.just(int(Property.MESSAGE_EXPIRY)), st.integers(0, 2**32 - 1)), max_size=1),
    st.lists(st.tuples(st.just(int(Property.CORRELATION_DATA)), st.binary(max_size=20)), max_size=1),
    st.lists(st.tuples(st.just(int(Property.RESPONSE_TOPIC)), texts), max_size=1),
    st.lists(st.tuples(st.just(int(Property.PAYLOAD_FORMAT)), st.integers(0, 1)), max_size=1),
    st.lists(st.tuples(st.just(int(Property.TOPIC_ALIAS)), st.integers(1, 65_535)), max_size=1),
).map(lambda parts: tuple(pair for part in parts for pair in part))


@given(publish_properties)
def test_properties_come_back_in_order(properties):
    encoded = encode_properties(properties)
    assert decode_properties(encoded, 0, codec.PUBLISH) == (properties, len(encoded))


@given(publish_properties)
def test_properties_survive_json(properties):
    assert from_json(json.loads(json.dumps(to_json(properties)))) == properties


@pytest.mark.parametrize(
    ("section", "packet"),
    [
        (b"\x02\x7f\x00", codec.PUBLISH),
        (b"\x05\x11\0\0\0\1", codec.PUBLISH),
        (b"\x04\x01\0\x01\0", codec.PUBLISH),
        (b"\x02\x01\x02", codec.PUBLISH),
        (b"\x03\x23\0\0", codec.PUBLISH),
        (b"\x02\x0b\0", codec.SUBSCRIBE),
        (b"\x04\x0b\1\x0b\2", codec.SUBSCRIBE),
        (b"\x03\x21\0\0", codec.CONNECT),
        (b"\x05\x27\0\0\0\0", codec.CONNECT),
        (b"\x05\x18\0\0\0\1", codec.CONNECT),
        (b"\x05\x11\0\0\0\1", WILL),
        (b"\x09\x01\0", codec.PUBLISH),
        (b"\x03\x03\0\5", codec.PUBLISH),
    ],
)
def test_wrong_properties_are_refused(section, packet):
    with pytest.raises(MqttProtocolError):
        decode_properties(section, 0, packet)


def test_a_value_may_not_reach_beyond_the_section():
    with pytest.raises(MqttProtocolError):
        decode_properties(b"\x03\x03\0\2ab", 0, codec.PUBLISH)


def test_looking_for_numbers_and_leaving_out():
    properties = ((2, 5), (38, ("a", "b")), (38, ("a", "c")))
    assert number_in(properties, 2) == 5
    assert number_in(properties, 35) is None
    assert without(properties, 2) == properties[1:]
