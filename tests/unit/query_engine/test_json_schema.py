"""``$jsonSchema`` over BSON values: each row is (schema, values that conform, values that do not)."""

# ruff: noqa: E501 - a row of a table stays on its line

from datetime import datetime

import pytest
from bson import Decimal128, Int64, ObjectId

from sib.errors import QuerySyntaxError
from sib.query.json_schema import compile_json_schema


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({}, [1, None, {}], []),
        ({"type": "number"}, [1, 1.5, Int64(1), Decimal128("1")], [True, "1", None]),
        ({"type": ["string", "null"]}, ["", None], [1]),
        ({"bsonType": "date"}, [datetime(2024, 1, 1)], ["2024-01-01"]),
        ({"bsonType": ["int", "objectId"]}, [1, ObjectId()], [1.0, Int64(1)]),
        ({"enum": [1, "a", None]}, [1, 1.0, "a", None], [True, "b"]),
        ({"minimum": 2, "maximum": 5}, [2, 5.0, "text"], [1, 6]),
        ({"minimum": 2, "exclusiveMinimum": True}, [3], [2]),
        ({"multipleOf": 0.1}, [0.3, 1], [0.35]),
        ({"minLength": 1, "maxLength": 2}, ["a", "ñn", 5], ["", "abc"]),
        ({"pattern": "^a"}, ["ab", 5], ["b"]),
        ({"required": ["a"]}, [{"a": None}, 5], [{}]),
        ({"properties": {"a": {"type": "string"}}}, [{}, {"a": "x"}], [{"a": 1}]),
        ({"properties": {"a": {}}, "additionalProperties": False}, [{"a": 1}], [{"b": 1}]),
        ({"patternProperties": {"^x": {"type": "number"}}, "additionalProperties": {"type": "string"}}, [{"x1": 1, "y": ""}], [{"x1": ""}, {"y": 1}]),
        ({"minProperties": 1, "maxProperties": 1}, [{"a": 1}], [{}, {"a": 1, "b": 2}]),
        ({"dependencies": {"a": ["b"], "c": {"required": ["d"]}}}, [{"a": 1, "b": 1}, {}], [{"a": 1}, {"c": 1}]),
        ({"items": {"type": "string"}}, [["a"], [], "x"], [[1]]),
        ({"items": [{"type": "string"}], "additionalItems": False}, [["a"], []], [["a", 1], [1]]),
        ({"minItems": 1, "maxItems": 2, "uniqueItems": True}, [[1], [1, 2]], [[], [1, 2, 3], [1, 1.0]]),
        ({"allOf": [{"minimum": 1}, {"maximum": 3}]}, [2], [4]),
        ({"anyOf": [{"type": "string"}, {"minimum": 3}]}, ["a", 3], [1]),
        ({"oneOf": [{"minimum": 1}, {"minimum": 3}]}, [1], [3, 0]),
        ({"not": {"type": "string"}}, [1], ["a"]),
        ({"title": "t", "description": "d"}, [1], []),
    ],
)  # fmt: skip
def test_schema(schema, good, bad):
    conforms = compile_json_schema(schema)
    assert [conforms(value) for value in good] == [True] * len(good)
    assert [conforms(value) for value in bad] == [False] * len(bad)


@pytest.mark.parametrize(
    "schema",
    [5, {"$ref": "#"}, {"format": "x"}, {"type": "integer"}, {"bsonType": "x"}, {"enum": []}, {"required": 5}, {"minimum": "x"}, {"multipleOf": 0},
     {"pattern": "(?=a)"}, {"exclusiveMinimum": True}, {"items": 5}, {"properties": []}, {"allOf": []}, {"additionalProperties": 5}],
)  # fmt: skip
def test_wrong_schemas_are_refused(schema):
    with pytest.raises(QuerySyntaxError):
        compile_json_schema(schema)
