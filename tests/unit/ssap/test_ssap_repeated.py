"""What a device repeats: recognised only where reading the whole message would give the same."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sib.ssap.envelope import IgnoredPayload, MalformedRequest, parse_request
from sib.ssap.messages import Dialect
from sib.ssap.repeated import repetition_of

INSTANCE = '{"Sensor":{"id":"a","measure":1.5}}'
OTHER = '{"Sensor": {"id": "\\u00f1\\\\ \\"b\\"", "measure": [2, null]}}'


def frame(data, *, is_text=True, kind="INSERT", message_id=None, ascii_only=True, **fields):
    body = {"queryType": "NATIVE", "query": None, "data": data, **fields}
    return json.dumps(
        {
            "body": json.dumps(body, ensure_ascii=ascii_only) if is_text else body,
            "direction": "REQUEST",
            "messageType": kind,
            "messageId": message_id,
            "ontology": "O",
            "sessionKey": "s-1",
        },
        ensure_ascii=ascii_only,
    ).encode()


def read(payload):
    return parse_request(payload, fallback=Dialect.OBJECT)


def repetition(payload):
    return repetition_of(payload, read(payload))


@pytest.mark.parametrize("is_text", [True, False])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_another_instance_in_the_same_place_is_found(is_text, ascii_only):
    known = repetition(frame(INSTANCE, is_text=is_text))
    payload = frame(OTHER, is_text=is_text, ascii_only=ascii_only)
    assert known.data_in(payload) == OTHER
    assert known.request_with(OTHER) == read(payload)
    assert known.request.operation.data == INSTANCE


@pytest.mark.parametrize(
    "payload",
    [
        frame(INSTANCE, message_id=1),
        frame(INSTANCE, kind="UPDATE"),
        frame(INSTANCE, is_text=False),
        frame("[1]"),
        frame(""),
        b"",
        b"{}",
        frame(INSTANCE)[:-1],
        frame(INSTANCE)[:-1] + b"\xff}",
        frame(INSTANCE).replace(b"measure", b"meas\xffure"),
        frame(INSTANCE).replace(b"measure", b'\\", \\"data\\":\\"'),
        frame(INSTANCE).replace(b"measure", b'", "body": "'),
        frame(INSTANCE).replace(b"measure", b"\\\\\\q"),
    ],
)
def test_another_message_is_not(payload):
    assert repetition(frame(INSTANCE)).data_in(payload) is None


@pytest.mark.parametrize(
    "payload",
    [
        frame(""),
        frame("[1]"),
        frame(" "),
        frame({"Sensor": 1}),  # an object, not text
        frame(INSTANCE, query=INSTANCE),  # the same text twice
        frame("{" + INSTANCE + "}"),  # the text that came is longer than the instance
        frame("insert into O values 1", queryType="SQLLIKE"),
        frame(None, query=INSTANCE),
        frame(INSTANCE, kind="UPDATE"),
        frame(INSTANCE).replace(b"1.5", b"1\\\\u002e5"),  # written as nobody would
    ],
)
def test_what_cannot_be_told_from_its_surroundings_is_not_learned(payload):
    known = repetition(payload)
    assert known is None or known.data_in(payload) == read(payload).operation.data


@given(st.text(max_size=5), st.booleans())
def test_whatever_the_instance_is_learning_ends(data, is_text):
    payload = frame(data, is_text=is_text)
    known = repetition(payload)
    assert known is None or known.data_in(payload) == data


CHARACTERS = st.text(st.sampled_from('\\"{}:,[] n1ñ\x00\ud83d') | st.characters(), max_size=12)


@given(CHARACTERS, st.booleans(), st.integers(1, 2))
@example('a", "data": "{\\"b', True, 1)
@example("\\", False, 2)
def test_whatever_stands_in_that_place_is_read_as_the_whole_message_would_be(middle, is_text, depth):
    known = repetition(frame(INSTANCE, is_text=is_text))
    head, _, tail = frame("{\"'", is_text=is_text).partition(b"'")
    text = middle
    for _ in range(depth - 1):
        text = json.dumps(text)[1:-1]
    payload = head + text.encode(errors="surrogatepass") + tail
    data = known.data_in(payload)
    if data is None:
        return
    assert read(payload) == known.request_with(data)


@given(st.binary(max_size=6), st.integers(0, 400), st.integers(0, 6))
def test_a_damaged_message_is_never_taken_for_a_good_one(damage, at, count):
    payload = frame(INSTANCE)
    known = repetition(payload)
    damaged = payload[:at] + damage + payload[at + count :]
    data = known.data_in(damaged)
    if data is None:
        return
    try:
        assert read(damaged) == known.request_with(data)
    except (IgnoredPayload, MalformedRequest) as error:
        raise AssertionError("taken though it cannot be read") from error
