"""``kill -9`` of every kind of actor under load: it heals by itself and nothing acknowledged is lost."""

import asyncio

import httpx
import pytest

from benchmarks.http_clients import REST_PATH
from benchmarks.platform_under_test import KP, ONTOLOGY, TOKEN
from tests.chaos.kill_helpers import HEAL_S, burst, kill, until_ready

pytestmark = pytest.mark.timeout(300)
COUNT = 4000


@pytest.mark.parametrize("kind", ["OntologyPartition", "SessionShard", "QueryWorker", "HttpGateway", "Platform"])
async def test_what_clients_do_not_hold_a_connection_to_heals_without_a_trace(victim, kind):
    """The gateway sends again with the number that makes a batch harmless: stored exactly once."""
    async with burst(victim, f"{kind}1", COUNT) as load:
        load.send()
        await load.until_acknowledged(COUNT // 10)
        killed = await asyncio.to_thread(victim.pids, kind)
        await kill(victim, kind)
        await load.until_over()
        assert [kp.connections for kp in load.writers] == [1] * len(load.writers)
        load.check(is_exactly_once=True)
        await until_ready(victim)
        assert not set(killed) & set(await asyncio.to_thread(victim.pids, kind))


async def test_the_mqtt_gateway_comes_back_to_its_port_with_its_sessions_and_queues(victim):
    """Clients connect again and repeat what was not acknowledged; they need no JOIN and no SUBSCRIBE."""
    async with burst(victim, "gateway", COUNT) as load:
        load.send()
        await load.until_acknowledged(COUNT // 10)
        await kill(victim, "MqttGateway")
        await load.until_over()
        assert all(kp.connections == 2 for kp in load.writers)
        load.check(is_exactly_once=False)
        await until_ready(victim)


async def test_the_gateway_and_then_the_partition_in_the_same_burst(victim):
    async with burst(victim, "both", COUNT) as load:
        load.send()
        await load.until_acknowledged(COUNT // 10)
        await kill(victim, "MqttGateway")
        await kill(victim, "OntologyPartition")
        await load.until_over()
        load.check(is_exactly_once=False)
        await until_ready(victim)


async def test_a_session_can_join_while_the_session_shard_restarts(victim):
    await kill(victim, "SessionShard")
    async with burst(victim, "joins", 40) as load:
        load.send()
        await load.until_over()
        load.check(is_exactly_once=True)
    await until_ready(victim)


async def test_queries_are_answered_while_the_query_worker_restarts(victim):
    async with httpx.AsyncClient(base_url=victim.endpoints["http"] + REST_PATH, timeout=HEAL_S) as client:
        key = await join(client)
        await kill(victim, "QueryWorker")
        for _ in range(3):
            answers = await asyncio.gather(*(query(client, key) for _ in range(5)))
            assert [answer.status_code for answer in answers] == [200] * 5
    await until_ready(victim)


async def test_a_rest_session_outlives_the_http_gateway(victim):
    async with httpx.AsyncClient(base_url=victim.endpoints["http"] + REST_PATH, timeout=HEAL_S) as client:
        key = await join(client)
        await kill(victim, "HttpGateway")
        async with asyncio.timeout(HEAL_S):
            while True:
                try:
                    answer = await query(client, key)
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
        assert answer.status_code == 200, answer.text
    await until_ready(victim)


async def test_a_change_of_the_configuration_is_taken_over_after_the_platform_actor_restarts(victim, tmp_path):
    await kill(victim, "Platform")
    file = tmp_path / "more.yaml"
    file.touch(mode=0o600)
    file.write_text(
        "sofia2: 1\nontologies:\n  - {name: AfterKill, owner: benchmark, template: SensorPoint}\n"
        f"kps:\n  - {{name: {KP}, owner: benchmark, ontologies: [{ONTOLOGY}, AfterKill]}}\n"
    )
    await asyncio.to_thread(victim.command, "apply", str(file))
    await until_ready(victim)
    async with httpx.AsyncClient(base_url=victim.endpoints["http"] + REST_PATH, timeout=HEAL_S) as client:
        answer = await query(client, await join(client), "AfterKill")
    assert answer.status_code == 200, answer.text


async def join(client):
    answer = await client.post("", json={"join": True, "instanceKP": f"{KP}:chaos", "token": TOKEN})
    assert answer.status_code == 200, answer.text
    return answer.json()["sessionKey"]


async def query(client, key, ontology=ONTOLOGY):
    parameters = {"$sessionKey": key, "$ontology": ontology, "$query": "{}", "$queryType": "NATIVE"}
    return await client.get("", params=parameters)
