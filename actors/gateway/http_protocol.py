"""uvicorn's connections, made safe for the open sea: what a slow, huge or crowding client does is bounded here.

Three additions to uvicorn and nothing else: deadlines (headers, body, started WebSocket frames, idle sockets), a
connection limit with an HTTP answer, and a WebSocket reader that throws a too long message away as it arrives
instead of keeping it or closing the connection. Start reading at ``HttpServer``.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

HEADER_TIMEOUT_S = 10.0
"""From the first byte of a request (or the connection) to the end of its headers; then the connection is closed."""
BODY_TIMEOUT_S = 30.0
"""From the end of the headers to the end of the body."""
FRAME_TIMEOUT_S = 30.0
"""From the first byte of a WebSocket message to its last."""
KEEP_ALIVE_TIMEOUT_S = 75
"""A connection without a request; longer than 60 s, a usual period of polling, so that pollers keep theirs."""
TLS_TIMEOUT_S = 10.0
"""For the TLS handshake."""
TICK_S = 1.0
"""How often the deadlines are looked at."""
HEADER_BYTES_MAX = 256 * 1024
"""Request line and headers together; above it 400 and the connection is closed."""
TARGET_BYTES_MAX = 65_535
"""The target of a request, in which a query stands; the parser of URLs reads no longer one."""
REFUSED_CONNECTIONS_MAX = 200
"""Connections above the limit that are still told so with 503; more are closed without a word."""
EXCERPT_BYTES = 4096
"""What is kept of a too long WebSocket message. A multiple of 4 (the mask's length)."""
RETRY_AFTER_S = 2

SIZE_KEY = "sofia2.size_bytes"
"""In an ASGI ``websocket.receive`` event: the message was this long, and ``bytes`` holds its beginning only."""
TEXT_KEY = "sofia2.is_text"
"""In an ASGI ``websocket.receive`` event with ``bytes``: it came as a text frame. It is not checked to be UTF-8."""

_TO_ESCAPE = re.compile(rb"[\x80-\xff #]")

logger = logging.getLogger(__name__)


class HttpConfig(uvicorn.Config):
    """uvicorn's configuration with our bounds beside it."""

    connections_max: int = 20_000
    websocket_bytes_max: int = 2_000_000
    websocket_idle_s: float = 0.0
    """0 = no limit."""


def plain_response(status_line: str, detail: str, *headers: str) -> bytes:
    """A complete answer that ends its connection, for requests that never reach the application."""
    body = f'{{"detail":"{detail}","errorCode":"OTHER"}}'
    head = (f"HTTP/1.1 {status_line}", "content-type: application/json", f"content-length: {len(body)}", *headers)
    return ("\r\n".join((*head, "connection: close", "", "")) + body).encode("ascii")


BUSY = plain_response(
    "503 Service Unavailable",
    "The gateway has no room for more connections (listeners.http connections_max). Try again.",
    f"retry-after: {RETRY_AFTER_S}",
)
TOO_LONG = plain_response("400 Bad Request", f"Request line and headers are longer than {HEADER_BYTES_MAX} bytes.")
TARGET_TOO_LONG = plain_response(
    "400 Bad Request",
    f"The query is longer than a URL of {TARGET_BYTES_MAX} bytes holds: send it over WebSocket or MQTT.",
)
NOT_HTTP = plain_response("400 Bad Request", "This is not an HTTP request.")


class HttpConnection(HttpToolsProtocol):
    """An HTTP connection with a deadline for whatever it has begun."""

    config: HttpConfig
    deadline = math.inf

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.deadline = self.loop.time() + HEADER_TIMEOUT_S
        self.header_bytes = 0
        self.is_in_headers = True
        self.is_in_request_line = True
        self.is_refused = len(self.connections) > self.config.connections_max
        if self.is_refused and len(self.connections) > self.config.connections_max + REFUSED_CONNECTIONS_MAX:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.is_in_headers:
            self.header_bytes += len(data)
            if self.header_bytes > HEADER_BYTES_MAX + len(data):
                self.end_with(TOO_LONG)
                return
        if self.is_in_request_line:
            data = self._escaped(data)
        super().data_received(data)
        if self.deadline == math.inf and (self.cycle is None or self.cycle.response_complete):
            # Bytes that begin no request (blank lines) have ended the keep-alive time: do not wait for ever.
            self.deadline = self.loop.time() + HEADER_TIMEOUT_S

    def _escaped(self, data: bytes) -> bytes:
        """Percent-encode in a target what the parser refuses or cuts off: bytes that are not ASCII, blanks, and ``#``.

        Node.js writes the letters of Latin-1 raw, others write UTF-8; Java's URL takes what it is given.
        """
        end = data.find(b"\n")
        line, rest = (data, b"") if end < 0 else (data[:end], data[end:])
        self.is_in_request_line = end < 0
        if line.isascii() and b"#" not in line and line.count(b" ") <= 2:
            return data
        method, _, target = line.partition(b" ")
        target, blank, version = target.rpartition(b" ") if rest else (target, b"", b"")
        escaped = _TO_ESCAPE.sub(lambda match: b"%%%02X" % match[0][0], target)
        return b"".join((method, b" ", escaped, blank, version, rest))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self.is_in_headers:
            self.is_in_headers = True
            self.header_bytes = 0
            self.deadline = self.loop.time() + HEADER_TIMEOUT_S

    def on_headers_complete(self) -> None:
        if self.is_refused:
            self.end_with(BUSY)
            raise httptools.HttpParserError("refused")
        if len(self.url) > TARGET_BYTES_MAX:
            self.end_with(TARGET_TOO_LONG)
            raise httptools.HttpParserError("too long")
        self.is_in_headers = False
        self.deadline = self.loop.time() + BODY_TIMEOUT_S
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self.deadline = math.inf
        self.is_in_request_line = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self.end_with(NOT_HTTP)

    def end_with(self, response: bytes) -> None:
        """Write a last answer and close; nothing if the connection is closing already."""
        if not self.transport.is_closing():
            self.transport.write(response)
            self.transport.close()

    def close_if_late(self, now: float) -> None:
        """Close the connection if what it has begun is overdue."""
        if now <= self.deadline or self.transport.is_closing():
            return
        if self.flow.read_paused:  # it is we who do not read
            self.deadline = now + BODY_TIMEOUT_S
        else:
            self.transport.abort()


class DiscardingReader(StreamReader):
    """Reads as its base, but of a payload above ``bytes_max`` it keeps the beginning and throws the rest away."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__()
        self.bytes_max = bytes_max
        self.discarded_bytes = 0
        self.is_discarding = False

    def read_exact(self, n: int) -> Generator[None, None, bytearray]:
        """The next ``n`` bytes, or if they are too many the first ``EXCERPT_BYTES`` of them."""
        if n <= self.bytes_max:
            return (yield from super().read_exact(n))
        excerpt = yield from super().read_exact(min(n, EXCERPT_BYTES))
        left = n - len(excerpt)
        self.is_discarding = True
        while left > 0:
            if not self.buffer:
                if self.eof:
                    raise EOFError("stream ends within a message")
                yield
                continue
            step = min(left, len(self.buffer))
            del self.buffer[:step]
            left -= step
        self.is_discarding = False
        self.discarded_bytes = n - len(excerpt)
        return excerpt


class BoundedServerProtocol(ServerProtocol):
    """The WebSocket protocol without a limit that closes the connection: long payloads arrive cut."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(max_size=None, logger=logging.getLogger("uvicorn.error"))
        self.reader: DiscardingReader = DiscardingReader(bytes_max)
        self.parser = self.parse()  # the base has started one on its own reader
        next(self.parser)

    def recv_frame(self, frame: Frame) -> None:
        super().recv_frame(frame)
        if self.reader.discarded_bytes:
            frame.discarded_bytes = self.reader.discarded_bytes  # type: ignore[attr-defined]
            self.reader.discarded_bytes = 0


class WebSocketConnection(WebSocketsSansIOProtocol):
    """A WebSocket with bounded messages. It hands every message to the application as bytes.

    A text message that is not UTF-8 is handed on too: the application answers it, since closing (RFC 6455 section
    8.1) would take the connection's other sessions down with it.
    """

    config: HttpConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bytes_max = self.config.websocket_bytes_max
        self.conn: BoundedServerProtocol = BoundedServerProtocol(self.bytes_max)
        now = self.loop.time()
        self.deadline = now + HEADER_TIMEOUT_S
        self.active_at = now
        self.kept_bytes = 0
        self.size_bytes = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        reader = self.conn.reader
        if not (reader.buffer or self.frames or reader.is_discarding):
            self.deadline = math.inf
        elif self.deadline == math.inf:
            self.deadline = self.loop.time() + FRAME_TIMEOUT_S

    def handle_text(self, event: Frame) -> None:
        self._begin_message("text", event)

    def handle_bytes(self, event: Frame) -> None:
        self._begin_message("bytes", event)

    def _begin_message(self, kind: Literal["text", "bytes"], event: Frame) -> None:
        self.curr_msg_data_type = kind
        self.frames = []
        self.kept_bytes = self.size_bytes = 0
        self.handle_cont(event)

    def handle_cont(self, event: Frame) -> None:
        """Keep a fragment, or of a message that has become too long only the beginning."""
        self.size_bytes += len(event.data) + getattr(event, "discarded_bytes", 0)
        if self.size_bytes <= self.bytes_max or not self.frames:
            self.frames.append(bytes(event.data))
            self.kept_bytes += len(event.data)
        elif self.kept_bytes > EXCERPT_BYTES:
            self.frames = [b"".join(self.frames)[:EXCERPT_BYTES]]
            self.kept_bytes = EXCERPT_BYTES
        if event.fin:
            self.send_receive_event_to_app()

    def send_receive_event_to_app(self) -> None:
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        self.deadline = math.inf
        if self.close_sent:
            return
        self.active_at = self.loop.time()
        message: dict[str, Any] = {"type": "websocket.receive", "bytes": data}
        if self.curr_msg_data_type == "text":
            message[TEXT_KEY] = True
        if self.size_bytes > self.bytes_max:
            message[SIZE_KEY] = self.size_bytes
        self.queue.put_nowait(message)  # type: ignore[arg-type]
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    async def send(self, message: Any) -> None:
        self.active_at = self.loop.time()
        await super().send(message)

    def close_if_late(self, now: float) -> None:
        """Close the socket if a message or the application's accept is overdue, or nothing has been said for long."""
        if self.close_sent or self.transport.is_closing():
            return
        if now > self.deadline:
            if self.read_paused:  # it is we who do not read
                self.deadline = now + FRAME_TIMEOUT_S
            else:
                self.transport.abort()
        elif 0 < self.config.websocket_idle_s < now - self.active_at:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1001, "reason": "idle"})
            self.conn.send_close(1001, "idle")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.transport.close()


class HttpServer(uvicorn.Server):
    """uvicorn's server for use inside an actor or a test: it handles no signals and never exits the process."""

    config: HttpConfig

    def __init__(self, config: HttpConfig) -> None:
        super().__init__(config)
        self._stopping = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: Any = None) -> None:
        """Accept on ``sockets``, which are bound already."""
        await self.lifespan.startup()
        loop = asyncio.get_running_loop()

        def connection() -> HttpConnection:
            return HttpConnection(self.config, self.server_state, self.lifespan.state, loop)

        tls_timeout_s = TLS_TIMEOUT_S if self.config.ssl else None
        self.servers = [
            await loop.create_server(
                connection,
                sock=socket,
                ssl=self.config.ssl,
                backlog=self.config.backlog,
                ssl_handshake_timeout=tls_timeout_s,
            )
            for socket in sockets or []
        ]
        self.started = True

    async def main_loop(self) -> None:
        """Once a second close the connections that are late, and let uvicorn renew its Date header; until ``stop``."""
        loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            for connection in list(self.server_state.connections):
                connection.close_if_late(loop.time())  # type: ignore[union-attr]
            try:
                await asyncio.wait_for(self._stopping.wait(), TICK_S)
            except TimeoutError:
                continue

    def stop(self) -> None:
        """End the server soon. Idempotent."""
        self.should_exit = True
        self._stopping.set()
