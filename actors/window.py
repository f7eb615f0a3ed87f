"""Send windows: batches between actors instead of one call per message.

A Ray call costs about 0.4 ms whatever it carries, so: send at once when nothing is in flight to that target, else collect
until the call returns. Invariant: batches reach the target in the order of their first try; a batch whose call failed is
retried before anything behind it is sent, with the same number, so that the target can recognise it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from sib.errors import SibError, StoreUnavailableError

BATCH_MESSAGES_MAX = 500
BATCH_BYTES_MAX = 80 * 1024
"""Below Ray's own bound for inline arguments, 100 KiB with all around them (ours has 1 MiB): above it the raylet is called."""
IN_FLIGHT_MAX = 2
"""One batch at work in the target, the next one already in its queue."""
RETRY_PAUSE_S = 0.05
PATIENCE, PATIENCE_S_MIN = 1.5, 5.0
"""A call that takes so much longer than ``give_up_s`` is not waited for: its target, or what is behind that, does not answer."""


class Item(Protocol):
    """What a window sends; ``size_bytes`` counts towards the batch."""

    @property
    def size_bytes(self) -> int: ...


T = TypeVar("T", bound=Item)


class SendWindow(Generic[T]):
    """The way from one gateway to one target actor.

    ``send(number, items)`` makes the call and settles the items; it raises a retryable :class:`SibError` when the target could
    not decide. ``fail(items, error)`` settles items whose retries are over: after ``give_up_s`` seconds they are undecided.
    """

    def __init__(
        self,
        send: Callable[[int, Sequence[T]], Awaitable[None]],
        fail: Callable[[Sequence[T], SibError], None],
        *,
        give_up_s: float,
        messages_max: int = BATCH_MESSAGES_MAX,
        drained: Callable[[], None] | None = None,
    ) -> None:
        self._send, self._fail, self._give_up_s, self._messages_max = send, fail, give_up_s, messages_max
        self._drained = drained
        self._patience_s = max(give_up_s, 0.0) * PATIENCE + PATIENCE_S_MIN
        self._loop = asyncio.get_running_loop()
        self._waiting: list[T] = []
        self._waiting_bytes = 0
        self._in_flight = self._retrying = 0
        self._is_scheduled = False
        self._numbers = itertools.count()
        self._earlier: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.calls = self.messages = self.retries = 0

    @property
    def depth(self) -> int:
        """How many items wait for their call."""
        return len(self._waiting)

    def add(self, item: T) -> None:
        self._waiting.append(item)
        self._waiting_bytes += item.size_bytes
        if not self._is_scheduled:
            # Once all sockets of this turn of the loop have been read.
            self._is_scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._is_scheduled = False
        while self._waiting and self._in_flight < IN_FLIGHT_MAX and not self._retrying:
            is_full = len(self._waiting) >= self._messages_max or self._waiting_bytes >= BATCH_BYTES_MAX
            if self._in_flight and not is_full:
                return
            batch = self._take()
            self._in_flight += 1
            earlier, self._earlier = self._earlier, self._loop.create_future()
            task = self._loop.create_task(self._carry(next(self._numbers), batch, earlier, self._earlier))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _take(self) -> list[T]:
        count = size = 0
        for item in self._waiting[: self._messages_max]:
            size += item.size_bytes
            if count and size > BATCH_BYTES_MAX:
                size -= item.size_bytes
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        self._waiting_bytes -= size
        return batch

    async def _carry(
        self, number: int, batch: list[T], earlier: asyncio.Future[None] | None, settled: asyncio.Future[None]
    ) -> None:
        began, has_failed = self._loop.time(), False
        try:
            while True:
                try:
                    async with asyncio.timeout(self._patience_s):
                        await self._send(number, batch)
                    break
                except Exception as error:
                    self.retries += 1
                    if not has_failed:
                        has_failed = True
                        self._retrying += 1
                    if earlier is not None:
                        await earlier
                    if self._loop.time() - began > self._give_up_s or not _is_retryable(error):
                        self._fail(batch, _as_sib_error(error))
                        break
                    await asyncio.sleep(RETRY_PAUSE_S)
        finally:
            self._in_flight -= 1
            self._retrying -= has_failed
            self.calls += 1
            self.messages += len(batch)
            settled.set_result(None)
            self._pump()
            if self._drained is not None:
                self._drained()


def _is_retryable(error: Exception) -> bool:
    return not isinstance(error, SibError) or error.is_retryable


def _as_sib_error(error: Exception) -> SibError:
    """A refusal is what it is; everything else (the target is gone, the time is over) leaves the request undecided."""
    if isinstance(error, SibError) and not error.is_retryable:
        return error
    reason = error.reason if isinstance(error, StoreUnavailableError) else ""
    why = f"database: {reason}" if reason else type(error).__name__
    return StoreUnavailableError(f"the request could not be decided ({why}); send it again", reason)
