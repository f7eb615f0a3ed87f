"""A minimal MQTT 3.1.1 client for one KP: requests at QoS 1 to the empty topic, the three own topics in."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import uuid
from collections.abc import Callable, Coroutine
from itertools import cycle
from typing import Any, TypeVar

from sib.mqtt import codec, wire
from sib.mqtt.errors import MqttProtocolError
from sib.mqtt.framing import decode_length
from sib.mqtt.kp_topics import OWN_TOPICS
from sofia2.kp.errors import ConnectionLostError

PACKET_BYTES_MAX = 64 * 1024 * 1024
READ_BYTES = 64 * 1024
KEEP_ALIVE_S = 60
CLIENT_ID_CHARACTERS_MAX = 23
"""What MQTT 3.1 allows; every server takes it."""
UNACKNOWLEDGED_MAX = 200
"""Requests without PUBACK; ``send`` waits above it."""
PAYLOADS_WAITING_MAX = 1000
"""Payloads that came and were not taken; beyond it the socket is not read."""

T = TypeVar("T")


class MqttConnector:
    """Connections to one MQTT listener, each with the same client id."""

    needs_join = True

    def __init__(
        self,
        host: str,
        port: int,
        *,
        client_id: str | None = None,
        username: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self._host, self._port, self._tls, self._timeout_s = host, port, tls, timeout_s
        self._client_id = client_id or f"py{uuid.uuid4().hex}"[:CLIENT_ID_CHARACTERS_MAX]
        self._username, self._password = username, password

    async def connect(self) -> MqttTransport:
        """CONNECT and SUBSCRIBE to the client's own topics."""
        try:
            async with asyncio.timeout(self._timeout_s):
                reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
                transport = MqttTransport(reader, writer)
                try:
                    await transport.open(self._client_id, self._username, self._password)
                except BaseException:
                    writer.close()
                    raise
        except (OSError, TimeoutError) as error:
            raise ConnectionLostError(f"no MQTT connection to {self._host}:{self._port} ({_reason(error)})") from error
        transport.start()
        return transport


class MqttTransport:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._buffer = bytearray()
        self._payloads: asyncio.Queue[bytes] = asyncio.Queue(PAYLOADS_WAITING_MAX)
        self._ids = cycle(range(1, 65_536))
        self._window = asyncio.Semaphore(UNACKNOWLEDGED_MAX)
        self._tasks: list[asyncio.Task[None]] = []
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self, client_id: str, username: str | None, password: str | None) -> None:
        """The handshake."""
        flags = 2 | (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
        credentials = [wire.encode_string(text) for text in (username, password) if text is not None]
        head = wire.encode_string("MQTT") + bytes((codec.MQTT_3_1_1, flags)) + wire.encode_uint16(KEEP_ALIVE_S)
        self._writer.write(codec.encode_packet(codec.CONNECT, 0, head, wire.encode_string(client_id), *credentials))
        kind, _, body = await self._packet()
        if kind != codec.CONNACK or len(body) < 2 or body[1]:
            raise ConnectionLostError("the MQTT listener refuses this client: check user and password of the listener")
        filters = b"".join(wire.encode_string(prefix + client_id) + b"\0" for prefix in OWN_TOPICS)
        self._writer.write(codec.encode_packet(codec.SUBSCRIBE, 2, wire.encode_uint16(1), filters))
        kind, _, body = await self._packet()
        if kind != codec.SUBACK or any(granted & 0x80 for granted in body[2:]):
            raise ConnectionLostError("the MQTT listener does not serve SSAP")

    def start(self) -> None:
        """Begin to read, and to keep the connection alive."""
        self._spawn(self._read)
        self._spawn(self._ping)

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def guarded() -> None:
            try:
                await work()
            except (OSError, EOFError, MqttProtocolError, ConnectionLostError) as error:
                self._end(error)

        self._tasks.append(asyncio.get_running_loop().create_task(guarded()))

    def _end(self, error: Exception) -> None:
        if not self._lost.done():
            self._lost.set_exception(ConnectionLostError(f"the MQTT connection is lost ({_reason(error)})"))
            self._lost.exception()  # whoever waits gets it; nobody has to
            self._writer.close()

    async def _packet(self) -> tuple[int, int, bytes]:
        buffer = self._buffer
        while True:
            if len(buffer) >= 2:
                length, start = decode_length(buffer, 1)
                if length > PACKET_BYTES_MAX:
                    raise ConnectionLostError("the server sent a packet that is too long")
                if start and len(buffer) >= start + length:
                    head, body = buffer[0], bytes(buffer[start : start + length])
                    del buffer[: start + length]
                    return head >> 4, head & 15, body
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise EOFError("the server closed it")
            buffer += data

    async def _read(self) -> None:
        while True:
            kind, flags, body = await self._packet()
            if kind == codec.PUBLISH:
                publish = codec.decode_publish(flags, body, codec.MQTT_3_1_1)
                await self._payloads.put(publish.payload)
            elif kind == codec.PUBACK:
                self._window.release()

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(KEEP_ALIVE_S / 2)
            self._writer.write(bytes((codec.PINGREQ << 4, 0)))
            await self._writer.drain()

    async def send(self, payload: bytes) -> None:
        await self._or_lost(self._window.acquire())
        publish = codec.Publish("", payload, qos=1, packet_id=next(self._ids))
        try:
            self._writer.write(codec.encode_publish(publish, codec.MQTT_3_1_1))
            await self._writer.drain()
        except OSError as error:
            self._end(error)
            await self._lost

    async def receive(self) -> bytes:
        if not self._payloads.empty():
            return self._payloads.get_nowait()
        return await self._or_lost(self._payloads.get())

    async def _or_lost(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        either: set[asyncio.Future[Any]] = {task, self._lost}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.done():
            return task.result()
        task.cancel()
        await self._lost
        raise AssertionError("unreachable: a lost connection has an error")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(OSError):
            if not self._lost.done():
                self._writer.write(bytes((codec.DISCONNECT << 4, 0)))
                self._end(EOFError("closed here"))
            await self._writer.wait_closed()


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
