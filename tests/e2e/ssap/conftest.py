"""Devices for the tests: raw MQTT by the byte, WebSocket and REST, with the frames that the published clients send."""

from __future__ import annotations

import asyncio
import json
import os
import time
import types
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.asyncio.client import connect as connect_websocket

from sib.mqtt import codec, wire
from sib.mqtt.kp_topics import OWN_TOPICS
from sib.ssap.cipher import decipher, encipher
from sofia2.apply import apply_files
from storage.bdc.bdc import open_bdc

WAIT_S = 15
APPLY_FILE = Path(__file__).with_name("ssap.yaml")
ONTOLOGY = "TestSensorTemperatura"
ONE_TYPES = {
    "JOIN": "SSAPBodyJoinTokenMessage",
    "LEAVE": "SSAPBodyEmptyMessage",
    "QUERY": "SSAPBodyQueryMessage",
    "SUBSCRIBE": "SSAPBodySubscribeMessage",
    "UNSUBSCRIBE": "SSAPBodyUnsubscribeMessage",
    "BULK": "SSAPBodyBulkMessage",
}


@dataclass
class Sib:
    """The platform under test."""

    data: str
    endpoints: dict[str, str]
    kp: str = "KPSsap"
    token: str = "ssap0000000000000000000000000001"

    def address(self, name: str) -> tuple[str, int]:
        parts = urlsplit(self.endpoints[name])
        return parts.hostname, parts.port

    @property
    def bdc(self):
        config = json.loads((Path(self.data) / "run" / "config.json").read_text())
        return open_bdc(config["bdc_url"])

    def apply(self, text: str) -> float:
        """Bring the configuration to what the YAML text says; returns when it was written, on the monotonic clock."""
        file = Path(self.data) / f"apply-{time.monotonic_ns()}.yaml"
        file.write_text("sofia2: 1\n" + text)
        file.chmod(0o600)
        report = apply_files(self.bdc, [file])
        assert report.is_ok, report.problems
        return time.monotonic()


@dataclass
class Event:
    """Something that came over a connection. ``kind``: puback, pubrec, pubcomp, answer, indication, command, suback."""

    kind: str
    payload: bytes = b""
    packet_id: int = 0
    qos: int = 0


class Reply(dict):
    """An SSAP message from the platform: the envelope, with its body read."""

    @property
    def return_body(self) -> dict[str, Any]:
        body = self["body"]
        return json.loads(body) if isinstance(body, str) else body

    @property
    def data(self) -> Any:
        return self.return_body["data"]

    @property
    def ok(self) -> bool:
        return self.return_body["ok"]

    @property
    def code(self) -> str | None:
        return self.return_body["errorCode"]

    @property
    def error(self) -> str | None:
        return self.return_body["error"]

    @property
    def rows(self) -> list[Any]:
        """The instances, whatever the dialect."""
        return json.loads(self.data) if isinstance(self.data, str) else self.data


def frame(message_type, body, *, session_key=None, ontology=None, dialect="string", **fields) -> bytes:
    """A request as the clients of this dialect shape it."""
    message = {
        "direction": "REQUEST",
        "messageType": message_type,
        "messageId": None,
        "sessionKey": session_key,
        "ontology": ontology,
        **fields,
    }
    if dialect == "one":
        message["version"] = "ONE"
        kind = ONE_TYPES.get(message_type, "SSAPBodyOperationMessage")
        body = {"@type": kind, "version": "ONE", **body} if isinstance(body, dict) else body
    if dialect == "string" and body is not None and not isinstance(body, str):
        body = json.dumps(body)
    return json.dumps({**message, "body": body}).encode()


class Device:
    """A connection of one KP; ``events`` are all that came, in order."""

    dialect = "string"

    def __init__(self, sib: Sib) -> None:
        self.sib = sib
        self.events: list[Event] = []
        self.key: str | None = None
        self.cipher_key: str | None = None
        self._taken: dict[str, int] = {}
        self._came = asyncio.Event()
        self._task: asyncio.Task | None = None
        self.is_closed = False

    # What the transports do

    async def send(self, payload: bytes) -> None:
        raise NotImplementedError

    async def _read(self) -> None:
        raise NotImplementedError

    def _note(self, event: Event) -> None:
        self.events.append(event)
        self._came.set()

    def _listen(self) -> None:
        async def run():
            try:
                await self._read()
            except (OSError, EOFError, asyncio.IncompleteReadError):
                pass
            finally:
                self.is_closed = True
                self._came.set()

        self._task = asyncio.create_task(run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # What tests do

    async def event(self, kind: str, timeout_s: float = WAIT_S) -> Event:
        """The next event of a kind that was not taken yet."""
        at = self._taken.get(kind, 0)
        async with asyncio.timeout(timeout_s):
            while True:
                self._came.clear()
                for number in range(at, len(self.events)):
                    if self.events[number].kind == kind:
                        self._taken[kind] = number + 1
                        return self.events[number]
                if self.is_closed:
                    raise ConnectionError(f"closed; came: {[event.kind for event in self.events[-20:]]}")
                await self._came.wait()

    def _message(self, payload: bytes) -> Reply:
        text = payload.decode()
        if not text.startswith("{"):
            text = decipher(text, self.cipher_key)
        return Reply(json.loads(text))

    async def answer(self, timeout_s: float = WAIT_S) -> Reply:
        return self._message((await self.event("answer", timeout_s)).payload)

    async def indication(self, timeout_s: float = WAIT_S) -> Reply:
        return self._message((await self.event("indication", timeout_s)).payload)

    async def command(self, timeout_s: float = WAIT_S) -> Reply:
        return self._message((await self.event("command", timeout_s)).payload)

    async def nothing(self, kind: str, for_s: float = 0.5) -> None:
        """No event of this kind comes."""
        try:
            event = await self.event(kind, for_s)
        except TimeoutError:
            return
        raise AssertionError(f"unexpected {kind}: {event.payload!r}")

    async def ask_raw(self, payload: bytes, timeout_s: float = WAIT_S) -> Reply:
        await self.send(payload)
        return await self.answer(timeout_s)

    async def ask(
        self, message_type, body, *, key="mine", ontology=None, dialect=None, timeout_s=WAIT_S, **fields
    ) -> Reply:
        payload = frame(
            message_type,
            body,
            session_key=self.key if key == "mine" else key,
            ontology=ontology,
            dialect=dialect or self.dialect,
            **fields,
        )
        return await self.ask_raw(self.encoded(payload, message_type), timeout_s)

    def encoded(self, payload: bytes, message_type: str) -> bytes:
        if self.cipher_key is None:
            return payload
        prefix = f"{len(self.sib.kp)}#{self.sib.kp}" if message_type == "JOIN" else ""
        return (prefix + encipher(payload.decode(), self.cipher_key)).encode()

    async def join(self, kp=None, instance="i1", token=None, **ask) -> str:
        kp, token = kp or self.sib.kp, token or self.sib.token
        answer = await self.ask("JOIN", {"instance": f"{kp}:{instance}", "token": token}, key=None, **ask)
        assert answer.ok, answer
        self.key = answer["sessionKey"]
        return self.key

    async def insert(self, instance=None, ontology=ONTOLOGY, **ask) -> Reply:
        data = instance if isinstance(instance, str) else json.dumps(sensor() if instance is None else instance)
        return await self.ask("INSERT", {"data": data, "query": None}, ontology=ontology, **ask)

    async def query(self, text, type="NATIVE", ontology=ONTOLOGY, **ask) -> Reply:
        return await self.ask("QUERY", {"query": text, "queryType": type}, ontology=ontology, **ask)

    async def subscribe(self, text="", type="NATIVE", ms_refresh: Any = "0", ontology=ONTOLOGY, **ask) -> str:
        body = {"query": text, "msRefresh": ms_refresh, "queryType": type}
        answer = await self.ask("SUBSCRIBE", body, ontology=ontology, **ask)
        assert answer.ok, answer
        return answer.data

    async def unsubscribe(self, id_, **ask) -> Reply:
        return await self.ask("UNSUBSCRIBE", {"idSuscripcion": id_}, **ask)

    async def leave(self, **ask) -> Reply:
        return await self.ask("LEAVE", None, **ask)

    async def clear(self, **ask) -> None:
        answer = await self.ask("DELETE", {"query": f"db.{ONTOLOGY}.remove({{}})", "queryType": "NATIVE"}, **ask)
        assert answer.ok, answer


class MqttDevice(Device):
    """Raw MQTT. ``topic`` is where requests go."""

    def __init__(self, sib, client_id, *, version=codec.MQTT_3_1, topic="", qos=1, answer_qos=1, clean=True):
        super().__init__(sib)
        self.client_id, self.version, self.topic = client_id, version, topic
        self.qos, self.answer_qos, self.clean = qos, answer_qos, clean
        self.packet_id = 1
        self.acknowledges = True
        self.streams: Any = None

    async def open(self, *, subscribe=True) -> MqttDevice:
        """CONNECT, on ``streams`` if there are any."""
        self.reader, self.writer = self.streams or await asyncio.open_connection(*self.sib.address("mqtt"))
        name = "MQIsdp" if self.version == codec.MQTT_3_1 else "MQTT"
        self.write(
            codec.encode_packet(
                codec.CONNECT,
                0,
                wire.encode_string(name) + bytes((self.version, 2 * self.clean)) + wire.encode_uint16(0),
                b"\0" if self.version == codec.MQTT_5 else b"",
                wire.encode_string(self.client_id),
            )
        )
        kind, _, body = await self._packet()
        assert kind == codec.CONNACK
        assert body[1] == 0, body
        self.session_present = bool(body[0])
        self._listen()
        if subscribe:
            await self.subscribe_own()
        return self

    async def subscribe_own(self):
        filters = b"".join(
            wire.encode_string(topic + self.client_id) + bytes((self.answer_qos,)) for topic in OWN_TOPICS
        )
        middle = b"\0" if self.version == codec.MQTT_5 else b""
        self.write(codec.encode_packet(codec.SUBSCRIBE, 2, wire.encode_uint16(1), middle, filters))
        await self.event("suback")

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def send(self, payload: bytes, *, topic=None) -> int:
        self.packet_id += 1
        publish = codec.Publish(
            self.topic if topic is None else topic, payload, self.qos, packet_id=self.packet_id if self.qos else 0
        )
        self.write(codec.encode_publish(publish, self.version))
        return self.packet_id

    async def _packet(self):
        head = (await self.reader.readexactly(1))[0]
        length = shift = 0
        while True:
            digit = (await self.reader.readexactly(1))[0]
            length |= (digit & 127) << shift
            shift += 7
            if digit < 128:
                break
        return head >> 4, head & 15, await self.reader.readexactly(length)

    async def _read(self):
        names = {codec.PUBACK: "puback", codec.PUBREC: "pubrec", codec.PUBCOMP: "pubcomp", codec.SUBACK: "suback"}
        while True:
            kind, flags, body = await self._packet()
            if kind == codec.PUBLISH:
                self._published(codec.decode_publish(flags, body, self.version))
            elif kind in names:
                self._note(Event(names[kind], body, int.from_bytes(body[:2], "big")))
                if kind == codec.PUBREC:
                    self.write(
                        codec.encode_acknowledgement(codec.PUBREL, int.from_bytes(body[:2], "big"), 0, self.version)
                    )
            elif kind == codec.PUBREL:
                self.write(
                    codec.encode_acknowledgement(codec.PUBCOMP, int.from_bytes(body[:2], "big"), 0, self.version)
                )

    def _published(self, publish):
        kinds = dict(zip(OWN_TOPICS, ("answer", "indication", "command"), strict=True))
        [prefix] = [prefix for prefix in OWN_TOPICS if publish.topic == prefix + self.client_id]
        self._note(Event(kinds[prefix], publish.payload, publish.packet_id, publish.qos))
        if publish.qos and self.acknowledges:
            kind = codec.PUBACK if publish.qos == 1 else codec.PUBREC
            self.write(codec.encode_acknowledgement(kind, publish.packet_id, 0, self.version))

    async def disconnect(self):
        self.write(bytes((codec.DISCONNECT << 4, 0)))
        await self.stop()
        self.writer.close()

    async def cut(self):
        await self.stop()
        self.writer.transport.abort()

    close = cut


class WebSocketDevice(Device):
    """SSAP over WebSocket. What the platform sends by itself is told apart by its messageType."""

    dialect = "object"

    def __init__(self, sib, *, path="/sib/api_websocket", subprotocols=None):
        super().__init__(sib)
        self.path, self.subprotocols = path, subprotocols

    async def open(self) -> WebSocketDevice:
        host, port = self.sib.address("http")
        self.socket = await connect_websocket(
            f"ws://{host}:{port}{self.path}",
            subprotocols=self.subprotocols,
            compression=None,
            max_size=None,
            proxy=None,
        )
        self._listen()
        return self

    async def send(self, payload: bytes, *, text=True) -> None:
        await self.socket.send(payload, text=text)

    async def _read(self):
        async for received in self.socket:
            payload = received.encode() if isinstance(received, str) else received
            is_answer = b'"messageType":"INDICATION"' not in payload
            if self.cipher_key is not None and not payload.startswith(b"{"):
                is_answer = '"messageType":"INDICATION"' not in decipher(payload.decode(), self.cipher_key)
            kind = "answer"
            if not is_answer:
                message = self._message(payload)
                kind = "indication" if message["sessionKey"] is not None else "command"
            self._note(Event(kind, payload))

    async def close(self):
        await self.stop()
        await self.socket.close()


class Rest:
    """SSAP REST; the query part of a GET is sent raw."""

    def __init__(self, sib: Sib) -> None:
        self.base = sib.endpoints["http"] + "/sib/services/api_ssap/v01/SSAPResource"
        self.client = httpx.AsyncClient(timeout=WAIT_S, follow_redirects=False, trust_env=False)

    async def call(self, method, path="", **keywords) -> httpx.Response:
        return await self.client.request(method, self.base + path, **keywords)

    async def post(self, value, path="") -> httpx.Response:
        return await self.call("POST", path, json=value)

    async def get(self, path="", **parameters) -> httpx.Response:
        return await self.call("GET", path, params={f"${name}": value for name, value in parameters.items()})

    async def join(self, sib, kp=None, token=None, **fields) -> str:
        value = {"join": True, "instanceKP": f"{kp or sib.kp}:rest", "token": token or sib.token, **fields}
        answer = await self.post(value)
        assert answer.status_code == 200, answer.text
        return answer.json()["sessionKey"]


@dataclass
class Callbacks:
    """A receiver of REST notifications."""

    url: str
    received: deque[dict[str, Any]] = field(default_factory=deque)
    status: int = 200
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def next(self, timeout_s: float = WAIT_S) -> Reply:
        async with asyncio.timeout(timeout_s):
            while not self.received:
                self.came.clear()
                await self.came.wait()
        return Reply(self.received.popleft())


def sensor(measure=15, asset="S_1", **fields):
    """An instance of TestSensorTemperatura."""
    return {
        "Sensor": {
            "geometry": {"coordinates": [40.512967, -3.67495], "type": "Point"},
            "assetId": asset,
            "measure": measure,
            "timestamp": {"$date": "2014-04-29T08:24:54.005Z"},
            **fields,
        }
    }


@pytest.fixture(scope="session")
def sib(request):
    """The platform with the configuration of these tests. SOFIA2_TEST_DATA names the data folder of a running one to use."""
    data = os.environ.get("SOFIA2_TEST_DATA")
    if data:
        endpoints = json.loads((Path(data) / "run" / "platform.json").read_text())["endpoints"]
    else:
        platform = request.getfixturevalue("platform")
        data, endpoints = str(platform.data), platform.endpoints
    sib = Sib(data, endpoints)
    report = apply_files(sib.bdc, [Path("tests/data/platform.yaml"), APPLY_FILE])
    assert report.is_ok, report.problems
    time.sleep(1)  # in force everywhere within a second: the platform's promise
    return sib


@pytest.fixture
async def devices():
    """Everything that a test opened, to be closed."""
    opened: list[Any] = []
    yield opened
    for device in opened:
        await device.close()


@pytest.fixture
def mqtt(sib, devices):
    """Open an MQTT device: ``await mqtt("client id", version=…, topic=…, qos=…)``."""
    numbers = iter(range(1000))

    async def opened(client_id=None, *, subscribe=True, join=True, target=None, **options) -> MqttDevice:
        name = client_id or f"t{os.getpid() % 10_000}-{time.monotonic_ns() % 10**9}-{next(numbers)}"
        device = MqttDevice(target or sib, name, **options)
        await device.open(subscribe=subscribe)
        devices.append(device)
        if join:
            await device.join()
        return device

    return opened


@pytest.fixture
def websocket(sib, devices):
    """Open a WebSocket device."""

    async def opened(*, join=True, target=None, dialect="object", **options) -> WebSocketDevice:
        device = WebSocketDevice(target or sib, **options)
        device.dialect = dialect
        await device.open()
        devices.append(device)
        if join:
            await device.join()
        return device

    return opened


@pytest.fixture
async def rest(sib):
    resource = Rest(sib)
    yield resource
    await resource.client.aclose()


@pytest.fixture
async def callbacks():
    """A little HTTP server that takes notifications."""
    calls = Callbacks("")

    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(lengths[0].split(b":")[1])) if lengths else b""
                if calls.status == 200:
                    calls.received.append(json.loads(body))
                    calls.came.set()
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % calls.status)
                await writer.drain()
        except (OSError, EOFError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    calls.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/notify"
    yield calls
    server.close()


@pytest.fixture(scope="session")
def tools():
    """Helpers for the tests, which cannot import this file: frames, instances, the ontology's name."""
    return types.SimpleNamespace(
        frame=frame, sensor=sensor, ontology=ONTOLOGY, Rest=Rest, Sib=Sib, MqttDevice=MqttDevice, wait_s=WAIT_S
    )
