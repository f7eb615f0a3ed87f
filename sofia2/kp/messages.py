"""The SSAP messages of a KP, in the dialect with real JSON (``@type``, version ONE)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from sib.errors import SibError
from sib.ssap.messages import QueryType
from sib.ssap.printing import print_one
from sofia2.kp.errors import RefusedError, error_of

Instance = Mapping[str, Any] | str
_SQL_WORDS = ("select", "insert", "update", "delete")
_TYPES = {
    "QUERY": "SSAPBodyQueryMessage",
    "SUBSCRIBE": "SSAPBodySubscribeMessage",
    "UNSUBSCRIBE": "SSAPBodyUnsubscribeMessage",
    "BULK": "SSAPBodyBulkMessage",
    "LEAVE": "SSAPBodyEmptyMessage",
    "CONFIG": "SSAPBodyConfigMessage",
    "LOG": "SSAPBodyLogMessage",
    "ERROR": "SSAPBodyErrorMessage",
    "STATUS": "SSAPBodyStatusMessage",
    "LOCATION": "SSAPBodyLocationMessage",
    "SUBSCRIBECOMMAND": "SSAPBodySubscribeCommandMessage",
    "COMMAND": "SSAPBodyCommandMessage",
}


@dataclass(frozen=True, slots=True)
class Insert:
    """One item of a bulk: store an instance."""

    ontology: str
    instance: Instance


@dataclass(frozen=True, slots=True)
class Update:
    """One item of a bulk: replace what matches by ``instance``, or run the updating statement ``query``."""

    ontology: str
    query: str
    instance: Instance | None = None
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """One item of a bulk: delete what matches."""

    ontology: str
    query: str
    type: str | None = None


BulkItem = Insert | Update | Delete


@dataclass(frozen=True, slots=True)
class BulkResult:
    """The ids that a bulk stored, changed and deleted, and (item as sent, the server's sentence) for what failed."""

    inserted: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came: an answer, or an INDICATION (whose ``message_id`` is the subscription's)."""

    message_type: str
    message_id: Any
    session_key: str | None
    data: Any
    error: SibError | None


def envelope(message_type: str, body: Mapping[str, Any], *, session_key: str | None, ontology: str | None) -> bytes:
    """One request."""
    kind = body.get("@type") or _TYPES.get(message_type, "SSAPBodyOperationMessage")
    return orjson.dumps(
        {
            "messageId": None,
            "sessionKey": session_key,
            "ontology": ontology,
            "direction": "REQUEST",
            "messageType": message_type,
            "body": {"@type": kind, "version": "ONE", **body},
            "version": "ONE",
        }
    )


def read_reply(payload: bytes | str) -> Reply:
    """What the platform sent, whatever its dialect.

    Raises:
        RefusedError: it is no SSAP message.
    """
    try:
        message = orjson.loads(payload)
        body = message["body"]
        if isinstance(body, str):
            body = orjson.loads(body)
        if "inEvents" in body:  # an output of a CEP rule
            return Reply(
                message["messageType"], message["messageId"], message.get("sessionKey"), [body["inEvents"]], None
            )
        error = None if body["ok"] else error_of(body.get("errorCode"), body.get("error"))
        return Reply(message["messageType"], message.get("messageId"), message.get("sessionKey"), body["data"], error)
    except (ValueError, KeyError, TypeError) as fault:
        raise RefusedError("the other end sent something that is no SSAP message") from fault


def instance_text(instance: Instance) -> str:
    """The JSON text of an instance; dates and ObjectIds as extended JSON."""
    return instance if isinstance(instance, str) else print_one(dict(instance)).decode()


def query_type(text: str, given: str | None) -> str:
    """The type of a query: as given, else SQLLIKE for a text that begins like SQL, else NATIVE."""
    if given is not None:
        return QueryType(given).value
    words = text.split(None, 1)
    return QueryType.SQLLIKE.value if words and words[0].lower() in _SQL_WORDS else QueryType.NATIVE.value


def bulk_body(items: Sequence[BulkItem]) -> dict[str, Any]:
    """The body of a BULK."""
    return {"items": [_bulk_item(item) for item in items]}


def operation_body(query: str | None, type_: str | None, instance: Instance | None) -> dict[str, Any]:
    """The body of an INSERT, UPDATE or DELETE."""
    return {
        "data": None if instance is None else instance_text(instance),
        "query": query,
        "queryType": query_type(query or "", type_),
    }


def _bulk_item(item: BulkItem) -> dict[str, Any]:
    if isinstance(item, Insert):
        body = operation_body(None, None, item.instance)
    elif isinstance(item, Update):
        body = operation_body(item.query, item.type, item.instance)
    else:
        body = operation_body(item.query, item.type, None)
    body = {"@type": "SSAPBodyOperationMessage", "version": "ONE", **body}
    return {"type": type(item).__name__.upper(), "ontology": item.ontology, "body": orjson.dumps(body).decode()}


def read_id(data: Any) -> str:
    """The 24 hexadecimal digits of an answer to an INSERT."""
    return str(data["_id"]["$oid"])


def read_ids(data: Any) -> list[str]:
    """The ids of an answer to an UPDATE or DELETE."""
    return [read_id(item) for item in data]


def read_bulk(data: Mapping[str, Any]) -> BulkResult:
    """The answer to a BULK."""
    summaries = [data[f"{name}Summary"] for name in ("insert", "update", "delete")]
    inserted, updated, deleted = ([text.split('"')[3] for text in summary["objectIds"]] for summary in summaries)
    errors = [(error["requestBody"], error["responseBody"]) for summary in summaries for error in summary["errors"]]
    return BulkResult(inserted, updated, deleted, errors)
