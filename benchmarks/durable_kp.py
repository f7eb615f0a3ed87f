"""A KP that never gives up: it connects again when its connection is lost, and sends what was not acknowledged once more.

What the loss benchmark and the kill tests have in common. Not quick; it keeps account of every single instance.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from contextlib import suppress

from benchmarks.ssap_client import (
    ANSWERS,
    FIRST_INSERT_ID,
    INDICATIONS,
    INSERT_IDS,
    Framing,
    encode_connect,
    encode_publish,
    encode_subscribe,
    insert,
    instance,
    join,
    subscribe,
)

RECONNECT_S = 0.05
DUP = 0x08
_ASSET = re.compile(rb'assetId[\\" ]*:[\\" ]*([A-Za-z0-9-]+)')
_MESSAGE = re.compile(rb'"messageId":"([A-Za-z0-9-]+)"')


class _Connection(Framing):
    """One TCP connection of a durable KP."""

    def __init__(self, owner: DurableKp) -> None:
        super().__init__()
        self._owner = owner
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._owner.connection = self
        self.transport.write(encode_connect(self._owner.client_id, is_clean=False))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)

    def packet(self, kind: int, body: memoryview | bytes) -> None:
        self._owner.packet(kind, bytes(body))


class DurableKp:
    """A persistent MQTT session (Clean = false, QoS 1) with one SSAP session.

    ``acknowledged``: assets whose INSERT got its PUBACK; ``confirmed``: those with a positive answer; ``refused``: answers that
    are not; ``notified``: how often each asset came in an INDICATION; ``sent_again``: PUBLISHes repeated with DUP.
    """

    def __init__(self, port: int, name: str, *, window: int = 20) -> None:
        self.client_id = name.encode()
        self.acknowledged: set[str] = set()
        self.confirmed: set[str] = set()
        self.refused: list[bytes] = []
        self.notified: dict[str, int] = {}
        self.connections = self.sent_again = 0
        self.session_key = ""
        self.port = port
        self._window = window
        self._waiting: list[str] = []
        self._on_its_way: dict[int, tuple[str, bytes]] = {}
        self._number = 0
        self.connection: _Connection | None = None
        self._is_connected = False
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._stay_connected())

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        if self.connection is not None:
            self.connection.transport.abort()

    # ------------------------------------------------------------------ requests

    async def join(self) -> None:
        """JOIN; again until it is answered."""
        answer = await self._ask(join(self.client_id.decode()))
        self.session_key = answer["sessionKey"]
        assert self.session_key, answer

    async def subscribe(self, query: str) -> str:
        """SUBSCRIBE; the subscription's id."""
        answer = await self._ask(subscribe(self.session_key, query))
        body = json.loads(answer["body"])
        assert body["ok"], body
        return str(body["data"])

    async def _ask(self, payload: bytes) -> dict[str, object]:
        await self.until(lambda: self._is_connected)
        self._number += 1
        self._send(self._packet_id(), "", payload)
        return dict(json.loads(await self._answers.get()))

    def insert(self, assets: list[str]) -> None:
        """Send these instances, never more than the window at once."""
        self._waiting += assets
        self._pump()

    @property
    def is_idle(self) -> bool:
        """Everything is acknowledged."""
        return not self._waiting and not self._on_its_way

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition on this KP; it is looked at whenever something has come."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # ------------------------------------------------------------------ the wire

    def _packet_id(self) -> int:
        return self._number % INSERT_IDS + FIRST_INSERT_ID

    def _send(self, packet_id: int, asset: str, payload: bytes) -> None:
        packet = encode_publish(payload, packet_id)
        self._on_its_way[packet_id] = asset, packet
        if self._is_connected and self.connection is not None:
            self.connection.transport.write(packet)

    def _pump(self) -> None:
        while self._waiting and len(self._on_its_way) < self._window:
            asset = self._waiting.pop(0)
            self._number += 1
            measure = self._number % 100 + 0.25
            payload = insert(self.session_key, instance(asset, self.client_id.decode(), measure), message_id=asset)
            self._send(self._packet_id(), asset, payload)

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.port)
                await connection.lost
            except OSError:
                pass
            self._is_connected = False
            await asyncio.sleep(RECONNECT_S)

    def packet(self, kind: int, body: bytes) -> None:
        """Take one packet; called by the connection."""
        if kind == 2:
            self._connected(is_session_present=bool(body[0] & 1))
        elif kind == 4:
            asset, _ = self._on_its_way.pop(body[0] << 8 | body[1], ("", b""))
            if asset:
                self.acknowledged.add(asset)
            self._pump()
        elif kind == 3:
            self._message(body)
        self._changed.set()

    def _connected(self, *, is_session_present: bool) -> None:
        assert self.connection is not None
        self.connections += 1
        self._is_connected = True
        out = b"" if is_session_present else encode_subscribe([ANSWERS + self.client_id, INDICATIONS + self.client_id])
        for _, packet in self._on_its_way.values():
            self.sent_again += 1
            out += bytes((packet[0] | DUP,)) + packet[1:]
        self.connection.transport.write(out)

    def _message(self, body: bytes) -> None:
        topic_end = 2 + (body[0] << 8 | body[1])
        payload = body[topic_end:]
        if body[2:topic_end].startswith(INDICATIONS):
            for asset in _ASSET.findall(payload):
                self.notified[asset.decode()] = self.notified.get(asset.decode(), 0) + 1
            return
        message = _MESSAGE.search(payload)
        if message is None:
            self._answers.put_nowait(payload)
        elif b'\\"ok\\":true' in payload:
            self.confirmed.add(message[1].decode())
        else:
            self.refused.append(payload)
