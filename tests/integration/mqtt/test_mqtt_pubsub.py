"""Ordinary publish/subscribe: what the Eclipse paho interoperability suite asks of a broker, and more."""

from __future__ import annotations

import asyncio

import pytest

from actors.gateway.mqtt import MemorySessionStore, MqttLimits
from sib.mqtt import codec, wire
from sib.mqtt.codec import MQTT_3_1, MQTT_3_1_1, MQTT_5
from sib.mqtt.errors import Reason
from sib.mqtt.properties import Property
from sib.mqtt.session import QueueBounds

VERSIONS = [MQTT_3_1, MQTT_3_1_1, MQTT_5]
KEEP = ((Property.SESSION_EXPIRY, 1000),)


@pytest.fixture
async def suite(serve):
    """A listener as the interoperability suite wants it."""
    return await serve(
        ssap=False,
        pubsub=True,
        receive_max=20,
        server_keep_alive_s=60,
        topic_alias_max=10,
        deny_subscribe=("test/nosubscribe",),
    )


async def persistent(server, client_id, version):
    return await server.client(client_id, version=version, clean=False, properties=KEEP)


async def take(client, count):
    """That many messages by payload, with every exchange of QoS 1 and 2 in both directions carried to its end."""
    found, unfinished = {}, set()
    while len(found) < count or unfinished:
        kind, flags, body = await client.packet()
        packet_id = int.from_bytes(body[:2], "big")
        if kind == codec.PUBLISH:
            message = codec.decode_publish(flags, body, client.version)
            found[message.payload] = message
            if message.qos == 1:
                client.acknowledge(codec.PUBACK, message.packet_id)
            elif message.qos == 2:
                client.acknowledge(codec.PUBREC, message.packet_id)
                unfinished.add(message.packet_id)
        elif kind == codec.PUBREL:
            client.acknowledge(codec.PUBCOMP, packet_id)
            unfinished.remove(packet_id)
        elif kind == codec.PUBREC:
            client.acknowledge(codec.PUBREL, packet_id)
    return found


async def publish_all(client, *topics, retain=False, properties=()):
    """A message of QoS 0, 1 and 2 to three topics."""
    for qos, topic in enumerate(topics):
        client.publish(topic, b"qos %d" % qos, qos=qos, packet_id=qos + 1, retain=retain, properties=properties)
    await client.expect(codec.PUBACK)
    await client.expect(codec.PUBREC)
    client.acknowledge(codec.PUBREL, 3)
    await client.expect(codec.PUBCOMP)


@pytest.mark.parametrize("version", VERSIONS)
async def test_qos_is_the_lesser_of_publication_and_subscription(suite, version):
    publisher = await suite.client("p", version=version)
    for granted in (0, 1, 2):
        subscriber = await suite.client(f"s{granted}", version=version)
        assert await subscriber.subscribe(("TopicA", granted)) == [granted]
        await publish_all(publisher, "TopicA", "TopicA", "TopicA")
        found = await take(subscriber, 3)
        assert {message.qos for message in found.values()} == {min(qos, granted) for qos in range(3)}
        assert not any(message.is_retain for message in found.values())


@pytest.mark.parametrize("version", VERSIONS)
async def test_retained_messages(suite, version):
    users = ((Property.USER, ("a", "2")), (Property.USER, ("c", "3"))) if version == MQTT_5 else ()
    publisher = await suite.client("p", version=version)
    await publish_all(publisher, "TopicA/B", "Topic/C", "TopicA/C", retain=True, properties=users)
    subscriber = await suite.client("s", version=version)
    await subscriber.subscribe(("+/+", 2))
    found = await take(subscriber, 3)
    assert all(message.is_retain and message.properties == users for message in found.values())
    publisher.publish("TopicA/B", b"", retain=True)
    await publisher.silence()
    assert suite.endpoint.pubsub.retained_count == 2
    again = await suite.client("s2", version=version)
    await again.subscribe(("TopicA/B", 2), ("TopicA/C", 0))
    assert set(await take(again, 1)) == {b"qos 2"}
    await again.silence()


async def test_retained_messages_are_bounded(serve):
    server = await serve(ssap=False, pubsub=True, limits=MqttLimits(retained_max=2))
    client = await server.client()
    for topic in ("a", "b", "c", "a"):
        client.publish(topic, b"x", retain=True)
    await client.silence()
    assert server.endpoint.pubsub.retained_count == 2
    assert server.endpoint.stats.retained_refused == 1


async def test_a_retained_message_takes_the_place_of_the_one_before(serve):
    server = await serve(ssap=False, pubsub=True, limits=MqttLimits(retained_bytes_max=1000))
    client = await server.client()
    for number in range(10):
        client.publish("t", b"%d" % number * 500, retain=True)
    await client.silence()
    assert server.endpoint.stats.retained_refused == 0
    client.publish("t2", b"x" * 500, retain=True)
    await client.silence()
    assert server.endpoint.stats.retained_refused == 1


@pytest.mark.parametrize("version", VERSIONS)
async def test_messages_for_a_client_that_is_away(suite, version):
    subscriber = await persistent(suite, "s", version)
    await subscriber.subscribe(("+/+", 2))
    await subscriber.leave()
    publisher = await suite.client("p", version=version)
    await publish_all(publisher, "TopicA/B", "Topic/C", "TopicA/C")
    again = await suite.open()
    connack = await again.connect("s", version=version, clean=False, properties=KEEP)
    assert connack[0] == (version != MQTT_3_1)
    assert set(await take(again, 2)) == {b"qos 1", b"qos 2"}
    await again.silence()


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_clean_start_forgets(suite, version):
    subscriber = await persistent(suite, "s", version)
    await subscriber.subscribe(("t", 1))
    await subscriber.leave()
    again = await suite.open()
    assert (await again.connect("s", version=version))[0] == 0
    publisher = await suite.client("p")
    publisher.publish("t", b"x", qos=1)
    await publisher.expect(codec.PUBACK)
    await again.silence()


@pytest.mark.parametrize("version", VERSIONS)
async def test_unfinished_messages_are_sent_again_on_reconnect(suite, version):
    subscriber = await persistent(suite, "s", version)
    await subscriber.subscribe(("TopicA/#", 2))
    publisher = await suite.client("p", version=version)
    publisher.publish("TopicA/B", b"one", qos=1, packet_id=1)
    publisher.publish("TopicA/C", b"two", qos=2, packet_id=2)
    publisher.publish("TopicA/D", b"three", qos=2, packet_id=3)
    first = [await subscriber.message() for _ in range(3)]
    subscriber.acknowledge(codec.PUBREC, first[2].packet_id)
    await subscriber.expect(codec.PUBREL)
    subscriber.cut()
    await suite.until(lambda: suite.endpoint.sessions["s"].connection is None)
    again = await persistent(suite, "s", version)
    second = [await again.message() for _ in range(2)]
    assert [(m.payload, m.packet_id, m.is_dup) for m in second] == [(m.payload, m.packet_id, True) for m in first[:2]]
    assert await again.expect(codec.PUBREL) == wire.encode_uint16(first[2].packet_id)
    again.acknowledge(codec.PUBCOMP, first[2].packet_id)
    again.acknowledge(codec.PUBACK, second[0].packet_id)
    again.acknowledge(codec.PUBREC, second[1].packet_id)
    await again.expect(codec.PUBREL)
    again.acknowledge(codec.PUBCOMP, second[1].packet_id)
    await again.silence()
    assert suite.endpoint.sessions["s"].in_flight_count == 0


@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])
async def test_overlapping_subscriptions_give_one_message(suite, version):
    client = await suite.client(version=version)
    assert await client.subscribe(("TopicA/#", 2), ("TopicA/+", 1)) == [2, 1]
    client.publish("TopicA/C", b"overlapping", qos=2)
    found = await take(client, 1)
    assert found[b"overlapping"].qos == 2


async def test_subscribe_failure_and_bad_filters(suite):
    old = await suite.client("old")
    assert await old.subscribe(("test/nosubscribe", 2), ("a/#/b", 0), ("a", 1)) == [0x80, 0x80, 1]
    new = await suite.client("new", version=MQTT_5)
    assert await new.subscribe(("test/nosubscribe", 2), ("a/#/b", 0), ("$share/g", 0), ("a", 1)) == [
        0x80,
        Reason.TOPIC_FILTER_INVALID,
        Reason.TOPIC_FILTER_INVALID,
        1,
    ]


async def test_subscriptions_of_a_session_are_bounded(serve):
    server = await serve(ssap=False, pubsub=True, limits=MqttLimits(subscriptions_max=2))
    client = await server.client(version=MQTT_5)
    assert await client.subscribe(("a", 0), ("b", 0), ("c", 0), ("a", 1)) == [0, 0, Reason.QUOTA_EXCEEDED, 1]


async def test_wildcards_do_not_take_dollar_topics(suite):
    client = await suite.client()
    await client.subscribe(("#", 2), ("+/+", 2))
    client.publish("$TopicA/B", b"x", qos=1)
    await client.expect(codec.PUBACK)
    await client.silence()


@pytest.mark.parametrize("version", VERSIONS)
async def test_unsubscribe(suite, version):
    client = await suite.client(version=version)
    await client.subscribe(("a", 0), ("b/#", 0))
    body = await client.unsubscribe("a", "unknown")
    assert body == (b"\0\2\0\0\x11" if version == MQTT_5 else b"\0\2")
    client.publish("a", b"x")
    client.publish("b/c", b"y")
    assert (await client.message()).payload == b"y"
    await client.silence()


@pytest.mark.parametrize("version", VERSIONS)
async def test_will(suite, version):
    witness = await suite.client("witness", version=version)
    await witness.subscribe(("will", 2))
    for client_id, is_cut in (("polite", False), ("lost", True)):
        client = await suite.client(client_id, version=version, will=("will", client_id.encode(), 1, True, ()))
        if is_cut:
            client.cut()
        else:
            await client.leave()
    found = await take(witness, 1)
    assert found[b"lost"].qos == 1
    await witness.silence()
    assert suite.endpoint.pubsub.retained_count == 1


async def test_will_by_disconnect_with_will(suite):
    witness = await suite.client("witness", version=MQTT_5)
    await witness.subscribe(("will", 0))
    client = await suite.client("c", version=MQTT_5, will=("will", b"yes", 0, False, ()))
    client.send(b"\xe0\x01\x04")
    assert (await witness.message()).payload == b"yes"


async def test_will_by_keep_alive_and_by_broken_packet(suite):
    witness = await suite.client("witness")
    await witness.subscribe(("will", 0))
    await suite.client("dead", keep_alive_s=5, will=("will", b"dead", 0, False, ()))
    suite.advance(8)
    assert (await witness.message()).payload == b"dead"
    bad = await suite.client("bad", will=("will", b"bad", 0, False, ()))
    bad.send(b"\x36\x00")
    assert (await witness.message()).payload == b"bad"


async def test_will_delay(suite):
    witness = await suite.client("witness")
    await witness.subscribe(("will", 0))
    loop = asyncio.get_running_loop()
    delay = ((Property.WILL_DELAY, 1),)
    for client_id in ("away", "back"):
        client = await suite.client(
            client_id, version=MQTT_5, will=("will", client_id.encode(), 0, False, delay), properties=KEEP
        )
        client.cut()
    began = loop.time()
    await suite.until(lambda: len(suite.endpoint._away) == 2)
    await persistent(suite, "back", MQTT_5)
    assert (await witness.message()).payload == b"away"
    assert 0.8 < loop.time() - began < 2
    await witness.silence()


async def test_a_will_goes_with_its_session(suite):
    witness = await suite.client("witness")
    await witness.subscribe(("will", 0))
    will = ("will", b"gone", 0, False, ((Property.WILL_DELAY, 900),))
    client = await suite.client("c", version=MQTT_5, will=will, properties=((Property.SESSION_EXPIRY, 30),))
    client.cut()
    await suite.until(lambda: suite.endpoint.sessions["c"].connection is None)
    suite.advance(31)
    assert (await witness.message()).payload == b"gone"


async def test_sessions_expire(suite):
    def expiry(seconds):
        return ((Property.SESSION_EXPIRY, seconds),)

    async def is_present(properties, clean=False):
        client = await suite.open()
        return client, (await client.connect("s", version=MQTT_5, clean=clean, properties=properties))[0]

    client, _ = await is_present(expiry(0), clean=True)
    await client.leave()
    client, present = await is_present(expiry(5))
    assert not present
    await client.leave()
    suite.advance(4)
    client, present = await is_present(expiry(5))
    assert present
    await client.leave()
    suite.advance(6)
    client, present = await is_present(expiry(1))
    assert not present
    client.send(b"\xe0\x07\0\x05\x11\0\0\0\5")
    await client.is_closed()
    suite.advance(3)
    client, present = await is_present(expiry(1))
    assert present
    client.send(b"\xe0\x07\0\x05\x11\0\0\0\0")
    await client.is_closed()
    client, present = await is_present(expiry(0))
    assert not present
    client.send(b"\xe0\x07\0\x05\x11\0\0\0\5")
    assert await client.goodbye() == Reason.PROTOCOL_ERROR


async def test_a_session_lives_no_longer_than_the_listener_allows(serve):
    server = await serve(ssap=False, pubsub=True, session_expiry_s=100)
    new = await server.open()
    connack = await new.connect("new", version=MQTT_5, properties=((Property.SESSION_EXPIRY, 0xFFFFFFFF),))
    assert dict(codec.decode_properties(connack, 2, codec.CONNACK)[0])[Property.SESSION_EXPIRY] == 100
    old = await server.client("old", clean=False)
    await new.leave()
    await old.leave()
    server.advance(99)
    assert set(server.endpoint.sessions) == {"new", "old"}
    server.advance(2)
    assert not server.endpoint.sessions


async def test_properties_pass_through(suite):
    client = await suite.client(version=MQTT_5)
    await client.subscribe(("t", 2))
    properties = (
        (Property.PAYLOAD_FORMAT, 1),
        (Property.CONTENT_TYPE, "My name"),
        (Property.RESPONSE_TOPIC, "answer/here"),
        (Property.CORRELATION_DATA, b"334"),
        (Property.USER, ("a", "2")),
        (Property.USER, ("a", "3")),
    )
    for qos in range(3):
        client.publish("t", b"%d" % qos, qos=qos, packet_id=qos + 1, properties=properties)
    found = await take(client, 3)
    assert all(message.properties == properties for message in found.values())


async def test_messages_expire(suite):
    subscriber = await persistent(suite, "s", MQTT_5)
    await subscriber.subscribe(("t", 2))
    await subscriber.leave()
    publisher = await suite.client("p", version=MQTT_5)
    for number, (expiry_s, payload) in enumerate(((1, b"short"), (6, b"long")), 1):
        publisher.publish(
            "t", payload, qos=1, packet_id=number, retain=True, properties=((Property.MESSAGE_EXPIRY, expiry_s),)
        )
        await publisher.expect(codec.PUBACK)
    suite.advance(3)
    again = await persistent(suite, "s", MQTT_5)
    found = await take(again, 1)
    assert dict(found[b"long"].properties)[Property.MESSAGE_EXPIRY] in (3, 4)
    suite.advance(4)
    other = await suite.client("other", version=MQTT_5)
    await other.subscribe(("t", 0))
    await other.silence()
    assert suite.endpoint.pubsub.retained_count == 0


async def test_no_local(suite):
    a, b = [await suite.client(name, version=MQTT_5) for name in "ab"]
    for client in (a, b):
        await client.subscribe(("t", 2 | 4))
    a.publish("t", b"x")
    assert (await b.message()).payload == b"x"
    await a.silence()


async def test_retain_as_published(suite):
    client = await suite.client(version=MQTT_5)
    await client.subscribe(("t", 2 | 8))
    client.publish("t", b"no", qos=0)
    client.publish("t", b"yes", qos=0, retain=True)
    assert [(await client.message()).is_retain for _ in range(2)] == [False, True]


async def test_retain_handling(suite):
    client = await suite.client(version=MQTT_5)
    client.publish("t", b"x", retain=True)
    for handling, is_sent in ((1, True), (1, False), (2, False), (0, True), (0, True)):
        await client.subscribe(("t", handling << 4))
        if is_sent:
            assert (await client.message()).is_retain
        await client.silence()


async def test_subscription_identifiers(suite):
    client = await suite.client(version=MQTT_5)
    await client.subscribe(("a/#", 0), properties=((Property.SUBSCRIPTION_ID, 456_789),))
    await client.subscribe(("a/b", 0), properties=((Property.SUBSCRIPTION_ID, 2),))
    client.publish("a/b", b"x")
    found = (await client.message()).properties
    assert sorted(found) == [(Property.SUBSCRIPTION_ID, 2), (Property.SUBSCRIPTION_ID, 456_789)]
    client.publish("a/b", b"x", properties=((Property.SUBSCRIPTION_ID, 2),))
    assert await client.goodbye() == Reason.PROTOCOL_ERROR


async def test_topic_aliases_of_the_client(suite):
    client = await suite.client(version=MQTT_5)
    await client.subscribe(("t", 0))
    client.publish("t", b"1", properties=((Property.TOPIC_ALIAS, 10),))
    client.publish("", b"2", properties=((Property.TOPIC_ALIAS, 10),))
    found = [await client.message() for _ in range(2)]
    assert [(m.topic, m.payload, m.properties) for m in found] == [("t", b"1", ()), ("t", b"2", ())]
    client.publish("t", b"3", properties=((Property.TOPIC_ALIAS, 11),))
    assert await client.goodbye() == Reason.TOPIC_ALIAS_INVALID
    again = await suite.client(version=MQTT_5)
    again.publish("", b"2", properties=((Property.TOPIC_ALIAS, 10),))
    assert await again.goodbye() == Reason.TOPIC_ALIAS_INVALID


async def test_topic_aliases_of_the_server(suite):
    client = await suite.client(version=MQTT_5, properties=((Property.TOPIC_ALIAS_MAX, 1),))
    await client.subscribe(("#", 0))
    for topic in ("a", "a", "b"):
        client.publish(topic, b"x")
    found = [await client.message() for _ in range(3)]
    assert [(m.topic, m.properties) for m in found] == [
        ("a", ((Property.TOPIC_ALIAS, 1),)),
        ("", ((Property.TOPIC_ALIAS, 1),)),
        ("b", ()),
    ]


@pytest.mark.parametrize("is_too_long", [True, False])
async def test_an_alias_is_used_only_after_the_client_was_told_of_it(suite, is_too_long):
    topic, payload = "a/topic", b"x" * 60
    size = len(codec.encode_publish(codec.Publish(topic, payload), MQTT_5))  # with an alias it is longer
    properties = ((Property.TOPIC_ALIAS_MAX, 1), (Property.PACKET_BYTES_MAX, size - is_too_long))
    client = await suite.client(version=MQTT_5, properties=properties)
    await client.subscribe((topic, 0))
    for text in (payload, b"short", b"short"):
        client.publish(topic, text)
    found = [await client.message() for _ in range(2 if is_too_long else 3)]
    alias = ((Property.TOPIC_ALIAS, 1),)
    expected = [(topic, payload, ()), (topic, b"short", alias), ("", b"short", alias)]
    assert [(m.topic, m.payload, m.properties) for m in found] == expected[is_too_long:]


@pytest.mark.parametrize("room", [0, 1])
async def test_the_longest_packet_of_the_client_is_respected(suite, room):
    payload = b"x" * 60
    size = len(codec.encode_publish(codec.Publish("t", payload), MQTT_5))
    client = await suite.client(version=MQTT_5, properties=((Property.PACKET_BYTES_MAX, size - 1 + room),))
    await client.subscribe(("t", 0))
    client.publish("t", payload)
    if room:
        assert (await client.message()).payload == payload
    await client.silence()


async def test_the_window_of_the_client_is_respected(suite):
    client = await suite.client(version=MQTT_5, properties=((Property.RECEIVE_MAX, 2),))
    await client.subscribe(("t", 2))
    publisher = await suite.client("p", version=MQTT_5)
    for number in range(1, 11):
        publisher.publish("t", b"%d" % number, qos=1 + number % 2, packet_id=number)
    first = [await client.message() for _ in range(2)]
    await client.silence()
    assert [message.payload for message in first] == [b"1", b"2"]
    client.acknowledge(codec.PUBACK, first[1].packet_id)
    third = await client.message()
    assert third.payload == b"3"
    client.acknowledge(codec.PUBREC, first[0].packet_id)
    await client.expect(codec.PUBREL)
    await client.silence()
    client.acknowledge(codec.PUBCOMP, first[0].packet_id)
    assert (await client.message()).payload == b"4"


async def test_the_window_of_the_server_is_enforced(suite):
    client = await suite.client(version=MQTT_5)
    for number in range(1, 22):
        client.publish("t", b"x", qos=2, packet_id=number)
    for _ in range(20):
        await client.expect(codec.PUBREC)
    assert await client.goodbye() == Reason.RECEIVE_MAX_EXCEEDED


async def test_a_finished_message_frees_the_window(suite):
    client = await suite.client(version=MQTT_5)
    for number in range(1, 60):
        client.publish("t", b"x", qos=2, packet_id=number)
        await client.expect(codec.PUBREC)
        client.acknowledge(codec.PUBREL, number)
        await client.expect(codec.PUBCOMP)


async def test_shared_subscriptions(suite):
    members = [await suite.client(f"m{number}", version=MQTT_5) for number in range(2)]
    for member in members:
        assert await member.subscribe(("$share/sharename/t", 1)) == [1]
    plain = await suite.client("plain", version=MQTT_5)
    await plain.subscribe(("t", 1))
    for number in range(1, 11):
        plain.publish("t", b"%d" % number, qos=1, packet_id=number)
    await take(plain, 10)
    shares = [await take(member, 5) for member in members]
    assert sorted(int(payload) for share in shares for payload in share) == list(range(1, 11))
    await members[0].leave()
    plain.publish("t", b"11", qos=1, packet_id=11)
    assert set(await take(members[1], 1)) == {b"11"}


async def test_a_member_that_is_away_is_passed_over(suite):
    away = await persistent(suite, "away", MQTT_5)
    await away.subscribe(("$share/g/t", 1))
    await away.leave()
    there = await suite.client("there", version=MQTT_5)
    await there.subscribe(("$share/g/t", 1))
    for number in range(1, 5):
        there.publish("t", b"%d" % number, qos=1, packet_id=number)
    assert set(await take(there, 4)) == {b"1", b"2", b"3", b"4"}


async def test_the_queue_of_a_client_that_is_away_is_bounded(serve):
    limits = MqttLimits(queue=QueueBounds(messages_max=3))
    server = await serve(ssap=False, pubsub=True, limits=limits)
    subscriber = await persistent(server, "s", MQTT_5)
    await subscriber.subscribe(("t", 1))
    await subscriber.leave()
    publisher = await server.client("p")
    for number in range(1, 6):
        publisher.publish("t", b"%d" % number, qos=1, packet_id=number)
        await publisher.expect(codec.PUBACK)
    again = await persistent(server, "s", MQTT_5)
    assert list(await take(again, 3)) == [b"3", b"4", b"5"]
    assert server.endpoint.stats.dropped_queue_full == 2
    assert server.endpoint.delivery.queue_bytes == 0


async def test_qos_0_to_a_client_that_reads_too_slowly_is_dropped(serve):
    server = await serve(ssap=False, pubsub=True, limits=MqttLimits(write_buffer_bytes_max=100_000))
    slow = await server.client("slow")
    await slow.subscribe(("t", 0))
    publisher = await server.client("p")
    for number in range(1, 61):
        publisher.publish("t", b"x" * 500_000, qos=1, packet_id=number)
        await publisher.expect(codec.PUBACK)
    assert server.endpoint.stats.dropped_slow_reader > 0


async def test_payloads_that_are_ssap_are_requests_where_both_are_on(serve):
    server = await serve(ssap=True, pubsub=True)
    device, listener = await server.client("device"), await server.client("listener")
    await listener.subscribe(("#", 0))
    envelope = b'{"messageType":"QUERY","body":"{}"}'
    requests = [
        ("room", envelope),
        ("", b"a"),
        ("CLIENT_TOPIC", b"b"),
        ("SSAP-REQUEST", b"c"),
        ("/queue/message", b"d"),
    ]
    ordinary = [
        ("room", b"21.5"),
        ("room", b'{"temp":1}'),
        ("room", b'"messageType" broken'),
        ("r", b'["messageType"]'),
    ]
    for topic, payload in requests + ordinary:
        device.publish(topic, payload, qos=1)
        await device.expect(codec.PUBACK)
    received = server.channel("device").received
    assert [request.payload for request in received] == [payload for _, payload in requests]
    assert [request.clear for request in received] == [False, False, False, True, False]
    assert [(m.topic, m.payload) for m in [await listener.message() for _ in ordinary]] == ordinary
    await listener.silence()


async def test_others_own_topics_cannot_be_read_where_both_are_on(serve):
    server = await serve(ssap=True, pubsub=True)
    spy = await server.client("spy")
    assert await spy.subscribe(("/TOPIC_MQTT_PUBLISHvictim", 0), ("/#", 0), ("#", 0)) == [0x80, 0, 0]
    victim = await server.client("victim")
    await victim.subscribe_own()
    victim.publish("", b"secret")
    assert (await victim.message()).payload == b"answer to secret"
    spy.publish("/TOPIC_MQTT_INDICATIONvictim", b"forged")
    await victim.silence()


async def test_acknowledgements_keep_their_order_where_both_are_on(serve):
    server = await serve(ssap=True, pubsub=True, react=None)
    client = await server.client()
    client.publish("", b"request", qos=1, packet_id=1)
    client.publish("room", b"ordinary", qos=1, packet_id=2)
    client.publish("", b"request", qos=1, packet_id=3)
    requests = await server.channel().count(2)
    await client.silence()
    server.channel().connection.acknowledge(requests[1].token)
    await client.silence()
    server.channel().connection.acknowledge(requests[0].token)
    assert [await client.expect(codec.PUBACK) for _ in range(3)] == [b"\0\1", b"\0\2", b"\0\3"]


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_retained_message_without_room_is_refused_to_clients_that_can_be_told(serve, qos):
    server = await serve(pubsub=True, ssap=False, limits=MqttLimits(retained_max=1))
    subscriber = await server.client("subscriber")
    await subscriber.subscribe(("t/#", 0))
    publisher = await server.client("publisher", version=MQTT_5)
    acknowledgement = codec.PUBACK if qos == 1 else codec.PUBREC
    publisher.publish("t/1", b"kept", qos, 1, retain=True)
    assert len(await publisher.expect(acknowledgement)) == 2
    for packet_id in (2, 3):
        publisher.publish("t/2", b"refused", qos, packet_id, retain=True)
        body = await publisher.expect(acknowledgement)
        assert (body[1], body[2]) == (packet_id, Reason.QUOTA_EXCEEDED)
    # The packet id of a refused message is free again; one that takes another's place has room.
    publisher.publish("t/1", b"newer", qos, 2, retain=True)
    assert len(await publisher.expect(acknowledgement)) == 2
    assert [(await subscriber.message()).payload for _ in range(2)] == [b"kept", b"newer"]
    await subscriber.silence()
    assert server.endpoint.stats.retained_refused == 2


async def test_room_is_made_by_what_has_expired(serve):
    store = MemorySessionStore()
    server = await serve(pubsub=True, store=store, limits=MqttLimits(retained_max=1))
    publisher = await server.client("publisher", version=MQTT_5)
    publisher.publish("t/1", b"1", 1, retain=True, properties=[(Property.MESSAGE_EXPIRY, 10)])
    await publisher.expect(codec.PUBACK)
    server.advance(11)
    publisher.publish("t/2", b"2", 1, retain=True)
    assert len(await publisher.expect(codec.PUBACK)) == 2
    await server.until(lambda: list(store.retained) == ["t/2"])


class BrokenStore(MemorySessionStore):
    async def retain(self, changes):
        raise OSError("disk full")


async def test_a_retained_message_that_cannot_be_stored_is_not_acknowledged(serve):
    server = await serve(pubsub=True, store=BrokenStore())
    publisher = await server.client("publisher", version=MQTT_5)
    publisher.publish("t", b"x", 1, retain=True)
    assert await publisher.goodbye() == Reason.UNSPECIFIED


async def test_retained_messages_are_there_after_a_restart(serve):
    store = MemorySessionStore()
    server = await serve(pubsub=True, store=store)
    publisher = await server.client("publisher")
    for number in range(3):
        publisher.publish("t", b"%d" % number, 0, retain=True)
    await server.until(lambda: "t" in store.retained and store.retained["t"].payload == b"2")
    again = await serve(pubsub=True, store=store)
    subscriber = await again.client("subscriber")
    await subscriber.subscribe(("t", 0))
    message = await subscriber.message()
    assert (message.payload, message.is_retain) == (b"2", True)
    publisher = await again.client("publisher")
    publisher.publish("t", b"", 1, retain=True)
    await publisher.expect(codec.PUBACK)
    assert store.retained == {}
