"""Too long WebSocket payloads are thrown away as they arrive; everything around them stays whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.uri import parse_uri

from actors.gateway.http_protocol import EXCERPT_BYTES, BoundedServerProtocol

BYTES_MAX = 6000


def opened() -> tuple[ClientProtocol, BoundedServerProtocol]:
    client = ClientProtocol(parse_uri("ws://h/"))
    server = BoundedServerProtocol(BYTES_MAX)
    client.send_request(client.connect())
    server.receive_data(b"".join(client.data_to_send()))
    (request,) = server.events_received()
    server.send_response(server.accept(request))
    client.receive_data(b"".join(server.data_to_send()))
    client.events_received()
    return client, server


sizes = st.one_of(
    st.integers(0, 200), st.integers(BYTES_MAX - 2, BYTES_MAX + 2), st.integers(65_530, 65_540), st.integers(0, 90_000)
)


@given(st.lists(sizes, max_size=6), st.lists(st.integers(1, 70_000), min_size=1, max_size=20))
def test_whatever_the_cuts_each_message_keeps_its_size_and_beginning(lengths, steps):
    client, server = opened()
    payloads = [bytes([65 + number]) * length for number, length in enumerate(lengths)]
    for payload in payloads:
        client.send_binary(payload)
        client.send_ping(b"between")
    stream = b"".join(client.data_to_send())
    frames = []
    held_bytes_max = 0
    step = 0
    while stream:
        size = steps[step % len(steps)]
        step += 1
        server.receive_data(stream[:size])
        stream = stream[size:]
        held_bytes_max = max(held_bytes_max, len(server.reader.buffer))
        frames += [frame for frame in server.events_received() if isinstance(frame, Frame)]
    assert server.parser_exc is None
    assert [frame.data for frame in frames[1::2]] == [b"between"] * len(payloads)
    for frame, payload in zip(frames[::2], payloads, strict=True):
        kept = payload if len(payload) <= BYTES_MAX else payload[:EXCERPT_BYTES]
        assert frame.data == kept
        assert len(frame.data) + getattr(frame, "discarded_bytes", 0) == len(payload)
    assert held_bytes_max <= BYTES_MAX
    assert not server.reader.is_discarding


@given(st.integers(600_000, 2**63 - 1))
def test_a_length_that_never_comes_holds_nothing(length):
    _, server = opened()
    server.receive_data(b"\x82\xff" + length.to_bytes(8) + b"mask")
    for _ in range(50):
        server.receive_data(bytes(10_000))
    assert not server.reader.buffer
    assert not server.events_received()
