"""Outputs of CEP rules on their way: who is slow, away or refuses holds up nobody else, and nothing is lost."""

import asyncio

import pytest

from actors.cep import delivery, outbox, shard
from actors.inside import Inside, Principal
from sib.errors import MalformedMessageError
from sib.rules.trigger import made_by
from sib.ssap.messages import QueryType
from tests.integration.cep.cep_platform import SOFIA, Hearer, cep_rule
from tests.integration.local_actors import LocalRef

COPY = cep_rule("copy", "EIN[IN__N >= 0]", "IN__N as n", "Copied")
STORE = cep_rule("store", "EIN[IN__N >= 0]", "IN__N as n", "Out")
BELOW = cep_rule("below", "EIN[IN__N < 0]", "IN__N as n", "Out")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(delivery, "RETRY_S", 0.01)
    monkeypatch.setattr(outbox, "RETRY_S", 0.001)
    monkeypatch.setattr(shard, "SNAPSHOT_S", 0.0)


async def test_a_slow_script_holds_up_no_other_output(platform):
    await platform.start(COPY, BELOW)
    never = asyncio.Event()
    platform.runner.answer = lambda batch: never.wait() if batch[0]["stream"] == "Out" else None
    await platform.send("In", {"n": -1})
    await platform.until(lambda: platform.runner.offered == 1)
    await platform.send("In", {"n": 1}, {"n": 2}, {"n": -2})
    await platform.until(lambda: platform.runner.numbers("Copied") == [1, 2])
    await platform.until(lambda: platform.gateway.numbers("Out") == [-1, -2])
    assert platform.runner.numbers("Out") == []
    await platform.shard.reload()
    never.set()
    await platform.until(lambda: platform.runner.numbers("Out") == [-1, -2])


async def test_what_was_not_delivered_at_a_crash_is_delivered_after_it(platform):
    await platform.start(COPY)
    platform.runner.answer = lambda batch: asyncio.Event().wait()
    await platform.send("In", {"n": 1}, {"n": 2})
    await platform.until(lambda: platform.gateway.numbers("Copied") == [1, 2])
    await platform.shard.tick()
    feed = platform.partition._feed
    await platform.until(lambda: feed.positions()["cep-0"] == platform.partition.stats()["seq"])
    platform.die()
    platform.runner.answer = lambda batch: None
    await platform.start()
    await platform.until(lambda: platform.runner.numbers("Copied") == [1, 2])
    assert platform.gateway.numbers("Copied") == [1, 2], "it has been there"
    await platform.shard.tick()
    platform.die()
    await platform.start()
    assert platform.shard._delivery.counts["undelivered"] == 0, "what has arrived since is not kept any more"


async def test_at_the_bound_no_further_events_are_taken(platform, monkeypatch):
    monkeypatch.setattr(outbox, "WAITING_MAX", 3)
    await platform.start(COPY)
    go = asyncio.Event()
    platform.runner.answer = lambda batch: go.wait()
    for number in range(10):
        await platform.send("In", {"n": number})
    await platform.until(lambda: platform.shard._waiting)
    assert (await platform.shard.stats())["undelivered"] == 3
    go.set()
    await platform.until(lambda: platform.runner.numbers("Copied") == list(range(10)))


async def test_a_runner_that_refuses_is_asked_again(platform):
    await platform.start(COPY)
    platform.runner.answer = refuse_times(2)
    await platform.send("In", {"n": 1})
    await platform.until(lambda: platform.runner.numbers("Copied") == [1])


async def test_an_output_that_is_refused_for_good_is_in_the_process_log_and_the_others_arrive(platform):
    await platform.start(COPY)

    def answer(batch):
        if any(output["data"]["n"] == 2 for output in batch):
            raise MalformedMessageError("not this one")

    platform.runner.answer = answer
    await platform.send("In", {"n": 1}, {"n": 2}, {"n": 3})
    await platform.until(lambda: platform.runner.numbers("Copied") == [1, 3])
    (record,) = await platform.until(lambda: platform.bdc.read_log(10, kind="CEP"))
    assert record.details["data"] == {"n": 2}
    assert "not this one" in record.summary
    assert platform.shard._delivery.counts["refused"] == 1


async def test_an_insertion_that_fails_unexpectedly_is_tried_again(platform, monkeypatch):
    await platform.start(STORE)
    fail_inserting(monkeypatch, times=2)
    await platform.send("In", {"n": 1}, {"n": 2})
    await until_stored(platform, [1, 2])
    await platform.until(lambda: not platform.shard._delivery.counts["undelivered"])
    assert platform.shard._delivery.counts["inserted"] == 2
    assert platform.shard._delivery.counts["refused"] == 0


async def test_what_fails_unexpectedly_for_good_is_set_aside_alone_and_written_down(platform, monkeypatch, caplog):
    await platform.start(STORE)
    fail_inserting(monkeypatch, times=99, number=2)
    await platform.send("In", {"n": 1}, {"n": 2}, {"n": 3})
    (record,) = await platform.until(lambda: platform.bdc.read_log(10, kind="CEP"))
    assert record.details["data"] == {"n": 2}
    assert "ValueError" in record.summary
    assert "poison" not in record.summary
    await until_stored(platform, [1, 3])
    await platform.until(lambda: platform.shard._delivery.counts["refused"] == 1)
    await platform.until(lambda: not platform.shard._delivery.counts["undelivered"])
    assert "cep.output_set_aside" in [getattr(record, "code", "") for record in caplog.records]


async def test_a_process_log_that_fails_holds_up_no_output(platform, monkeypatch):
    await platform.start(STORE)
    fail_inserting(monkeypatch, times=99, number=2)

    def fails(records):
        raise ValueError("no log")

    monkeypatch.setattr(platform.shard._bdc, "log", fails)
    await platform.send("In", {"n": 2}, {"n": 3})
    await until_stored(platform, [3])
    await platform.until(lambda: not platform.shard._delivery.counts["undelivered"])


async def test_a_modified_instance_is_an_event_of_the_time_of_its_modification(platform):
    await platform.start(COPY)
    await platform.send("In", {"n": 1})
    await platform.send("In", {"n": 5})
    await platform.devices.update(SOFIA, 'db.In.update({"n": 1}, {"$set": {"n": 2}})', query_type=QueryType.NATIVE)
    await platform.until(lambda: platform.runner.numbers("Copied") == [1, 5, 2])
    first, second, third = (output["ts"] for output in platform.runner.heard)
    assert first <= second <= third


@pytest.mark.parametrize("is_in_log", [False, True], ids=["live", "from the log"])
async def test_what_rules_modify_again_and_again_is_left_out_after_eight(platform, is_in_log):
    """A script modifies the instance for each output: its session says how many rules have been at work."""
    await platform.start(COPY)
    if is_in_log:
        platform.die()
    await platform.send("In", {"n": 0})
    for hops in (3, 8):
        who = Principal("sofia", session_key=made_by("script", hops))
        await platform.devices.update(who, 'db.In.update({}, {"$inc": {"n": 1}})', query_type=QueryType.NATIVE)
    if is_in_log:
        await platform.start()
    await platform.until(lambda: platform.shard._counts["circles"] == 1)
    await platform.until(lambda: len(platform.runner.heard) == 2)
    assert [output["hops"] for output in platform.runner.heard] == [1, 4]


async def test_hops_are_those_of_the_event_that_made_the_output(platform):
    other = cep_rule("other", "EOTHER[OTHER__N >= 0]", "OTHER__N as n", "Copied")
    await platform.start(COPY, other)
    platform.die()
    await platform.send("In", {"n": 1}, who=Principal("sofia", session_key=made_by("x", 6)))
    await platform.send("Other", {"n": 2})
    await platform.start()
    await platform.until(lambda: len(platform.runner.heard) == 2)
    assert {output["data"]["n"]: output["hops"] for output in platform.runner.heard} == {1: 7, 2: 1}


async def test_an_output_says_which_ontology_it_comes_from(platform):
    of_outputs = cep_rule("second", "Copied[n > 0]", "n", "Twice")
    await platform.start(COPY, of_outputs)
    await platform.send("In", {"n": 1})
    await platform.until(lambda: platform.runner.numbers("Twice"))
    assert {output["stream"]: output["ontology"] for output in platform.runner.heard} == {"Copied": "In", "Twice": "In"}


async def test_outputs_wait_for_a_gateway_that_is_away(platform):
    await platform.start(COPY)
    del LocalRef.actors["mqtt-0"]
    await platform.send("In", {"n": 1}, {"n": 2})
    await platform.until(lambda: platform.runner.numbers("Copied") == [1, 2])
    gateway = LocalRef.actors["mqtt-0"] = Hearer()
    await platform.until(lambda: gateway.numbers("Copied") == [1, 2])


async def test_a_gateway_that_is_away_misses_what_is_beyond_the_bound_and_holds_up_nobody(platform, monkeypatch):
    monkeypatch.setattr(outbox, "WAITING_MAX", 5)
    monkeypatch.setattr(outbox, "BATCH_MAX", 1)
    monkeypatch.setattr(delivery, "AWAY_MAX", 2)
    await platform.start(COPY)
    del LocalRef.actors["mqtt-0"]
    for number in range(20):
        await platform.send("In", {"n": number})
    await platform.until(lambda: platform.runner.numbers("Copied") == list(range(20)))
    await platform.until(lambda: platform.shard._delivery.counts["missed"] == 18)
    gateway = LocalRef.actors["mqtt-0"] = Hearer()
    await platform.until(lambda: gateway.numbers("Copied") == [0, 1])


def fail_inserting(monkeypatch, *, times, number=None):
    """The insertions of a shard that fail in a way that nobody has foreseen."""
    insert, left = Inside.insert, [times]

    async def fails(self, who, ontology, instance, *, once=None):
        if once is not None and number in (None, instance["n"]) and left[0]:
            left[0] -= 1
            raise ValueError("poison")
        return await insert(self, who, ontology, instance, once=once)

    monkeypatch.setattr(Inside, "insert", fails)


async def until_stored(platform, numbers):
    async def is_stored():
        return sorted(row["n"] for row in await platform.rows("Out")) == numbers

    await platform.until(is_stored)


def refuse_times(count):
    left = [count]

    def answer(batch):
        if left[0]:
            left[0] -= 1
            raise MalformedMessageError("not now")

    return answer
