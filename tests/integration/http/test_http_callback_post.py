"""Callbacks to a real server: what is sent, redirects, addresses that are refused or change, slow and endless answers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpcore
import pytest
import trustme

from actors.gateway import callback_post
from actors.gateway.callback_post import CallbackPoster, EndpointRefusedError
from actors.gateway.callbacks import CallbackSender, Outcome
from actors.outgoing import AddressPolicy


class Receiver:
    """Reads POSTs and answers them with what the test has set."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
        self.connections = 0
        self.stalls = False
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                line, *lines = head.strip().split("\r\n")
                headers = {name.lower(): value for name, value in (item.split(": ", 1) for item in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                self.requests.append((line, headers, body))
                if self.stalls:
                    await asyncio.sleep(60)
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.handle, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    yield receiver
    server.close()


@pytest.fixture
async def post() -> AsyncIterator[CallbackPoster]:
    poster = CallbackPoster(AddressPolicy(["127.0.0.0/8"]), timeout_s=2)
    yield poster
    await poster.close()


async def test_what_is_sent(receiver: Receiver, post: CallbackPoster) -> None:
    assert await post(f"http://127.0.0.1:{receiver.port}/path/ñ?a=b c&d=%26", b'{"x":1}') == 204
    line, headers, body = receiver.requests[0]
    assert line == "POST /path/%C3%B1?a=b%20c&d=%26 HTTP/1.1"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert headers["content-type"] == "application/json"
    assert body == b'{"x":1}'
    await post(f"http://127.0.0.1:{receiver.port}", b"{}")
    assert receiver.requests[1][0] == "POST / HTTP/1.1"
    assert receiver.connections == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(receiver: Receiver, post: CallbackPoster, status: int) -> None:
    receiver.answer = f"HTTP/1.1 {status} Elsewhere\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n".encode()
    assert await post(f"http://127.0.0.1:{receiver.port}/", b"{}") == status
    assert len(receiver.requests) == 1


async def test_the_environment_names_no_proxy(receiver: Receiver, post: CallbackPoster, monkeypatch: Any) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert await post(f"http://127.0.0.1:{receiver.port}/", b"{}") == 204


async def test_an_address_that_is_not_allowed_is_not_contacted(receiver: Receiver) -> None:
    poster = CallbackPoster(AddressPolicy([]))
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1"):
        with pytest.raises((EndpointRefusedError, OSError)):
            await poster(f"http://{host}:{receiver.port}/", b"{}")
    assert receiver.connections == 0
    await poster.close()


async def test_the_address_that_was_checked_is_the_one_that_is_called(receiver: Receiver) -> None:
    """A name that answers with another address the second time is resolved once only."""
    answers = [["10.9.8.7"], ["127.0.0.1"]]
    resolved: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        resolved.append(host)
        return answers[len(resolved) % 2]

    poster = CallbackPoster(AddressPolicy(["127.0.0.0/8"]), resolve=resolve)
    assert await poster(f"http://rebinding.example:{receiver.port}/", b"{}") == 204
    assert resolved == ["rebinding.example"]
    assert receiver.requests[0][1]["host"] == f"rebinding.example:{receiver.port}"
    await poster.close()


async def test_only_the_allowed_ones_of_several_addresses_are_tried(receiver: Receiver) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["10.9.8.7", "127.0.0.2", "127.0.0.1"]  # nobody listens at 127.0.0.2

    poster = CallbackPoster(AddressPolicy(["127.0.0.0/8"]), resolve=resolve)
    assert await poster(f"http://several.example:{receiver.port}/", b"{}") == 204
    await poster.close()


async def test_a_receiver_that_does_not_answer_is_given_up(receiver: Receiver) -> None:
    receiver.stalls = True
    poster = CallbackPoster(AddressPolicy(["127.0.0.0/8"]), timeout_s=0.3)
    with pytest.raises(TimeoutError):
        await poster(f"http://127.0.0.1:{receiver.port}/", b"{}")
    await poster.close()


async def test_an_endless_answer_is_cut(receiver: Receiver, post: CallbackPoster, monkeypatch: Any) -> None:
    monkeypatch.setattr(callback_post, "RESPONSE_BYTES_MAX", 1000)
    receiver.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9000000000\r\n\r\n" + b"x" * 100_000
    assert await post(f"http://127.0.0.1:{receiver.port}/", b"{}") == 200
    receiver.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    assert await post(f"http://127.0.0.1:{receiver.port}/", b"{}") == 200
    assert receiver.connections == 2


async def test_nobody_listens(post: CallbackPoster, unused_port: int) -> None:
    with pytest.raises(httpcore.ConnectError):
        await post(f"http://127.0.0.1:{unused_port}/", b"{}")


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_tls_verifies_the_name_of_the_endpoint(monkeypatch: Any) -> None:
    authority = trustme.CA()
    receiver = Receiver()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("receiver.example").configure_cert(server_side)
    server = await asyncio.start_server(receiver.handle, "127.0.0.1", 0, ssl=server_side)
    port = server.sockets[0].getsockname()[1]
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    monkeypatch.setattr(callback_post.httpx, "create_ssl_context", lambda **_: client_side)

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    poster = CallbackPoster(AddressPolicy(["127.0.0.0/8"]), resolve=resolve)
    assert await poster(f"https://receiver.example:{port}/", b"{}") == 204
    with pytest.raises(httpcore.ConnectError):
        await poster(f"https://other.example:{port}/", b"{}")
    await poster.close()
    server.close()


async def test_a_sender_delivers_in_order_over_real_sockets(receiver: Receiver, post: CallbackPoster) -> None:
    sender = CallbackSender(post)
    futures = [sender.deliver("s", f"http://127.0.0.1:{receiver.port}/", b"%d" % number) for number in range(50)]
    assert set(await asyncio.gather(*futures)) == {Outcome.DELIVERED}
    assert [body for _, _, body in receiver.requests] == [b"%d" % number for number in range(50)]
    await sender.close()
