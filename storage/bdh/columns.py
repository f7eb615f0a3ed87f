"""From an ontology's schema to the columns of its history.

A column is what the schema says about a field and Arrow can keep exactly; whatever a value does not fit into goes to
``_raw``, so a field that the schema leaves open, or that changes its type, never stops a transfer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sib.ontology import Ontology
from sib.ontology.schema import TAKEN_OUT, resolve

ID, CONTEXT, RAW = "_id", "contextData", "_raw"
DEPTH_MAX = 12
"""Objects inside objects that get columns; what lies deeper goes to ``_raw``."""
COLUMNS_MAX = 2_000
"""Columns of one ontology; further fields go to ``_raw``."""
COMBINED_DEPTH_MAX = 16

STRING, INTEGER, NUMBER, BOOLEAN, DATE, OBJECT_ID = "string", "integer", "number", "boolean", "date", "oid"

_ARROW: dict[str, pa.DataType] = {
    STRING: pa.string(),
    INTEGER: pa.int64(),
    NUMBER: pa.float64(),
    BOOLEAN: pa.bool_(),
    DATE: pa.timestamp("ms"),
    OBJECT_ID: pa.string(),
}


@dataclass(frozen=True, slots=True)
class Scalar:
    """A field with one plain value; ``kind`` is one of the constants above."""

    kind: str

    def arrow(self) -> pa.DataType:
        return _ARROW[self.kind]


@dataclass(frozen=True, slots=True)
class Array:
    """A field with a list of values of one kind."""

    element: Column

    def arrow(self) -> pa.DataType:
        return pa.list_(self.element.arrow())


@dataclass(frozen=True, slots=True)
class Struct:
    """A field with named fields."""

    fields: tuple[tuple[str, Column], ...]

    def arrow(self) -> pa.DataType:
        return pa.struct([pa.field(name, column.arrow()) for name, column in self.fields])


Column = Scalar | Array | Struct

CONTEXT_COLUMNS = Struct(
    (
        ("session_key", Scalar(STRING)),
        ("user", Scalar(STRING)),
        ("kp", Scalar(STRING)),
        ("kp_instancia", Scalar(STRING)),
        ("timezoneId", Scalar(STRING)),
        ("timestamp", Scalar(DATE)),
    )
)


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of one version of an ontology. ``fields`` leaves out ``_id``, ``contextData`` and ``_raw``."""

    fields: Struct
    root: str | None

    def arrow(self) -> pa.Schema:
        return pa.schema(
            [
                pa.field(ID, pa.string()),
                pa.field(CONTEXT, CONTEXT_COLUMNS.arrow()),
                *(pa.field(name, column.arrow()) for name, column in self.fields.fields),
                pa.field(RAW, pa.string()),
            ]
        )


def layout_of(ontology: Ontology) -> Layout:
    """The columns of an ontology, in the order of its schema."""
    return Layout(_Derivation(ontology.schema).document(), ontology.root)


def fingerprint(schema: pa.Schema) -> str:
    """A short name of a schema: equal for files that can be read together without a thought."""
    plain = pa.schema([pa.field(field.name, _plain(field.type)) for field in schema])
    return hashlib.blake2b(plain.serialize().to_pybytes(), digest_size=8).hexdigest()


def _plain(type_: pa.DataType) -> pa.DataType:
    """A file calls the elements of its lists otherwise than we do."""
    if pa.types.is_list(type_):
        return pa.list_(_plain(type_.value_type))
    if pa.types.is_struct(type_):
        return pa.struct([pa.field(field.name, _plain(field.type)) for field in type_])
    return type_


class _Derivation:
    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._n_columns = 0

    def document(self) -> Struct:
        node = resolve(self._schema, self._schema)
        taken = {name.lower() for name in (*TAKEN_OUT, RAW, "fecha")}
        fields = self._fields(node, 0)
        return Struct(tuple((name, column) for name, column in fields if name.lower() not in taken))

    def _column(self, node: Any, depth: int) -> Column | None:
        node = resolve(self._schema, node)
        if not isinstance(node, dict) or depth > DEPTH_MAX:
            return None
        kinds = self._kinds(node)
        properties = self._properties(node)
        if "$date" in properties:
            return self._counted(Scalar(DATE))
        if "$oid" in properties:
            return self._counted(Scalar(OBJECT_ID))
        if kinds == {"object"} or (not kinds and properties):
            fields = self._fields(node, depth + 1)
            return Struct(fields) if fields else None
        if kinds == {"array"}:
            element = self._element(node.get("items"), depth + 1)
            return None if element is None else Array(element)
        if kinds == {INTEGER, NUMBER}:
            return self._counted(Scalar(NUMBER))
        if len(kinds) == 1 and next(iter(kinds)) in (STRING, INTEGER, NUMBER, BOOLEAN):
            return self._counted(Scalar(next(iter(kinds))))
        return None

    def _element(self, items: Any, depth: int) -> Column | None:
        """The column of all elements of an array; those of a tuple must be alike (the coordinates of a point)."""
        nodes = items if isinstance(items, list) else [items]
        columns = {self._column(node, depth) for node in nodes if isinstance(node, dict)}
        return columns.pop() if len(columns) == 1 else None

    def _counted(self, scalar: Scalar) -> Scalar | None:
        self._n_columns += 1
        return scalar if self._n_columns <= COLUMNS_MAX else None

    def _fields(self, node: dict[str, Any], depth: int) -> tuple[tuple[str, Column], ...]:
        found: dict[str, tuple[str, Column]] = {}
        for name, part in self._properties(node).items():
            # Names that differ in case only are one column in SQL: the first one gets it.
            if name.lower() in found or name.startswith("$"):
                continue
            column = self._column(part, depth)
            if column is not None:
                found[name.lower()] = name, column
        return tuple(found.values())

    def _properties(self, node: dict[str, Any]) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        for part in self._combined(node, 0):
            declared = part.get("properties")
            for name, child in (declared if isinstance(declared, dict) else {}).items():
                found.setdefault(name, child)
        return found

    def _combined(self, node: dict[str, Any], depth: int) -> Iterator[dict[str, Any]]:
        yield node
        if depth < COMBINED_DEPTH_MAX:
            for keyword in ("allOf", "anyOf", "oneOf"):
                for part in node.get(keyword, ()):
                    yield from self._combined(resolve(self._schema, part), depth + 1)

    def _kinds(self, node: dict[str, Any]) -> set[str]:
        """The JSON types of a node without null; empty if it does not say."""
        kinds: set[str] = set()
        for part in self._combined(node, 0):
            declared = part.get("type", ())
            kinds |= {declared} if isinstance(declared, str) else set(declared)
        if not kinds and isinstance(node.get("enum"), list):
            kinds = {_kind_of(value) for value in node["enum"]}
        return kinds - {"null"}


def _kind_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int):
        return INTEGER
    if isinstance(value, float):
        return NUMBER
    return STRING if isinstance(value, str) else "array" if isinstance(value, list) else "object"
