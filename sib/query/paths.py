"""Dotted paths: how a filter, an expression and a sort reach into a document."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

from sib.errors import QuerySyntaxError
from sib.query.values import MISSING

Predicate: TypeAlias = Callable[[Any], bool]
Parts: TypeAlias = tuple[str, ...]


@lru_cache(maxsize=4096)
def split_path(path: str) -> Parts:
    """The segments of a dotted path."""
    return tuple(path.split("."))


def checked_parts(path: Any, what: str) -> Parts:
    """The segments of a path in an update, projection, sort or expression, where an empty segment is an error."""
    if not isinstance(path, str) or not path:
        raise QuerySyntaxError(f"{what} needs a field name, not {path!r}")
    parts = split_path(path)
    if "" in parts:
        raise QuerySyntaxError(f"{what}: the path {path!r} has an empty field name (a leading, trailing or double dot)")
    if "\0" in path:
        raise QuerySyntaxError(f"{what}: a field name cannot hold the character NUL")
    return parts


def array_index(part: str) -> int | None:
    """The index that a path segment may stand for in an array, or None."""
    if part.isascii() and part.isdigit() and (part == "0" or part[0] != "0") and len(part) < 10:
        return int(part)
    return None


def _collect(value: Any, parts: Parts, position: int, expand: bool, found: list[Any]) -> None:
    """Appends what a filter on the path sees.

    Objects inside an array are entered without an index; a missing field gives MISSING; an array at the end of the path is
    seen element by element and as a whole when ``expand``, unless it was reached by its own index.
    """
    while position < len(parts):
        part = parts[position]
        if isinstance(value, dict):
            value = value.get(part, MISSING)
            position += 1
            if value is MISSING:
                found.append(MISSING)
                return
        elif isinstance(value, list):
            for element in value:
                if isinstance(element, dict):
                    _collect(element, parts, position, expand, found)
            index = array_index(part)
            if index is not None and index < len(value):
                if position + 1 == len(parts):
                    found.append(value[index])
                elif isinstance(value[index], (dict, list)):
                    _collect(value[index], parts, position + 1, expand, found)
            return
        else:
            found.append(MISSING)
            return
    if expand and isinstance(value, list):
        found.extend(value)
    found.append(value)


def values_at(document: Any, path: str, *, expand: bool = True) -> list[Any]:
    """All values that a filter on the path is tried on (MISSING where an object lacks the field)."""
    found: list[Any] = []
    _collect(document, split_path(path), 0, expand, found)
    return found


def any_at(path: str, test: Predicate) -> Predicate:
    """A predicate on documents: whether the test holds for any value at the path, arrays seen element by element."""
    parts = split_path(path)
    if len(parts) == 1:
        return _any_at_field(path, test)
    if len(parts) == 2:
        return _any_at_two(parts, test)

    def matches(document: Any) -> bool:
        value = document
        for part in parts:
            if isinstance(value, dict):
                value = value.get(part, MISSING)
            elif isinstance(value, list):
                found: list[Any] = []
                _collect(document, parts, 0, True, found)
                return any(map(test, found))
            else:
                return test(MISSING)
        return any(map(test, value)) or test(value) if isinstance(value, list) else test(value)

    return matches


def _any_at_field(name: str, test: Predicate) -> Predicate:
    def matches(document: Any) -> bool:
        value = document.get(name, MISSING)
        return any(map(test, value)) or test(value) if isinstance(value, list) else test(value)

    return matches


def _any_at_two(parts: Parts, test: Predicate) -> Predicate:
    outer, inner = parts

    def matches(document: Any) -> bool:
        value = document.get(outer, MISSING)
        if isinstance(value, dict):
            value = value.get(inner, MISSING)
            return any(map(test, value)) or test(value) if isinstance(value, list) else test(value)
        if isinstance(value, list):
            found: list[Any] = []
            _collect(document, parts, 0, True, found)
            return any(map(test, found))
        return test(MISSING)

    return matches


def any_raw_at(path: str, test: Predicate) -> Predicate:
    """As any_at, for tests of arrays as a whole (``$size``, ``$elemMatch``, geometry): the last array is not opened."""
    parts = split_path(path)

    def matches(document: Any) -> bool:
        found: list[Any] = []
        _collect(document, parts, 0, False, found)
        return any(map(test, found))

    return matches


def reader(path: str) -> Callable[[Any], Any]:
    """The value of an expression's field path: arrays on the way are mapped, indexes are not understood.

    Source: MongoDB manual, "Field Path" of aggregation.
    """
    parts = checked_parts(path, "a field path")
    if len(parts) == 1:
        return lambda document: document.get(path, MISSING) if isinstance(document, dict) else read(document, parts)
    return lambda document: read(document, parts)


def read(value: Any, parts: Parts, position: int = 0) -> Any:
    """Reads an expression's field path from the given position on."""
    while position < len(parts):
        if isinstance(value, dict):
            value = value.get(parts[position], MISSING)
            position += 1
        elif isinstance(value, list):
            read_elements = (read(element, parts, position) for element in value if isinstance(element, (dict, list)))
            return [element for element in read_elements if element is not MISSING]
        else:
            return MISSING
    return value


def read_exact(value: Any, parts: Parts) -> Any:
    """The one value at a path of names and indexes, as updates address it; MISSING when it is not there."""
    for part in parts:
        if isinstance(value, dict):
            value = value.get(part, MISSING)
        elif isinstance(value, list):
            index = array_index(part)
            value = value[index] if index is not None and index < len(value) else MISSING
        else:
            return MISSING
    return value


def check_path_conflicts(paths: list[Parts], describe: Callable[[str, str], str]) -> None:
    """Refuses two equal paths, or one that is inside another.

    Raises:
        QuerySyntaxError: with the sentence that ``describe`` makes of the path and of where it meets the other.
    """
    seen: set[Parts] = set()
    for parts in sorted(paths, key=len):
        for length in range(1, len(parts) + 1):
            if parts[:length] in seen:
                raise QuerySyntaxError(describe(".".join(parts), ".".join(parts[:length])))
        seen.add(parts)
