"""The adapter that makes an MQTT connection of WebSocket frames."""

from __future__ import annotations

import asyncio

from actors.gateway.mqtt import ListenerOptions
from actors.gateway.mqtt_websocket import WRITE_HIGH_BYTES, WebSocketMqtt
from sib.mqtt import codec, wire
from sib.mqtt.kp_topics import ANSWER, own_topic


class Socket:
    """What the HTTP app does with a WebSocket."""

    def __init__(self, endpoint, options=None):
        self.frames = []
        self.closes = 0
        self.readings = []
        self.mqtt = WebSocketMqtt(
            endpoint,
            options or ListenerOptions(),
            send=self.frames.append,
            close=self._close,
            peer="10.0.0.1:5000",
            set_reading=self.readings.append,
        )

    def _close(self):
        self.closes += 1

    async def take(self):
        for _ in range(4):
            await asyncio.sleep(0)
        frames, self.frames[:] = b"".join(self.frames), []
        return frames


CONNECT = codec.encode_packet(codec.CONNECT, 0, b"\0\4MQTT\4\2\0\0", wire.encode_string("ws"))
SUBSCRIBE = codec.encode_packet(codec.SUBSCRIBE, 2, b"\0\1", wire.encode_string(own_topic(ANSWER, "ws")), b"\0")


def request(payload, packet_id=1):
    return codec.encode_publish(codec.Publish("", payload, 1, packet_id=packet_id), 4)


async def test_packets_over_frames_cut_anywhere(serve):
    server = await serve()
    socket = Socket(server.endpoint)
    stream = CONNECT + SUBSCRIBE + request(b"hello")
    for at in range(0, len(stream), 7):
        socket.mqtt.feed(stream[at : at + 7])
    answer = codec.encode_publish(codec.Publish("/TOPIC_MQTT_PUBLISHws", b"answer to hello"), 4)
    assert await socket.take() == b"\x20\x02\0\0" + b"\x90\x03\0\1\0" + b"\x40\x02\0\1" + answer
    assert server.channel("ws").connection.peer == "10.0.0.1:5000"
    socket.mqtt.closed()
    socket.mqtt.closed()
    assert server.channel("ws").is_closed
    assert not server.endpoint.connections


async def test_disconnect_closes_the_websocket_once(serve):
    server = await serve()
    socket = Socket(server.endpoint)
    socket.mqtt.feed(CONNECT + b"\xe0\0")
    assert socket.closes == 1
    socket.mqtt.feed(b"\xc0\0")
    socket.mqtt.closed()
    assert socket.closes == 1
    assert server.endpoint.sessions == {}


async def test_a_broken_packet_closes_after_the_last_words(serve):
    server = await serve()
    socket = Socket(server.endpoint)
    socket.mqtt.feed(codec.encode_packet(codec.CONNECT, 0, b"\0\4MQTT\5\2\0\0\0", wire.encode_string("ws")))
    socket.mqtt.feed(b"\x36\x00")
    frames = await socket.take()
    assert frames.endswith(b"\xe0\x01\x81")
    assert socket.closes == 1


async def test_back_pressure_both_ways(serve):
    server = await serve(react=None)
    socket = Socket(server.endpoint)
    socket.mqtt.feed(CONNECT + SUBSCRIBE)
    connection = server.channel("ws").connection
    connection.pause()
    assert not socket.mqtt.is_reading
    socket.mqtt.feed(request(b"waits"))
    assert not server.channel("ws").received
    connection.resume()
    await asyncio.sleep(0)
    assert socket.readings == [False, True]
    assert len(server.channel("ws").received) == 1
    socket.mqtt.drained(WRITE_HIGH_BYTES + 1)
    assert not socket.mqtt.is_reading
    socket.mqtt.drained(0)
    await asyncio.sleep(0)
    assert socket.mqtt.is_reading


async def test_it_takes_over_from_a_socket(serve):
    server = await serve()
    tcp = await server.client("ws", version=5)
    socket = Socket(server.endpoint)
    socket.mqtt.feed(CONNECT)
    assert await tcp.goodbye() == 0x8E
    assert await socket.take() == b"\x20\x02\0\0"
