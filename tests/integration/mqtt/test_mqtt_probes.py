"""Misbehaviour at the byte level: what closes a connection, when, and what everybody else notices (nothing)."""

from __future__ import annotations

import asyncio

import pytest

from actors.gateway.mqtt import MqttLimits
from sib.mqtt import codec, wire
from sib.mqtt.codec import MQTT_3_1, MQTT_3_1_1, MQTT_5
from sib.mqtt.errors import Reason
from sib.mqtt.properties import Property

MODES = [{"ssap": True}, {"ssap": False, "pubsub": True}, {"ssap": True, "pubsub": True}]


@pytest.fixture(params=MODES, ids=["ssap", "pubsub", "both"])
def mode(request):
    return request.param


async def assert_serves(server) -> None:
    """Others are served as before."""
    client = await server.client("witness")
    await client.silence()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x36\x06\0\1a\0\1x", id="QoS 3"),
        pytest.param(b"\x30\xff\xff\xff\xff\x01", id="length of five bytes"),
        pytest.param(b"\x30\x04\0\1+x", id="PUBLISH to a wildcard"),
        pytest.param(b"\x30\x06\0\3a/#x", id="PUBLISH to a wildcard 2"),
        pytest.param(b"\x32\x06\0\1a\0\0x", id="packet id 0"),
        pytest.param(b"\x32\x04\0\1a\0", id="no packet id"),
        pytest.param(b"\x30\x02\0\5", id="topic longer than the packet"),
        pytest.param(b"\x30\x00", id="empty PUBLISH"),
        pytest.param(b"\x30\x01\x00", id="PUBLISH of one byte"),
        pytest.param(b"\x10\x0d\0\4MQTT\4\2\0\0\0\1d", id="second CONNECT"),
        pytest.param(b"\x20\x02\0\0", id="CONNACK from a client"),
        pytest.param(b"\x90\x03\0\1\0", id="SUBACK from a client"),
        pytest.param(b"\xd0\x00", id="PINGRESP from a client"),
        pytest.param(b"\x00\x00", id="packet type 0"),
        pytest.param(b"\xf0\x00", id="packet type 15"),
        pytest.param(b"\xc1\x00", id="PINGREQ with flags"),
        pytest.param(b"\xc0\x01\x00", id="PINGREQ with a body"),
        pytest.param(b"\x80\x06\0\1\0\1a\0", id="SUBSCRIBE without its flags"),
        pytest.param(b"\x82\x02\0\1", id="SUBSCRIBE without a filter"),
        pytest.param(b"\x82\x06\0\1\0\1a\3", id="SUBSCRIBE with QoS 3"),
        pytest.param(b"\x82\x06\0\1\0\1\xff\0", id="SUBSCRIBE not in UTF-8"),
        pytest.param(b"\xa2\x02\0\1", id="UNSUBSCRIBE without a filter"),
        pytest.param(b"\x60\x02\0\1", id="PUBREL without its flags"),
        pytest.param(b"\x40\x01\0", id="PUBACK of one byte"),
    ],
)
async def test_a_broken_packet_closes_its_connection(serve, mode, data):
    server = await serve(**mode)
    client = await server.client("bad")
    client.send(data)
    assert await client.is_closed()
    assert server.endpoint.stats.protocol_errors == 1
    await assert_serves(server)


@pytest.mark.parametrize("data", [b"\x36\x07\0\1a\0\1\0x", b"\x30\x80\x80\x80\x80\x01", b"\x82\x04\0\1\0\1"])
async def test_mqtt_5_is_told_why(serve, mode, data):
    server = await serve(**mode)
    client = await server.client("bad", version=MQTT_5)
    client.send(data)
    assert await client.goodbye() == Reason.MALFORMED_PACKET
    assert await client.is_closed()


async def test_an_empty_topic_is_none_between_devices(serve):
    server = await serve(ssap=False, pubsub=True)
    client = await server.client()
    client.publish("", b"x")
    assert await client.is_closed()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
        pytest.param(b"\xc0\x00", id="PINGREQ first"),
        pytest.param(b"\x30\x03\0\1a", id="PUBLISH first"),
        pytest.param(b"\x10\x0b\0\2hj\4\2\0\0\0\1d", id="wrong protocol name"),
        pytest.param(b"\x10\x0d\0\4MQTT\4\3\0\0\0\1d", id="reserved flag"),
        pytest.param(b"\x10\x0d\0\4MQTT\4\2\0\0\0\2d", id="client id longer than the packet"),
        pytest.param(b"\x10\x0d\0\4MQTT\4\2\0\0\0\1\xff", id="client id not in UTF-8"),
        pytest.param(b"\x10\xff\xff\xff\x7f", id="CONNECT of 256 MiB"),
    ],
)
async def test_what_is_no_connect_is_closed(serve, mode, data):
    server = await serve(**mode)
    client = await server.open()
    client.send(data)
    assert await client.is_closed()
    await assert_serves(server)


@pytest.mark.parametrize(("level", "answer"), [(6, b"\0\x84\0"), (0, b"\0\1"), (3, b"\0\1")])
async def test_an_unknown_level_gets_its_refusal(serve, level, answer):
    server = await serve()
    client = await server.open()
    client.send(codec.encode_packet(codec.CONNECT, 0, b"\0\4MQTT", bytes((level, 2)), b"\0\0", b"\0\1d"))
    assert await client.expect(codec.CONNACK) == answer
    assert await client.is_closed()


@pytest.mark.parametrize("version", [MQTT_3_1, MQTT_3_1_1, MQTT_5])
async def test_client_ids(serve, mode, version):
    server = await serve(**mode)
    anonymous = await server.open()
    connack = await anonymous.connect("", version=version)
    assert connack[1] == 0
    if version == MQTT_5:
        properties = dict(codec.decode_properties(connack, 2, codec.CONNACK)[0])
        assert properties[Property.ASSIGNED_CLIENT_ID] in server.endpoint.sessions
    else:
        persistent = await server.open()
        assert (await persistent.connect("", version=version, clean=False))[1] == 2
    long = await server.open()
    refusal = Reason.CLIENT_ID_NOT_VALID if version == MQTT_5 else 2
    assert (await long.connect("x" * 256, version=version))[1] == refusal
    assert (await (await server.open()).connect("ñ/+ #" * 8, version=version))[1] == 0


async def test_packets_cut_anywhere_are_put_together(serve):
    server = await serve()
    client = await server.open()
    stream = codec.encode_packet(codec.CONNECT, 0, b"\0\4MQTT\4\2\0\0", wire.encode_string("slow"))
    stream += codec.encode_publish(codec.Publish("t", b"x" * 300, 1, packet_id=1), 4)
    stream += codec.encode_publish(codec.Publish("t", b"y" * 20_000, 1, packet_id=2), 4)
    for at in range(0, 350):
        client.send(stream[at : at + 1])
        await asyncio.sleep(0)
    for at in range(350, len(stream), 997):
        client.send(stream[at : at + 997])
        await asyncio.sleep(0)
    await client.expect(codec.CONNACK)
    assert await client.expect(codec.PUBACK) == b"\0\1"
    assert await client.expect(codec.PUBACK) == b"\0\2"
    assert [len(request.payload) for request in server.channel("slow").received] == [300, 20_000]


async def test_a_socket_without_a_connect_is_closed_after_ten_seconds(serve):
    server = await serve()
    silent, slow = await server.open(), await server.open()
    slow.send(b"\x10\x0d\0\4MQ")
    await server.until(lambda: len(server.endpoint.connections) == 2)
    server.advance(9)
    await server.until(lambda: server.endpoint.stats.bytes_received)
    slow.send(b"TT")
    assert len(server.endpoint.connections) == 2
    server.advance(2)
    assert await silent.is_closed()
    assert await slow.is_closed()
    assert server.endpoint.stats.slow_timeouts == 2


async def test_a_packet_that_does_not_end_is_closed_after_thirty_seconds(serve, mode):
    server = await serve(**mode)
    client = await server.client("loris")
    client.send(b"\x30\x64\0\1a")
    connection = server.endpoint.sessions["loris"].connection
    await server.until(lambda: connection.packet_since_s)
    for _ in range(3):
        server.advance(9)
        before = connection.last_seen_s
        client.send(b"x")
        await server.until(lambda seen=before: connection.last_seen_s != seen)
    assert len(server.endpoint.connections) == 1
    server.advance(4)
    assert await client.is_closed()
    assert server.endpoint.stats.slow_timeouts == 1
    await assert_serves(server)


async def test_a_packet_to_throw_away_must_end_too(serve):
    server = await serve(message_bytes_max=100)
    client = await server.client("loris")
    client.send(b"\x30\xff\xff\xff\x7f\0\1a")
    connection = server.endpoint.sessions["loris"].connection
    await server.until(lambda: connection.packet_since_s)
    server.advance(31)
    assert await client.is_closed()


async def test_each_packet_has_its_own_thirty_seconds(serve):
    server = await serve(message_bytes_max=100, react=None)
    client = await server.client("slow")
    connection = server.endpoint.sessions["slow"].connection
    client.send(b"\x30\xc8\x01\0\1a" + b"x" * 100)
    await server.until(lambda: connection.packet_since_s)
    server.advance(20)
    before = connection.packet_since_s
    client.send(b"x" * 97 + b"\x30\x64\0\1a")
    await server.until(lambda: connection.packet_since_s > before)
    server.advance(20)
    client.send(b"y" * 97 + b"\xc0\0")
    await client.expect(codec.PINGRESP)


async def test_time_does_not_pass_while_the_host_is_busy(serve):
    server = await serve()
    client = await server.client("slow", keep_alive_s=5)
    connection = server.endpoint.sessions["slow"].connection
    client.send(b"\x30\x64\0\1a")
    await server.until(lambda: connection.packet_since_s)
    connection.pause()
    server.advance(100)
    connection.resume()
    await server.until(lambda: connection.is_reading)
    await asyncio.sleep(0)
    server.advance(1)
    client.send(b"y" * 97 + b"\xc0\0")
    await client.expect(codec.PINGRESP)


@pytest.mark.parametrize("version", [MQTT_3_1, MQTT_3_1_1, MQTT_5])
async def test_keep_alive_is_enforced(serve, mode, version):
    server = await serve(**mode)
    client = await server.client("ka", version=version, keep_alive_s=10)
    forever = await server.client("forever", version=version)
    server.advance(14)
    await client.silence()
    server.advance(14)
    await client.silence()
    server.advance(16)
    if version == MQTT_5:
        assert await client.goodbye() == Reason.KEEP_ALIVE_TIMEOUT
    assert await client.is_closed()
    await forever.silence()
    assert server.endpoint.stats.keep_alive_timeouts == 1


async def test_nobody_is_closed_because_the_server_stood_still(serve):
    server = await serve()
    client = await server.client("ka", keep_alive_s=1)
    server.offset_s += 60
    server.endpoint.check_times(is_punctual=False)
    await client.silence()


async def test_too_many_connections(serve):
    server = await serve(connections_max=2)
    first, second = await server.client("1"), await server.client("2")
    third = await server.open()
    assert (await third.connect("3"))[1] == 3
    assert await third.is_closed()
    fourth = await server.open()
    assert (await fourth.connect("4", version=MQTT_5))[1] == Reason.SERVER_BUSY
    assert await fourth.is_closed()
    await server.until(lambda: len(server.endpoint.connections) == 2)
    await first.leave()
    await server.until(lambda: len(server.endpoint.connections) == 1)
    await server.client("5")
    await second.silence()


async def test_a_flood_of_connections_is_cut(serve):
    server = await serve(connections_max=1)
    await server.client("1")
    flood = [await server.open() for _ in range(30)]
    closed = await asyncio.gather(*(client.is_closed() for client in flood[-10:]))
    assert all(closed)
    assert server.endpoint.stats.connections_refused >= 10


async def test_too_many_sessions(serve):
    server = await serve(limits=MqttLimits(sessions_max=2))
    await server.client("1")
    await server.client("2")
    third = await server.open()
    assert (await third.connect("3"))[1] == 3


async def test_a_blank_session_gives_way(serve):
    server = await serve(limits=MqttLimits(sessions_max=2))
    used = await server.client("used", clean=False)
    await used.subscribe_own()
    await used.leave()
    blank = await server.client("blank", clean=False)
    await blank.leave()
    await server.client("3")
    assert set(server.endpoint.sessions) == {"used", "3"}
    fourth = await server.open()
    assert (await fourth.connect("4"))[1] == 3


async def test_too_much_unfinished_is_refused(serve):
    server = await serve(limits=MqttLimits(partial_bytes_max=300_000), ssap=True)
    clients = [await server.client(str(number), version=MQTT_5) for number in range(3)]
    for client in clients[:2]:
        client.send(b"\x30" + wire.encode_varint(1_000_000) + b"\0\1a\0" + b"x" * 140_000)
    await server.until(lambda: server.endpoint.partial_bytes > 270_000)
    clients[2].send(b"\x30" + wire.encode_varint(1_000_000) + b"\0\1a\0" + b"x" * 140_000)
    assert await clients[2].goodbye() == Reason.SERVER_BUSY
    assert await clients[2].is_closed()
    clients[0].cut()
    await server.until(lambda: server.endpoint.partial_bytes < 150_000)
    clients[1].cut()
    await server.until(lambda: server.endpoint.partial_bytes == 0)


async def test_a_long_packet_is_no_longer_counted_when_it_is_complete(serve):
    server = await serve()
    client = await server.client()
    packet = codec.encode_publish(codec.Publish("t", b"x" * 1_000_000, 1, packet_id=1), 4)
    for at in range(0, len(packet), 100_000):
        client.send(packet[at : at + 100_000])
        await client.writer.drain()
    await client.expect(codec.PUBACK)
    assert server.endpoint.partial_bytes == 0
    assert len(server.channel().received[0].payload) == 1_000_000


async def test_a_packet_too_large_between_devices(serve):
    server = await serve(ssap=False, pubsub=True, message_bytes_max=1000)
    client = await server.client(version=MQTT_5)
    client.publish("t", b"x" * 2000)
    assert await client.goodbye() == Reason.PACKET_TOO_LARGE
    old = await server.client("old")
    old.publish("t", b"x" * 2000)
    assert await old.is_closed()


async def test_acknowledgements_of_a_pipeline_come_in_order(serve, mode):
    server = await serve(**mode)
    client = await server.client()
    for number in range(1, 51):
        client.publish("t", b"x", qos=1, packet_id=number)
    assert [await client.expect(codec.PUBACK) for _ in range(50)] == [wire.encode_uint16(n) for n in range(1, 51)]


async def test_unknown_acknowledgements_do_no_harm(serve, mode):
    server = await serve(**mode)
    client = await server.client(version=MQTT_5)
    client.acknowledge(codec.PUBACK, 99)
    client.acknowledge(codec.PUBREC, 98)
    assert (await client.expect(codec.PUBREL)) == b"\0\x62\x92"
    client.acknowledge(codec.PUBREL, 97)
    assert (await client.expect(codec.PUBCOMP)) == b"\0\x61\x92"
    client.acknowledge(codec.PUBCOMP, 96)
    await client.silence()


async def test_an_extended_authentication_is_refused(serve):
    server = await serve()
    client = await server.open()
    connack = await client.connect(version=MQTT_5, properties=((Property.AUTHENTICATION_METHOD, "SCRAM-SHA-1"),))
    assert connack[1] == Reason.BAD_AUTHENTICATION_METHOD


async def test_stop_says_goodbye(serve):
    server = await serve()
    client = await server.client(version=MQTT_5)
    await server.endpoint.stop()
    assert await client.goodbye() == Reason.SERVER_SHUTTING_DOWN
    assert server.channel().is_closed
