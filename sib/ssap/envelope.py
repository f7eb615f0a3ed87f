"""Reads one SSAP message. ``parse_request`` is on the hot path of ingestion: two JSON parses and two small objects.

Sources: Sofia2 android-api json/SSAPMessageDeserializer.java:61-121 (body as object, text, null or array) and
ssap/body/SSAPBodyMessage.java:180-182 (``@type``); what the published clients really send decides.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Any

import orjson

from sib.errors import MalformedMessageError
from sib.ssap.bodies import read_operation
from sib.ssap.messages import Dialect, MessageType
from sib.ssap.operations import Operation, Unsupported
from sib.ssap.strict_json import read_json

MESSAGE_BYTES_MAX = 1_900_000
"""The longest message by default, in bytes."""

_MESSAGE_TYPES: dict[object, MessageType] = {kind.value: kind for kind in MessageType}
_TYPE_IN_TEXT = re.compile(r'"messageType"\s{0,20}:\s{0,20}"([A-Z]{1,20})"')
_MEMBER_IN_HEAD = re.compile(r"""\s*[{,]\s*"(\w{1,20})"\s*:\s*(?:("(?:[^"\\]|\\.)*"|[\w.+-]+)(?=\s*[,}])|(["{]))""")
"""One member of an envelope that was cut: its name and its whole value, or how its value begins."""
_ONE_BODY_IN_HEAD = re.compile(r'[\s{"\\]{1,20}@type')
_SEARCH_CHARACTERS_MAX = 100_000
_UNREAD = Unsupported(MessageType.NONE)


@dataclass(slots=True)
class Request:
    """One SSAP message, whatever the gateway.

    ``dialect_told`` says whether this message itself showed its dialect (a body of null does not).
    """

    message_type: MessageType
    session_key: str | None
    ontology: str | None
    message_id: Any
    dialect: Dialect
    dialect_told: bool
    operation: Operation


class IgnoredPayload(Exception):
    """The payload is not a request and gets no answer: it is blank, or a JSON object without messageType.

    Source: Sofia2 java-api commadmessages/CommandMessageResponse.java (such objects come on the request topic).
    """


class MalformedRequest(MalformedMessageError):
    """A payload that cannot be carried out as a request.

    ``request`` holds what could be read of it, for the answer: the message type (found in the text if the JSON is
    broken, else NONE), the dialect, and the envelope's fields. Its operation means nothing.
    """

    request: Request

    @property
    def message_type(self) -> MessageType:
        return self.request.message_type

    @property
    def dialect(self) -> Dialect:
        return self.request.dialect


def parse_request(payload: bytes | str, *, fallback: Dialect, size_max: int = MESSAGE_BYTES_MAX) -> Request:
    """Reads one message.

    Args:
        payload: The clear text of one frame.
        fallback: The dialect to assume when the body does not tell: the last one told on the connection, else the
            session's, else that of the transport (STRING on MQTT, OBJECT on WebSocket).
        size_max: The longest payload that is read, in bytes.

    Raises:
        IgnoredPayload: blank, or an object without messageType: no answer.
        MalformedRequest: everything else that cannot be read; never another exception.
    """
    if len(payload) > size_max:
        raise oversized(payload[:_SEARCH_CHARACTERS_MAX], len(payload), size_max, fallback=fallback)
    request = Request(MessageType.NONE, None, None, None, fallback, False, _UNREAD)
    envelope: dict[str, Any] | None = None
    try:
        envelope = _read_envelope(payload)
        _fill(request, envelope)
    except MalformedMessageError as error:
        if envelope is None:
            _fill_from_head(request, payload)
        raise _malformed(error.message, request) from None
    return request


def oversized(head: bytes | str, size: int, size_max: int, *, fallback: Dialect) -> MalformedRequest:
    """The refusal of a message that was thrown away while it was read, because it is too long.

    Args:
        head: The beginning that was kept: what it holds of the envelope before the body is in the answer; may be empty.
        size: The length of the whole message, in bytes.
        size_max: The limit, in bytes.
        fallback: The connection's dialect.
    """
    request = Request(MessageType.NONE, None, None, None, fallback, False, _UNREAD)
    _fill_from_head(request, head)
    return _malformed(f"The message has {size} bytes, and at most {size_max} are allowed: send a smaller one", request)


def _read_envelope(payload: bytes | str) -> dict[str, Any]:
    try:
        envelope = read_json(payload, "message")
    except MalformedMessageError:
        if not payload.strip():
            raise IgnoredPayload from None
        raise
    if envelope.__class__ is not dict:
        raise MalformedMessageError("The message must be a JSON object with messageType and body")
    return envelope


def _fill(request: Request, envelope: dict[str, Any]) -> None:
    """Puts what the envelope says into the request, the parts that an error answer repeats first."""
    get = envelope.get
    kind, session_key, ontology, message_id = get("messageType"), get("sessionKey"), get("ontology"), get("messageId")
    if kind is None and "messageType" not in envelope:
        raise IgnoredPayload
    body = get("body")
    if body.__class__ is str:
        request.dialect, request.dialect_told = Dialect.STRING, True
    elif body is not None:
        request.dialect, request.dialect_told = Dialect.OBJECT, True
    if get("version") == "ONE":
        request.dialect, request.dialect_told = Dialect.ONE, True
    if message_id is not None and message_id.__class__ not in (dict, list):
        request.message_id = message_id
    if session_key.__class__ is str:
        request.session_key = session_key
    elif session_key is not None:
        raise MalformedMessageError("sessionKey must be a string or null")
    if ontology.__class__ is str:
        request.ontology = ontology
    elif ontology is not None:
        raise MalformedMessageError("ontology must be a string or null")
    if kind.__class__ is not str or kind not in _MESSAGE_TYPES:
        raise MalformedMessageError(f"Unknown messageType: use one of {', '.join(MessageType)}")
    request.message_type = message_type = _MESSAGE_TYPES[kind]
    if body.__class__ is str:
        body = read_json(body, "body") if body and not body.isspace() else None
    if body.__class__ is dict and "@type" in body:
        request.dialect, request.dialect_told = Dialect.ONE, True
    request.operation = read_operation(message_type, {} if body is None else body)


def _fill_from_head(request: Request, head: bytes | str) -> None:
    """Puts what can be read of a broken or cut message into the request."""
    with contextlib.suppress(IgnoredPayload, MalformedMessageError):
        _fill(request, _envelope_in(head))
    if request.message_type is MessageType.NONE:
        request.message_type = _type_in(head)


def _type_in(text: bytes | str) -> MessageType:
    found = _TYPE_IN_TEXT.search(_text(text))
    return _MESSAGE_TYPES.get(found[1], MessageType.NONE) if found else MessageType.NONE


def _envelope_in(head: bytes | str) -> dict[str, Any]:
    """The members at the head of a message, to the first that is not whole; of the body, whether it is text or ONE."""
    text = _text(head)
    envelope: dict[str, Any] = {}
    at = 0
    while (found := _MEMBER_IN_HEAD.match(text, at)) is not None:
        name, value, beginning = found.groups()
        if value is None:
            if name == "body":
                is_one = _ONE_BODY_IN_HEAD.match(text, found.start(3))
                envelope["body"] = {"@type": None} if is_one else "" if beginning == '"' else {}
            break
        with contextlib.suppress(orjson.JSONDecodeError):
            envelope[name] = orjson.loads(value)
        at = found.end()
    return envelope


def _text(head: bytes | str) -> str:
    head = head[:_SEARCH_CHARACTERS_MAX]
    return head.decode(errors="replace") if isinstance(head, bytes) else head


def _malformed(message: str, request: Request) -> MalformedRequest:
    error = MalformedRequest(message)
    error.request = request
    return error
