"""Two gateways that share a store: one client id is one session, wherever the client connects."""

from __future__ import annotations

import asyncio
import pickle
import shutil

import pytest

from actors.gateway.mqtt_bdc import BdcSessionStore
from actors.gateway.mqtt_peers import MqttPeers
from actors.runtime import ActorGoneError
from sib.mqtt import codec
from sib.mqtt.codec import MQTT_5
from sib.mqtt.errors import Reason
from sib.mqtt.kp_topics import INDICATION, own_topic
from sib.mqtt.properties import Property
from storage.bdc.bdc import open_bdc

NAMES = ("a", "b", "c")


class Gateways:
    """Endpoints by name, and what goes between them: as by Ray, but in one process."""

    def __init__(self, serve, url):
        self._serve = serve
        self._url = url
        self.servers = {}
        self.peers = {}
        self.gone: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def start(self, name, *, among=NAMES[:2], **options):
        """Start a gateway, or start it again after ``kill``."""
        bdc = open_bdc(self._url)
        options = {"ssap": True, "pubsub": True, **options}
        server = await self._serve(
            store=BdcSessionStore(bdc, name, among),
            peers=lambda endpoint: self._peers_of(endpoint, name, among),
            **options,
        )
        self.servers[name] = server
        self.gone.discard(name)
        self.peers[name].begin()
        await self.peers[name].locate([])
        return server

    def _peers_of(self, endpoint, name, among):
        self.peers[name] = MqttPeers(endpoint, name, among, self._call, pubsub=among, write_timeout_s=1)
        return self.peers[name]

    async def _call(self, gateway, method, *arguments):
        self.calls.append((gateway, method))
        await self.gate.wait()
        await asyncio.sleep(0)
        if gateway in self.gone:
            raise ActorGoneError(f"{gateway} is not there")
        arguments = pickle.loads(pickle.dumps(arguments))
        return pickle.loads(pickle.dumps(await getattr(self.peers[gateway], method)(*arguments)))

    def kill(self, name):
        """The process of a gateway ends: nothing of it is written any more."""
        self.gone.add(name)
        endpoint = self.servers[name].endpoint
        endpoint._writer._waiting.clear()
        endpoint._writer._store = None
        endpoint._sweep_handle.cancel()
        for connection in list(endpoint.connections):
            connection.cut()
        for server in endpoint._servers:
            server.close()


@pytest.fixture
def gateways(serve, tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path / "bdc.db")
    return Gateways(serve, f"sqlite:///{tmp_path}/bdc.db")


@pytest.fixture
async def pair(gateways):
    return await gateways.start("a"), await gateways.start("b")


async def persistent(server, client_id="kp", *, subscribe=True, **given):
    client = await server.open()
    body = await client.connect(client_id, clean=False, **given)
    assert body[1] == 0
    client.is_session_present = bool(body[0])
    if subscribe:
        await client.subscribe((own_topic(INDICATION, client_id), 1))
    return client


async def test_a_client_that_connects_elsewhere_is_taken_over(pair):
    a, b = pair
    old = await a.client("kp", version=MQTT_5)
    new = await b.client("kp", version=MQTT_5)
    assert await old.goodbye() == Reason.SESSION_TAKEN_OVER
    assert await old.is_closed()
    assert "kp" not in a.endpoint.sessions
    await new.silence()
    back = await a.client("kp")
    assert await new.goodbye() == Reason.SESSION_TAKEN_OVER
    await back.silence()


async def test_what_waits_for_a_client_is_sent_where_it_comes_back(pair):
    a, b = pair
    client = await persistent(a)
    client.cut()
    await a.until(lambda: a.endpoint.sessions["kp"].connection is None)
    await a.endpoint.deliver_indications([("kp", b"%d" % number) for number in range(50)])
    again = await persistent(b, subscribe=False)
    assert again.is_session_present
    for number in range(50):
        message = await again.message()
        assert message.payload == b"%d" % number
        again.acknowledge(codec.PUBACK, message.packet_id)
    await again.silence()
    assert "kp" not in a.endpoint.sessions
    # Its number goes on growing on the other gateway, and back.
    await b.endpoint.deliver_indications([("kp", b"more")])
    assert (await again.message()).payload == b"more"
    third = await persistent(a, subscribe=False)
    assert (await third.message()).payload == b"more"


async def test_what_was_on_its_way_is_sent_again_with_its_packet_id(pair):
    a, b = pair
    client = await persistent(a)
    await client.subscribe(("t", 2), (own_topic(0, "kp"), 1), packet_id=9)
    await a.endpoint.deliver_indications([("kp", b"1")])
    first = await client.message()
    client.publish("", b"request")
    answer = await client.message()
    publisher = await a.client("publisher")
    publisher.publish("t", b"2", 2)
    second = await client.message()
    client.acknowledge(codec.PUBREC, second.packet_id)
    await client.expect(codec.PUBREL)

    again = await persistent(b, subscribe=False)
    resent = [await again.message(), await again.message()]
    assert {(one.payload, one.packet_id, one.is_dup) for one in resent} == {
        (b"1", first.packet_id, True),
        (b"answer to request", answer.packet_id, True),
    }
    assert int.from_bytes((await again.expect(codec.PUBREL))[:2]) == second.packet_id
    for one in resent:
        again.acknowledge(codec.PUBACK, one.packet_id)
    again.acknowledge(codec.PUBCOMP, second.packet_id)
    await again.silence()
    assert b.endpoint.sessions["kp"].in_flight_count == 0


async def test_indications_for_a_client_that_went_elsewhere_follow_it(pair, gateways):
    a, b = pair
    await persistent(a)
    client = await persistent(b, subscribe=False)
    await a.endpoint.deliver_indications([("kp", b"1"), ("kp", b"2")])
    assert [(await client.message()).payload for _ in range(2)] == [b"1", b"2"]
    client.cut()
    await b.until(lambda: b.endpoint.sessions["kp"].connection is None)
    await a.endpoint.deliver_indications([("kp", b"3")])
    again = await persistent(b, subscribe=False)
    assert [(await again.message()).payload for _ in range(3)] == [b"1", b"2", b"3"]
    assert a.endpoint.stats.dropped_offline == 0


async def test_a_client_without_a_lasting_session_gets_indications_while_it_is_there(pair):
    a, b = pair
    client = await b.client("kp")
    await client.subscribe_own(0)
    await a.endpoint.deliver_indications([("kp", b"1")])
    assert (await client.message()).payload == b"1"
    await client.leave()
    await a.endpoint.deliver_indications([("kp", b"2"), ("kp", b"3")])
    await a.endpoint.deliver_indications([("kp", b"4")])
    assert a.endpoint.stats.dropped_offline == 3


async def test_a_clean_start_ends_the_session_everywhere(pair):
    a, b = pair
    client = await persistent(a)
    client.cut()
    await a.until(lambda: a.endpoint.sessions["kp"].connection is None)
    await a.endpoint.deliver_indications([("kp", b"1")])
    await (await b.client("kp")).leave()
    again = await persistent(a, subscribe=False)
    assert not again.is_session_present
    await again.silence()


async def test_an_empty_lasting_session_is_present_elsewhere_too(pair):
    a, b = pair
    await persistent(a, subscribe=False)
    assert (await persistent(b, subscribe=False)).is_session_present
    assert not (await persistent(a, "other", subscribe=False)).is_session_present


async def test_the_will_of_a_client_that_goes_on_elsewhere(pair):
    a, b = pair
    watcher = await b.client("watcher")
    await watcher.subscribe(("will/#", 0))
    delayed = (Property.WILL_DELAY, 60)
    lasts = {"version": MQTT_5, "clean": False, "properties": [(Property.SESSION_EXPIRY, 300)]}
    await a.client("kp", will=("will/delayed", b"x", 0, False, [delayed]), **lasts)
    await a.client("kq", will=("will/at once", b"x", 0, False, []), **lasts)
    await b.client("kp", **lasts)
    await b.client("kq", **lasts)
    assert (await watcher.message()).topic == "will/at once"
    a.advance(100)
    await watcher.silence()


async def test_who_connects_at_two_gateways_at_once_is_served_at_one(pair, gateways):
    a, b = pair
    for round_ in range(20):
        client_id = f"kp{round_}"
        gateways.gate.clear()
        first, second = await a.open(), await b.open()
        connects = [asyncio.ensure_future(one.connect(client_id, clean=False)) for one in (first, second)]
        await asyncio.sleep(0.01)
        gateways.gate.set()
        await asyncio.wait(connects, timeout=2)
        held = [server for server in pair if client_id in server.endpoint.sessions]
        assert len(held) == 1
        assert held[0].endpoint.sessions[client_id].connection is not None
        loser = first if held[0] is b else second
        assert await loser.is_closed()
        await asyncio.gather(*connects, return_exceptions=True)


async def test_many_clients_move_at_once(pair):
    a, b = pair
    clients = [await persistent(a, f"kp{number}") for number in range(60)]
    await a.endpoint.deliver_indications([(f"kp{number}", b"1") for number in range(60)])
    moved = await asyncio.gather(*(persistent(b, f"kp{number}", subscribe=False) for number in range(60)))
    assert all(client.is_session_present for client in moved)
    assert [(await client.message()).payload for client in moved] == [b"1"] * 60
    assert all([await client.is_closed() for client in clients])
    assert not a.endpoint.sessions


async def test_a_session_whose_gateway_died_goes_on_elsewhere(pair, gateways):
    a, b = pair
    client = await persistent(a)
    await a.endpoint.deliver_indications([("kp", b"1")])
    assert (await client.message()).payload == b"1"
    gateways.kill("a")
    again = await persistent(b, subscribe=False)
    assert again.is_session_present
    assert (await again.message()).payload == b"1"
    await b.endpoint.deliver_indications([("kp", b"2")])
    assert (await again.message()).payload == b"2"
    a = await gateways.start("a")
    await a.until(lambda: ("a", "mqtt_claimed") in gateways.calls)
    assert "kp" not in a.endpoint.sessions
    await a.until(lambda: "kp" in gateways.peers["a"]._elsewhere)
    await a.endpoint.deliver_indications([("kp", b"3")])
    assert (await again.message()).payload == b"3"


async def test_a_gateway_that_was_taken_for_dead_learns_it_from_the_store(pair, gateways):
    a, b = pair
    client = await persistent(a)
    gateways.gone.add("a")
    again = await persistent(b, subscribe=False)
    assert again.is_session_present
    waiting = a.endpoint.indicate("kp", b"1")
    with pytest.raises(Exception, match="another gateway"):
        await waiting
    assert await client.is_closed()
    assert "kp" not in a.endpoint.sessions
    gateways.gone.discard("a")
    await a.until(lambda: "kp" in gateways.peers["a"]._elsewhere)
    await a.endpoint.deliver_indications([("kp", b"1")])
    assert (await again.message()).payload == b"1"


async def test_after_a_start_clients_are_found_where_they_are(gateways):
    a, b = await gateways.start("a"), await gateways.start("b")
    client = await b.client("kp")
    await client.subscribe_own(0)
    gateways.kill("a")
    a = await gateways.start("a")
    assert gateways.peers["a"].indicate("kp", b"0") is None
    gateways.peers["a"]._located.clear()
    waiting = asyncio.ensure_future(a.endpoint.deliver_indications([("kp", b"1")]))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await gateways.peers["a"].locate(["kp", "nobody", ""])
    await waiting
    assert (await client.message()).payload == b"1"


async def test_sessions_of_a_gateway_that_is_no_more_are_taken_over_at_the_start(gateways):
    await gateways.start("a")
    b = await gateways.start("b")
    await persistent(b)
    await b.endpoint.deliver_indications([("kp", b"1")])
    for name in NAMES[:2]:
        gateways.kill(name)
    a = await gateways.start("a", among=("a",))
    again = await persistent(a, subscribe=False)
    assert (await again.message()).payload == b"1"


# Ordinary publish/subscribe


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_message_reaches_the_subscribers_of_every_gateway(pair, qos):
    a, b = pair
    near, far = await a.client("near"), await b.client("far")
    for subscriber in (near, far):
        await subscriber.subscribe(("t/#", 2))
    publisher = await a.client("publisher")
    publisher.publish("t/1", b"x", qos)
    for subscriber in (near, far):
        message = await subscriber.message()
        assert (message.topic, message.payload, message.qos) == ("t/1", b"x", qos)
    await publisher_done(publisher, qos)


async def publisher_done(publisher, qos):
    if qos:
        await publisher.expect(codec.PUBACK if qos == 1 else codec.PUBREC)


async def test_a_puback_comes_when_the_other_gateway_has_stored_the_message(pair, gateways):
    a, b = pair
    subscriber = await persistent(b, "subscriber", subscribe=False)
    await subscriber.subscribe(("t", 1))
    subscriber.cut()
    await b.until(lambda: b.endpoint.sessions["subscriber"].connection is None)
    publisher = await a.client("publisher")
    gateways.gate.clear()
    publisher.publish("t", b"x", 1)
    await publisher.silence()
    gateways.gate.set()
    await publisher.expect(codec.PUBACK)
    gateways.kill("b")
    b = await gateways.start("b")
    again = await persistent(b, "subscriber", subscribe=False)
    assert (await again.message()).payload == b"x"


async def test_a_message_waits_for_a_gateway_that_restarts(pair, gateways):
    a, b = pair
    subscriber = await persistent(b, "subscriber", subscribe=False)
    await subscriber.subscribe(("t", 1))
    gateways.kill("b")
    publisher = await a.client("publisher")
    publisher.publish("t", b"x", 1)
    b = await gateways.start("b")
    await publisher.expect(codec.PUBACK)
    again = await persistent(b, "subscriber", subscribe=False)
    assert (await again.message()).payload == b"x"


async def test_a_publisher_is_not_acknowledged_when_a_gateway_stays_away(pair, gateways):
    a, _ = pair
    gateways.kill("b")
    publisher = await a.client("publisher", version=MQTT_5)
    publisher.publish("t", b"x", 1)
    assert await publisher.goodbye() == Reason.UNSPECIFIED


async def test_subscriptions_go_with_the_session(pair):
    a, b = pair
    await (await persistent(a, subscribe=False)).subscribe(("t", 1))
    client = await persistent(b, subscribe=False)
    for number, server in enumerate(pair):
        publisher = await server.client(f"publisher{number}")
        publisher.publish("t", b"%d" % number, 1)
        message = await client.message()
        assert message.payload == b"%d" % number
    await client.silence()


# Retained messages


async def test_retained_messages_are_those_of_all_gateways_and_outlive_them(pair, gateways):
    publisher = await pair[0].client("publisher", version=MQTT_5)
    publisher.publish("t/1", b"one", 1, retain=True)
    await publisher.expect(codec.PUBACK)
    publisher.publish("t/2", b"two", 1, 2, retain=True, properties=[(Property.CONTENT_TYPE, "text")])
    await publisher.expect(codec.PUBACK)
    publisher.publish("t/3", b"three", 1, 3, retain=True, properties=[(Property.MESSAGE_EXPIRY, 3600)])
    await publisher.expect(codec.PUBACK)
    publisher.publish("t/1", b"", 1, 4, retain=True)
    await publisher.expect(codec.PUBACK)
    for _ in range(2):
        for name in NAMES[:2]:
            subscriber = await gateways.servers[name].client(f"s{name}", version=MQTT_5)
            await subscriber.subscribe(("t/#", 1))
            found = [await subscriber.message(), await subscriber.message()]
            assert [(one.topic, one.payload, one.is_retain) for one in sorted(found, key=lambda one: one.topic)] == [
                ("t/2", b"two", True),
                ("t/3", b"three", True),
            ]
            properties = dict(next(one.properties for one in found if one.topic == "t/2"))
            assert properties[Property.CONTENT_TYPE] == "text"
            assert dict(next(one.properties for one in found if one.topic == "t/3"))[Property.MESSAGE_EXPIRY] > 3500
            await subscriber.silence()
        for name in NAMES[:2]:
            gateways.kill(name)
            await gateways.start(name)


async def test_a_later_retained_message_counts_wherever_it_came(pair, gateways):
    a, b = pair
    for number, server in enumerate((a, b, a)):
        publisher = await server.client(f"p{number}")
        publisher.publish("t", b"%d" % number, 1, retain=True)
        await publisher.expect(codec.PUBACK)
    gateways.kill("b")
    await gateways.start("b")
    for server in gateways.servers.values():
        subscriber = await server.client("subscriber")
        await subscriber.subscribe(("t", 0))
        assert (await subscriber.message()).payload == b"2"
