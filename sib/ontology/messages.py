"""Why an instance does not fit its schema, in one sentence: path, value, rule."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jsonschema_rs
import orjson

VALUE_CHARACTERS_MAX = 80
NAMES_MAX = 5
WHOLE = "instance"
"""What the path is called when the instance itself is at fault."""

_ARTICLES = {"array": "an array", "integer": "an integer", "object": "an object", "null": "null"}
_PHRASES = {
    "minimum": "is less than {limit}",
    "exclusiveMinimum": "is not more than {limit}",
    "maximum": "is more than {limit}",
    "exclusiveMaximum": "is not less than {limit}",
    "minLength": "is shorter than {limit} characters",
    "maxLength": "is longer than {limit} characters",
    "minItems": "has fewer than {limit} elements",
    "maxItems": "has more than {limit} elements",
    "additionalItems": "has more than {limit} elements",
    "minProperties": "has fewer than {limit} fields",
    "maxProperties": "has more than {limit} fields",
    "multipleOf": "is not a multiple of {multiple_of}",
    "pattern": "does not match {pattern}",
    "uniqueItems": "has equal elements",
    "anyOf": "fits none of the alternatives",
    "oneOf": "does not fit exactly one of the alternatives",
    "not": "fits what the schema excludes",
}


def describe(error: jsonschema_rs.ValidationError) -> str:
    """One sentence for a validation error, bounded: ``Sensor.measure: "x" is not a number (type)``."""
    kind = error.kind
    details = kind.as_dict()
    path = print_path(error.instance_path)
    if kind.name == "required":
        return f"{path}: {print_value(details['property'])} is missing (required)"
    if kind.name == "additionalProperties":
        names = _listed(map(print_value, details["unexpected"]), ", ")
        return f"{path}: {names} is not in the schema (additionalProperties)"
    return f"{path}: {print_value(error.instance)} {_phrase(kind.name, details, error.message)} ({kind.name})"


def print_path(path: Iterable[str | int]) -> str:
    """A path as queries write it: ``Sensor.geometry.coordinates.0``."""
    text = ".".join(map(str, path))[: 4 * VALUE_CHARACTERS_MAX] or WHOLE
    return text.encode(errors="replace").decode()


def print_value(value: Any) -> str:
    """A value as JSON, cut to ``VALUE_CHARACTERS_MAX``."""
    try:
        text = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        text = "{…}" if isinstance(value, dict) else "[…]" if isinstance(value, list) else ascii(value)
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[: VALUE_CHARACTERS_MAX - 1] + "…"


def _phrase(rule: str, details: dict[str, Any], fallback: str) -> str:
    if rule == "type":
        return f"is not {_listed((_ARTICLES.get(name, f'a {name}') for name in details['types']), ' or ')}"
    if rule == "enum":
        return f"is not one of {_listed(map(print_value, details['options']), ', ')}"
    if rule in _PHRASES:
        return _PHRASES[rule].format(
            **{name: print_value(value) for name, value in details.items() if name != "context"}
        )
    return f"breaks the rule: {fallback[:VALUE_CHARACTERS_MAX]}"


def _listed(names: Iterable[str], separator: str) -> str:
    listed = list(names)
    return separator.join(listed[:NAMES_MAX]) + (f"{separator}…" if len(listed) > NAMES_MAX else "")
