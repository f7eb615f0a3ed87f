"""SUBSCRIBE: what matches, how often it is told, what is refused, what ends it."""

import json
import time

import pytest

ONTOLOGY = "TestSensorTemperatura"
SQL = "select * from TestSensorTemperatura where "


@pytest.mark.parametrize(("text", "kind", "hits"), [
    ("", "NATIVE", {1, 2, 3}),
    ("{}", "NATIVE", {1, 2, 3}),
    ("", "SQLLIKE", {1, 2, 3}),
    ("{Sensor.measure:{$gt:1}}", "NATIVE", {2, 3}),
    ("{Sensor.measure:{$gte:1, $lt:3}}", "NATIVE", {1, 2}),
    ("{$or:[{Sensor.measure:1},{Sensor.measure:3}]}", "NATIVE", {1, 3}),
    ("{Sensor.assetId:/^sub/, Sensor.measure:2}", "NATIVE", {2}),
    ("{contextData.kp:'KPSsap', Sensor.measure:{$in:[1,2]}}", "NATIVE", {1, 2}),
    ("{contextData.kp:'KPOther'}", "NATIVE", set()),
    ("db.TestSensorTemperatura.find({'Sensor.measure':{$lt:3}}).sort({'Sensor.measure':-1}).limit(1)", "NATIVE", {1, 2}),
    (SQL + "Sensor.measure > 1 order by measure desc limit 1", "SQLLIKE", {2, 3}),
    ("select Sensor.assetId from TestSensorTemperatura where measure between 2 and 3", "SQLLIKE", {2, 3}),
    (SQL + "TestSensorTemperatura.assetId like 'sub%' and not (measure = 2)", 1, {1, 3}),
    ("{Sensor.geometry:{$geoWithin:{$center:[[40.5,-3.6],1]}}, Sensor.measure:3}", "NATIVE", {3}),
])  # fmt: skip
async def test_what_matches_is_notified(websocket, tools, text, kind, hits):
    device = await websocket()
    id_ = await device.subscribe(text, kind, 0)
    for measure in (1, 2, 3):
        await device.insert(tools.sensor(measure, "sub"))
    got = set()
    while len(got) < len(hits):
        indication = await device.indication()
        assert indication["messageId"] == id_
        got |= {row["Sensor"]["measure"] for row in indication.rows}
    await device.nothing("indication", 0.2)
    assert got == hits


async def test_updates_are_notified_with_the_new_state_and_deletes_not(websocket, tools):
    device = await websocket()
    await device.clear()
    await device.insert(tools.sensor(1, "upd"))
    await device.subscribe("{Sensor.assetId:'upd', Sensor.measure:{$gt:5}}", ms_refresh=0)
    change = "update TestSensorTemperatura set measure={} where assetId='upd'"
    for measure in (3, 9):
        body = {"data": None, "query": change.format(measure), "queryType": "SQLLIKE"}
        await device.ask("UPDATE", body, ontology=ONTOLOGY)
    [row] = (await device.indication()).rows
    assert row["Sensor"]["measure"] == 9
    await device.ask("DELETE", {"query": "{Sensor.assetId:'upd'}"}, ontology=ONTOLOGY)
    await device.nothing("indication")


async def test_ms_refresh_collects_and_loses_nothing(websocket, tools):
    device = await websocket()
    await device.subscribe("{Sensor.assetId:'ms'}", ms_refresh="700")
    began = time.monotonic()
    for measure in range(20):
        await device.insert(tools.sensor(measure, "ms"))
    first = await device.indication()
    assert time.monotonic() - began < 0.7
    assert [row["Sensor"]["measure"] for row in first.rows] == [0]
    second = await device.indication()
    assert 0.6 < time.monotonic() - began < 3
    assert [row["Sensor"]["measure"] for row in second.rows] == list(range(1, 20))
    await device.nothing("indication", 0.9)
    await device.insert(tools.sensor(99, "ms"))
    assert [row["Sensor"]["measure"] for row in (await device.indication(0.6)).rows] == [99]


async def test_what_is_pending_at_unsubscribe_is_dropped(websocket, tools):
    device = await websocket()
    id_ = await device.subscribe("{Sensor.assetId:'drop'}", ms_refresh=500)
    await device.insert(tools.sensor(1, "drop"))
    await device.indication()
    await device.insert(tools.sensor(2, "drop"))
    await device.unsubscribe(id_)
    await device.nothing("indication", 0.8)


@pytest.mark.parametrize(("text", "kind", "code"), [
    ("{Sensor.measure:{$gtXX:10}}", "NATIVE", "OTHER"),
    ("wrong query", "NATIVE", "OTHER"),
    ("select * fro X", "SQLLIKE", "PARSE_SQL"),
    ("select * from NoSuchOntology", "SQLLIKE", "ONTOLOGY_NOT_FOUND"),
    (SQL + "SensorXX.assetId = 1", "SQLLIKE", "PERSISTENCE"),
    ("{$where:'1'}", "NATIVE", "OTHER"),
    ("from X#window.length(3) select *", "CEP", "OTHER"),
    ("nothing", "SIB_DEFINED", "SIB_DEFINED_QUERY_NOT_FOUND"),
    ("{Sensor.measure:{$regex:'('}}", "NATIVE", "OTHER"),
])  # fmt: skip
async def test_what_a_query_would_refuse_is_refused_and_registers_nothing(websocket, tools, text, kind, code):
    device = await websocket()
    body = {"query": text, "msRefresh": 0, "queryType": kind}
    answer = await device.ask("SUBSCRIBE", body, ontology=ONTOLOGY)
    assert (answer.ok, answer.code, answer.data) == (False, code, None)
    assert answer.error
    await device.insert(tools.sensor())
    await device.nothing("indication", 0.2)


async def test_a_predefined_query_can_be_subscribed_to(websocket, tools):
    device = await websocket()
    body = {"query": "porAsset", "msRefresh": 0, "queryType": "SIB_DEFINED", "queryParams": {"PARAM1": "defined"}}
    answer = await device.ask("SUBSCRIBE", body, ontology=None)
    assert answer.ok, answer
    await device.insert(tools.sensor(1, "other"))
    await device.insert(tools.sensor(2, "defined"))
    assert [row["Sensor"]["measure"] for row in (await device.indication()).rows] == [2]


async def test_subscriptions_of_a_session_are_its_own(websocket, tools):
    one, two = await websocket(), await websocket()
    id_ = await one.subscribe("{Sensor.assetId:'own'}", ms_refresh=0)
    assert (await two.unsubscribe(id_)).code == "OTHER"
    assert (await one.unsubscribe("no-such-id")).code == "OTHER"
    assert (await one.unsubscribe(id_, key="dead")).code == "AUTENTICATION"
    await two.insert(tools.sensor(asset="own"))
    assert (await one.indication())["messageId"] == id_
    await two.nothing("indication", 0.2)


async def test_one_change_many_subscribers_in_all_dialects_on_both_gateways(mqtt, websocket, tools):
    devices = [await mqtt(), await websocket(dialect="object"), await websocket(dialect="one"), await mqtt(version=4)]
    ids = [await device.subscribe("{Sensor.assetId:'fan'}", ms_refresh=0) for device in devices]
    await devices[0].insert(tools.sensor(asset="fan"))
    indications = [await device.indication() for device in devices]
    assert [indication["messageId"] for indication in indications] == ids
    assert {json.dumps(indication.rows, sort_keys=True) for indication in indications}.__len__() == 1
    assert [type(indication["body"]).__name__ for indication in indications] == ["str", "dict", "dict", "str"]
    assert [type(indication.data).__name__ for indication in indications] == ["str", "str", "list", "str"]


async def test_a_condition_that_fails_on_an_instance_is_no_match_and_disturbs_nobody(websocket, tools):
    device, other = await websocket(), await websocket()
    failing = await device.subscribe("{$expr:{$gt:[{$divide:[1,'$Sensor.measure']},0.5]}}", ms_refresh=0)
    good = await other.subscribe("{Sensor.assetId:'failing'}", ms_refresh=0)
    for measure in (0, 1):
        assert (await other.insert(tools.sensor(measure, "failing"))).ok
        assert (await other.indication())["messageId"] == good
    assert [(await device.indication())["messageId"]] == [failing]
    await device.nothing("indication", 0.2)


async def test_ten_thousand_subscriptions(websocket, tools):
    """Of ten sessions; inserts stay quick, each is told only what it asked for, and LEAVE ends them all."""
    devices = [await websocket() for _ in range(10)]
    for number in range(1000):
        for at, device in enumerate(devices):
            body = {"query": f"{{Sensor.assetId:'crowd{number * 10 + at}'}}", "msRefresh": 0}
            await device.send(
                tools.frame("SUBSCRIBE", body, session_key=device.key, ontology=ONTOLOGY, dialect="object")
            )
    ids = [[(await device.answer(60)).data for _ in range(1000)] for device in devices]
    assert len({id_ for of_device in ids for id_ in of_device}) == 10_000
    writer = await websocket()
    began = time.monotonic()
    for number in range(0, 10_000, 97):
        await writer.insert(tools.sensor(asset=f"crowd{number}"))
    assert time.monotonic() - began < 20
    for number in range(0, 10_000, 97):
        indication = await devices[number % 10].indication()
        assert indication["messageId"] == ids[number % 10][number // 10]
    for device in devices:
        assert (await device.leave(timeout_s=60)).ok
    await writer.insert(tools.sensor(asset="crowd1"))
    await devices[1].nothing("indication", 0.3)
