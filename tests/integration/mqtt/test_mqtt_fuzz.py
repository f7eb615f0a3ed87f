"""Any bytes, cut anywhere: a connection closes or serves, and it does the same however the stream is cut."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.gateway.mqtt import ListenerOptions, MqttConnection, MqttEndpoint
from sib.mqtt import codec, wire
from sib.mqtt.codec import MQTT_3_1, MQTT_3_1_1, MQTT_5

MESSAGE_BYTES_MAX = 500


class WireEnd:
    """A transport that keeps what is written."""

    def __init__(self):
        self.written = b""
        self.is_closed = False

    def get_extra_info(self, name):
        return ("127.0.0.1", 1) if name == "peername" else None

    def write(self, data):
        assert not self.is_closed, "written after closing"
        self.written += data

    def can_write_eof(self):
        return False

    def get_write_buffer_size(self):
        return 0

    def pause_reading(self):
        pass

    resume_reading = pause_reading

    def close(self):
        self.is_closed = True

    abort = close


class Host:
    def __init__(self):
        self.received = []

    def connected(self, connection):
        self.connection = connection
        return self

    def receive(self, payload, token, *, clear):
        self.received.append((payload, token, clear))
        self.connection.respond(token, payload)

    def oversized(self, token, size, head):
        self.received.append((size, token))
        self.connection.respond(token, b"too long")

    def closed(self):
        self.received.append("closed")

    async def authenticate(self, *_):
        return True


def run(pieces, options):
    """Feed the pieces; what was received, what was written, whether it closed."""

    async def feed():
        host = Host()
        endpoint = MqttEndpoint(host)
        connection, end = MqttConnection(endpoint, options), WireEnd()
        connection.connection_made(end)
        for piece in pieces:
            if end.is_closed:
                break
            connection.data_received(piece)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert endpoint.partial_bytes == 0
        connection.connection_lost(None)
        assert not endpoint.connections
        return host.received, end.written, end.is_closed

    return asyncio.run(feed())


def connect(version):
    name = wire.encode_string("MQIsdp" if version == MQTT_3_1 else "MQTT")
    middle = b"\0" if version == MQTT_5 else b""
    return codec.encode_packet(codec.CONNECT, 0, name, bytes((version, 2, 0, 9)), middle, wire.encode_string("fuzz"))


def subscribe(version):
    filters = b"".join(wire.encode_string(topic) + b"\1" for topic in ("/TOPIC_MQTT_PUBLISHfuzz", "a/#"))
    return codec.encode_packet(codec.SUBSCRIBE, 2, b"\0\1", b"\0" if version == MQTT_5 else b"", filters)


publishes = st.builds(
    codec.Publish,
    st.sampled_from(["", "a/b", "SSAP-REQUEST", "CLIENT_TOPIC", "a/+"]),
    st.binary(max_size=40) | st.binary(min_size=600, max_size=700),
    st.sampled_from([0, 1, 2]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 3),
)
small_packets = st.sampled_from(
    [b"\xc0\0", b"\xe0\0", b"\x40\x02\0\1", b"\x50\x02\0\1", b"\x62\x02\0\1", b"\x70\x02\0\1", b"\xa2\x05\0\1\0\1a"]
)


@st.composite
def streams(draw):
    """A plausible stream: CONNECT, SUBSCRIBE, packets, now and then rubbish."""
    version = draw(st.sampled_from([MQTT_3_1, MQTT_3_1_1, MQTT_5]))
    packets = draw(
        st.lists(
            publishes.map(lambda publish: codec.encode_publish(publish, version))
            | small_packets
            | st.binary(max_size=4),
            max_size=12,
        )
    )
    head = draw(st.sampled_from([connect(version) + subscribe(version), connect(version), b""]))
    return head + b"".join(packets)


def cut(stream, cuts):
    at, pieces = 0, []
    for size in cuts:
        pieces.append(stream[at : at + size])
        at += size
    return [piece for piece in [*pieces, stream[at:]] if piece]


@pytest.mark.parametrize("mode", ["ssap", "pubsub", "both"])
@settings(max_examples=150)
@given(stream=streams(), cuts=st.lists(st.integers(1, 60), max_size=40))
def test_the_cut_of_a_stream_does_not_matter(mode, stream, cuts):
    options = ListenerOptions(ssap=mode != "pubsub", pubsub=mode != "ssap", message_bytes_max=MESSAGE_BYTES_MAX)
    assert run([stream] if stream else [], options) == run(cut(stream, cuts), options)


@settings(max_examples=200)
@given(st.binary(max_size=200), st.booleans(), st.sampled_from([MQTT_3_1_1, MQTT_5]))
def test_any_bytes(noise, is_connected, version):
    head = connect(version) + subscribe(version) if is_connected else b""
    run([head + noise], ListenerOptions(pubsub=True, message_bytes_max=MESSAGE_BYTES_MAX))
    run([head + noise], ListenerOptions(message_bytes_max=MESSAGE_BYTES_MAX))


def test_a_host_that_fails_costs_its_own_client_only(caplog):
    class Broken(Host):
        def receive(self, payload, token, *, clear):
            raise RuntimeError("a fault of ours")

    async def feed():
        endpoint = MqttEndpoint(Broken())
        ends = []
        for client_id in ("a", "b"):
            connection, end = MqttConnection(endpoint, ListenerOptions()), WireEnd()
            connection.connection_made(end)
            connection.data_received(
                codec.encode_packet(codec.CONNECT, 0, b"\0\4MQTT\4\2\0\0", wire.encode_string(client_id))
            )
            ends.append((connection, end))
        ends[0][0].data_received(codec.encode_publish(codec.Publish("", b"x", 1, packet_id=1), 4))
        return [end.is_closed for _, end in ends]

    assert asyncio.run(feed()) == [True, False]
    assert "could not be handled" in caplog.text


async def test_a_client_that_waits_for_each_answer_is_confirmed_at_once():
    """With Nagle's algorithm on it would send its next packet only after the kernel's delayed confirmation, 40 ms later."""
    options = []

    class Socket:
        def setsockopt(self, *option):
            options.append(option)

    class End(WireEnd):
        def get_extra_info(self, name):
            return Socket() if name == "socket" else super().get_extra_info(name)

    connection = MqttConnection(MqttEndpoint(Host()), ListenerOptions())
    connection.connection_made(End())
    connection.data_received(connect(MQTT_3_1))
    assert options == [(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)]
    burst = codec.encode_publish(codec.Publish("a/b", b"x" * 400, 0, False, False, 1), MQTT_3_1) * 10
    connection.data_received(burst)
    assert len(options) == 1
    connection.connection_lost(None)
