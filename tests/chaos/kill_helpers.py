"""What the kill tests share: clients that lose nothing, and how to kill."""

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager

import sofia2.bdtr
from benchmarks.durable_kp import DurableKp
from benchmarks.platform_under_test import ONTOLOGY
from sib.errors import SibError

HEAL_S = 60
"""Far above the 10 s of a machine of one's own: many things may share this one."""
WRITERS = 4


class Burst:
    """Writers that send instances, and a persistent subscriber that hears of them."""

    def __init__(self, platform, name, count):
        self.platform, self.name, self.count = platform, name, count
        port = platform.port("mqtt")
        self.subscriber = DurableKp(port, f"{name}-subscriber")
        self.writers = [DurableKp(port, f"{name}-writer{number}") for number in range(WRITERS)]

    async def prepare(self):
        await asyncio.gather(*(kp.join() for kp in (self.subscriber, *self.writers)))
        await self.subscriber.subscribe(f'{{Sensor.groupId:{{$regex:"^{self.name}-"}}}}')

    def send(self, first=0):
        each = self.count // WRITERS
        for number, kp in enumerate(self.writers):
            kp.insert([f"{self.name}-{number}-{first + at}" for at in range(each)])

    @property
    def acknowledged(self):
        return set().union(*(kp.acknowledged for kp in self.writers))

    async def until_acknowledged(self, count):
        async with asyncio.timeout(HEAL_S):
            while len(self.acknowledged) < count:
                await asyncio.sleep(0.01)

    async def until_over(self):
        """Everything is acknowledged, and everything stored was notified."""
        async with asyncio.timeout(HEAL_S):
            await asyncio.gather(*(kp.until(lambda kp=kp: kp.is_idle) for kp in self.writers))
        async with asyncio.timeout(HEAL_S):
            while not self.acknowledged <= set(self.subscriber.notified):
                await asyncio.sleep(0.05)

    def check(self, *, is_exactly_once):
        """What was acknowledged is stored, what was confirmed too, and nobody was refused."""
        found = stored(self.platform, self.name)
        assert self.acknowledged <= set(found)
        assert set().union(*(kp.confirmed for kp in self.writers)) <= set(found)
        assert [refusal for kp in self.writers for refusal in kp.refused] == []
        assert set(found) <= set(self.subscriber.notified)
        more_than_once = sum(count - 1 for count in found.values())
        if is_exactly_once:
            assert more_than_once == 0
        else:
            assert more_than_once <= sum(kp.sent_again for kp in self.writers)

    async def close(self):
        await asyncio.gather(*(kp.close() for kp in (self.subscriber, *self.writers)))


@asynccontextmanager
async def burst(platform, name, count):
    """A burst whose clients have joined and subscribed; nothing is sent yet."""
    made = Burst(platform, name, count)
    try:
        async with asyncio.timeout(HEAL_S):
            await made.prepare()
        yield made
    finally:
        await made.close()


def stored(platform, name):
    """How often each asset whose name begins so is stored, read from the files of the partitions."""
    found = Counter()
    for file in sorted((platform.data / "bdtr").glob("*.db")):
        with sofia2.bdtr.open(f"sqlite:{file}") as database:
            if ONTOLOGY in database.list_collection_names():
                condition = {"Sensor.groupId": {"$regex": f"^{name}-"}}
                found.update(doc["Sensor"]["assetId"] for doc in database[ONTOLOGY].find(condition))
    return found


async def until_ready(platform):
    """Every actor works."""
    async with asyncio.timeout(HEAL_S):
        while True:
            try:
                if (await asyncio.to_thread(platform.status))["ready"]:
                    return
            except (SibError, RuntimeError):
                pass
            await asyncio.sleep(0.1)


async def kill(platform, kind):
    """``kill -9`` of the actors of a kind, once there is one to kill; when it began."""
    async with asyncio.timeout(HEAL_S):
        while not await asyncio.to_thread(platform.kill, kind):
            await asyncio.sleep(0.1)
    return time.monotonic()
