"""``kill -9`` of the platform's own process, and of all its processes: the next start finds everything."""

import asyncio
import os
import signal

import psutil
import pytest

from sofia2.daemon import is_alive
from tests.chaos.kill_helpers import burst, until_ready

pytestmark = pytest.mark.timeout(400)
COUNT = 4000
AGENTS_S = 30
"""Ray's agents see a little later that their parent is gone."""


def processes_of(pid):
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


async def test_killing_the_daemon_leaves_nothing_behind_once_the_platform_starts_again(victim):
    async with burst(victim, "daemon", COUNT) as load:
        load.send()
        await load.until_acknowledged(COUNT // 10)
        old = processes_of(victim.pid)
        os.kill(victim.pid, signal.SIGKILL)
        await asyncio.to_thread(victim.start)
        assert [process for process in old if is_alive(process.pid)] == []
        await load.until_over()
        load.check(is_exactly_once=False)
        await until_ready(victim)


async def test_a_stop_after_the_daemon_was_killed_ends_what_is_left(victim):
    old = processes_of(victim.pid)
    os.kill(victim.pid, signal.SIGKILL)
    await asyncio.to_thread(victim.stop)
    async with asyncio.timeout(AGENTS_S):
        while any(is_alive(process.pid) for process in old):
            await asyncio.sleep(0.1)
    await asyncio.to_thread(victim.start)
