"""Normalises the texts inside SSAP bodies as old clients send them: string rules only, nothing is parsed.

Sources: Sofia2 android-api ssap/body/SSAPBodyMessage.java:167-178 (braces around any query or data that does not begin
with one), c-api SsapMessageGenerator.c:283-301 (a second pair of quotes around parameters).
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from sib.errors import MalformedMessageError
from sib.ssap.messages import QUERY_TYPES, QueryType

MS_REFRESH_MAX = 2**31 - 1
"""The largest msRefresh, in milliseconds: the clients declare it as a 32-bit integer."""

_EMPTY = frozenset({"", "{}", "null"})
# A statement inside braces, not a criterion on a field of that name: `{select * from X}` but not `{select:1}`.
_STATEMENT = re.compile(r"(?:select|insert|update|delete)(?:\s+[^\s:]|\s*[*(\"'`])|db\s*\.[^:{]*\(", re.IGNORECASE)


def json_text(value: Any) -> str:
    """The JSON text of a parsed value."""
    return orjson.dumps(value).decode()


def query_type_of(value: object) -> QueryType:
    """The query type for any spelling: name, ordinal, HDB/CDB, null or absent (NATIVE)."""
    try:
        return QUERY_TYPES[value]
    except (KeyError, TypeError):
        names = ", ".join(QueryType)
        raise MalformedMessageError(f"Unknown queryType: use one of {names}") from None


def query_text(value: Any, query_type: QueryType) -> str:
    """The text of a query without the braces that some clients put around it; "" for null, ``{}`` and blank."""
    if value is None:
        return ""
    if not isinstance(value, str):
        if not isinstance(value, dict):
            raise MalformedMessageError("The query must be a string")
        value = json_text(value)
    text: str = value.strip()
    if text in _EMPTY:
        return ""
    if text[0] == "{" and text[-1] == "}":
        inside = text[1:-1].strip()
        if query_type is not QueryType.NATIVE or ":" not in inside or _STATEMENT.match(inside):
            return inside
    return text


def instance_text(value: Any) -> bytes | str | None:
    """The text of an instance: as sent if it was text (less braces around a whole object or array), else its JSON."""
    if value is None:
        return None
    if not isinstance(value, str):
        return orjson.dumps(value)
    if value[:2] == '{"':  # nearly always
        return value
    text = value.strip()
    if text[:1] == "{" and text[-1:] == "}":
        inside = text[1:-1].strip()
        if inside[:1] in ("{", "[") and inside[-1:] in ("}", "]"):
            return inside
    return value


def replacement_text(value: Any) -> str | None:
    """The new instance of an UPDATE; None for null, "", "null" and ``{}``, which mean that there is none."""
    text = instance_text(value)
    if text is None:
        return None
    if isinstance(text, bytes):
        text = text.decode()
    return None if text.strip() in _EMPTY else text


def ms_refresh_of(value: Any) -> int:
    """The refresh time in milliseconds, sent as a number or as a string; null, absent and blank are 0.

    Raises:
        MalformedMessageError: not a whole number from 0 to ``MS_REFRESH_MAX``.
    """
    if value is None:
        return 0
    try:
        if isinstance(value, str):
            value = int(value.strip() or 0)
        if isinstance(value, (int, float)) and 0 <= value <= MS_REFRESH_MAX:
            return int(value)
    except ValueError:
        pass
    raise MalformedMessageError(f"msRefresh must be a number of milliseconds from 0 to {MS_REFRESH_MAX}")


def params_of(value: Any) -> dict[str, str] | None:
    """The parameters of a predefined query by name, as text. One extra pair of quotes around a value is removed."""
    params = object_of(value, "queryParams")
    return {name: _param(item) for name, item in params.items()} if params else None


def object_of(value: Any, name: str) -> dict[str, Any]:
    """An object that may also arrive as the text of one; null and blank are the empty object."""
    if isinstance(value, str):
        text = value.strip()
        if text in _EMPTY:
            return {}
        try:
            value = orjson.loads(text)
        except ValueError:
            raise MalformedMessageError(f"{name} is not valid JSON: send an object") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedMessageError(f"{name} must be an object")
    return value


def string_of(body: dict[str, Any], name: str) -> str | None:
    """A field that should be a string: numbers and booleans are taken by their JSON text, null and absent are None."""
    value = body.get(name)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (dict, list)):
        raise MalformedMessageError(f"{name} must be a string")
    return json_text(value)


def _param(value: Any) -> str:
    if not isinstance(value, str):
        return json_text(value)
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value
