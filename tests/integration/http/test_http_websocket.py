"""SSAP over WebSocket with a real client and with frames written by hand."""

from __future__ import annotations

import asyncio
import json
import os
import struct
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import connect as ws_connect

from actors.gateway.http import start_http
from actors.gateway.websocket import OUTBOX_BYTES_MAX

PATH = "/sib/api_websocket"


def url(server: Any, path: str = PATH) -> str:
    return f"ws://127.0.0.1:{server.port}{path}"


@pytest.mark.parametrize("path", [PATH, PATH + "/"])
async def test_one_message_is_one_envelope(server: Any, gateway: Any, path: str) -> None:
    async with ws_connect(url(server, path), proxy=None) as socket:
        await socket.send('{"messageType":"JOIN","ñ":1}')
        assert json.loads(await socket.recv()) == {"echo": '{"messageType":"JOIN","ñ":1}'}
        assert socket.protocol.extensions == []
        assert gateway.channels[0].peer == "127.0.0.1"
    await asyncio.wait_for(gateway.channels[0].is_closed.wait(), 5)


async def test_the_subprotocol_of_python_api_is_echoed(server: Any) -> None:
    async with ws_connect(url(server), proxy=None, subprotocols=["http_only", "chat"]) as socket:
        assert socket.subprotocol == "http_only"


async def test_blank_messages_are_ignored_and_binary_ones_are_text(server: Any, gateway: Any) -> None:
    async with ws_connect(url(server), proxy=None) as socket:
        for blank in ("", " ", "\r\n \t"):
            await socket.send(blank)
        await socket.send(b'{"binary":1}')
        assert json.loads(await socket.recv()) == {"echo": '{"binary":1}'}
        assert gateway.channels[0].received == [b'{"binary":1}']


async def test_a_message_that_is_not_utf8_reaches_the_channel(connect: Any, gateway: Any) -> None:
    connection = await upgraded(connect)
    await connection.send(frame(b"\xff{", opcode=1))
    assert b"echo" in await read_frame(connection)
    assert gateway.channels[0].received == [b"\xff{"]


@pytest.mark.parametrize("over_bytes", [1, 200_000])
async def test_a_message_over_the_limit_is_answered_and_the_connection_goes_on(
    server: Any, gateway: Any, over_bytes: int
) -> None:
    size = gateway.limits.message_bytes_max + over_bytes
    async with ws_connect(url(server), proxy=None, max_size=None) as socket:
        await socket.send("first")
        await socket.send("x" * size)
        await socket.send("last")
        answers = [json.loads(await socket.recv()) for _ in range(3)]
        assert answers == [{"echo": "first"}, {"too_long": size}, {"echo": "last"}]
        assert gateway.channels[0].received[1].startswith(b"x" * 1024)


async def test_a_fragmented_message_over_the_limit_is_answered(server: Any, gateway: Any) -> None:
    async with ws_connect(url(server), proxy=None) as socket:
        await socket.send(["x" * 50_000] * 10)
        await socket.send(["one ", "mess", "age"])
        assert json.loads(await socket.recv()) == {"too_long": 500_000}
        assert json.loads(await socket.recv()) == {"echo": "one message"}


async def test_many_messages_in_one_segment_are_answered_in_order(connect: Any) -> None:
    connection = await upgraded(connect)
    messages = [b"%d" % number for number in range(200)]
    await connection.send(b"".join(frame(message) for message in messages))
    for message in messages:
        assert await read_frame(connection) == b'{"echo":"%b"}' % message


async def test_a_large_answer_after_a_too_long_message_in_the_same_segment(connect: Any, gateway: Any) -> None:
    """The size of a cut message belongs to it, not to its neighbours in the buffer."""
    connection = await upgraded(connect)
    size = gateway.limits.message_bytes_max * 2
    await connection.send(frame(b"a") + frame(b"x" * size) + frame(b"b"))
    assert await read_frame(connection) == b'{"echo":"a"}'
    assert await read_frame(connection) == b'{"too_long":%d}' % size
    assert await read_frame(connection) == b'{"echo":"b"}'


async def test_paused_channel_reads_no_further(server: Any, gateway: Any) -> None:
    def pause_at_first(channel: Any, payload: bytes) -> None:
        if len(channel.received) == 1:
            channel.transport.pause()
        channel.transport.answer(payload)

    gateway.on_receive = pause_at_first
    async with ws_connect(url(server), proxy=None) as socket:
        for number in range(5):
            await socket.send(str(number))
        assert await socket.recv() == "0"
        await asyncio.sleep(0.1)
        assert len(gateway.channels[0].received) == 1
        gateway.channels[0].transport.resume()
        assert [await socket.recv() for _ in range(4)] == ["1", "2", "3", "4"]


async def test_indications_to_a_client_that_does_not_read_are_bounded(server: Any, gateway: Any, connect: Any) -> None:
    connection = await upgraded(connect)
    transport = gateway.channels[0].transport
    block = b"x" * 1_000_000
    for _ in range(50):
        transport.indicate(block)
        await asyncio.sleep(0)
    assert transport.outbox.size_bytes <= OUTBOX_BYTES_MAX + len(block)
    await connection.send(frame(b"question"))
    for _ in range(100):
        message = await read_frame(connection)
        if message != block:
            break
    assert message == b'{"echo":"question"}'


async def test_abort_closes_with_try_again(server: Any, gateway: Any) -> None:
    gateway.on_receive = lambda channel, payload: channel.transport.abort()
    async with ws_connect(url(server), proxy=None) as socket:
        await socket.send("x")
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1013


async def test_an_idle_socket_is_closed_by_its_limit(gateway: Any) -> None:
    gateway.limits.websocket_idle_s = 0.5
    server, port = await start_http(gateway, "127.0.0.1", 0)
    try:
        async with ws_connect(f"ws://127.0.0.1:{port}{PATH}", proxy=None) as socket:
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await asyncio.wait_for(socket.recv(), 5)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
    finally:
        await server.stop()


async def test_a_frame_that_is_not_completed_ends_its_connection(connect: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("actors.gateway.http_protocol.FRAME_TIMEOUT_S", 0.5)
    connection = await upgraded(connect)
    await connection.send(frame(b"complete"))
    assert await read_frame(connection) == b'{"echo":"complete"}'
    await connection.send(frame(b"never complete")[:-3])
    assert await connection.read_to_end() == b""


async def test_an_unknown_websocket_path_is_refused(server: Any) -> None:
    with pytest.raises(websockets.InvalidStatus):
        async with ws_connect(url(server, "/other"), proxy=None):
            pass


async def upgraded(connect: Any) -> Any:
    connection = await connect()
    await connection.send(
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    head = await connection.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"server:" not in head.lower()
    return connection


def frame(payload: bytes, opcode: int = 1) -> bytes:
    mask = os.urandom(4)
    if len(payload) < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | len(payload))
    elif len(payload) < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, len(payload))
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, len(payload))
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")
    return head + mask + masked


async def read_frame(connection: Any) -> bytes:
    _, length = await asyncio.wait_for(connection.reader.readexactly(2), 10)
    if length == 126:
        (length,) = struct.unpack("!H", await connection.reader.readexactly(2))
    elif length == 127:
        (length,) = struct.unpack("!Q", await connection.reader.readexactly(8))
    return await asyncio.wait_for(connection.reader.readexactly(length), 10)
