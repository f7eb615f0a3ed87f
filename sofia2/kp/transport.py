"""The seam between a KP and what carries its messages: MQTT, WebSocket, or the channel of a sandboxed KP."""

from __future__ import annotations

from typing import Protocol


class KpTransport(Protocol):
    """One open connection. SSAP payloads go out in order and come in order."""

    async def send(self, payload: bytes) -> None:
        """Hand over one request.

        Raises:
            ConnectionLostError: the connection is gone.
        """

    async def receive(self) -> bytes:
        """The next answer, INDICATION or command. Cancelling it loses nothing.

        Raises:
            ConnectionLostError: the connection is gone.
        """

    async def close(self) -> None:
        """End the connection; harmless when it is gone."""


class Connector(Protocol):
    """Opens connections of one kind to one place, again and again."""

    needs_join: bool
    """False where the other end has opened the session already and fills it in."""

    async def connect(self) -> KpTransport:
        """Open one connection.

        Raises:
            ConnectionLostError: nobody accepts it there, or the client is refused.
        """
