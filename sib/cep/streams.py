"""Streams as tuples: which attribute stands where, and how an event's attributes become a tuple.

A tuple begins with the event time in ms. The other slots are the attributes that some rule reads, so what no rule reads
costs nothing. A slot may hold all attributes as they came (``select *``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sib.cep import nulls
from sib.cep.language.functions import BOOL, NUMBER, STRING

Event: TypeAlias = tuple[Any, ...]
"""(ts_ms, slot 1, slot 2, ...)"""

AttributePath: TypeAlias = tuple[str | int, ...]

EVERYTHING: AttributePath = ()
"""The path of the slot that holds all attributes."""

TIME = ("ts",)

StreamTypes: TypeAlias = Mapping[str, Mapping[str, str | None]]
"""Declared streams: name to attribute to type (``number``, ``string``, ``bool``; ``float``, ``int`` ... are accepted)."""

_TYPE_NAMES = {
    "number": NUMBER,
    "float": NUMBER,
    "double": NUMBER,
    "int": NUMBER,
    "integer": NUMBER,
    "long": NUMBER,
    "string": STRING,
    "bool": BOOL,
    "boolean": BOOL,
}


def _of_type(kind: type | tuple[type, ...]) -> Callable[[Any], Any]:
    return lambda value: value if isinstance(value, kind) else None


_COERCIONS: dict[str, Callable[[Any], Any]] = {
    NUMBER: lambda value: value if nulls.is_number(value) else None,
    STRING: _of_type(str),
    BOOL: _of_type(bool),
}


@dataclass(frozen=True, slots=True)
class Declaration:
    """The attributes of a stream by their names in lower case: real name and type."""

    attributes: Mapping[str, tuple[str, str | None]]

    @classmethod
    def of(cls, attributes: Mapping[str, str | None]) -> Declaration:
        """From names and type names; an unknown type name is no type."""
        return cls(
            {name.casefold(): (name, _TYPE_NAMES.get((kind or "").lower())) for name, kind in attributes.items()}
        )

    def find(self, path: AttributePath) -> tuple[AttributePath, str | None] | None:
        """The path with the declared spelling, and its type; None when it is not declared."""
        if path == TIME:
            return TIME, NUMBER
        whole = ".".join(str(part) for part in path)
        for name in (whole, str(path[0])):
            found = self.attributes.get(name.casefold())
            if found is not None and name is whole:
                return (found[0],), found[1]
            if found is not None:
                return (found[0], *path[1:]), None
        return None


class Layout:
    """The slots of one stream; grows while rules are compiled."""

    def __init__(self, name: str, declaration: Declaration | None = None) -> None:
        self.name = name
        self.declaration = declaration
        self.slots: dict[AttributePath, int] = {TIME: 0}
        self._types: dict[AttributePath, str | None] = {TIME: NUMBER}
        self.farthest = 0
        """The last slot that was asked for since whoever cares set this to 0."""

    def slot(self, path: AttributePath) -> tuple[int, str | None]:
        """The index of an attribute in the tuples, and its type if declared."""
        kind = None
        if self.declaration is not None and path:
            found = self.declaration.find(path)
            if found is not None:
                path, kind = found
        if path not in self.slots:
            self.slots[path] = len(self.slots)
            self._types[path] = kind
        self.farthest = max(self.farthest, self.slots[path])
        return self.slots[path], self._types[path]

    def projector(self) -> Callable[[int, Mapping[str, Any]], Event]:
        """The function (ts, attributes) to tuple: a missing attribute, and one of another type, is null."""
        namespace: dict[str, Any] = {"dig": nulls.dig}
        sources = ["ts"]
        for path, slot in list(self.slots.items())[1:]:
            source = self._source(path, namespace, slot)
            coercion = _COERCIONS.get(self._types[path] or "")
            if coercion is not None:
                namespace[f"t{slot}"] = coercion
                source = f"t{slot}({source})"
            sources.append(source)
        return eval(f"lambda ts, d: ({', '.join(sources)},)", namespace)  # type: ignore[no-any-return]  # noqa: S307 - own source

    def _source(self, path: AttributePath, namespace: dict[str, Any], slot: int) -> str:
        if path == EVERYTHING:
            return "d"
        if len(path) == 1:
            return f"d.get({str(path[0])!r})"
        namespace[f"p{slot}"] = path
        return f"dig(d, p{slot})"

    def from_row(self, names: Iterable[str], *, is_star: bool) -> Callable[[int, Event], Event]:
        """The function (ts, output row) to tuple, for a rule that feeds this stream."""
        if is_star:
            project = self.projector()
            return lambda ts, row: project(ts, row[0])
        places = {name: index for index, name in enumerate(names)}
        folded = {name.casefold(): index for name, index in places.items()}
        namespace: dict[str, Any] = {"dig": nulls.dig, "names": tuple(places)}
        sources = ["ts"]
        for path, slot in list(self.slots.items())[1:]:
            if path == EVERYTHING:
                sources.append("dict(zip(names, row))")
                continue
            place = places.get(str(path[0]), folded.get(str(path[0]).casefold()))
            if place is None:
                sources.append("None")
            elif len(path) == 1:
                sources.append(f"row[{place}]")
            else:
                namespace[f"p{slot}"] = path[1:]
                sources.append(f"dig(row[{place}], p{slot})")
        return eval(f"lambda ts, row: ({', '.join(sources)},)", namespace)  # type: ignore[no-any-return]  # noqa: S307 - own source
