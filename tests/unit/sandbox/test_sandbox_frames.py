"""Frames: whatever bytes come, in whatever pieces, they are messages or a forged frame."""

from __future__ import annotations

import os
import threading

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.sandbox.frames import ForgedFrameError, FrameReader, check_call, encode
from actors.sandbox.inside import frames as inside

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
MESSAGES = st.dictionaries(st.text(max_size=5), VALUES, max_size=4)


@given(st.lists(MESSAGES, max_size=6), st.lists(st.integers(1, 40), min_size=1))
def test_messages_come_whole_however_they_are_cut(messages, sizes):
    stream = b"".join(encode(message) for message in messages)
    reader, found, turn = FrameReader(), [], 0
    while stream:
        size = sizes[turn % len(sizes)]
        reader.feed(stream[:size])
        stream, turn = stream[size:], turn + 1
        found += reader.messages()
    assert found == messages


def test_reading_can_be_left_and_begun_again():
    reader = FrameReader()
    reader.feed(encode({"a": 1}) + encode({"a": 2}))
    for message in reader.messages():
        assert message == {"a": 1}
        break
    reader.feed(encode({"a": 3}))
    assert list(reader.messages()) == [{"a": 2}, {"a": 3}]


@given(st.binary(max_size=200))
def test_any_bytes_give_messages_or_a_forged_frame(data):
    reader = FrameReader()
    reader.feed(data)
    try:
        for message in reader.messages():
            assert isinstance(message, dict)
    except ForgedFrameError:
        pass


@given(st.binary(max_size=100))
def test_any_body_is_an_object_or_forged(body):
    reader = FrameReader()
    reader.feed(inside.HEADER.pack(len(body)) + body)
    try:
        expected = orjson.loads(body)
    except orjson.JSONDecodeError:
        expected = None
    if isinstance(expected, dict):
        assert list(reader.messages()) == [expected]
    else:
        with pytest.raises(ForgedFrameError):
            list(reader.messages())


def test_a_frame_ends_at_its_limit():
    longest = encode({"a": "x" * (inside.FRAME_BYTES_MAX - 8)})
    reader = FrameReader()
    reader.feed(longest)
    assert len(next(reader.messages())["a"]) == inside.FRAME_BYTES_MAX - 8
    with pytest.raises(inside.FrameError):
        encode({"a": "x" * (inside.FRAME_BYTES_MAX - 7)})
    reader.feed(inside.HEADER.pack(inside.FRAME_BYTES_MAX + 1))
    with pytest.raises(ForgedFrameError, match="limit"):
        list(reader.messages())


@pytest.mark.parametrize(
    "message",
    [
        {"call": 1},
        {"call": None},
        {"call": "x" * 201},
        {"call": "x", "id": "1"},
        {"call": "x", "id": True},
        {"call": "x", "id": 1.5},
    ],
)
def test_a_call_of_another_shape_is_forged(message):
    with pytest.raises(ForgedFrameError):
        check_call(message)


def test_a_call_and_a_notice():
    assert check_call({"call": "x", "id": 7, "with": [1]}) == (7, "x", [1])
    assert check_call({"call": "x"}) == (None, "x", None)


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_the_inner_side_reads_what_was_framed(bodies):
    reading, writing = os.pipe()
    try:
        inside.write_all(writing, b"".join(inside.frame(body) for body in bodies))
        os.close(writing)
        assert [inside.read_frame(reading) for _ in bodies] == bodies
        assert inside.read_frame(reading) is None
    finally:
        os.close(reading)


def test_the_inner_side_reads_a_frame_that_comes_in_pieces():
    reading, writing = os.pipe()
    body = b"x" * 300_000  # more than a pipe holds
    thread = threading.Thread(target=inside.write_all, args=(writing, inside.frame(body)))
    thread.start()
    try:
        assert inside.read_frame(reading) == body
        thread.join()
        os.write(writing, inside.HEADER.pack(5) + b"ab")
        os.close(writing)
        assert inside.read_frame(reading) is None
    finally:
        os.close(reading)


def test_the_inner_side_refuses_a_length_beyond_the_limit():
    reading, writing = os.pipe()
    os.write(writing, inside.HEADER.pack(inside.FRAME_BYTES_MAX + 1))
    with pytest.raises(inside.FrameError):
        inside.read_frame(reading)
    os.close(reading)
    os.close(writing)
