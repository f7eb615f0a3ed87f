"""The catalogue: every template compiles, has a sample that validates, and refuses what it must."""

import json
from datetime import datetime

import pytest

from sib.errors import InvalidInstanceError, NotFoundError, SchemaError
from sib.ontology import TEMPLATES, compile_ontology, context_data, template

GSMA = [name for name in TEMPLATES if name.startswith("GSMA-")]


def made(name: str, ontology: str = "miOntologia"):
    return compile_ontology(ontology, template(name).schema_for(ontology))


def test_the_catalogue_is_complete():
    assert set(TEMPLATES) - set(GSMA) == {
        "Empty", "EmptyBase", "Feed", "Command", "Alert", "Event", "Audit", "SensorPoint",
    }  # fmt: skip
    assert {name.removeprefix("GSMA-"): TEMPLATES[name].version for name in GSMA} == {
        "Air Quality Observed": 2,
        "Air Quality Station": 2,
        "Device": 1,
        "Key Performance Indicator": 1,
        "Parking Access": 1,
        "Streetlight": 1,
        "Weather Observed": 1,
        "Weather Station": 2,
    }
    assert all(found.category and found.description for found in TEMPLATES.values())


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_sample_of_every_template_validates_and_is_stored(name):
    ontology = made(name)
    sample = ontology.sample()
    ontology.validate(sample)
    assert ontology.to_json(ontology.read(json.dumps(sample))).keys() == sample.keys()


@pytest.mark.parametrize(
    ("name", "root"),
    [("Empty", None), ("EmptyBase", "miOntologia"), ("Feed", "Feed"), ("Audit", "Adt"), ("SensorPoint", "Sensor")]
    + [(name, None) for name in GSMA],
)
def test_roots(name, root):
    assert made(name).root == root


@pytest.mark.parametrize("name", GSMA)
def test_every_property_of_a_gsma_model_is_required(name):
    ontology = made(name)
    sample = ontology.sample()
    assert set(sample) == set(ontology.fields())
    for missing in sample:
        with pytest.raises(InvalidInstanceError, match=f'"{missing}" is missing'):
            ontology.validate({key: value for key, value in sample.items() if key != missing})
    ontology.validate({**sample, "more": 1})


def test_the_sample_has_the_values_that_sofia2_gave():
    assert made("SensorPoint").sample() == {
        "Sensor": {
            "timestamp": {"$date": "2014-01-30T17:14:00Z"},
            "assetId": "string",
            "measure": 28.6,
            "geometry": {"coordinates": [9, 19.3], "type": "Point"},
            "sensorMeasure": 28.6,
            "correctedMeasure": 28.6,
            "groupId": "string",
        }
    }
    assert made("GSMA-Weather Observed").sample()["windSpeed"] == 1
    assert made("Feed").sample()["Feed"]["type"] == "FIXED"


def test_the_sensor_point_is_closed_and_needs_its_four_fields():
    ontology = made("SensorPoint", "TestSensorTemperatura")
    sample = ontology.sample()
    for name in ("sensorMeasure", "correctedMeasure", "groupId"):
        del sample["Sensor"][name]
    ontology.validate(sample)
    for name in list(sample["Sensor"]):
        with pytest.raises(InvalidInstanceError, match=f'"{name}" is missing'):
            ontology.validate({"Sensor": {key: value for key, value in sample["Sensor"].items() if key != name}})
    with pytest.raises(InvalidInstanceError, match="additionalProperties"):
        ontology.validate({**sample, "_id": {"$oid": "57d91a96e4b0366dcb24f8ca"}})
    with pytest.raises(InvalidInstanceError, match="additionalProperties"):
        ontology.validate({"Sensor": {**sample["Sensor"], "more": 1}})
    for coordinates in ([-90.1, 0], [0, 180.1], [0, 0, 0], [0], ["0", 0]):
        with pytest.raises(InvalidInstanceError, match="coordinates"):
            ontology.validate(
                {"Sensor": {**sample["Sensor"], "geometry": {"type": "Point", "coordinates": coordinates}}}
            )
    ontology.validate({"Sensor": {**sample["Sensor"], "geometry": {"type": "Point", "coordinates": [-90, 180]}}})


def test_a_feed_takes_the_three_geometries_and_closed_rings_only():
    ontology = made("Feed")
    feed = ontology.sample()

    def put(geometry: dict) -> None:
        ontology.validate({"Feed": {**feed["Feed"], "geometry": geometry}})

    put({"type": "LineString", "coordinates": [[0, 0], [1, 1]]})
    put({"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 0]]]})
    with pytest.raises(InvalidInstanceError, match="geometry"):
        put({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]})


def test_an_event_takes_an_interval():
    ontology = made("Event")
    event = ontology.sample()
    event["Event"]["eventRule"]["period"] = {"$date": "2014-01-30T17:14:00Z/2014-02-01T00:00:00Z"}
    assert ontology.read(json.dumps(event))["Event"]["eventRule"] == event["Event"]["eventRule"]


@pytest.mark.parametrize("name", ["GSMA-Weather Observed", "gsma-weather observed", "GSMA_WeatherObserved"])
def test_names_are_found_however_they_are_written(name):
    assert template(name).name == "GSMA-Weather Observed"


def test_an_unknown_template_or_version_is_refused_with_what_there_is():
    assert template("SensorPoint", 1).version == 1
    with pytest.raises(NotFoundError, match="SensorPoint"):
        template("Sensor Line")
    with pytest.raises(NotFoundError, match="has version 2, not 1"):
        template("GSMA-Weather Station", 1)


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"type": "number", "minimum": 50}, "b": {"type": "number", "maximum": 2}}},
        {"properties": {"a": {"type": "integer", "minimum": 5, "exclusiveMinimum": True, "multipleOf": 4}}},
        {"properties": {"a": {"type": "integer", "maximum": 1, "exclusiveMaximum": True}}},
        {"properties": {"a": {"type": "string", "minLength": 20}, "b": {"type": "string", "maxLength": 2}}},
        {"properties": {"a": {"type": "array", "minItems": 3, "items": {"type": "boolean"}}}},
        {"properties": {"a": {"type": "string", "pattern": "^[0-9]+$"}}},
        {"properties": {"child": {"$ref": "#"}, "name": {"type": "string"}}, "required": ["name"]},
        {"properties": {"a": {"allOf": [{"type": "object", "required": ["x"]}, {"properties": {"x": {"enum": [7]}}}]}}},
        {"required": ["undeclared"]},
    ],
)
def test_a_sample_keeps_the_limits_of_its_schema(schema):
    ontology = compile_ontology("X", json.dumps(schema))
    ontology.validate(ontology.sample())


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"type": "string", "pattern": "^[0-9]+$"}}, "required": ["a"]},
        {"required": ["coordenadaGps"], "properties": {"geometry": {}}, "additionalProperties": False},
        {"required": ["child"], "properties": {"child": {"$ref": "#"}}},
    ],
)
def test_a_schema_without_a_sample_says_so(schema):
    with pytest.raises(SchemaError, match="sample"):
        compile_ontology("X", json.dumps(schema)).sample()


def test_the_context_names_who_inserted_through_what_and_when():
    now = datetime(2016, 9, 14, 9, 38, 30, 896000)
    assert context_data("9c5ac246", "ptoribio", "KP_SIB_API", "KP_SIB_API:2416:b", now) == {
        "session_key": "9c5ac246",
        "user": "ptoribio",
        "kp": "KP_SIB_API",
        "kp_instancia": "2416:b",
        "timezoneId": "UTC",
        "timestamp": now,
    }
    assert context_data("k", "u", "KP", "KP01", now)["kp_instancia"] == "KP01"
