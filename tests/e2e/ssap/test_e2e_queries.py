"""QUERY and writes by statement: types, codes, caps, predefined queries, the configuration."""

import json

import pytest

ONTOLOGY = "TestSensorTemperatura"


@pytest.fixture
async def device(websocket, tools):
    """A KP in an ontology with 25 instances."""
    opened = await websocket()
    await opened.clear()
    items = [
        {"type": "INSERT", "ontology": ONTOLOGY, "body": {"data": tools.sensor(n, f"q{n % 5}"), "query": None}}
        for n in range(25)
    ]
    assert (await opened.ask("BULK", items)).ok
    return opened


@pytest.mark.parametrize(("text", "kind", "count"), [
    ("", "NATIVE", 25), ("{}", "NATIVE", 25), ("{}", None, 25), ("", "", 25), ("{Sensor.assetId:'q1'}", "NATIVE", 5),
    ("db.TestSensorTemperatura.find().limit(3)", "NATIVE", 3),
    ("db.TestSensorTemperatura.find({'Sensor.measure':{$gte:20}}).sort({'Sensor.measure':-1}).skip(1);", "NATIVE", 4),
    ("select * from TestSensorTemperatura where Sensor.assetId = 'q2' order by measure desc", "SQLLIKE", 5),
    ("SELECT assetId, count(*) as n FROM TestSensorTemperatura GROUP BY assetId", "SQLLIKE", 5),
    ("select * from TestSensorTemperatura limit 2;", 6, 2), ("select * from TestSensorTemperatura limit 2", 1, 2),
    ("db.TestSensorTemperatura.aggregate([{$group:{_id:'$Sensor.assetId', n:{$sum:1}}}])", "NATIVE", 5),
])  # fmt: skip
@pytest.mark.parametrize("dialect", ["string", "object", "one"])
async def test_reads(device, text, kind, count, dialect):
    answer = await device.query(text, kind, dialect=dialect)
    assert answer.ok, answer
    assert len(answer.rows) == count


async def test_a_count_is_the_bare_number(device):
    assert (await device.query("select count(*) from TestSensorTemperatura", "SQLLIKE")).data == "25"
    assert (await device.query("select count(*) from TestSensorTemperatura", "SQLLIKE", dialect="one")).data == 25
    assert (await device.query("db.TestSensorTemperatura.count({'Sensor.assetId':'q1'})")).rows == 5


@pytest.mark.parametrize(("kind", "body", "code"), [
    ("QUERY", {"query": "{Sensor.measure:{$gtXX:10}}", "queryType": "NATIVE"}, "OTHER"),
    ("QUERY", {"query": "wrong query", "queryType": "NATIVE"}, "OTHER"),
    ("QUERY", {"query": "{NoSuchQuery}", "queryType": "SIB_DEFINED"}, "SIB_DEFINED_QUERY_NOT_FOUND"),
    ("QUERY", {"query": "", "queryType": "SQLLIKE"}, "PARSE_SQL"),
    ("QUERY", {"query": "selekt * from X", "queryType": "SQLLIKE"}, "PARSE_SQL"),
    ("QUERY", {"query": "select * from A join B on A.x=B.x", "queryType": "SQLLIKE"}, "PARSE_SQL"),
    ("QUERY", {"query": "select * from TestSensorTemperatura where SensorXX.assetId='x'", "queryType": "SQLLIKE"}, "PERSISTENCE"),
    ("QUERY", {"query": "select * from Nothing", "queryType": "SQLLIKE"}, "ONTOLOGY_NOT_FOUND"),
    ("QUERY", {"query": "db.Nothing.find()", "queryType": "NATIVE"}, "ONTOLOGY_NOT_FOUND"),
    ("QUERY", {"query": "select * from X", "queryType": "BDH"}, "ONTOLOGY_NOT_FOUND"),
    ("QUERY", {"query": "select * from X", "queryType": "HDB"}, "ONTOLOGY_NOT_FOUND"),
    ("QUERY", {"query": "select * from X", "queryType": "CEP"}, "OTHER"),
    ("QUERY", {"query": "{$where:'while(1){}'}", "queryType": "NATIVE"}, "OTHER"),
    ("QUERY", {"query": "db.TestSensorTemperatura.aggregate([{$out:'Stolen'}])", "queryType": "NATIVE"}, "OTHER"),
    ("UPDATE", {"data": None, "query": "update TestSensorTemperatura set measure='text'", "queryType": "SQLLIKE"}, "PERSISTENCE"),
    ("UPDATE", {"data": "{\"Sensor\":{}}", "query": "{}", "queryType": "NATIVE"}, "PERSISTENCE"),
    ("UPDATE", {"data": "", "query": "update TestSensorTemperatura set where", "queryType": "SQLLIKE"}, "PARSE_SQL"),
    ("DELETE", {"query": "", "queryType": "NATIVE"}, "OTHER"), ("DELETE", {"query": "{}", "queryType": None}, "OTHER"),
    ("DELETE", {"query": None}, "OTHER"), ("DELETE", {"query": "  ", "queryType": "SQLLIKE"}, "PARSE_SQL"),
    ("INSERT", {"data": {"Sensor": {"assetId": "x"}}, "query": None}, "PERSISTENCE"),
    ("INSERT", {"data": {}, "query": None}, "PERSISTENCE"),
    ("INSERT", {"data": "{not json", "query": None}, "PERSISTENCE"),
    ("INSERT", {"data": None, "query": "insert into Nowhere(a) values (1)", "queryType": "SQLLIKE"}, "ONTOLOGY_NOT_FOUND"),
    ("INSERT", {"data": None, "query": "", "queryType": "SQLLIKE"}, "PARSE_SQL"),
    ("CREATE", {}, "OTHER"), ("DELETEINDEX", {}, "OTHER"), ("GETINDEXES", {}, "OTHER"),
])  # fmt: skip
async def test_refusals_have_their_code_and_a_sentence_and_change_nothing(device, kind, body, code):
    answer = await device.ask(kind, body, ontology=ONTOLOGY)
    assert (answer.ok, answer.code, answer.data, answer["direction"]) == (False, code, None, "ERROR"), answer
    assert len(answer.error) > 15
    assert (await device.query("select count(*) from TestSensorTemperatura", "SQLLIKE")).data == "25"


async def test_wrong_ontology_names(device, tools):
    for ontology, code in (("Nothing", "ONTOLOGY_NOT_FOUND"), ("Thing", "AUTHORIZATION"), (None, "OTHER")):
        answer = await device.insert(tools.sensor(), ontology)
        assert (answer.ok, answer.code) == (False, code)


async def test_the_row_cap_is_for_reads_only(device, tools, sib):
    items = [{"type": "INSERT", "ontology": ONTOLOGY, "body": {"data": tools.sensor(7, "cap"), "query": None}}] * 130
    await device.ask("BULK", items)
    assert len((await device.query("{Sensor.assetId:'cap'}")).rows) == 100
    assert len((await device.query("select * from TestSensorTemperatura limit 120", "SQLLIKE")).rows) == 100
    assert (
        json.loads(
            (await device.query("select count(*) from TestSensorTemperatura where assetId='cap'", "SQLLIKE")).data
        )
        == 130
    )
    body = {"data": json.dumps(tools.sensor(8, "cap")), "query": "{Sensor.assetId:'cap'}", "queryType": "NATIVE"}
    assert (await device.ask("UPDATE", body, ontology=ONTOLOGY)).data.count("ObjectId") == 130
    gone = await device.ask(
        "DELETE", {"query": "delete from TestSensorTemperatura where assetId='cap'", "queryType": "SQLLIKE"}
    )
    assert gone.data.count("ObjectId") == 130


async def test_a_native_update_replaces_the_root_and_keeps_id_and_context(device, tools):
    [before] = (await device.query("{Sensor.measure:3}")).rows
    new = tools.sensor(300, "new", groupId="g")
    body = {"data": json.dumps({**new, "_id": {"$oid": "0" * 24}}), "query": "{Sensor.measure:3}"}
    assert (await device.ask("UPDATE", body, ontology=ONTOLOGY)).ok
    [after] = (await device.query("{Sensor.measure:300}")).rows
    assert (after["_id"], after["contextData"]) == (before["_id"], before["contextData"])
    assert after["Sensor"] == new["Sensor"]


async def test_nothing_matched_is_a_success_with_no_ids(device):
    body = {
        "data": None,
        "query": "update TestSensorTemperatura set measure=1 where assetId='none'",
        "queryType": "SQLLIKE",
    }
    assert (await device.ask("UPDATE", body, ontology=ONTOLOGY)).data == "[]"
    assert (await device.ask("UPDATE", body, ontology=ONTOLOGY, dialect="one")).data == []
    assert (await device.ask("DELETE", {"query": "{Sensor.assetId:'none'}"}, ontology=ONTOLOGY)).data == "[]"


async def test_the_shell_updates_the_first_match_and_all_with_multi(device):
    one = "db.TestSensorTemperatura.update({'Sensor.assetId':'q1'},{$set:{'Sensor.measure':77}})"
    answer = await device.ask("UPDATE", {"data": None, "query": one}, ontology=ONTOLOGY)
    assert answer.data.count("ObjectId") == 1
    answer = await device.ask("UPDATE", {"data": None, "query": one[:-1] + ",{multi:true})"}, ontology=ONTOLOGY)
    assert answer.data.count("ObjectId") == 5


async def test_removals_as_arduino_sends_them(mqtt, device):
    arduino = await mqtt(qos=0, answer_qos=0)
    body = {"data": "", "query": "{Sensor.assetId:'q4'}", "queryType": "NATIVE"}
    answer = await arduino.ask("UPDATE", body, ontology=ONTOLOGY)
    assert answer.ok, answer
    assert (await device.query("{Sensor.assetId:'q4'}")).data == "[ ]"


async def test_sql_writes_sent_as_queries(device):
    insert = ("insert into TestSensorTemperatura(geometry, assetId, measure, timestamp) values (\"{ 'coordinates': [1,2], "
              "'type':'Point' }\", \"sent\", 1, \"{ '$date': '2014-04-29T08:24:54.005Z'}\")")  # fmt: skip
    assert "ObjectId" in (await device.query(insert, "SQLLIKE", ontology=None)).data
    assert (
        "ObjectId"
        in (await device.query("update TestSensorTemperatura set measure=2 where assetId='sent'", "SQLLIKE")).data
    )
    assert (
        "ObjectId"
        in (await device.query("delete from TestSensorTemperatura where assetId='sent'", "SQLLIKE", None)).data
    )


@pytest.mark.parametrize("value", ["q3", '"q3"', "'q3'"])
async def test_a_predefined_query_binds_its_parameters(device, value):
    body = {"query": "porAsset", "queryType": "SIB_DEFINED", "queryParams": {"PARAM1": value}}
    answer = await device.ask("QUERY", body)
    assert answer.ok, answer
    assert [row["Sensor"]["assetId"] for row in answer.rows] == ["q3"] * 5


async def test_a_parameter_is_a_value_never_text(device):
    for value in ("x' or '1'='1", '"} , {$or:[{}]', "q3' --"):
        body = {"query": "porAsset", "queryType": "SIB_DEFINED", "queryParams": {"PARAM1": value}}
        assert (await device.ask("QUERY", body)).data == "[ ]"


async def test_a_predefined_native_query_with_a_number(device):
    body = {"query": "porMedida", "queryType": 2, "queryParams": {"PARAM1": "7"}}
    assert [row["Sensor"]["measure"] for row in (await device.ask("QUERY", body)).rows] == [7]
    for params in ({"PARAM1": "seven"}, {}, None):
        answer = await device.ask("QUERY", {**body, "queryParams": params})
        assert (answer.ok, answer.code) == (False, "OTHER"), answer


@pytest.mark.parametrize(
    "text",
    [
        "select * from Asset",
        "SELECT identificacion FROM asset;",
        "select identificacion from Asset where identificacion='asset-1'",
    ],
)
@pytest.mark.parametrize("kind", ["BDC", "CDB", 5])
async def test_the_assets_of_the_own_user(device, text, kind):
    answer = await device.query(text, kind, ontology=None)
    assert answer.ok, answer
    assert [row["identificacion"] for row in answer.rows] == ["asset-1"]


async def test_other_tables_are_for_administrators_and_without_secrets(device, websocket):
    refused = await device.query("select * from Token", "BDC", ontology=None)
    assert (refused.ok, refused.code) == (False, "AUTHORIZATION")
    admin = await websocket(join=False)
    body = {"instance": "KPSsap:admin", "user": "admin", "password": "admin-password"}
    admin.key = (await admin.ask("JOIN", body, key=None))["sessionKey"]
    assets = await admin.query("select * from Asset", "BDC", ontology=None)
    assert {"asset-1", "asset-luis"} <= {row["identificacion"] for row in assets.rows}
    users = await admin.query("select * from Usuario", "BDC", ontology=None)
    assert users.ok, users
    assert {"sofia", "luis"} <= {row["identificacion"] for row in users.rows}
    for secret in ("password", "argon2", "0123456789abcdef0123456789abcdef"):
        assert secret not in json.dumps(users.rows)
    write = await admin.query("delete from Asset", "BDC", ontology=None)
    assert (write.ok, write.code) == (False, "PARSE_SQL")


async def test_a_unique_index_refuses_the_second_alone(websocket):
    device = await websocket()
    await device.ask("DELETE", {"query": "db.Unique.remove({})"}, ontology="Unique")
    for serial in (1, 2):
        assert (await device.insert({"serial": serial}, "Unique")).ok
    twice = await device.insert({"serial": 1}, "Unique")
    assert (twice.ok, twice.code) == (False, "PERSISTENCE")
    assert "uplicate" in twice.error
    assert len((await device.query("{}", ontology="Unique")).rows) == 2
