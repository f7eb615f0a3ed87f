"""Strict and bounded reading of JSON: no NaN, no repeated keys, no deep nesting. Fast for what devices send."""

from __future__ import annotations

import json
from typing import Any

import orjson

from sib.errors import MalformedMessageError
from sib.integers import HINT, has_long_integer

NESTING_MAX = 254
"""How deep the objects and arrays of one JSON text may nest: as deep as orjson can write them again."""
_NESTED = frozenset({dict, list})


def read_json(text: bytes | str, what: str) -> Any:
    """Parses a JSON text.

    Args:
        text: The text.
        what: Its name in error messages ("message", "body").

    Raises:
        MalformedMessageError: not JSON, not UTF-8, a key twice in one object, an integer beyond 64 bits, or nesting
            deeper than ``NESTING_MAX``.
    """
    try:
        value = orjson.loads(text)
        if value.__class__ is dict and _NESTED.isdisjoint(map(type, value.values())) and _keys(text) == len(value):
            return value  # an envelope, or a body whose instance is text: as KPs of 2014 send it
        written = orjson.dumps(value)
    except ValueError as error:
        raise MalformedMessageError(f"The {what} is not valid JSON: {error}") from None
    except TypeError:
        raise MalformedMessageError(f"The {what} nests too deeply: at most {NESTING_MAX} levels are read") from None
    # A text that is written again as it was read repeats no key and lost no digit: true for most devices, and quickly seen.
    if written == (text.encode() if isinstance(text, str) else text):
        return value
    if _repeats_key(text, written):
        raise MalformedMessageError(f"The {what} has the same key twice in one object: send each key once")
    if has_long_integer(text):
        raise MalformedMessageError(f"The {what} has an integer that does not fit in 64 bits: {HINT}")
    return value


def _repeats_key(text: bytes | str, written: bytes) -> bool:
    """Whether an object in a valid text has a key twice; ``written`` is the same without the repetitions.

    A text with as many keys is not looked at closely: blanks in odd places can hide a repetition, and the last counts.
    """
    if _keys(text) == _keys(written):
        return False
    try:
        json.loads(text, object_pairs_hook=_refuse_repeats, parse_int=str, parse_float=str)
    except _RepeatedKeyError:
        return True
    return False


def _keys(text: bytes | str) -> int:
    """How many keys a JSON text has; those with a blank before their colon are not counted."""
    if isinstance(text, bytes):
        return text.count(b'":') - text.count(b'\\":')
    return text.count('":') - text.count('\\":')


class _RepeatedKeyError(Exception):
    pass


def _refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _RepeatedKeyError
    return value
