"""Schemas as the clients' repositories really have them: draft-03, draft-04, and their faults."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sib.errors import InvalidInstanceError, SchemaError
from sib.ontology.ontology import compile_ontology
from sib.ontology.schema import (
    SCHEMA_CHARACTERS_MAX,
    SCHEMA_DEPTH_MAX,
    SCHEMA_NODES_MAX,
    normalise,
    parse_schema,
)

DRAFT_03 = "http://json-schema.org/draft-03/schema#"
DRAFT_04 = "http://json-schema.org/draft-04/schema#"


def is_valid(schema: dict | str, instance: object) -> bool:
    text = schema if isinstance(schema, str) else json.dumps(schema)
    try:
        compile_ontology("X", text).validate(instance)
    except InvalidInstanceError:
        return False
    return True


# What kp-model's schemas look like: definitions at the root, a false type beside $ref, _id with $oid.
HUMIDITY = {
    "$schema": DRAFT_04,
    "title": "SensorHumedad Schema",
    "type": "object",
    "required": ["SensorHumedad"],
    "properties": {
        "_id": {"type": "object", "$ref": "#/identificador"},
        "SensorHumedad": {"type": "string", "$ref": "#/datos"},
    },
    "additionalProperties": False,
    "identificador": {"type": "object", "properties": {"$oid": {"type": "string"}}, "additionalProperties": False},
    "datos": {
        "type": "object",
        "required": ["identificador", "timestamp", "medida", "geometry"],
        "properties": {
            "identificador": {"type": "string"},
            "timestamp": {
                "type": "object",
                "required": ["$date"],
                "properties": {"$date": {"type": "string", "format": "date-time"}},
                "additionalProperties": False,
            },
            "medida": {"type": "number"},
            "geometry": {"$ref": "#/gps"},
        },
        "additionalProperties": False,
    },
    "gps": {
        "type": "object",
        "required": ["coordinates", "type"],
        "properties": {
            "coordinates": {
                "type": "array",
                "items": [
                    {"type": "number", "maximum": 90, "mininum": -90},
                    {"type": "number", "maximum": 180, "mininum": -180},
                ],
                "minItems": 2,
                "maxItems": 2,
            },
            "type": {"type": "string", "enum": ["Point"]},
        },
        "additionalProperties": False,
    },
}


def humidity(**changes: object) -> dict:
    fields = {
        "identificador": "S_Humedad_00001",
        "timestamp": {"$date": "2014-01-30T17:14:00Z"},
        "medida": 25,
        "geometry": {"coordinates": [40.512967, -3.67495], "type": "Point"},
    }
    return {"SensorHumedad": {**fields, **changes}}


def test_a_good_instance_is_valid_although_a_false_type_stands_beside_ref():
    assert is_valid(HUMIDITY, humidity())


@pytest.mark.parametrize(
    "changes",
    [
        {"timestamp": 1391102040000},
        {"medida": "25"},
        {"geometry": {"coordinates": [90.5, -3.6], "type": "Point"}},
        {"geometry": {"coordinates": [40.5, -3.6, 0], "type": "Point"}},
        {"lo": 3.6},
    ],
)
def test_the_faults_of_the_bad_instances_of_2014_are_found(changes):
    assert not is_valid(HUMIDITY, humidity(**changes))


def test_a_wrong_root_is_refused():
    assert not is_valid(HUMIDITY, {"MandoVatorimetro": humidity()["SensorHumedad"]})


def test_format_is_not_asserted_by_validation():
    assert is_valid(HUMIDITY, humidity(timestamp={"$date": "yesterday"}))


# A draft-03 schema with a stray brace behind its end and a definition called "id", as SensorLuz has.
LIGHT = """{
  "$schema": "http://json-schema.org/draft-03/schema#",
  "id": {"type": "object", "properties": {"$oid": {"type": "string", "required": true}}},
  "type": "object",
  "properties": {
    "_id": {"$ref": "#/id"},
    "SensorLuz": {"type": "string", "$ref": "#/datos", "required": true}
  },
  "datos": {
    "type": "object",
    "properties": {
      "value": {"type": "number", "required": true, "divisibleBy": 0.5},
      "unit": {"type": ["string", "null"], "required": false},
      "anything": {"type": "any"},
      "place": {"type": ["string", {"type": "object", "properties": {"lat": {"type": "number", "required": true}}}]},
      "name": {"disallow": ["number", "boolean"]},
      "end": {"type": "string"}
    },
    "dependencies": {"end": "unit"},
    "additionalProperties": false
  }
}
}
"""


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"value": 1}, True),
        ({"value": 1, "unit": None, "anything": [1], "place": "here", "name": "n"}, True),
        ({"value": 1, "place": {"lat": 4.5}}, True),
        ({"value": 1, "end": "e", "unit": "lx"}, True),
        ({}, False),
        ({"value": "x"}, False),
        ({"value": 1.2}, False),
        ({"value": 1, "other": 1}, False),
        ({"value": 1, "place": {}}, False),
        ({"value": 1, "place": 5}, False),
        ({"value": 1, "name": 5}, False),
        ({"value": 1, "end": "e"}, False),
    ],
)
def test_draft_03_means_what_draft_03_says(fields, expected):
    assert is_valid(LIGHT, {"SensorLuz": fields}) is expected


def test_draft_03_requires_by_true_inside_the_property_and_ignores_a_list():
    assert not is_valid(LIGHT, {})
    assert is_valid({"$schema": DRAFT_03, "required": ["a"]}, {})
    assert not is_valid({"$schema": DRAFT_04, "required": ["a"]}, {})


def test_draft_03_extends_is_all_of():
    schema = {"$schema": DRAFT_03, "extends": {"properties": {"a": {"required": True}}}}
    assert not is_valid(schema, {})
    assert is_valid(schema, {"a": 1})


def test_a_boolean_required_and_an_empty_one_are_understood_in_draft_04_too():
    schema = {"required": [], "properties": {"a": {"type": "string", "required": True}, "b": {"required": False}}}
    assert not is_valid(schema, {"b": 1})
    assert is_valid(schema, {"a": "x"})


def test_a_definition_called_id_is_found_by_its_references():
    schema = normalise(parse_schema(LIGHT))
    assert schema["properties"]["_id"] == {"$ref": "#/x-id"}
    assert schema["x-id"]["required"] == ["$oid"]


def test_a_uri_id_is_left_out_and_references_through_it_are_local():
    schema = {
        "id": "http://example.org/s#",
        "properties": {"a": {"$ref": "http://example.org/s#/datos"}},
        "datos": {"type": "string"},
    }
    assert is_valid(schema, {"a": "x"})
    assert not is_valid(schema, {"a": 1})


def test_what_the_platform_sets_is_never_required():
    schema = {"required": ["_id", "contextData", "a"], "properties": {"_id": {"type": "object"}, "a": {}}}
    assert is_valid(schema, {"a": 1})
    assert not is_valid(schema, {})


def test_normalising_changes_neither_its_argument_nor_a_normalised_schema():
    schema = parse_schema(LIGHT)
    before = json.dumps(schema)
    once = normalise(schema)
    assert json.dumps(schema) == before
    assert normalise(once) == once


@pytest.mark.parametrize("text", ["\ufeff{}", b"\xef\xbb\xbf{}", " {} \n", "{}}", "{};"])
def test_marks_blanks_and_closing_brackets_too_many_are_forgiven(text):
    assert parse_schema(text) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("[]", "not a JSON object"),
        ("{", "not JSON"),
        ('{"a": NaN}', "not JSON"),
        (b"\xff{}", "UTF-8"),
        ('{} {"a": 1}', "followed by other text"),
        ("{" + " " * SCHEMA_CHARACTERS_MAX + "}", "longer than"),
        ('{"a":' * 100_000, "deeper"),
    ],
)
def test_a_text_that_is_no_schema_is_refused_with_the_reason(text, words):
    with pytest.raises(SchemaError, match=words):
        parse_schema(text)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"$schema": "https://json-schema.org/draft/2020-12/schema"}, "draft-04"),
        ({"properties": {"a": {"$ref": "http://example.org/other.json"}}}, "never fetched"),
        ({"properties": {"a": {"$ref": "other.json#/a"}}}, "never fetched"),
        ({"properties": {"a": {"$ref": 5}}}, "not text"),
        ({"properties": {"a": {"$ref": "#/nowhere"}}}, "nowhere"),
        ({"type": "text"}, "not valid draft-04 at type"),
        (
            {"$schema": "http://json-schema.org/draft-03/schema#", "properties": {"a": {"type": "text"}}},
            "not valid draft-03 at properties.a.type",
        ),
        ({"properties": {"a": {"pattern": "["}}}, "not valid draft-04 at properties.a.pattern"),
        ({"properties": {"a": {"$ref": "#/datos"}}, "datos": {"properties": 5}}, "object"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_with_the_reason(schema, words):
    with pytest.raises(SchemaError, match=words):
        compile_ontology("X", json.dumps(schema))


def nested(levels: int) -> dict:
    schema: dict = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


def test_the_bounds_of_a_schema_hold():
    compile_ontology("X", json.dumps(nested(SCHEMA_DEPTH_MAX)))
    with pytest.raises(SchemaError, match="deeper"):
        compile_ontology("X", json.dumps(nested(SCHEMA_DEPTH_MAX + 1)))
    with pytest.raises(SchemaError, match="more than"):
        compile_ontology("X", json.dumps({"properties": {str(number): {} for number in range(SCHEMA_NODES_MAX)}}))


def test_references_that_multiply_are_refused():
    doubled = {f"d{n}": {"anyOf": [{"$ref": f"#/d{n + 1}"}, {"$ref": f"#/d{n + 1}"}]} for n in range(60)}
    with pytest.raises(SchemaError, match="simplify"):
        compile_ontology("X", json.dumps({"properties": {"a": {"$ref": "#/d0"}}, **doubled, "d60": {}}))


def test_a_schema_may_refer_to_itself():
    tree = {"properties": {"child": {"$ref": "#"}, "name": {"type": "string"}}, "additionalProperties": False}
    assert is_valid(tree, {"child": {"child": {"name": "x"}}})
    assert not is_valid(tree, {"child": {"child": {"name": 1}}})


def test_a_pattern_that_would_explode_is_bounded():
    schema = {"properties": {"a": {"pattern": "^(?=(a+)+$)(a|aa)+$"}}}
    assert not is_valid(schema, {"a": "a" * 5000 + "b"})


KEYWORDS = (
    "type properties items required $ref enum anyOf allOf not minimum pattern datos id additionalProperties "
    "dependencies extends disallow patternProperties maxLength $schema"
)
keywords = st.sampled_from(KEYWORDS.split())
words = st.sampled_from(["string", "object", "any", "#", "#/datos", DRAFT_03])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keywords, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(keywords, json_values, max_size=5), json_values)
def test_whatever_the_schema_it_is_refused_or_it_decides(schema, instance):
    try:
        ontology = compile_ontology("X", json.dumps(schema))
    except SchemaError:
        return
    is_valid(ontology.schema, {"a": instance})
    ontology.has_path("a.b.0")
    ontology.is_date("a.b")
    with contextlib.suppress(SchemaError):
        ontology.validate(ontology.sample())


@given(st.text(alphabet='{}[]":,ab1$ ', max_size=30))
def test_whatever_the_text_only_schema_errors_come(text):
    with contextlib.suppress(SchemaError):
        assert isinstance(parse_schema(text), dict)
