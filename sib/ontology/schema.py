"""From the text of a schema to a JSON Schema of draft-04 that a strict validator takes.

Real Sofia2 schemas have a stray brace behind the end, ``"type": "string"`` beside ``$ref``, definitions at the root
(``"datos"``, reached by ``"#/datos"``), a definition called ``id``, and half of the old ones are draft-03.
Only this module knows that: whoever gets a schema from here gets clean draft-04.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import unquote

import jsonschema_rs

from sib.errors import SchemaError

SCHEMA_CHARACTERS_MAX = 1_000_000
SCHEMA_DEPTH_MAX = 64
SCHEMA_NODES_MAX = 20_000
SCHEMA_EXPANDED_MAX = 100_000
"""Parts when every $ref is replaced by what it leads to: what checking one instance can cost at most."""
REFERENCE_HOPS_MAX = 32
PATTERN_BACKTRACKS_MAX = 100_000
PATTERN_BYTES_MAX = 1_000_000

TAKEN_OUT = frozenset({"_id", "contextData"})
"""What is taken out of an instance before it is validated: the platform sets it."""

DRAFT_04 = "http://json-schema.org/draft-04/schema#"
_RENAMED_ID = "x-id"

_MAPS_OF_SCHEMAS = frozenset({"properties", "patternProperties", "definitions"})
_LISTS_OF_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf"})
_DATA = frozenset({"enum", "default", "example", "examples"})
_KEYWORDS = frozenset(
    {
        "$ref",
        "$schema",
        "additionalItems",
        "additionalProperties",
        "allOf",
        "anyOf",
        "default",
        "dependencies",
        "description",
        "disallow",
        "divisibleBy",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "extends",
        "format",
        "id",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "multipleOf",
        "not",
        "oneOf",
        "pattern",
        "patternProperties",
        "properties",
        "required",
        "title",
        "type",
        "uniqueItems",
    }
)
_ANYTHING: dict[str, Any] = {}
_MAY_FOLLOW_THE_SCHEMA = " \t\r\n}],;"


def parse_schema(text: str | bytes) -> dict[str, Any]:
    """Read the text of a schema: a byte order mark and closing brackets too many are forgiven.

    Raises:
        SchemaError: not a JSON object, or longer than ``SCHEMA_CHARACTERS_MAX``, or nested too deep.

    Source: kp-model SensorLuz-schema.json line 90 (a stray brace that the original server's parser never saw).
    """
    if len(text) > SCHEMA_CHARACTERS_MAX:
        raise SchemaError(f"The schema is longer than {SCHEMA_CHARACTERS_MAX} characters: make it smaller.")
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff")
        stripped = decoded.lstrip()
        schema, end = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(stripped)
    except UnicodeDecodeError as error:
        raise SchemaError(f"The schema is not UTF-8 text (byte {error.start}): save it as UTF-8.") from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise SchemaError(f"The schema is not JSON: {error}.") from error
    if rest := stripped[end:].strip(_MAY_FOLLOW_THE_SCHEMA):
        raise SchemaError(f"The schema is followed by other text ({rest[:40]!r}): leave only one JSON object.")
    if not isinstance(schema, dict):
        raise SchemaError("The schema is not a JSON object: begin it with { and end it with }.")
    return schema


def normalise(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema as clean draft-04; the argument is not changed. Idempotent.

    What means nothing in the schema's own draft means nothing here either: siblings of ``$ref`` are dropped, and so is
    an array-valued ``required`` in draft-03.

    Raises:
        SchemaError: another draft, a ``$ref`` to another document, over ``SCHEMA_DEPTH_MAX`` or ``SCHEMA_NODES_MAX``.
    """
    return _Normaliser(schema).document()


def resolve(schema: dict[str, Any], node: Any) -> dict[str, Any]:
    """Follow the ``$ref`` of a node of a normalised schema; ``{}`` (anything goes) where there is nothing to follow."""
    for _ in range(REFERENCE_HOPS_MAX):
        if not isinstance(node, dict):
            return _ANYTHING
        if "$ref" not in node:
            return node
        node = _look_up(schema, node["$ref"])
    return _ANYTHING


def check_expansion(schema: dict[str, Any]) -> None:
    """Refuse a schema whose references multiply: 60 short lines can hold 2**60 alternatives.

    Raises:
        SchemaError: over ``SCHEMA_EXPANDED_MAX``.
    """
    costs: dict[int, int] = {}

    def cost(node: Any) -> int:
        node = resolve(schema, node)
        key = id(node)
        if key not in costs:
            costs[key] = 1  # what a cycle costs when it comes back here: an instance's own depth ends it
            costs[key] = min(1 + sum(map(cost, _subschemas(node))), SCHEMA_EXPANDED_MAX + 1)
        return costs[key]

    if cost(schema) > SCHEMA_EXPANDED_MAX:
        raise SchemaError(
            f"The schema has more than {SCHEMA_EXPANDED_MAX} parts with every $ref filled in: simplify it."
        )


def draft_of(schema: dict[str, Any]) -> str:
    """The draft that a schema as it was written says it is in: what its errors name."""
    return "draft-03" if "draft-03" in str(schema.get("$schema")) else "draft-04"


def compile_validator(schema: dict[str, Any], draft: str = "draft-04") -> jsonschema_rs.Draft4Validator:
    """Compile a normalised schema that was written in a draft.

    ``format`` is not asserted, nothing is fetched, patterns cannot explode.

    Raises:
        SchemaError: a keyword has a value that it cannot have, or a ``$ref`` leads nowhere.
    """
    try:
        return jsonschema_rs.Draft4Validator(
            schema,
            validate_formats=False,
            offline=True,
            pattern_options=jsonschema_rs.FancyRegexOptions(
                backtrack_limit=PATTERN_BACKTRACKS_MAX, size_limit=PATTERN_BYTES_MAX
            ),
        )
    except jsonschema_rs.ValidationError as error:
        where = ".".join(str(step) for step in error.instance_path) or "its root"
        raise SchemaError(f"The schema is not valid {draft} at {where}: {error.message[:200]}.") from error
    except (jsonschema_rs.ReferencingError, ValueError, TypeError, OverflowError) as error:
        raise SchemaError(f"The schema cannot be used: {str(error)[:200]}.") from error


def _look_up(schema: dict[str, Any], reference: str) -> Any:
    """What a JSON pointer (``#/datos``) leads to, None if nothing."""
    node: Any = schema
    for part in reference.removeprefix("#").split("/")[1:]:
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(node, list):
            node = node[int(name)] if name.isdecimal() and int(name) < len(node) else None
        else:
            node = node.get(name) if isinstance(node, dict) else None
    return node


def _subschemas(node: dict[str, Any]) -> Iterator[Any]:
    for keyword, value in node.items():
        if keyword in _MAPS_OF_SCHEMAS or keyword == "dependencies":
            yield from value.values()
        elif keyword in _LISTS_OF_SCHEMAS or (keyword == "items" and isinstance(value, list)):
            yield from value
        elif keyword in ("items", "not", "additionalItems", "additionalProperties"):
            yield value


class _Normaliser:
    """One pass over one schema."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        declared = schema.get("$schema", DRAFT_04)
        self._is_draft_03 = draft_of(schema) == "draft-03"
        if not self._is_draft_03 and not _is_draft_04(declared):
            raise SchemaError(
                f'The schema says "$schema": {str(declared)[:100]!r}: write it in draft-04 ({DRAFT_04!r}).'
            )
        identifier = schema.get("id")
        self._base = identifier.rstrip("#") if isinstance(identifier, str) else ""
        self._is_id_a_definition = isinstance(identifier, dict)
        self._nodes = 0

    def document(self) -> dict[str, Any]:
        schema = dict(self._schema)
        definition = schema.pop("id", None)
        if isinstance(definition, dict):
            schema[_RENAMED_ID] = definition
        normalised: dict[str, Any] = self._node(schema, 0)
        _drop_from_required(normalised, TAKEN_OUT)
        return {"$schema": DRAFT_04, **normalised}

    def _node(self, schema: Any, depth: int) -> Any:
        if not isinstance(schema, dict):
            return schema
        self._spend(depth)
        if "$ref" in schema:
            others = {key: self._definition(value, depth) for key, value in schema.items() if key not in _KEYWORDS}
            return {"$ref": self._reference(schema["$ref"]), **others}
        node: dict[str, Any] = {}
        for keyword, value in schema.items():
            self._keyword(node, keyword, value, depth)
        self._lift_required(node, schema)
        return node

    def _keyword(self, node: dict[str, Any], keyword: str, value: Any, depth: int) -> None:
        if keyword in ("$schema", "id"):
            return
        if keyword == "required":
            if isinstance(value, list) and value and not self._is_draft_03:
                node["required"] = value
        elif keyword in _DATA:
            node[keyword] = value
        elif keyword == "type":
            self._type(node, value, depth)
        elif keyword in _MAPS_OF_SCHEMAS and isinstance(value, dict):
            self._spend(depth)
            node[keyword] = {name: self._node(sub, depth + 1) for name, sub in value.items()}
        elif keyword in _LISTS_OF_SCHEMAS and isinstance(value, list):
            _extend(node, keyword, [self._node(sub, depth + 1) for sub in value])
        elif keyword == "items" and isinstance(value, list):
            node[keyword] = [self._node(sub, depth + 1) for sub in value]
        elif keyword == "dependencies" and isinstance(value, dict):
            node[keyword] = {
                name: [sub] if isinstance(sub, str) else self._node(sub, depth + 1) for name, sub in value.items()
            }
        elif self._is_draft_03 and keyword in ("divisibleBy", "extends", "disallow"):
            self._draft_03_keyword(node, keyword, value, depth)
        else:
            node[keyword] = self._definition(value, depth)

    def _definition(self, value: Any, depth: int) -> Any:
        """A keyword that holds one schema, or an unknown member: Sofia2 keeps its definitions there."""
        if isinstance(value, list):
            return [self._node(item, depth + 1) for item in value]
        return self._node(value, depth + 1)

    def _draft_03_keyword(self, node: dict[str, Any], keyword: str, value: Any, depth: int) -> None:
        if keyword == "divisibleBy":
            node["multipleOf"] = value
            return
        schemas = [self._type_as_schema(item, depth) for item in (value if isinstance(value, list) else [value])]
        if keyword == "extends":
            _extend(node, "allOf", schemas)
        else:
            node["not"] = {"anyOf": schemas}

    def _type(self, node: dict[str, Any], value: Any, depth: int) -> None:
        """``any`` says nothing; a schema among the types (draft-03) makes alternatives of them."""
        types = value if isinstance(value, list) else [value]
        if "any" in types:
            return
        if any(isinstance(item, dict) for item in types):
            _extend(node, "allOf", [{"anyOf": [self._type_as_schema(item, depth) for item in types]}])
        else:
            node["type"] = value

    def _type_as_schema(self, item: Any, depth: int) -> Any:
        if isinstance(item, str):
            return {} if item == "any" else {"type": item}
        return self._node(item, depth + 1)

    def _lift_required(self, node: dict[str, Any], schema: dict[str, Any]) -> None:
        """``"required": true`` inside a property, draft-03's way, becomes a name in the parent's list."""
        properties = schema.get("properties")
        if not isinstance(properties, dict):
            return
        lifted = [name for name, sub in properties.items() if isinstance(sub, dict) and sub.get("required") is True]
        if lifted:
            node["required"] = list(dict.fromkeys([*node.get("required", []), *lifted]))

    def _reference(self, reference: Any) -> str:
        if not isinstance(reference, str):
            raise SchemaError('A $ref of the schema is not text: write it as "#/name".')
        local = reference.removeprefix(self._base) if self._base else reference
        if local != "#" and not local.startswith("#/"):
            raise SchemaError(
                f"The schema refers to another document ({reference[:100]!r}), which is never fetched: "
                'copy the definition into the schema and refer to it as "#/name".'
            )
        if self._is_id_a_definition and (local == "#/id" or local.startswith("#/id/")):
            return f"#/{_RENAMED_ID}{local[4:]}"
        return local

    def _spend(self, depth: int) -> None:
        self._nodes += 1
        if depth > SCHEMA_DEPTH_MAX:
            raise _too_deep()
        if self._nodes > SCHEMA_NODES_MAX:
            raise SchemaError(f"The schema has more than {SCHEMA_NODES_MAX} parts: make it smaller.")


def _extend(node: dict[str, Any], keyword: str, schemas: list[Any]) -> None:
    """Add to a list of schemas; what is no list stays as it is and is refused when the schema is compiled."""
    if isinstance(node.setdefault(keyword, []), list):
        node[keyword] = [*node[keyword], *schemas]


def _drop_from_required(schema: dict[str, Any], names: frozenset[str]) -> None:
    """A schema that requires ``_id`` means stored documents; an instance is validated without it."""
    required = schema.pop("required", [])
    if kept := [name for name in required if not (isinstance(name, str) and name in names)]:
        schema["required"] = kept


def _is_draft_04(declared: object) -> bool:
    """No draft told, draft-04 however spelled, or "the newest", which was draft-04 when Sofia2's were written."""
    return isinstance(declared, str) and (
        not declared or "draft-04" in declared or declared.rstrip("#") == "http://json-schema.org/schema"
    )


def _too_deep() -> SchemaError:
    return SchemaError(f"The schema is nested deeper than {SCHEMA_DEPTH_MAX} levels: make it flatter.")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
