"""A store that cannot decide: nothing is acknowledged, the connection is closed, REST says when to try again; then all is well."""

import asyncio
import sqlite3
from contextlib import contextmanager

import httpx
import pytest

from benchmarks.http_clients import REST_PATH
from benchmarks.platform_under_test import KP, ONTOLOGY, TOKEN
from benchmarks.ssap_client import instance
from tests.chaos.kill_helpers import HEAL_S, burst, until_ready

pytestmark = pytest.mark.timeout(300)
COUNT = 200


@contextmanager
def undecided_store(platform):
    """Another writer holds the files, so that the partition cannot write: as with a full disk, but undone at once."""
    held = [sqlite3.connect(file, timeout=30) for file in (platform.data / "bdtr").glob("*.db")]
    for connection in held:
        connection.isolation_level = None
        connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        for connection in held:
            connection.rollback()
            connection.close()


async def test_an_undecided_write_is_not_acknowledged_and_goes_through_later(victim):
    async with burst(victim, "undecided", COUNT) as load, asyncio.timeout(4 * HEAL_S):
        with undecided_store(victim):
            load.send()
            # The gateway gives the writes up after write_timeout_s and closes; the clients come back and repeat them.
            await asyncio.gather(*(kp.until(lambda kp=kp: kp.connections > 1) for kp in load.writers))
            assert load.acknowledged == set()
        await load.until_over()
        load.check(is_exactly_once=False)
        await until_ready(victim)


async def test_rest_says_503_and_when_to_try_again(victim):
    async with httpx.AsyncClient(base_url=victim.endpoints["http"] + REST_PATH, timeout=2 * HEAL_S) as client:
        joined = await client.post("", json={"join": True, "instanceKP": f"{KP}:undecided", "token": TOKEN})
        insert = {
            "sessionKey": joined.json()["sessionKey"],
            "ontology": ONTOLOGY,
            "data": instance("rest", "undecided-rest", 1),
        }
        with undecided_store(victim):
            refused = await client.post("", json=insert)
        assert refused.status_code == 503, refused.text
        assert int(refused.headers["retry-after"]) > 0
        accepted = await client.post("", json=insert)
        assert accepted.status_code == 200, accepted.text
    await until_ready(victim)
