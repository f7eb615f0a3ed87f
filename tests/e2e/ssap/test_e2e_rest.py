"""REST as the bridges and Node-RED speak it, with callbacks."""

import asyncio
import base64
import json
import re

import pytest

ONTOLOGY = "TestSensorTemperatura"
ID = re.compile(r'\{"_id":ObjectId\("([0-9a-f]{24})"\)\}')
TOKEN = "ssap0000000000000000000000000001"


@pytest.fixture
async def key(rest, sib):
    key = await rest.join(sib)
    answer = await rest.get(sessionKey=key, query=f"db.{ONTOLOGY}.remove({{}})", queryType="NATIVE")
    assert answer.status_code == 200, answer.text
    return key


def data_of(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    return answer.json()["data"]


async def insert(rest, key, instance, **fields):
    return await rest.post({"sessionKey": key, "ontology": ONTOLOGY, "data": json.dumps(instance), **fields})


@pytest.mark.parametrize("slash", ["", "/"])
async def test_join_and_leave(rest, slash):
    answer = await rest.post({"join": True, "instanceKP": "KPSsap:r", "token": TOKEN}, slash)
    joined = answer.json()
    assert {name: joined[name] for name in ("join", "leave", "data")} == {"join": False, "leave": False, "data": None}
    assert "version" not in joined
    renewed = await rest.post(
        {"join": True, "instanceKP": "KPSsap:r", "token": TOKEN, "sessionKey": joined["sessionKey"]}, slash
    )
    assert renewed.json()["sessionKey"] == joined["sessionKey"]
    left = await rest.post({"leave": True, "sessionKey": joined["sessionKey"]}, slash)
    assert (left.status_code, left.json()["data"], left.json()["sessionKey"]) == (200, None, joined["sessionKey"])
    again = await rest.post({"leave": True, "sessionKey": joined["sessionKey"]}, slash)
    assert (again.status_code, again.json()["errorCode"]) == (401, "AUTENTICATION")


@pytest.mark.parametrize("fields", [{"token": "wrong"}, {"instanceKP": "KPLuis:r"}, {"instanceKP": "r"}])
async def test_a_refused_join_is_401(rest, fields):
    answer = await rest.post({"join": True, "instanceKP": "KPSsap:r", "token": TOKEN, **fields})
    assert (answer.status_code, answer.json()["errorCode"]) == (401, "AUTENTICATION")
    assert answer.json()["detail"]


async def test_the_life_of_an_instance(rest, key, tools):
    id_ = ID.fullmatch(data_of(await insert(rest, key, tools.sensor(1, "rest"))))[1]
    found = json.loads(data_of(await rest.get(f"/{id_}", sessionKey=key, ontology=ONTOLOGY)))
    assert [row["_id"]["$oid"] for row in found] == [id_]
    changed = {**tools.sensor(2, "rest"), "_id": {"$oid": id_}}
    answer = await rest.call("PUT", "/", json={"sessionKey": key, "ontology": ONTOLOGY, "data": json.dumps(changed)})
    assert data_of(answer) == f'{{"_ids":[{{"_id":ObjectId("{id_}")}}]}}'
    query = "select * from TestSensorTemperatura where Sensor.assetId='rest'"
    rows = json.loads(data_of(await rest.get("/", sessionKey=key, ontology=ONTOLOGY, query=query, queryType="SQLLIKE")))
    assert [row["Sensor"]["measure"] for row in rows] == [2]
    assert data_of(await rest.call("DELETE", f"/{id_}?$sessionKey={key}&$ontology={ONTOLOGY}"))
    assert data_of(await rest.get(f"/{id_}", sessionKey=key, ontology=ONTOLOGY)) == "[ ]"
    gone = await rest.call("DELETE", f"/{id_}?$sessionKey={key}&$ontology={ONTOLOGY}")
    assert (gone.status_code, gone.json()["errorCode"]) == (400, "PERSISTENCE")


@pytest.mark.parametrize("data", ['{{"_id":{{"$oid":"{}"}}}}', '{{"_id":ObjectId("{}")}}'])
async def test_delete_with_a_body(rest, key, tools, data):
    id_ = ID.fullmatch(data_of(await insert(rest, key, tools.sensor())))[1]
    value = {"sessionKey": key, "ontology": ONTOLOGY, "data": data.format(id_)}
    assert (await rest.call("DELETE", "", json=value)).status_code == 200
    assert data_of(await rest.get(f"/{id_}", sessionKey=key, ontology=ONTOLOGY)) == "[ ]"


async def test_version_one(rest, sib, tools):
    key = await rest.join(sib, version="ONE")
    answer = await insert(rest, key, tools.sensor(), version="ONE")
    assert answer.json()["version"] == "ONE"
    id_ = answer.json()["data"]["_id"]["$oid"]
    rows = data_of(await rest.get(f"/{id_}", sessionKey=key, ontology=ONTOLOGY))
    rows = json.loads(rows) if isinstance(rows, str) else rows
    assert rows[0]["_id"] == {"$oid": id_}
    follows = await insert(rest, key, tools.sensor())
    assert follows.json()["version"] == "ONE"
    assert set(follows.json()["data"]) == {"_id"}


async def test_arrays_are_all_or_nothing(rest, key, tools):
    good, bad = tools.sensor(1, "array"), {"Sensor": {"assetId": "array"}}
    answer = data_of(await insert(rest, key, [good, json.dumps(good), good]))
    assert len(re.findall(r'ObjectId\("[0-9a-f]{24}"\)', answer)) == 3
    assert answer.startswith('{"_ids":[{"_id":ObjectId(')
    refused = await insert(rest, key, [good, bad, good])
    assert (refused.status_code, refused.json()["errorCode"]) == (400, "PERSISTENCE")
    count = await rest.get(sessionKey=key, query="select count(*) from TestSensorTemperatura where assetId='array'")
    assert data_of(count) == "3"


@pytest.mark.parametrize("empty", [None, "", "null"])
async def test_parameters_may_be_missing_empty_or_null(rest, key, empty):
    odd = {} if empty is None else {"ontology": empty, "queryArguments": empty, "queryType": empty}
    answer = await rest.get(
        "/", sessionKey=key, query="select * from TestSensorTemperatura where assetId='none'", **odd
    )
    assert data_of(answer) == "[ ]"


async def test_statements_by_get(rest, key):
    insert_text = ("insert into TestSensorTemperatura(geometry, assetId, measure, timestamp) values (\"{ 'coordinates': [1,2], "
                   "'type':'Point' }\", \"byget\", 1, \"{ '$date': '2014-04-29T08:24:54.005Z'}\")")  # fmt: skip
    assert data_of(await rest.get(sessionKey=key, query=insert_text, queryType="SQLLIKE"))
    for text in (
        "update TestSensorTemperatura set measure=5 where assetId='byget'",
        "delete from TestSensorTemperatura where measure=5",
    ):
        assert data_of(await rest.get(sessionKey=key, query=text)).count("ObjectId") == 1


async def test_a_predefined_query_with_arguments(rest, key, tools):
    await insert(rest, key, tools.sensor(3, "args"))
    answer = await rest.get(sessionKey=key, query="porAsset", queryType="SIB_DEFINED", queryArguments="PARAM1=args")
    alternative = await rest.get(
        sessionKey=key, query="porAsset", queryType="SIB_DEFINED", queryArguments='{"PARAM1":"args"}'
    )
    assert 200 in (answer.status_code, alternative.status_code), answer.text


@pytest.mark.parametrize(("value", "status", "code"), [
    ({"sessionKey": "K", "ontology": ONTOLOGY, "data": '{"Sensor":{}}'}, 400, "PERSISTENCE"),
    ({"sessionKey": "K", "ontology": "Nothing", "data": "{}"}, 400, "ONTOLOGY_NOT_FOUND"),
    ({"sessionKey": "K", "ontology": "Thing", "data": "{}"}, 400, "AUTHORIZATION"),
    ({"sessionKey": "K", "data": "{}"}, 400, "OTHER"), ({"sessionKey": "K", "ontology": ONTOLOGY}, 400, None),
    ({"ontology": ONTOLOGY, "data": "{}"}, 401, "AUTENTICATION"), ({"sessionKey": "K", "ontology": 7, "data": "{}"}, 400, None),
    ([], 400, None), ("text", 400, None), (None, 400, None),
])  # fmt: skip
async def test_refusals(rest, key, value, status, code):
    if isinstance(value, dict) and value.get("sessionKey") == "K":
        value = {**value, "sessionKey": key}
    answer = await rest.post(value)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"detail", "errorCode"}
    assert answer.json()["detail"]
    if code is not None:
        assert answer.json()["errorCode"] == code


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b'{"a":NaN}', b"[" * 100_000, b'{"join":true,"join":false}']
)
async def test_broken_bodies(rest, content):
    answer = await rest.call("POST", "", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 401), answer.text
    assert answer.json()["detail"]


async def test_a_body_that_is_too_long(rest, key):
    value = {"sessionKey": key, "ontology": ONTOLOGY, "data": "x" * (2 * 1024 * 1024)}
    answer = await rest.post(value)
    assert (answer.status_code, answer.json()["errorCode"]) == (400, "OTHER")


@pytest.mark.parametrize("target", [
    "?$sessionKey=K&$query={Sensor.measure:{$gtXX:1}}&$queryType=NATIVE", "?$sessionKey=K&$query=selekt",
    "?$sessionKey=K", "?$sessionKey=K&$query=", "?$sessionKey=K&$query=select * from Nothing",
])  # fmt: skip
async def test_bad_queries_are_400(rest, key, target):
    answer = await rest.call("GET", target.replace("=K", f"={key}"))
    assert answer.status_code == 400, answer.text


async def test_config_and_reports(rest, key):
    config = await rest.get(
        "/config", kp="KPSsap", instanciakp="KPSsap:r", token=TOKEN, assetService="", assetServiceParam=""
    )
    data = data_of(config)
    assert "lontologia" in (json.loads(data) if isinstance(data, str) else data)
    common = {"thinkp": "KPSsap", "kp": "r", "token": TOKEN, "owner": "x", "timestamp": "now"}
    for path, fields, body in (
        ("/status", {}, {"battery": "7"}), ("/error", {"code": "1", "message": "m", "severity": "ERROR"}, None),
        ("/log", {"code": "1", "message": "m", "level": "INFO"}, None),
        ("/location", {"accuracy": 1, "lat": 40.0, "lon": -3, "alt": 1, "bearing": 0, "speed": 0}, None),
    ):  # fmt: skip
        params = {f"${name}": value for name, value in {**common, **fields}.items()}
        assert data_of(await rest.call("POST", path, params=params, json=body)), path
        bad = await rest.call("POST", path, params={**params, "$token": "wrong"}, json=body)
        assert bad.status_code == 401


@pytest.mark.parametrize("version", [None, "ONE"])
async def test_callbacks_follow_a_subscription_in_order(rest, sib, mqtt, tools, callbacks, version):
    key = await rest.join(sib, **({"version": version} if version else {}))
    query = "select * from TestSensorTemperatura where Sensor.assetId = 'callback'"
    answer = await rest.get("/subscribe", sessionKey=key, ontology=ONTOLOGY, query=query, msRefresh="0", queryArguments="",
                            queryType="SQLLIKE", endpoint=callbacks.url)  # fmt: skip
    id_ = data_of(answer)
    writer = await mqtt()
    for number in range(5):
        await writer.insert(tools.sensor(number, "callback"))
    for number in range(5):
        call = await callbacks.next()
        assert (call["messageId"], call["messageType"], call["direction"]) == (id_, "INDICATION", "RESPONSE")
        assert (call["sessionKey"], call["ontology"]) == (key, ONTOLOGY)
        if version is None:
            assert isinstance(call["body"], str)
            assert "version" not in call
            assert re.fullmatch(r" \{ .*\} ?", call.data)
            assert json.loads(call.data)["Sensor"]["measure"] == number
        else:
            assert call["version"] == "ONE"
            assert [row["Sensor"]["measure"] for row in call.data] == [number]
    assert data_of(await rest.get("/unsubscribe", sessionKey=key, subscriptionId=id_)) == ""
    await writer.insert(tools.sensor(9, "callback"))
    await asyncio.sleep(0.4)
    assert not callbacks.received


async def test_a_failing_endpoint_is_tried_again(rest, sib, key, tools, callbacks):
    callbacks.status = 500
    answer = await rest.get(
        "/subscribe",
        sessionKey=key,
        ontology=ONTOLOGY,
        query="",
        queryType="NATIVE",
        msRefresh="0",
        endpoint=callbacks.url,
    )
    assert data_of(answer)
    for number in range(3):
        await insert(rest, key, tools.sensor(number, "retry"))
    await asyncio.sleep(0.5)
    callbacks.status = 200
    measures = [json.loads((await callbacks.next(30)).data)["Sensor"]["measure"] for _ in range(3)]
    assert measures == [0, 1, 2]


@pytest.mark.parametrize(
    ("endpoint", "status"),
    [("http://127.0.0.1:1/nobody", 200), ("ftp://127.0.0.1/x", 400), ("nonsense", 400), ("", 400)],
)
async def test_endpoints(rest, key, endpoint, status):
    answer = await rest.get("/subscribe", sessionKey=key, ontology=ONTOLOGY, query="{Sensor.assetId:'never'}", queryType="NATIVE",
                            msRefresh="0", endpoint=endpoint)  # fmt: skip
    assert answer.status_code == status, answer.text


async def test_commands_to_an_endpoint(rest, key, callbacks, mqtt):
    answer = await rest.get(
        "/subscribe_command", thinkp="KPSsap", kp="KPSsap:cmd", token=TOKEN, type="STATUS", endpoint=callbacks.url
    )
    id_ = data_of(answer)
    params = {"$sessionKey": key, "$thinkp": "KPSsap", "$kp": "KPSsap:cmd", "$type": "STATUS"}
    assert data_of(await rest.call("POST", "/command", params=params, json={"on": "1"}))
    call = await callbacks.next()
    assert call["messageId"] == id_
    data = json.loads(call.data) if isinstance(call.data, str) else call.data
    assert data["args"] == {"on": "1"}


async def test_a_rest_session_that_also_speaks_over_mqtt_keeps_its_callbacks(rest, sib, key, mqtt, tools, callbacks):
    query = {"query": "{Sensor.assetId:'both'}", "queryType": "NATIVE", "msRefresh": "0"}
    assert data_of(await rest.get("/subscribe", sessionKey=key, ontology=ONTOLOGY, endpoint=callbacks.url, **query))
    device = await mqtt(join=False)
    device.key = key
    assert (await device.insert(tools.sensor(1, "both"))).ok
    assert (await callbacks.next())["sessionKey"] == key


@pytest.mark.parametrize("is_rest_first", [True, False])
async def test_callbacks_and_indications_of_one_session(rest, mqtt, tools, callbacks, is_rest_first):
    device = await mqtt()
    query = "{Sensor.assetId:'two'}"

    async def subscribe_over_rest():
        options = {"query": query, "queryType": "NATIVE", "msRefresh": "0", "endpoint": callbacks.url}
        return data_of(await rest.get("/subscribe", sessionKey=device.key, ontology=ONTOLOGY, **options))

    callback = await subscribe_over_rest() if is_rest_first else None
    id_ = await device.subscribe(query, ms_refresh=0)
    callback = callback or await subscribe_over_rest()
    for number in range(3):
        if number:
            assert (await device.insert(tools.sensor(number, "two"))).ok
        else:
            data = json.dumps(tools.sensor(number, "two"))
            await rest.post({"sessionKey": device.key, "ontology": ONTOLOGY, "data": data})
        assert (await device.indication())["messageId"] == id_
        assert (await callbacks.next())["messageId"] == callback
    await device.ask("UNSUBSCRIBE", {"idSuscripcion": callback})
    assert (await device.insert(tools.sensor(9, "two"))).ok
    assert (await device.indication())["messageId"] == id_
    assert not callbacks.received


async def test_a_rest_request_leaves_the_indications_of_its_session_where_they_are(rest, mqtt, websocket, tools):
    """The Android client has one session for both. Only a connection can take INDICATIONs over."""
    device = await mqtt()
    id_ = await device.subscribe("{Sensor.assetId:'stays'}", ms_refresh=0)

    async def insert_over_rest(number):
        data = json.dumps(tools.sensor(number, "stays"))
        answer = await rest.post({"sessionKey": device.key, "ontology": ONTOLOGY, "data": data})
        assert answer.status_code == 200, answer.text

    for number in range(2):
        await insert_over_rest(number)
        assert (await device.indication())["messageId"] == id_
    other = await websocket(join=False)
    other.key = device.key
    assert (await other.insert(tools.sensor(2, "stays"))).ok
    assert (await other.indication())["messageId"] == id_
    await insert_over_rest(3)
    assert (await other.indication())["messageId"] == id_
    assert (await device.insert(tools.sensor(4, "stays"))).ok
    assert (await device.indication())["messageId"] == id_


async def test_the_token_list(sib, rest):
    base = sib.endpoints["http"] + "/console/api/rest/kps/{}/tokens"

    async def get(kp, user, password):
        credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
        return await rest.client.get(base.format(kp), headers={"authorization": f"Basic {credentials}"})

    tokens = await get("KPTestTemperatura", "sofia", "sofia-password")
    assert {"token": "e5e8a005d0a248f1ad2cd60a821e6838", "activo": True} in tokens.json()
    assert {"token": "3f8d3638215a4d59ad5cffad19c81379", "activo": False} in tokens.json()
    assert (await get("KPTestTemperatura", "admin", "admin-password")).status_code == 200
    for bad in (
        ("KPTestTemperatura", "luis", "luis-password"),
        ("KPTestTemperatura", "sofia", "wrong"),
        ("Nobody", "sofia", "sofia-password"),
    ):
        assert (await get(*bad)).status_code == 401
    assert (await rest.client.get(base.format("KPTestTemperatura"))).status_code == 401


async def test_the_alias_and_no_redirects(sib, rest):
    for path in ("v01", "v01.0"):
        for slash in ("", "/"):
            answer = await rest.client.get(
                sib.endpoints["http"] + f"/sib/services/api_ssap/{path}/SSAPResource{slash}?$sessionKey=dead&$query=x"
            )
            assert answer.status_code == 401
