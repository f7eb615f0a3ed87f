"""Time alone: rules notice what never came, and what time made is told once, whatever is killed."""

import pytest

from actors.cep import shard
from sib.cep import definitions
from tests.integration.cep.cep_platform import cep_rule

SILENT = cep_rule("silent", "not EIN for 50 ms partition by IN__K in Other.k", "IN__K as k", "Silent")
COPY = cep_rule("copy", "EIN", "IN__N as n", "Copied")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(shard, "SNAPSHOT_S", 0.0)
    monkeypatch.setattr(shard, "TABLES_S", 0.0)
    monkeypatch.setattr(shard, "GRACE_MS", 0)
    monkeypatch.setattr(definitions, "IDLE_MS", 1)


def silent(platform):
    return [(output["id"], output["data"]["k"]) for output in platform.gateway.heard if output["stream"] == "Silent"]


async def until_silent(platform, count):
    async def is_told():
        await platform.shard.tick()
        return len(silent(platform)) >= count

    await platform.until(is_told)


async def until_kept(platform):
    async def is_kept():
        await platform.shard.tick()
        outbox = platform.shard._delivery.outbox
        return not platform.shard._has_changed and not outbox.is_ahead_of_dump and not len(outbox)

    await platform.until(is_kept)


async def test_a_key_that_never_came_is_noticed_though_nothing_ever_comes(platform):
    await platform.send("Other", {"k": "a"})
    await platform.start(SILENT)
    await until_silent(platform, 1)
    await platform.send("Other", {"k": "b"})
    await until_silent(platform, 2)
    assert [key for _, key in silent(platform)] == ["a", "b"]


async def test_what_time_made_is_not_told_again_after_a_crash(platform):
    await platform.send("Other", {"k": "a"})
    await platform.start(SILENT)
    await until_silent(platform, 1)
    await until_kept(platform)
    platform.die()
    await platform.send("Other", {"k": "b"})
    await platform.start()
    await until_silent(platform, 2)
    assert [key for _, key in silent(platform)] == ["a", "b"]


async def test_what_time_made_has_the_same_id_when_it_is_told_again(platform, monkeypatch):
    await platform.send("Other", {"k": "a"})
    await platform.start(SILENT)
    monkeypatch.setattr(shard, "SNAPSHOT_S", 60.0)
    await until_silent(platform, 1)
    platform.die()
    await platform.start()
    await until_silent(platform, 2)
    assert len(set(silent(platform))) == 1


async def test_a_rule_that_is_deployed_on_a_running_platform_begins_at_once(platform):
    await platform.send("Other", {"k": "a"})
    await platform.start(COPY)
    with platform.bdc.change() as configuration:
        configuration.cep_rules.put(SILENT)
    await platform.shard.reload()
    await until_silent(platform, 1)
