"""Queries that take seconds hold up neither what is behind them on their connection nor anybody else."""

import asyncio
import json

import pytest

pytestmark = pytest.mark.timeout(200)
CROSS = "{$lookup:{from:'Heavy',let:{n:'$n'},pipeline:[{$match:{$expr:{$gt:['$n','$$n']}}}],as:'x'}},{$unwind:'$x'}"
SLOW = {"query": f"db.Heavy.aggregate([{CROSS},{CROSS},{CROSS},{{$count:'c'}}])", "queryType": "NATIVE"}
TIME_LIMIT_S = 8


@pytest.fixture
async def heavy(sib, mqtt):
    """Documents whose combinations take longer to count than a query may."""
    writer = await mqtt()
    items = [
        {"type": "INSERT", "ontology": "Heavy", "body": {"data": json.dumps({"n": n}), "query": None}}
        for n in range(400)
    ]
    assert (await writer.ask("BULK", items, timeout_s=30)).ok
    await asyncio.to_thread(sib.apply, f"settings:\n  query.time_limit_s: {TIME_LIMIT_S}\n")
    await asyncio.sleep(1)  # every gateway has it by then
    yield writer
    await asyncio.to_thread(sib.apply, "settings:\n  query.time_limit_s: 30\n")
    assert (await writer.ask("DELETE", {"query": "db.Heavy.remove({})"}, ontology="Heavy")).ok


async def test_a_write_behind_a_slow_query_is_acknowledged_at_once_and_answered_in_its_turn(heavy, mqtt, tools):
    device = await mqtt()
    before = len(device.events)
    frames = [("QUERY", SLOW), ("INSERT", {"data": json.dumps({"n": 1}), "query": None})]
    for number, (kind, body) in enumerate(frames):
        await device.send(tools.frame(kind, body, session_key=device.key, ontology="Heavy", messageId=str(number)))
    answers = [await device.answer(60) for _ in frames]
    assert [answer["messageId"] for answer in answers] == ["0", "1"]
    assert answers[1].ok
    assert [event.kind for event in device.events[before:]] == ["puback", "puback", "answer", "answer"]


async def test_a_find_is_answered_before_the_slow_queries_of_others(heavy, mqtt):
    """More of them than a worker has threads."""
    devices = [await mqtt() for _ in range(12)]
    slow = [asyncio.create_task(device.ask("QUERY", SLOW, ontology="Heavy", timeout_s=60)) for device in devices]
    await asyncio.gather(*(device.event("puback") for device in devices))
    for _ in range(10):
        assert (await heavy.query("{n:3}", ontology="Heavy", timeout_s=20)).ok
    assert not all(task.done() for task in slow)
    await asyncio.gather(*slow)
