"""A sample instance made from a schema, with the fixed values that Sofia2's own generator used."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sib.errors import InvalidInstanceError, SchemaError
from sib.ontology.schema import TAKEN_OUT
from sib.ontology.shape import COMBINED_DEPTH_MAX, Shape

NUMBER = 28.6
INTEGER = 1
TEXT = "string"
DATE = "2014-01-30T17:14:00Z"
OBJECT_ID = "57d91a96e4b0366dcb24f8ca"
POINT_TYPE = "Point"
POINT_COORDINATES = (9, 19.3)
DEPTH_MAX = 64
VALUES_MAX = 20_000
ITEMS_MAX = 100

_TEXT_OF_FORMAT = {
    "date-time": DATE,
    "date": DATE[:10],
    "time": DATE[11:19],
    "email": "user@example.org",
    "uri": "http://example.org/",
    "ipv4": "127.0.0.1",
    "ip-address": "127.0.0.1",
}


def generate(shape: Shape, schema: dict[str, Any], validate: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Make an instance with every field, or with the required ones only if that does not validate.

    Source: Sofia2's "Generar Instancia": number 28.6, integer 1, "string", 2014-01-30T17:14:00Z, Point [9, 19.3].

    Raises:
        SchemaError: neither validates.
    """
    fault: InvalidInstanceError | None = None
    for with_optional in (True, False):
        made = _Generator(shape, with_optional).value(schema)
        fields = made if isinstance(made, dict) else {}
        sample = {key: value for key, value in fields.items() if key not in TAKEN_OUT}
        try:
            validate(sample)
        except InvalidInstanceError as error:
            fault = error
        else:
            return sample
    raise SchemaError(f"No sample instance could be made for this schema: {fault}.")


class _Generator:
    def __init__(self, shape: Shape, with_optional: bool) -> None:
        self._shape = shape
        self._with_optional = with_optional
        self._values_left = VALUES_MAX
        self._above: list[int] = []

    def value(self, node: Any) -> Any:
        """Make the value of a node. One that is inside itself gets only what it must have, so that it ends."""
        node = self._shape.resolve(node)
        self._values_left -= 1
        if self._values_left < 0 or len(self._above) > DEPTH_MAX:
            raise SchemaError("No sample instance could be made for this schema: it refers to itself without end.")
        is_inside_itself = id(node) in self._above
        self._above.append(id(node))
        made = self._value(self._merged(node), self._with_optional and not is_inside_itself)
        self._above.pop()
        return made

    def _value(self, node: dict[str, Any], with_optional: bool) -> Any:
        if node.get("enum"):
            return node["enum"][0]
        types = self._shape.types(node)
        is_top = len(self._above) == 1
        if is_top or "object" in types or (not types and ("properties" in node or "required" in node)):
            return self._object(node, with_optional)
        if "array" in types or (not types and "items" in node):
            return self._array(node, with_optional)
        if "string" in types:
            return _text(node)
        if "integer" in types:
            return int(_number(node, INTEGER))
        if "number" in types or (not types and ("minimum" in node or "maximum" in node)):
            return _number(node, NUMBER)
        if "boolean" in types:
            return True
        return None if "null" in types else TEXT

    def _merged(self, node: dict[str, Any], depth: int = 0) -> dict[str, Any]:
        """The node with ``allOf`` and the first alternative of ``anyOf`` and ``oneOf`` poured in."""
        parts = [*node.get("allOf", ()), *node.get("anyOf", ())[:1], *node.get("oneOf", ())[:1]]
        if not parts or depth >= COMBINED_DEPTH_MAX:
            return node
        merged = {key: value for key, value in node.items() if key not in ("allOf", "anyOf", "oneOf")}
        for part in parts:
            for key, value in self._merged(self._shape.resolve(part), depth + 1).items():
                if key == "properties":
                    merged[key] = {**value, **merged.get(key, {})}
                elif key == "required":
                    merged[key] = list(dict.fromkeys([*merged.get(key, ()), *value]))
                else:
                    merged.setdefault(key, value)
        return merged

    def _object(self, node: dict[str, Any], with_optional: bool) -> dict[str, Any]:
        properties = node.get("properties", {})
        required = node.get("required", ())
        names = [name for name in properties if with_optional or name in required]
        names += [name for name in required if name not in properties]
        made = {name: self.value(properties.get(name, {"type": "string"})) for name in names}
        if "$date" in made:
            made["$date"] = DATE
        if "$oid" in made:
            made["$oid"] = OBJECT_ID
        if _is_point(made):
            made.update(type=POINT_TYPE, coordinates=list(POINT_COORDINATES))
        return made

    def _array(self, node: dict[str, Any], with_optional: bool) -> list[Any]:
        items = node.get("items", {"type": "string"})
        if isinstance(items, list):
            return [self.value(item) for item in items]
        count = min(max(node.get("minItems", 0), int(with_optional)), node.get("maxItems", ITEMS_MAX), ITEMS_MAX)
        return [self.value(items) for _ in range(count)]


def _is_point(made: dict[str, Any]) -> bool:
    coordinates = made.get("coordinates")
    return (
        made.get("type") in (TEXT, POINT_TYPE)
        and isinstance(coordinates, list)
        and all(isinstance(number, int | float) for number in coordinates)
    )


def _text(node: dict[str, Any]) -> str:
    text = _TEXT_OF_FORMAT.get(node.get("format", ""), TEXT)
    fewest = min(node.get("minLength", 0), 1000)
    return (text * (1 + fewest // len(text)) if len(text) < fewest else text)[: node.get("maxLength")]


def _number(node: dict[str, Any], wanted: float) -> Any:
    """The wanted number, moved into the schema's limits and onto its step."""
    low, high, step = node.get("minimum", -math.inf), node.get("maximum", math.inf), node.get("multipleOf")
    least = step or (1 if isinstance(wanted, int) else 0.1)
    if node.get("exclusiveMinimum") is True:
        low += least
    if node.get("exclusiveMaximum") is True:
        high -= least
    number = min(max(wanted, low), high)
    if step:
        number = math.ceil(number / step) * step
        number = number if number <= high else math.floor(high / step) * step
    return number
