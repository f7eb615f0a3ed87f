"""SSAP over WebSocket: one text message is one SSAP envelope, in both directions.

The app is the ``Transport`` of a ``Channel``: the channel parses, asks and keeps the order; here are only the socket's
affairs: accept, blank frames, over-long frames, an outbox with bounds, back-pressure, close.
Source: Sofia2 python-api implementations/websockets.py:46,202 (subprotocol, blank frames), javascript-api
sofia2-api-js-latest.js:639-640.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Protocol

from starlette.types import Message, Receive, Scope, Send

from actors.gateway.http_protocol import SIZE_KEY

SUBPROTOCOL = "http_only"
"""What python-api offers; it is echoed."""
OUTBOX_BYTES_PAUSE = 1024 * 1024
"""Unsent bytes above which no further request of the connection is read."""
OUTBOX_BYTES_MAX = 8 * 1024 * 1024
"""Unsent bytes above which INDICATIONs of the connection are dropped: counted, and logged once a connection."""
CLOSE_TRY_AGAIN = 1013

logger = logging.getLogger(__name__)


class SsapChannel(Protocol):
    """The SSAP side of a connection."""

    def receive(self, payload: bytes) -> None: ...

    def oversized(self, token: object, size_bytes: int) -> None:
        """A message of ``size_bytes`` was thrown away: answer OTHER."""

    def closed(self) -> None: ...


class ChannelGateway(Protocol):
    """Where channels come from."""

    def open_channel(
        self, transport: WebSocketTransport, *, kind: str, peer: str, client_id: str | None = None
    ) -> SsapChannel: ...


class WebSocketTransport:
    """What goes out on one WebSocket. All calls are on the event loop; none blocks."""

    def __init__(self, send: Send, app: SsapWebSocketApp, peer: str) -> None:
        self._send = send
        self._app = app
        self._peer = peer
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._sender: asyncio.Task[None] | None = None
        self._is_open = True
        self._is_paused_by_channel = False
        self._is_reported = False
        self.may_read = asyncio.Event()
        self.may_read.set()

    def acknowledge(self, token: object) -> None:
        """WebSocket has no acknowledgements."""

    def answer(self, payload: bytes) -> None:
        """Send an answer. Answers are never dropped: they are bounded by the requests that are read."""
        self._enqueue(payload)

    def indicate(self, payload: bytes) -> None:
        """Send an INDICATION, or drop and count it when the client has left too much unread."""
        if self._outbox_bytes > OUTBOX_BYTES_MAX:
            self._app.indications_dropped += 1
            if not self._is_reported:
                self._is_reported = True
                logger.warning("WebSocket client %s does not read: its INDICATIONs are being dropped", self._peer)
            return
        self._enqueue(payload)

    def command(self, payload: bytes) -> None:
        """Send the INDICATION of a COMMAND; same bounds as an INDICATION."""
        self.indicate(payload)

    def abort(self) -> None:
        """Close without answering what is pending: the store could not decide, the client should send again."""
        if self._is_open:
            self._is_open = False
            self._outbox.clear()
            self._sender = asyncio.get_running_loop().create_task(self._close())

    def pause(self) -> None:
        """Read no further requests until ``resume``."""
        self._is_paused_by_channel = True
        self.may_read.clear()

    def resume(self) -> None:
        self._is_paused_by_channel = False
        if self._outbox_bytes <= OUTBOX_BYTES_PAUSE:
            self.may_read.set()

    def gone(self) -> None:
        """The socket is closed: nothing can be sent any more."""
        self._is_open = False
        self._outbox.clear()
        self._outbox_bytes = 0
        self.may_read.set()
        if self._sender is not None:
            self._sender.cancel()

    def _enqueue(self, payload: bytes) -> None:
        if not self._is_open:
            return
        self._outbox.append(payload)
        self._outbox_bytes += len(payload)
        if self._outbox_bytes > OUTBOX_BYTES_PAUSE:
            self.may_read.clear()
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        try:
            while self._outbox:
                payload = self._outbox.popleft()
                await self._send({"type": "websocket.send", "text": payload.decode()})
                self._outbox_bytes -= len(payload)
                if not self.may_read.is_set() and not self._is_paused_by_channel:
                    self.resume()
        except OSError:
            self._is_open = False
        finally:
            self._sender = None

    async def _close(self) -> None:
        await self._send({"type": "websocket.close", "code": CLOSE_TRY_AGAIN, "reason": "not stored, send again"})


class SsapWebSocketApp:
    """The ASGI app of ``/sib/api_websocket``.

    ``connections`` and ``indications_dropped`` are for the metrics.
    """

    def __init__(self, gateway: ChannelGateway) -> None:
        self._gateway = gateway
        self.connections = 0
        self.indications_dropped = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket" or (await receive())["type"] != "websocket.connect":
            return
        subprotocol = SUBPROTOCOL if SUBPROTOCOL in scope["subprotocols"] else None
        await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
        client = scope.get("client")
        peer = client[0] if client else ""
        transport = WebSocketTransport(send, self, peer)
        channel = self._gateway.open_channel(transport, kind="websocket", peer=peer)
        may_read = transport.may_read
        self.connections += 1
        try:
            while True:
                message: Message = await receive()
                if message["type"] == "websocket.disconnect":
                    break
                self._hand_over(channel, message)
                if not may_read.is_set():
                    await may_read.wait()
        finally:
            self.connections -= 1
            transport.gone()
            channel.closed()

    def _hand_over(self, channel: SsapChannel, message: Message) -> None:
        payload = message.get("bytes")
        if payload is None:
            payload = message["text"].encode()
        if SIZE_KEY in message:
            channel.oversized(None, message[SIZE_KEY])
        elif payload and not payload.isspace():
            channel.receive(payload)
