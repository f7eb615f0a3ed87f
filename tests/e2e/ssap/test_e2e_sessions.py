"""Sessions: who may join, what a key is good for, where INDICATIONs go, what ends it."""

import asyncio
import json
import time

import pytest

ONTOLOGY = "TestSensorTemperatura"
TOKEN = "ssap0000000000000000000000000001"


async def join(device, *, key=None, **body):
    return await device.ask("JOIN", {"instance": "KPSsap:s1", "token": TOKEN, **body}, key=key)


@pytest.mark.parametrize("body", [
    {"instance": "KPSsap:x", "token": "wrong"}, {"instance": "KPSsap:x", "token": ""}, {"instance": "KPSsap:x", "token": None},
    {"instance": "KPSsap", "token": TOKEN}, {"instance": "KPSsap:", "token": TOKEN}, {"instance": ":x", "token": TOKEN},
    {"instance": "KPLuis:x", "token": TOKEN}, {"instance": "Nobody:x", "token": TOKEN},
    {"instance": "KPTestTemperatura:x", "token": "3f8d3638215a4d59ad5cffad19c81379"},
    {"instance": "KPSsap:x", "user": "sofia", "password": "wrong"},
    {"instance": "KPSsap:x", "user": "luis", "password": "luis-password"},
    {"instance": "KPSsap:x", "user": "sofia", "password": None}, {"instance": "KPSsap:x"}, {"token": TOKEN},
])  # fmt: skip
async def test_refused_joins(websocket, body):
    device = await websocket()
    began = time.monotonic()
    answer = await device.ask("JOIN", body, key=None)
    assert time.monotonic() - began < 2
    assert (answer.ok, answer.data, answer["sessionKey"], answer["direction"]) == (False, None, None, "ERROR")
    assert answer.code in ("AUTENTICATION", "OTHER")
    for secret in ("sofia-password", "luis-password", TOKEN):
        assert secret not in answer.error
    assert (await device.query("{}")).ok


@pytest.mark.parametrize("body", [
    {"token": TOKEN}, {"instance": "KPSsap:any thing ~ñ:more", "token": TOKEN}, {"token": TOKEN, "args": None},
    {"user": "sofia", "password": "sofia-password"}, {"user": "admin", "password": "admin-password"},
])  # fmt: skip
async def test_accepted_joins(websocket, tools, body):
    device = await websocket(join=False)
    answer = await device.ask("JOIN", {"instance": "KPSsap:s1", **body}, key=None)
    assert answer.ok, answer
    assert answer.data == answer["sessionKey"]
    device.key = answer.data
    id_ = (await device.insert(tools.sensor(asset="who"))).data
    [row] = (await device.query(f'{{_id:ObjectId("{id_[17:41]}")}}')).rows
    assert row["contextData"]["user"] == body.get("user", "sofia")
    assert row["contextData"]["kp_instancia"] == body.get("instance", "KPSsap:s1").partition(":")[2]


async def test_a_renewal_keeps_the_key_and_a_refused_one_changes_nothing(websocket):
    device = await websocket()
    renewed = await join(device, key=device.key, instance="KPSsap:i1")
    assert (renewed.data, renewed["sessionKey"]) == (device.key, device.key)
    for key, body in ((device.key, {"token": "wrong"}), (device.key, {"instance": "KPSsap:other"}), ("dead-key", {})):
        refused = await join(device, key=key, **{"instance": "KPSsap:i1", **body})
        assert (refused.ok, refused["sessionKey"], refused.code) == (False, None, "AUTENTICATION")
    by_user = await join(
        device, key=device.key, instance="KPSsap:i1", token=None, user="admin", password="admin-password"
    )
    assert by_user.code == "AUTENTICATION"
    assert (await device.query("{}")).ok


async def test_several_sessions_on_one_connection(mqtt, tools):
    device = await mqtt()
    first = device.key
    second = await device.join()
    third = await device.join("KPLuis", "i1", "luis0000000000000000000000000001")
    assert len({first, second, third}) == 3
    ids = [(await device.ask("SUBSCRIBE", {"query": "{Sensor.assetId:'several'}", "msRefresh": 0}, key=key, ontology=ONTOLOGY)).data
           for key in (first, second)]  # fmt: skip
    await device.insert(tools.sensor(asset="several"), key=first)
    assert {(await device.indication())["messageId"] for _ in range(2)} == set(ids)
    assert (await device.leave(key=first)).data == first
    assert (await device.query("{}", key=first)).code == "AUTENTICATION"
    await device.insert(tools.sensor(asset="several"), key=second)
    assert (await device.indication())["messageId"] == ids[1]
    await device.nothing("indication", 0.2)
    assert (await device.insert({"a": 1}, "Thing", key=third)).ok
    assert (await device.insert({"a": 1}, "Thing", key=second)).code == "AUTHORIZATION"


@pytest.mark.parametrize(
    "kind", ["INSERT", "UPDATE", "DELETE", "QUERY", "SUBSCRIBE", "UNSUBSCRIBE", "BULK", "LEAVE", "COMMAND"]
)
@pytest.mark.parametrize("key", ["dead", "", None, "0d9ba4be-6a4c-4d8e-b8f1-0c1a2b3c4d5e"])
async def test_no_live_key_no_service(websocket, kind, key):
    device = await websocket(join=False)
    body = {"data": {"Sensor": {}}, "query": "{Sensor.measure:1}", "idSuscripcion": "x", "type": "STATUS"}
    answer = await device.ask(kind, [] if kind == "BULK" else body, key=key, ontology=ONTOLOGY)
    assert (answer.ok, answer.code, answer["sessionKey"]) == (False, "AUTENTICATION", key)


async def test_a_reconnecting_client_goes_on_with_its_key(mqtt, websocket, tools):
    device = await mqtt("goes-on-1")
    id_ = await device.subscribe("{Sensor.assetId:'on'}", ms_refresh=0)
    await device.cut()
    again = await mqtt("goes-on-1", join=False)
    again.key = device.key
    assert (await again.insert(tools.sensor(asset="on"))).ok
    assert (await again.indication())["messageId"] == id_


@pytest.mark.parametrize("how", ["query", "insert", "renew"])
async def test_indications_follow_the_session_to_another_gateway_and_back(mqtt, websocket, tools, how):
    first, second, writer = await mqtt(), await websocket(join=False), await mqtt()
    second.key = first.key

    async def speak(device):
        if how == "renew":
            answer = await join(device, key=first.key, instance="KPSsap:i1")
        elif how == "insert":
            answer = await device.insert(tools.sensor(asset="spoken"))
        else:
            answer = await device.query("{Sensor.measure:-99}")
        assert answer.ok, answer

    await speak(second)
    await speak(first)
    id_ = await first.subscribe("{Sensor.assetId:'follow'}", ms_refresh=0)
    await asyncio.sleep(0.3)
    for device, other in ((second, first), (first, second), (second, first)):
        await speak(device)
        await asyncio.sleep(0.3)
        await writer.insert(tools.sensor(asset="follow"))
        assert (await device.indication())["messageId"] == id_
        await other.nothing("indication", 0.1)
    assert (await first.unsubscribe(id_)).ok
    await writer.insert(tools.sensor(asset="follow"))
    await first.nothing("indication", 0.2)
    await second.nothing("indication", 0.1)


async def test_indications_follow_to_another_connection_of_the_gateway(websocket, tools):
    first, second = await websocket(), await websocket(join=False)
    id_ = await first.subscribe("{Sensor.assetId:'conn'}", ms_refresh=0)
    second.key = first.key
    await second.insert(tools.sensor(asset="conn"))
    assert (await second.indication())["messageId"] == id_
    await first.nothing("indication", 0.2)


async def test_a_take_over_leaves_the_session_alone(mqtt, tools):
    first = await mqtt("take-over-1")
    id_ = await first.subscribe("{Sensor.assetId:'over'}", ms_refresh=0)
    second = await mqtt("take-over-1", join=False)
    async with asyncio.timeout(5):
        while not first.is_closed:
            await asyncio.sleep(0.02)
    second.key = first.key
    await second.insert(tools.sensor(asset="over"))
    assert (await second.indication())["messageId"] == id_


async def test_a_persistent_mqtt_session_gets_what_came_while_it_was_away(mqtt, tools):
    device = await mqtt("persistent-1", clean=False)
    id_ = await device.subscribe("{Sensor.assetId:'away'}", ms_refresh=0)
    await device.disconnect()
    writer = await mqtt()
    for number in range(20):
        assert (await writer.insert(tools.sensor(number, "away"))).ok
    await asyncio.sleep(0.3)
    again = await mqtt("persistent-1", clean=False, join=False, subscribe=False)
    got = [await again.indication() for _ in range(20)]
    assert {indication["messageId"] for indication in got} == {id_}
    assert [indication.rows[0]["Sensor"]["measure"] for indication in got] == list(range(20))
    again.key = device.key
    assert (await again.unsubscribe(id_)).ok
    await again.disconnect()
    await (await mqtt("persistent-1", join=False)).disconnect()


async def test_leave_ends_the_subscriptions_of_its_session(mqtt, tools):
    device, writer = await mqtt(), await mqtt()
    await device.subscribe("{Sensor.assetId:'left'}", ms_refresh=0)
    assert (await device.leave()).ok
    await writer.insert(tools.sensor(asset="left"))
    await device.nothing("indication", 0.4)
    assert await device.join()
    assert json.loads((await device.query("select count(*) from TestSensorTemperatura", "SQLLIKE")).data) >= 0
