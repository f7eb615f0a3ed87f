"""``kill -9`` in the middle of transfers, with writers running: every instance is exactly once in the BDTR or the history."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

import sofia2.bdh
from benchmarks.platform_under_test import ONTOLOGY, PlatformUnderTest
from benchmarks.report import ROOT
from storage.bdtr.transfers import State
from storage.open import open_bdtr
from tests.chaos.kill_helpers import HEAL_S, burst, kill, stored, until_ready

pytestmark = pytest.mark.timeout(300)
COUNT = 4000
ROUNDS = 4
APPLY = f"""
sofia2: 1
ontologies:
  - {{name: {ONTOLOGY}, window: 1s}}
processes:
  - {{name: often, type: transfer, ontology: {ONTOLOGY}, schedule: 1s}}
"""


@pytest.fixture(scope="module")
def mover(tmp_path_factory):
    """A platform that moves what is older than a second, each second."""
    platform = PlatformUnderTest(tmp_path_factory.mktemp("mover") / "data")
    platform.start("--modules=sib,process")
    file = platform.data.with_suffix(".window.yaml")
    file.touch(mode=0o600)
    file.write_text(APPLY)
    platform.command("apply", str(file))
    yield platform
    platform.stop()


def journal(platform):
    """The states of the transfers under way."""
    found = []
    for file in (platform.data / "bdtr").glob("*.db"):
        store = open_bdtr(f"sqlite:{file}", writer=False)
        try:
            with store.snapshot() as snapshot:
                found += [row.state for row in snapshot.transfers(ONTOLOGY)]
        finally:
            store.close()
    return found


async def until_in_the_middle(platform):
    """A transfer is planned and not done yet."""
    async with asyncio.timeout(HEAL_S):
        while State.PLANNED not in await asyncio.to_thread(journal, platform):
            await asyncio.sleep(0)


def everywhere(platform, name):
    """How often each instance of a burst is there, over the BDTR and the history."""
    found = stored(platform, name)
    table = sofia2.bdh.table(ONTOLOGY, data=str(platform.data), where=f"Sensor.groupId LIKE '{name}-%'")
    found.update(row["Sensor"]["assetId"] for row in table.select(["Sensor"]).to_pylist())
    return found


async def send_on(load, until):
    """Writers send for as long as it goes on."""
    first = 0
    while not until.is_set():
        load.send(first)
        first += COUNT
        await load.until_acknowledged(first * 9 // 10)


def check(platform, load):
    found = everywhere(platform, load.name)
    assert load.acknowledged <= set(found)
    assert Counter(found.values()) == {1: len(found)}
    assert [refusal for kp in load.writers for refusal in kp.refused] == []


async def test_the_process_runner_is_killed_in_the_middle_and_goes_on(mover):
    async with burst(mover, "runner", COUNT) as load:
        over = asyncio.Event()
        sending = asyncio.create_task(send_on(load, over))
        for _ in range(ROUNDS):
            await until_in_the_middle(mover)
            await kill(mover, "ProcessRunner")
            await until_ready(mover)
        over.set()
        await sending
        await load.until_over()
        async with asyncio.timeout(HEAL_S):
            while await asyncio.to_thread(stored, mover, load.name):
                await asyncio.sleep(0.2)
        check(mover, load)
    runs = await asyncio.to_thread(mover.command, "process", "log", "often", "--limit=1000")
    states = Counter(run["state"] for run in runs)
    assert states["interrupted"] >= 1
    assert states["done"] >= 1
    assert sum(run["counts"].get("resumed", 0) for run in runs) >= 1


def foreground(platform):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SOFIA2_", "RAY_"))}
    command = [sys.executable, "-m", "sofia2", "process", "run", "transfer", f"--ontology={ONTOLOGY}"]
    return subprocess.Popen(
        [*command, f"--data={platform.data}", "--json"],
        cwd=ROOT,
        env={**kept, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def until_killed_in_the_middle(platform):
    """One foreground transfer, killed when it has planned a batch; what is old when it comes is enough for one."""
    while True:
        process = await asyncio.to_thread(foreground, platform)
        try:
            while process.poll() is None:
                if State.PLANNED in await asyncio.to_thread(journal, platform):
                    os.kill(process.pid, signal.SIGKILL)
                    await asyncio.to_thread(process.wait)
                    return
        finally:
            process.kill()
            await asyncio.to_thread(process.communicate)


async def test_the_foreground_transfer_is_killed_in_the_middle_and_the_next_one_goes_on(mover):
    await asyncio.to_thread(mover.command, "process", "pause", "often")
    async with burst(mover, "foreground", COUNT) as load:
        over = asyncio.Event()
        sending = asyncio.create_task(send_on(load, over))
        async with asyncio.timeout(2 * HEAL_S):
            for _ in range(ROUNDS):
                await until_killed_in_the_middle(mover)
        over.set()
        await sending
        await load.until_over()
        await asyncio.sleep(1.5)
        began = time.monotonic()
        done = await asyncio.to_thread(mover.command, "process", "run", "transfer", f"--ontology={ONTOLOGY}")
        assert time.monotonic() - began < HEAL_S
        assert done["state"] == "done"
        assert stored(mover, load.name) == Counter()
        check(mover, load)
    await asyncio.to_thread(mover.command, "process", "resume", "often")


async def test_the_partition_is_killed_while_a_command_moves(mover):
    """Both write to its file: each heals by itself."""
    await asyncio.to_thread(mover.command, "process", "pause", "often")
    async with burst(mover, "partition", COUNT) as load:
        load.send()
        await load.until_acknowledged(COUNT // 2)
        process = await asyncio.to_thread(foreground, mover)
        await kill(mover, "OntologyPartition")
        assert await asyncio.to_thread(process.wait, HEAL_S) == 0
        await load.until_over()
        check(mover, load)
    await until_ready(mover)
    await asyncio.to_thread(mover.command, "process", "resume", "often")
