"""What a KP of the platform may ask and is told, over a real configuration database and a real partition, without Ray."""

import asyncio
import shutil

import orjson
import pytest

from actors.config import PlatformConfig, Topology
from actors.inside import Inside, Principal
from actors.kp import watch as watch_module
from actors.kp.calls import KpCalls
from actors.kp.watch import SUBSCRIPTIONS_MAX, Watch
from actors.partition import OntologyPartition
from actors.query import QueryWorker
from actors.sandbox.errors import ProgramError
from sib.access import Role
from sib.errors import AuthorizationError, LimitError, MalformedMessageError, QuerySyntaxError, SibError
from storage.bdc.bdc import open_bdc
from storage.bdc.records import KpRecord, OntologyRecord, UserRecord
from tests.integration.local_actors import LocalRef, use_local_actors

TOPOLOGY = Topology(("mqtt-0",), ("http-0",), ("shard-0",), ("partition-0",), ("query-0",))
NAME = "kp-one"


class Worker:
    """The actor that partitions tell of changes."""

    def __init__(self):
        self.watch = None

    def events(self, partition, announcement):
        self.watch.put(partition, announcement)


class World:
    def __init__(self, config, bdc, worker):
        self.bdc, self.told, self.is_stuck = bdc, [], asyncio.Event()
        self.is_stuck.set()
        self.watch = worker.watch = Watch(NAME, config, self._notify)
        self.inside = Inside(NAME, config)
        who = Principal("sofia", "KP1", "one", "kp:KP1:one", frozenset({"Measure", "Other"}))
        self.calls = KpCalls(self.inside, who, self.watch)

    async def _notify(self, method, payload):
        await self.is_stuck.wait()
        message = orjson.loads(orjson.dumps(payload))
        self.told.append((message["subscription"], [each["n"] for each in message["instances"]]))

    async def ask(self, method, **payload):
        return orjson.loads(orjson.dumps(await self.calls(method, payload)))

    async def insert(self, *numbers):
        for number in numbers:
            await self.ask("insert", ontology="Measure", instance={"n": number})
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    """A configuration database, made once: its migrations take longer than a test."""
    path = tmp_path_factory.mktemp("bdc") / "bdc.db"
    bdc = open_bdc(f"sqlite:///{path}")
    bdc.upgrade()
    with bdc.change() as configuration:
        configuration.users.put(UserRecord("sofia", Role.COLABORADOR))
        for name in ("Measure", "Other", "Kept"):
            configuration.ontologies.put(OntologyRecord(name, "sofia", "{}"))
        configuration.kps.put(KpRecord("KP1", "sofia", ontologies=frozenset({"Measure", "Other", "Kept"})))
    bdc.close()
    return path


@pytest.fixture
async def world(tmp_path, monkeypatch, configured):
    for module in ("actors.partition", "actors.query", "actors.operations_core"):
        monkeypatch.setattr(f"{module}.logs.configure", lambda *_: None)
    (tmp_path / "bdtr").mkdir()
    shutil.copy(configured, tmp_path / "bdc.db")
    bdc = open_bdc(f"sqlite:///{tmp_path}/bdc.db")
    config = PlatformConfig(
        str(tmp_path), f"sqlite:///{tmp_path}/bdc.db", f"sqlite:{tmp_path}/bdtr", TOPOLOGY, listeners=()
    )
    worker = Worker()
    partition = OntologyPartition("partition-0", config)
    actors = {"partition-0": partition, "query-0": QueryWorker("query-0", config), NAME: worker}
    use_local_actors(monkeypatch, actors)
    made = World(config, bdc, worker)
    made.partition, made.config = partition, config
    yield made
    await made.watch.close()


async def test_operations(world):
    assert (await world.ask("join"))["instance"] == "one"
    first = await world.ask("insert", ontology="Measure", instance={"n": 1})
    assert len(await world.ask("insert_many", ontology="Measure", instances=[{"n": 2}, '{"n": 3}'])) == 2
    (row,) = await world.ask("query", text="select * from Measure where n = 1")
    assert row["_id"] == {"$oid": first}
    assert row["contextData"]["kp_instancia"] == "one"
    assert await world.ask("query", text="select count(*) from Measure") == 3
    assert await world.ask("update", text="{n: 1}", ontology="Measure", instance={"n": 5}) == [first]
    assert await world.ask("delete", text="{n: 5}", ontology="Measure") == [first]


@pytest.mark.parametrize(
    ("method", "payload", "error"),
    [
        ("insert", {"ontology": "Kept", "instance": {}}, AuthorizationError),  # of the KP, not of its kp.toml
        ("query", {"text": "select * from Kept"}, AuthorizationError),
        ("subscribe", {"id": "s", "ontology": "Kept"}, AuthorizationError),
        ("insert", {"ontology": "Measure", "instance": [1]}, MalformedMessageError),
        ("insert", {"ontology": 7, "instance": {}}, MalformedMessageError),
        ("insert", {}, MalformedMessageError),
        ("insert_many", {"ontology": "Measure", "instances": {}}, LimitError),
        ("query", {"text": "{}", "ontology": "Measure", "type": "MAGIC"}, MalformedMessageError),
        ("query", {"text": "{}", "ontology": "Measure", "params": {"a": 1}}, MalformedMessageError),
        ("subscribe", {"id": "s", "ontology": "Measure", "ms_refresh": -1}, MalformedMessageError),
        ("subscribe", {"id": "s", "ontology": "Measure", "text": "{n: {$bad: 1}}"}, QuerySyntaxError),
        ("secret", {"name": "none"}, SibError),
    ],
)
async def test_what_is_refused(world, method, payload, error):
    with pytest.raises(error):
        await world.ask(method, **payload)


def test_calls_of_no_kind(world):
    for method, payload in (("reload", {}), ("__init__", {}), ("join", []), ("join", None)):
        with pytest.raises((ProgramError, MalformedMessageError)):
            world.calls(method, payload)


async def test_a_subscription_is_told_what_matches_from_now_on(world):
    await world.insert(100)
    await world.ask("subscribe", id="big", ontology="Measure", text="{n: {$gt: 5}}")
    await world.ask("subscribe", id="all", text="select * from Measure")
    await world.insert(1, 7)
    await world.ask("unsubscribe", id="big")
    await world.insert(8)
    assert [item for item in world.told if item[0] == "big"] == [("big", [7])]
    assert [item for item in world.told if item[0] == "all"] == [("all", [1]), ("all", [7]), ("all", [8])]


async def test_what_comes_within_ms_refresh_comes_together(world):
    await world.ask("subscribe", id="s", ontology="Measure", ms_refresh=100)
    await world.insert(1, 2, 3)
    assert world.told == [("s", [1])]
    await asyncio.sleep(0.2)
    assert world.told == [("s", [1]), ("s", [2, 3])]


async def test_one_that_does_not_read_holds_its_position(world):
    await world.ask("subscribe", id="s", ontology="Measure")
    world.is_stuck.clear()
    await world.insert(1, 2)
    inbox = world.watch._inboxes["partition-0"]
    assert inbox.acked < inbox.received
    world.is_stuck.set()
    await asyncio.sleep(0.05)
    assert world.told == [("s", [1]), ("s", [2])]
    assert inbox.acked == inbox.received


async def test_a_partition_that_begins_again_loses_nothing(world):
    await world.ask("subscribe", id="s", ontology="Measure")
    await world.insert(1)
    world.partition.tick()
    again = OntologyPartition("partition-0", world.config)
    LocalRef.actors["partition-0"] = again
    world.watch._topology = TOPOLOGY
    other = Inside("other", world.config)
    await other.insert(Principal("sofia"), "Measure", {"n": 2})  # before the new process has heard of the watcher
    await world.watch._beat("partition-0")
    await other.insert(Principal("sofia"), "Measure", {"n": 3})
    await asyncio.sleep(0.05)
    assert [numbers for _, numbers in world.told] == [[1], [2], [3]]


async def test_rights_that_are_taken_away_end_a_subscription(world):
    await world.ask("subscribe", id="s", ontology="Measure")
    with world.bdc.change() as configuration:
        configuration.kps.put(KpRecord("KP1", "sofia", ontologies=frozenset({"Other"})))
    await world.inside.reload()
    await world.calls.check_subscriptions()
    assert len(world.watch) == 0


async def test_subscriptions_are_bounded(world, monkeypatch):
    monkeypatch.setattr(watch_module, "SUBSCRIPTIONS_MAX", 2)
    assert SUBSCRIPTIONS_MAX > 2
    for id_ in ("a", "b", "a"):
        await world.ask("subscribe", id=id_, ontology="Measure")
    with pytest.raises(LimitError):
        await world.ask("subscribe", id="c", ontology="Measure")


async def test_the_end_leaves_no_position_behind(world):
    await world.ask("subscribe", id="s", ontology="Measure")
    await world.insert(1)
    world.partition.tick()
    assert NAME in world.partition._store.positions()
    await world.watch.close()
    world.partition.tick()
    assert NAME not in world.partition._store.positions()
