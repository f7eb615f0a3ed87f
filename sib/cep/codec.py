"""Operator states as JSON and back: tuples, deques, sets and dictionaries with any keys keep what they are.

A list stands for itself; every other container is an object with one letter. Nothing is pickled.
"""

from __future__ import annotations

import math
from collections import deque
from datetime import UTC, datetime
from typing import Any

from sib.cep.aggregates import CLASSES, dump_aggregate, load_aggregate
from sib.cep.nulls import WHOLE_MAX

_AGGREGATES = tuple(set(CLASSES.values()))


def encode_state(value: Any) -> Any:
    """A value of which JSON can be made. A type that no state holds becomes its text."""
    if isinstance(value, int) and not -WHOLE_MAX <= value <= WHOLE_MAX:
        return {"i": str(value)}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"f": repr(value)}
    if isinstance(value, list):
        return [encode_state(item) for item in value]
    if isinstance(value, tuple):
        return {"t": [encode_state(item) for item in value]}
    if isinstance(value, deque):
        return {"q": [encode_state(item) for item in value]}
    if isinstance(value, (set, frozenset)):
        return {"s": [encode_state(item) for item in value]}
    if isinstance(value, dict):
        return {"d": [[encode_state(key), encode_state(item)] for key, item in value.items()]}
    if isinstance(value, _AGGREGATES):
        return {"a": encode_state(dump_aggregate(value))}
    if isinstance(value, datetime):
        return {"m": value.replace(tzinfo=value.tzinfo or UTC).timestamp()}
    return str(value)


def decode_state(value: Any) -> Any:
    """The inverse of :func:`encode_state`.

    Raises:
        ValueError: Not something that it made.
    """
    if isinstance(value, list):
        return [decode_state(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError("a container of a snapshot has one letter")
    (letter, content), *_ = value.items()
    if letter == "i":
        return int(content)
    if letter == "f":
        return float(content)
    if letter == "d":
        return {decode_state(key): decode_state(item) for key, item in content}
    if letter == "a":
        return load_aggregate(decode_state(content))
    if letter == "m":
        return datetime.fromtimestamp(content, UTC).replace(tzinfo=None)
    items = [decode_state(item) for item in content]
    match letter:
        case "t":
            return tuple(items)
        case "q":
            return deque(items)
        case "s":
            return set(items)
    raise ValueError(f"no container of a snapshot has the letter {letter!r}")
