"""What kills a real client, one test each: body shapes, order, spelling, ids, empty results, odd requests."""

import json
import re

import pytest

ONTOLOGY = "TestSensorTemperatura"
DIALECTS = ["string", "object", "one"]
ID = re.compile(r'\{"_id":ObjectId\("[0-9a-f]{24}"\)\}')


@pytest.fixture
async def three(websocket):
    """One connection; each request says its dialect."""
    return await websocket()


def body_kind(answer):
    body = answer["body"]
    if isinstance(body, str):
        return "string"
    return "one" if body.get("@type") == "SSAPBodyReturnMessage" else "object"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_1_the_answer_has_the_shape_of_the_question(three, tools, dialect):
    answers = [
        await three.insert(tools.sensor(), dialect=dialect),
        await three.query("{}", dialect=dialect),
        await three.query("{Sensor.measure:{$gtXX:1}}", dialect=dialect),
        await three.ask("SUBSCRIBE", {"query": "", "msRefresh": 0}, ontology=ONTOLOGY, dialect=dialect),
        await three.ask("LEAVE", {} if dialect != "string" else "", dialect=dialect),
    ]
    assert [body_kind(answer) for answer in answers] == [dialect] * 5
    assert all(("version" in answer) is (dialect == "one") for answer in answers)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_1_the_id_of_an_insert(three, tools, dialect):
    data = (await three.insert(tools.sensor(), dialect=dialect)).data
    if dialect == "one":
        assert set(data) == {"_id"}
        assert re.fullmatch("[0-9a-f]{24}", data["_id"]["$oid"])
    else:
        assert ID.fullmatch(data)


async def test_1_a_body_that_does_not_tell_follows_the_connection(websocket):
    device = await websocket(dialect="one")
    answer = await device.ask("LEAVE", None, dialect="object")
    assert body_kind(answer) == "one"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_2_autentication_is_spelt_as_ever(three, dialect):
    assert (await three.query("{}", key="no-such-key", dialect=dialect)).code == "AUTENTICATION"


@pytest.mark.parametrize(("kind", "body"), [
    ("INSERT", {"data": json.dumps({"Sensor": {}}), "query": None}),
    ("INSERT", "good"),
    ("UPDATE", {"data": None, "query": "update TestSensorTemperatura set measure=1 where assetId='no'", "queryType": "SQLLIKE"}),
    ("DELETE", {"query": "{Sensor.assetId:'no'}"}),
    ("QUERY", {"query": "{}"}),
    ("SUBSCRIBE", {"query": "", "msRefresh": "0"}),
    ("UNSUBSCRIBE", {"idSuscripcion": "none"}),
    ("LEAVE", None),
])  # fmt: skip
async def test_3_the_puback_comes_before_the_answer(mqtt, tools, kind, body):
    device = await mqtt()
    if body == "good":
        body = {"data": json.dumps(tools.sensor()), "query": None}
    before = len(device.events)
    await device.ask(kind, body, ontology=ONTOLOGY)
    assert [event.kind for event in device.events[before:]][:2] == ["puback", "answer"]


@pytest.mark.parametrize("topic", ["", "CLIENT_TOPIC", "SSAP-REQUEST", "/queue/message"])
async def test_4_any_topic_even_the_empty_one(mqtt, tools, topic):
    device = await mqtt(topic=topic)
    assert (await device.insert(tools.sensor())).ok


async def test_5_mqisdp_with_a_client_id_of_23_characters(mqtt, tools):
    device = await mqtt("a1b2c3d4-e5f6-a7b8-c9d0", version=3, topic="SSAP-REQUEST", answer_qos=0)
    assert (await device.insert(tools.sensor())).ok


async def test_6_answers_come_in_the_order_of_the_requests(mqtt, tools):
    device = await mqtt()
    requests = [
        ("INSERT", {"data": json.dumps(tools.sensor(asset="T6")), "query": None}),
        ("QUERY", {"query": "{}"}),
    ] * 20
    for number, (kind, body) in enumerate(requests):
        await device.send(tools.frame(kind, body, session_key=device.key, ontology=ONTOLOGY, messageId=number))
    answers = [await device.answer() for _ in requests]
    assert [answer["messageId"] for answer in answers] == list(range(40))
    assert [answer["messageType"] for answer in answers] == [kind for kind, _ in requests]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_7_exactly_the_known_properties(three, tools, dialect):
    envelope = {"messageId", "sessionKey", "ontology", "direction", "messageType", "body"}
    body = {"data", "ok", "error", "errorCode"}
    if dialect == "one":
        envelope, body = envelope | {"version"}, body | {"@type", "version", "contentType"}
    for answer in (
        await three.insert(tools.sensor(), dialect=dialect),
        await three.query("nonsense(", dialect=dialect),
    ):
        assert set(answer) == envelope
        assert set(answer.return_body) == body


async def test_8_the_body_is_never_null(mqtt):
    device = await mqtt()
    for answer in (await device.ask("LEAVE", None), await device.ask("LEAVE", None), await device.ask_raw(b"{broken")):
        assert isinstance(answer["body"], str)


async def test_9_data_of_join_unsubscribe_and_leave(mqtt):
    device = await mqtt(join=False)
    join = await device.ask("JOIN", {"instance": "KPSsap:x", "token": device.sib.token}, key=None)
    assert join.data == join["sessionKey"]
    device.key = join["sessionKey"]
    answer = await device.unsubscribe(await device.subscribe())
    assert answer.data == ""
    assert (await device.leave()).data == join["sessionKey"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_10_indications_name_subscription_and_ontology_and_follow_the_answer(three, tools, dialect):
    other = three
    id_ = await other.subscribe("{Sensor.assetId:'T10'}", dialect=dialect)
    await other.insert(tools.sensor(asset="T10"), dialect=dialect)
    indication = await other.indication()
    assert indication["messageId"] == id_
    assert indication["ontology"] == ONTOLOGY
    assert (indication["direction"], indication["sessionKey"]) == ("RESPONSE", other.key)
    assert body_kind(indication) == dialect
    [row] = indication.rows
    assert row["Sensor"]["assetId"] == "T10"
    assert isinstance(indication.data, list if dialect == "one" else str)


async def test_10_no_indication_before_the_answer_to_its_subscribe(websocket, tools):
    """While another device inserts without pause."""
    writer, reader = await websocket(), await websocket()
    for _ in range(10):
        inserts = [tools.frame("INSERT", {"data": tools.sensor(asset="T10b"), "query": None}, session_key=writer.key,
                               ontology=ONTOLOGY, dialect="object") for _ in range(30)]  # fmt: skip
        for insert in inserts[:15]:
            await writer.send(insert)
        await reader.send(tools.frame("SUBSCRIBE", {"query": "{Sensor.assetId:'T10b'}", "msRefresh": 0},
                                      session_key=reader.key, ontology=ONTOLOGY, dialect="object"))  # fmt: skip
        for insert in inserts[15:]:
            await writer.send(insert)
        for _ in inserts:
            assert (await writer.answer()).ok
        id_ = (await reader.answer()).data
        await reader.unsubscribe(id_)
        seen = [event.payload for event in reader.events]
        answered = next(
            at for at, payload in enumerate(seen) if b'"messageType":"SUBSCRIBE"' in payload and id_.encode() in payload
        )
        indications = [
            at
            for at, payload in enumerate(seen)
            if b'"messageType":"INDICATION"' in payload and id_.encode() in payload
        ]
        assert all(at > answered for at in indications)


@pytest.mark.parametrize("ms_refresh", ["0", 0, "100", 100])
@pytest.mark.parametrize("query_type", [1, "1", "SQLLIKE"])
async def test_11_ms_refresh_as_text_and_query_type_as_ordinal(three, ms_refresh, query_type):
    id_ = await three.subscribe("select * from TestSensorTemperatura where Sensor.measure = 18", query_type, ms_refresh)
    assert (await three.unsubscribe(id_)).ok


@pytest.mark.parametrize(("query", "query_type"), [
    ("{select * from TestSensorTemperatura limit 1}", "SQLLIKE"),
    ("{db.TestSensorTemperatura.find({'Sensor.assetId':'T12'})}", "NATIVE"),
    ("{select * from TestSensorTemperatura where assetId = \"T12\";}", "SQLLIKE"),
])  # fmt: skip
async def test_12_braces_around_statements(three, query, query_type):
    answer = await three.query(query, query_type, dialect="one")
    assert answer.ok, answer


@pytest.mark.parametrize("data", ["null", "{}", "", None])
async def test_13_data_beside_an_sql_update(three, tools, data):
    await three.insert(tools.sensor(asset="T13"))
    body = {
        "data": data,
        "query": "update TestSensorTemperatura set measure=3 where assetId='T13'",
        "queryType": "SQLLIKE",
    }
    answer = await three.ask("UPDATE", body, ontology=ONTOLOGY)
    assert answer.ok, answer
    [row] = (await three.query("select * from TestSensorTemperatura where assetId='T13' limit 1", "SQLLIKE")).rows
    assert row["Sensor"]["measure"] == 3


@pytest.mark.parametrize("query", [("{Sensor.assetId:'nobody'}", "NATIVE"), ("select * from Asset where tipo='no'", "BDC"),
                                   ("select * from TestSensorTemperatura where assetId='nobody'", "SQLLIKE")])  # fmt: skip
async def test_14_no_rows_is_literally_this(three, query):
    assert (await three.query(*query)).data == "[ ]"
    assert (await three.query(*query, dialect="one")).data == []


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_15_object_ids_of_a_bulk_are_strings(three, tools, dialect):
    insert = {"type": "INSERT", "ontology": ONTOLOGY, "body": {"data": tools.sensor(asset="T15"), "query": None}}
    bad = {"type": "INSERT", "ontology": ONTOLOGY, "body": {"data": {"Sensor": 1}, "query": None}}
    update = {"type": "UPDATE", "ontology": ONTOLOGY, "body": {"data": None, "queryType": "SQLLIKE",
              "query": "update TestSensorTemperatura set measure=9 where assetId='T15'"}}  # fmt: skip
    delete = {"type": "DELETE", "ontology": ONTOLOGY, "body": {"query": "{Sensor.assetId:'T15'}"}}
    odd = {"type": "QUERY", "ontology": ONTOLOGY, "body": {"query": "{}"}}
    items = [insert, bad, insert, update, delete, odd]
    if dialect != "object":
        items = [{**item, "body": json.dumps(item["body"])} for item in items]
    answer = await three.ask("BULK", {"items": items} if dialect == "one" else items, dialect=dialect)
    assert answer.ok, answer
    data = answer.data if dialect == "one" else json.loads(answer.data)
    summaries = [data[f"{kind}Summary"] for kind in ("insert", "update", "delete")]
    assert [len(summary["objectIds"]) for summary in summaries] == [2, 2, 2]
    assert all(ID.fullmatch(id_) for summary in summaries for id_ in summary["objectIds"])
    assert [len(summary["errors"]) for summary in summaries] == [2, 0, 0]
    assert all(isinstance(text, str) for error in summaries[0]["errors"] for text in error.values())


async def test_17_raw_characters_in_a_get(sib, tools):
    """Over a plain socket, because no library sends this."""
    import asyncio

    rest = tools.Rest(sib)
    key = await rest.join(sib)
    await rest.client.aclose()
    for query in ('select+*+from+TestSensorTemperatura+where+Sensor.assetId="T17"', '{Sensor.assetId:"T17"}'):
        kind = "NATIVE" if query[0] == "{" else "SQLLIKE"
        reader, writer = await asyncio.open_connection(*sib.address("http"))
        target = f"/sib/services/api_ssap/v01/SSAPResource/?$sessionKey={key}&$ontology={ONTOLOGY}&$query={query}&$queryType={kind}"
        writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        text = (await reader.read()).decode()
        writer.close()
        assert text.startswith("HTTP/1.1 200"), text
        assert json.loads(text.partition("\r\n\r\n")[2])["data"] == "[ ]"


async def test_18_a_dead_rest_session_is_401(rest):
    assert (await rest.get(sessionKey="dead", ontology=ONTOLOGY, query="{}")).status_code == 401
    answer = await rest.post({"sessionKey": "dead", "ontology": ONTOLOGY, "data": "{}"})
    assert (answer.status_code, answer.json()["errorCode"]) == (401, "AUTENTICATION")


@pytest.mark.parametrize("payload", [b'{"messageId":"1","clientId":"x","commandMessage":{}}', b"", b"  "])
async def test_19_payloads_that_are_no_requests_get_a_puback_and_no_answer(mqtt, tools, payload):
    device = await mqtt()
    await device.event("puback")
    packet_id = await device.send(payload)
    assert (await device.event("puback")).packet_id == packet_id
    await device.nothing("answer", 0.2)
    assert (await device.insert(tools.sensor())).ok


async def test_20_siblings_of_ref_in_a_schema_are_ignored(three):
    assert (await three.insert({"Root": {"n": 1, "when": {"$date": "2014-04-29T08:24:54.005Z"}}}, "LegacyTemplate")).ok
    assert (await three.insert({"Root": {"n": 1}, "_id": {"$oid": "53e2f6a3e4b0f8d4a6e1b2c3"}}, "LegacyTemplate")).ok
    refused = await three.insert({"Root": {"n": "1"}}, "LegacyTemplate")
    assert (refused.ok, refused.code) == (False, "PERSISTENCE")


@pytest.mark.parametrize("dialect", ["string", "object"])
async def test_an_apostrophe_never_stands_in_a_legacy_frame(three, tools, dialect):
    await three.insert(tools.sensor(asset="it's"), dialect=dialect)
    await three.query('{Sensor.assetId:"it\'s"}', dialect=dialect)
    answer = await three.query("db.nope'", dialect=dialect)
    assert not answer.ok
    assert all(b"'" not in event.payload for event in three.events)


async def test_rows_have_their_id_and_context_first(three, tools):
    await three.clear()
    await three.insert(tools.sensor(measure=25))
    answer = await three.query("{}")
    assert re.match(r'\[ \{ "_id" : \{ "\$oid" : "[0-9a-f]{24}"\} , "contextData" : \{ "session_key" : ', answer.data)
    [row] = answer.rows
    assert list(row) == ["_id", "contextData", "Sensor"]
    assert (row["contextData"]["user"], row["contextData"]["kp"], row["contextData"]["kp_instancia"]) == (
        "sofia",
        "KPSsap",
        "i1",
    )
    assert row["contextData"]["session_key"] == three.key
    assert '"measure" : 25 ' in answer.data
