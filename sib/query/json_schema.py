"""``$jsonSchema`` in filters: draft 4 as MongoDB reads it, over BSON values, compiled to a predicate.

It is not the validator of ontologies: BSON types (``bsonType``), BSON equality in ``enum``, linear-time patterns, and unknown
keywords are refused.

Source: MongoDB manual, "$jsonSchema".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sib.errors import QuerySyntaxError
from sib.query.matcher import conjunction
from sib.query.numbers import to_decimal
from sib.query.paths import Predicate
from sib.query.regex import compile_search
from sib.query.values import NUMBER_TYPES, TYPE_OF_NUMBER, is_int, is_number, sort_key, type_name

JSON_TYPES = {
    "object": frozenset(("object",)),
    "array": frozenset(("array",)),
    "string": frozenset(("string",)),
    "number": NUMBER_TYPES,
    "boolean": frozenset(("bool",)),
    "null": frozenset(("null",)),
}

ANNOTATIONS = frozenset(("title", "description", "$comment", "default"))

Compiler = Callable[[Any, Mapping[str, Any]], Predicate]


def compile_json_schema(schema: Any) -> Predicate:
    """Compiles a schema to a predicate.

    Raises:
        QuerySyntaxError: a keyword is unknown or has a wrong argument.
    """
    if not isinstance(schema, Mapping):
        raise QuerySyntaxError("$jsonSchema needs an object")
    tests: list[Predicate] = []
    for keyword, argument in schema.items():
        if keyword in ANNOTATIONS:
            continue
        compile_keyword = _KEYWORDS.get(keyword)
        if compile_keyword is None:
            raise QuerySyntaxError(f"$jsonSchema does not know the keyword {keyword!r}")
        tests.append(compile_keyword(argument, schema))
    return conjunction(tests)


def _names(argument: Any, keyword: str) -> list[str]:
    names = argument if isinstance(argument, list) else [argument]
    if not names or not all(isinstance(name, str) for name in names):
        raise QuerySyntaxError(f"$jsonSchema: {keyword} needs a string or an array of strings")
    return list(names)


def _type(argument: Any, _schema: Mapping[str, Any]) -> Predicate:
    allowed: set[str] = set()
    for name in _names(argument, "type"):
        if name not in JSON_TYPES:
            raise QuerySyntaxError(f"$jsonSchema: unknown type {name!r} (write bsonType: 'int' for integer)")
        allowed |= JSON_TYPES[name]
    return lambda value: type_name(value) in allowed


def _bson_type(argument: Any, _schema: Mapping[str, Any]) -> Predicate:
    allowed: set[str] = set()
    for name in _names(argument, "bsonType"):
        if name == "number":
            allowed |= NUMBER_TYPES
        elif name in TYPE_OF_NUMBER.values():
            allowed.add(name)
        else:
            raise QuerySyntaxError(f"$jsonSchema: unknown bsonType {name!r}")
    return lambda value: type_name(value) in allowed


def _enum(argument: Any, _schema: Mapping[str, Any]) -> Predicate:
    if not isinstance(argument, list) or not argument:
        raise QuerySyntaxError("$jsonSchema: enum needs an array that is not empty")
    keys = frozenset(map(sort_key, argument))
    return lambda value: sort_key(value) in keys


def _schemas(argument: Any, keyword: str) -> list[Predicate]:
    if not isinstance(argument, list) or not argument:
        raise QuerySyntaxError(f"$jsonSchema: {keyword} needs an array of schemas")
    return [compile_json_schema(schema) for schema in argument]


def _all_of(argument: Any, _schema: Mapping[str, Any]) -> Predicate:
    return conjunction(_schemas(argument, "allOf"))


def _any_of(argument: Any, _schema: Mapping[str, Any]) -> Predicate:
    tests = _schemas(argument, "anyOf")
    return lambda value: any(test(value) for test in tests)


def _one_of(argument: Any, _schema: Mapping[str, Any]) -> Predicate:
    tests = _schemas(argument, "oneOf")
    return lambda value: sum(1 for test in tests if test(value)) == 1


def _not(argument: Any, _schema: Mapping[str, Any]) -> Predicate:
    test = compile_json_schema(argument)
    return lambda value: not test(value)


# Numbers and strings


def _minimum(argument: Any, schema: Mapping[str, Any]) -> Predicate:
    return _limit(argument, schema.get("exclusiveMinimum", False), "minimum", 1)


def _maximum(argument: Any, schema: Mapping[str, Any]) -> Predicate:
    return _limit(argument, schema.get("exclusiveMaximum", False), "maximum", -1)


def _limit(argument: Any, is_exclusive: Any, keyword: str, sign: int) -> Predicate:
    if not is_number(argument) or not isinstance(is_exclusive, bool):
        raise QuerySyntaxError(f"$jsonSchema: {keyword} needs a number, and its exclusive form a boolean")
    key = sort_key(argument)

    def test(value: Any) -> bool:
        if not is_number(value):
            return True
        value_key = sort_key(value)
        if value_key == key:
            return not is_exclusive
        return value_key > key if sign > 0 else value_key < key

    return test


def _exclusive(keyword: str, partner: str) -> Compiler:
    def compile_it(argument: Any, schema: Mapping[str, Any]) -> Predicate:
        if not isinstance(argument, bool) or partner not in schema:
            raise QuerySyntaxError(f"$jsonSchema: {keyword} is a boolean beside {partner}")
        return lambda _: True

    return compile_it


def _multiple_of(argument: Any, _schema: Mapping[str, Any]) -> Predicate:
    if not is_number(argument) or not to_decimal(argument) > 0:
        raise QuerySyntaxError("$jsonSchema: multipleOf needs a positive number")
    divisor = to_decimal(argument)

    def test(value: Any) -> bool:
        if not is_number(value):
            return True
        number = to_decimal(value)
        if not number.is_finite() or abs(number.adjusted() - divisor.adjusted()) > 25:
            return False
        return number % divisor == 0

    return test


def _bound(keyword: str, applies: type, sign: int) -> Compiler:
    """A bound on the length of a string, an array or an object."""

    def compile_it(argument: Any, _schema: Mapping[str, Any]) -> Predicate:
        if not is_int(argument) or argument < 0:
            raise QuerySyntaxError(f"$jsonSchema: {keyword} needs a whole number that is not negative")
        return lambda value: not isinstance(value, applies) or (len(value) - argument) * sign >= 0  # type: ignore[arg-type]

    return compile_it


def _pattern(argument: Any, _schema: Mapping[str, Any]) -> Predicate:
    search = compile_search(argument)
    return lambda value: not isinstance(value, str) or search(value)


# Objects


def _required(argument: Any, _schema: Mapping[str, Any]) -> Predicate:
    names = _names(argument, "required")
    return lambda value: not isinstance(value, dict) or all(name in value for name in names)


def _compiled_properties(argument: Any, keyword: str) -> dict[str, Predicate]:
    if not isinstance(argument, Mapping):
        raise QuerySyntaxError(f"$jsonSchema: {keyword} needs an object of schemas")
    return {name: compile_json_schema(schema) for name, schema in argument.items()}


def _properties(argument: Any, _schema: Mapping[str, Any]) -> Predicate:
    tests = _compiled_properties(argument, "properties")

    def test(value: Any) -> bool:
        return not isinstance(value, dict) or all(
            name not in value or matches(value[name]) for name, matches in tests.items()
        )

    return test


def _pattern_properties(argument: Any, _schema: Mapping[str, Any]) -> Predicate:
    compiled = _compiled_properties(argument, "patternProperties")
    tests = [(compile_search(pattern), test) for pattern, test in compiled.items()]

    def matches(value: Any) -> bool:
        return not isinstance(value, dict) or all(
            test(item) for search, test in tests for name, item in value.items() if search(name)
        )

    return matches


def _additional_properties(argument: Any, schema: Mapping[str, Any]) -> Predicate:
    known = frozenset(schema.get("properties", {}))
    searches = [compile_search(pattern) for pattern in schema.get("patternProperties", {})]
    allowed = _additional(argument, "additionalProperties")

    def test(value: Any) -> bool:
        return not isinstance(value, dict) or all(
            allowed(item)
            for name, item in value.items()
            if name not in known and not any(search(name) for search in searches)
        )

    return test


def _additional(argument: Any, keyword: str) -> Predicate:
    if isinstance(argument, bool):
        return lambda _: argument
    if isinstance(argument, Mapping):
        return compile_json_schema(argument)
    raise QuerySyntaxError(f"$jsonSchema: {keyword} needs a boolean or a schema")


def _dependencies(argument: Any, _schema: Mapping[str, Any]) -> Predicate:
    if not isinstance(argument, Mapping):
        raise QuerySyntaxError("$jsonSchema: dependencies needs an object")
    tests: dict[str, Predicate] = {
        name: compile_json_schema(item) if isinstance(item, Mapping) else _required(item, {})
        for name, item in argument.items()
    }

    def test(value: Any) -> bool:
        return not isinstance(value, dict) or all(
            name not in value or matches(value) for name, matches in tests.items()
        )

    return test


# Arrays


def _items(argument: Any, schema: Mapping[str, Any]) -> Predicate:
    if isinstance(argument, Mapping):
        every = compile_json_schema(argument)
        return lambda value: not isinstance(value, list) or all(map(every, value))
    tests = _schemas(argument, "items")
    rest = _additional(schema.get("additionalItems", True), "additionalItems")

    def matches(value: Any) -> bool:
        if not isinstance(value, list):
            return True
        return all(test(item) for test, item in zip(tests, value, strict=False)) and all(map(rest, value[len(tests) :]))

    return matches


def _additional_items(argument: Any, _schema: Mapping[str, Any]) -> Predicate:
    _additional(argument, "additionalItems")
    return lambda _: True


def _unique_items(argument: Any, _schema: Mapping[str, Any]) -> Predicate:
    if not isinstance(argument, bool):
        raise QuerySyntaxError("$jsonSchema: uniqueItems needs a boolean")
    return lambda value: not argument or not isinstance(value, list) or len(set(map(sort_key, value))) == len(value)


_KEYWORDS: dict[str, Compiler] = {
    "type": _type,
    "bsonType": _bson_type,
    "enum": _enum,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "minimum": _minimum,
    "maximum": _maximum,
    "exclusiveMinimum": _exclusive("exclusiveMinimum", "minimum"),
    "exclusiveMaximum": _exclusive("exclusiveMaximum", "maximum"),
    "multipleOf": _multiple_of,
    "minLength": _bound("minLength", str, 1),
    "maxLength": _bound("maxLength", str, -1),
    "pattern": _pattern,
    "required": _required,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "minProperties": _bound("minProperties", dict, 1),
    "maxProperties": _bound("maxProperties", dict, -1),
    "dependencies": _dependencies,
    "items": _items,
    "additionalItems": _additional_items,
    "minItems": _bound("minItems", list, 1),
    "maxItems": _bound("maxItems", list, -1),
    "uniqueItems": _unique_items,
}
