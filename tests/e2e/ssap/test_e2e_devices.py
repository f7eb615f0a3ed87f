"""CONFIG, LOG, ERROR, STATUS, LOCATION, SUBSCRIBECOMMAND and COMMAND."""

import json

import pytest

TOKEN = "ssap0000000000000000000000000001"


def config(**fields):
    return {
        "kp": "KPSsap",
        "instanciaKp": "KPSsap:c1",
        "token": TOKEN,
        "assetService": "x",
        "assetServiceParam": {},
        **fields,
    }


@pytest.mark.parametrize("dialect", ["string", "object", "one"])
async def test_config_needs_no_session(websocket, dialect):
    device = await websocket(join=False)
    answer = await device.ask("CONFIG", config(), key=None, dialect=dialect)
    assert answer.ok, answer
    data = answer.data if dialect == "one" else json.loads(answer.data)
    assert set(data) == {
        "kp",
        "instanciaKp",
        "token",
        "assetService",
        "assetServiceParam",
        "lappsw",
        "lasset",
        "lontologia",
        "lmisc",
    }
    assert (data["kp"], data["token"]) == ("KPSsap", None)
    ontologies = {item["identificacion"]: item for item in data["lontologia"]}
    assert {"TestSensorTemperatura", "LegacyTemplate"} <= set(ontologies)
    assert set(ontologies["TestSensorTemperatura"]) == {"identificacion", "esquemajson", "tipopermiso"}
    json.loads(ontologies["TestSensorTemperatura"]["esquemajson"])
    assert TOKEN not in json.dumps(answer)


@pytest.mark.parametrize("fields", [
    {"assetServiceParam": "{\"a\":1}"}, {"assetServiceParam": None, "assetService": None}, {"instanciaKp": "c1"},
])  # fmt: skip
async def test_config_as_the_clients_vary_it(websocket, fields):
    device = await websocket(join=False)
    assert (await device.ask("CONFIG", config(**fields), key=None)).ok


@pytest.mark.parametrize("fields", [
    {"token": "wrong"}, {"token": None}, {"kp": "Nobody"}, {"token": "luis0000000000000000000000000001"},
])  # fmt: skip
async def test_config_with_a_bad_token(websocket, fields):
    device = await websocket(join=False)
    answer = await device.ask("CONFIG", config(**fields), key=None)
    assert (answer.ok, answer.code, answer.data) == (False, "AUTENTICATION", None)


REPORTS = {
    "LOG": {"level": "INFO", "code": "7", "message": "hello", "timestamp": "2026-11-24-03:08:25"},
    "ERROR": {"severity": "CRITICAL", "code": "7", "message": "broken", "timestamp": "2026-11-2403:08:25"},
    "STATUS": {"status": {"battery": "12"}, "timestamp": "2026-11-24-03:08:25"},
    "LOCATION": {
        "accuracy": 1.0,
        "lat": 40.1,
        "lon": -3.2,
        "alt": 600.0,
        "bearing": 0.0,
        "speed": 0.0,
        "timestamp": "x",
    },
}


@pytest.mark.parametrize("dialect", ["string", "object", "one"])
@pytest.mark.parametrize("kind", list(REPORTS))
@pytest.mark.parametrize("instance", ["KPSsap:r1", "r1"])
async def test_reports_need_a_token_and_no_session(websocket, kind, dialect, instance):
    device = await websocket(join=False)
    body = {"thinkp": "KPSsap", "instanciathinkp": instance, "token": TOKEN, "owner": "someone", **REPORTS[kind]}
    answer = await device.ask(kind, body, key=None, dialect=dialect)
    assert (answer.ok, answer.data) == (True, "OK"), answer
    for token in ("wrong", None, "luis0000000000000000000000000001"):
        refused = await device.ask(kind, {**body, "token": token}, key=None, dialect=dialect)
        assert (refused.ok, refused.code) == (False, "AUTENTICATION")


async def test_status_null_is_no_status(mqtt):
    device = await mqtt(join=False)
    body = {
        "thinkp": "KPSsap",
        "instanciathinkp": "r1",
        "token": TOKEN,
        "owner": None,
        "status": None,
        "timestamp": None,
    }
    assert (await device.ask("STATUS", body, key=None)).data == "OK"


def listen(instance="KPSsap:i1", type_="STATUS", token=TOKEN):
    return {"thinkp": "KPSsap", "thinkpInstance": instance, "token": token, "type": type_}


@pytest.mark.parametrize("to", ["KPSsap:i1", "i1"])
@pytest.mark.parametrize("listener", ["mqtt", "websocket", "one"])
async def test_a_command_reaches_who_listens_whatever_the_gateway(mqtt, websocket, listener, to):
    device = (
        await mqtt(join=False)
        if listener == "mqtt"
        else await websocket(join=False, dialect="object" if listener == "websocket" else "one")
    )
    id_ = (await device.ask("SUBSCRIBECOMMAND", listen(), key=None)).data
    for sender in (await mqtt(), await websocket()):
        body = {"thinkp": "KPSsap", "thinkpInstance": to, "type": "STATUS", "args": {"on": "true"}}
        answer = await sender.ask("COMMAND", body)
        assert answer.ok
        assert answer.data
        command = await device.command()
        assert (command["messageId"], command["sessionKey"], command["ontology"]) == (id_, None, None)
        assert (command["messageType"], command["direction"]) == ("INDICATION", "RESPONSE")
        data = command.data if listener == "one" else json.loads(command.data)
        assert data == {"thinkp": "KPSsap", "thinkpInstance": to, "type": "STATUS", "args": {"on": "true"}}


@pytest.mark.parametrize("body", [
    {"thinkp": "KPSsap", "thinkpInstance": "KPSsap:other", "type": "STATUS", "args": {}},
    {"thinkp": "KPSsap", "thinkpInstance": "KPSsap:i1", "type": None, "args": {}},
])  # fmt: skip
async def test_a_command_for_another_or_without_type_reaches_nobody(mqtt, body):
    device = await mqtt()
    assert (await device.ask("SUBSCRIBECOMMAND", listen(), key=None)).ok
    answer = await device.ask("COMMAND", body)
    assert answer.ok
    assert answer.data
    await device.nothing("command", 0.4)


async def test_a_command_to_a_kp_that_nobody_has_is_answered(mqtt):
    device = await mqtt()
    answer = await device.ask("COMMAND", {"thinkp": "NoSuchKP", "thinkpInstance": "x", "type": "STATUS", "args": {}})
    assert answer.ok, answer
    assert answer.data


async def test_type_as_an_ordinal(mqtt):
    device = await mqtt()
    assert (await device.ask("SUBSCRIBECOMMAND", listen(), key=None)).ok
    await device.ask("COMMAND", {"thinkp": "KPSsap", "thinkpInstance": "KPSsap:i1", "type": 0, "args": None})
    assert json.loads((await device.command()).data)["type"] == "STATUS"


async def test_who_may_command_and_listen(mqtt):
    device = await mqtt()
    body = {"thinkp": "KPSsap", "thinkpInstance": "KPSsap:i1", "type": "STATUS", "args": {}}
    assert (await device.ask("COMMAND", body, key="dead")).code == "AUTENTICATION"
    assert (await device.ask("SUBSCRIBECOMMAND", listen(token="wrong"), key=None)).code == "AUTENTICATION"


async def test_at_most_sixteen_listeners_a_connection(mqtt):
    device = await mqtt(join=False)
    for number in range(16):
        assert (await device.ask("SUBSCRIBECOMMAND", listen(f"KPSsap:n{number}"), key=None)).ok
    refused = await device.ask("SUBSCRIBECOMMAND", listen("KPSsap:n16"), key=None)
    assert (refused.ok, refused.code) == (False, "OTHER")
    assert "16" in refused.error


async def test_a_query_body_sent_as_config(websocket):
    device = await websocket()
    answer = await device.ask("CONFIG", {"query": "{Sensor.measure:{$gt:10}}", "queryType": "NATIVE"}, dialect="one")
    assert (answer.ok, answer.code) == (False, "AUTENTICATION")
