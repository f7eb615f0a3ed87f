"""Bad input: each gets a clear answer, and the platform goes on serving others."""

import asyncio
import json
import time

import pytest

from sib.mqtt import codec, wire

ONTOLOGY = "TestSensorTemperatura"


@pytest.fixture
async def witness(mqtt, tools):
    """Another device: it must be served whatever happens beside it."""
    device = await mqtt()

    async def is_served(within_s=5.0):
        began = time.monotonic()
        assert (await device.insert(tools.sensor(asset="witness"), timeout_s=within_s)).ok
        assert (await device.query("{Sensor.assetId:'witness'}", timeout_s=within_s)).ok
        assert time.monotonic() - began < within_s

    yield is_served
    await is_served()


def deep(levels, inner="1"):
    return '{"a":' * levels + inner + "}" * levels


PAYLOADS = {
    "broken json": b'{"messageType":"INSERT","body":',
    "not an object": b"[1,2,3]",
    "a number": b"17",
    "a string": b'"hello"',
    "invalid utf-8": b'{"messageType":"QUERY","body":"\xff\xfe\xfa"}',
    "nan": b'{"messageType":"INSERT","body":{"data":{"a":NaN},"query":null}}',
    "infinity": b'{"messageType":"INSERT","body":{"data":{"a":-Infinity},"query":null}}',
    "duplicate keys": b'{"messageType":"INSERT","messageType":"DELETE","body":{}}',
    "deep nesting": b'{"messageType":"INSERT","body":' + b"[" * 100_000,
    "deep nesting closed": ('{"messageType":"INSERT","body":' + deep(5000) + "}").encode(),
    "unknown type": b'{"messageType":"EXPLODE","body":{}}',
    "type as number": b'{"messageType":7,"body":{}}',
    "body as number": b'{"messageType":"INSERT","sessionKey":"x","body":12}',
    "body no json": b'{"messageType":"INSERT","sessionKey":"x","body":"{nope"}',
    "key as object": b'{"messageType":"INSERT","sessionKey":{"$ne":1},"body":{}}',
    "ontology as array": b'{"messageType":"INSERT","sessionKey":"x","ontology":["a"],"body":{}}',
    "huge number": b'{"messageType":"QUERY","messageId":1e999999,"body":{}}',
    "nul": b'{"messageType":"QUERY\\u0000","body":{}}',
    "surrogate": b'{"messageType":"QUERY","sessionKey":"\\ud800","body":{"query":"\\udfff"}}',
    "bulk as text": b'{"messageType":"BULK","sessionKey":"x","body":"[[[["}',
    "binary": bytes(range(1, 256)),
}


@pytest.mark.parametrize("name", list(PAYLOADS))
@pytest.mark.parametrize("transport", ["mqtt", "websocket"])
async def test_unreadable_payloads_are_answered_and_the_connection_lives(
    mqtt, websocket, witness, tools, transport, name
):
    device = await (mqtt if transport == "mqtt" else websocket)()
    if transport == "websocket":
        await device.send(PAYLOADS[name], text=name not in ("invalid utf-8", "binary"))
    else:
        await device.send(PAYLOADS[name])
    answer = await device.answer()
    assert (answer.ok, answer["direction"]) == (False, "ERROR")
    assert answer.code in ("OTHER", "AUTENTICATION")
    assert answer.error
    assert (await device.insert(tools.sensor())).ok


async def test_the_message_type_is_taken_from_broken_text(mqtt):
    device = await mqtt()
    assert (await device.ask_raw(b'{"messageType":"INSERT","body":'))["messageType"] == "INSERT"
    assert (await device.ask_raw(b'{"messageType":"EXPLODE","body":{}}'))["messageType"] == "NONE"


INSTANCES = {
    "nan": '{"n": NaN}',
    "duplicate keys": '{"n":1,"n":2}',
    "deep nesting": deep(300),
    "very deep nesting": deep(20_000),
    "arrays": "[" * 500 + "]" * 500,
    "huge integer": '{"n":' + "9" * 400 + "}",
    "infinite": '{"n":1e999}',
    "surrogate": '{"n":"\\ud800"}',
    "nul key": '{"n\\u0000m":1}',
    "dollar key": '{"$set":{"a":1}}',
    "bad date": '{"n":{"$date":"yesterday"}}',
    "bad oid": '{"n":{"$oid":"xyz"}}',
    "text": "just text",
    "empty": "",
    "array": "[1,2]",
}
STORED_OR_REFUSED = {"duplicate keys", "surrogate", "dollar key", "bad date", "bad oid", "empty", "deep nesting"}


@pytest.mark.parametrize("name", list(INSTANCES))
async def test_odd_instances_fail_alone(mqtt, witness, name):
    device = await mqtt()
    await device.send(b"")  # nothing
    requests = [INSTANCES[name], '{"n":1}']
    for instance in requests:
        answer = await device.insert(instance, "Anything")
        if instance is requests[0]:
            assert name in STORED_OR_REFUSED or not answer.ok, answer
        else:
            assert answer.ok, answer
        if not answer.ok:
            assert answer.code in ("PERSISTENCE", "OTHER", "PARSE_SQL")
            assert answer.error
    assert (await device.query("{n:1}", ontology="Anything")).ok


@pytest.mark.parametrize("transport", ["mqtt", "websocket"])
async def test_a_message_of_two_mebibytes(mqtt, websocket, witness, tools, transport):
    device = await (mqtt if transport == "mqtt" else websocket)()
    big = tools.frame(
        "INSERT",
        {"data": json.dumps({"n": "x" * (2 << 20)}), "query": None},
        session_key=device.key,
        ontology="Anything",
    )
    packet_id = await device.send(big)
    if transport == "mqtt":
        async with asyncio.timeout(10):
            while (await device.event("puback")).packet_id != packet_id:
                pass
    answer = await device.answer()
    assert (answer.ok, answer.code) == (False, "OTHER")
    assert "1900000" in answer.error
    assert (await device.insert({"n": "x" * 1_500_000}, "Anything")).ok
    gone = {"query": "db.Anything.remove({})"}
    assert (await device.ask("DELETE", gone, ontology="Anything")).ok


async def test_half_packets_and_slow_starters_hold_nobody(sib, witness):
    connect = codec.encode_packet(
        codec.CONNECT, 0, wire.encode_string("MQTT") + bytes((4, 2)) + wire.encode_uint16(0), wire.encode_string("half")
    )
    pieces = [
        connect[:1],
        connect[:5],
        connect + b"\x32",
        connect + b"\x32\xff",
        connect + b"\x32\x40\x00\x01",
        b"",
        b"\xff" * 50,
    ]
    writers = []
    for piece in pieces * 20:
        _, writer = await asyncio.open_connection(*sib.address("mqtt"))
        writer.write(piece)
        writers.append(writer)
    for piece in (
        b"GET / HTTP/1.1\r\n",
        b"POST /sib/services/api_ssap/v01/SSAPResource HTTP/1.1\r\nContent-Length: 100\r\n\r\n{",
        b"\x16\x03\x01",
    ):
        _, writer = await asyncio.open_connection(*sib.address("http"))
        writer.write(piece)
        writers.append(writer)
    await witness()
    for writer in writers:
        writer.transport.abort()


async def test_a_slow_writer_gets_its_answer_too(mqtt, tools):
    device = await mqtt()
    payload = tools.frame("QUERY", {"query": "{Sensor.measure:-5}"}, session_key=device.key, ontology=ONTOLOGY)
    packet = codec.encode_publish(codec.Publish("", payload, 1, packet_id=77), 3)
    for at in range(0, len(packet), 40):
        device.write(packet[at : at + 40])
        await asyncio.sleep(0.02)
    assert (await device.answer()).ok


REGEX_BOMBS = [
    "(a+)+$",
    "(a|a)*$",
    "^(([a-z])+.)+[A-Z]([a-z])+$",
    "(.*a){30}",
    "((a{1,100}){1,100}){1,100}",
    "(?=a)a",
    "(a)\\1",
]


@pytest.mark.parametrize("pattern", REGEX_BOMBS)
async def test_regex_bombs(websocket, witness, pattern):
    device = await websocket()
    assert (await device.insert({"bomb": "a" * 5000 + "!"}, "Heavy")).ok
    began = time.monotonic()
    answer = await device.query(json.dumps({"bomb": {"$regex": pattern}}), ontology="Heavy", timeout_s=40)
    assert time.monotonic() - began < 35
    assert answer.ok or answer.code == "OTHER"
    body = {"query": json.dumps({"bomb": {"$regex": pattern}}), "msRefresh": 0}
    subscribed = await device.ask("SUBSCRIBE", body, ontology="Heavy")
    assert subscribed.ok is answer.ok or not answer.ok
    assert (await device.insert({"bomb": "a" * 5000 + "!"}, "Heavy", timeout_s=20)).ok
    assert (await device.leave()).ok


QUERIES = {
    "deep native": '{"$and":[' * 3000 + "{}" + "]}" * 3000,
    "deep relaxed": "{a:" * 5000 + "1" + "}" * 5000,
    "deep sql": "select * from Heavy where " + "(" * 3000 + "a=1" + ")" * 3000,
    "deep not": "select * from Heavy where " + "not " * 3000 + "a=1",
    "long in": "select * from Heavy where a in (" + ",".join(map(str, range(100_000))) + ")",
    "many ors": "select * from Heavy where " + " or ".join(f"a={n}" for n in range(20_000)),
    "brackets": "[" * 10_000,
    "huge skip": "db.Heavy.find().skip(99999999999999999999)",
    "negative limit": "db.Heavy.find().limit(-5)",
    "where": "{$where:'while(true){}'}",
    "function": "db.Heavy.aggregate([{$project:{x:{$function:{body:'',args:[],lang:'js'}}}}])",
    "nul": "{a:'\\u0000'}",
    "code": "db.Heavy.find(function(){return true})",
    "drop": "db.Heavy.drop()",
    "other database": "db.getSiblingDB('x').Heavy.find()",
    "eval": "db.eval('1')",
}


@pytest.mark.parametrize("name", list(QUERIES))
async def test_monstrous_queries(websocket, witness, name):
    device = await websocket()
    text = QUERIES[name]
    kind = "SQLLIKE" if text.startswith("select") else "NATIVE"
    answer = await device.query(text, kind, ontology="Heavy", timeout_s=40)
    assert answer.ok or (answer.code in ("OTHER", "PARSE_SQL", "PERSISTENCE") and answer.error), answer


async def test_a_query_over_its_time_is_stopped_and_others_go_on(sib, websocket, witness):
    device, other = await websocket(), await websocket()
    await device.ask("DELETE", {"query": "db.Heavy.remove({})"}, ontology="Heavy")
    for _ in range(4):
        items = [
            {"type": "INSERT", "ontology": "Heavy", "body": {"data": {"n": n, "t": "x" * 50}, "query": None}}
            for n in range(500)
        ]
        assert (await device.ask("BULK", items, timeout_s=30)).ok
    sib.apply("settings:\n  query.time_limit_s: 1\n")
    try:
        await asyncio.sleep(1)
        cross = "{$lookup:{from:'Heavy',let:{n:'$n'},pipeline:[{$match:{$expr:{$gt:['$n','$$n']}}}],as:'x'}}"
        slow = f"db.Heavy.aggregate([{cross},{{$unwind:'$x'}},{{$count:'c'}}])"
        began = time.monotonic()
        await device.send(
            b'{"messageType":"QUERY","sessionKey":"%s","ontology":"Heavy","body":%s}'
            % (device.key.encode(), json.dumps({"query": slow, "queryType": "NATIVE"}).encode())
        )
        for _ in range(5):
            assert (await other.query("{n:3}", ontology="Heavy", timeout_s=5)).ok
        answer = await device.answer(20)
        assert time.monotonic() - began < 10
        assert (answer.ok, answer.code) == (False, "OTHER"), str(answer)[:300]
        assert "time" in answer.error
    finally:
        sib.apply("settings:\n  query.time_limit_s: 30\n")
        await device.ask("DELETE", {"query": "db.Heavy.remove({})"}, ontology="Heavy")


async def test_many_slow_queries_at_once_hold_back_no_insert(sib, websocket, witness):
    device = await websocket()
    for _ in range(200):
        payload = {
            "messageType": "QUERY",
            "sessionKey": device.key,
            "ontology": ONTOLOGY,
            "body": {"query": "{Sensor.assetId:/x$/}"},
        }
        await device.send(json.dumps(payload).encode())
    await witness()
    for _ in range(200):
        answer = await device.answer(30)
        assert answer.ok or answer.code == "OTHER"
