"""MQTT over WebSocket: binary frames become the byte stream of an ordinary ``MqttConnection``.

The WebSocket itself (subprotocol ``mqtt``) is the HTTP app's. Packets may be cut anywhere by frames.
Source: MQTT 5, section 6.
"""

from __future__ import annotations

from collections.abc import Callable

from actors.gateway.mqtt import MqttEndpoint
from actors.gateway.mqtt_connection import MqttConnection
from actors.gateway.mqtt_options import ListenerOptions

SUBPROTOCOL = "mqtt"
WRITE_HIGH_BYTES = 64 * 1024


class WebSocketMqtt:
    """One WebSocket that speaks MQTT. All calls on the event loop of the endpoint.

    Args:
        send: Sends one binary frame. Called with whole packets, in order; must not block.
        close: Closes the WebSocket after what was sent. Called at most once.
        peer: The client's address, for logs and limits.
        set_reading: Called with False when no more frames should be fed for now, and with True to go on;
            None = ``is_reading`` is asked instead.
    """

    def __init__(
        self,
        endpoint: MqttEndpoint,
        options: ListenerOptions,
        *,
        send: Callable[[bytes], None],
        close: Callable[[], None],
        peer: str,
        set_reading: Callable[[bool], None] | None = None,
    ) -> None:
        self._transport = _FrameTransport(send, close, peer, set_reading)
        self._connection = MqttConnection(endpoint, options)
        self._is_closed = False
        self._connection.connection_made(self._transport)

    def feed(self, data: bytes) -> None:
        """A binary frame came."""
        if not self._is_closed:
            self._connection.data_received(data)

    def closed(self) -> None:
        """The WebSocket is gone. Does nothing the second time."""
        if not self._is_closed:
            self._is_closed = True
            self._transport.is_closed = True
            self._connection.connection_lost(None)

    @property
    def is_reading(self) -> bool:
        """Whether the next frame may be fed; the caller waits while it may not."""
        return self._transport.is_reading

    def drained(self, buffer_bytes: int) -> None:
        """Tell how much of what was sent the client has not taken yet; 0 = everything. Call it as it changes."""
        self._transport.buffer_bytes = buffer_bytes
        is_slow = bool(self._connection.stalled_since_s)
        if buffer_bytes > WRITE_HIGH_BYTES and not is_slow:
            self._connection.pause_writing()
        elif buffer_bytes <= WRITE_HIGH_BYTES // 4 and is_slow:
            self._connection.resume_writing()


class _FrameTransport:
    """What a connection needs of an asyncio transport."""

    def __init__(
        self,
        send: Callable[[bytes], None],
        close: Callable[[], None],
        peer: str,
        set_reading: Callable[[bool], None] | None,
    ) -> None:
        self._send = send
        self._close = close
        self._peer = peer
        self._set_reading = set_reading
        self.is_closed = False
        self.is_reading = True
        self.buffer_bytes = 0

    def get_extra_info(self, name: str) -> str | None:
        return self._peer if name == "peername" else None

    def write(self, data: bytes) -> None:
        if not self.is_closed:
            self._send(data)

    def get_write_buffer_size(self) -> int:
        return self.buffer_bytes

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._close()

    abort = close

    def pause_reading(self) -> None:
        self._read(False)

    def resume_reading(self) -> None:
        self._read(True)

    def _read(self, is_reading: bool) -> None:
        self.is_reading = is_reading
        if self._set_reading is not None:
            self._set_reading(is_reading)
