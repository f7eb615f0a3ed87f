"""SSAP over REST: an HTTP request becomes a ``Request``; its answer is made in ``rest_answers``.

The resource is ``{"join","leave","instanceKP","token","sessionKey","ontology","data"[,"version"]}``.
Source: Sofia2 java-api kp/implementations/rest/ISSAPResourceAPI.java and dotnet-api Rest/SSAPResourceAPI.cs (paths,
parameters).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import orjson

from sib.errors import (
    AuthenticationError,
    LimitError,
    MalformedMessageError,
    SibError,
    UnsupportedError,
)
from sib.ssap.envelope import Request
from sib.ssap.messages import QUERY_TYPES, Dialect, MessageType, QueryType
from sib.ssap.operations import (
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
    Update,
)
from sib.ssap.rest_text import by_id, id_in, id_of, parse_parameters
from sib.ssap.strict_json import read_json
from sib.ssap.text import instance_text, ms_refresh_of, object_of, params_of, query_text, replacement_text

INSTANCES_PER_POST_MAX = 10_000
"""Instances in the array of one POST; above it the request is refused."""


@dataclass(frozen=True, slots=True)
class InsertMany:
    """Instances to store in order, all or none: what a POST with an array in ``data`` asks for.

    Answered by ``AffectedIds`` in the same order. Each item is the JSON text of one instance.
    """

    items: tuple[bytes | str, ...]


RestOperation: TypeAlias = Operation | InsertMany


@dataclass(slots=True)
class RestCall:
    """One REST request, read.

    ``endpoint`` is the URL that wants the INDICATIONs of a subscription. ``is_one_instance`` says that the call names
    one instance, which must exist.
    """

    request: Request
    endpoint: str | None = None
    is_one_instance: bool = False


def read_call(method: str, tail: str, query_string: bytes, body: bytes) -> RestCall:
    """Read a request on the SSAP resource.

    Args:
        method: The HTTP verb, upper case.
        tail: What follows the resource's path, percent-decoded, without slashes at its ends.
        query_string: The raw query string; unescaped blanks, quotes, braces and ampersands in quotes are understood.
        body: The whole body.

    Raises:
        AuthenticationError: A part is missing, and so is the session key.
        MalformedMessageError: A part is missing or cannot be read. Nothing was done.
        LimitError, UnsupportedError: Too many instances, or a verb that this path does not take.
    """
    reader = _SUB_PATHS.get(tail)
    if reader is not None:
        verb, read = reader
        if method != verb:
            raise UnsupportedError(f"{tail} takes {verb}, not {method}")
        return read(parse_parameters(query_string), body)
    if tail:
        read_instance = _INSTANCE_VERBS.get(method)
        if read_instance is None:
            raise UnsupportedError(
                f"{method} is not for one instance: use GET or DELETE, or PUT on the resource itself"
            )
        return read_instance(tail, parse_parameters(query_string))
    read_resource = _RESOURCE_VERBS.get(method)
    if read_resource is None:
        raise UnsupportedError(f"{method} is not for this resource: use GET, POST, PUT or DELETE")
    return read_resource(query_string, body)


# ---------------------------------------------------------------------------------------------------- the resource


def _read_post(query_string: bytes, body: bytes) -> RestCall:
    resource = _resource(body)
    get = resource.get
    join, leave = _flag(get("join")), _flag(get("leave"))
    if join:
        if leave:
            raise MalformedMessageError("join and leave are both true: send one of them")
        instance, token = _string(resource, "instanceKP"), _string(resource, "token")
        if not instance or not token:
            raise MalformedMessageError("A join needs instanceKP (KP:instance) and token")
        return _resource_call(MessageType.JOIN, resource, Join(instance, token=token))
    if leave:
        return _resource_call(MessageType.LEAVE, resource, Leave())
    data = get("data")
    if data.__class__ is str:
        text = data.lstrip()
        if text[:1] == "[":
            return _resource_call(MessageType.INSERT, resource, _insert_many(_json(text, "data")))
        if not text:
            data = None
    elif data.__class__ is list:
        return _resource_call(MessageType.INSERT, resource, _insert_many(data))
    if data is None:
        raise _missing("data is missing: send the instance as JSON text (or join, or leave)", get("sessionKey"))
    return _resource_call(MessageType.INSERT, resource, Insert(instance_text(data), None, QueryType.NATIVE))


def _read_put(query_string: bytes, body: bytes) -> RestCall:
    resource = _resource(body)
    data = replacement_text(resource.get("data"))
    if data is None:
        raise _missing("data is missing: send the whole new instance with its _id", resource.get("sessionKey"))
    criterion = by_id(id_in(data))
    return _resource_call(MessageType.UPDATE, resource, Update(data, criterion, QueryType.NATIVE))


def _read_delete(query_string: bytes, body: bytes) -> RestCall:
    resource = _resource(body)
    data = resource.get("data")
    text = data if isinstance(data, str) else orjson.dumps(data).decode()
    call = _resource_call(MessageType.DELETE, resource, Delete(by_id(id_in(text)), QueryType.NATIVE))
    call.is_one_instance = True
    return call


def _read_get(query_string: bytes, body: bytes) -> RestCall:
    parameters = parse_parameters(query_string)
    query, query_type = _query_of(parameters)
    operation = Query(query, query_type, _arguments(parameters.get("$queryarguments")))
    return _parameter_call(MessageType.QUERY, parameters, operation)


def _get_instance(tail: str, parameters: dict[str, str]) -> RestCall:
    operation = Query(by_id(id_of(tail)), QueryType.NATIVE)
    return _parameter_call(MessageType.QUERY, parameters, operation)


def _delete_instance(tail: str, parameters: dict[str, str]) -> RestCall:
    call = _parameter_call(MessageType.DELETE, parameters, Delete(by_id(id_of(tail)), QueryType.NATIVE))
    call.is_one_instance = True
    return call


# ------------------------------------------------------------------------------------------------------- sub-paths


def _read_config(parameters: dict[str, str], body: bytes) -> RestCall:
    get = parameters.get
    service_parameters = object_of(get("$assetserviceparam"), "$assetServiceParam")
    operation = Config(get("$kp"), get("$instanciakp"), get("$token"), get("$assetservice"), service_parameters)
    return _parameter_call(MessageType.CONFIG, parameters, operation)


def _read_subscribe(parameters: dict[str, str], body: bytes) -> RestCall:
    query, query_type = _query_of(parameters)
    refresh_ms = ms_refresh_of(parameters.get("$msrefresh"))
    operation = Subscribe(query, query_type, refresh_ms, _arguments(parameters.get("$queryarguments")))
    return _parameter_call(MessageType.SUBSCRIBE, parameters, operation, _needed(parameters, "$endpoint"))


def _read_unsubscribe(parameters: dict[str, str], body: bytes) -> RestCall:
    operation = Unsubscribe(_needed(parameters, "$subscriptionId"))
    return _parameter_call(MessageType.UNSUBSCRIBE, parameters, operation)


def _read_report(kind: MessageType, names: tuple[str, ...]) -> Callable[[dict[str, str], bytes], RestCall]:
    def read(parameters: dict[str, str], body: bytes) -> RestCall:
        get = parameters.get
        fields: dict[str, Any] = {name: get(f"${name}") for name in names}
        if kind is MessageType.STATUS:
            fields["status"] = object_of(_json(body, "body") if body.strip() else None, "body")
        elif kind is MessageType.LOCATION:
            fields = {name: value if name == "timestamp" else _number(value) for name, value in fields.items()}
        elif kind is MessageType.LOG:
            fields["level"] = fields["severity"]  # what SSAP calls level, the REST clients call severity
        report = DeviceReport(kind, get("$thinkp"), get("$kp"), get("$token"), get("$owner"), fields)
        return _parameter_call(kind, parameters, report)

    return read


def _read_command(parameters: dict[str, str], body: bytes) -> RestCall:
    get = parameters.get
    arguments = object_of(_json(body, "body") if body.strip() else None, "body")
    operation = Command(get("$thinkp"), get("$kp"), get("$type"), arguments)
    return _parameter_call(MessageType.COMMAND, parameters, operation)


def _read_subscribe_command(parameters: dict[str, str], body: bytes) -> RestCall:
    get = parameters.get
    operation = SubscribeCommand(get("$thinkp"), get("$kp"), get("$token"), get("$type"))
    return _parameter_call(
        MessageType.SUBSCRIBECOMMAND, parameters, operation, _needed(parameters, "$endpoint", with_session=False)
    )


_RESOURCE_VERBS: Final = {"GET": _read_get, "POST": _read_post, "PUT": _read_put, "DELETE": _read_delete}
_INSTANCE_VERBS: Final = {"GET": _get_instance, "DELETE": _delete_instance}
_SUB_PATHS: Final[dict[str, tuple[str, Callable[[dict[str, str], bytes], RestCall]]]] = {
    "config": ("GET", _read_config),
    "subscribe": ("GET", _read_subscribe),
    "unsubscribe": ("GET", _read_unsubscribe),
    "subscribe_command": ("GET", _read_subscribe_command),
    "command": ("POST", _read_command),
    "status": ("POST", _read_report(MessageType.STATUS, ("timestamp",))),
    "location": (
        "POST",
        _read_report(MessageType.LOCATION, ("accuracy", "lat", "lon", "alt", "bearing", "speed", "timestamp")),
    ),
    "error": ("POST", _read_report(MessageType.ERROR, ("severity", "code", "message", "timestamp"))),
    "log": ("POST", _read_report(MessageType.LOG, ("severity", "code", "message", "timestamp"))),
}


# ----------------------------------------------------------------------------------------------------- small parts


def _resource(body: bytes) -> dict[str, Any]:
    resource = _json(body, "body")
    if resource.__class__ is not dict:
        raise MalformedMessageError("The body must be a JSON object: an SSAPResource")
    return resource


def _json(text: bytes | str, name: str) -> Any:
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            raise MalformedMessageError(f"The {name} is not UTF-8") from None
    return read_json(text, name)


def _resource_call(message_type: MessageType, resource: dict[str, Any], operation: RestOperation) -> RestCall:
    get = resource.get
    session_key, ontology, version = get("sessionKey"), get("ontology"), get("version")
    if (session_key is not None and session_key.__class__ is not str) or (
        ontology is not None and ontology.__class__ is not str
    ):
        raise MalformedMessageError("sessionKey and ontology must be strings")
    return RestCall(_request(message_type, session_key or None, ontology or None, version, operation))


def _parameter_call(
    message_type: MessageType, parameters: dict[str, str], operation: RestOperation, endpoint: str | None = None
) -> RestCall:
    get = parameters.get
    request = _request(message_type, get("$sessionkey"), get("$ontology"), get("$version"), operation)
    return RestCall(request, endpoint)


def _request(
    message_type: MessageType, session_key: str | None, ontology: str | None, version: object, operation: RestOperation
) -> Request:
    dialect = Dialect.ONE if version == "ONE" else Dialect.STRING
    is_told = version == "ONE" or version == "LEGACY"
    return Request(message_type, session_key, ontology, None, dialect, is_told, operation)  # type: ignore[arg-type]


def _query_of(parameters: dict[str, str]) -> tuple[str, QueryType]:
    text = _needed(parameters, "$query", may_be_empty=True)
    name = parameters.get("$querytype", "SQLLIKE").strip()
    query_type = QUERY_TYPES.get(name) or QUERY_TYPES.get(name.upper())
    if query_type is None:
        raise MalformedMessageError(f"Unknown $queryType: use one of {', '.join(QueryType)}")
    return query_text(text, query_type), query_type


def _arguments(text: str | None) -> dict[str, str] | None:
    """Arguments of a stored query: a JSON object, or ``name=value`` pairs with a comma, semicolon or bar between."""
    if text is None or not text.strip():
        return None
    if text.lstrip()[:1] == "{":
        return params_of(text)
    pairs = [part.partition("=") for part in re.split(r"[,;|&]", text)]
    if not all(equals and name.strip() for name, equals, _ in pairs):
        raise MalformedMessageError('$queryArguments must be a JSON object such as {"name":"value"}')
    return params_of({name.strip(): value.strip() for name, _, value in pairs})


def _needed(parameters: dict[str, str], name: str, *, may_be_empty: bool = False, with_session: bool = True) -> str:
    value = parameters.get(name.lower())
    if value is None or not (value or may_be_empty):
        raise _missing(f"The parameter {name} is missing", parameters.get("$sessionkey") or not with_session)
    return value


def _missing(message: str, session_key: object) -> SibError:
    """What is wrong with a request that lacks a part: one without a session is 401 first, as it is with the part."""
    if session_key:
        return MalformedMessageError(message)
    return AuthenticationError("the request has no session key: JOIN first")


def _insert_many(items: list[Any]) -> InsertMany:
    if not items:
        raise MalformedMessageError("data is an empty array: send at least one instance")
    if len(items) > INSTANCES_PER_POST_MAX:
        raise LimitError(f"data holds {len(items)} instances; at most {INSTANCES_PER_POST_MAX} are taken at once")
    return InsertMany(tuple(item if isinstance(item, str) else orjson.dumps(item) for item in items))


def _flag(value: Any) -> bool:
    return value is True or value == "true"


def _string(resource: dict[str, Any], name: str) -> str | None:
    value = resource.get(name)
    if value is not None and not isinstance(value, str):
        raise MalformedMessageError(f"{name} must be a string")
    return value


def _number(text: str | None) -> float | str | None:
    """A number, with the decimal comma of some countries too; text that is none stays as it is."""
    try:
        return None if text is None else float(text.replace(",", "."))
    except ValueError:
        return text
