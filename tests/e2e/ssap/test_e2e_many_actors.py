"""Two MQTT gateways on one port, two partitions, two session shards and two query workers: who is where must not matter."""

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from actors.config import Topology
from sib.mqtt import codec, wire
from sib.placement import place
from sofia2 import control
from sofia2.daemon import RunFolder

pytestmark = pytest.mark.timeout(600)
TOPOLOGY = Topology(
    mqtt_gateways=("mqtt-gateway-0", "mqtt-gateway-1"),
    http_gateways=("http-gateway-0",),
    session_shards=("session-shard-0", "session-shard-1"),
    partitions=("partition-0", "partition-1"),
    query_workers=("query-worker-0", "query-worker-1"),
)
A, B = TOPOLOGY.mqtt_gateways
ONTOLOGIES = ("Anything", "Crowd", "Heavy", "Unique", "LegacyTemplate")
LIKE_A_PERSON = f"""
import sys
from actors.config import Topology
from sofia2 import settings
settings.TOPOLOGY = {TOPOLOGY!r}
from sofia2.cli import main
main()
"""
HEAL_S = 15
TRIES = 100


def sofia2(*arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SOFIA2_", "RAY_"))}
    done = subprocess.run(
        [sys.executable, "-c", LIKE_A_PERSON, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if "--json" in arguments else None


class Crowd:
    """The platform, and connections to a chosen one of its gateways."""

    def __init__(self, data, tools):
        self.data, self.tools = data, tools
        self.sib = None
        self.devices = []

    def start(self, *options):
        ready = sofia2("start", "--detach", "--json", "--data", self.data, "--ready-timeout", 180, *options)
        self.sib = self.tools.Sib(ready["data"], ready["endpoints"])

    def stop(self):
        sofia2("stop", "--data", self.data)

    def actors(self):
        return {actor["name"]: actor for actor in control.ask(RunFolder(self.data), "status")["actors"]}

    def pid(self, name):
        return self.actors()[name]["pid"]

    async def device(self, gateway, client_id, *, port="mqtt", **options):
        """A device on a gateway: both listen on one port, so it connects until it has the right one."""
        pid = await asyncio.to_thread(self.pid, gateway)
        target = dataclasses.replace(self.sib, endpoints={**self.sib.endpoints, "mqtt": self.sib.endpoints[port]})
        for number in range(TRIES):
            probe = await asyncio.open_connection(*target.address("mqtt"))
            own_port = probe[1].get_extra_info("sockname")[1]
            owners = [c for c in psutil.Process(pid).net_connections("tcp") if c.raddr and c.raddr.port == own_port]
            if owners:
                device = self.tools.MqttDevice(target, client_id or f"{gateway}-{number}", **options)
                return await self._opened(device, probe)
            probe[1].transport.abort()
        raise AssertionError(f"{gateway} gets no connection")

    async def _opened(self, device, streams):
        """As ``MqttDevice.open``, on a connection that is there."""
        self.devices.append(device)
        device.streams = streams
        return await device.open(subscribe=False)

    async def joined(self, gateway, client_id, instance="i1", **options):
        device = await self.device(gateway, client_id, **options)
        await device.subscribe_own()
        await device.join(instance=instance)
        return device

    async def kill(self, *names):
        """``kill -9`` of actors; returns when their successors work."""
        pids = {name: actor["pid"] for name, actor in (await asyncio.to_thread(self.actors)).items() if name in names}
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(HEAL_S * 4):
            while True:
                actors = await asyncio.to_thread(self.actors)
                if all(actors[name]["pid"] not in (None, pid) for name, pid in pids.items()) and all(
                    actor["state"] == "running" for actor in actors.values()
                ):
                    return
                await asyncio.sleep(0.2)


@pytest.fixture(scope="module")
def crowd_platform(tools, tmp_path_factory):
    crowd = Crowd(tmp_path_factory.mktemp("crowd") / "data", tools)
    crowd.start(
        *("--mqtt-port", 0, "--http-port", 0, "--apply", "tests/data/platform.yaml"),
        *("--apply", "tests/e2e/ssap/ssap.yaml"),
        *("--listener", "plain=mqtt://127.0.0.1:0?ssap=false&pubsub=true"),
    )
    yield crowd
    crowd.stop()


@pytest.fixture
async def crowd(crowd_platform):
    yield crowd_platform
    for device in crowd_platform.devices:
        await device.cut()
    crowd_platform.devices.clear()


def instance(ontology, value):
    if ontology == "LegacyTemplate":
        return {"Root": {"n": value}}
    return {"serial": f"{ontology}-{value}", "n": value}


def condition(ontology, value):
    return f"{{Root.n: {value}}}" if ontology == "LegacyTemplate" else f"{{n: {value}}}"


def subscribe_to(device, topic, qos=1, packet_id=77):
    device.write(
        codec.encode_packet(codec.SUBSCRIBE, 2, wire.encode_uint16(packet_id), wire.encode_string(topic), bytes((qos,)))
    )


def test_the_ontologies_are_on_both_partitions():
    assert {place(ontology, TOPOLOGY.partitions) for ontology in ONTOLOGIES} == set(TOPOLOGY.partitions)


async def test_inserts_and_queries_through_every_gateway(crowd):
    devices = [await crowd.joined(A, "ins-a"), await crowd.joined(B, "ins-b", "i2")]
    for number, device in enumerate(devices):
        for ontology in ONTOLOGIES:
            answer = await device.insert(instance(ontology, 100 + number), ontology)
            assert answer.ok, answer
    for device in devices:
        for ontology in ONTOLOGIES:
            for number in range(2):
                answer = await device.query(condition(ontology, 100 + number), ontology=ontology)
                assert len(answer.rows) == 1, (ontology, answer)
    actors = await asyncio.to_thread(crowd.actors)
    assert all(actors[name]["stats"]["commits"] > 0 for name in TOPOLOGY.partitions)
    assert all(actors[name]["stats"]["connections"] >= 1 for name in (A, B))


async def test_a_session_goes_on_at_another_gateway_until_it_leaves(crowd):
    first = await crowd.joined(A, "moving")
    second = await crowd.device(B, "moving-2")
    await second.subscribe_own()
    second.key = first.key
    assert (await second.insert(instance("Crowd", 200), "Crowd")).ok
    assert (await second.leave()).ok
    async with asyncio.timeout(1):  # the other gateways hear of it at once, but not before it is answered
        while (await first.query("{n: 200}", ontology="Crowd")).ok:
            await asyncio.sleep(0.02)


async def test_indications_cross_gateways_and_partitions(crowd):
    listeners = [await crowd.joined(A, "sub-a"), await crowd.joined(B, "sub-b", "i2")]
    writer = await crowd.joined(B, "sub-writer", "i3")
    for listener in listeners:
        for ontology in ONTOLOGIES:
            await listener.subscribe(condition(ontology, 300), ontology=ontology)
    for ontology in ONTOLOGIES:
        assert (await writer.insert(instance(ontology, 300), ontology)).ok
    for listener in listeners:
        found = {(await listener.indication())["ontology"] for _ in ONTOLOGIES}
        assert found == set(ONTOLOGIES)
        await listener.nothing("indication", 0.3)


async def test_commands_cross_gateways(crowd):
    device = await crowd.joined(A, "commanded", "c1")
    sender = await crowd.joined(B, "commander", "c2")
    wish = {"thinkp": crowd.sib.kp, "thinkpInstance": f"{crowd.sib.kp}:c1", "token": crowd.sib.token, "type": "STATUS"}
    id_ = (await device.ask("SUBSCRIBECOMMAND", wish, key=None)).data
    body = {"thinkp": crowd.sib.kp, "thinkpInstance": f"{crowd.sib.kp}:c1", "type": "STATUS", "args": {"a": 1}}
    assert (await sender.ask("COMMAND", body)).ok
    assert (await device.command())["messageId"] == id_


async def test_a_client_id_is_served_at_one_gateway_and_its_queue_goes_with_it(crowd):
    options = {"version": codec.MQTT_3_1_1, "clean": False}
    device = await crowd.joined(A, "taken", "t1", **options)
    writer = await crowd.joined(A, "taken-writer", "t2")
    await device.subscribe("{n: {$gte: 400, $lt: 500}}", ontology="Crowd")
    assert (await writer.insert(instance("Crowd", 400), "Crowd")).ok
    assert len((await device.indication()).rows) == 1

    moved = await crowd.device(B, "taken", **options)
    assert moved.session_present
    with pytest.raises(ConnectionError):
        await device.event("indication")
    # It has not spoken yet: what A is told goes to B.
    assert (await writer.insert(instance("Crowd", 401), "Crowd")).ok
    assert (await moved.indication()).rows[0]["n"] == 401
    await moved.cut()
    for number in (402, 403):
        assert (await writer.insert(instance("Crowd", number), "Crowd")).ok
    back = await crowd.device(A, "taken", **options)
    assert [(await back.indication()).rows[0]["n"] for _ in range(2)] == [402, 403]
    back.key = device.key
    assert (await back.query("{n: 400}", ontology="Crowd")).ok
    other = await crowd.device(B, "taken", **options)
    other.key = device.key
    assert (await other.query("{n: 400}", ontology="Crowd")).ok
    assert (await writer.insert(instance("Crowd", 404), "Crowd")).ok
    assert (await other.indication()).rows[0]["n"] == 404
    assert (await other.leave()).ok


async def test_ordinary_messages_cross_gateways(crowd):
    class Plain:
        """A device that keeps ordinary messages."""

        def __init__(self, device):
            self.device, self.messages = device, asyncio.Queue()
            device._published = self.messages.put_nowait

        async def message(self):
            return await asyncio.wait_for(self.messages.get(), 10)

    plain = {"port": "plain", "version": codec.MQTT_3_1_1}
    near, far = Plain(await crowd.device(A, "near", **plain)), Plain(await crowd.device(B, "far", **plain))
    for each in (near, far):
        subscribe_to(each.device, "house/#")
        await each.device.event("suback")
    publisher = await crowd.device(A, "publisher", **plain)
    publisher.write(codec.encode_publish(codec.Publish("house/1", b"x", 1, packet_id=5), publisher.version))
    await publisher.event("puback")
    for each in (near, far):
        assert (await each.message()).payload == b"x"

    kept = codec.Publish("house/kept", b"still there", 1, is_retain=True, packet_id=6)
    publisher.write(codec.encode_publish(kept, publisher.version))
    await publisher.event("puback")
    await crowd.kill(A, B)
    for gateway in (A, B):
        again = Plain(await crowd.device(gateway, f"again-{gateway}", **plain))
        subscribe_to(again.device, "house/kept")
        assert (await again.message()).payload == b"still there"


async def test_a_partition_that_dies_loses_nothing_that_was_acknowledged(crowd):
    devices = [await crowd.joined(gateway, f"burst-{gateway}", f"b{n}") for n, gateway in enumerate((A, B))]
    listener = await crowd.joined(A, "burst-listener", "b9", version=codec.MQTT_3_1_1, clean=False)
    for ontology in ("Anything", "Crowd"):
        await listener.subscribe("{n: {$gte: 1000}}", ontology=ontology)
    total = 300

    async def burst(number, device):
        for value in range(total):
            ontology = ("Anything", "Crowd")[value % 2]
            answer = await device.insert(instance(ontology, 1000 + number * total + value), ontology, timeout_s=60)
            assert answer.ok, answer

    bursts = [asyncio.create_task(burst(number, device)) for number, device in enumerate(devices)]
    await asyncio.sleep(0.3)
    await crowd.kill(place("Crowd", TOPOLOGY.partitions))
    await asyncio.gather(*bursts)
    expected = set(range(1000, 1000 + 2 * total))
    stored = []
    for ontology in ("Anything", "Crowd"):
        for first in range(1000, 1000 + 2 * total, 100):
            text = f"{{n: {{$gte: {first}, $lt: {first + 100}}}}}"
            rows = (await devices[0].query(text, ontology=ontology)).rows
            stored += [row["n"] for row in rows]
    assert sorted(stored) == sorted(expected)
    told = set()
    async with asyncio.timeout(60):
        while told != expected:
            told |= {row["n"] for row in (await listener.indication(30)).rows}


async def test_a_session_of_a_gateway_that_died_goes_on_at_the_other(crowd):
    options = {"version": codec.MQTT_3_1_1, "clean": False}
    device = await crowd.joined(B, "orphan", "o1", **options)
    writer = await crowd.joined(A, "orphan-writer", "o2")
    await device.subscribe("{n: {$gte: 5000}}", ontology="Heavy")
    await device.cut()
    assert (await writer.insert(instance("Heavy", 5000), "Heavy")).ok
    await asyncio.sleep(1)
    pid = await asyncio.to_thread(crowd.pid, B)
    gateway_a = await asyncio.to_thread(crowd.pid, A)
    killing = asyncio.create_task(crowd.kill(B))
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        await asyncio.sleep(0.01)
    again = await _device_at(crowd, gateway_a, "orphan", options)
    assert again.session_present
    assert (await again.indication()).rows[0]["n"] == 5000
    await killing
    assert (await writer.insert(instance("Heavy", 5001), "Heavy")).ok
    assert (await again.indication()).rows[0]["n"] == 5001
    assert (await crowd.device(B, "orphan", **options)).session_present


async def _device_at(crowd, pid, client_id, options):
    crowd.pid, original = lambda _: pid, crowd.pid
    try:
        return await crowd.device(A, client_id, **options)
    finally:
        crowd.pid = original


async def test_a_session_that_moves_under_load_misses_nothing(crowd):
    options = {"version": codec.MQTT_3_1_1, "clean": False}
    mover = await crowd.joined(A, "mover", "m1", **options)
    writers = [await crowd.joined(gateway, f"mover-writer-{gateway}", f"m-{gateway}") for gateway in (A, B)]
    for ontology in ("Anything", "Crowd"):
        await mover.subscribe("{n: {$gte: 7000}}", ontology=ontology)
    is_over = asyncio.Event()
    written = []

    async def write(place_, writer):
        value = 7000 + place_
        while not is_over.is_set():
            answer = await writer.insert(instance("Anything", value), ("Anything", "Crowd")[value // 2 % 2])
            assert answer.ok, answer
            written.append(value)
            value += 2

    writing = [asyncio.create_task(write(place_, writer)) for place_, writer in enumerate(writers)]
    met = [mover]
    for number in range(8):
        await asyncio.sleep(0.3)
        moved = await crowd.device((B, A)[number % 2], "mover", **options)
        assert moved.session_present
        moved.key = mover.key
        met.append(moved)
        assert (await moved.query("{n: -1}", ontology="Crowd")).ok
    await asyncio.sleep(0.3)
    is_over.set()
    await asyncio.gather(*writing)
    assert len(written) > 100

    def told():
        events = [event for device in met for event in device.events if event.kind == "indication"]
        return {row["n"] for event in events for row in met[0]._message(event.payload).rows}

    try:
        async with asyncio.timeout(15):
            while told() != set(written):
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"{len(set(written) - told())} of {len(written)} are missing") from None


async def test_retained_messages_outlive_the_platform(crowd):
    ports = [f"--{kind}-port={crowd.sib.address(kind)[1]}" for kind in ("mqtt", "http")]
    listener = f"plain=mqtt://127.0.0.1:{crowd.sib.address('plain')[1]}?ssap=false&pubsub=true"
    await asyncio.to_thread(crowd.stop)
    await asyncio.to_thread(crowd.start, *ports, "--listener", listener)
    device = await crowd.device(B, "after", port="plain", version=codec.MQTT_3_1_1)
    messages = asyncio.Queue()
    device._published = messages.put_nowait
    subscribe_to(device, "house/kept")
    assert (await asyncio.wait_for(messages.get(), 10)).payload == b"still there"
