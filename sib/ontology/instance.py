"""The text of an instance, and what is wrong with one that BSON cannot hold."""

from __future__ import annotations

import math
from typing import Any

import orjson

from sib.errors import InvalidInstanceError, QuerySyntaxError
from sib.integers import HINT, fits, may_exceed, parse_exactly
from sib.ontology.conversion import DEPTH_MAX, UnconvertibleError
from sib.ontology.messages import print_path, print_value
from sib.query.extended import to_extended
from sib.query.relaxed import parse_relaxed

INSTANCE_BYTES_MAX = 16 * 1024 * 1024
"""Of one stored instance; MongoDB's own bound."""

Path = tuple[str | int, ...]


def parse_instance(source: Any) -> dict[str, Any]:
    """Read an instance tolerantly, as JSON types only, from its text or from what a statement was parsed to.

    Tolerated in a text: a byte order mark, JSON that was encoded twice, and the relaxed JSON of old clients (single
    quotes, unquoted keys, ``ISODate(…)``, a first brace that is missing). A key told twice counts as told last.

    Raises:
        InvalidInstanceError: it cannot be read, is not one object, or has an integer beyond 64 bits.
    """
    if isinstance(source, str | bytes | bytearray | memoryview):
        value = _parse_text(_decode(source))
        if isinstance(value, str):
            value = _parse_text(value)
    else:
        value = as_json(source)
    if not isinstance(value, dict):
        raise InvalidInstanceError(f"instance: {print_value(value)} is not an object (type): send one JSON object.")
    return value


def as_json(value: Any) -> Any:
    """A copy of a value as JSON types, the BSON values in it as extended JSON.

    Raises:
        InvalidInstanceError: nested too deep, or a number that JSON does not have.
    """
    try:
        copy = to_extended(value)
    except (RecursionError, OverflowError) as error:
        raise explain(value, error) from error
    if fault := _find_unstorable(copy):
        raise InvalidInstanceError(fault)
    return copy


def explain(document: Any, error: Exception) -> InvalidInstanceError:
    """The error for an instance that is valid JSON but no BSON, with the path and the value at fault."""
    if isinstance(error, UnconvertibleError):
        path = print_path(_find_culprit(document, error.culprit))
        return InvalidInstanceError(f"{path}: {print_value(error.culprit)} cannot be stored: {error.reason}.")
    if isinstance(error, RecursionError):
        return InvalidInstanceError(f"instance: it is nested deeper than {DEPTH_MAX} levels.")
    return InvalidInstanceError(
        _find_unstorable(document) or f"instance: it cannot be stored ({print_value(str(error))})."
    )


def check_integers(text: bytes | str) -> None:
    """Refuse a valid JSON text with an integer that the parser has made a double of.

    Raises:
        InvalidInstanceError: it has one; its path is named.
    """
    if not may_exceed(text):  # nearly always
        return
    try:
        fault = _find_unstorable(parse_exactly(text))
    except RecursionError as error:
        raise explain(None, error) from error
    if fault:
        raise InvalidInstanceError(fault)


def _decode(text: bytes | bytearray | memoryview | str) -> str:
    try:
        decoded = text if isinstance(text, str) else bytes(text).decode()
    except UnicodeDecodeError as error:
        raise InvalidInstanceError(f"The instance is not UTF-8 text (byte {error.start}): send UTF-8.") from error
    return decoded.removeprefix("\ufeff")


def _parse_text(text: str) -> Any:
    try:
        value = orjson.loads(text)
    except ValueError as error:
        strict = str(error)
    else:
        check_integers(text)
        return value
    try:
        relaxed = parse_relaxed(text)
    except QuerySyntaxError as error:
        raise InvalidInstanceError(f"The instance is not JSON: {strict[:200]}.") from error
    return as_json(relaxed)


def _find_culprit(value: Any, culprit: object) -> Path:
    """The path of an object inside a value; the whole if it is not there any more."""
    pending: list[tuple[Path, Any]] = [((), value)]
    while pending:
        path, value = pending.pop()
        if value is culprit:
            return path
        pending += [((*path, key), item) for key, item in _items(value)]
    return ()


def _find_unstorable(document: Any) -> str | None:
    """The first integer, number, text or name in a value that JSON may have and BSON has not."""
    pending: list[tuple[Path, Any]] = [((), document)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, int) and not fits(value):
            return f"{print_path(path)}: {print_value(value)} does not fit in 64 bits: {HINT}"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{print_path(path)}: {value} is not a finite number"
        if isinstance(value, str) and not _is_unicode(value):
            return f"{print_path(path)}: {print_value(value)} is not Unicode text"
        for key, item in _items(value):
            if isinstance(key, str) and ("\0" in key or not _is_unicode(key)):
                return f"{print_path(path)}: the field {print_value(key)} has a NUL or half a character in its name"
            pending.append(((*path, key), item))
    return None


def _is_unicode(text: str) -> bool:
    """False for text with half of a surrogate pair, which relaxed JSON can hold and no encoding can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _items(value: Any) -> list[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []
