"""Whatever bytes arrive: a request, nothing, or a refusal that can be answered; never another exception."""

import json

import orjson
from hypothesis import given
from hypothesis import strategies as st

from sib.ssap.answers import Answer, Text, format_answer, format_unreadable
from sib.ssap.cipher import is_clear, split_join_prefix
from sib.ssap.envelope import IgnoredPayload, MalformedRequest, Request, parse_request
from sib.ssap.messages import Dialect, MessageType, QueryType
from sib.ssap.text import instance_text, query_text

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", "{}", "null", "0", "{select * from X}", "db.X.find()", "KP:1", "STATUS", '{"a":1}', "[]"])
)
NAMES = """
    data query queryType queryParams msRefresh idSuscripcion items instance token user password kp
    instanciaKp assetServiceParam thinkp thinkpInstance instanciathinkp status type args body ontology @type version
"""
FIELDS = st.sampled_from(NAMES.split())
JSON = st.recursive(
    LEAVES,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(FIELDS, children, max_size=6),
    max_leaves=20,
)
TYPES = st.sampled_from([kind.value for kind in MessageType]) | LEAVES
ENVELOPES = st.fixed_dictionaries(
    {"messageType": TYPES},
    optional={
        "body": JSON
        | JSON.map(lambda value: json.dumps(value, default=str))
        | st.dictionaries(FIELDS, JSON, max_size=8),
        "sessionKey": LEAVES,
        "ontology": LEAVES,
        "messageId": JSON,
        "version": st.sampled_from(["ONE", "LEGACY", None]) | LEAVES,
    },
)


def check(payload, fallback):
    """Parses a payload, and answers it if it wants an answer."""
    try:
        request = parse_request(payload, fallback=fallback)
    except IgnoredPayload:
        return None
    except MalformedRequest as error:
        answered = orjson.loads(format_unreadable(error))
        assert answered["direction"] == "ERROR"
        assert answered["messageType"] in MessageType.__members__
        return None
    assert isinstance(request, Request)
    answered = orjson.loads(format_answer(request, Answer(Text("OK"))))
    assert answered["sessionKey"] == request.session_key
    return request


@given(st.binary(max_size=300), st.sampled_from(Dialect))
def test_any_bytes(payload, fallback):
    check(payload, fallback)
    split_join_prefix(payload)
    assert is_clear(payload) in (True, False)


@given(st.text(st.characters(), max_size=300), st.sampled_from(Dialect))
def test_any_text(payload, fallback):
    check(payload, fallback)


@given(st.text('{}[]":,\\ \n0e1nulltruefalsemessageTypbodyQUERY', max_size=200), st.sampled_from(Dialect))
def test_texts_that_look_like_json(payload, fallback):
    check('{"messageType":"QUERY","body":' + payload + "}", fallback)


@given(ENVELOPES, st.sampled_from(Dialect))
def test_any_envelope(envelope, fallback):
    check(json.dumps(envelope), fallback)


@given(ENVELOPES, st.integers(0, 400), st.integers(0, 255), st.sampled_from(Dialect))
def test_damaged_envelopes(envelope, position, byte, fallback):
    payload = bytearray(json.dumps(envelope).encode())
    payload[position % len(payload)] = byte
    check(bytes(payload), fallback)
    check(bytes(payload[: position % len(payload)]), fallback)


@given(st.sampled_from(MessageType), st.dictionaries(FIELDS, LEAVES, max_size=8))
def test_a_body_means_the_same_in_all_dialects(message_type, body):
    body = orjson.loads(
        orjson.dumps({name: value if not isinstance(value, int) else 1 for name, value in body.items()})
    )
    body.pop("@type", None)
    operations = []
    for shaped in (body, json.dumps(body), {"@type": "SSAPBody", **body}):
        request = check(json.dumps({"messageType": message_type, "body": shaped}), Dialect.STRING)
        operations.append(request and request.operation)
    assert operations[0] == operations[1] == operations[2]


@given(st.text(max_size=60), st.sampled_from(QueryType))
def test_braces_add_nothing_to_a_statement(text, query_type):
    statement = f"select a{text}x"
    assert query_text("{" + statement + "}", query_type) == query_text(statement, query_type) == statement


@given(st.dictionaries(st.text(max_size=5), st.integers(), min_size=1, max_size=3))
def test_an_instance_survives_the_braces_of_java(instance):
    text = " " + json.dumps(instance)
    assert json.loads(instance_text("{" + text + "}")) == instance
