"""What a KP has asked to be told: an asynchronous iterator with a bounded queue."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from sib.errors import SibError

log = logging.getLogger("sofia2.kp")

QUEUE_MAX = 10_000


class Subscription(AsyncIterator[Any]):
    """The instances (or commands) that are notified, in order. Use it with ``async with``, which ends it, or iterate.

    At most ``queue_max`` wait to be taken; beyond it the oldest is dropped and counted in ``dropped``.
    """

    def __init__(
        self,
        message_type: str,
        body: Mapping[str, Any],
        ontology: str | None,
        *,
        start: Callable[[Subscription], Awaitable[None]],
        stop: Callable[[Subscription], Awaitable[None]],
        queue_max: int = QUEUE_MAX,
    ) -> None:
        self.message_type, self.body, self.ontology = message_type, body, ontology
        self.id: str | None = None
        """The id that the platform gave it; another one after the session was lost and opened again."""
        self.dropped = 0
        self._start, self._stop, self._queue_max = start, stop, queue_max
        self._queue: deque[Any] = deque()
        self._arrived = asyncio.Event()
        self._failure: SibError | None = None
        self._is_started = self._is_over = False

    async def __aenter__(self) -> Subscription:
        await self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End it; whoever iterates comes to the end. Idempotent."""
        if self._is_over:
            return
        self.end(None)
        if self._is_started:
            await self._stop(self)

    async def __anext__(self) -> Any:
        if not self._is_started and not self._is_over:
            await self._begin()
        while not self._queue:
            if self._is_over:
                if self._failure is not None:
                    raise self._failure
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._queue.popleft()

    async def _begin(self) -> None:
        self._is_started = True
        try:
            await self._start(self)
        except SibError:
            self._is_started, self._is_over = False, True
            raise

    def put(self, data: Any) -> None:
        """Something was notified: one thing, or an array of them."""
        for item in data if isinstance(data, list) else (data,):
            if len(self._queue) >= self._queue_max:
                self._queue.popleft()
                self.dropped += 1
                if self.dropped == 1:
                    log.warning("a subscription is not read: its oldest notifications are being dropped")
            self._queue.append(item)
        self._arrived.set()

    def end(self, failure: SibError | None) -> None:
        """Nothing comes any more; what waits can still be taken."""
        self._is_over = True
        self._failure = failure
        self._arrived.set()
