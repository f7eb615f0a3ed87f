"""What changes in some ontologies: from the partitions' feed to an actor, in order and at least once.

The actor is a consumer like a gateway: a change counts as done when whatever it caused is handled, so after a crash what was not
handled comes again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

from actors.config import Topology
from actors.feed import Announcement, Event, Events
from actors.inbox import Inbox
from actors.runtime import Ref
from sib.errors import SibError

log = logging.getLogger("sofia2.watcher")

BEAT_S = 0.5
WAITING_MAX = 20_000
"""What waits at the most; beyond it no further page of the change log is read."""


class Watcher:
    """The changes of all partitions for one actor.

    Args:
        name: the actor's, under which its positions are kept.
        topology: which partitions there are.
        take: gets the changes of one announcement, one announcement of a partition after the other; returns when they are
            queued, with an awaitable that ends when they are handled.
        waiting: how many changes, or what they made, wait.
    """

    def __init__(
        self,
        name: str,
        topology: Topology,
        take: Callable[[str, list[Event]], Awaitable[Awaitable[None] | None]],
        waiting: Callable[[], int],
    ) -> None:
        self._name, self._topology, self._take, self._waiting = name, topology, take, waiting
        self._epoch = os.urandom(6).hex()
        self._watched: dict[str, tuple[str, ...]] = dict.fromkeys(topology.partitions, ())
        self._resumes_at_s = 0.0
        self._inboxes = self._new_inboxes()
        self._turns: dict[str, asyncio.Task[Any]] = {}
        self._is_live: dict[str, bool] = dict.fromkeys(topology.partitions, False)
        self._is_watching: dict[str, bool] = dict.fromkeys(topology.partitions, False)
        self._beats: list[asyncio.Task[None]] = []
        self._wake = {partition: asyncio.Event() for partition in topology.partitions}

    def start(self) -> None:
        """Begin; the ontologies have been told by ``watch``."""
        loop = asyncio.get_running_loop()
        self._beats = [loop.create_task(self._beat_for_ever(partition)) for partition in self._topology.partitions]

    def watch(self, ontologies: Iterable[str]) -> None:
        """From now on these ontologies, whatever it was before."""
        of_partition: dict[str, list[str]] = {partition: [] for partition in self._topology.partitions}
        for ontology in sorted(ontologies):
            of_partition[self._topology.partition_of(ontology)].append(ontology)
        for partition, names in of_partition.items():
            if self._watched[partition] != tuple(names):
                self._watched[partition] = tuple(names)
                self._wake[partition].set()

    def put(self, partition: str, announcement: Announcement) -> None:
        """What a partition announces."""
        self._inboxes[partition].put(announcement)

    async def is_watching(self) -> None:
        """Wait until every partition knows what is watched."""
        await asyncio.gather(*(self._beat(partition) for partition in self._topology.partitions))

    async def known(self, positions: Mapping[str, int]) -> dict[str, int]:
        """Positions that somebody has kept, as far as the partitions have got there.

        One beyond a partition's last change is of another BDTR, before this one took its place: it would hide what comes here.
        """
        found = {}
        for partition in self._topology.partitions:
            position = positions.get(partition, 0)
            last = (await Ref(partition).call("stats"))["seq"] if position else 0
            if position > last:
                log.warning("%s is another database than the one whose change %d was kept", partition, position)
            elif position:
                found[partition] = position
        return found

    @property
    def is_caught_up(self) -> bool:
        """Whether every partition whose changes are watched had nothing more to tell when it was asked last."""
        return all(self._is_live[partition] for partition, names in self._watched.items() if names)

    def restart(self, pause_s: float) -> None:
        """What is not acknowledged comes again, after a pause; what was queued is dropped without being handled."""
        self._epoch = os.urandom(6).hex()
        for inbox in self._inboxes.values():
            inbox.close()
        for turn in self._turns.values():
            if turn is not asyncio.current_task():  # one of them may have found out
                turn.cancel()
        self._turns.clear()
        self._inboxes = self._new_inboxes()
        self._is_live = dict.fromkeys(self._is_live, False)
        self._resumes_at_s = time.monotonic() + pause_s
        for wake in self._wake.values():
            wake.set()

    def close(self) -> None:
        for task in self._beats:
            task.cancel()

    def _new_inboxes(self) -> dict[str, Inbox]:
        return {partition: Inbox(partial(self._apply, partition)) for partition in self._topology.partitions}

    def _apply(self, partition: str, seq: int, announced: list[Events]) -> Awaitable[None]:
        """Announcements of one partition are taken one after the other; each ends when what it caused is handled."""
        before = self._turns.get(partition)

        async def queue() -> Awaitable[None] | None:
            if before is not None:
                await asyncio.wait([before])
            return await self._take(partition, [event for events in announced for event in events.each()])

        turn = self._turns[partition] = asyncio.ensure_future(queue())

        async def handled() -> None:
            rest = await asyncio.shield(turn)
            if rest is not None:
                await rest

        return handled()

    async def _beat_for_ever(self, partition: str) -> None:
        while True:
            try:
                await self._beat(partition)
            except SibError as error:
                self._is_live[partition] = False
                log.debug("no heartbeat: %s", error)
            except Exception:
                log.exception("the feed of %s", partition)
            try:
                async with asyncio.timeout(BEAT_S):
                    await self._wake[partition].wait()
            except TimeoutError:
                pass
            self._wake[partition].clear()

    async def _beat(self, partition: str) -> None:
        await asyncio.sleep(max(0.0, self._resumes_at_s - time.monotonic()))
        watched, inbox = self._watched[partition], self._inboxes[partition]
        if self._is_watching[partition] and (not watched or self._waiting() >= WAITING_MAX):
            await Ref(partition).call("watch", self._name, list(watched))
        self._is_watching[partition] = bool(watched)
        while watched and self._waiting() < WAITING_MAX:
            told = self._name, self._epoch, inbox.acked, inbox.received, list(watched)
            announcement = await Ref(partition).call("heartbeat", *told)
            if inbox is not self._inboxes[partition]:
                return  # it began anew meanwhile, and is woken for that
            self._is_live[partition] = announcement is None
            if announcement is None:
                return
            inbox.put(announcement)
