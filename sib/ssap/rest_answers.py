"""SSAP over REST: an ``Answer`` becomes a status and a JSON body.

LEGACY clients want ``data`` as a string and reject fields they do not know; sessions that joined with version ONE want JSON there.
Source: SIL-Bridge-Sofia2 test resources (captured answers), archetype-angular SofiaErrorResponse.java (errors).
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from sib.errors import NotFoundError, SibError, SSAPErrorCode, StoreError
from sib.ssap.answers import KEEP, AffectedIds, Answer, AnswerData, Text, data_json, error_code, error_text
from sib.ssap.messages import Dialect, MessageType
from sib.ssap.printing import legacy_id, one_id
from sib.ssap.rest import RestCall

RETRY_AFTER_S = 2
"""What 429 and 503 tell the client to wait."""

_STATUSES = frozenset({400, 401, 429, 500, 503})


@dataclass(frozen=True, slots=True)
class RestAnswer:
    """Status, JSON text, and for a status that asks for patience the seconds to wait."""

    status: int
    body: bytes
    retry_after_s: int | None = None


def format_answer(call: RestCall, answer: Answer) -> RestAnswer:
    """The HTTP answer. It has the shape of ``call.request.dialect``, which is by now that of the session."""
    request = call.request
    data = answer.data
    if answer.error is not None:
        if request.message_type is not MessageType.UNSUBSCRIBE or not isinstance(answer.error, NotFoundError):
            return format_error(answer.error, request.dialect)
        # REST clients end a subscription that is gone without an error: java-api TestRestApiFunctional.java, unsubscribe.
        data = Text("")
    if call.is_one_instance and isinstance(data, AffectedIds) and not data.ids:
        return format_error(StoreError("No instance has this _id; nothing was done."), request.dialect)
    is_one = request.dialect is Dialect.ONE
    version = b',"version":"ONE"}' if is_one else b"}"
    if request.message_type is MessageType.JOIN or request.message_type is MessageType.LEAVE:
        key = request.session_key if answer.session_key == KEEP else answer.session_key
        body = b'{"join":false,"leave":false,"sessionKey":' + orjson.dumps(key) + b',"data":null' + version
    else:
        body = b'{"join":false,"leave":false,"data":' + _data(data, request.dialect) + version
    return RestAnswer(200, body)


def format_error(error: SibError, dialect: Dialect = Dialect.STRING) -> RestAnswer:
    """The HTTP answer for a refusal: 401 for AUTENTICATION, 429 and 503 at a bound, 500 for our fault, else 400."""
    status = 401 if error.ssap_code is SSAPErrorCode.AUTHENTICATION else error.status
    if status not in _STATUSES:
        status = 400
    body = orjson.dumps({"detail": error_text(error), "errorCode": error_code(error, dialect).value})
    return RestAnswer(status, body, RETRY_AFTER_S if status in (429, 503) else None)


def _data(data: AnswerData, dialect: Dialect) -> bytes:
    """As over SSAP, but for the ids of several instances, which REST wraps in an object.

    Source: SIL-Bridge-Sofia2 src/test/resources, response-update.json.
    """
    if not isinstance(data, AffectedIds):
        return data_json(data, dialect)
    if dialect is Dialect.ONE:
        return orjson.dumps({"_ids": [one_id(object_id) for object_id in data.ids]})
    return orjson.dumps('{"_ids":[' + ",".join(legacy_id(object_id) for object_id in data.ids) + "]}")
