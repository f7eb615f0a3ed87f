"""SSAP over WebSocket: one text message is one SSAP envelope, in both directions.

The app is the ``Transport`` of a ``Channel``: the channel parses, asks and keeps the order; here are only the socket's
affairs: accept, blank messages, too long messages, back-pressure, close. A binary message is taken as a text message.
Source: Sofia2 python-api implementations/websockets.py:46,202 (subprotocol, blank frames), javascript-api
sofia2-api-js-latest.js:639-640.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from starlette.types import Message, Receive, Scope, Send

from actors.gateway.http_protocol import SIZE_KEY
from actors.gateway.websocket_outbox import WebSocketOutbox, text_message

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

    def oversized(self, token: object, size_bytes: int, head: bytes) -> None:
        """A message of ``size_bytes`` that begins with ``head`` was thrown away: answer OTHER."""

    def closed(self) -> None: ...


class ChannelGateway(Protocol):
    """Where channels come from."""

    def open_channel(
        self,
        transport: WebSocketTransport,
        *,
        kind: str,
        peer: str,
        client_id: str | None = None,
        message_bytes_max: int | None = None,
    ) -> SsapChannel: ...


class WebSocketTransport:
    """What a channel says on one WebSocket. All calls are on the event loop; none blocks."""

    __slots__ = ("_app", "_is_paused_by_channel", "_is_reported", "_may_read", "_peer", "outbox")

    def __init__(self, send: Send, app: SsapWebSocketApp, peer: str) -> None:
        self.outbox = WebSocketOutbox(send, text_message, self._drained)
        self._app = app
        self._peer = peer
        self._is_paused_by_channel = False
        self._is_reported = False
        self._may_read: asyncio.Event | None = None

    def acknowledge(self, token: object) -> None:
        """WebSocket has no acknowledgements."""

    def forget(self, token: object) -> None:
        """WebSocket has none."""

    def answer(self, payload: bytes) -> None:
        """Send an answer. Answers are never dropped: they are bounded by the requests that are read."""
        self.outbox.put(payload)
        if self.outbox.size_bytes > OUTBOX_BYTES_PAUSE:
            self._stop_reading()

    def indicate(self, payload: bytes) -> None:
        """Send an INDICATION, or drop and count it when the client has left too much unread."""
        if self.outbox.size_bytes <= OUTBOX_BYTES_MAX:
            self.answer(payload)
            return
        self._app.indications_dropped += 1
        if not self._is_reported:
            self._is_reported = True
            logger.warning("WebSocket client %s does not read: its INDICATIONs are being dropped", self._peer)

    command = indicate

    def abort(self) -> None:
        """Close without answering what is pending: the store could not decide, the client should send again."""
        self.outbox.close(CLOSE_TRY_AGAIN, "not stored, send again", at_once=True)

    def pause(self) -> None:
        """Read no further requests until ``resume``."""
        self._is_paused_by_channel = True
        self._stop_reading()

    def resume(self) -> None:
        """Read on, as soon as the client has taken what it was sent."""
        self._is_paused_by_channel = False
        self._drained(self.outbox.size_bytes)

    def gone(self) -> None:
        """The socket is closed: nothing can be sent any more."""
        self.outbox.gone()
        self._is_paused_by_channel = False
        self._drained(0)

    async def until_may_read(self) -> None:
        """Wait while reading is paused."""
        while self._may_read is not None:
            await self._may_read.wait()

    @property
    def may_read(self) -> bool:
        return self._may_read is None

    def _stop_reading(self) -> None:
        if self._may_read is None:
            self._may_read = asyncio.Event()

    def _drained(self, unsent_bytes: int) -> None:
        if self._may_read is not None and not self._is_paused_by_channel and unsent_bytes <= OUTBOX_BYTES_PAUSE:
            self._may_read.set()
            self._may_read = None


class SsapWebSocketApp:
    """The ASGI app of ``/sib/api_websocket``.

    ``connections`` and ``indications_dropped`` are for the metrics.
    """

    def __init__(self, gateway: ChannelGateway, *, message_bytes_max: int) -> None:
        self._gateway = gateway
        self._bytes_max = message_bytes_max
        self.connections = 0
        self.indications_dropped = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        subprotocol = SUBPROTOCOL if SUBPROTOCOL in scope["subprotocols"] else None
        await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
        client = scope.get("client")
        peer = client[0] if client else ""
        transport = WebSocketTransport(send, self, peer)
        channel = self._gateway.open_channel(transport, kind="websocket", peer=peer, message_bytes_max=self._bytes_max)
        self.connections += 1
        try:
            while True:
                message: Message = await receive()
                if message["type"] == "websocket.disconnect":
                    break
                self._hand_over(channel, message)
                if not transport.may_read:
                    await transport.until_may_read()
        finally:
            self.connections -= 1
            transport.gone()
            channel.closed()

    def _hand_over(self, channel: SsapChannel, message: Message) -> None:
        payload = message.get("bytes")
        if payload is None:
            payload = message["text"].encode()
        size_bytes = message.get(SIZE_KEY) or len(payload)
        if size_bytes > self._bytes_max:
            channel.oversized(None, size_bytes, payload)
        elif payload and not payload.isspace():
            channel.receive(payload)
