"""Bounds and times, on a platform of its own with small ones: the answer at each bound, and what goes on beside it."""

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sib.mqtt import codec, wire

ONTOLOGY = "TestSensorTemperatura"
pytestmark = pytest.mark.timeout(400)
SETTINGS = """settings:
  limits.join_failures_per_minute: 3
  limits.join_failure_delay_s_max: 3
  limits.subscriptions_per_session_max: 5
  limits.queries_at_once_max: 2
  limits.message_bytes_max: 20000
  limits.requests_per_connection_max: 50
  limits.websocket_idle_s: 4
  query.time_limit_s: 3
  query.row_cap: 7
"""


@pytest.fixture(scope="module")
def strict(sib, tmp_path_factory):
    """The platform with small bounds."""
    folder = tmp_path_factory.mktemp("strict")
    settings = folder / "settings.yaml"
    settings.write_text(Path("tests/data/platform.yaml").read_text().partition("settings:")[0] + SETTINGS)
    files = [str(settings), "tests/e2e/ssap/ssap.yaml"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SOFIA2_", "RAY_"))}
    command = [sys.executable, "-m", "sofia2"]
    started = subprocess.run(
        [*command, "start", "--detach", "--json", "--data", str(folder / "data"), "--mqtt-port", "0", "--http-port", "0",
         "--listener", "small=http://127.0.0.1:0?message_bytes_max=3000",
         "--listener", "narrow=mqtt://127.0.0.1:0?message_bytes_max=3000",
         "--listener", "locked=mqtt://127.0.0.1:0?auth=true",
         "--ready-timeout", "180", *(word for file in files for word in ("--apply", file))],
        capture_output=True, text=True, env=environment, timeout=200,
    )  # fmt: skip
    assert started.returncode == 0, started.stderr
    ready = json.loads(started.stdout)
    yield type(sib)(ready["data"], ready["endpoints"])
    stopped = subprocess.run(
        [*command, "stop", "--data", ready["data"]], env=environment, capture_output=True, timeout=60
    )
    assert stopped.returncode == 0, stopped.stderr


async def refused_join(device, kp="KPSsap"):
    began = time.monotonic()
    answer = await device.ask("JOIN", {"instance": f"{kp}:x", "token": "wrong"}, key=None)
    assert answer.code == "AUTENTICATION"
    return time.monotonic() - began


async def test_only_failures_are_slowed_down(strict, mqtt):
    device, other = await mqtt(target=strict, join=False), await mqtt(target=strict, join=False)
    times = [await refused_join(device) for _ in range(9)]
    assert max(times[:3]) < 2
    assert times[8] > 2.9
    assert max(times) < 5
    began = time.monotonic()
    for _ in range(5):
        assert await other.join()
    assert time.monotonic() - began < 2
    assert await refused_join(other, "KPLuis") < 2
    assert (await other.query("{Sensor.measure:-1}")).ok


async def test_delayed_refusals_hold_back_nobody_on_other_connections(strict, mqtt):
    failing = [await mqtt(target=strict, join=False) for _ in range(10)]
    tasks = [asyncio.create_task(refused_join(device)) for device in failing]
    device = await mqtt(target=strict)
    began = time.monotonic()
    assert (await device.query("{Sensor.measure:-1}")).ok
    assert time.monotonic() - began < 2
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("dialect", ["object", "one"])
async def test_subscriptions_of_a_session(strict, mqtt, dialect):
    device = await mqtt(target=strict)
    device.dialect = dialect
    ids = [await device.subscribe(f"{{Sensor.measure:{number}}}") for number in range(5)]
    refused = await device.ask("SUBSCRIBE", {"query": "", "msRefresh": 0}, ontology=ONTOLOGY)
    assert (refused.ok, refused.code) == (False, "OTHER")
    assert "5" in refused.error
    assert (await device.unsubscribe(ids[0])).ok
    assert await device.subscribe("{Sensor.measure:9}")


async def test_rows_and_sizes(strict, websocket, mqtt, tools):
    device, small = await websocket(target=strict), await mqtt(target=strict)
    for number in range(10):
        await device.insert(tools.sensor(number, "rows"))
    assert len((await device.query("{Sensor.assetId:'rows'}")).rows) == 7
    for opened in (device, small):
        refused = await opened.insert({"n": "x" * 30_000}, "Anything")
        assert (refused.ok, refused.code) == (False, "OTHER")
        assert "20000" in refused.error
        assert (await opened.insert({"n": "x" * 10_000}, "Anything")).ok


async def test_more_requests_at_once_than_a_connection_may_have_are_all_answered(strict, mqtt, tools):
    device = await mqtt(target=strict)
    for number in range(1000):
        await device.send(tools.frame("INSERT", {"data": json.dumps(tools.sensor(number, "many")), "query": None},
                                      session_key=device.key, ontology=ONTOLOGY, messageId=number))  # fmt: skip
    assert [(await device.answer(30))["messageId"] for _ in range(1000)] == list(range(1000))


async def test_too_many_queries_at_once(strict, mqtt):
    writer = await mqtt(target=strict)
    for _ in range(2):
        items = [
            {"type": "INSERT", "ontology": "Heavy", "body": {"data": json.dumps({"n": n}), "query": None}}
            for n in range(150)
        ]
        assert (await writer.ask("BULK", items)).ok
    many = "{$lookup:{from:'Heavy',let:{n:'$n'},pipeline:[{$match:{$expr:{$gt:['$n','$$n']}}}],as:'x'}}"
    slow = {
        "query": f"db.Heavy.aggregate([{many},{{$unwind:'$x'}},{many},{{$unwind:'$x'}},{{$count:'c'}}])",
        "queryType": "NATIVE",
    }
    devices = [await mqtt(target=strict) for _ in range(20)]
    for device in devices[::2]:
        device.dialect = "one"
    answers = await asyncio.gather(*(device.ask("QUERY", slow, ontology="Heavy", timeout_s=60) for device in devices))
    codes = [(device.dialect, answer.code) for device, answer in zip(devices, answers, strict=True)]
    assert ("one", "MAX_CONCURRENT_QUERIES_REACHED") in codes, codes
    assert all(code == "OTHER" for dialect, code in codes if dialect == "string")
    began = time.monotonic()
    assert (await writer.query("{n:1}", ontology="Heavy")).ok
    assert time.monotonic() - began < 5


async def test_sessions_expire_unless_they_are_used(strict, mqtt, tools):
    strict.apply("settings:\n  sessions.expiry_s: 5\n")
    await asyncio.sleep(1)
    try:
        used, idle, subscribed = await mqtt(target=strict), await mqtt(target=strict), await mqtt(target=strict)
        await subscribed.subscribe("{Sensor.assetId:'expiry'}", ms_refresh=0)
        for _ in range(24):
            await asyncio.sleep(0.5)
            assert (await used.insert(tools.sensor(asset="expiry"))).ok
        await asyncio.sleep(0.2)
        got = sum(event.kind == "indication" for event in subscribed.events)
        assert 1 <= got <= 22
        for device in (idle, subscribed):
            assert (await device.query("{Sensor.measure:-1}")).code == "AUTENTICATION"
        assert await idle.join()
    finally:
        strict.apply("settings:\n  sessions.expiry_s: 7200\n")


async def test_an_idle_websocket_is_closed(strict, websocket, tools):
    idle, busy = await websocket(target=strict), await websocket(target=strict)
    began = time.monotonic()
    while not idle.is_closed:
        assert time.monotonic() - began < 20
        assert (await busy.insert(tools.sensor())).ok
        await asyncio.sleep(0.5)
    assert time.monotonic() - began > 2
    assert not busy.is_closed


def at(sib, listener, kind):
    """The same platform with another listener in place of its ordinary one."""
    return dataclasses.replace(sib, endpoints={**sib.endpoints, kind: sib.endpoints[listener]})


@pytest.mark.parametrize(("listener", "limit"), [(None, 20_000), ("small", 3000)])
async def test_a_listener_may_take_shorter_messages(strict, websocket, tools, listener, limit):
    target = strict if listener is None else at(strict, listener, "http")
    device, rest = await websocket(target=target), tools.Rest(target)
    key = await rest.join(target)
    for size, is_taken in ((limit - 500, True), (limit + 500, False)):
        answer = await device.query("{'Sensor.assetId': '%s'}" % ("x" * size))
        assert answer.ok is is_taken
        text = json.dumps({"Sensor": {"assetId": "x" * size}})
        answered = await rest.post({"sessionKey": key, "ontology": ONTOLOGY, "data": text})
        assert answered.status_code == 400
        assert ("bytes" in answered.json()["detail"]) is not is_taken
        assert answered.json()["errorCode"] == ("PERSISTENCE" if is_taken else "OTHER")
    assert (await device.query("{Sensor.measure: -1}")).ok
    await rest.client.aclose()


async def test_an_mqtt_listener_may_take_shorter_messages(strict, mqtt):
    device = await mqtt(target=at(strict, "narrow", "mqtt"))
    for size, is_taken in ((2500, True), (3500, False)):
        answer = await device.query("{'Sensor.assetId': '%s'}" % ("x" * size))
        assert (answer.ok, answer.code) == (is_taken, None if is_taken else "OTHER")


async def connack(sib, user, password):
    """The return code of a CONNECT with user and password, and how long it took."""
    reader, writer = await asyncio.open_connection(*sib.address("locked"))
    began = time.monotonic()
    body = wire.encode_string("MQTT") + b"\x04\xc2\0\0" + wire.encode_string(f"c{began}")
    writer.write(codec.encode_packet(codec.CONNECT, 0, body, wire.encode_string(user), wire.encode_binary(password)))
    answer = await asyncio.wait_for(reader.readexactly(4), 15)
    writer.close()
    return answer[3], time.monotonic() - began


async def test_wrong_passwords_of_connect_are_slowed_down_and_right_ones_not(strict):
    found = [await connack(strict, "sofia", b"wrong") for _ in range(9)]
    assert {code for code, _ in found} == {5}
    assert max(seconds for _, seconds in found[:3]) < 2
    assert 2.9 < found[8][1] < 6
    for _ in range(3):
        code, seconds = await connack(strict, "luis", b"luis-password")
        assert (code, seconds < 2) == (0, True)


async def test_wrong_passwords_of_the_token_list_are_slowed_down_and_right_ones_not(strict, tools):
    url = strict.endpoints["http"] + "/console/api/rest/kps/KPLuis/tokens"
    rest = tools.Rest(strict)

    async def get(password):
        began = time.monotonic()
        answer = await rest.client.get(url, auth=("luis", password))
        return answer.status_code, time.monotonic() - began

    found = [await get("wrong") for _ in range(9)]
    assert {status for status, _ in found} == {401}
    assert max(seconds for _, seconds in found[:3]) < 2
    assert found[8][1] > 2.9
    status, seconds = await get("luis-password")
    assert (status, seconds < 2) == (200, True)
    await rest.client.aclose()
