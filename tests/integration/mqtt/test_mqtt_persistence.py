"""Persistent sessions in a store: durable before they count, there again after the process died."""

from __future__ import annotations

import asyncio

import pytest

from actors.gateway.mqtt import MemorySessionStore, MqttLimits
from sib.errors import StoreUnavailableError
from sib.mqtt import codec
from sib.mqtt.codec import MQTT_5
from sib.mqtt.kp_topics import ANSWER, INDICATION, own_topic
from sib.mqtt.properties import Property
from sib.mqtt.session import QueueBounds


class GatedStore(MemorySessionStore):
    """A store whose calls wait until the test lets them go on, or fail."""

    def __init__(self):
        super().__init__()
        self.is_broken = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.calls = []

    async def _pass(self, name, items):
        self.calls.append((name, len(items)))
        await self.gate.wait()
        if self.is_broken:
            raise OSError("disk full")

    async def save(self, sessions):
        await self._pass("save", sessions)
        await super().save(sessions)

    async def delete(self, client_ids):
        await self._pass("delete", client_ids)
        await super().delete(client_ids)

    async def enqueue(self, messages):
        await self._pass("enqueue", messages)
        await super().enqueue(messages)

    async def dequeue(self, keys):
        await self._pass("dequeue", keys)
        await super().dequeue(keys)


@pytest.fixture
def store():
    return GatedStore()


async def subscriber(server, qos=1, client_id="kp"):
    client = await server.client(client_id, clean=False)
    await client.subscribe_own(qos)
    return client


async def away(server, client_id="kp"):
    await server.until(lambda: server.endpoint.sessions[client_id].connection is None)


def stored(store):
    return [message.payload for message in (store.messages[key] for key in sorted(store.messages))]


async def test_indications_reach_a_client_that_comes_back(serve, store):
    server = await serve(store=store)
    client = await subscriber(server)
    client.cut()
    await away(server)
    await server.endpoint.deliver_indications([("kp", b"1"), ("unknown", b"x"), ("kp", b"2")])
    assert stored(store) == [b"1", b"2"]
    assert server.endpoint.stats.dropped_offline == 1
    again = await server.client("kp", clean=False)
    for payload in (b"1", b"2"):
        message = await again.message()
        assert (message.topic, message.payload, message.qos) == ("/TOPIC_MQTT_INDICATIONkp", payload, 1)
        again.acknowledge(codec.PUBACK, message.packet_id)
    await again.silence()
    await server.until(lambda: not store.messages)


async def test_an_indication_counts_only_when_it_is_durable(serve, store):
    server = await serve(store=store)
    client = await subscriber(server)
    store.gate.clear()
    delivery = asyncio.ensure_future(server.endpoint.deliver_indications([("kp", b"1")]))
    await server.until(lambda: ("enqueue", 1) in store.calls)
    await client.silence()
    assert not delivery.done()
    store.gate.set()
    await delivery
    assert (await client.message()).payload == b"1"
    waiting = server.channel("kp").connection.indicate(b"2")
    assert waiting is not None
    await waiting
    assert stored(store) == [b"1", b"2"]


@pytest.mark.parametrize("qos", [0, 1])
async def test_who_is_not_persistent_costs_no_store(serve, store, qos):
    server = await serve(store=store)
    client = await server.client("kp", clean=bool(qos))
    await client.subscribe_own(qos)
    store.calls.clear()
    await server.endpoint.deliver_indications([("kp", b"1")])
    assert (await client.message()).payload == b"1"
    assert store.calls == []
    client.cut()
    await server.until(lambda: server.channel("kp").is_closed)
    await server.endpoint.deliver_indications([("kp", b"2")])
    assert server.endpoint.stats.dropped_offline == 1


async def test_a_store_that_fails_is_told_and_nothing_is_sent(serve, store):
    server = await serve(store=store)
    client = await subscriber(server)
    store.is_broken = True
    with pytest.raises(StoreUnavailableError):
        await server.endpoint.deliver_indications([("kp", b"1")])
    await client.silence()
    assert server.endpoint.stats.store_failures == 1
    store.is_broken = False
    await server.endpoint.deliver_indications([("kp", b"1")])
    assert (await client.message()).payload == b"1"


async def test_a_suback_of_a_persistent_session_is_durable(serve, store):
    server = await serve(store=store)
    client = await server.client("kp", clean=False)
    store.gate.clear()
    client.ask_to_subscribe((own_topic(ANSWER, "kp"), 1))
    await client.silence()
    client.publish("", b"x")
    await client.silence()
    store.gate.set()
    await client.expect(codec.SUBACK)
    assert (await client.message()).payload == b"answer to x"
    assert store.sessions["kp"].state["subscriptions"] == {"/TOPIC_MQTT_PUBLISHkp": [1, False, False, 0, 0]}


async def test_a_subscribe_that_cannot_be_stored_is_not_acknowledged(serve, store):
    server = await serve(store=store)
    client = await server.client("kp", clean=False)
    store.is_broken = True
    client.ask_to_subscribe((own_topic(ANSWER, "kp"), 1))
    assert await client.reader.read() == b""


@pytest.mark.parametrize("is_connected", [False, True])
async def test_everything_is_there_after_the_process_died(serve, store, is_connected):
    first = await serve(store=store)
    client = await subscriber(first, 2)
    client.publish("", b"q", qos=2, packet_id=8)
    await client.expect(codec.PUBREC)
    await client.message()
    if not is_connected:
        client.cut()
        await away(first)
    await first.endpoint.deliver_indications([("kp", b"1"), ("kp", b"2")])
    snapshot = MemorySessionStore()
    snapshot.sessions, snapshot.messages = dict(store.sessions), dict(store.messages)

    second = await serve(store=snapshot)
    again = await second.open()
    assert (await again.connect("kp", clean=False))[0] == 1
    messages = [await again.message() for _ in range(2)]
    assert [(m.payload, m.qos, m.is_dup) for m in messages] == [(b"1", 2, False), (b"2", 2, False)]
    for message in messages:
        again.acknowledge(codec.PUBREC, message.packet_id)
        await again.expect(codec.PUBREL)
        again.acknowledge(codec.PUBCOMP, message.packet_id)
    again.publish("", b"hello")
    assert (await again.message()).payload == b"answer to hello"
    await second.until(lambda: not snapshot.messages)
    await second.endpoint.deliver_indications([("kp", b"3")])
    assert (await again.message()).payload == b"3"
    if not is_connected:
        # What was finished before the session was last stored is not run again.
        before = len(second.channel("kp").received)
        again.publish("", b"q", qos=2, packet_id=8, dup=True)
        assert await again.expect(codec.PUBREC) == b"\0\x08"
        assert len(second.channel("kp").received) == before


async def test_numbers_go_on_after_a_restart(serve, store):
    first = await serve(store=store)
    client = await subscriber(first)
    client.cut()
    await away(first)
    await first.endpoint.deliver_indications([("kp", b"1"), ("kp", b"2")])
    second = await serve(store=store)
    await second.endpoint.deliver_indications([("kp", b"3")])
    assert stored(store) == [b"1", b"2", b"3"]


async def test_sessions_between_devices_come_back(serve, store):
    first = await serve(store=store, ssap=False, pubsub=True)
    keep = ((Property.SESSION_EXPIRY, 1000),)
    client = await first.client("d", version=MQTT_5, clean=False, properties=keep)
    await client.subscribe(("a/#", 2), ("$share/g/b", 1), properties=((Property.SUBSCRIPTION_ID, 5),))
    await client.leave()
    publisher = await first.client("p", version=MQTT_5)
    users = ((Property.USER, ("k", "v")), (Property.CORRELATION_DATA, b"\0\1"), (Property.MESSAGE_EXPIRY, 500))
    publisher.publish("a/1", b"1", qos=1, packet_id=1, properties=users)
    publisher.publish("b", b"2", qos=1, packet_id=2)
    for _ in range(2):
        await publisher.expect(codec.PUBACK)

    second = await serve(store=store, ssap=False, pubsub=True)
    again = await second.open()
    assert (await again.connect("d", version=MQTT_5, clean=False, properties=keep))[0] == 1
    first_message, second_message = await again.message(), await again.message()
    assert (first_message.topic, first_message.payload) == ("a/1", b"1")
    properties = dict(first_message.properties)
    assert properties[Property.USER] == ("k", "v")
    assert properties[Property.CORRELATION_DATA] == b"\0\1"
    assert properties[Property.SUBSCRIPTION_ID] == 5
    assert 400 < properties[Property.MESSAGE_EXPIRY] <= 500
    assert second_message.payload == b"2"
    again.publish("a/2", b"3", qos=1)
    payloads = {(await again.packet())[2][-1:] for _ in range(2)}
    assert b"3" in payloads


async def test_a_message_for_who_is_away_is_stored_before_it_is_acknowledged(serve, store):
    server = await serve(store=store, ssap=False, pubsub=True)
    client = await server.client("d", clean=False)
    await client.subscribe(("t", 1))
    await client.leave()
    publisher = await server.client("p")
    store.gate.clear()
    publisher.publish("t", b"1", qos=1, packet_id=1)
    publisher.publish("other", b"2", qos=1, packet_id=2)
    await publisher.silence()
    store.gate.set()
    assert [await publisher.expect(codec.PUBACK) for _ in range(2)] == [b"\0\1", b"\0\2"]
    assert stored(store) == [b"1"]
    store.is_broken = True
    publisher.publish("t", b"3", qos=1, packet_id=3)
    assert await publisher.reader.read() == b""


async def test_a_clean_start_and_an_expiry_leave_nothing_behind(serve, store):
    server = await serve(store=store, session_expiry_s=100)
    for client_id in ("clean", "old"):
        client = await subscriber(server, client_id=client_id)
        client.cut()
        await away(server, client_id)
    await server.endpoint.deliver_indications([("clean", b"1"), ("old", b"2")])
    assert len(store.messages) == 2
    await server.client("clean", clean=True)
    await server.until(lambda: set(store.sessions) == {"old"})
    server.advance(101)
    await server.until(lambda: not store.sessions and not store.messages)
    assert set(server.endpoint.sessions) == {"clean"}
    assert server.endpoint.delivery.queue_bytes == 0


async def test_what_the_queue_drops_leaves_the_store_too(serve, store):
    server = await serve(store=store, limits=MqttLimits(queue=QueueBounds(messages_max=2)))
    client = await subscriber(server)
    client.cut()
    await away(server)
    await server.endpoint.deliver_indications([("kp", b"%d" % number) for number in range(5)])
    await server.until(lambda: stored(store) == [b"3", b"4"])
    assert server.endpoint.stats.dropped_queue_full == 3


async def test_all_queues_together_are_bounded(serve, store):
    server = await serve(store=store, limits=MqttLimits(queue_bytes_all_max=1000))
    for client_id in ("a", "b"):
        client = await subscriber(server, client_id=client_id)
        client.cut()
        await away(server, client_id)
    await server.endpoint.deliver_indications([("a", b"x" * 300), ("b", b"x" * 300), ("b", b"y")])
    assert server.endpoint.delivery.queue_bytes <= 1000
    assert server.endpoint.stats.dropped_queue_full == 1


async def test_changes_collect_while_the_store_is_busy(serve, store):
    server = await serve(store=store)
    client = await subscriber(server)
    store.gate.clear()
    store.calls.clear()
    deliveries = [
        asyncio.ensure_future(server.endpoint.deliver_indications([("kp", b"%d" % number)])) for number in range(50)
    ]
    await server.until(lambda: store.calls)
    store.gate.set()
    await asyncio.gather(*deliveries)
    assert [(await client.message()).payload for _ in range(50)] == [b"%d" % number for number in range(50)]
    assert len(store.calls) <= 2


async def test_a_stored_session_that_is_too_old_ends_at_once(serve, store):
    first = await serve(store=store, session_expiry_s=100)
    client = await subscriber(first)
    client.cut()
    await away(first)
    await first.until(lambda: store.sessions["kp"].left_at_s is not None)
    [old] = store.sessions.values()
    store.sessions["kp"] = type(old)(old.client_id, old.state, old.expiry_s, old.left_at_s - 200)
    second = await serve(store=store)
    second.advance(0)
    again = await second.open()
    assert (await again.connect("kp", clean=False))[0] == 0


async def test_a_session_of_mqtt_5_that_ends_with_its_disconnect_leaves_the_store(serve, store):
    server = await serve(store=store)
    client = await server.client("kp", version=MQTT_5, clean=False, properties=((Property.SESSION_EXPIRY, 50),))
    await client.subscribe_own(1, kinds=(INDICATION,))
    assert set(store.sessions) == {"kp"}
    client.send(b"\xe0\x07\0\x05\x11\0\0\0\0")
    assert await client.is_closed()
    await server.until(lambda: not store.sessions)
