"""Parameters of predefined queries (SIB_DEFINED): texts from the wire to typed values.

The values go into the parsed query, never into its text, so no value can change what the query does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sib.errors import QuerySyntaxError
from sib.query.extended import number, object_id, parse_date, print_date

Parameters = Mapping[str, Any]

MAX_PARAMETERS = 100
MAX_PARAMETER_CHARS = 65_536


def bind_parameters(values: Mapping[str, Any] | None, types: Mapping[str, str]) -> dict[str, Any]:
    """Typed values by parameter name, for ``plan_native`` and ``plan_sql``.

    An extra pair of quotes around a value is taken off. Parameters that the query does not declare are strings.

    Args:
        values: what the request sent: text, or a value of JSON.
        types: the declared types: string, number (integer, double), boolean, date, objectid; case does not matter.

    Raises:
        QuerySyntaxError: a declared parameter is missing, or its value is not of its type.
    """
    sent = values or {}
    if len(sent) > MAX_PARAMETERS:
        raise QuerySyntaxError(f"More than {MAX_PARAMETERS} parameters in one query are refused.")
    missing = [name for name in types if name not in sent]
    if missing:
        raise QuerySyntaxError(f"The parameter {missing[0]} of this query is missing: send it in queryParams.")
    return {name: _bind(name, value, types.get(name, "string")) for name, value in sent.items()}


def text_of(value: Any) -> str:
    """A bound value as it stands inside a longer string."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return print_date(value)
    return str(value)


def _bind(name: str, value: Any, type_name: str) -> Any:
    convert = _TYPES.get(type_name.lower())
    if convert is None:
        raise QuerySyntaxError(f"The parameter {name} is declared as {type_name}; types are {', '.join(_TYPES)}.")
    text = _unquoted(value if isinstance(value, str) else text_of(value))
    if len(text) > MAX_PARAMETER_CHARS:
        raise QuerySyntaxError(f"The parameter {name} is longer than {MAX_PARAMETER_CHARS} characters.")
    try:
        return convert(text)
    except ValueError as error:
        raise QuerySyntaxError(f"The parameter {name} must be a {type_name.lower()}: {error}.") from None


def _unquoted(text: str) -> str:
    """The text without one extra pair of quotes. Source: Sofia2 C client, queryParams."""
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text


def _number(text: str) -> int | float:
    try:
        result: int | float = number(text.strip(), int)
    except ValueError:
        result = number(text.strip(), float)
    return result


def _boolean(text: str) -> bool:
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.strip().lower()]
    except KeyError:
        raise ValueError(f"'{text[:40]}' is neither true nor false") from None


def _string(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the string contains half a character (a lone surrogate)") from None
    return text


_TYPES: dict[str, Callable[[str], Any]] = {
    "string": _string,
    "number": _number,
    "integer": lambda text: number(text.strip(), int),
    "int": lambda text: number(text.strip(), int),
    "long": lambda text: number(text.strip(), int),
    "float": lambda text: number(text.strip(), float),
    "double": lambda text: number(text.strip(), float),
    "boolean": _boolean,
    "date": parse_date,
    "objectid": object_id,
}
