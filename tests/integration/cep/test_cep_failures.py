"""Changes that the rules fail over come again, and are set aside alone when they fail always; nothing is told twice."""

import pytest

from actors.cep import patience, shard
from sib.cep.engine import Engine
from tests.integration.cep.cep_platform import cep_rule

COUNT = cep_rule("count", "EIN#length(1000)", "IN__N as n, count() as c", "Counted")
SILENT = cep_rule("silent", "not EIN for 1 sec", "ts", "Silent")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(patience, "PAUSES_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(shard, "SNAPSHOT_S", 0.0)


def failing(monkeypatch, number, times):
    """An engine that fails in the middle of a batch, over instances with this number."""
    left = [times]
    send_batch = Engine.send_batch

    def send(self, events, **options):
        for event in events:
            if event[2].get("IN__N") == number and left[0]:
                left[0] -= 1
                raise ValueError("poison")
            yield_ = send_batch(self, [event], **options)
            made.extend(yield_)
        result, made[:] = list(made), []
        return result

    made: list = []
    monkeypatch.setattr(Engine, "send_batch", send)


def counted(platform):
    return [
        (output["data"]["n"], output["data"]["c"]) for output in platform.gateway.heard if output["stream"] == "Counted"
    ]


async def until_acknowledged(platform):
    async def is_acknowledged():
        await platform.shard.tick()
        return platform.partition._feed.positions()["cep-0"] == platform.partition.stats()["seq"]

    await platform.until(is_acknowledged)


async def test_what_failed_comes_again_and_nothing_is_lost_or_told_twice(platform, monkeypatch):
    await platform.start(COUNT)
    await platform.send("In", {"n": 1})
    await platform.until(lambda: counted(platform) == [(1, 1)])
    failing(monkeypatch, 2, times=2)
    await platform.send("In", {"n": 2}, {"n": 3})
    await platform.until(lambda: counted(platform) == [(1, 1), (2, 2), (3, 3)])
    await until_acknowledged(platform)
    assert (await platform.shard.stats())["set_aside"] == 0


async def test_a_failure_is_not_acknowledged(platform, monkeypatch):
    monkeypatch.setattr(patience, "PAUSES_S", (60.0,))
    await platform.start(COUNT)
    before = platform.partition._feed.positions()["cep-0"]
    failing(monkeypatch, 1, times=1)
    await platform.send("In", {"n": 1})
    await platform.until(lambda: platform.shard._patience.pause_s)
    await platform.shard.tick()
    assert platform.partition._feed.positions()["cep-0"] == before < platform.partition.stats()["seq"]


async def test_what_fails_always_is_set_aside_alone_and_written_down(platform, monkeypatch):
    await platform.start(COUNT)
    failing(monkeypatch, 2, times=99)
    await platform.send("In", {"n": 1}, {"n": 2}, {"n": 3})
    await platform.until(lambda: counted(platform) == [(1, 1), (3, 2)])
    await until_acknowledged(platform)
    assert (await platform.shard.stats())["set_aside"] == 1
    (record,) = platform.bdc.read_log(10, kind="CEP")
    assert record.details["ontology"] == "In"
    platform.die()
    await platform.start()
    await platform.send("In", {"n": 4})
    await platform.until(lambda: counted(platform)[-1] == (4, 3))


async def test_a_rule_that_fails_as_time_goes_by_is_stopped_and_the_others_go_on(platform, monkeypatch):
    await platform.start(COUNT, SILENT)
    compiled = type(platform.shard._deployment.engine.rules[0])
    run = compiled.run

    def fails(self, events, watermark):
        if self.title == "silent" and not events:
            raise ValueError("poison")
        return run(self, events, watermark)

    monkeypatch.setattr(compiled, "run", fails)
    await platform.send("In", {"n": 1})

    async def is_stopped():
        await platform.shard.tick()
        return platform.shard.rules().get("silent", {}).get("state") == "refused"

    await platform.until(is_stopped)
    await platform.send("In", {"n": 2})
    await platform.until(lambda: counted(platform) == [(1, 1), (2, 2)])
