"""MQTT over WebSocket: real frames to a real MQTT endpoint, and the app's own affairs with a fake one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import connect as ws_connect

from actors.gateway.http import start_http
from actors.gateway.mqtt import ListenerOptions, MqttEndpoint
from actors.gateway.mqtt_websocket import WebSocketMqtt

CONNECT = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04kp-1"
CONNACK = b"\x20\x02\x00\x00"
PINGREQ, PINGRESP = b"\xc0\x00", b"\xd0\x00"


class Host:
    """The SSAP side: answers each request with its payload."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.sizes: list[int] = []

    def connected(self, connection: Any) -> Any:
        host = self

        class Channel:
            def receive(self, payload: bytes, token: object, *, clear: bool) -> None:
                host.requests.append(bytes(payload))
                connection.respond(token, b"answer")

            def oversized(self, token: object, size: int, head: bytes) -> None:
                host.sizes.append(size)
                connection.respond(token, b"too long")

            def closed(self) -> None:
                pass

        return Channel()

    async def authenticate(self, client_id: str, username: Any, password: Any, peer: str) -> bool:
        return True


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
async def url(gateway: Any, host: Host) -> AsyncIterator[str]:
    endpoint = MqttEndpoint(host)
    options = ListenerOptions(message_bytes_max=gateway.limits.message_bytes_max)
    server, port = await start_http(gateway, "127.0.0.1", 0, open_mqtt=partial(WebSocketMqtt, endpoint, options))
    yield f"ws://127.0.0.1:{port}/mqtt"
    await server.stop()
    await endpoint.stop()


@pytest.mark.parametrize("path", ["", "/"])
@pytest.mark.parametrize("name", ["mqtt", "mqttv3.1"])
async def test_connect_is_acknowledged(url: str, path: str, name: str) -> None:
    async with ws_connect(url + path, proxy=None, subprotocols=["other", name]) as socket:
        assert socket.subprotocol == name
        await socket.send(CONNECT)
        assert await socket.recv() == CONNACK


async def test_packets_may_be_cut_anywhere(url: str) -> None:
    async with ws_connect(url, proxy=None, subprotocols=["mqtt"]) as socket:
        for byte in CONNECT:
            await socket.send(bytes([byte]))
        await socket.send(PINGREQ + PINGREQ[:1])
        await socket.send(PINGREQ[1:])
        received = b""
        while len(received) < len(CONNACK + 2 * PINGRESP):
            received += await asyncio.wait_for(socket.recv(), 5)
        assert received == CONNACK + 2 * PINGRESP


async def test_a_publish_is_a_request(url: str, host: Host) -> None:
    async with ws_connect(url, proxy=None, subprotocols=["mqtt"]) as socket:
        await socket.send(CONNECT)
        assert await socket.recv() == CONNACK
        await socket.send(publish(b"{}"))
        assert await asyncio.wait_for(socket.recv(), 5) == b"\x40\x02\x00\x01"
        assert host.requests == [b"{}"]


@pytest.mark.parametrize("over_bytes", [1, 500_000])
async def test_a_publish_over_the_limit_is_answered_and_the_connection_goes_on(
    url: str, host: Host, gateway: Any, over_bytes: int
) -> None:
    size = gateway.limits.message_bytes_max + over_bytes
    async with ws_connect(url, proxy=None, subprotocols=["mqtt"]) as socket:
        await socket.send(CONNECT)
        assert await socket.recv() == CONNACK
        await socket.send(publish(b"x" * size))
        assert await asyncio.wait_for(socket.recv(), 5) == b"\x40\x02\x00\x01"
        assert len(host.sizes) == 1
        await socket.send(PINGREQ)
        assert await asyncio.wait_for(socket.recv(), 5) == PINGRESP


async def test_text_messages_are_refused(url: str) -> None:
    async with ws_connect(url, proxy=None, subprotocols=["mqtt"]) as socket:
        await socket.send("text")
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1003


async def test_garbage_closes_the_socket(url: str) -> None:
    async with ws_connect(url, proxy=None, subprotocols=["mqtt"]) as socket:
        await socket.send(b"\x00\x00\x00\x00")
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 5)


async def test_without_mqtt_the_path_is_refused(server: Any) -> None:
    with pytest.raises(websockets.InvalidStatus):
        async with ws_connect(f"ws://127.0.0.1:{server.port}/mqtt", proxy=None):
            pass


def publish(payload: bytes) -> bytes:
    """A QoS 1 PUBLISH to the topic "t" with packet id 1."""
    body = b"\x00\x01t\x00\x01" + payload
    length, digits = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | 128 if length else digit)
        if not length:
            return b"\x32" + bytes(digits) + body
