"""Operations from inside the platform, over a real configuration database and a real partition, without Ray between them."""

import asyncio
from datetime import datetime

import pytest
from bson import ObjectId

from actors import inside
from actors.config import PlatformConfig, Topology
from actors.inside import Inside, Principal
from actors.partition import OntologyPartition
from actors.query import QueryWorker
from sib.access import Permission, Role
from sib.errors import AuthorizationError, InvalidInstanceError, OntologyNotFoundError
from sib.ssap.messages import QueryType
from storage.bdc.bdc import open_bdc
from storage.bdc.records import KpRecord, OntologyRecord, UserRecord
from tests.integration.local_actors import use_local_actors

SCHEMA = '{"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"], "additionalProperties": false}'
TOPOLOGY = Topology(("mqtt-0",), ("http-0",), ("shard-0",), ("partition-0",), ("query-0",))
SOFIA, ANA = Principal("sofia", session_key="rule:test"), Principal("ana")


@pytest.fixture
async def platform(tmp_path, monkeypatch):
    for module in ("actors.partition", "actors.query", "actors.operations_core"):
        monkeypatch.setattr(f"{module}.logs.configure", lambda *_: None)
    (tmp_path / "bdtr").mkdir()
    bdc = open_bdc(f"sqlite:///{tmp_path}/bdc.db")
    bdc.upgrade()
    with bdc.change() as configuration:
        for name, role in (("sofia", Role.COLABORADOR), ("ana", Role.USUARIO)):
            configuration.users.put(UserRecord(name, role))
        configuration.ontologies.put(OntologyRecord("Measure", "sofia", SCHEMA, permissions={"ana": Permission.QUERY}))
        configuration.ontologies.put(OntologyRecord("Other", "sofia", "{}"))
        configuration.kps.put(KpRecord("KP1", "sofia", ontologies=frozenset({"Measure"})))
    config = PlatformConfig(
        str(tmp_path), f"sqlite:///{tmp_path}/bdc.db", f"sqlite:{tmp_path}/bdtr", TOPOLOGY, listeners=()
    )
    partition = OntologyPartition("partition-0", config)
    use_local_actors(monkeypatch, {"partition-0": partition, "query-0": QueryWorker("query-0", config)})
    return Inside("rule-runner-0", config), bdc, partition


async def test_what_is_inserted_is_found_with_its_context(platform):
    inside_, _, _ = platform
    id_ = await inside_.insert(SOFIA, "Measure", {"n": 1})
    (row,) = await inside_.query(SOFIA, "select * from Measure where n = 1")
    assert row["_id"] == id_
    assert row["contextData"]["user"] == "sofia"
    assert row["contextData"]["session_key"] == "rule:test"
    assert await inside_.query(SOFIA, "select count(*) from Measure") == 1


async def test_an_instance_with_bson_values_is_stored_as_such(platform):
    inside_, _, _ = platform
    moment = datetime(2026, 1, 2, 3, 4, 5)
    await inside_.insert(SOFIA, "Other", {"at": moment, "of": ObjectId("5" * 24)})
    (row,) = await inside_.query(SOFIA, "{}", query_type=QueryType.NATIVE, ontology="Other")
    assert (row["at"], row["of"]) == (moment, ObjectId("5" * 24))


async def test_once_is_once(platform):
    inside_, _, partition = platform
    id_ = ObjectId("a" * 24)
    before = partition.stats()["seq"]
    assert await inside_.insert(SOFIA, "Measure", {"n": 1}, once=id_) == id_
    assert await inside_.insert(SOFIA, "Measure", {"n": 2}, once=id_) == id_
    rows = await inside_.query(SOFIA, "select * from Measure")
    assert [(row["_id"], row["n"]) for row in rows] == [(id_, 1)]
    assert partition.stats()["seq"] == before + 1
    with pytest.raises(InvalidInstanceError):
        await inside_.insert(SOFIA, "Measure", {"n": "one"}, once=ObjectId())


async def test_those_stored_once_are_told_apart_within_a_batch(platform):
    inside_, _, _ = platform
    ids = [ObjectId(f"{number:024x}") for number in range(3)]
    # Rights that are not known yet are read in threads, which end in any order.
    assert await inside_.query(SOFIA, "select count(*) from Measure") == 0
    outcomes = await asyncio.gather(
        inside_.insert(SOFIA, "Measure", {"n": 0}, once=ids[0]),
        inside_.insert(SOFIA, "Measure", {"n": "one"}, once=ids[1]),
        inside_.insert(SOFIA, "Measure", {"n": 5}, once=ids[0]),
        inside_.insert(SOFIA, "Measure", {"n": 9}),
        inside_.insert(SOFIA, "Measure", {"n": 2}, once=ids[2]),
        return_exceptions=True,
    )
    assert [outcomes[at] for at in (0, 2, 4)] == [ids[0], ids[0], ids[2]]
    assert isinstance(outcomes[1], InvalidInstanceError)
    rows = await inside_.query(SOFIA, "select * from Measure")
    assert sorted(row["n"] for row in rows) == [0, 2, 9]


async def test_many_are_stored_together_or_not_at_all(platform):
    inside_, _, _ = platform
    assert len(await inside_.insert_many(SOFIA, "Measure", [{"n": 1}, {"n": 2}])) == 2
    with pytest.raises(InvalidInstanceError):
        await inside_.insert_many(SOFIA, "Measure", [{"n": 3}, {"n": "four"}])
    assert await inside_.query(SOFIA, "select count(*) from Measure") == 2


async def test_update_and_delete_say_what_they_did(platform):
    inside_, _, _ = platform
    id_ = await inside_.insert(SOFIA, "Measure", {"n": 1})
    assert await inside_.update(SOFIA, 'db.Measure.update({"n": 1}, {"$set": {"n": 5}})') == [id_]
    assert await inside_.delete(SOFIA, '{"n": 5}', ontology="Measure") == [id_]


async def test_everybody_has_his_own_rights(platform):
    inside_, bdc, _ = platform
    await inside_.insert(SOFIA, "Measure", {"n": 1})
    assert len(await inside_.query(ANA, "select * from Measure")) == 1
    for attempt in (
        inside_.insert(ANA, "Measure", {"n": 1}),
        inside_.insert(ANA, "Measure", {"n": 1}, once=ObjectId()),
        inside_.query(ANA, "select * from Other"),
        inside_.insert(Principal("nobody"), "Measure", {"n": 1}),
        inside_.insert(Principal("sofia", "KP1"), "Other", {"n": 1}),  # not one of the KP's ontologies
    ):
        with pytest.raises((AuthorizationError, OntologyNotFoundError)):
            await attempt
    with bdc.change() as configuration:
        configuration.ontologies.put(OntologyRecord("Measure", "sofia", SCHEMA, permissions={"ana": Permission.ALL}))
    await inside_.reload()
    await inside_.insert(ANA, "Measure", {"n": 2})


async def test_a_principal_may_be_confined_to_less_than_his_rights(platform):
    inside_, _, _ = platform
    confined = Principal("sofia", ontologies=frozenset({"Measure"}))
    await inside_.insert(confined, "Measure", {"n": 1})
    await inside_.insert(SOFIA, "Other", {"n": 1})
    for attempt in (
        inside_.insert(confined, "Other", {"n": 1}),
        inside_.query(confined, "select * from Other"),
        inside_.condition(confined, "{}", ontology="Other"),
    ):
        with pytest.raises(AuthorizationError):
            await attempt


async def test_a_subscription_has_an_ontology_and_a_condition(platform):
    inside_, _, _ = platform
    sql = await inside_.condition(SOFIA, "select * from Measure where n > 2", query_type=QueryType.SQLLIKE)
    assert sql == await inside_.condition(SOFIA, "{n: {$gt: 2}}", ontology="Measure") == ("Measure", {"n": {"$gt": 2}})
    assert await inside_.condition(ANA, "", ontology="Measure") == ("Measure", {})
    with pytest.raises(AuthorizationError):
        await inside_.condition(ANA, "", ontology="Other")
    with pytest.raises(OntologyNotFoundError):
        await inside_.condition(ANA, "", ontology="")


async def test_it_is_no_consumer_of_changes(platform):
    inside_, _, partition = platform
    await inside_.insert(SOFIA, "Measure", {"n": 1})
    partition.tick()
    assert partition._store.positions() == {}


def test_principals_are_told_apart():
    assert inside.Principal("a", session_key="x") != inside.Principal("a", session_key="y")


async def test_who_is_no_longer_of_the_configuration_keeps_nothing_waiting(platform, tmp_path):
    """Else the history would wait for a module that was switched off."""
    _, _, partition = platform
    store = partition._store
    store.save_positions({"rule-runner-gone": 0, "mqtt-0": 0, "kp-thermostat-0": 0})
    store.close()
    config = PlatformConfig(
        str(tmp_path), f"sqlite:///{tmp_path}/bdc.db", f"sqlite:{tmp_path}/bdtr", TOPOLOGY, listeners=()
    )
    assert set(OntologyPartition("partition-0", config)._store.positions()) == {"mqtt-0", "kp-thermostat-0"}
