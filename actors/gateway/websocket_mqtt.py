"""MQTT over WebSocket: the ASGI app of ``/mqtt``. It moves bytes; ``mqtt_websocket`` makes a connection of them.

Source: MQTT 5, section 6: binary messages, subprotocol ``mqtt``; packets may be cut anywhere by messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from starlette.types import Message, Receive, Scope, Send

from actors.gateway.http_protocol import SIZE_KEY, TEXT_KEY
from actors.gateway.websocket_outbox import WebSocketOutbox, binary_message

SUBPROTOCOLS = ("mqtt", "mqttv3.1")
"""``mqttv3.1`` is what clients of MQTT 3.1 offer."""
CLOSE_NORMAL, CLOSE_UNSUPPORTED = 1000, 1003
_ZEROS = bytes(64 * 1024)


class MqttSocket(Protocol):
    """One WebSocket that speaks MQTT."""

    def feed(self, data: bytes) -> None: ...

    def closed(self) -> None: ...

    def drained(self, buffer_bytes: int) -> None: ...


class OpenMqtt(Protocol):
    """Makes the MQTT side of a WebSocket."""

    def __call__(
        self,
        *,
        send: Callable[[bytes], None],
        close: Callable[[], None],
        peer: str,
        set_reading: Callable[[bool], None] | None,
    ) -> MqttSocket: ...


class MqttWebSocketApp:
    """One WebSocket per MQTT client; ``connections`` is for the metrics."""

    def __init__(self, open_mqtt: OpenMqtt) -> None:
        self._open_mqtt = open_mqtt
        self.connections = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        subprotocol = next((name for name in SUBPROTOCOLS if name in scope["subprotocols"]), None)
        await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
        self.connections += 1
        try:
            await self._serve(scope, receive, send)
        finally:
            self.connections -= 1

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        may_read = asyncio.Event()
        may_read.set()
        client = scope.get("client")
        outbox = WebSocketOutbox(send, binary_message, lambda size_bytes: socket.drained(size_bytes))

        def write(packets: bytes) -> None:
            outbox.put(packets)
            socket.drained(outbox.size_bytes)

        socket = self._open_mqtt(
            send=write,
            close=lambda: outbox.close(CLOSE_NORMAL, ""),
            peer=f"{client[0]}:{client[1]}" if client else "",
            set_reading=lambda is_reading: may_read.set() if is_reading else may_read.clear(),
        )
        try:
            while True:
                message: Message = await receive()
                if message["type"] == "websocket.disconnect":
                    break
                if message.get(TEXT_KEY) or message.get("bytes") is None:
                    outbox.close(CLOSE_UNSUPPORTED, "MQTT needs binary messages", at_once=True)
                    break
                self._feed(socket, message)
                await may_read.wait()
            # What was written last, a refusal for example, still leaves.
            await outbox.flushed()
        finally:
            outbox.gone()
            socket.closed()

    @staticmethod
    def _feed(socket: MqttSocket, message: Message) -> None:
        """Hand the bytes on; of a packet that was too long to keep, its beginning and zeros of the missing length."""
        data: bytes = message["bytes"]
        socket.feed(data)
        missing = message.get(SIZE_KEY, len(data)) - len(data)
        while missing > 0:
            step = min(missing, len(_ZEROS))
            socket.feed(_ZEROS[:step])
            missing -= step
