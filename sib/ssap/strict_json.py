"""Strict and bounded reading of JSON: no NaN, no repeated keys, no deep nesting. Fast for what devices send."""

from __future__ import annotations

import json
from typing import Any

import orjson

from sib.errors import MalformedMessageError

NESTING_MAX = 100
"""How deep the objects and arrays of one JSON text may nest."""


def read_json(text: str, what: str) -> Any:
    """Parses a JSON text.

    Args:
        text: The text.
        what: Its name in error messages ("message", "body").

    Raises:
        MalformedMessageError: not JSON, a key twice in one object, or nesting deeper than ``NESTING_MAX``.
    """
    try:
        value = orjson.loads(text)
    except ValueError as error:
        raise MalformedMessageError(f"The {what} is not valid JSON: {error}") from None
    if text.count("{") + text.count("[") > NESTING_MAX and _is_too_deep(value):
        raise MalformedMessageError(f"The {what} nests too deeply: at most {NESTING_MAX} levels are read")
    if value.__class__ is dict and _keys(text) != len(value) and _repeats_key(text, value):
        raise MalformedMessageError(f"The {what} has the same key twice in one object: send each key once")
    return value


def _keys(text: str) -> int:
    """How many keys a JSON text has, if no blank stands between a key and its colon (else fewer)."""
    return text.count('":') - text.count('\\":')


def _repeats_key(text: str, value: Any) -> bool:
    if _keys(text) == _keys(orjson.dumps(value).decode()):
        return False
    try:
        json.loads(text, object_pairs_hook=_refuse_repeats)
    except _RepeatedKeyError:
        return True
    return False


class _RepeatedKeyError(Exception):
    pass


def _refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _RepeatedKeyError
    return value


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(NESTING_MAX + 1):
        level = [
            child
            for parent in level
            if parent.__class__ in (dict, list)
            for child in (parent.values() if parent.__class__ is dict else parent)
        ]
        if not level:
            return False
    return True
