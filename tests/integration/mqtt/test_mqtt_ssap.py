"""SSAP over MQTT: any PUBLISH is a request, acknowledged when it is decided, answered on the client's own topic."""

from __future__ import annotations

import asyncio

import pytest

from actors.gateway.mqtt import MqttLimits
from sib.mqtt import codec, wire
from sib.mqtt.codec import MQTT_3_1, MQTT_3_1_1, MQTT_5
from sib.mqtt.errors import Reason
from sib.mqtt.kp_topics import ANSWER, COMMAND, INDICATION, own_topic
from sib.mqtt.properties import Property

VERSIONS = [MQTT_3_1, MQTT_3_1_1, MQTT_5]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("topic", ["", "CLIENT_TOPIC", "SSAP-REQUEST", "/queue/message", "whatever/it/is", "$SYS"])
async def test_a_publish_to_any_topic_is_a_request(serve, version, topic):
    server = await serve()
    client = await server.client(version=version)
    await client.subscribe_own()
    client.publish(topic, b"hello", qos=1, packet_id=7)
    assert (await client.expect(codec.PUBACK))[:2] == b"\0\7"
    answer = await client.message()
    assert (answer.topic, answer.payload, answer.qos) == ("/TOPIC_MQTT_PUBLISHc", b"answer to hello", 0)
    [received] = server.channel().received
    assert received.clear is (topic == "SSAP-REQUEST")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_request_and_answer_at_each_qos(serve, version, qos, granted):
    server = await serve()
    client = await server.client(version=version)
    await client.subscribe_own(granted)
    client.publish("", b"q", qos=qos, packet_id=3)
    if qos:
        assert (await client.expect(codec.PUBACK if qos == 1 else codec.PUBREC)) == b"\0\3"
    answer = await client.message()
    assert answer.qos == granted
    if qos == 2:
        client.acknowledge(codec.PUBREL, 3)
        assert await client.expect(codec.PUBCOMP) == b"\0\3"
    if granted == 1:
        client.acknowledge(codec.PUBACK, answer.packet_id)
    elif granted == 2:
        client.acknowledge(codec.PUBREC, answer.packet_id)
        assert await client.expect(codec.PUBREL) == wire.encode_uint16(answer.packet_id)
        client.acknowledge(codec.PUBCOMP, answer.packet_id)
    await client.silence()
    assert not server.endpoint.sessions["c"].in_flight_count


async def test_nothing_is_acknowledged_before_it_is_decided(serve):
    server = await serve(react=None)
    client = await server.client()
    await client.subscribe_own()
    for number in (1, 2, 3):
        client.publish("", b"%d" % number, qos=1, packet_id=number)
    received = await server.channel().count(3)
    await client.silence()
    for request in received:
        server.channel().connection.respond(request.token, request.payload)
    for number in (1, 2, 3):
        assert await client.expect(codec.PUBACK) == wire.encode_uint16(number)
        assert (await client.message()).payload == b"%d" % number


async def test_all_writes_of_a_tick_leave_together(serve, monkeypatch):
    server = await serve(react=None)
    client = await server.client()
    await client.subscribe_own()
    for number in range(1, 51):
        client.publish("", b"x", qos=1, packet_id=number)
    received = await server.channel().count(50)
    connection = server.channel().connection
    writes = []
    real = connection._transport
    monkeypatch.setattr(connection, "_transport", type("T", (), {"write": lambda self, data: writes.append(data)})())
    for request in received:
        connection.respond(request.token, b"done")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    connection._transport = real
    assert len(writes) == 1
    assert writes[0].count(b"done") == 50


async def test_a_store_that_cannot_decide_closes_without_acknowledging(serve):
    server = await serve(react=lambda connection, request: connection.abort())
    client = await server.client(version=MQTT_5)
    client.publish("", b"x", qos=1)
    assert await client.goodbye() == Reason.UNSPECIFIED
    old = await server.client("old")
    old.publish("", b"x", qos=1)
    assert await old.reader.read() == b""
    await server.until(lambda: server.channel("old").is_closed)


async def test_a_qos_2_request_sent_again_runs_once(serve):
    server = await serve(react=None)
    client = await server.client()
    client.publish("", b"once", qos=2, packet_id=9)
    [request] = await server.channel().count(1)
    client.publish("", b"once", qos=2, packet_id=9, dup=True)
    await client.silence()
    server.channel().connection.acknowledge(request.token)
    assert await client.expect(codec.PUBREC) == b"\0\x09"
    client.publish("", b"once", qos=2, packet_id=9, dup=True)
    assert await client.expect(codec.PUBREC) == b"\0\x09"
    client.acknowledge(codec.PUBREL, 9)
    assert await client.expect(codec.PUBCOMP) == b"\0\x09"
    assert len(server.channel().received) == 1
    client.publish("", b"another", qos=2, packet_id=9)
    assert len(await server.channel().count(2)) == 2


async def test_a_qos_2_request_runs_once_across_a_reconnect(serve):
    server = await serve(react=None)
    client = await server.client(clean=False)
    client.publish("", b"once", qos=2, packet_id=9)
    channel = server.channel()
    [request] = await channel.count(1)
    client.cut()
    await server.until(lambda: channel.is_closed)
    again = await server.client(clean=False)
    again.publish("", b"once", qos=2, packet_id=9, dup=True)
    await again.silence()
    channel.connection.acknowledge(request.token)
    assert await again.expect(codec.PUBREC) == b"\0\x09"
    assert not server.channel().received


async def test_a_qos_2_request_that_was_not_decided_runs_again(serve):
    server = await serve(react=None)
    client = await server.client(clean=False)
    client.publish("", b"x", qos=2, packet_id=9)
    channel = server.channel()
    [request] = await channel.count(1)
    channel.connection.abort()
    assert await client.is_closed()
    channel.connection.forget(request.token)
    again = await server.client(clean=False)
    again.publish("", b"x", qos=2, packet_id=9, dup=True)
    assert len(await server.channel().count(1)) == 1


async def test_dup_at_qos_1_is_a_new_request(serve):
    server = await serve()
    client = await server.client()
    client.publish("", b"x", qos=1, packet_id=5)
    client.publish("", b"x", qos=1, packet_id=5, dup=True)
    assert len(await server.channel().count(2)) == 2


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_client_may_subscribe_to_its_own_three_topics_only(serve, version):
    server = await serve()
    client = await server.client("dev", version=version)
    wanted = [(own_topic(kind, "dev"), 2) for kind in (ANSWER, INDICATION, COMMAND)]
    assert await client.subscribe(*wanted) == [2, 2, 2]
    others = ["/TOPIC_MQTT_PUBLISHother", "/TOPIC_MQTT_PUBLISH#", "#", "+", "a/b", "/TOPIC_MQTT_PUBLISH/dev"]
    assert await client.subscribe(*((pattern, 0) for pattern in others)) == [0x80] * len(others)


async def test_an_answer_waits_for_the_subscribe(serve):
    server = await serve()
    client = await server.client()
    client.publish("", b"1")
    client.publish("", b"2")
    await server.channel().count(2)
    await client.silence()
    client.ask_to_subscribe((own_topic(ANSWER, "c"), 1))
    await client.expect(codec.SUBACK)
    assert [(await client.message()).payload for _ in range(2)] == [b"answer to 1", b"answer to 2"]


async def test_an_answer_without_a_subscribe_goes_out_at_qos_0_after_five_seconds(serve):
    server = await serve()
    client = await server.client()
    client.publish("", b"1")
    await server.channel().count(1)
    server.advance(4.5)
    await client.silence()
    server.advance(0.6)
    answer = await client.message()
    assert (answer.topic, answer.payload, answer.qos) == ("/TOPIC_MQTT_PUBLISHc", b"answer to 1", 0)


async def test_waiting_answers_are_bounded(serve):
    server = await serve(limits=MqttLimits(answers_waiting_max=3))
    client = await server.client()
    for number in range(5):
        client.publish("", b"%d" % number)
    assert [(await client.message()).payload for _ in range(2)] == [b"answer to 0", b"answer to 1"]
    await client.silence()


async def test_an_indication_does_not_overtake_a_waiting_answer(serve):
    def react(connection, request):
        connection.respond(request.token, b"answer")
        connection.indicate(b"indication")

    server = await serve(react=react)
    client = await server.client()
    await client.subscribe_own(kinds=(INDICATION,))
    client.publish("", b"x")
    await server.channel().count(1)
    await client.silence()
    client.ask_to_subscribe((own_topic(ANSWER, "c"), 0))
    await client.expect(codec.SUBACK)
    assert [(await client.message()).payload for _ in range(2)] == [b"answer", b"indication"]


async def test_indications_and_commands_have_their_topics(serve):
    server = await serve()
    client = await server.client()
    await client.subscribe_own(kinds=(ANSWER, INDICATION, COMMAND))
    connection = server.channel().connection
    connection.indicate(b"i")
    connection.command(b"c")
    found = [await client.message() for _ in range(2)]
    assert [(message.topic, message.payload) for message in found] == [
        ("/TOPIC_MQTT_INDICATIONc", b"i"),
        ("/TOPIC_MQTT_SIB_COMMANDERc", b"c"),
    ]


async def test_after_unsubscribe_answers_wait_again(serve):
    server = await serve()
    client = await server.client()
    await client.subscribe_own()
    await client.unsubscribe(own_topic(ANSWER, "c"))
    client.publish("", b"x")
    await server.channel().count(1)
    await client.silence()


async def test_take_over_closes_the_old_connection(serve):
    server = await serve()
    old = await server.client("dev", version=MQTT_5)
    first = server.channel("dev")
    new = await server.client("dev")
    assert await old.goodbye() == Reason.SESSION_TAKEN_OVER
    assert await old.is_closed()
    assert first.is_closed
    assert not server.channel("dev").is_closed
    await new.subscribe_own()
    first.connection.acknowledge(b"\x40\x02\0\1")
    first.connection.answer(b"late")
    first.connection.indicate(b"for whoever is there")
    assert (await new.message()).payload == b"for whoever is there"
    await new.silence()
    assert server.endpoint.stats.take_overs == 1


async def test_wills_and_retain_are_accepted_ignored_and_counted(serve):
    server = await serve()
    client = await server.client(will=("t", b"gone", 1, True, ()))
    client.publish("t", b"x", retain=True)
    await server.channel().count(1)
    client.cut()
    await server.until(lambda: server.channel().is_closed)
    stats = server.endpoint.stats
    assert (stats.wills_ignored, stats.retain_ignored, stats.messages_routed) == (1, 1, 0)
    assert server.endpoint.pubsub.retained_count == 0


async def test_credentials_are_ignored_without_authentication(serve):
    server = await serve()
    await server.client(username="anybody", password=b"anything")
    assert server.host.credentials == []


@pytest.mark.parametrize(("version", "refusal"), [(MQTT_3_1, 5), (MQTT_3_1_1, 5), (MQTT_5, Reason.NOT_AUTHORIZED)])
async def test_authentication(serve, version, refusal):
    server = await serve(auth=True)
    server.host.password = b"right"
    wrong = await server.open()
    assert (await wrong.connect("w", version=version, username="u", password=b"wrong"))[1] == refusal
    assert await wrong.is_closed()
    right = await server.open()
    right.version = version
    sending = asyncio.ensure_future(right.connect("r", version=version, username="u", password=b"right"))
    await asyncio.sleep(0)
    right.publish("", b"sent with the CONNECT", qos=1)
    assert (await sending)[1] == 0
    await right.expect(codec.PUBACK)
    assert "w" not in server.host.channels


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_message_above_the_limit_is_thrown_away_and_reported(serve, version, qos):
    def react(connection, request):
        connection.respond(
            request.token, b"too long: %d, %d" % (request.size, len(request.payload)) if request.size else b"fine"
        )

    server = await serve(react=react, message_bytes_max=1000)
    client = await server.client(version=version)
    await client.subscribe_own()
    before = codec.Publish("t", b"x" * 200_000, qos, packet_id=4 if qos else 0)
    packet = codec.encode_publish(before, version)
    client.send(packet)
    client.publish("t", b"small", qos=1, packet_id=5)
    if qos:
        assert (await client.packet())[2] == b"\0\4"
    assert (await client.message()).payload.startswith(b"too long: %d, 10" % (len(packet) - 4))
    assert await client.expect(codec.PUBACK) == b"\0\5"
    assert (await client.message()).payload == b"fine"
    assert server.endpoint.stats.oversized_received == 1


async def test_mqtt_5_is_told_the_limits(serve):
    server = await serve(message_bytes_max=5000, receive_max=7, server_keep_alive_s=30)
    client = await server.open()
    connack = await client.connect(version=MQTT_5, keep_alive_s=600)
    properties = dict(codec.decode_properties(connack, 2, codec.CONNACK)[0])
    assert properties[Property.PACKET_BYTES_MAX] == 5000
    assert properties[Property.RECEIVE_MAX] == 7
    assert properties[Property.SERVER_KEEP_ALIVE] == 30


async def test_more_than_the_receive_maximum_ends_an_mqtt_5_connection(serve):
    server = await serve(react=None, receive_max=3)
    client = await server.client(version=MQTT_5)
    for number in range(1, 5):
        client.publish("", b"x", qos=1, packet_id=number)
    assert await client.goodbye() == Reason.RECEIVE_MAX_EXCEEDED


@pytest.mark.parametrize("qos", [1, 2])
async def test_an_older_client_is_not_read_while_too_much_is_undecided(serve, qos):
    server = await serve(react=None, receive_max=4)
    client = await server.client()
    for number in range(1, 10):
        client.publish("", b"x", qos=qos, packet_id=number)
    client.send(b"\xc0\0")
    received = await server.channel().count(4)
    await asyncio.sleep(0.05)
    assert len(received) == 4
    server.advance(100)
    connection = server.channel().connection
    for done in range(9):
        await server.channel().count(done + 1)
        connection.acknowledge(received[done].token)
    kind = codec.PUBACK if qos == 1 else codec.PUBREC
    found = [(await client.packet())[::2] for _ in range(10)]
    assert [body for found_kind, body in found if found_kind == kind] == [wire.encode_uint16(n) for n in range(1, 10)]
    assert (codec.PINGRESP, b"") in found


async def test_pause_stops_reading_and_resume_goes_on(serve):
    def react(connection, request):
        connection.respond(request.token, request.payload)
        if request.payload == b"2":
            connection.pause()

    server = await serve(react=react)
    client = await server.client()
    await client.subscribe_own()
    for number in range(1, 6):
        client.publish("", b"%d" % number)
    assert [(await client.message()).payload for _ in range(2)] == [b"1", b"2"]
    await asyncio.sleep(0.05)
    assert len(server.channel().received) == 2
    server.channel().connection.resume()
    assert [(await client.message()).payload for _ in range(3)] == [b"3", b"4", b"5"]


async def test_a_client_that_reads_nothing_is_not_read_and_then_closed(serve):
    def react(connection, request):
        connection.respond(request.token, b"x" * 100_000)

    server = await serve(react=react)
    client = await server.client()
    await client.subscribe_own()
    connection = server.channel().connection
    for _ in range(400):
        client.publish("", b"x")
    await server.until(lambda: connection.stalled_since_s)
    received = len(server.channel().received)
    client.publish("", b"one more")
    await (await server.client("another")).silence()
    assert len(server.channel().received) == received <= 400
    server.advance(31)
    await server.until(lambda: server.channel().is_closed)
    assert server.endpoint.stats.slow_timeouts == 1


async def test_answers_of_unlike_lengths_and_grants_keep_their_frames(serve):
    server = await serve()
    client = await server.client(version=MQTT_5)
    await client.subscribe_own(0)
    for qos in (1, 0, 2, 0):
        for size in (1, 200, 200, 20_000, 1):
            client.publish("", b"x" * size)
            answer = await client.message()
            assert len(answer.payload) == size + len("answer to ")
        await client.subscribe_own(qos)


async def test_an_answer_longer_than_the_client_takes_is_not_sent(serve):
    server = await serve()
    client = await server.client(version=MQTT_5, properties=((Property.PACKET_BYTES_MAX, 60),))
    await client.subscribe_own()
    client.publish("", b"x" * 100)
    client.publish("", b"y")
    assert (await client.message()).payload == b"answer to y"
    assert server.endpoint.stats.dropped_too_large == 1


async def test_topic_aliases_carry_requests(serve):
    server = await serve(topic_alias_max=2)
    client = await server.client(version=MQTT_5)
    client.publish("SSAP-REQUEST", b"1", properties=((Property.TOPIC_ALIAS, 1),))
    client.publish("", b"2", properties=((Property.TOPIC_ALIAS, 1),))
    client.publish("", b"3")
    assert [request.clear for request in await server.channel().count(3)] == [True, True, False]


async def test_a_quiet_listener_costs_little(serve):
    server = await serve()
    clients = [await server.client(f"c{number}") for number in range(20)]
    assert len(server.endpoint.connections) == len(clients)
    for connection in server.endpoint.connections:
        assert not hasattr(connection, "__dict__")
        assert connection.session.in_flight is None
        assert not hasattr(connection.session, "__dict__")
