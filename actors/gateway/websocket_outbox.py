"""What is to go out on one WebSocket: sent in order by a task that lives only while there is something to send."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from starlette.types import Message, Send


class WebSocketOutbox:
    """Queues messages for an ASGI ``send``, which waits while the client does not read.

    Args:
        send: The ASGI callable.
        as_message: Makes the ASGI event of one payload.
        on_size: Called with the unsent bytes whenever something has been sent.

    It has no bound of its own: whoever fills it looks at ``size_bytes``. All calls are on the event loop.
    """

    __slots__ = ("_as_message", "_closing", "_on_size", "_queue", "_send", "_task", "is_open", "size_bytes")

    def __init__(self, send: Send, as_message: Callable[[bytes], Message], on_size: Callable[[int], None]) -> None:
        self._send = send
        self._as_message = as_message
        self._on_size = on_size
        self._queue: deque[bytes] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closing: Message | None = None
        self.is_open = True
        self.size_bytes = 0
        """Bytes that the client has not taken yet."""

    def put(self, payload: bytes) -> None:
        """Send a message after those before it; nothing once closed."""
        if self.is_open:
            self._queue.append(payload)
            self.size_bytes += len(payload)
            self._wake()

    def close(self, code: int, reason: str, *, at_once: bool = False) -> None:
        """Close the WebSocket: after what is queued, or at once."""
        if self.is_open:
            self.is_open = False
            self._closing = {"type": "websocket.close", "code": code, "reason": reason}
            if at_once:
                self._queue.clear()
            self._wake()

    async def flushed(self) -> None:
        """Wait until everything queued is sent, the closing too, or the client is gone."""
        while self._task is not None:
            await asyncio.wait([self._task])

    def gone(self) -> None:
        """The WebSocket is closed: forget what is queued."""
        self.is_open = False
        self._queue.clear()
        self._closing = None
        if self._task is not None:
            self._task.cancel()

    def _wake(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        queue = self._queue
        try:
            while queue:
                payload = queue.popleft()
                await self._send(self._as_message(payload))
                self.size_bytes -= len(payload)
                self._on_size(self.size_bytes)
            if self._closing is not None:
                closing, self._closing = self._closing, None
                await self._send(closing)
        except (OSError, RuntimeError):  # the client is gone; the reader hears of it
            self.is_open = False
            queue.clear()
        finally:
            self._task = None


def text_message(payload: bytes) -> Message:
    """A text message of UTF-8 bytes."""
    return {"type": "websocket.send", "text": payload.decode()}


def binary_message(payload: bytes) -> Message:
    """A binary message."""
    return {"type": "websocket.send", "bytes": payload}
