"""``sofia2.KP`` against a real platform, over both transports, in clear and in cipher."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from sib import errors
from sofia2.kp import KP, ConnectionLostError, Delete, Insert, RefusedError, Update

ONTOLOGY = "TestSensorTemperatura"
TOKEN = "ssap0000000000000000000000000001"
CIPHER_TOKEN = "e5e8a005d0a248f1ad2cd60a821e6838"


@pytest.fixture(params=["mqtt", "http"])
def url(request, sib):
    return sib.endpoints[request.param]


@pytest.fixture
async def kp(url):
    async with KP(url, "KPSsap:py", token=TOKEN) as opened:
        yield opened


async def test_every_operation(kp, tools):
    async with kp.subscribe(ONTOLOGY, "{Sensor.assetId:'kp'}") as notified:
        ids = await asyncio.gather(*(kp.insert(ONTOLOGY, tools.sensor(number, "kp")) for number in range(50)))
        assert len(set(ids)) == 50
        seen = [await asyncio.wait_for(anext(notified), 10) for _ in range(50)]
        assert [row["_id"]["$oid"] for row in seen] == ids
    rows = await kp.query("select * from TestSensorTemperatura where assetId='kp' order by measure", None)
    assert [row["_id"]["$oid"] for row in rows] == ids
    assert await kp.query("{Sensor.measure:7, Sensor.assetId:'kp'}", ONTOLOGY) == [rows[7]]
    assert await kp.query("select count(*) from TestSensorTemperatura where assetId='kp'") == 50
    assert await kp.query("porAsset", type="SIB_DEFINED", params={"PARAM1": "kp"})
    assert await kp.update(ONTOLOGY, "{Sensor.measure:7, Sensor.assetId:'kp'}", tools.sensor(700, "kp")) == [ids[7]]
    assert await kp.update(None, "update TestSensorTemperatura set measure=701 where measure=700") == [ids[7]]
    result = await kp.bulk(
        [Insert(ONTOLOGY, tools.sensor(1, "kp")), Insert(ONTOLOGY, {"Sensor": {}}), Delete(ONTOLOGY, "{Sensor.assetId:'kp'}"),
         Update(ONTOLOGY, "update TestSensorTemperatura set measure=1 where assetId='kp'")]
    )  # fmt: skip
    assert (len(result.inserted), len(result.updated), len(result.deleted), len(result.errors)) == (1, 0, 51, 1)
    assert await kp.delete(ONTOLOGY, "{Sensor.assetId:'kp'}") == []


async def test_dates_and_text_instances(kp):
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    id_ = await kp.insert("Anything", {"when": when, "é": "ñ"})
    [row] = await kp.query(f'{{_id:{{"$oid":"{id_}"}}}}', "Anything")
    assert (row["when"], row["é"]) == ({"$date": "2026-01-02T03:04:05.000Z"}, "ñ")
    assert await kp.insert("Anything", '{"text": 1}')


@pytest.mark.parametrize(("text", "error"), [
    ("select * from Nothing", errors.OntologyNotFoundError), ("selekt", RefusedError), ("select * fro x", errors.SqlSyntaxError),
    ("select * from TestSensorTemperatura where SensorXX.a=1", errors.StoreError),
    ("select * from Thing", errors.AuthorizationError),
])  # fmt: skip
async def test_refusals_are_errors_by_code_with_the_sentence(kp, text, error):
    with pytest.raises(error) as caught:
        await kp.query(text, ONTOLOGY)
    assert len(caught.value.message) > 15


async def test_a_subscription_that_is_refused(kp):
    with pytest.raises(RefusedError):
        async with kp.subscribe(ONTOLOGY, "{Sensor.measure:{$gtXX:1}}"):
            pass


async def test_user_and_password_and_wrong_ones(url):
    async with KP(url, kp="KPSsap", user="sofia", password="sofia-password") as kp:
        assert await kp.query("{Sensor.assetId:'no'}", ONTOLOGY) == []
    for bad in ({"token": "wrong"}, {"user": "sofia", "password": "wrong"}, {}):
        with pytest.raises((errors.AuthenticationError, RefusedError)):
            async with KP(url, "KPSsap:x", **bad):
                pass


async def test_nobody_listens():
    for url in ("mqtt://127.0.0.1:1", "ws://127.0.0.1:1"):
        with pytest.raises(ConnectionLostError):
            async with KP(url, "KPSsap:x", token=TOKEN):
                pass


async def test_ciphered(url, tools):
    async with (
        KP(url, "KPTestTemperatura:c", token=CIPHER_TOKEN, cipher_key="key0key1key2key3") as kp,
        kp.subscribe(ONTOLOGY, "{Sensor.assetId:'cipher'}") as notified,
    ):
        await kp.insert(ONTOLOGY, tools.sensor(asset="cipher"))
        assert (await asyncio.wait_for(anext(notified), 10))["Sensor"]["assetId"] == "cipher"


async def test_commands(url, sib):
    async with KP(url, "KPSsap:cmd", token=TOKEN) as kp, kp.commands() as commands:
        assert await kp.command("KPSsap", "cmd", args={"on": "1"})
        assert (await asyncio.wait_for(anext(commands), 10))["args"] == {"on": "1"}


async def test_it_joins_again_when_the_session_is_lost(url, tools):
    async with KP(url, "KPSsap:lost", token=TOKEN) as kp, kp.subscribe(ONTOLOGY, "{Sensor.assetId:'lost'}") as notified:
        key, id_ = kp.session_key, notified.id
        await kp.request("LEAVE", {})
        ids = await asyncio.gather(*(kp.insert(ONTOLOGY, tools.sensor(asset="lost")) for _ in range(10)))
        assert len(set(ids)) == 10
        assert kp.session_key != key
        await kp.insert(ONTOLOGY, tools.sensor(asset="lost"))
        assert await asyncio.wait_for(anext(notified), 10)
        assert notified.id != id_


async def test_it_connects_again_and_goes_on_with_its_session(url, tools):
    async with (
        KP(url, "KPSsap:again", token=TOKEN) as kp,
        kp.subscribe(ONTOLOGY, "{Sensor.assetId:'again'}") as notified,
    ):
        key = kp.session_key
        for number in range(3):
            await kp._connection._transport.close()
            assert await kp.query("{Sensor.assetId:'nothing'}", ONTOLOGY) == []
            await kp.insert(ONTOLOGY, tools.sensor(number, "again"))
            assert (await asyncio.wait_for(anext(notified), 10))["Sensor"]["measure"] == number
        assert kp.session_key == key


async def test_the_end_of_the_iteration(kp, tools):
    subscription = kp.subscribe(ONTOLOGY, "{Sensor.assetId:'end'}")
    got = []

    async def collect():
        async for row in subscription:
            got.append(row)  # noqa: PERF401 - the test looks at it meanwhile

    task = asyncio.create_task(collect())
    async with asyncio.timeout(10):
        while subscription.id is None:
            await asyncio.sleep(0.01)
    await kp.insert(ONTOLOGY, tools.sensor(asset="end"))
    async with asyncio.timeout(10):
        while not got:
            await asyncio.sleep(0.01)
    await subscription.close()
    await task
    assert len(got) == 1


def test_importing_it_does_not_import_ray():
    code = (
        "import sys; from sofia2 import KP; assert not [m for m in sys.modules if m.split('.')[0] == 'ray']; print(KP)"
    )
    assert "KP" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
