"""Subscriptions of a KP that runs inside: changes come from the partitions' feed and are matched here.

The KP's worker is a consumer like a gateway. What is announced counts as delivered when the KP's process has room for it, so a
slow KP holds back only itself; subscriptions end with the process that made them.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from actors.config import PlatformConfig
from actors.feed import Announcement, Events
from actors.inbox import Inbox
from actors.runtime import Ref
from sib.errors import LimitError, SibError, StoreUnavailableError
from sib.ssap.printing import print_one
from sib.subscriptions import SubscriptionIndex

log = logging.getLogger("sofia2.kp")

BEAT_S = 1.0
SUBSCRIPTIONS_MAX = 1000
"""Of one KP; more are refused."""
INSTANCES_BYTES_MAX = 512 * 1024
"""In one notification; more make further ones."""
COLLECTED_MAX = 10_000
"""Instances that one subscription collects during ``ms_refresh``; at the bound they are sent early."""
BEGIN_S_MAX = 10.0

Notify = Callable[[str, Any], Awaitable[None]]


class _Subscription:
    __slots__ = ("id", "last_at_s", "ms_refresh", "ontology", "pending", "timer")

    def __init__(self, id_: str, ontology: str, ms_refresh: int) -> None:
        self.id, self.ontology, self.ms_refresh = id_, ontology, ms_refresh
        self.last_at_s = -1e9
        self.pending: list[bytes] = []
        self.timer: asyncio.TimerHandle | None = None


class Watch:
    """The subscriptions of one KP process; ``notify`` tells it something and waits while it does not read."""

    def __init__(self, name: str, config: PlatformConfig, notify: Notify) -> None:
        self._name, self._topology, self._notify = name, config.topology, notify
        self._epoch = os.urandom(6).hex()
        self._loop = asyncio.get_running_loop()
        self._subscriptions: dict[str, _Subscription] = {}
        self._indexes: dict[str, SubscriptionIndex] = defaultdict(SubscriptionIndex)
        self._inboxes: dict[str, Inbox] = {}
        self._order = asyncio.Lock()
        self._beating: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._subscriptions)

    @property
    def ontologies(self) -> dict[str, str]:
        """Subscriptions and the ontology of each."""
        return {subscription.id: subscription.ontology for subscription in self._subscriptions.values()}

    async def subscribe(self, id_: str, ontology: str, condition: dict[str, Any], ms_refresh: int) -> None:
        """From the next commit on, instances that match are told. The same id again replaces it.

        Raises:
            LimitError: there are too many. StoreUnavailableError: the partition is not there now.
        """
        if id_ not in self._subscriptions and len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            raise LimitError(f"a KP has at most {SUBSCRIPTIONS_MAX} subscriptions")
        self.unsubscribe(id_)
        self._indexes[ontology].add(id_, condition)
        self._subscriptions[id_] = _Subscription(id_, ontology, ms_refresh)
        try:
            async with asyncio.timeout(BEGIN_S_MAX):
                await self._begin(self._topology.partition_of(ontology))
        except TimeoutError:
            self.unsubscribe(id_)
            raise StoreUnavailableError("the partition is not there now; subscribe again") from None
        if self._beating is None:
            self._beating = self._loop.create_task(self._beat_for_ever())

    def unsubscribe(self, id_: str) -> None:
        """Nothing of it is told any more. Idempotent."""
        subscription = self._subscriptions.pop(id_, None)
        if subscription is None:
            return
        if subscription.timer:
            subscription.timer.cancel()
        self._indexes[subscription.ontology].remove(id_)

    def put(self, partition: str, announcement: Announcement) -> None:
        """What a partition announces."""
        inbox = self._inboxes.get(partition)
        if inbox is not None:
            inbox.put(announcement)

    async def close(self) -> None:
        """End all subscriptions and forget the position, so that the next process begins with the present."""
        if self._beating is not None:
            self._beating.cancel()
        for id_ in list(self._subscriptions):
            self.unsubscribe(id_)
        for partition, inbox in self._inboxes.items():
            inbox.close()
            try:
                await asyncio.wait_for(Ref(partition).call("watch", self._name, []), BEAT_S)
            except (SibError, TimeoutError) as error:
                log.warning("%s may keep the position of this KP: %s", partition, error)
        self._inboxes.clear()

    # ------------------------------------------------------------------ the feed

    async def _begin(self, partition: str) -> None:
        is_new = partition not in self._inboxes
        if is_new:
            self._inboxes[partition] = Inbox(self._apply)
        while True:
            try:
                if is_new:  # the position of an earlier process of this KP is not ours
                    await Ref(partition).call("watch", self._name, [])
                    is_new = False
                await self._beat(partition)
                return
            except SibError as error:
                if not error.is_retryable:
                    raise
                await asyncio.sleep(0.05)

    async def _beat(self, partition: str) -> None:
        inbox = self._inboxes[partition]
        wanted = {s.ontology for s in self._subscriptions.values()}
        watched = [name for name in sorted(wanted) if self._topology.partition_of(name) == partition]
        if not watched:
            await Ref(partition).call("watch", self._name, [])
        while watched:
            told = self._name, self._epoch, inbox.acked, inbox.received, watched
            announcement = await Ref(partition).call("heartbeat", *told)
            if announcement is None:
                return
            inbox.put(announcement)

    async def _beat_for_ever(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            for partition in list(self._inboxes):
                try:
                    await self._beat(partition)
                except SibError as error:
                    log.debug("no heartbeat: %s", error)

    # ------------------------------------------------------------------ matching

    def _apply(self, seq: int, announced: list[Events]) -> Awaitable[None] | None:
        found: dict[str, list[bytes]] = defaultdict(list)
        for events in announced:
            index = self._indexes.get(events.ontology)
            if not index:
                continue
            documents = [event.document for event in events.each()]
            for position, ids in index.match(documents, documents.__getitem__):
                printed = print_one(documents[position])
                for id_ in ids:
                    found[id_].append(printed)
        return self._tell_all(found) if found else None

    async def _tell_all(self, found: dict[str, list[bytes]]) -> None:
        async with self._order:
            for id_, instances in found.items():
                subscription = self._subscriptions.get(id_)
                if subscription is not None:
                    await self._tell(subscription, instances)

    async def _tell(self, subscription: _Subscription, instances: list[bytes]) -> None:
        """Now, or, when the last time was less than ``ms_refresh`` ago, together with what comes until then."""
        subscription.pending += instances
        wait_s = subscription.last_at_s + subscription.ms_refresh / 1000 - self._loop.time()
        if wait_s <= 0 or len(subscription.pending) >= COLLECTED_MAX:
            await self._flush(subscription)
        elif subscription.timer is None:
            subscription.timer = self._loop.call_later(wait_s, self._due, subscription)

    def _due(self, subscription: _Subscription) -> None:
        subscription.timer = None
        self._loop.create_task(self._tell_all({subscription.id: []}))

    async def _flush(self, subscription: _Subscription) -> None:
        subscription.last_at_s = self._loop.time()
        pending, subscription.pending = subscription.pending, []
        while pending:
            size = count = 0
            while count < len(pending) and (not count or size + len(pending[count]) <= INSTANCES_BYTES_MAX):
                size += len(pending[count])
                count += 1
            now, pending = pending[:count], pending[count:]
            if size > INSTANCES_BYTES_MAX:
                log.warning("an instance of %d bytes is too long to be told", size)
                continue
            instances = orjson.Fragment(b"[" + b",".join(now) + b"]")
            await self._notify("indication", {"subscription": subscription.id, "instances": instances})
