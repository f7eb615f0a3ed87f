"""Load over HTTP: SSAP WebSockets and the REST resource, on raw sockets with prepared frames."""

from __future__ import annotations

import asyncio
import json
import time
from array import array
from collections import deque
from dataclasses import dataclass, field

from benchmarks.platform_under_test import KP, ONTOLOGY, TOKEN
from benchmarks.ssap_client import insert_template, insert_values, instance, join

WEBSOCKET_PATH = "/sib/api_websocket"
REST_PATH = "/sib/services/api_ssap/v01/SSAPResource"


@dataclass
class HttpLoad:
    """What all connections of a run share."""

    port: int
    window: int
    ends_at_s: float = float("inf")
    answered: int = 0
    latencies_s: array[float] = field(default_factory=lambda: array("d"))
    refused: list[bytes] = field(default_factory=list)


class LoadConnection(asyncio.Protocol):
    """A connection that JOINs and then keeps a window of INSERTs on their way; subclasses know the frames."""

    transport: asyncio.Transport

    def __init__(self, load: HttpLoad, number: int) -> None:
        self.load, self.number = load, number
        self.sent = self.answered = 0
        self.joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_loading = False
        self._times: deque[float] = deque()
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.open()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.joined.done():
            self.joined.set_exception(ConnectionError("the connection was lost before the JOIN was answered"))

    def open(self) -> None:
        """Send what comes first."""
        raise NotImplementedError

    def frame(self, number: int) -> bytes:
        """The INSERT of this number, ready for the socket."""
        raise NotImplementedError

    def start(self) -> None:
        self.is_loading = True
        self.pump()

    def pump(self) -> None:
        load, out, now = self.load, [], time.perf_counter()
        while self.sent - self.answered < load.window and now < load.ends_at_s:
            out.append(self.frame(self.sent))
            self.sent += 1
            self._times.append(now)
        if out:
            self.transport.write(b"".join(out))

    def answer(self, payload: bytes, is_good: bool) -> None:
        self.answered += 1
        self.load.answered += 1
        self.load.latencies_s.append(time.perf_counter() - self._times.popleft())
        if not is_good:
            self.load.refused.append(payload)


class WebSocketKp(LoadConnection):
    """A KP on ``/sib/api_websocket``. Frames are masked with zeros, which the standard allows."""

    def open(self) -> None:
        self._template = b""
        self._is_open = False
        self.transport.write(
            f"GET {WEBSOCKET_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    @staticmethod
    def _encode(payload: bytes) -> bytes:
        size = len(payload)
        length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        return b"\x81" + length + b"\0\0\0\0" + payload

    def frame(self, number: int) -> bytes:
        return self._encode(self._template % insert_values(self.number, number))

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        at, size = 0, len(data)
        if not self._is_open:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._rest = data
                return
            assert data.startswith(b"HTTP/1.1 101"), data[:200]
            self._is_open, at = True, end + 4
            self.transport.write(self._encode(join(f"ws{self.number}")))
        while size - at >= 2:
            length, start = data[at + 1] & 127, at + 2
            if length == 126:
                if size - at < 4:
                    break
                length, start = data[at + 2] << 8 | data[at + 3], at + 4
            if start + length > size:
                break
            if data[at] & 15 == 1:
                self._text(data[start : start + length])
            at = start + length
        self._rest = data[at:]
        if self.is_loading:
            self.pump()

    def _text(self, payload: bytes) -> None:
        if self.is_loading:
            self.answer(payload, b'"ok":true' in payload or b'\\"ok\\":true' in payload)
            return
        self._template = insert_template(json.loads(payload)["sessionKey"])
        self.joined.set_result(None)


class RestKp(LoadConnection):
    """A keep-alive connection that POSTs to the REST resource."""

    def open(self) -> None:
        self._session_key = ""
        self.transport.write(self._encode({"join": True, "instanceKP": f"{KP}:rest{self.number}", "token": TOKEN}))

    @staticmethod
    def _encode(resource: dict[str, object]) -> bytes:
        body = json.dumps(resource).encode()
        head = (
            f"POST {REST_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def frame(self, number: int) -> bytes:
        asset, client, message, measure = insert_values(self.number, number)
        data = instance(f"S_{asset:05}", f"{client}.{message}", measure + 0.25)
        return self._encode({"sessionKey": self._session_key, "ontology": ONTOLOGY, "data": json.dumps(data)})

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                break
            head = data[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0])
            if len(data) < end + 4 + length:
                break
            self._response(data[9:12], data[end + 4 : end + 4 + length])
            data = data[end + 4 + length :]
        self._rest = data
        if self.is_loading:
            self.pump()

    def _response(self, status: bytes, body: bytes) -> None:
        if self.is_loading:
            self.answer(body, status == b"200")
            return
        assert status == b"200", body
        self._session_key = json.loads(body)["sessionKey"]
        self.joined.set_result(None)


async def run_http_load(kind: type[LoadConnection], load: HttpLoad, connections: int, seconds: float) -> float:
    """Answered requests per second of that many connections."""
    loop = asyncio.get_running_loop()
    kps = []
    for number in range(connections):
        _, kp = await loop.create_connection(lambda n=number: kind(load, n), "127.0.0.1", load.port)  # type: ignore[misc]
        kps.append(kp)
    await asyncio.gather(*(kp.joined for kp in kps))
    began = time.perf_counter()
    load.ends_at_s = began + seconds
    for kp in kps:
        kp.start()
    while not all(kp.answered >= kp.sent for kp in kps) or time.perf_counter() < load.ends_at_s:
        await asyncio.sleep(0.02)
    elapsed_s = time.perf_counter() - began
    for kp in kps:
        kp.transport.close()
    return load.answered / elapsed_s
