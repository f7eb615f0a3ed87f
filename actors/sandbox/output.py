"""What a program prints: read at a limited rate, passed on, and counted against its bound."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from actors.sandbox.pacing import TokenBucket

READ_BYTES = 64 * 1024
BYTES_PER_S_MAX = 8 * 1024 * 1024
"""Faster output waits in the pipe, and with it the program that writes it."""

Sink = Callable[[bytes], None]


class OutputBudget:
    """Bytes that all outputs of one program may still give."""

    def __init__(self, bytes_max: int | None, on_spent: Callable[[], None]) -> None:
        self._left, self._on_spent = bytes_max, on_spent

    def spend(self, data: bytes) -> bytes:
        """The part of the data that is within the bound; beyond it ``on_spent`` is called."""
        if self._left is None:
            return data
        allowed = data[: self._left]
        self._left -= len(allowed)
        if len(allowed) < len(data):
            self._on_spent()
        return allowed


class OutputPump:
    """Moves one pipe's bytes into a sink. Closes the pipe at its end."""

    def __init__(self, descriptor: int, sink: Sink, budget: OutputBudget) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor, self._sink, self._budget = descriptor, sink, budget
        self._bucket = TokenBucket(BYTES_PER_S_MAX, BYTES_PER_S_MAX, self._loop.time)
        self._timer: asyncio.TimerHandle | None = None
        self.ended: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    def close(self) -> None:
        """Give up what is still in the pipe. Idempotent."""
        if self.ended.done():
            return
        if self._timer:
            self._timer.cancel()
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self.ended.set_result(None)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        allowed = self._budget.spend(data)
        if allowed:
            self._sink(allowed)
        wait_s = self._bucket.take(len(data))
        if wait_s and not self.ended.done():
            self._loop.remove_reader(self._descriptor)
            self._timer = self._loop.call_later(wait_s, self._resume)

    def _resume(self) -> None:
        self._loop.add_reader(self._descriptor, self._read)
