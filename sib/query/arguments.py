"""Checks of what stands between the parentheses of a shell method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sib.errors import QuerySyntaxError
from sib.query.plan import Filter, Sort, Stage
from sib.query.shell import Call

MAX_STAGES = 100
MAX_SORT_KEYS = 32
MAX_SKIP = 2**31 - 1

_JAVASCRIPT = frozenset({"$where", "$function", "$accumulator", "$code"})


def optional(call: Call, index: int, default: Any = None) -> Any:
    """The argument at the index, or the default when it is left out or null."""
    value = call.arguments[index] if len(call.arguments) > index else None
    return default if value is None else value


def required(call: Call, index: int, what: str) -> Any:
    """The argument at the index. Raises QuerySyntaxError naming what is missing."""
    value = optional(call, index)
    if value is None:
        raise QuerySyntaxError(f"{call.name}() needs {what}.")
    return value


def at_most(call: Call, count: int) -> None:
    """Refuse more arguments than the method has."""
    if len(call.arguments) > count:
        raise QuerySyntaxError(f"{call.name}() takes at most {count} argument(s), not {len(call.arguments)}.")


def document(value: Any, what: str) -> dict[str, Any]:
    """The value if it is an object. Raises QuerySyntaxError naming what it should be."""
    if not isinstance(value, dict):
        raise QuerySyntaxError(f"{what} must be an object {{...}}, not {type_in_words(value)}.")
    return value


def criterion(value: Any) -> Filter:
    """A filter: an object without JavaScript in it."""
    filter_ = document(value, "The criterion")
    refuse_javascript(filter_)
    return filter_


def options(call: Call, index: int, allowed: frozenset[str]) -> dict[str, Any]:
    """The options object at the index. Options that would change the outcome and are not known are refused."""
    found = document(optional(call, index, {}), f"The options of {call.name}()")
    unknown = [key for key in found if key not in allowed and key not in _WITHOUT_EFFECT]
    if unknown:
        raise QuerySyntaxError(
            f"{call.name}() has no option {unknown[0]!r} here; known are {', '.join(sorted(allowed))}."
        )
    return found


_WITHOUT_EFFECT = frozenset({"writeConcern", "readConcern", "hint", "maxTimeMS", "allowDiskUse", "comment", "ordered"})


def count_of(value: Any, what: str) -> int:
    """A whole number from 0 on; 3.0 is accepted as 3."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise QuerySyntaxError(f"{what} takes a whole number, not {type_in_words(value)}.")
    if not 0 <= value <= MAX_SKIP:
        raise QuerySyntaxError(f"{what} takes a number from 0 to {MAX_SKIP}, not {int(value)}.")
    return int(value)


def sort_of(value: Any) -> Sort:
    """The keys of ``{a: 1, b: -1}`` or ``[["a", 1]]`` in order."""
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise QuerySyntaxError("sort takes an object such as {'contextData.timestamp': -1}.")
    if len(pairs) > MAX_SORT_KEYS:
        raise QuerySyntaxError(f"sort takes at most {MAX_SORT_KEYS} keys.")
    return tuple((_sort_path(path), _direction(path, direction)) for path, direction in pairs)


def pipeline_of(value: Any) -> tuple[Stage, ...]:
    """The stages of an aggregation: each an object with one key that begins with ``$``."""
    if not isinstance(value, list):
        raise QuerySyntaxError("aggregate takes a list of stages: aggregate([{$match: {...}}, {$group: {...}}]).")
    if len(value) > MAX_STAGES:
        raise QuerySyntaxError(f"A pipeline of more than {MAX_STAGES} stages is refused.")
    for number, stage in enumerate(value, 1):
        if not isinstance(stage, dict) or len(stage) != 1 or not next(iter(stage)).startswith("$"):
            raise QuerySyntaxError(f"Stage {number} of the pipeline must be an object with one key such as $match.")
    refuse_javascript(value)
    return tuple(value)


def refuse_javascript(value: Any) -> None:
    """Refuse ``$where``, ``$function`` and their kin anywhere in the value."""
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            found = _JAVASCRIPT.intersection(each)
            if found:
                raise QuerySyntaxError(
                    f"{min(found)} is refused: JavaScript is not carried out. Use operators ($expr)."
                )
            pending.extend(each.values())
        elif isinstance(each, list):
            pending.extend(each)


def type_in_words(value: Any) -> str:
    """What a user would call the value."""
    words = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return words.get(type(value), repr(value)[:60])


def _sort_path(path: Any) -> str:
    if not isinstance(path, str) or not path or path.startswith("$"):
        raise QuerySyntaxError("A key of sort is the path of a field.")
    return path


def _direction(path: str, direction: Any) -> int:
    if isinstance(direction, bool) or not isinstance(direction, int | float) or direction not in (1, -1):
        raise QuerySyntaxError(f"The direction of the sort by {path} must be 1 or -1, not {type_in_words(direction)}.")
    return int(direction)
