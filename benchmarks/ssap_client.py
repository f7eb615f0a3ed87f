"""Load over MQTT: many KPs that JOIN and then INSERT, each with a window of unanswered requests.

Pure Python on asyncio with prepared packets, so that the generator costs a few microseconds a message.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.platform_under_test import KP, ONTOLOGY, TOKEN

ANSWERS, INDICATIONS = b"/TOPIC_MQTT_PUBLISH", b"/TOPIC_MQTT_INDICATION"
JOIN_ID, SUBSCRIBE_ID, FIRST_INSERT_ID = 1, 2, 3
"""Packet ids; those of INSERTs go round above the first."""
INSERT_IDS = 65_000
PAYLOAD_BYTES = 490
"""Of an INSERT: an instance of 300 bytes, doubly encoded as C and Node KPs send it."""

_uint16 = struct.Struct("!H").pack


@dataclass
class Load:
    """What all clients of a run share. The run ends when ``messages_left`` have been sent, or at ``ends_at_s``."""

    port: int
    window: int
    messages_left: int = 1 << 60
    ends_at_s: float = float("inf")
    acknowledged: int = 0
    latencies_s: array[float] = field(default_factory=lambda: array("d"))
    """From PUBLISH to PUBACK."""
    refused: list[bytes] = field(default_factory=list)


def encode_length(value: int) -> bytes:
    """A remaining length of MQTT."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        out.append(low | 128 if value else low)
        if not value:
            return bytes(out)


def encode_publish(payload: bytes, packet_id: int, topic: bytes = b"") -> bytes:
    """A PUBLISH of QoS 1; KPs use the empty topic."""
    body = _uint16(len(topic)) + topic + _uint16(packet_id) + payload
    return b"\x32" + encode_length(len(body)) + body


def encode_connect(client_id: bytes, *, is_clean: bool = True) -> bytes:
    """A CONNECT of MQTT 3.1.1 without keep-alive."""
    return (
        b"\x10"
        + encode_length(12 + len(client_id))
        + b"\0\4MQTT\4"
        + (b"\2" if is_clean else b"\0")
        + b"\0\0"
        + _uint16(len(client_id))
        + client_id
    )


def encode_subscribe(topics: list[bytes]) -> bytes:
    """A SUBSCRIBE of QoS 1 to the topics."""
    filters = b"".join(_uint16(len(topic)) + topic + b"\1" for topic in topics)
    return b"\x82" + encode_length(2 + len(filters)) + b"\0\1" + filters


def envelope(
    message_type: str, body: Any, session_key: str | None, ontology: str | None, message_id: str | None = None
) -> bytes:
    """An SSAP request with the body as text, as most KPs send it."""
    fields = {
        "body": json.dumps(body),
        "direction": "REQUEST",
        "messageType": message_type,
        "messageId": message_id,
        "ontology": ontology,
        "sessionKey": session_key,
    }
    return json.dumps(fields).encode()


def join(instance: str) -> bytes:
    """A JOIN with the benchmark's token."""
    return envelope("JOIN", {"instance": f"{KP}:{instance}", "token": TOKEN}, None, None)


def subscribe(session_key: str, query: str) -> bytes:
    """A SUBSCRIBE with a native condition."""
    body = {"query": query, "queryType": "NATIVE", "msRefresh": "0"}
    return envelope("SUBSCRIBE", body, session_key, ONTOLOGY)


def instance(asset_id: str, group_id: str, measure: Any) -> dict[str, Any]:
    """An instance of SensorPoint."""
    return {
        "Sensor": {
            "geometry": {"coordinates": [40.512967, -3.67495], "type": "Point"},
            "assetId": asset_id,
            "groupId": group_id,
            "measure": measure,
            "timestamp": {"$date": "2014-04-29T08:24:54.005Z"},
        }
    }


def insert(session_key: str, data: dict[str, Any], message_id: str | None = None) -> bytes:
    """A native INSERT."""
    body = {"queryType": "NATIVE", "query": None, "data": json.dumps(data)}
    return envelope("INSERT", body, session_key, ONTOLOGY, message_id)


def insert_template(session_key: str) -> bytes:
    """An INSERT to be completed with (asset number, client, message, measure)."""
    text = insert(session_key, instance("S_%05d", "%d.%d", "MEASURE")).decode()
    return text.replace('\\\\\\"MEASURE\\\\\\"', "%d.25").encode()


def insert_values(client: int, number: int) -> tuple[int, int, int, int]:
    """What completes the template: 1,000 assets, measures from 0.25 to 99.25 evenly."""
    return (client * 131 + number) % 1000, client, number, number * 37 % 100


class Framing(asyncio.Protocol):
    """Splits what comes into MQTT packets; acknowledges PUBLISHes of QoS 1 and hands each packet to ``packet``."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def packet(self, kind: int, body: memoryview | bytes) -> None:
        """PUBACK: the body is the packet id; PUBLISH: topic length, topic, payload without the packet id."""

    def settled(self) -> None:
        """All packets of one read have been handed over."""

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        at, size = 0, len(data)
        acknowledgements = bytearray()
        while size - at >= 2:
            length = shift = 0
            start = at + 1
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
            head, end = data[at], start + length
            if head & 0xF6 == 0x32:
                payload_at = start + 4 + (data[start] << 8 | data[start + 1])
                acknowledgements += b"\x40\x02" + data[payload_at - 2 : payload_at]
                self.packet(3, data[start : payload_at - 2] + data[payload_at:end])
            else:
                self.packet(head >> 4, data[start:end])
            at = end
        self._rest = data[at:]
        if acknowledgements:
            self.transport.write(bytes(acknowledgements))
        self.settled()


class LoadKp(Framing):
    """One KP of a load: CONNECT, SUBSCRIBE, JOIN, then INSERTs. ``number`` makes its instances distinct."""

    def __init__(self, load: Load, number: int) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        self.load, self.number = load, number
        self.client_id = b"load%d" % number
        self.sent = self.acknowledged = self.answered = self.indications = 0
        self.session_key = ""
        self.joined: asyncio.Future[None] = loop.create_future()
        self.subscribed: asyncio.Future[None] | None = None
        self.is_loading = False
        self._times: deque[float] = deque()
        self._template = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        name = self.client_id
        self.transport.write(
            encode_connect(name)
            + encode_subscribe([ANSWERS + name, INDICATIONS + name])
            + encode_publish(join(f"i{self.number}"), JOIN_ID)
        )

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.joined.done():
            self.joined.set_exception(ConnectionError("the connection was lost before the JOIN was answered"))

    async def subscribe(self, query: str) -> None:
        """SUBSCRIBE and wait for the answer."""
        self.subscribed = asyncio.get_running_loop().create_future()
        self.transport.write(encode_publish(subscribe(self.session_key, query), SUBSCRIBE_ID))
        await self.subscribed

    def start(self) -> None:
        self.is_loading = True
        self._pump()

    @property
    def is_done(self) -> bool:
        return self.answered >= self.sent

    def _pump(self) -> None:
        load, out, now = self.load, [], time.perf_counter()
        while self.sent - self.acknowledged < load.window and load.messages_left > 0 and now < load.ends_at_s:
            number = self.sent
            self.sent += 1
            load.messages_left -= 1
            packet_id = _uint16(number % INSERT_IDS + FIRST_INSERT_ID)
            body = b"\0\0" + packet_id + self._template % insert_values(self.number, number)
            out += b"\x32", encode_length(len(body)), body
            self._times.append(now)
        if out:
            self.transport.write(b"".join(out))

    def packet(self, kind: int, body: memoryview | bytes) -> None:
        if kind == 4:
            if self.is_loading and self._times:
                self.acknowledged += 1
                self.load.acknowledged += 1
                self.load.latencies_s.append(time.perf_counter() - self._times.popleft())
        elif kind == 3:
            payload_at = 2 + (body[0] << 8 | body[1])
            if bytes(body[2:24]) == INDICATIONS:
                self.indications += 1
            elif self.is_loading:
                self.answered += 1
                if b'\\"ok\\":true' not in bytes(body):
                    self.load.refused.append(bytes(body[payload_at:]))
            else:
                self._answer(bytes(body[payload_at:]))

    def _answer(self, payload: bytes) -> None:
        if not self.joined.done():
            answer = json.loads(payload)
            if answer["sessionKey"] is None:
                self.joined.set_exception(RuntimeError(answer["body"]))
                return
            self.session_key = answer["sessionKey"]
            self._template = insert_template(self.session_key)
            self.joined.set_result(None)
        elif self.subscribed is not None and not self.subscribed.done():
            self.subscribed.set_result(None)

    def settled(self) -> None:
        if self.is_loading:
            self._pump()


async def connect_kp(load: Load, number: int) -> LoadKp:
    """A KP that has joined."""
    loop = asyncio.get_running_loop()
    _, kp = await loop.create_connection(lambda: LoadKp(load, number), "127.0.0.1", load.port)
    await kp.joined
    return kp


async def connect_kps(load: Load, count: int) -> list[LoadKp]:
    """As many KPs that have joined."""
    return list(await asyncio.gather(*(connect_kp(load, number) for number in range(count))))


async def run_load(
    load: Load, kps: list[LoadKp], every_s: float = 1.0, watch: Callable[[float, int], None] | None = None
) -> float:
    """Let all KPs send until the load ends and everything is answered; the seconds until the last answer.

    ``watch(seconds, acknowledged)`` is called about every ``every_s`` seconds.

    Raises:
        RuntimeError: answers are missing a minute after the last acknowledgement.
    """
    began = last_progress_s = time.perf_counter()
    acknowledged = 0
    for kp in kps:
        kp.start()
    while True:
        await asyncio.sleep(min(every_s, 0.05) if load.messages_left <= 0 else every_s)
        now = time.perf_counter()
        if watch is not None:
            watch(now - began, load.acknowledged)
        if load.acknowledged != acknowledged:
            acknowledged, last_progress_s = load.acknowledged, now
        is_over = load.messages_left <= 0 or now >= load.ends_at_s
        if is_over and all(kp.is_done for kp in kps):
            return now - began
        if now - last_progress_s > 60:
            raise RuntimeError(f"no acknowledgement for 60 s after {acknowledged} messages")
