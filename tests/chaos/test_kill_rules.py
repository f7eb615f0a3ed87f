"""``kill -9`` of rule runners, and of the partition beside them, while instances come: each has its effect exactly once."""

import asyncio
import json
import os
import random
from collections import Counter

import httpx
import pytest

import sofia2.bdtr
from benchmarks.http_clients import REST_PATH
from benchmarks.platform_under_test import PlatformUnderTest
from storage.bdc.bdc import open_bdc
from tests.chaos.kill_helpers import HEAL_S, kill, until_ready

KILLS = int(os.environ.get("SOFIA2_TEST_KILLS", "6"))
"""Of rule runners; half as many of partitions."""
pytestmark = pytest.mark.timeout(300 + 20 * KILLS)
TOKEN = "c0c1c2c3c4c5c6c7c8c9cacbcccdcecf"
ROUNDS, EACH, AT_ONCE = KILLS * 3 // 2, 60, 20
APPLY = f"""
sofia2: 1
ontologies:
  - {{name: Reading, owner: benchmark, schema: {{type: object}}}}
  - {{name: Noticed, owner: benchmark, schema: {{type: object}}}}
kps:
  - {{name: KPRules, owner: benchmark, ontologies: [Reading], tokens: [{TOKEN}]}}
rules:
  - name: notice
    owner: benchmark
    type: ontology
    ontologies: [Reading]
    when: n >= 0
    then: |
      sofia.insert("Noticed", {{"n": ontology["n"], "of": "first"}})
      sofia.insert("Noticed", {{"n": ontology["n"], "of": "second"}})
  - name: count
    owner: benchmark
    type: ontology
    ontologies: [Reading]
    then: sofia.kv.put("count", sofia.kv.get("count", 0) + 1)
"""


@pytest.fixture(scope="module")
def ruled(tmp_path_factory):
    """A platform with the module of rules."""
    platform = PlatformUnderTest(tmp_path_factory.mktemp("ruled") / "data")
    platform.start("--modules=sib,script")
    file = platform.data.with_suffix(".rules.yaml")
    file.touch(mode=0o600)
    file.write_text(APPLY)
    platform.command("apply", str(file))
    yield platform
    platform.stop()


def stored(platform, ontology, *fields):
    """How often each is there, from the files of the partitions."""
    found = Counter()
    for file in sorted((platform.data / "bdtr").glob("*.db")):
        with sofia2.bdtr.open(f"sqlite:{file}") as database:
            if ontology in database.list_collection_names():
                found.update(tuple(document[name] for name in fields) for document in database[ontology].find({}))
    return found


async def test_every_instance_has_its_effects_exactly_once(ruled):
    chance = random.Random(5)
    async with httpx.AsyncClient(base_url=ruled.endpoints["http"] + REST_PATH, timeout=HEAL_S) as client:
        joined = await client.post("", json={"join": True, "instanceKP": "KPRules:1", "token": TOKEN})
        key = joined.json()["sessionKey"]

        async def insert(number):
            body = {"sessionKey": key, "ontology": "Reading", "data": json.dumps({"n": number})}
            answer = await client.post("", json=body)
            # 503: a partition took longer to come back than a write waits; it may be stored or not, and counts if it is.
            assert answer.status_code in (200, 503), answer.text

        for round_ in range(ROUNDS):
            for first in range(round_ * EACH, (round_ + 1) * EACH, AT_ONCE):
                await asyncio.gather(*(insert(number) for number in range(first, first + AT_ONCE)))
            await asyncio.sleep(chance.random() * 0.05)
            await kill(ruled, "OntologyPartition" if round_ % 3 == 2 else "RuleRunner")
        await until_ready(ruled)
    readings = stored(ruled, "Reading", "n")
    assert len(readings) > ROUNDS * EACH // 2
    expected = Counter({(n, of): times for (n,), times in readings.items() for of in ("first", "second")})
    bdc = open_bdc(f"sqlite:///{ruled.data}/bdc.db")
    count = readings.total()
    async with asyncio.timeout(HEAL_S):
        while (
            stored(ruled, "Noticed", "n").total() < 2 * count or int(bdc.rules.values("count").get("count", 0)) < count
        ):
            await asyncio.sleep(0.2)
    await asyncio.sleep(1)  # whatever would come twice has come by now
    assert stored(ruled, "Noticed", "n", "of") == expected
    assert bdc.rules.values("count") == {"count": str(count)}
    assert bdc.rules.dead_letters() == []
