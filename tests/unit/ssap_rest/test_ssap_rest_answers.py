"""Answers over REST: status codes, the shape of data, what LEGACY and ONE clients can read."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
from bson import ObjectId

import sib.errors
from sib.errors import (
    AuthenticationError,
    AuthorizationError,
    InvalidInstanceError,
    MalformedMessageError,
    NotFoundError,
    OntologyNotFoundError,
    OverloadedError,
    SibError,
    SqlSyntaxError,
    StoreUnavailableError,
)
from sib.ssap.answers import AffectedIds, Answer, InsertedId, Json, NoData, Rows, Text
from sib.ssap.envelope import Request
from sib.ssap.messages import Dialect, MessageType
from sib.ssap.operations import Leave
from sib.ssap.rest import RestCall
from sib.ssap.rest_answers import format_answer, format_error

OID = "5a8eaae2e4b06f95860d1e1b"
IDS = AffectedIds([ObjectId(OID), ObjectId(OID)])


def body(kind: MessageType, answer: Answer, dialect: Dialect = Dialect.STRING, **call: Any) -> dict[str, Any]:
    request = Request(kind, "key", "O", None, dialect, True, Leave())
    formatted = format_answer(RestCall(request, **call), answer)
    assert formatted.status == 200
    return json.loads(formatted.body)


@pytest.mark.parametrize(
    ("data", "legacy", "one"),
    [
        (InsertedId(ObjectId(OID)), f'{{"_id":ObjectId("{OID}")}}', {"_id": {"$oid": OID}}),
        (
            IDS,
            f'{{"_ids":[{{"_id":ObjectId("{OID}")}},{{"_id":ObjectId("{OID}")}}]}}',
            {"_ids": [{"_id": {"$oid": OID}}, {"_id": {"$oid": OID}}]},
        ),
        (AffectedIds([]), '{"_ids":[]}', {"_ids": []}),
        (Rows(legacy="[ ]", one=b"[]"), "[ ]", []),
        (Rows(legacy='[ { "a" : "\'\\"\\\\ñ"}]', one=b'[{"a":1}]'), '[ { "a" : "\'\\"\\\\ñ"}]', [{"a": 1}]),
        (Rows(legacy="5", one=b"5"), "5", 5),
        (Text("subscription"), "subscription", "subscription"),
        (Text(""), "", ""),
        (Text("OK"), "OK", "OK"),
        (Json({"kp": "KP", "lasset": []}), '{"kp":"KP","lasset":[]}', {"kp": "KP", "lasset": []}),
        (NoData(), None, None),
    ],
)
def test_data_is_a_string_in_legacy_and_json_in_one(data: Any, legacy: Any, one: Any) -> None:
    answer = Answer(data)
    assert body(MessageType.QUERY, answer) == {"join": False, "leave": False, "data": legacy}
    assert body(MessageType.QUERY, answer, Dialect.ONE) == {
        "join": False,
        "leave": False,
        "data": one,
        "version": "ONE",
    }


@pytest.mark.parametrize(
    ("kind", "answer", "key"),
    [
        (MessageType.JOIN, Answer(Text("new"), session_key="new"), "new"),
        (MessageType.LEAVE, Answer(Text("key")), "key"),
    ],
)
def test_join_and_leave_carry_the_session_key_and_no_data(kind: MessageType, answer: Answer, key: str) -> None:
    expected = {"join": False, "leave": False, "sessionKey": key, "data": None}
    assert body(kind, answer) == expected
    assert body(kind, answer, Dialect.ONE) == {**expected, "version": "ONE"}


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after_s"),
    [
        (AuthenticationError("x"), 401, "AUTENTICATION", None),
        (AuthorizationError("x"), 400, "AUTHORIZATION", None),
        (OntologyNotFoundError("x"), 400, "ONTOLOGY_NOT_FOUND", None),
        (InvalidInstanceError("x"), 400, "PERSISTENCE", None),
        (SqlSyntaxError("x"), 400, "PARSE_SQL", None),
        (MalformedMessageError("x"), 400, "OTHER", None),
        (StoreUnavailableError("x"), 503, "PERSISTENCE", 2),
        (OverloadedError("x"), 503, "OTHER", 2),
        (SibError("x"), 500, "OTHER", None),
    ],
)
def test_refusals(error: SibError, status: int, code: str, retry_after_s: int | None) -> None:
    answer = format_error(error)
    assert (answer.status, answer.retry_after_s) == (status, retry_after_s)
    parsed = json.loads(answer.body)
    assert list(parsed) == ["detail", "errorCode"]
    assert parsed["errorCode"] == code
    assert parsed["detail"].startswith("x")


ERRORS = [kind for _, kind in inspect.getmembers(sib.errors, inspect.isclass) if issubclass(kind, SibError)]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_of_the_platform_has_an_allowed_status(kind: type[SibError]) -> None:
    answer = format_error(kind("x"))
    assert answer.status in {400, 401, 429, 500, 503}
    assert (answer.retry_after_s is not None) == (answer.status in {429, 503})


def test_the_code_that_old_clients_cannot_parse_goes_to_one_only() -> None:
    error = sib.errors.TooManyQueriesError("x")
    assert json.loads(format_error(error, Dialect.STRING).body)["errorCode"] == "OTHER"
    assert json.loads(format_error(error, Dialect.ONE).body)["errorCode"] == "MAX_CONCURRENT_QUERIES_REACHED"


def test_an_error_in_an_answer() -> None:
    request = Request(MessageType.JOIN, "key", None, None, Dialect.STRING, False, Leave())
    answer = format_answer(RestCall(request), Answer(NoData(), error=AuthenticationError("Wrong token.")))
    assert answer.status == 401
    assert b"sessionKey" not in answer.body


@pytest.mark.parametrize(
    ("kind", "status"), [(MessageType.UNSUBSCRIBE, 200), (MessageType.SUBSCRIBE, 400), (MessageType.QUERY, 400)]
)
def test_ending_a_subscription_that_is_gone_is_done(kind: MessageType, status: int) -> None:
    request = Request(kind, "key", None, None, Dialect.STRING, True, Leave())
    assert format_answer(RestCall(request), Answer(NoData(), error=NotFoundError("x"))).status == status


def test_deleting_what_is_not_there_is_refused_and_deleting_by_statement_is_not() -> None:
    request = Request(MessageType.DELETE, "key", "O", None, Dialect.STRING, True, Leave())
    nothing = Answer(AffectedIds([]))
    answer = format_answer(RestCall(request, is_one_instance=True), nothing)
    assert answer.status == 400
    assert json.loads(answer.body)["errorCode"] == "PERSISTENCE"
    assert format_answer(RestCall(request), nothing).status == 200
