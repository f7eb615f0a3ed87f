"""An endpoint on a free port with a host that records, and a client that speaks raw packets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from actors.gateway.mqtt import ListenerOptions, MqttEndpoint, MqttLimits, start_listener
from sib.mqtt import codec, wire
from sib.mqtt.codec import MQTT_3_1, MQTT_5
from sib.mqtt.kp_topics import ANSWER, INDICATION, own_topic
from sib.mqtt.properties import encode_properties

WAIT_S = 5


@dataclass
class Received:
    payload: bytes
    token: object
    clear: bool
    size: int = 0


class RecordingChannel:
    """The SSAP side of a connection: keeps what comes; ``react`` answers it, or nothing does."""

    def __init__(self, connection, react) -> None:
        self.connection = connection
        self.received: list[Received] = []
        self.is_closed = False
        self._react = react
        self._came = asyncio.Event()

    def receive(self, payload, token, *, clear):
        self._add(Received(payload, token, clear))

    def oversized(self, token, size, head):
        self._add(Received(head, token, False, size))

    def _add(self, received):
        self.received.append(received)
        self._came.set()
        if self._react is not None:
            self._react(self.connection, received)

    def closed(self):
        self.is_closed = True

    async def count(self, number):
        """Wait for that many requests."""
        async with asyncio.timeout(WAIT_S):
            while len(self.received) < number:
                self._came.clear()
                await self._came.wait()
        return self.received


def echo(connection, received):
    """Acknowledge at once and answer with the payload."""
    connection.respond(received.token, b"answer to " + received.payload)


class RecordingHost:
    def __init__(self, react=echo):
        self.react = react
        self.channels: dict[str, RecordingChannel] = {}
        self.credentials: list[tuple] = []
        self.password: bytes | None = None

    def connected(self, connection):
        channel = RecordingChannel(connection, self.react)
        self.channels[connection.client_id] = channel
        return channel

    async def authenticate(self, client_id, username, password, peer):
        self.credentials.append((client_id, username, password))
        await asyncio.sleep(0)
        return password == self.password


class RawClient:
    """MQTT by the byte."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.version = 4
        self.client_id = ""

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def packet(self) -> tuple[int, int, bytes]:
        """The next packet as (kind, flags, body)."""
        async with asyncio.timeout(WAIT_S):
            head = (await self.reader.readexactly(1))[0]
            length = shift = 0
            while True:
                digit = (await self.reader.readexactly(1))[0]
                length |= (digit & 127) << shift
                shift += 7
                if digit < 128:
                    break
            return head >> 4, head & 15, await self.reader.readexactly(length)

    async def expect(self, kind: int) -> bytes:
        found, _, body = await self.packet()
        assert found == kind, f"expected packet {kind}, got {found}: {body!r}"
        return body

    async def message(self) -> codec.Publish:
        kind, flags, body = await self.packet()
        assert kind == codec.PUBLISH, f"expected a PUBLISH, got {kind}: {body!r}"
        return codec.decode_publish(flags, body, self.version)

    async def silence(self) -> None:
        """Nothing has been sent to us that was not read: the answer to a ping comes first."""
        self.send(b"\xc0\0")
        await self.expect(codec.PINGRESP)

    async def is_closed(self) -> bool:
        """Whether the server closes, with or without last words."""
        try:
            async with asyncio.timeout(WAIT_S):
                await self.reader.read()
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True

    async def goodbye(self) -> int:
        """The reason of the server's DISCONNECT."""
        body = await self.expect(codec.DISCONNECT)
        return body[0] if body else 0

    async def connect(
        self,
        client_id="c",
        *,
        version=4,
        clean=True,
        keep_alive_s=0,
        will=None,
        username=None,
        password=None,
        properties=(),
    ) -> bytes:
        """CONNECT; ``will`` is (topic, payload, qos, retain, properties). Returns the CONNACK's body."""
        self.version, self.client_id = version, client_id
        flags, tail = clean << 1, b""
        if will is not None:
            topic, payload, qos, retain, will_properties = will
            flags |= 4 | qos << 3 | retain << 5
            tail += encode_properties(will_properties) if version == MQTT_5 else b""
            tail += wire.encode_string(topic) + wire.encode_binary(payload)
        if username is not None:
            flags |= 0x80
            tail += wire.encode_string(username)
        if password is not None:
            flags |= 0x40
            tail += wire.encode_binary(password)
        self.send(
            codec.encode_packet(
                codec.CONNECT,
                0,
                wire.encode_string("MQIsdp" if version == MQTT_3_1 else "MQTT"),
                bytes((version, flags)),
                wire.encode_uint16(keep_alive_s),
                encode_properties(properties) if version == MQTT_5 else b"",
                wire.encode_string(client_id),
                tail,
            )
        )
        return await self.expect(codec.CONNACK)

    def ask_to_subscribe(self, *filters, packet_id=1, properties=()):
        """SUBSCRIBE to (filter, options) pairs."""
        body = b"".join(wire.encode_string(pattern) + bytes((options,)) for pattern, options in filters)
        middle = encode_properties(properties) if self.version == MQTT_5 else b""
        self.send(codec.encode_packet(codec.SUBSCRIBE, 2, wire.encode_uint16(packet_id), middle, body))

    async def subscribe(self, *filters, packet_id=1, properties=()) -> list[int]:
        self.ask_to_subscribe(*filters, packet_id=packet_id, properties=properties)
        body = await self.expect(codec.SUBACK)
        assert body[:2] == wire.encode_uint16(packet_id)
        return list(body[3 if self.version == MQTT_5 else 2 :])

    async def subscribe_own(self, qos=0, *, kinds=(ANSWER, INDICATION)):
        granted = await self.subscribe(*((own_topic(kind, self.client_id), qos) for kind in kinds))
        assert granted == [qos] * len(kinds)

    async def unsubscribe(self, *filters, packet_id=2) -> bytes:
        body = b"".join(wire.encode_string(pattern) for pattern in filters)
        middle = b"\0" if self.version == MQTT_5 else b""
        self.send(codec.encode_packet(codec.UNSUBSCRIBE, 2, wire.encode_uint16(packet_id), middle, body))
        return await self.expect(codec.UNSUBACK)

    def publish(self, topic, payload=b"", qos=0, packet_id=1, *, retain=False, dup=False, properties=()):
        message = codec.Publish(topic, payload, qos, retain, dup, packet_id if qos else 0, tuple(properties))
        self.send(codec.encode_publish(message, self.version))

    def acknowledge(self, kind, packet_id):
        self.send(codec.encode_acknowledgement(kind, packet_id, 0, self.version))

    async def leave(self):
        """DISCONNECT, and wait until the server has closed."""
        self.send(b"\xe0\0")
        assert await self.is_closed()

    def cut(self):
        """The network is gone."""
        self.writer.transport.abort()


@dataclass
class Server:
    endpoint: MqttEndpoint
    host: RecordingHost
    port: int
    clients: list[RawClient] = field(default_factory=list)
    offset_s: float = 0.0

    async def open(self, ssl=None) -> RawClient:
        client = RawClient(*await asyncio.open_connection("127.0.0.1", self.port, ssl=ssl))
        self.clients.append(client)
        return client

    async def client(self, client_id="c", **given) -> RawClient:
        client = await self.open()
        body = await client.connect(client_id, **given)
        assert body[1] == 0, f"refused: {body!r}"
        return client

    def channel(self, client_id="c") -> RecordingChannel:
        return self.host.channels[client_id]

    def advance(self, seconds: float) -> None:
        """Time passes for the endpoint."""
        self.offset_s += seconds
        self.endpoint.check_times()

    async def until(self, condition) -> None:
        """Let the event loop run until the condition holds."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.sleep(0.005)


@pytest.fixture
async def serve():
    """Start endpoints: ``await serve(ssap=True, ...)`` with listener options, and ``host``, ``store``, ``limits``."""
    servers: list[Server] = []

    async def start(
        *, host=None, store=None, limits=None, ssl_context=None, react=echo, peers=None, **options
    ) -> Server:
        host = host or RecordingHost(react)
        endpoint = MqttEndpoint(host, store=store, limits=limits or MqttLimits())
        if peers is not None:
            endpoint.peers = peers(endpoint)
        await endpoint.start()
        _, port = await start_listener(
            endpoint, "127.0.0.1", 0, ssl_context=ssl_context, options=ListenerOptions(**options)
        )
        server = Server(endpoint, host, port)
        loop = asyncio.get_running_loop()
        endpoint.clock = lambda: loop.time() + server.offset_s
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.endpoint.stop()
        for client in server.clients:
            client.cut()
