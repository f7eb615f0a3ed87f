"""From the parsed body of a request to its typed operation. Items of a BULK take the same way as single messages.

Sources: Sofia2 java-api and android-api ssap/body/*.java; what is really sent is in tests/data/client-frames.jsonl.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sib.errors import MalformedMessageError, SibError, UnsupportedError
from sib.ssap.messages import MessageType
from sib.ssap.operations import (
    Bulk,
    BulkItem,
    Command,
    Config,
    Delete,
    DeviceReport,
    Insert,
    Join,
    Leave,
    Operation,
    Query,
    Subscribe,
    SubscribeCommand,
    Unsubscribe,
    Unsupported,
    Update,
)
from sib.ssap.strict_json import read_json
from sib.ssap.text import (
    instance_text,
    json_text,
    ms_refresh_of,
    object_of,
    params_of,
    query_text,
    query_type_of,
    replacement_text,
    string_of,
)

BULK_ITEMS_MAX = 10_000
"""The most items of one BULK."""

_COMMAND_TYPES = {0: "STATUS", "0": "STATUS"}
_NOT_IN_REPORTS = frozenset(
    {"@type", "data", "version", "contentType", "thinkp", "thinkpInstance", "instanciathinkp", "token", "owner"}
)


def read_operation(message_type: MessageType, body: Any) -> Operation:
    """Reads a body (an object, or the array of a BULK).

    Fields that are missing come as None or "": whether that is an error depends on rights and data not known here.

    Raises:
        MalformedMessageError: a field has a type or a value that cannot be understood.
    """
    if body.__class__ is not dict and (message_type is not MessageType.BULK or body.__class__ is not list):
        raise MalformedMessageError("The body must be a JSON object, or the text of one")
    reader = _READERS.get(message_type)
    return reader(body) if reader is not None else Unsupported(message_type)


def _read_join(body: dict[str, Any]) -> Join:
    return Join(
        instance=string_of(body, "instance") or "",
        token=string_of(body, "token"),
        user=string_of(body, "user"),
        password=string_of(body, "password"),
    )


def _read_leave(_body: dict[str, Any]) -> Leave:
    return Leave()


def _read_insert(body: dict[str, Any]) -> Insert:
    query_type = query_type_of(body.get("queryType"))
    data, query = body.get("data"), body.get("query")
    if query_type.is_sql_like:
        return Insert(None, query_text(query, query_type) or query_text(data, query_type), query_type)
    if data and data != "null" and data != "{}":
        return Insert(instance_text(data), None, query_type)
    statement = query_text(query, query_type)
    if statement[:1] == "{":  # an instance: ios-api's body has no data
        return Insert(statement, None, query_type)
    if statement:
        return Insert(None, statement, query_type)
    return Insert(instance_text(data) or "", None, query_type)


def _read_update(body: dict[str, Any]) -> Update:
    query_type = query_type_of(body.get("queryType"))
    query = query_text(body.get("query"), query_type)
    if query_type.is_sql_like:
        return Update(None, query or query_text(body.get("data"), query_type), query_type)
    data = body.get("data")
    return Update(replacement_text(data), query, query_type, is_removal=data == "")


def _read_delete(body: dict[str, Any]) -> Delete:
    query_type = query_type_of(body.get("queryType"))
    return Delete(query_text(body.get("query"), query_type), query_type)


def _read_query(body: dict[str, Any]) -> Query:
    query_type = query_type_of(body.get("queryType"))
    return Query(query_text(body.get("query"), query_type), query_type, params_of(body.get("queryParams")))


def _read_subscribe(body: dict[str, Any]) -> Subscribe:
    query_type = query_type_of(body.get("queryType"))
    return Subscribe(
        query_text(body.get("query"), query_type),
        query_type,
        ms_refresh_of(body.get("msRefresh")),
        params_of(body.get("queryParams")),
    )


def _read_unsubscribe(body: dict[str, Any]) -> Unsubscribe:
    return Unsubscribe(string_of(body, "idSuscripcion") or "")


def _read_config(body: dict[str, Any]) -> Config:
    instance = string_of(body, "instanciaKp") or string_of(body, "instance")  # Node-RED's names: instance, kp, token
    return Config(
        kp=string_of(body, "kp") or _kp_in(instance),
        instance=instance,
        token=string_of(body, "token"),
        asset_service=string_of(body, "assetService"),
        asset_service_params=object_of(body.get("assetServiceParam"), "assetServiceParam"),
    )


def _report_reader(kind: MessageType) -> Callable[[dict[str, Any]], DeviceReport]:
    def read(body: dict[str, Any]) -> DeviceReport:
        instance = string_of(body, "instanciathinkp") or string_of(body, "thinkpInstance")
        fields = {name: value for name, value in body.items() if name not in _NOT_IN_REPORTS}
        if kind is MessageType.STATUS:
            fields["status"] = object_of(body.get("status"), "status")
        return DeviceReport(
            kind=kind,
            kp=string_of(body, "thinkp") or _kp_in(instance),
            instance=instance,
            token=string_of(body, "token"),
            owner=string_of(body, "owner"),
            fields=fields,
        )

    return read


def _read_subscribe_command(body: dict[str, Any]) -> SubscribeCommand:
    instance = string_of(body, "thinkpInstance") or string_of(body, "instanciathinkp")
    return SubscribeCommand(
        kp=string_of(body, "thinkp") or _kp_in(instance),
        instance=instance,
        token=string_of(body, "token"),
        command_type=_command_type_of(body),
    )


def _read_command(body: dict[str, Any]) -> Command:
    instance = string_of(body, "thinkpInstance") or string_of(body, "instanciathinkp")
    return Command(
        kp=string_of(body, "thinkp") or _kp_in(instance),
        instance=instance,
        command_type=_command_type_of(body),
        args=object_of(body.get("args"), "args"),
    )


def _command_type_of(body: dict[str, Any]) -> str | None:
    kind = string_of(body, "type")
    return _COMMAND_TYPES.get(kind, kind)


def _kp_in(instance: str | None) -> str | None:
    kp, colon, _ = (instance or "").partition(":")
    return kp if colon else None


def _read_bulk(body: dict[str, Any] | list[Any]) -> Bulk:
    items = body.get("items") if isinstance(body, dict) else body
    if isinstance(items, str):
        items = read_json(items, "list of BULK items") if items.strip() else None
    if items is None:
        items = []
    if not isinstance(items, list):
        raise MalformedMessageError("A BULK must hold an array of items {type, body, ontology}")
    if len(items) > BULK_ITEMS_MAX:
        raise MalformedMessageError(f"A BULK holds at most {BULK_ITEMS_MAX} items: send several")
    return Bulk(tuple(_read_bulk_item(item) for item in items))


def _read_bulk_item(item: Any) -> BulkItem:
    """Reads an item; what is wrong with it stays with it, so that the others still run."""
    if not isinstance(item, dict):
        return BulkItem(
            "", None, None, MalformedMessageError("A BULK item must be {type, body, ontology}"), json_text(item)
        )
    kind, ontology, body = item.get("type"), item.get("ontology"), item.get("body")
    request_body = body if isinstance(body, str) else json_text(body)
    error: SibError
    try:
        if kind not in _BULK_TYPES:
            raise UnsupportedError("Only INSERT, UPDATE and DELETE may stand in a BULK")
        if ontology is not None and not isinstance(ontology, str):
            raise MalformedMessageError("The ontology of a BULK item must be a string")
        if isinstance(body, str):
            body = read_json(body, "body of the item")
        operation = read_operation(MessageType(kind), body)
    except (MalformedMessageError, UnsupportedError) as refused:
        error = refused
        return BulkItem(str(kind), ontology if isinstance(ontology, str) else None, None, error, request_body)
    assert isinstance(operation, (Insert, Update, Delete))
    return BulkItem(MessageType(kind), ontology, operation, None, request_body)


_BULK_TYPES = [MessageType.INSERT, MessageType.UPDATE, MessageType.DELETE]  # a list: a type may come as anything

_READERS: dict[MessageType, Callable[[Any], Operation]] = {
    MessageType.JOIN: _read_join,
    MessageType.LEAVE: _read_leave,
    MessageType.INSERT: _read_insert,
    MessageType.UPDATE: _read_update,
    MessageType.DELETE: _read_delete,
    MessageType.QUERY: _read_query,
    MessageType.SUBSCRIBE: _read_subscribe,
    MessageType.UNSUBSCRIBE: _read_unsubscribe,
    MessageType.BULK: _read_bulk,
    MessageType.CONFIG: _read_config,
    MessageType.LOG: _report_reader(MessageType.LOG),
    MessageType.ERROR: _report_reader(MessageType.ERROR),
    MessageType.STATUS: _report_reader(MessageType.STATUS),
    MessageType.LOCATION: _report_reader(MessageType.LOCATION),
    MessageType.SUBSCRIBECOMMAND: _read_subscribe_command,
    MessageType.COMMAND: _read_command,
}
