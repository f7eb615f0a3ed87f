"""Load for an MQTT listener, and the cost of ours without anything behind it.

    python benchmarks/mqtt_load.py --self                     an endpoint of its own, acknowledging at once
    python benchmarks/mqtt_load.py --port 1883                somebody else's listener

Packets are encoded once and patched (packet id, a counter), so that the generator costs little beside what it loads.
Prints messages/s, the time from PUBLISH to PUBACK and to the answer, and with ``--self`` the CPU time of the endpoint,
which runs in a process of its own. A tool for measuring by hand: nothing here is a test.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).parent.parent))

from sib.mqtt import codec, wire
from sib.mqtt.kp_topics import ANSWER, own_topic

ANSWER_TEXT = (
    b'{"messageId":null,"sessionKey":"7e1bd673-aede-406a-b28c-000000000000","ontology":"TestSensorTemperatura",'
    b'"direction":"RESPONSE","messageType":"INSERT","body":"{\\"data\\":\\"{\\\\\\"_id\\\\\\":ObjectId(\\\\\\"'
    b'%024x\\\\\\")}\\",\\"ok\\":true,\\"error\\":null,\\"errorCode\\":null}"}'
)


@dataclass
class Load:
    """What to send."""

    clients: int
    messages: int
    """By each client."""
    qos: int
    window: int
    size_bytes: int
    version: int
    answer_qos: int
    """QoS of the subscription to the answers; -1 = none."""


@dataclass
class Result:
    """What came of it. Times in seconds."""

    sent: int = 0
    acknowledged: int = 0
    answered: int = 0
    elapsed_s: float = 0.0
    ack_s: list[float] = field(default_factory=list)
    answer_s: list[float] = field(default_factory=list)


class LoadClient(asyncio.Protocol):
    """One device: keeps a window of PUBLISHes on their way until it has sent its number."""

    def __init__(self, number: int, load: Load, result: Result) -> None:
        loop = asyncio.get_running_loop()
        self.load = load
        self.result = result
        self.client_id = f"load{number}"
        self.ready: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()
        self.sent = self.finished = 0
        self.rest = b""
        self.ack_times: deque[float] = deque()
        self.answer_times: deque[float] = deque()
        head = b'{"direction":"REQUEST","messageType":"INSERT","ontology":"TestSensorTemperatura","body":"'
        filler = b"x" * max(0, load.size_bytes - len(head) - 12)
        payload = head + b"0000000000" + filler + b'"}'
        publish = codec.Publish("CLIENT_TOPIC", payload, load.qos, packet_id=1 if load.qos else 0)
        self.packet = bytearray(codec.encode_publish(publish, load.version))
        self.id_at = len(self.packet) - len(payload) - 2 - (load.version == codec.MQTT_5)
        self.counter_at = len(self.packet) - len(payload) + len(head)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        properties = b"\0" if self.load.version == codec.MQTT_5 else b""
        name = wire.encode_string("MQIsdp" if self.load.version == codec.MQTT_3_1 else "MQTT")
        head = name + bytes((self.load.version, 2, 0, 120)) + properties
        transport.write(codec.encode_packet(codec.CONNECT, 0, head, wire.encode_string(self.client_id)))
        if self.load.answer_qos >= 0:
            topic = wire.encode_string(own_topic(ANSWER, self.client_id)) + bytes((self.load.answer_qos,))
            transport.write(codec.encode_packet(codec.SUBSCRIBE, 2, b"\0\1", properties, topic))

    def pump(self) -> None:
        load, packet, out, now = self.load, self.packet, [], time.perf_counter()
        waiting = self.answer_times if load.answer_qos >= 0 else self.ack_times
        while self.sent < load.messages and len(waiting) < load.window:
            self.sent += 1
            if load.qos:
                packet[self.id_at : self.id_at + 2] = wire.encode_uint16((self.sent - 1) % 65535 + 1)
                self.ack_times.append(now)
            if load.answer_qos >= 0:
                self.answer_times.append(now)
            packet[self.counter_at : self.counter_at + 10] = b"%010d" % self.sent
            out.append(bytes(packet))
        if out:
            self.transport.write(b"".join(out))

    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        at, size, now, out = 0, len(data), time.perf_counter(), []
        while size - at >= 2:
            length, start = data[at + 1], at + 2
            if length > 127:
                if size - at < 3:
                    break
                length, start = (length & 127) | data[at + 2] << 7, at + 3
            if start + length > size:
                break
            kind = data[at] >> 4
            if kind == codec.PUBACK:
                self.result.ack_s.append(now - self.ack_times.popleft())
            elif kind == codec.PUBREC:
                out.append(b"\x62\x02" + data[start : start + 2])
            elif kind == codec.PUBCOMP:
                self.result.ack_s.append(now - self.ack_times.popleft())
            elif kind == codec.PUBLISH:
                self.result.answer_s.append(now - self.answer_times.popleft())
                if data[at] & 6:
                    topic = start + 2 + (data[start] << 8 | data[start + 1])
                    out.append(b"\x40\x02" + data[topic : topic + 2])
            elif kind == (codec.SUBACK if self.load.answer_qos >= 0 else codec.CONNACK):
                self.ready.set_result(None)
            at = start + length
        self.rest = data[at:]
        if out:
            self.transport.write(b"".join(out))
        if self.sent == self.load.messages and not self.ack_times and not self.answer_times:
            if not self.done.done():
                self.done.set_result(None)
        elif self.sent:
            self.pump()

    def connection_lost(self, exc: Exception | None) -> None:
        for waiting in (self.ready, self.done):
            if not waiting.done():
                waiting.set_exception(ConnectionError(f"{self.client_id} lost its connection: {exc}"))


async def run_load(host: str, port: int, load: Load) -> Result:
    """Connect all clients, then let them send together."""
    loop, result = asyncio.get_running_loop(), Result()
    clients: list[LoadClient] = []
    for number in range(load.clients):
        _, client = await loop.create_connection(lambda n=number: LoadClient(n, load, result), host, port)
        await client.ready
        clients.append(client)
    began = time.perf_counter()
    for client in clients:
        client.pump()
    await asyncio.gather(*(client.done for client in clients))
    result.elapsed_s = time.perf_counter() - began
    result.sent = sum(client.sent for client in clients)
    result.acknowledged, result.answered = len(result.ack_s), len(result.answer_s)
    return result


def serve(pipe: Connection, answers: bool) -> None:
    """An endpoint whose host acknowledges at once; says its CPU time when asked."""
    from actors.gateway.mqtt import MqttEndpoint, start_listener

    class Channel:
        def __init__(self, connection: Any) -> None:
            self.connection = connection
            self.count = 0

        def receive(self, payload: bytes, token: object, *, clear: bool) -> None:
            if answers:
                self.count += 1
                self.connection.respond(token, ANSWER_TEXT % self.count)
            else:
                self.connection.acknowledge(token)

        def oversized(self, token: object, size: int) -> None:
            self.connection.acknowledge(token)

        def closed(self) -> None:
            pass

    class Host:
        def connected(self, connection: Any) -> Channel:
            return Channel(connection)

        async def authenticate(self, *_: object) -> bool:
            return True

    async def main() -> None:
        endpoint = MqttEndpoint(Host())  # type: ignore[arg-type]
        await endpoint.start()
        _, port = await start_listener(endpoint, "127.0.0.1", 0)
        pipe.send(port)
        while await asyncio.to_thread(pipe.recv):
            usage = resource.getrusage(resource.RUSAGE_SELF)
            memory = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line)
            pipe.send((usage.ru_utime + usage.ru_stime, int(memory.split()[1]) * 1024))
        await endpoint.stop()

    uvloop.run(main())


def percentile_ms(values: list[float], part: float) -> float:
    """The value below which ``part`` of the values lie, in milliseconds."""
    ordered = sorted(values)
    return ordered[int(len(ordered) * part)] * 1e3 if ordered else 0.0


def report(load: Load, result: Result, cpu_s: float | None) -> list[dict[str, Any]]:
    """Rows of what was measured: what, value, unit."""
    rows: list[tuple[str, float, str]] = [("messages", result.sent / result.elapsed_s, "1/s")]
    for name, values in (("acknowledgement", result.ack_s), ("answer", result.answer_s)):
        if values:
            rows.append((f"{name} p50", percentile_ms(values, 0.5), "ms"))
            rows.append((f"{name} p99", percentile_ms(values, 0.99), "ms"))
    if cpu_s is not None:
        rows.append(("endpoint CPU", cpu_s / result.sent * 1e6, "us/message"))
    return [{"what": what, "value": round(value, 3), "unit": unit} for what, value, unit in rows]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--self", action="store_true", help="load an endpoint of our own")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--messages", type=int, default=1000, help="by each client")
    parser.add_argument("--qos", type=int, default=1, choices=(0, 1, 2))
    parser.add_argument("--window", type=int, default=20)
    parser.add_argument("--size", type=int, default=490, help="payload, bytes")
    parser.add_argument("--mqtt", type=int, default=4, choices=(3, 4, 5))
    parser.add_argument("--answers", type=int, default=0, choices=(-1, 0, 1), help="QoS of answers; -1 = none wanted")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    load = Load(given.clients, given.messages, given.qos, given.window, given.size, given.mqtt, given.answers)
    cpu_s: float | None = None
    if given.self:
        pipe, other = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(other, given.answers >= 0))
        process.start()
        port = pipe.recv()
        pipe.send(True)
        before_s, _ = pipe.recv()
        result = uvloop.run(run_load("127.0.0.1", port, load))
        pipe.send(True)
        cpu_s = pipe.recv()[0] - before_s
        pipe.send(False)
        process.join()
    else:
        result = uvloop.run(run_load(given.host, given.port, load))
    rows = report(load, result, cpu_s)
    for row in rows:
        print(f"{row['what']:<24}{row['value']:>14,.3f} {row['unit']}")
    if given.json:
        given.json.write_text(json.dumps({"name": "mqtt_load", "load": vars(load), "results": rows}))


if __name__ == "__main__":
    main()
