"""INDICATIONs to REST subscribers: in order per subscription, retried with back-off, bounded in every direction.

One lane per subscription holds what waits; its first item is tried until an answer of 2xx (delivered) or until it is
``GIVE_UP_S`` old (given up). Lanes are independent: a dead endpoint delays nobody else. Queues live in memory only:
what is lost with the process comes again from the change cursor, since a change counts as delivered when its item is.
Source: Sofia2 REST ``subscribe?…&$endpoint`` (java-api ISSAPResourceAPI.java:29); bounds and back-off are ours.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

from actors.gateway.callback_post import EndpointRefusedError

QUEUE_ITEMS_MAX = 1000
"""INDICATIONs waiting for one subscription; at the bound the oldest is given up."""
QUEUE_BYTES_MAX = 256 * 1024 * 1024
"""Bytes waiting for all subscriptions together; at the bound the new item's own lane gives up its oldest."""
POSTS_MAX = 32
"""POSTs in flight at once over all subscriptions."""
GIVE_UP_S = 3600.0
"""An item older than this is given up, and an endpoint that has failed for so long is reported as dead."""
RETRY_FIRST_S = 1.0
RETRY_MAX_S = 60.0
LOG_EVERY_S = 60.0

logger = logging.getLogger(__name__)


class Outcome(StrEnum):
    """What became of an item."""

    DELIVERED = "delivered"
    GIVEN_UP = "given_up"
    """It was too old, or the queue was full."""
    STOPPED = "stopped"
    """Its subscription ended first."""


@dataclass(slots=True)
class CallbackCounts:
    """For the metrics; each only grows but ``waiting``."""

    delivered: int = 0
    given_up: int = 0
    dropped_full: int = 0
    failed_posts: int = 0
    refused_addresses: int = 0
    waiting: int = 0
    waiting_bytes: int = 0


@dataclass(slots=True)
class _Item:
    body: bytes
    queued_at: float
    done: asyncio.Future[Outcome]


@dataclass(slots=True)
class _Lane:
    endpoint: str
    items: deque[_Item] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None
    failing_since: float | None = None
    failures: int = 0
    logged_at: float = float("-inf")


class CallbackSender:
    """Delivers INDICATIONs to endpoints.

    Args:
        post: One POST; gives the status, or raises. Bounded in time by itself.
        on_dead: Called with a subscription id once its endpoint has failed for ``GIVE_UP_S``.
        clock: Monotonic seconds.
        sleep: Waits; both are arguments for tests.
    """

    def __init__(
        self,
        post: Callable[[str, bytes], Awaitable[int]],
        *,
        on_dead: Callable[[str], None] | None = None,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        queue_items_max: int = QUEUE_ITEMS_MAX,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
        posts_max: int = POSTS_MAX,
    ) -> None:
        self._post = post
        self._on_dead = on_dead
        self._clock = clock or asyncio.get_running_loop().time
        self._sleep = sleep
        self._queue_items_max = queue_items_max
        self._queue_bytes_max = queue_bytes_max
        self._slots = asyncio.Semaphore(posts_max)
        self._lanes: dict[str, _Lane] = {}
        self.counts = CallbackCounts()

    def deliver(self, subscription_id: str, endpoint: str, body: bytes) -> asyncio.Future[Outcome]:
        """Queue an INDICATION behind those of its subscription; never blocks.

        Returns:
            A future that ends when the item is delivered, given up or stopped; nobody has to await it. At the bound of
            the queue the oldest waiting item is given up: counted, and logged at most once a minute a subscription.
        """
        lane = self._lanes.get(subscription_id)
        if lane is None:
            lane = self._lanes[subscription_id] = _Lane(endpoint)
        lane.endpoint = endpoint
        item = _Item(body, self._clock(), asyncio.get_running_loop().create_future())
        self._make_room(subscription_id, lane, len(body))
        lane.items.append(item)
        self.counts.waiting += 1
        self.counts.waiting_bytes += len(body)
        if lane.task is None:
            lane.task = asyncio.get_running_loop().create_task(self._run(subscription_id, lane))
        return item.done

    def stop(self, subscription_id: str) -> None:
        """End a subscription: what waits is stopped; a POST in flight may still arrive. Unknown ids are ignored."""
        lane = self._lanes.pop(subscription_id, None)
        if lane is None:
            return
        if lane.task is not None:
            lane.task.cancel()
        while lane.items:
            self._settle(lane, Outcome.STOPPED)

    async def close(self) -> None:
        """End all subscriptions and wait until nothing is in flight. What waited is stopped, not delivered."""
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        for subscription_id in list(self._lanes):
            self.stop(subscription_id)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, subscription_id: str, lane: _Lane) -> None:
        """Deliver what the lane holds, in order; the task ends with the last item."""
        while lane.items:
            item = lane.items[0]
            if self._clock() - item.queued_at >= GIVE_UP_S:
                self.counts.given_up += 1
                self._log(subscription_id, lane, "an INDICATION was given up after an hour")
                self._settle(lane, Outcome.GIVEN_UP)
                self._report_if_dead(subscription_id, lane)
                continue
            async with self._slots:
                is_delivered = await self._try(subscription_id, lane, item)
            if is_delivered:
                lane.failing_since, lane.failures = None, 0
                self.counts.delivered += 1
                if lane.items and lane.items[0] is item:
                    self._settle(lane, Outcome.DELIVERED)
            else:
                await self._back_off(subscription_id, lane)
        lane.task = None
        if self._lanes.get(subscription_id) is lane and lane.failing_since is None:
            del self._lanes[subscription_id]

    async def _try(self, subscription_id: str, lane: _Lane, item: _Item) -> bool:
        try:
            status = await self._post(lane.endpoint, item.body)
        except EndpointRefusedError as error:
            self.counts.refused_addresses += 1
            self._log(subscription_id, lane, str(error))
        except Exception as error:
            self._log(subscription_id, lane, f"not reached: {type(error).__name__} {error}")
        else:
            if 200 <= status < 300:
                return True
            self._log(subscription_id, lane, f"answered {status}")
        self.counts.failed_posts += 1
        return False

    async def _back_off(self, subscription_id: str, lane: _Lane) -> None:
        """Wait before the next attempt: doubling from one second to a minute, a little different for each lane."""
        if lane.failing_since is None:
            lane.failing_since = self._clock()
        self._report_if_dead(subscription_id, lane)
        delay_s = min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(lane.failures, 16))
        lane.failures += 1
        await self._sleep(delay_s * random.uniform(0.8, 1.0))  # noqa: S311 - spreads retries, guards nothing

    def _report_if_dead(self, subscription_id: str, lane: _Lane) -> None:
        """Report an endpoint that has failed for an hour, once an hour."""
        now = self._clock()
        if lane.failing_since is not None and now - lane.failing_since >= GIVE_UP_S:
            lane.failing_since = now
            if self._on_dead is not None:
                self._on_dead(subscription_id)

    def _make_room(self, subscription_id: str, lane: _Lane, size_bytes: int) -> None:
        counts = self.counts
        while lane.items and (
            len(lane.items) >= self._queue_items_max or counts.waiting_bytes + size_bytes > self._queue_bytes_max
        ):
            counts.dropped_full += 1
            self._log(subscription_id, lane, "queue full, the oldest INDICATION was given up")
            self._settle(lane, Outcome.GIVEN_UP)

    def _settle(self, lane: _Lane, outcome: Outcome) -> None:
        """Take the first item out of the lane and say what became of it."""
        item = lane.items.popleft()
        self.counts.waiting -= 1
        self.counts.waiting_bytes -= len(item.body)
        if not item.done.done():
            item.done.set_result(outcome)

    def _log(self, subscription_id: str, lane: _Lane, what: str) -> None:
        now = self._clock()
        if now - lane.logged_at >= LOG_EVERY_S:
            lane.logged_at = now
            host = lane.endpoint.split("?", 1)[0]  # parameters may hold secrets
            logger.warning("callback of subscription %s to %s: %s", subscription_id, host, what)
