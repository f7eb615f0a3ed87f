"""The same app in other surroundings: behind TLS, mounted in another app, under another ASGI server."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import httpx
import pytest
import trustme
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.asyncio.client import connect as ws_connect

from actors.gateway.http import bind, create_app, start_http

REST = "/sib/services/api_ssap/v01/SSAPResource"
JOIN = {"join": True, "instanceKP": "KP:one", "token": "t"}
OID = "5a8eaae2e4b06f95860d1e1b"


@pytest.fixture
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's and the client's side."""
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    return server_side, client_side


async def test_rest_and_websocket_over_tls(gateway: Any, tls: Any) -> None:
    server_side, client_side = tls
    server, port = await start_http(gateway, "127.0.0.1", 0, ssl=server_side)
    try:
        async with httpx.AsyncClient(verify=client_side, trust_env=False) as client:
            answer = await client.post(f"https://localhost:{port}{REST}", json=JOIN)
            assert answer.json()["sessionKey"] == "new-key"
        async with ws_connect(f"wss://localhost:{port}/sib/api_websocket", proxy=None, ssl=client_side) as socket:
            await socket.send("x")
            assert await socket.recv() == '{"echo":"x"}'
    finally:
        await server.stop()


async def test_a_tls_handshake_that_does_not_come_ends_its_connection(gateway: Any, tls: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("actors.gateway.http_protocol.TLS_TIMEOUT_S", 0.3)
    server, port = await start_http(gateway, "127.0.0.1", 0, ssl=tls[0])
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x16\x03\x01")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
    finally:
        await server.stop()


@pytest.mark.parametrize("prefix", ["", "/prefix"])
async def test_mounted_in_another_app_under_an_ordinary_server(gateway: Any, prefix: str) -> None:
    outer = Starlette(routes=[Mount(prefix, create_app(gateway))])
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(outer, lifespan="off", log_config=None, http="h11", ws="websockets-sansio"))
    serving = asyncio.create_task(server._serve([listener]))
    base = f"http://127.0.0.1:{port}{prefix}"
    async with httpx.AsyncClient(trust_env=False) as client:
        for path in (REST, REST + "/", REST.replace("v01", "v01.0")):
            assert (await client.post(base + path, json=JOIN)).json()["sessionKey"] == "new-key"
        answer = await client.get(f"{base}{REST}/{OID}", params={"$sessionKey": "key", "$ontology": "O"})
        assert answer.json()["data"] == "[ ]"
    url = f"ws://127.0.0.1:{port}{prefix}/sib/api_websocket"
    async with ws_connect(url, proxy=None, subprotocols=["http_only"]) as socket:
        assert socket.subprotocol == "http_only"
        await socket.send("ñ")
        assert await socket.recv() == '{"echo":"ñ"}'
        size = gateway.limits.message_bytes_max + 1
        await socket.send("x" * size)
        assert await socket.recv() == f'{{"too_long":{size}}}'
    await asyncio.wait_for(gateway.channels[0].is_closed.wait(), 5)
    server.should_exit = True
    await serving


async def test_ipv6_and_a_shared_port(gateway: Any) -> None:
    first, port = await start_http(gateway, "::1", 0, is_shared=True)
    second, _ = await start_http(gateway, "::1", port, is_shared=True)
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"http://[::1]:{port}/healthz")).status_code == 200
        await first.stop()
        assert (await client.get(f"http://[::1]:{port}/healthz")).status_code == 200
    await second.stop()
