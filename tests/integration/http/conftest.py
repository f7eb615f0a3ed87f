"""A real server on a free port in front of a fake gateway, and what speaks to it byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import pytest
from bson import ObjectId

from actors.gateway.http import start_http
from actors.outgoing import AddressPolicy
from sib.errors import AuthenticationError
from sib.ssap.answers import AffectedIds, Answer, InsertedId, Json, NoData, Rows, Text
from sib.ssap.messages import Dialect, MessageType
from sib.ssap.rest import InsertMany

OID = "5a8eaae2e4b06f95860d1e1b"
OTHER_OID = "5a8eaae2e4b06f95860d1e1c"


@dataclass
class FakeLimits:
    message_bytes_max: int = 100_000
    websocket_idle_s: float = 0.0


class FakeRouter:
    """Answers REST requests; a session key that begins with "dead" is dead, one that begins with "one" speaks ONE."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any]] = []
        self.error: Exception | None = None
        self.answers: dict[MessageType, Answer] = {
            MessageType.JOIN: Answer(Text("new-key"), session_key="new-key"),
            MessageType.LEAVE: Answer(Text("key")),
            MessageType.INSERT: Answer(InsertedId(ObjectId(OID))),
            MessageType.UPDATE: Answer(AffectedIds([ObjectId(OID)])),
            MessageType.DELETE: Answer(AffectedIds([ObjectId(OID)])),
            MessageType.QUERY: Answer(Rows(legacy="[ ]", one=b"[]")),
            MessageType.SUBSCRIBE: Answer(Text("subscription-1")),
            MessageType.UNSUBSCRIBE: Answer(Text("")),
            MessageType.CONFIG: Answer(Json({"kp": "KP", "lasset": []})),
        }

    async def execute(self, request: Any, origin: Any) -> Answer:
        self.calls.append((request, origin))
        if self.error is not None:
            raise self.error
        key = request.session_key or ""
        if key.startswith("dead"):
            return Answer(NoData(), error=AuthenticationError("The session is dead: join again."))
        if not request.dialect_told and key.startswith("one"):
            request.dialect = Dialect.ONE
        if isinstance(request.operation, InsertMany):
            return Answer(AffectedIds([ObjectId(OID), ObjectId(OTHER_OID)]))
        return self.answers.get(request.message_type, Answer(Text("OK")))


class FakeChannel:
    """Echoes what it receives; ``on_receive`` may do something else."""

    def __init__(self, transport: Any, peer: str, on_receive: Callable[[FakeChannel, bytes], None] | None) -> None:
        self.transport = transport
        self.peer = peer
        self.received: list[bytes] = []
        self.is_closed = asyncio.Event()
        self._on_receive = on_receive

    def receive(self, payload: bytes) -> None:
        self.received.append(payload)
        if self._on_receive is not None:
            self._on_receive(self, payload)
        else:
            self.transport.answer(b'{"echo":' + orjson.dumps(payload.decode("utf-8", "replace")) + b"}")

    def oversized(self, token: object, size_bytes: int, head: bytes) -> None:
        self.received.append(bytes(head))
        self.transport.answer(b'{"too_long":%d}' % size_bytes)

    def closed(self) -> None:
        self.is_closed.set()


class FakeGateway:
    """What ``create_app`` needs."""

    def __init__(self) -> None:
        self.router = FakeRouter()
        self.limits = FakeLimits()
        self.callback_policy = AddressPolicy(["127.0.0.0/8"])
        self.channels: list[FakeChannel] = []
        self.on_receive: Callable[[FakeChannel, bytes], None] | None = None
        self.ready = True

    def open_channel(
        self,
        transport: Any,
        *,
        kind: str,
        peer: str,
        client_id: str | None = None,
        message_bytes_max: int | None = None,
    ) -> FakeChannel:
        assert kind == "websocket"
        channel = FakeChannel(transport, peer, self.on_receive)
        self.channels.append(channel)
        return channel

    async def tokens(self, kp: str, user: str, password: str, address: str) -> list[tuple[str, bool]]:
        if (kp, user, password) != ("TestKP", "sofia", "secreto"):
            raise AuthenticationError("Wrong user or password.")
        return [("3f8d3638215a4d59ad5cffad19c81379", False), ("e5e8a005d0a248f1ad2cd60a821e6838", True)]

    def metrics_text(self) -> str:
        return "# TYPE sofia2_messages_total counter\nsofia2_messages_total 7\n"

    def is_ready(self) -> bool:
        return self.ready


@pytest.fixture
def gateway() -> Any:
    return FakeGateway()


@pytest.fixture
async def server(gateway: Any) -> AsyncIterator[Any]:
    running, _ = await start_http(gateway, "127.0.0.1", 0)
    yield running
    await running.stop()


@pytest.fixture
async def client(server: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False, timeout=5) as client:
        yield client


class RawConnection:
    """A socket that writes what it is told and reads HTTP answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read_answer(self) -> tuple[int, dict[str, str], bytes]:
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)).decode("latin-1")
        status_line, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await asyncio.wait_for(self.reader.readexactly(int(headers.get("content-length", 0))), 10)
        return int(status_line.split()[1]), headers, body

    async def read_to_end(self) -> bytes:
        try:
            return await asyncio.wait_for(self.reader.read(), 10)
        except ConnectionError:
            return b""


@pytest.fixture
async def connect(server: Any) -> AsyncIterator[Any]:
    opened: list[RawConnection] = []

    async def connect() -> RawConnection:
        connection = RawConnection(*await asyncio.open_connection("127.0.0.1", server.port))
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.writer.close()
