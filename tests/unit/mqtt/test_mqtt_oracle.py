"""Our codec of MQTT 5 against the ``mqtt5`` package."""

from __future__ import annotations

import mqtt5
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sib.mqtt import codec, wire
from sib.mqtt.codec import MQTT_5
from sib.mqtt.errors import MqttProtocolError, Reason
from sib.mqtt.properties import Property, encode_properties
from sib.mqtt.topics import is_topic_name

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
names = texts.filter(is_topic_name)
patterns = st.lists(texts.filter(is_topic_name) | st.just("+"), min_size=1, max_size=3).map("/".join)
users = st.lists(st.tuples(texts, texts), max_size=3)
uint32 = st.integers(0, 2**32 - 1)
optional_text = st.none() | texts
qos_values = st.sampled_from([mqtt5.QoS.AT_MOST_ONCE, mqtt5.QoS.AT_LEAST_ONCE, mqtt5.QoS.EXACTLY_ONCE])

publishes = st.builds(
    lambda qos, packet_id, **given: mqtt5.PublishPacket(qos=qos, packet_id=packet_id if int(qos) else None, **given),
    qos_values,
    st.integers(1, 65_535),
    topic=names,
    payload=st.binary(max_size=300),
    retain=st.booleans(),
    duplicate=st.booleans(),
    payload_format_indicator=st.integers(0, 1),
    message_expiry_interval=st.none() | uint32,
    content_type=optional_text,
    response_topic=st.none() | names,
    correlation_data=st.none() | st.binary(max_size=20),
    subscription_ids=st.lists(st.integers(1, 268_435_455), max_size=2),
    topic_alias=st.none() | st.integers(1, 65_535),
    user_properties=users,
)
wills = st.builds(
    mqtt5.Will,
    names,
    payload=st.binary(max_size=30),
    qos=qos_values,
    retain=st.booleans(),
    message_expiry_interval=st.none() | uint32,
    will_delay_interval=uint32,
    user_properties=users,
)
connects = st.builds(
    mqtt5.ConnectPacket,
    texts,
    username=optional_text,
    password=st.none() | st.binary(max_size=20),
    clean_start=st.booleans(),
    will=st.none() | wills,
    keep_alive=st.integers(0, 65_535),
    session_expiry_interval=uint32,
    receive_max=st.integers(1, 65_535),
    topic_alias_max=st.integers(0, 65_535),
    max_packet_size=st.none() | st.integers(1, 2**32 - 1),
    user_properties=users,
)
filters = st.builds(
    mqtt5.TopicFilter,
    patterns.filter(lambda text: not text.startswith("$share/")),
    max_qos=qos_values,
    no_local=st.booleans(),
    retain_as_published=st.booleans(),
    retain_handling=st.sampled_from(
        [
            mqtt5.RetainHandling.SEND_ALWAYS,
            mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS,
            mqtt5.RetainHandling.SEND_NEVER,
        ]
    ),
)


def split(packet: bytes) -> tuple[int, bytes]:
    _, at = wire.decode_varint(packet, 1)
    return packet[0] & 15, packet[at:]


def values(properties, identifier: int) -> list:
    return [value for found, value in properties if found == identifier]


def one(properties, identifier: int, default=None):
    found = values(properties, identifier)
    return found[0] if found else default


def assert_same_publish(ours: codec.Publish, theirs: mqtt5.PublishPacket) -> None:
    assert (ours.topic, ours.payload, ours.qos) == (theirs.topic, bytes(theirs.payload), theirs.qos)
    assert (ours.is_retain, ours.is_dup) == (theirs.retain, theirs.duplicate)
    assert ours.packet_id == (theirs.packet_id or 0)
    properties = ours.properties
    assert one(properties, Property.MESSAGE_EXPIRY) == theirs.message_expiry_interval
    assert one(properties, Property.CONTENT_TYPE) == theirs.content_type
    assert one(properties, Property.RESPONSE_TOPIC) == theirs.response_topic
    assert one(properties, Property.CORRELATION_DATA) == theirs.correlation_data
    assert one(properties, Property.TOPIC_ALIAS) == theirs.topic_alias
    assert one(properties, Property.PAYLOAD_FORMAT, 0) == theirs.payload_format_indicator
    assert values(properties, Property.SUBSCRIPTION_ID) == theirs.subscription_ids
    assert values(properties, Property.USER) == theirs.user_properties


def assert_same_connect(ours: codec.Connect, theirs: mqtt5.ConnectPacket) -> None:
    assert (ours.client_id, ours.username, ours.password) == (theirs.client_id, theirs.username, theirs.password)
    assert (ours.is_clean, ours.keep_alive_s) == (theirs.clean_start, theirs.keep_alive)
    assert ours.session_expiry_s == theirs.session_expiry_interval
    assert one(ours.properties, Property.RECEIVE_MAX, 65_535) == theirs.receive_max
    assert one(ours.properties, Property.TOPIC_ALIAS_MAX, 0) == theirs.topic_alias_max
    assert one(ours.properties, Property.PACKET_BYTES_MAX) == theirs.max_packet_size
    assert values(ours.properties, Property.USER) == theirs.user_properties
    assert (ours.will is None) == (theirs.will is None)
    if ours.will is not None:
        assert (ours.will.topic, ours.will.payload) == (theirs.will.topic, bytes(theirs.will.payload or b""))
        assert (ours.will.qos, ours.will.is_retain) == (theirs.will.qos, theirs.will.retain)
        assert ours.will.delay_s == theirs.will.will_delay_interval
        assert one(ours.will.properties, Property.MESSAGE_EXPIRY) == theirs.will.message_expiry_interval


@given(publishes)
def test_publish_of_the_oracle_reads_the_same(theirs):
    flags, body = split(theirs.write())
    assert_same_publish(codec.decode_publish(flags, body, MQTT_5), theirs)


@given(publishes)
def test_publish_of_ours_reads_the_same(theirs):
    flags, body = split(theirs.write())
    packet = codec.encode_publish(codec.decode_publish(flags, body, MQTT_5), MQTT_5)
    read, size = mqtt5.read(memoryview(packet))
    assert size == len(packet)
    assert_same_publish(codec.decode_publish(flags, body, MQTT_5), read)


@given(connects)
def test_connect_of_the_oracle_reads_the_same(theirs):
    assert_same_connect(codec.decode_connect(*split(theirs.write())), theirs)


@given(st.integers(1, 65_535), st.lists(filters, min_size=1, max_size=4), st.none() | st.integers(1, 268_435_455))
def test_subscribe_of_the_oracle_reads_the_same(packet_id, wanted, identifier):
    flags, body = split(mqtt5.SubscribePacket(packet_id, wanted, subscription_id=identifier).write())
    request = codec.decode_subscribe(flags, body, MQTT_5)
    assert (request.packet_id, request.subscription_id) == (packet_id, identifier or 0)
    assert [
        (line.filter, line.qos, line.is_no_local, line.is_retain_as_published, line.retain_handling)
        for line in request.filters
    ] == [(f.pattern, f.max_qos, f.no_local, f.retain_as_published, f.retain_handling) for f in wanted]


@given(st.integers(1, 65_535), st.lists(patterns, min_size=1, max_size=4))
def test_unsubscribe_of_the_oracle_reads_the_same(packet_id, patterns):
    flags, body = split(mqtt5.UnsubscribePacket(packet_id, patterns).write())
    assert codec.decode_unsubscribe(flags, body, MQTT_5) == codec.Unsubscribe(packet_id, patterns)


@given(
    st.sampled_from([value for name, value in vars(mqtt5.DisconnectReasonCode).items() if name.isupper()]),
    st.none() | uint32,
)
def test_disconnect_of_the_oracle_reads_the_same(reason, expiry_s):
    flags, body = split(mqtt5.DisconnectPacket(reason_code=reason, session_expiry_interval=expiry_s).write())
    disconnect = codec.decode_disconnect(flags, body, MQTT_5)
    assert disconnect.reason == reason
    assert one(disconnect.properties, Property.SESSION_EXPIRY) == expiry_s


@pytest.mark.parametrize(
    ("kind", "oracle", "reason"),
    [
        (codec.PUBACK, mqtt5.PubAckPacket, Reason.NOT_AUTHORIZED),
        (codec.PUBREC, mqtt5.PubRecPacket, Reason.QUOTA_EXCEEDED),
        (codec.PUBREL, mqtt5.PubRelPacket, Reason.PACKET_ID_NOT_FOUND),
        (codec.PUBCOMP, mqtt5.PubCompPacket, Reason.PACKET_ID_NOT_FOUND),
    ],
)
def test_acknowledgements_agree(kind, oracle, reason):
    for code in (Reason.SUCCESS, reason):
        read, _ = mqtt5.read(memoryview(codec.encode_acknowledgement(kind, 77, code, MQTT_5)))
        assert (type(read), read.packet_id, read.reason_code) == (oracle, 77, code)
        flags, body = split(oracle(77, reason_code=read.reason_code, reason_str="because").write())
        assert codec.decode_acknowledgement(kind, flags, body, MQTT_5) == (77, code)


def test_what_a_server_sends_is_read_by_the_oracle():
    properties = (
        (Property.SESSION_EXPIRY, 86_400),
        (Property.SERVER_KEEP_ALIVE, 60),
        (Property.RECEIVE_MAX, 20),
        (Property.TOPIC_ALIAS_MAX, 10),
        (Property.PACKET_BYTES_MAX, 1_900_000),
        (Property.ASSIGNED_CLIENT_ID, "auto-1"),
    )
    connack, _ = mqtt5.read(memoryview(codec.encode_connack(MQTT_5, 0, is_session_present=True, properties=properties)))
    assert (connack.session_present, connack.session_expiry_interval, connack.server_keep_alive) == (True, 86_400, 60)
    assert (connack.receive_max, connack.topic_alias_max, connack.max_packet_size) == (20, 10, 1_900_000)
    assert connack.assigned_client_id == "auto-1"
    suback, _ = mqtt5.read(memoryview(codec.encode_suback(3, bytes((0, 1, 2, 0x80, 0x8F)), MQTT_5)))
    assert (suback.packet_id, suback.reason_codes) == (3, [0, 1, 2, 0x80, 0x8F])
    unsuback, _ = mqtt5.read(memoryview(codec.encode_unsuback(4, bytes((0, 0x11)), MQTT_5)))
    assert (unsuback.packet_id, unsuback.reason_codes) == (4, [0, 0x11])
    disconnect, _ = mqtt5.read(memoryview(codec.encode_disconnect(Reason.SESSION_TAKEN_OVER)))
    assert disconnect.reason_code == Reason.SESSION_TAKEN_OVER
    assert type(mqtt5.read(memoryview(codec.PINGRESP_PACKET))[0]) is mqtt5.PingRespPacket


def mutated(packets):
    """A packet of the oracle with one byte changed and perhaps an end missing; its length is right again."""

    def mutate(packet, at, value, cut):
        flags, body = split(packet.write())
        changed = bytearray(body)
        changed[at % len(changed)] = value
        return flags, bytes(changed[: len(changed) - cut % 4])

    return st.builds(mutate, packets, st.integers(0, 10_000), st.integers(0, 255), st.integers(0, 12))


@settings(max_examples=300)
@given(mutated(publishes))
def test_a_broken_publish_that_we_read_is_read_alike_by_the_oracle(broken):
    flags, body = broken
    try:
        ours = codec.decode_publish(flags, body, MQTT_5)
    except MqttProtocolError:
        return
    # KPs publish to the empty topic; the oracle refuses it.
    assume(ours.topic or Property.TOPIC_ALIAS in ours.properties)
    theirs, _ = mqtt5.read(memoryview(codec.encode_packet(codec.PUBLISH, flags, body)))
    assert_same_publish(ours, theirs)


@settings(max_examples=300)
@given(mutated(connects))
def test_a_broken_connect_that_we_read_is_read_alike_by_the_oracle(broken):
    flags, body = broken
    try:
        ours = codec.decode_connect(flags, body)
    except MqttProtocolError:
        return
    if ours.version != MQTT_5:
        return
    theirs, _ = mqtt5.read(memoryview(codec.encode_packet(codec.CONNECT, flags, body)))
    assert_same_connect(ours, theirs)


def test_every_property_is_written_as_the_oracle_reads_it():
    properties = ((Property.PAYLOAD_FORMAT, 1), (Property.CORRELATION_DATA, b"\0\1"), (Property.USER, ("k", "v")))
    body = wire.encode_string("t") + encode_properties(properties) + b"x"
    read, _ = mqtt5.read(memoryview(codec.encode_packet(codec.PUBLISH, 0, body)))
    assert (read.payload_format_indicator, read.correlation_data, read.user_properties) == (1, b"\0\1", [("k", "v")])
