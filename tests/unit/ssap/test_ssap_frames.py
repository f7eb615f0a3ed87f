"""The recorded frames of five published clients: all requests are read, all accepted answers can be made again."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from bson import json_util

from sib import errors
from sib.ssap.answers import (
    AffectedIds,
    Answer,
    BulkResult,
    BulkSummary,
    InsertedId,
    Json,
    Rows,
    Text,
    format_answer,
    format_indication,
)
from sib.ssap.envelope import Request, parse_request
from sib.ssap.messages import Dialect, MessageType, QueryType
from sib.ssap.operations import Bulk, Config, Insert, Join, Unsupported
from sib.ssap.printing import parse_id, print_one

FRAMES = [json.loads(line) for line in Path("tests/data/client-frames.jsonl").read_text().splitlines()]
DIALECTS = {
    "python": Dialect.OBJECT,
    "javascript": Dialect.OBJECT,
    "c": Dialect.STRING,
    "android": Dialect.ONE,
    "java-2018": Dialect.ONE,
}
OTHER_DIALECT = {Dialect.STRING: Dialect.ONE, Dialect.OBJECT: Dialect.STRING, Dialect.ONE: Dialect.STRING}
CODES = {
    kind.ssap_code: kind for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "ssap_code")
}
OBJECT_ID = re.compile(r'ObjectId\("([0-9a-f]{24})"\)|"\$oid":\s*"([0-9a-f]{24})"')


def frames(direction):
    return [
        pytest.param(frame["client"], frame["payload"], id=f"{number}-{frame['client']}")
        for number, frame in enumerate(FRAMES)
        if frame["direction"] == direction
    ]


def test_all_frames_are_there():
    assert len(FRAMES) == 155
    assert Counter(frame["direction"] for frame in FRAMES).keys() == {"request", "answer"}
    assert {frame["client"] for frame in FRAMES} == DIALECTS.keys()


@pytest.mark.parametrize(("client", "payload"), frames("request"))
def test_requests_are_read(client, payload):
    dialect = DIALECTS[client]
    request = parse_request(payload.encode(), fallback=OTHER_DIALECT[dialect])
    sent = json.loads(payload)
    assert request.dialect_told is (sent["body"] is not None)
    assert request.dialect is (dialect if request.dialect_told else OTHER_DIALECT[dialect])
    assert request.message_type == sent["messageType"]
    assert request.session_key == sent["sessionKey"]
    assert request.ontology == sent.get("ontology")
    assert not isinstance(request.operation, Unsupported)
    assert request == parse_request(payload, fallback=OTHER_DIALECT[dialect])


@pytest.mark.parametrize(("client", "payload"), frames("request"))
def test_operations_say_what_was_sent(client, payload):
    request = parse_request(payload, fallback=DIALECTS[client])
    check_operation(request.operation)


def check_operation(operation):
    """What must hold for anything that these clients send."""
    match operation:
        case Join():
            assert operation.kp == "KPTestTemperatura"
            assert operation.instance_name.startswith("KPTestTemperatura01")
            assert operation.token
        case Insert(data=None):
            assert operation.query.lower().startswith("insert into TestSensorTemperatura(".lower())
            assert operation.query.endswith(")")
            assert operation.query_type is QueryType.SQLLIKE
        case Insert():
            assert json.loads(operation.data).keys() == {"Sensor"}
            assert operation.query is None
        case Bulk():
            assert len(operation.items) >= 2
            for item in operation.items:
                assert item.error is None
                assert item.ontology == "TestSensorTemperatura"
                check_operation(item.operation)
        case Config():
            assert (operation.token is None) == (operation.kp is None)
        case _ if hasattr(operation, "query"):
            assert not re.match(r"\{\s*(select|insert|update|delete|db\.|NoSuch)", operation.query, re.IGNORECASE)
            assert operation.query_type in QueryType
        case _ if hasattr(operation, "instance_name"):
            assert operation.instance_name.startswith("KPTestTemperatura01")


def parts(payload, dialect):
    """(envelope without body, body as object) of an answer frame."""
    envelope = json.loads(payload)
    body = envelope.pop("body")
    return envelope, json.loads(body) if dialect is Dialect.STRING else body


def ids_in(data):
    text = data if isinstance(data, str) else json.dumps(data)
    return [parse_id(one or other) for one, other in OBJECT_ID.findall(text)]


def summary_of(recorded):
    return BulkSummary(
        ids_in(json.dumps(recorded["objectIds"]).replace('\\"', '"')),
        [(entry["requestBody"], entry["responseBody"]) for entry in recorded["errors"]],
    )


def rows_of(data):
    text = data if isinstance(data, str) else json.dumps(data)
    return Rows(one=print_one(json_util.loads(text)))


def bulk_of(data):
    summaries = json.loads(data) if isinstance(data, str) else data
    return BulkResult(*[summary_of(summaries[name]) for name in ("insertSummary", "updateSummary", "deleteSummary")])


READERS = {
    "INSERT": lambda data: InsertedId(ids_in(data)[0]),
    "UPDATE": lambda data: AffectedIds(ids_in(data)),
    "DELETE": lambda data: AffectedIds(ids_in(data)),
    "QUERY": rows_of,
    "BULK": bulk_of,
    "CONFIG": lambda data: Json(json.loads(data)),
}


def outcome_of(envelope, body):
    """The answer that a SIB must have meant with a recorded frame."""
    if not body["ok"]:
        return Answer(error=CODES[body["errorCode"]](body["error"]), session_key=envelope["sessionKey"])
    return Answer(READERS.get(envelope["messageType"], Text)(body["data"]), session_key=envelope["sessionKey"])


@pytest.mark.parametrize(("client", "payload"), frames("answer"))
def test_answers_can_be_made_again(client, payload):
    dialect = DIALECTS[client]
    envelope, body = parts(payload, dialect)
    request = Request(
        MessageType(envelope["messageType"]),
        envelope["sessionKey"],
        envelope["ontology"],
        envelope["messageId"],
        dialect,
        True,
        Unsupported(MessageType.NONE),
    )
    if envelope["messageType"] == "INDICATION":
        made = format_indication(
            envelope["messageId"], envelope["sessionKey"], envelope["ontology"], dialect, rows_of(body["data"])
        )
    else:
        made = format_answer(request, outcome_of(envelope, body))
    made_envelope, made_body = parts(made, dialect)
    if dialect is Dialect.ONE:
        assert made_body.pop("contentType") is None  # these clients know it and accept answers with or without it
    if not body["ok"]:
        assert made_body.pop("error").startswith(body.pop("error"))
    if envelope["messageType"] == "BULK" and dialect is not Dialect.ONE:
        made_body["data"], body["data"] = json.loads(made_body["data"]), json.loads(body["data"])
    assert made_envelope == envelope
    assert made_body == body
