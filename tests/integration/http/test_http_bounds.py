"""What slow, crowding and garbled clients get, and the small pages: tokens, health, metrics."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from actors.gateway.http import bind, start_http

REST = "/sib/services/api_ssap/v01/SSAPResource"
TOKENS = "/console/api/rest/kps/TestKP/tokens"


@pytest.fixture
def hurry(monkeypatch: Any) -> None:
    """Deadlines short enough to be waited for."""
    for name in ("HEADER_TIMEOUT_S", "BODY_TIMEOUT_S"):
        monkeypatch.setattr(f"actors.gateway.http_protocol.{name}", 0.5)


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"POST %b HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc" % REST.encode(),
        b"\r\n\r\n",
    ],
)
async def test_what_is_begun_and_not_completed_ends_its_connection(connect: Any, beginning: bytes) -> None:
    connection = await connect()
    await connection.send(beginning)
    assert await connection.read_to_end() == b""


@pytest.mark.usefixtures("hurry")
async def test_a_trickle_of_header_bytes_does_not_extend_the_deadline(connect: Any) -> None:
    connection = await connect()

    async def trickle() -> None:
        for _ in range(160):
            await connection.send(b"X")
            await asyncio.sleep(0.05)

    with pytest.raises(ConnectionError):
        await trickle()


@pytest.mark.usefixtures("hurry")
async def test_a_second_request_has_a_deadline_too(connect: Any) -> None:
    connection = await connect()
    await connection.send(b"GET /healthz HTTP/1.1\r\n\r\n")
    assert (await connection.read_answer())[0] == 200
    await connection.send(b"GET /heal")
    assert await connection.read_to_end() == b""


async def test_endless_headers_are_refused(connect: Any) -> None:
    connection = await connect()

    async def send_endlessly() -> None:
        await connection.send(b"GET / HTTP/1.1\r\n")
        for _ in range(1000):
            await connection.send(b"X-Header: " + b"y" * 10_000 + b"\r\n")

    with pytest.raises(ConnectionError):
        await send_endlessly()


@pytest.mark.parametrize(("size", "status"), [(65_535, 200), (65_536, 400)])
async def test_a_query_that_no_url_holds_is_told_so(connect: Any, size: int, status: int) -> None:
    connection = await connect()
    target = REST.encode() + b"?$query="
    target += b"x" * (size - len(target))
    await connection.send(b"GET %b HTTP/1.1\r\nConnection: close\r\n\r\n" % target)
    answer = await connection.read_answer()
    assert (answer[0], b"longer than a URL of 65535" in answer[2]) == (status, status == 400)


@pytest.mark.parametrize(
    "garbage", [b"\x00\x01\x02\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"HELLO\r\n\r\n"]
)
async def test_what_is_not_http_is_answered_and_closed(connect: Any, garbage: bytes) -> None:
    connection = await connect()
    await connection.send(garbage)
    status, headers, body = await connection.read_answer()
    assert status == 400
    assert b'"errorCode":"OTHER"' in body
    assert headers["connection"] == "close"


async def test_connections_above_the_limit_get_503_with_retry_after(gateway: Any) -> None:
    server, port = await start_http(gateway, "127.0.0.1", 0, connections_max=2)
    try:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await asyncio.sleep(0.05)
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://127.0.0.1:{port}/healthz")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            assert answer.json()["errorCode"] == "OTHER"
            held[0][1].close()
            await asyncio.sleep(0.05)
            assert (await client.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200
        held[1][1].close()
    finally:
        await server.stop()


async def test_a_port_that_is_taken_is_an_os_error(gateway: Any) -> None:
    taken = bind("127.0.0.1", 0)
    taken.listen()
    with pytest.raises(OSError):
        await start_http(gateway, "127.0.0.1", taken.getsockname()[1])
    taken.close()


@pytest.mark.parametrize("path", [TOKENS, TOKENS + "/"])
async def test_tokens_with_basic_authentication(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, auth=("sofia", "secreto"))
    assert answer.json() == [
        {"token": "3f8d3638215a4d59ad5cffad19c81379", "activo": False},
        {"token": "e5e8a005d0a248f1ad2cd60a821e6838", "activo": True},
    ]
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Basic c29maWE6bm8="}, {"Authorization": "Basic !!"}, {"Authorization": "Bearer x"}],
)
async def test_tokens_without_the_right_password_are_401(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await client.get(TOKENS, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert answer.json()["errorCode"] == "AUTENTICATION"


async def test_health_and_metrics(client: httpx.AsyncClient, gateway: Any) -> None:
    assert (await client.get("/healthz")).text == "ok\n"
    gateway.ready = False
    answer = await client.get("/healthz/")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    metrics = await client.get("/metrics")
    assert "sofia2_messages_total 7" in metrics.text
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert (await client.get("/nothing")).status_code == 404


async def test_stop_tells_open_requests_nothing_wrong(gateway: Any) -> None:
    server, port = await start_http(gateway, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    await server.stop()
    await server.stop()
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)
    writer.close()
