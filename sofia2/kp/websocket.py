"""SSAP over WebSocket for one KP: a text frame is a message."""

from __future__ import annotations

import ssl

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from sofia2.kp.errors import ConnectionLostError

PATH = "/sib/api_websocket"
MESSAGE_BYTES_MAX = 64 * 1024 * 1024


class WebSocketConnector:
    """Connections to one WebSocket address."""

    needs_join = True

    def __init__(self, url: str, *, tls: ssl.SSLContext | None = None, timeout_s: float = 10.0) -> None:
        self._url, self._tls, self._timeout_s = url, tls, timeout_s

    async def connect(self) -> WebSocketTransport:
        """Open one connection."""
        try:
            socket = await connect(
                self._url,
                ssl=self._tls,
                open_timeout=self._timeout_s,
                max_size=MESSAGE_BYTES_MAX,
                compression=None,
                proxy=None,
            )
        except (OSError, TimeoutError, WebSocketException) as error:
            raise ConnectionLostError(f"no WebSocket connection to {self._url} ({_reason(error)})") from error
        return WebSocketTransport(socket)


class WebSocketTransport:
    """One connection."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, payload: bytes) -> None:
        try:
            await self._socket.send(payload, text=True)
        except (OSError, WebSocketException) as error:
            raise ConnectionLostError(f"the WebSocket is lost ({_reason(error)})") from error

    async def receive(self) -> bytes:
        try:
            while True:
                frame = await self._socket.recv(decode=False)
                if frame.strip():
                    return frame
        except (OSError, WebSocketException) as error:
            raise ConnectionLostError(f"the WebSocket is lost ({_reason(error)})") from error

    async def close(self) -> None:
        await self._socket.close()


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
