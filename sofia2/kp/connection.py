"""A KP's connection: requests in, answers matched by order, and everything again after it was lost.

Invariants: no client of SSAP can match by id, so answers belong to requests in their order, per connection; a request that was
given up keeps its place until its answer comes. A read is sent again on the next connection; a write is not, because it may be
stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable

from sib.errors import SibError
from sofia2.kp.errors import ConnectionLostError, RequestTimeoutError
from sofia2.kp.messages import Reply
from sofia2.kp.transport import Connector, KpTransport

log = logging.getLogger("sofia2.kp")

IN_FLIGHT_MAX = 100
"""Requests without an answer; further ones wait."""
BACK_OFF_S = 0.2
BACK_OFF_MAX_S = 30.0


class Pending:
    """A request whose answer has not come."""

    __slots__ = ("answer", "on_answer")

    def __init__(self, on_answer: Callable[[Reply], None] | None) -> None:
        self.answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.on_answer = on_answer


class Connection:
    """Keeps one connection open, opens it again with growing pauses, and exchanges messages over it.

    ``opened`` runs on each new connection before other requests (it joins); if it raises a refusal, that is final.
    ``notified`` gets what is not an answer. ``read`` turns a payload into a message.
    """

    def __init__(
        self,
        connector: Connector,
        *,
        read: Callable[[bytes], Reply],
        opened: Callable[[], Awaitable[None]],
        notified: Callable[[Reply], None],
        failed: Callable[[SibError], None],
    ) -> None:
        self._connector = connector
        self._read, self._opened, self._notified, self._failed = read, opened, notified, failed
        self._transport: KpTransport | None = None
        self._pending: deque[Pending] = deque()
        self._ready = asyncio.Event()
        self._sending = asyncio.Lock()
        self._room = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._task: asyncio.Task[None] | None = None
        self._failure: SibError | None = None

    async def open(self) -> None:
        """Open the first connection.

        Raises:
            ConnectionLostError: nobody is there. SibError: the platform refuses this KP.
        """
        reading = await self._open_once()
        self._task = asyncio.get_running_loop().create_task(self._keep_open(reading))

    async def close(self) -> None:
        """End it for good."""
        self._fail(ConnectionLostError("this KP has left"))
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._drop()

    async def ready(self) -> None:
        """Returns when a connection is open and joined.

        Raises:
            SibError: why there will be none any more.
        """
        if self._failure is not None:
            raise self._failure
        await self._ready.wait()
        if self._failure is not None:
            raise self._failure

    async def exchange(
        self, payload: bytes, timeout_s: float, on_answer: Callable[[Reply], None] | None = None
    ) -> Reply:
        """Send a request on the present connection and await its answer. ``on_answer`` runs before anything behind it is read.

        Raises:
            ConnectionLostError: the connection ended first. RequestTimeoutError: no answer within ``timeout_s``.
        """
        try:
            async with asyncio.timeout(timeout_s), self._room:
                pending = Pending(on_answer)
                async with self._sending:
                    if self._transport is None:
                        raise ConnectionLostError("there is no connection now")
                    self._pending.append(pending)
                    await self._transport.send(payload)
                return await pending.answer
        except TimeoutError:
            raise RequestTimeoutError(f"no answer within {timeout_s:g} s") from None

    async def _open_once(self) -> asyncio.Task[None]:
        self._transport = await self._connector.connect()
        reading = asyncio.get_running_loop().create_task(self._receive(self._transport))
        try:
            await self._opened()
        except BaseException:
            reading.cancel()
            await self._drop()
            raise
        self._ready.set()
        return reading

    async def _keep_open(self, reading: asyncio.Task[None]) -> None:
        pause_s = BACK_OFF_S
        try:
            while True:
                await reading
                log.info("the connection is lost; connecting again")
                await self._drop()
                while True:
                    await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnecting KPs
                    pause_s = min(pause_s * 2, BACK_OFF_MAX_S)
                    try:
                        reading = await self._open_once()
                    except (ConnectionLostError, RequestTimeoutError) as error:
                        log.info("no connection yet: %s", error.message)
                        continue
                    pause_s = BACK_OFF_S
                    break
        except SibError as error:
            self._fail(error)
        finally:
            reading.cancel()

    async def _receive(self, transport: KpTransport) -> None:
        with contextlib.suppress(ConnectionLostError):
            while True:
                self._take(await transport.receive())

    def _take(self, payload: bytes) -> None:
        try:
            reply = self._read(payload)
        except SibError as error:
            log.warning("%s", error.message)
            return
        if reply.message_type == "INDICATION":
            self._notified(reply)
        elif self._pending:
            pending = self._pending.popleft()
            if pending.on_answer is not None and not pending.answer.cancelled():
                pending.on_answer(reply)
            if not pending.answer.done():
                pending.answer.set_result(reply)

    async def _drop(self) -> None:
        """The connection is gone: what waits for an answer will get none."""
        self._ready.clear()
        transport, self._transport = self._transport, None
        lost, self._pending = self._pending, deque()
        for pending in lost:
            if not pending.answer.done():
                pending.answer.set_exception(ConnectionLostError("the connection was lost before the answer came"))
                pending.answer.exception()
        if transport is not None:
            with contextlib.suppress(Exception):
                await transport.close()

    def _fail(self, error: SibError) -> None:
        self._failure = error
        self._ready.set()
        self._failed(error)
