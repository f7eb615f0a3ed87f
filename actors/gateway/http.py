"""The HTTP gateway: one Starlette app for SSAP over WebSocket and REST, MQTT over WebSocket, tokens, health, metrics.

``create_app`` knows no server and runs wherever ASGI runs; ``start_http`` serves it with uvicorn inside a running event
loop (an actor's or a test's). Every path answers with and without its trailing slash, never with a redirect.
Source: Sofia2 wire, REST and WebSocket sections; the paths are those that the published clients have built in.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl as tls
from collections.abc import Awaitable
from typing import Protocol

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from actors.gateway.http_protocol import (
    KEEP_ALIVE_TIMEOUT_S,
    HttpConfig,
    HttpConnection,
    HttpServer,
    WebSocketConnection,
)
from actors.gateway.rest import RestRouter, SSAPResourceApp, TokenListApp
from actors.gateway.websocket import ChannelGateway, SsapWebSocketApp
from actors.gateway.websocket_mqtt import MqttWebSocketApp, OpenMqtt
from actors.outgoing import AddressPolicy

WEBSOCKET_PATH = "/sib/api_websocket"
MQTT_PATH = "/mqtt"
REST_PATHS = (
    "/sib/services/api_ssap/v01/SSAPResource",
    "/sib/services/api_ssap/v01.0/SSAPResource",
    "/sib/services/ssap/v01/SSAPResource",  # what the Android client has built in for queries
)
TOKENS_PATH = "/console/api/rest/kps/{kp}/tokens"
WEBSOCKET_PING_S = 60.0
"""Keeps address translators open. A missing pong closes nothing: clients of 2014 do not all send one."""
CONNECTIONS_MAX = 20_000
"""Connections of one listener by default; the next ones get 503 with Retry-After."""
MQTT_HEADER_BYTES = 70_000
"""What an MQTT packet may have beside its payload (topic, properties): a WebSocket message may be longer by this."""
SHUTDOWN_TIMEOUT_S = 5
"""Requests in flight may end within it when the server stops."""

logger = logging.getLogger(__name__)


class HttpLimits(Protocol):
    """The settings that the HTTP gateway heeds."""

    message_bytes_max: int
    """Longest SSAP message: a WebSocket message or the body of a REST request."""
    websocket_idle_s: float
    """A WebSocket on which neither side has sent a message for so long is closed with 1001; 0 = no limit."""


class HttpGateway(ChannelGateway, Protocol):
    """What the app needs of its gateway."""

    @property
    def router(self) -> RestRouter: ...

    @property
    def limits(self) -> HttpLimits: ...

    @property
    def callback_policy(self) -> AddressPolicy | None:
        """Which addresses the endpoint of a REST subscription may have; None checks only its form."""

    async def tokens(self, kp: str, user: str, password: str, address: str) -> list[tuple[str, bool]]:
        """The KP's tokens, each with whether it is active. Raises AuthenticationError if user may not see them."""

    def metrics_text(self) -> str | Awaitable[str]:
        """All metrics in Prometheus' text format."""

    def is_ready(self) -> bool:
        """Whether requests can be answered now."""


class SingleSlashes:
    """Makes ``//`` in a path ``/``: clients put a base URL that ends with a slash before a path that begins with one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if "//" in path:
            scope = {**scope, "path": re.sub("/{2,}", "/", path)}
        await self._app(scope, receive, send)


def create_app(
    gateway: HttpGateway, *, open_mqtt: OpenMqtt | None = None, message_bytes_max: int | None = None
) -> Starlette:
    """The ASGI app of the gateway, for uvicorn or any other ASGI server.

    Args:
        gateway: What the app talks to.
        open_mqtt: Serve MQTT over WebSocket with this, for example ``partial(WebSocketMqtt, endpoint, options)``.
        message_bytes_max: The longest SSAP message over this app; None = as the gateway's limits say.

    ``app.state.websocket`` and ``app.state.mqtt`` are the WebSocket apps, with their counters.
    """
    bytes_max = gateway.limits.message_bytes_max if message_bytes_max is None else message_bytes_max
    websocket = SsapWebSocketApp(gateway, message_bytes_max=bytes_max)
    routes = [*_ssap_routes(gateway, bytes_max), *_websocket_routes(WEBSOCKET_PATH, websocket)]  # the busiest first
    mqtt = None
    if open_mqtt is not None:
        mqtt = MqttWebSocketApp(open_mqtt)
        routes += _websocket_routes(MQTT_PATH, mqtt)
    routes += _service_routes(gateway)
    app = Starlette(routes=routes, middleware=[Middleware(SingleSlashes)])
    app.router.redirect_slashes = False
    app.state.websocket, app.state.mqtt = websocket, mqtt
    return app


def _websocket_routes(path: str, app: ASGIApp) -> list[BaseRoute]:
    return [WebSocketRoute(path, app), WebSocketRoute(path + "/", app)]


def _ssap_routes(gateway: HttpGateway, message_bytes_max: int) -> list[BaseRoute]:
    routes: list[BaseRoute] = []
    resource = SSAPResourceApp(
        gateway.router, message_bytes_max=message_bytes_max, callback_policy=gateway.callback_policy
    )
    for path in REST_PATHS:
        routes += [Route(path, resource), Route(path + "/{tail:path}", resource)]
    tokens = TokenListApp(gateway.tokens)
    return [*routes, Route(TOKENS_PATH, tokens), Route(TOKENS_PATH + "/", tokens)]


def _service_routes(gateway: HttpGateway) -> list[BaseRoute]:
    async def healthz(request: HttpRequest) -> Response:
        if gateway.is_ready():
            return PlainTextResponse("ok\n")
        return PlainTextResponse("starting\n", 503, {"Retry-After": "1"})

    async def metrics(request: HttpRequest) -> Response:
        text = gateway.metrics_text()
        return PlainTextResponse(text if isinstance(text, str) else await text, media_type="text/plain; version=0.0.4")

    async def root(request: HttpRequest) -> Response:
        return PlainTextResponse(
            "Sofia2 Semantic Information Broker\n"
            f"WebSocket  {WEBSOCKET_PATH}\nREST       {REST_PATHS[0]}\nMQTT       {MQTT_PATH} (WebSocket)\n"
            "Health     /healthz\nMetrics    /metrics\n"
        )

    routes: list[BaseRoute] = [Route("/", root)]
    for path, page in (("/healthz", healthz), ("/metrics", metrics)):
        routes += [Route(path, page), Route(path + "/", page)]
    return routes


class RunningHttp:
    """A server that accepts. Stopping ends its connections: WebSockets are told 1012 (service restart)."""

    def __init__(self, server: HttpServer, task: asyncio.Task[None], port: int) -> None:
        self.server = server
        self.port = port
        self._task = task

    @property
    def connection_count(self) -> int:
        return len(self.server.server_state.connections)

    async def stop(self) -> None:
        """Close the listener and its connections; returns when all is closed. Idempotent."""
        self.server.stop()
        await self._task


def bind(host: str, port: int, *, is_shared: bool = False) -> socket.socket:
    """A bound TCP socket; port 0 takes any free port, ``is_shared`` lets other processes listen on the same one.

    Raises OSError if the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


async def start_http(
    gateway: HttpGateway,
    host: str,
    port: int,
    *,
    ssl: tls.SSLContext | None = None,
    connections_max: int = CONNECTIONS_MAX,
    is_shared: bool = False,
    open_mqtt: OpenMqtt | None = None,
    message_bytes_max: int | None = None,
    app: ASGIApp | None = None,
) -> tuple[RunningHttp, int]:
    """Serve the gateway's app in the running loop and return when the port accepts.

    Args:
        gateway: What the app talks to.
        host: An address to bind, IPv4 or IPv6.
        port: The port; 0 takes any free one.
        ssl: Serve HTTPS and WSS with this context.
        connections_max: Connections above it are answered 503 with Retry-After and closed.
        is_shared: Several processes listen on the port (SO_REUSEPORT).
        open_mqtt: As in ``create_app``.
        message_bytes_max: As in ``create_app``.
        app: Another app than ``create_app(gateway)``, for example one that mounts it.

    Returns:
        The running server and the port it listens on.

    Raises:
        OSError: The port is taken or may not be bound.
    """
    listener = bind(host, port, is_shared=is_shared)
    bytes_max = gateway.limits.message_bytes_max if message_bytes_max is None else message_bytes_max
    served = app or create_app(gateway, open_mqtt=open_mqtt, message_bytes_max=bytes_max)
    server = HttpServer(_config(served, gateway.limits, bytes_max, connections_max, ssl))
    task = asyncio.get_running_loop().create_task(server.serve([listener]), name=f"http {host}:{port}")
    while not server.started:
        if task.done():
            listener.close()
            task.result()
            raise RuntimeError("the HTTP server ended before it had started")
        await asyncio.sleep(0.005)
    return RunningHttp(server, task, listener.getsockname()[1]), listener.getsockname()[1]


def _config(
    app: ASGIApp, limits: HttpLimits, message_bytes_max: int, connections_max: int, ssl: tls.SSLContext | None
) -> HttpConfig:
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # below it are request lines, which may hold secrets
    config = HttpConfig(
        app,
        loop="none",
        http=HttpConnection,
        ws=WebSocketConnection,
        ws_ping_interval=WEBSOCKET_PING_S,
        ws_ping_timeout=None,
        ws_per_message_deflate=False,
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_TIMEOUT_S,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        ssl_context_factory=None if ssl is None else lambda config, default: ssl,
    )
    config.connections_max = connections_max
    config.websocket_bytes_max = message_bytes_max + MQTT_HEADER_BYTES
    config.websocket_idle_s = limits.websocket_idle_s
    return config
