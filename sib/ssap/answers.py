"""Formats answers and INDICATIONs, each in the dialect of the question.

Old clients are strict: an unknown, a missing or an oddly typed field kills some of them, so exactly these are sent.
Sources: Sofia2 java-api ssap/SSAPMessage.java:34-49 and ssap/body/SSAPBodyReturnMessage.java:29-42 (unknown properties
are fatal), android-api ssap/body/SSAPBodyMessage.java:55-61 (``@type``, version, contentType), javascript-api
sofia2-api-js-latest.js:746-752 (an apostrophe makes a frame unreadable), python-api messages/messages.py:319-381.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import orjson
from bson import ObjectId

from sib.errors import SibError, SSAPErrorCode
from sib.ssap.envelope import MalformedRequest, Request
from sib.ssap.messages import Dialect, MessageType
from sib.ssap.operations import BulkItem, Command
from sib.ssap.printing import legacy_id, one_id, print_one, respace

ERROR_CHARACTERS_MAX = 2_000
"""The longest error text in an answer; what is longer is cut."""

KEEP: Final = "\x00keep"
"""Session key of an answer: repeat the request's."""


@dataclass(frozen=True, slots=True)
class NoData:
    """JSON null."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string: a session key, a subscription id, "OK", or "" for an UNSUBSCRIBE."""

    text: str


@dataclass(frozen=True, slots=True)
class InsertedId:
    """The id of the one stored instance."""

    object_id: ObjectId


@dataclass(frozen=True, slots=True)
class AffectedIds:
    """The ids of an UPDATE or DELETE, or of an INSERT of several instances. None is a success too."""

    ids: list[ObjectId]


@dataclass(frozen=True, slots=True)
class Rows:
    """What a query found, or the instances of an INDICATION, already printed in at least one of the two ways.

    ``one`` is a JSON array (or the bare number of a counting query), ``legacy`` the same as the old Java driver
    spaced it. What is missing is derived.
    """

    legacy: str | None = None
    one: bytes | None = None

    def as_legacy(self) -> str:
        return respace((self.one or b"[]").decode()) if self.legacy is None else self.legacy

    def as_one(self) -> bytes:
        return (self.legacy or "[ ]").encode() if self.one is None else self.one


@dataclass(slots=True)
class BulkSummary:
    """What became of one kind of item: an id per affected instance, and (item's body, error sentence) per failure."""

    object_ids: list[ObjectId] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Ids are strings in all dialects.

        Source: Sofia2 dotnet-api JSON/JsonSSAPBodyBulkReturnMessageConverter.cs:32-80.
        """
        return {
            "objectIds": [legacy_id(object_id) for object_id in self.object_ids],
            "errors": [{"requestBody": body, "responseBody": sentence} for body, sentence in self.errors],
        }


@dataclass(slots=True)
class BulkResult:
    """The outcome of a BULK. Items of any other type than these three are failures of ``insert``."""

    insert: BulkSummary = field(default_factory=BulkSummary)
    update: BulkSummary = field(default_factory=BulkSummary)
    delete: BulkSummary = field(default_factory=BulkSummary)

    def summary_of(self, item: BulkItem) -> BulkSummary:
        """Where an item's outcome belongs."""
        if item.type == MessageType.UPDATE:
            return self.update
        return self.delete if item.type == MessageType.DELETE else self.insert

    def add_ids(self, item: BulkItem, object_ids: list[ObjectId]) -> None:
        self.summary_of(item).object_ids.extend(object_ids)

    def add_error(self, item: BulkItem, error: SibError) -> None:
        self.summary_of(item).errors.append((item.request_body, error_text(error)))

    def as_json(self) -> dict[str, Any]:
        return {
            "insertSummary": self.insert.as_json(),
            "updateSummary": self.update.as_json(),
            "deleteSummary": self.delete.as_json(),
        }


@dataclass(frozen=True, slots=True)
class Json:
    """Any JSON or BSON value: an object in ONE, its text in LEGACY (the configuration of a KP)."""

    value: Any


AnswerData: TypeAlias = NoData | Text | InsertedId | AffectedIds | Rows | BulkResult | Json


@dataclass(slots=True)
class Answer:
    """The outcome of a request. With an ``error``, ``data`` is not sent.

    ``session_key`` is KEEP but for an accepted JOIN, which carries the session's key. A refused JOIN carries null
    whatever stands here.
    """

    data: AnswerData = field(default_factory=NoData)
    error: SibError | None = None
    session_key: str | None = KEEP


def format_answer(request: Request, answer: Answer) -> bytes:
    """The frame of an answer, in clear."""
    error = answer.error
    session_key = request.session_key if answer.session_key == KEEP else answer.session_key
    if error is not None and request.message_type is MessageType.JOIN:
        session_key = None
    return _frame(
        request.message_id,
        session_key,
        request.ontology,
        request.message_type,
        request.dialect,
        data_json(answer.data, request.dialect) if error is None else b"null",
        error,
    )


def format_unreadable(malformed: MalformedRequest) -> bytes:
    """The answer to a payload that could not be read as a request."""
    return format_answer(malformed.request, Answer(error=malformed))


def format_indication(
    subscription_id: str, session_key: str | None, ontology: str | None, dialect: Dialect, rows: Rows
) -> bytes:
    """An INDICATION over MQTT or WebSocket, in the dialect of the SUBSCRIBE."""
    data = data_json(rows, dialect)
    return _frame(subscription_id, session_key, ontology, MessageType.INDICATION, dialect, data)


def format_indication_rest(
    subscription_id: str, session_key: str | None, ontology: str | None, rows: Rows, *, is_one: bool
) -> bytes:
    """An INDICATION for the callback of a REST subscription.

    In LEGACY the instances stand one after the other, without brackets. Source: AIoTES/SIL-Bridge-Sofia2
    src/test/resources/observations/example-observation.json (a capture) and Sofia2Bridge.java:183-194.
    """
    if is_one:
        return format_indication(subscription_id, session_key, ontology, Dialect.ONE, rows)
    instances = rows.as_legacy().strip().removeprefix("[").removesuffix("]")
    data = _json_string(instances)
    return _frame(subscription_id, session_key, ontology, MessageType.INDICATION, Dialect.STRING, data)


def format_command_indication(subscription_id: str, dialect: Dialect, command: Command) -> bytes:
    """The INDICATION of a COMMAND for one SUBSCRIBECOMMAND, in the dialect of the latter (over REST: STRING or ONE)."""
    data = Json(
        {
            "thinkp": command.kp,
            "thinkpInstance": command.instance,
            "type": command.command_type,
            "args": command.args,
        }
    )
    return _frame(subscription_id, None, None, MessageType.INDICATION, dialect, data_json(data, dialect))


def format_cep_indication(
    subscription_id: str, session_key: str | None, output: str, dialect: Dialect, data: bytes
) -> bytes:
    """The INDICATION of an output of a CEP rule: ``output`` as the SUBSCRIBE named it, ``data`` as JSON.

    Source: about.sofia2.com/2014/08/13/definicion-de-reglas-cep-ejemplos (a capture): the body is no return body.
    """
    body = b'{"Subscription":%b,"inEvents":%b}' % (orjson.dumps(f"{output}-{subscription_id}"), data)
    if dialect is Dialect.STRING:
        body = orjson.dumps(body.decode())
    return _enveloped(subscription_id, session_key, None, b"RESPONSE", MessageType.INDICATION, dialect, body)


@dataclass(frozen=True, slots=True)
class InsertAnswerTemplate:
    """The answer to every accepted INSERT without messageId of one session: ``head + 24 hex digits + tail``."""

    head: bytes
    tail: bytes

    @classmethod
    def for_session(cls, session_key: str | None, ontology: str | None, dialect: Dialect) -> InsertAnswerTemplate:
        digits = b"0123456789abcdef01234567"
        data = data_json(InsertedId(ObjectId(digits.decode())), dialect)
        frame = _frame(None, session_key, ontology, MessageType.INSERT, dialect, data)
        head, _, tail = frame.rpartition(digits)  # the last one: a session key could look like it
        return cls(head, tail)

    def format(self, object_id: ObjectId) -> bytes:
        return self.head + str(object_id).encode() + self.tail


def data_json(data: AnswerData, dialect: Dialect) -> bytes:
    """The JSON of the ``data`` of a return body: real JSON in ONE, null or a string in LEGACY."""
    if isinstance(data, NoData):
        return b"null"
    if isinstance(data, Text):
        return _json_string(data.text)
    if dialect is Dialect.ONE:
        return _data_one(data)
    return _json_string(_data_legacy(data))


def error_text(error: SibError) -> str:
    """The sentence for people with our own code in brackets behind it; never empty, and cut to a bound."""
    sentence = error.message.strip() or "The request was refused"
    if len(sentence) > ERROR_CHARACTERS_MAX:
        sentence = sentence[:ERROR_CHARACTERS_MAX] + "..."
    return f"{sentence} [{error.code}]"


def error_code(error: SibError, dialect: Dialect) -> SSAPErrorCode:
    """The code on the wire: clients of LEGACY dialects cannot parse MAX_CONCURRENT_QUERIES_REACHED."""
    code = error.ssap_code
    is_new = code is SSAPErrorCode.MAX_CONCURRENT_QUERIES_REACHED
    return SSAPErrorCode.OTHER if is_new and dialect is not Dialect.ONE else code


def _data_one(data: InsertedId | AffectedIds | Rows | BulkResult | Json) -> bytes:
    if isinstance(data, Rows):
        return data.as_one()
    if isinstance(data, InsertedId):
        return orjson.dumps(one_id(data.object_id))
    if isinstance(data, AffectedIds):
        return orjson.dumps([one_id(object_id) for object_id in data.ids])
    return print_one(data.as_json() if isinstance(data, BulkResult) else data.value)


def _data_legacy(data: InsertedId | AffectedIds | Rows | BulkResult | Json) -> str:
    if isinstance(data, Rows):
        return data.as_legacy()
    if isinstance(data, InsertedId):
        return legacy_id(data.object_id)
    if isinstance(data, AffectedIds):
        return f"[{','.join(legacy_id(object_id) for object_id in data.ids)}]"
    return print_one(data.as_json() if isinstance(data, BulkResult) else data.value).decode()


def _frame(
    message_id: Any,
    session_key: str | None,
    ontology: str | None,
    message_type: MessageType,
    dialect: Dialect,
    data: bytes,
    error: SibError | None = None,
) -> bytes:
    """A frame around the JSON of ``data``. Only ONE has versions; only STRING has the body as text."""
    if error is None:
        direction, outcome = b"RESPONSE", b'"ok":true,"error":null,"errorCode":null}'
    else:
        code = error_code(error, dialect).encode()
        direction = b"ERROR"
        outcome = b'"ok":false,"error":%b,"errorCode":"%b"}' % (_json_string(error_text(error)), code)
    body = b'{"data":%b,%b' % (data, outcome)
    if dialect is Dialect.ONE:
        body = b'{"@type":"SSAPBodyReturnMessage","version":"ONE","contentType":null,%b' % body[1:]
    elif dialect is Dialect.STRING:
        body = orjson.dumps(body.decode())
    return _enveloped(message_id, session_key, ontology, direction, message_type, dialect, body)


def _enveloped(
    message_id: Any,
    session_key: str | None,
    ontology: str | None,
    direction: bytes,
    message_type: MessageType,
    dialect: Dialect,
    body: bytes,
) -> bytes:
    """A frame around a whole body."""
    frame = b'{"messageId":%b,"sessionKey":%b,"ontology":%b,"direction":"%b","messageType":"%b","body":%b' % (
        orjson.dumps(message_id),
        _json_string(session_key),
        _json_string(ontology),
        direction,
        message_type.encode(),
        body,
    )
    return frame + b',"version":"ONE"}' if dialect is Dialect.ONE else (frame + b"}").replace(b"'", b"\\u0027")


def _json_string(text: str | None) -> bytes:
    try:
        return orjson.dumps(text)
    except TypeError:  # a lone surrogate, which UTF-8 cannot carry
        return orjson.dumps((text or "").encode(errors="replace").decode())
