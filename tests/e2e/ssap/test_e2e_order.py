"""A device of 2014 (MQTT 3.1, empty topic, string bodies) from JOIN to LEAVE, and the order of what it is sent."""

import json

import pytest

ONTOLOGY = "TestSensorTemperatura"


async def test_the_whole_life_of_a_kp(mqtt, tools):
    device = await mqtt("0123456789abcdef0123456", version=3, topic="", join=False)
    await device.join(instance="life")
    id_ = await device.subscribe("{Sensor.assetId:'life'}")
    inserted = await device.insert(tools.sensor(asset="life"))
    indication = await device.indication()
    assert indication["messageId"] == id_
    assert isinstance(indication["body"], str)
    [row] = json.loads(indication.data)
    assert f'ObjectId("{row["_id"]["$oid"]}")' in inserted.data
    [found] = (await device.query("{Sensor.assetId:'life'}")).rows
    assert found == row
    assert (await device.unsubscribe(id_)).data == ""
    await device.insert(tools.sensor(asset="life"))
    await device.nothing("indication")
    key = device.key
    assert (await device.leave()).data == key
    assert (await device.insert(tools.sensor())).code == "AUTENTICATION"


def update(query, **fields):
    return {"data": None, "query": query, "queryType": "SQLLIKE", **fields}


def requests_that_notify(sensor):
    text = json.dumps(sensor)
    bulk = [{"type": "INSERT", "ontology": ONTOLOGY, "body": json.dumps({"data": text, "query": None})}] * 3
    change = "update TestSensorTemperatura set measure=7 where assetId='order'"
    return {
        "insert": ("INSERT", {"data": text, "query": None}),
        "insert sql": ("INSERT", update(
            "insert into TestSensorTemperatura(geometry, assetId, measure, timestamp) values "
            "(\"{ 'coordinates': [40.5, -3.6], 'type': 'Point' }\", \"order\", 15, \"{ '$date': '2014-04-29T08:24:54.005Z'}\")"
        )),
        "update native": ("UPDATE", {"data": text, "query": "{Sensor.assetId:'order'}", "queryType": "NATIVE"}),
        "update sql": ("UPDATE", update(change)),
        "update by query": ("QUERY", {"query": change, "queryType": "SQLLIKE"}),
        "shell by query": ("QUERY", {
            "query": "db.TestSensorTemperatura.update({'Sensor.assetId':'order'},{$set:{'Sensor.measure':8}},{multi:true})",
            "queryType": "NATIVE",
        }),
        "bulk": ("BULK", json.dumps(bulk)),
    }  # fmt: skip


@pytest.mark.parametrize("transport", ["mqtt", "websocket"])
@pytest.mark.parametrize("name", list(requests_that_notify({})))
async def test_an_answer_precedes_the_indications_that_its_request_causes(mqtt, websocket, tools, transport, name):
    device = await mqtt() if transport == "mqtt" else await websocket(dialect="string")
    await device.clear()
    if "insert" not in name and name != "bulk":
        await device.insert(tools.sensor(asset="order"))
    await device.subscribe("{Sensor.assetId:'order'}", ms_refresh=0)
    kind, body = requests_that_notify(tools.sensor(asset="order"))[name]
    for _ in range(15):
        before = len(device.events)
        answer = await device.ask(kind, body, ontology=ONTOLOGY)
        assert answer.ok, answer
        for _ in range(3 if name == "bulk" else 1):
            await device.indication()
        order = [event.kind for event in device.events[before:] if event.kind in ("answer", "indication")]
        assert order == ["answer", *["indication"] * (len(order) - 1)]


async def test_pipelined_inserts_are_answered_before_they_are_notified(mqtt, tools):
    device = await mqtt()
    await device.clear()
    await device.subscribe("{Sensor.assetId:'pipe'}", ms_refresh=0)
    count = 300
    for number in range(count):
        await device.send(tools.frame("INSERT", {"data": json.dumps(tools.sensor(number, "pipe")), "query": None},
                                      session_key=device.key, ontology=ONTOLOGY))  # fmt: skip
    for _ in range(count):
        assert (await device.answer()).ok
        await device.indication()
    answered = notified = 0
    for event in device.events:
        answered += event.kind == "answer" and b"INSERT" in event.payload
        notified += event.kind == "indication"
        assert notified <= answered
    measures = [
        json.loads(device._message(e.payload).data)[0]["Sensor"]["measure"]
        for e in device.events
        if e.kind == "indication"
    ]
    assert measures == list(range(count))


@pytest.mark.parametrize(("qos", "ack"), [(0, None), (1, "puback"), (2, "pubrec")])
@pytest.mark.parametrize("answer_qos", [0, 1, 2])
@pytest.mark.parametrize("version", [3, 4, 5])
async def test_every_qos_of_requests_and_answers(mqtt, tools, qos, ack, answer_qos, version):
    device = await mqtt(qos=qos, answer_qos=answer_qos, version=version)
    await device.subscribe("{Sensor.assetId:'qos'}", ms_refresh=0)
    before = len(device.events)
    assert (await device.insert(tools.sensor(asset="qos"))).ok
    await device.indication()
    kinds = [event.kind for event in device.events[before:] if event.kind != "pubcomp"]
    assert kinds == [*([ack] if ack else []), "answer", "indication"]
    assert {event.qos for event in device.events if event.kind in ("answer", "indication")} == {answer_qos}


async def test_requests_take_effect_in_their_order(mqtt, tools):
    """An UPDATE sees the INSERTs in front of it, a QUERY all before it, though nothing was waited for."""
    device = await mqtt()
    await device.clear()
    for number in range(20):
        asset = f"seq{number}"
        await device.send(tools.frame("INSERT", {"data": json.dumps(tools.sensor(1, asset)), "query": None},
                                      session_key=device.key, ontology=ONTOLOGY))  # fmt: skip
        await device.send(tools.frame("UPDATE", update(f"update TestSensorTemperatura set measure=2 where assetId='{asset}'"),
                                      session_key=device.key, ontology=ONTOLOGY))  # fmt: skip
        await device.send(
            tools.frame("QUERY", {"query": f"{{Sensor.assetId:'{asset}'}}"}, session_key=device.key, ontology=ONTOLOGY)
        )
    for _ in range(20):
        assert (await device.answer()).ok
        assert (await device.answer()).data.count("ObjectId") == 1
        assert (await device.answer()).rows[0]["Sensor"]["measure"] == 2


async def test_read_your_writes_on_another_gateway(mqtt, websocket, tools):
    writer, reader = await mqtt(), await websocket()
    await writer.clear()
    for number in range(40):
        assert (await writer.insert(tools.sensor(number, "ryw"))).ok
        answer = await reader.query("select count(*) from TestSensorTemperatura where assetId='ryw'", "SQLLIKE")
        assert json.loads(answer.data) == number + 1
    await reader.ask(
        "UPDATE", update("update TestSensorTemperatura set measure=-1 where assetId='ryw'"), ontology=ONTOLOGY
    )
    assert len((await writer.query("{Sensor.measure:-1}")).rows) == 40
    await writer.ask("DELETE", {"query": "{Sensor.measure:-1}"}, ontology=ONTOLOGY)
    assert (await reader.query("{Sensor.measure:-1}")).data == "[ ]"
