"""CEP on a real platform: outputs stored, told over SSAP, changed while windows are open, and not lost by a kill -9."""

import asyncio
import json
import os
import signal
import time

import pytest
from websockets.asyncio.client import connect

import sofia2
from sib.errors import AuthorizationError, SibError
from tests.e2e.conftest import start_platform, stop_platform

pytestmark = pytest.mark.timeout(300)

WAIT_S = 60.0
TOKEN, TOKEN_OF_ANA = "e5e8a005d0a248f1ad2cd60a821e6838", "aaaabbbbccccddddeeeeffff00001111"
APPLY = """
sofia2: 1
users:
  - {name: sofia, password: sofia-password, role: COLABORADOR}
  - {name: ana, password: ana-password, role: USUARIO}
ontologies:
  - name: Measure
    owner: sofia
    schema: {type: object, properties: {sensor: {type: string}, value: {type: number}, number: {type: integer}}}
  - name: Alarm
    owner: sofia
    schema: {type: object, properties: {sensor: {type: string}, number: {type: integer}}, additionalProperties: false}
  - name: Sum
    owner: sofia
    schema: {type: object, properties: {sensor: {type: string}, total: {type: number}}}
kps:
  - {name: KP, owner: sofia, ontologies: [Measure, Alarm, Sum], tokens: [e5e8a005d0a248f1ad2cd60a821e6838]}
  - {name: KPAna, owner: ana, ontologies: [Measure], tokens: [aaaabbbbccccddddeeeeffff00001111]}
cep_events:
  - {name: measures, owner: sofia, ontology: Measure, attributes: [sensor, value, number]}
cep_rules:
  - name: hot
    owner: sofia
    from: "MEASURES[MEASURE__VALUE > 40]"
    select: "MEASURE__SENSOR as sensor, MEASURE__NUMBER as number"
    insert_into: Alarm
  - name: three
    owner: sofia
    from: "MEASURES[MEASURE__SENSOR == 'batch']#lengthBatch(3)"
    select: "'batch' as sensor, sum(MEASURE__VALUE) as total"
    insert_into: Sum
"""
CHANGED = """
sofia2: 1
cep_rules:
  - {name: warm, owner: sofia, from: "MEASURES[MEASURE__VALUE > 30]", select: "MEASURE__NUMBER as number", insert_into: warm}
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cep")
    file = folder / "apply.yaml"
    file.write_text(APPLY)
    file.chmod(0o600)
    running = start_platform(folder / "data", "--modules", "sib,script", "--apply", file)
    yield running
    stop_platform(running)


def kp(platform, name="KP:1", token=TOKEN):
    return sofia2.KP(platform.endpoints["mqtt"], kp=name, token=token)


async def until(condition):
    """Ask again and again, within a bound, until the answer is true; gives it."""
    deadline = time.monotonic() + WAIT_S
    while True:
        result = await condition()
        if result or time.monotonic() > deadline:
            return result
        await asyncio.sleep(0.05)


async def running_shard(platform):
    """The shard as the status shows it, once it runs; meanwhile the status says that the platform is not ready."""

    async def look():
        done = await asyncio.to_thread(platform.command, "status", "--json")
        found = next(actor for actor in json.loads(done.stdout)["actors"] if actor["kind"] == "CepShard")
        return found if found["state"] == "running" else None

    return await until(look)


async def test_outputs_become_instances_of_the_ontology_that_insert_into_names(platform):
    async with kp(platform) as device:
        for number, value in enumerate((20, 50, 30, 60)):
            await device.insert("Measure", {"sensor": "a", "value": value, "number": number})

        async def alarms():
            rows = await device.query("select * from Alarm where sensor = 'a'")
            return rows if len(rows) == 2 else None

        rows = await until(alarms)
        assert [(row["sensor"], row["number"]) for row in rows] == [("a", 1), ("a", 3)]
        assert rows[0]["contextData"]["user"] == "sofia"


@pytest.mark.parametrize("is_text", [True, False])
async def test_a_subscription_of_type_cep_is_told(platform, is_text):
    def frame(message_type, session, body):
        body = json.dumps(body) if is_text else body
        return json.dumps({"messageId": None, "messageType": message_type, "sessionKey": session, "body": body})

    url = platform.endpoints["http"].replace("http:", "ws:") + "/sib/api_websocket"
    async with connect(url) as socket, kp(platform) as other:
        await socket.send(frame("JOIN", None, {"instance": "KP:listener", "token": TOKEN}))
        session = json.loads(await socket.recv())["sessionKey"]
        wish = {"query": "Alarm", "queryType": "CEP", "msRefresh": 0}
        await socket.send(frame("SUBSCRIBE", session, wish))
        answer = body_of(json.loads(await socket.recv()))
        assert answer["ok"], answer
        async with kp(platform, "KP:other") as third, third.subscribe(None, "alarm", type="CEP") as alarms:
            await other.insert("Measure", {"sensor": "b", "value": 99, "number": 7})
            indication = json.loads(await asyncio.wait_for(socket.recv(), WAIT_S))
            assert await asyncio.wait_for(anext(alarms), WAIT_S) == {"sensor": "b", "number": 7}
        assert (indication["messageId"], indication["sessionKey"]) == (answer["data"], session)
        assert (indication["direction"], indication["messageType"]) == ("RESPONSE", "INDICATION")
        assert indication["ontology"] is None
        assert isinstance(indication["body"], str) is is_text
        expected = {"Subscription": f"Alarm-{answer['data']}", "inEvents": {"sensor": "b", "number": 7}}
        assert body_of(indication) == expected


def body_of(message):
    return json.loads(message["body"]) if isinstance(message["body"], str) else message["body"]


async def test_who_may_not_read_the_ontology_may_not_hear_of_it(platform):
    async with kp(platform, "KPAna:1", TOKEN_OF_ANA) as ana:
        with pytest.raises(AuthorizationError, match="may not QUERY"):
            async with ana.subscribe(None, "Alarm", type="CEP"):
                """Refused."""
        with pytest.raises(SibError, match="no active CEP rule"):
            async with ana.subscribe(None, "nothing", type="CEP"):
                """Refused."""


async def test_a_changed_rule_acts_at_once_and_other_windows_stay(platform, tmp_path):
    async with kp(platform) as device:
        for _ in range(2):
            await device.insert("Measure", {"sensor": "batch", "value": 10, "number": 0})
        file = tmp_path / "changed.yaml"
        file.write_text(CHANGED)
        platform.answer("apply", file)
        await device.insert("Measure", {"sensor": "batch", "value": 10, "number": 0})

        async def sums():
            return await device.query("select * from Sum")

        assert [row["total"] for row in await until(sums)] == [30]


async def test_a_killed_shard_loses_and_doubles_nothing(platform):
    count = 600
    stored = asyncio.Event()

    async def send(device):
        for number in range(1000, 1000 + count):
            await device.insert("Measure", {"sensor": "k", "value": 41 if number % 2 else 1, "number": number})
            if number % 200 == 100:
                stored.set()

    async with kp(platform) as device, kp(platform, "KP:reader") as reader:
        sending = asyncio.create_task(send(device))
        for _ in range(3):
            await asyncio.wait_for(stored.wait(), WAIT_S)
            stored.clear()
            os.kill((await running_shard(platform))["pid"], signal.SIGKILL)
        await sending

        async def found():
            n_alarms = await reader.query("select count(*) from Alarm where sensor = 'k'")
            return n_alarms if n_alarms >= count // 2 else 0

        assert await until(found) == count // 2
        assert len(await reader.query("db.Alarm.distinct('number', {sensor: 'k'})")) == min(100, count // 2)
        assert (await running_shard(platform))["restarts"] >= 1


async def test_the_thermostat_example_has_a_rule_and_a_script_that_reacts_to_it(platform):
    for _ in range(2):  # what is there is left as it is
        told = platform.answer("demo", "--count", 8, "--interval", 0.05)
        assert told["stored"] == 8

    async def reports():
        rows = platform.answer("query", "select * from InformeTermostato")
        return rows if len(rows) >= 2 else None

    assert "hot and rising" in (await until(reports))[0]["text"]
