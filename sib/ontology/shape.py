"""The shape of an ontology's instances, read from its schema: root, columns, dates, and what needs converting."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from sib.errors import UnknownFieldError
from sib.ontology import schema as schemas
from sib.ontology.conversion import date_to_bson, to_bson

Node = dict[str, Any]
Convert = Callable[[Any], Any]

NOT_OF_THE_INSTANCE = schemas.TAKEN_OUT | {"id"}
FIELDS_NAMED_MAX = 10
COMBINED_DEPTH_MAX = 16
_SCALARS = frozenset({"string", "number", "integer", "boolean", "null"})


class Shape:
    """Questions about a normalised schema.

    ``root`` is the key under which the instances live, None if the schema is un-rooted. It is read from the schema and
    never from the ontology's name: TestSensorTemperatura's is ``Sensor``.

    Source: sofia2 kp-model json-schemas; ontologies of the GSMA catalogue are un-rooted.
    """

    def __init__(self, schema: Node) -> None:
        self._schema = schema
        self.root = self._find_root()

    def resolve(self, node: Any) -> Node:
        """Follow ``$ref``."""
        return schemas.resolve(self._schema, node)

    def types(self, node: Node) -> frozenset[str]:
        """The JSON types that a node allows; empty if it does not say."""
        declared = node.get("type", ())
        return frozenset([declared] if isinstance(declared, str) else declared)

    def is_object(self, node: Any) -> bool:
        """Whether a node describes an object, directly or by ``$ref``."""
        node = self.resolve(node)
        types = self.types(node)
        return "object" in types if types else "properties" in node

    def has_path(self, path: str) -> bool:
        """Whether a stored document may have a value at this path: false only if the schema closes it."""
        return path.partition(".")[0] in schemas.TAKEN_OUT or self._walk(path) is not None

    def is_date(self, path: str) -> bool:
        """Whether the schema says that a date is stored at this path."""
        return path == "contextData.timestamp" or any(map(self._is_date, self._walk(path) or ()))

    def type_of(self, path: str) -> str:
        """The one type that the schema gives a path; "string" for a date and where it gives none or several."""
        types = {kind for node in self._walk(path) or () for kind in self.types(self.resolve(node))} - {"null"}
        return next(iter(types)) if len(types) == 1 and not self.is_date(path) else "string"

    def resolve_column(self, name: str, path: str) -> str:
        """Find the path that a column of a SQL-like statement means in a stored document of the ontology ``name``.

        In this order: ``_id`` and ``contextData``; the root; the ontology's name, which stands for the root; a property
        of the root; without a root a property of the schema. Where the schema declares no properties at all, any name
        is a property. A last ``.$date`` or ``.$oid`` is left out: the value itself is stored.

        Raises:
            UnknownFieldError: the schema excludes the path or does not know its first name.
        """
        path = self._without_wrapper(path)
        first, _, rest = path.partition(".")
        if first in schemas.TAKEN_OUT:
            return path
        if self.root is not None and first == self.root:
            found = path
        elif first == name and not (self.root is None and self._declares(first)):
            found = rest if self.root is None else ".".join(filter(None, (self.root, rest)))
        elif self._declares(first):
            found = path if self.root is None else f"{self.root}.{path}"
        elif first in self.resolve(self._schema).get("properties", {}):
            found = path  # beside the root: an ``id`` that the schema names
        else:
            found = ""
        if not found or not self.has_path(found):
            raise UnknownFieldError(f'Ontology "{name}" has no field "{path}"{self._hint()}.')
        return found

    def fields(self) -> list[str]:
        """The names of the declared fields: those of the root, or of the schema if it has none."""
        return list(self._fields_node().get("properties", {}))

    def converter(self) -> Convert:
        """Compile the conversion of a *valid* instance's extended JSON to BSON values, in place.

        Where the schema is closed it says where dates and ids can be, and only these places are visited; what it
        leaves open is searched.
        """
        return self._converter(self._schema, ()) or _unchanged

    def _find_root(self) -> str | None:
        document = self.resolve(self._schema)
        names = [name for name in document.get("properties", {}) if name not in NOT_OF_THE_INSTANCE]
        if len(names) == 1 and self.is_object(document["properties"][names[0]]):
            return str(names[0])
        return None

    def _fields_node(self) -> Node:
        document = self.resolve(self._schema)
        return document if self.root is None else self.resolve(document["properties"][self.root])

    def _declares(self, name: str) -> bool:
        node = self._fields_node()
        children = self._children(node, name)
        return bool(children) or (children is not None and not any(True for _ in self._declared(node)))

    def _declared(self, node: Node) -> Iterator[str]:
        for part in self._combined(node):
            yield from part.get("properties", {})
            yield from part.get("patternProperties", {})

    def _combined(self, node: Node, depth: int = 0) -> Iterator[Node]:
        yield node
        if depth < COMBINED_DEPTH_MAX:
            for keyword in ("allOf", "anyOf", "oneOf"):
                for part in node.get(keyword, ()):
                    yield from self._combined(self.resolve(part), depth + 1)

    def _hint(self) -> str:
        fields = self.fields()
        if not fields:
            return ""
        more = ", …" if len(fields) > FIELDS_NAMED_MAX else ""
        return f": its fields are {', '.join(fields[:FIELDS_NAMED_MAX])}{more}"

    def _without_wrapper(self, path: str) -> str:
        whole, _, last = path.rpartition(".")
        return whole if whole and last in ("$date", "$oid") else path

    def _is_date(self, node: Node) -> bool:
        return any(
            "$date" in part.get("properties", {})
            or ("array" in self.types(part) and self._is_date(self.resolve(part.get("items"))))
            for part in self._combined(node)
        )

    def _walk(self, path: str) -> list[Node] | None:
        """The nodes that describe the values at a path; empty if the schema does not care, None if it excludes them."""
        nodes = [self.resolve(self._schema)]
        for segment in path.split("."):
            allowed = [children for node in nodes if (children := self._children(node, segment)) is not None]
            if not allowed:
                return None
            nodes = [node for children in allowed for node in children]
            if not nodes:
                return []
        return nodes

    def _children(self, node: Node, segment: str, depth: int = 0) -> list[Node] | None:
        """The same for one step. Arrays are passed through, by position or into every element, as queries do."""
        types = self.types(node)
        if types and types <= _SCALARS:
            return None
        if depth >= COMBINED_DEPTH_MAX:
            return []
        found = self._own_children(node, segment, types, depth)
        if found is None:
            return None
        for part in node.get("allOf", ()):
            children = self._children(self.resolve(part), segment, depth + 1)
            if children is None:
                return None
            found += children
        for keyword in ("anyOf", "oneOf"):
            if keyword in node:
                parts = [self._children(self.resolve(part), segment, depth + 1) for part in node[keyword]]
                if all(children is None for children in parts):
                    return None
                found += [child for children in parts for child in children or ()]
        return found

    def _own_children(self, node: Node, segment: str, types: frozenset[str], depth: int) -> list[Node] | None:
        if types and "object" not in types:
            return self._element_children(node, segment, depth)
        found = [self.resolve(sub) for name, sub in node.get("properties", {}).items() if name == segment]
        found += [self.resolve(sub) for name, sub in node.get("patternProperties", {}).items() if _fits(name, segment)]
        others = node.get("additionalProperties")
        if not found and others is False:
            return None
        if not found and isinstance(others, dict):
            return [self.resolve(others)]
        return found

    def _element_children(self, node: Node, segment: str, depth: int) -> list[Node] | None:
        items = node.get("items")
        elements = [self.resolve(item) for item in (items if isinstance(items, list) else [items])]
        if segment.isdecimal():
            return elements[int(segment) : int(segment) + 1] if isinstance(items, list) else elements
        if items is None:
            return []
        parts = [self._children(element, segment, depth + 1) for element in elements]
        if all(children is None for children in parts):
            return None
        return [child for children in parts for child in children or ()]

    def _converter(self, node: Any, above: tuple[int, ...]) -> Convert | None:
        """None: a valid value of this node holds nothing to convert."""
        node = self.resolve(node)
        if id(node) in above:
            return to_bson
        above = (*above, id(node))
        types = self.types(node)
        if types and types <= _SCALARS:
            return None
        if "enum" in node and not any(isinstance(value, dict | list) for value in node["enum"]):
            return None
        if types and types <= _SCALARS | {"array"} and isinstance(node.get("items"), dict):
            element = self._converter(node["items"], above)
            return None if element is None else _elements_converter(element)
        is_closed = node.get("additionalProperties") is False and not node.get("patternProperties")
        if not types or not types <= _SCALARS | {"object"} or not is_closed:
            return to_bson
        properties = node.get("properties", {})
        if any(name.startswith("$") for name in properties):
            return date_to_bson if list(properties) == ["$date"] else to_bson
        slots = [(name, self._converter(sub, above)) for name, sub in properties.items()]
        return _slots_converter([(name, convert) for name, convert in slots if convert is not None])


def _unchanged(value: Any) -> Any:
    return value


def _fits(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return True


def _elements_converter(convert: Convert) -> Convert:
    def convert_elements(value: Any) -> Any:
        return [convert(item) for item in value] if type(value) is list else value

    return convert_elements


def _slots_converter(slots: list[tuple[str, Convert]]) -> Convert | None:
    if not slots:
        return None

    def convert_slots(value: Any) -> Any:
        if type(value) is dict:
            for name, convert in slots:
                if name in value:
                    value[name] = convert(value[name])
        return value

    return convert_slots
