"""Load over MQTT for the benchmarks: many KPs that JOIN and then INSERT with a window of unanswered requests.

Pure Python on asyncio with prepared packets, so that the generator costs a few microseconds a message.
"""

from __future__ import annotations

import asyncio
import collections
import json
import struct
import time
from dataclasses import dataclass, field

u16 = struct.Struct("!H").pack
PAYLOAD_BYTES = 490


@dataclass
class Load:
    """What all clients of a run share."""

    port: int
    kp: str
    token: str
    ontology: str
    window: int
    ends_at_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    refused: list[bytes] = field(default_factory=list)


def varint(n: int) -> bytes:
    out = bytearray()
    while True:
        out.append(n & 127 | (128 if n > 127 else 0))
        n >>= 7
        if not n:
            return bytes(out)


class MqttKp(asyncio.Protocol):
    """One KP: CONNECT, SUBSCRIBE, JOIN, then INSERTs. ``number`` makes its instances distinct."""

    def __init__(self, load: Load, number: int, *, client_id: str | None = None) -> None:
        self.load, self.number = load, number
        self.client_id = client_id or f"load{number}"
        self.rest = b""
        self.sent = self.acked = self.answered = self.indications = 0
        self.times: collections.deque[float] = collections.deque()
        self.joined: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.subscribed: asyncio.Future[bytes] | None = None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_loading = False
        self.template = b""
        self.on_indication = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        name = self.client_id.encode()
        topics = b"".join(
            u16(len(topic)) + topic + b"\1"
            for topic in (b"/TOPIC_MQTT_PUBLISH" + name, b"/TOPIC_MQTT_INDICATION" + name)
        )
        connect = b"\x10" + varint(12 + len(name)) + b"\0\4MQTT\4\2\0\0" + u16(len(name)) + name
        subscribe = b"\x82" + varint(2 + len(topics)) + b"\0\1" + topics
        body = json.dumps({"instance": f"{self.load.kp}:i{self.number}", "token": self.load.token})
        transport.write(connect + subscribe + self.publish(self.envelope("JOIN", body, None, None), 1))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)

    @staticmethod
    def envelope(message_type: str, body: str, session_key: str | None, ontology: str | None) -> bytes:
        return json.dumps(
            {
                "body": body,
                "direction": "REQUEST",
                "messageType": message_type,
                "messageId": None,
                "ontology": ontology,
                "sessionKey": session_key,
            }
        ).encode()

    @staticmethod
    def publish(payload: bytes, packet_id: int) -> bytes:
        body = b"\0\0" + u16(packet_id) + payload
        return b"\x32" + varint(len(body)) + body

    def subscribe(self, session_key: str, query: str) -> None:
        self.subscribed = asyncio.get_running_loop().create_future()
        body = json.dumps({"query": query, "queryType": "NATIVE", "msRefresh": "0"})
        self.transport.write(self.publish(self.envelope("SUBSCRIBE", body, session_key, self.load.ontology), 2))

    def prepare(self, session_key: str) -> None:
        instance = {
            "Sensor": {
                "geometry": {"coordinates": [40.512967, -3.67495], "type": "Point"},
                "assetId": "S_%05d",
                "groupId": "%d.%d",
                "measure": "MEASURE",
                "timestamp": {"$date": "2014-04-29T08:24:54.005Z"},
            }
        }
        body = json.dumps({"queryType": "NATIVE", "query": None, "data": json.dumps(instance)})
        text = self.envelope("INSERT", body, session_key, self.load.ontology).decode()
        self.template = text.replace('\\\\\\"MEASURE\\\\\\"', "%d.25").encode()

    def start(self) -> None:
        self.is_loading = True
        self.pump()

    def pump(self) -> None:
        load, out, now = self.load, [], time.perf_counter()
        while self.sent - self.acked < load.window and now < load.ends_at_s:
            n = self.sent
            self.sent += 1
            asset = (self.number * 131 + n) % 1000
            payload = b"\0\0" + u16(n % 65000 + 3) + self.template % (asset, self.number, n, n * 37 % 100)
            out += b"\x32", varint(len(payload)), payload
            self.times.append(now)
        if out:
            self.transport.write(b"".join(out))

    def data_received(self, data: bytes) -> None:
        data = self.rest + data if self.rest else data
        at, size = 0, len(data)
        acks = bytearray()
        while size - at >= 2:
            length, shift, start = 0, 0, at + 1
            while start < size:
                byte = data[start]
                start += 1
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            else:
                break
            if start + length > size:
                break
            self.packet(data[at], data, start, start + length, acks)
            at = start + length
        self.rest = data[at:]
        if acks:
            self.transport.write(bytes(acks))
        if self.is_loading:
            self.pump()

    def packet(self, head: int, data: bytes, start: int, end: int, acks: bytearray) -> None:
        kind = head >> 4
        if kind == 4:
            if self.is_loading and self.times:
                self.acked += 1
                self.load.latencies_s.append(time.perf_counter() - self.times.popleft())
        elif kind == 3:
            at = start + 2 + (data[start] << 8 | data[start + 1])
            if head & 6:
                acks += b"\x40\x02" + data[at : at + 2]
                at += 2
            if data[start + 2 : start + 24] == b"/TOPIC_MQTT_INDICATION":
                self.indications += 1
                if self.on_indication is not None:
                    self.on_indication(data[at:end])
            elif self.is_loading:
                self.answered += 1
                if b'\\"ok\\":true' not in data[at:end]:
                    self.load.refused.append(data[at:end])
            elif not self.joined.done():
                answer = json.loads(data[at:end])
                if answer["sessionKey"] is None:
                    self.joined.set_exception(RuntimeError(answer["body"]))
                else:
                    self.joined.set_result(answer["sessionKey"])
            elif self.subscribed is not None and not self.subscribed.done():
                self.subscribed.set_result(data[at:end])


async def connect(load: Load, number: int, *, client_id: str | None = None) -> MqttKp:
    """A KP that has joined; ``prepare`` was called."""
    loop = asyncio.get_running_loop()
    _, kp = await loop.create_connection(lambda: MqttKp(load, number, client_id=client_id), "127.0.0.1", load.port)
    kp.prepare(await kp.joined)
    return kp
