"""Roots, columns and dates, read from schemas."""

import json

import pytest

from sib.errors import UnknownFieldError
from sib.ontology import Ontology, compile_ontology, template

POINT = compile_ontology("TestSensorTemperatura", template("SensorPoint").schema_text)
WEATHER = compile_ontology("weatherMadrid", template("GSMA-Weather Observed").schema_text)
FEED = compile_ontology("feedEspira", template("Feed").schema_text)


def ontology(schema: dict, name: str = "Name") -> Ontology:
    return compile_ontology(name, json.dumps(schema))


@pytest.mark.parametrize(
    ("schema", "root"),
    [
        ({"properties": {"S": {"type": "object"}}}, "S"),
        ({"properties": {"S": {"type": "string", "$ref": "#/datos"}}, "datos": {"type": "object"}}, "S"),
        ({"properties": {"S": {"properties": {"a": {}}}}}, "S"),
        ({"properties": {"_id": {"type": "object"}, "id": {}, "contextData": {}, "S": {"type": "object"}}}, "S"),
        ({"properties": {" Lumi ": {"type": "object"}}}, " Lumi "),
        ({"properties": {"S": {"$ref": "#/a"}}, "a": {"$ref": "#/b"}, "b": {"type": "object"}}, "S"),
        ({"properties": {"S": {"type": "string"}}}, None),
        ({"properties": {"S": {"type": "object"}, "t": {"type": "string"}}}, None),
        ({"properties": {"S": {"$ref": "#/a"}}, "a": {"$ref": "#/a"}}, None),
        ({}, None),
    ],
)
def test_the_root_is_the_only_property_if_it_is_an_object(schema, root):
    assert ontology(schema).root == root


def test_the_root_never_comes_from_the_name():
    assert POINT.root == "Sensor"
    assert ontology({"properties": {"Name": {"type": "string"}}}).root is None


@pytest.mark.parametrize(
    ("column", "path"),
    [
        ("_id", "_id"),
        ("_id.$oid", "_id"),
        ("contextData.timestamp", "contextData.timestamp"),
        ("contextData.user", "contextData.user"),
        ("Sensor", "Sensor"),
        ("Sensor.measure", "Sensor.measure"),
        ("TestSensorTemperatura", "Sensor"),
        ("TestSensorTemperatura.assetId", "Sensor.assetId"),
        ("measure", "Sensor.measure"),
        ("geometry.coordinates.0", "Sensor.geometry.coordinates.0"),
        ("timestamp.$date", "Sensor.timestamp"),
        ("Sensor.timestamp.$date", "Sensor.timestamp"),
    ],
)
def test_a_column_of_a_rooted_ontology(column, path):
    assert POINT.resolve_column(column) == path


@pytest.mark.parametrize(
    "column",
    ["", "nope", "Sensor.nope", "TestSensorTemperatura.nope", "measure.x", "geometry.coordinates.x", "sensor.measure"],
)
def test_a_column_that_a_closed_schema_does_not_have(column):
    with pytest.raises(UnknownFieldError, match="has no field"):
        POINT.resolve_column(column)


def test_the_message_names_the_fields_there_are():
    with pytest.raises(UnknownFieldError, match="its fields are timestamp, assetId, measure"):
        POINT.resolve_column("temperature")


@pytest.mark.parametrize(
    ("column", "path"),
    [
        ("temperature", "temperature"),
        ("weatherMadrid.temperature", "temperature"),
        ("location.coordinates", "location.coordinates"),
        ("address.more", "address.more"),
    ],
)
def test_a_column_of_an_unrooted_ontology(column, path):
    assert WEATHER.resolve_column(column) == path


@pytest.mark.parametrize("column", ["nope", "weatherMadrid", "temperature.x"])
def test_a_column_that_an_unrooted_schema_does_not_name(column):
    with pytest.raises(UnknownFieldError):
        WEATHER.resolve_column(column)


def test_below_an_open_root_any_path_is_allowed_but_a_bare_name_must_be_declared():
    half_open = ontology({"properties": {"R": {"type": "object", "properties": {"a": {"type": "object"}}}}})
    assert half_open.resolve_column("R.b.c") == "R.b.c"
    assert half_open.resolve_column("a.b.c") == "R.a.b.c"
    with pytest.raises(UnknownFieldError):
        half_open.resolve_column("b")


def test_where_nothing_is_declared_any_name_is_a_field():
    assert compile_ontology("Free", template("Empty").schema_for("Free")).resolve_column("temp") == "temp"
    assert compile_ontology("Base", template("EmptyBase").schema_for("Base")).resolve_column("temp") == "Base.temp"


def test_a_root_called_like_the_ontology_is_the_root():
    same = ontology({"properties": {"Name": {"type": "object", "properties": {"Name": {}, "a": {}}}}})
    assert same.resolve_column("Name.a") == "Name.a"
    assert same.resolve_column("Name") == "Name"


def test_a_property_beside_the_root_is_found():
    beside = ontology({"properties": {"id": {"type": "string"}, "R": {"type": "object", "properties": {"a": {}}}}})
    assert (beside.root, beside.resolve_column("id"), beside.resolve_column("a")) == ("R", "id", "R.a")


def test_arrays_are_passed_through_by_position_and_by_name():
    assert FEED.has_path("Feed.measures.values.measure")
    assert FEED.has_path("Feed.measures.values.0.measure")
    assert FEED.is_date("Feed.measures.values.modifications.changeTimestamp")
    assert not FEED.has_path("Feed.type.x")


def test_a_path_is_excluded_only_if_every_alternative_excludes_it():
    either = ontology(
        {
            "properties": {
                "a": {
                    "oneOf": [
                        {"type": "object", "properties": {"x": {"type": "string"}}, "additionalProperties": False},
                        {"type": "object", "properties": {"y": {"type": "string"}}, "additionalProperties": False},
                    ]
                }
            },
            "patternProperties": {"^p_": {"type": "number"}},
            "additionalProperties": False,
        }
    )
    assert [either.has_path(path) for path in ("a.x", "a.y", "a.z", "p_1", "q")] == [True, True, False, True, False]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("Sensor.timestamp", True),
        ("contextData.timestamp", True),
        ("Sensor.measure", False),
        ("Sensor.nope", False),
        ("_id", False),
    ],
)
def test_dates_are_known_from_the_schema(path, expected):
    assert POINT.is_date(path) is expected


def test_every_stored_document_has_an_id_and_a_context():
    assert POINT.has_path("_id")
    assert POINT.has_path("contextData.kp")


@pytest.mark.parametrize(
    "shape",
    [
        {"type": "object", "properties": {"t": {"$ref": "#/date"}}, "additionalProperties": False},
        {"type": "array", "items": {"$ref": "#/date"}},
        {"type": "array", "items": [{"$ref": "#/date"}]},
        {"type": ["object", "null"], "properties": {"t": {}}, "additionalProperties": False},
        {"type": "object", "properties": {"t": {"$ref": "#/date"}}},
        {"type": "object", "properties": {"up": {"$ref": "#/properties/a"}, "t": {}}, "additionalProperties": False},
        {"type": "object", "additionalProperties": False, "patternProperties": {"t": {}}},
        {"anyOf": [{"type": "object"}, {"type": "array"}]},
        {},
    ],
)
@pytest.mark.parametrize("value", [{"t": {"$date": "2014-01-30T17:14:00Z"}}, [{"$date": "2014-01-30T17:14:00Z"}]])
def test_a_date_is_converted_wherever_the_schema_lets_it_be(shape, value):
    date = {"type": "object", "properties": {"$date": {"type": "string"}}, "additionalProperties": False}
    made = ontology({"properties": {"a": shape}, "additionalProperties": False, "date": date})
    searched = compile_ontology("Empty", template("Empty").schema_text)
    text = json.dumps({"a": value})
    if shape.get("type") == "array" and isinstance(value, dict):
        return
    if "object" in shape.get("type", ()) and isinstance(value, list):
        return
    assert made.read(text) == searched.read(text)
