"""``kill -9`` of the CEP shard while events stream in: the outputs are those of a run without kills, none twice."""

import asyncio
import os
import random
from collections import Counter

import pytest

import sofia2.bdtr
from benchmarks.platform_under_test import ONTOLOGY, PlatformUnderTest
from tests.chaos.kill_helpers import HEAL_S, burst, kill, stored, until_ready

KILLS = int(os.environ.get("SOFIA2_TEST_KILLS", "3"))
pytestmark = pytest.mark.timeout(300 + 20 * KILLS)
COUNT = 600
OUTPUT = "CepSalida"
APPLY = f"""
sofia2: 1
ontologies:
  - {{name: {OUTPUT}, owner: benchmark, schema: {{type: object, properties: {{asset: {{type: string}}, n: {{type: number}}}}}}}}
cep_events:
  - {{name: Lectura, owner: benchmark, ontology: {ONTOLOGY}, attributes: [Sensor.assetId, Sensor.groupId]}}
cep_rules:
  - name: counted
    owner: benchmark
    from: LECTURA#length(1000000)
    select: {ONTOLOGY.upper()}__ASSETID as asset, count() as n
    insert_into: {OUTPUT}
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A platform with a rule that numbers all events: a lost or doubled one shifts every number behind it."""
    platform = PlatformUnderTest(tmp_path_factory.mktemp("cep") / "data")
    platform.start("--modules=sib,script")
    file = platform.data.with_suffix(".cep.yaml")
    file.touch(mode=0o600)
    file.write_text(APPLY)
    platform.command("apply", str(file))
    yield platform
    platform.stop()


def outputs(platform):
    """(asset, number) of each output that was stored."""
    found = []
    for file in (platform.data / "bdtr").glob("*.db"):
        with sofia2.bdtr.open(f"sqlite:{file}") as database:
            if OUTPUT in database.list_collection_names():
                found += [(doc["asset"], doc["n"]) for doc in database[OUTPUT].find({})]
    return found


def count(platform):
    """Outputs stored so far."""
    total = 0
    for file in (platform.data / "bdtr").glob("*.db"):
        with sofia2.bdtr.open(f"sqlite:{file}") as database:
            if OUTPUT in database.list_collection_names():
                total += database[OUTPUT].count_documents({})
    return total


async def until_more(platform, before):
    """The shard works: it has made outputs since it was killed last."""
    async with asyncio.timeout(HEAL_S):
        while (now := await asyncio.to_thread(count, platform)) <= before:
            await asyncio.sleep(0.05)
    return now


async def test_outputs_are_those_of_a_run_without_kills(watched):
    moments = random.Random(5)
    made = 0
    async with burst(watched, "cep", COUNT) as sending:
        for number in range(KILLS):
            sending.send(first=number * COUNT)
            await sending.until_acknowledged(number * COUNT + moments.randrange(COUNT))
            made = await until_more(watched, made)
            await kill(watched, "CepShard")
        await sending.until_over()
    await until_ready(watched)
    events = stored(watched, "cep")
    async with asyncio.timeout(HEAL_S):
        while len(outputs(watched)) < events.total():
            await asyncio.sleep(0.5)
    found = outputs(watched)
    assert Counter(asset for asset, _ in found) == events
    assert sorted(number for _, number in found) == list(range(1, events.total() + 1))
