"""Instances in and out: tolerant reading, extended JSON, poison, messages."""

import contextlib
import json
import pickle
import string
from datetime import UTC, datetime, timedelta, timezone

import bson
import pytest
from bson import Binary, Decimal128, Int64, ObjectId, Regex
from hypothesis import given
from hypothesis import strategies as st

from sib.errors import InvalidInstanceError
from sib.ontology import compile_ontology, template
from sib.ontology.conversion import DEPTH_MAX

ANYTHING = compile_ontology("Anything", template("Empty").schema_text)
SENSOR = compile_ontology("TestSensorTemperatura", template("SensorPoint").schema_text, version=3)
MOMENT = datetime(2014, 4, 29, 8, 24, 54, 5000)
OID = "57d91a96e4b0366dcb24f8ca"
INTERVAL = "2014-01-30T17:14:00Z/2014-02-01T00:00:00Z"


def sensor(**changes: object) -> dict:
    fields = {
        "timestamp": {"$date": "2014-04-29T08:24:54.005Z"},
        "assetId": "S_Temperatura_00066",
        "measure": 25,
        "geometry": {"coordinates": [40.512967, -3.67495], "type": "Point"},
    }
    return {"Sensor": {**fields, **changes}}


def fault(instance: object) -> str:
    text = instance if isinstance(instance, str | bytes) else json.dumps(instance)
    with pytest.raises(InvalidInstanceError) as caught:
        SENSOR.encode(text)
    return caught.value.message


@pytest.mark.parametrize("text", [json.dumps(sensor()), json.dumps(sensor()).encode()])
def test_an_instance_is_encoded_as_it_will_be_stored(text):
    encoded, document = SENSOR.encode(text)
    assert bson.decode(encoded) == document
    assert document["Sensor"]["timestamp"] == MOMENT
    assert document["Sensor"]["measure"] == 25
    assert type(document["Sensor"]["measure"]) is int
    assert list(document["Sensor"]) == ["timestamp", "assetId", "measure", "geometry"]


def test_id_and_context_of_an_instance_are_taken_out_though_the_schema_is_closed():
    document = SENSOR.read(json.dumps({"_id": {"$oid": OID}, "contextData": {"user": "x"}, **sensor()}))
    assert list(document) == ["Sensor"]


def test_id_and_context_below_the_top_are_data():
    assert ANYTHING.read('{"a": {"_id": 1, "contextData": 2}}') == {"a": {"_id": 1, "contextData": 2}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"measure": "x"}, 'Sensor.measure: "x" is not a number (type)'),
        ({"assetId": None}, "Sensor.assetId: null is not a string (type)"),
        ({"timestamp": 5}, "Sensor.timestamp: 5 is not an object (type)"),
        (
            {"geometry": {"coordinates": [90.5, 0], "type": "Point"}},
            "Sensor.geometry.coordinates.0: 90.5 is more than 90 (maximum)",
        ),
        (
            {"geometry": {"coordinates": [0], "type": "Point"}},
            "Sensor.geometry.coordinates: [0] has fewer than 2 elements (minItems)",
        ),
        (
            {"geometry": {"coordinates": [0, 0], "type": "Line"}},
            'Sensor.geometry.type: "Line" is not one of "Point" (enum)',
        ),
        ({"lo": 1}, 'Sensor: "lo" is not in the schema (additionalProperties)'),
    ],
)
def test_a_fault_is_told_with_path_value_and_rule(changes, expected):
    assert fault(sensor(**changes)) == expected


def test_what_is_missing_is_named():
    assert fault({}) == 'instance: "Sensor" is missing (required): put the fields under "Sensor"'
    assert fault({"measure": 1}) == (
        'instance: "measure" is not in the schema (additionalProperties): put the fields under "Sensor"'
    )
    incomplete = sensor()
    del incomplete["Sensor"]["measure"]
    assert fault(incomplete) == 'Sensor: "measure" is missing (required)'


def test_a_long_value_is_cut_in_the_message():
    message = fault(sensor(measure="x" * 10_000))
    assert len(message) < 200
    assert "…" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        ("[1]", "not an object"),
        ("5", "not an object"),
        ("null", "not an object"),
        ('"text"', "not JSON"),
        ('{"a": NaN}', "not JSON"),
        ('{"a": Infinity}', "not JSON"),
        ('{"a": 1e999}', "not JSON"),
        ('{"a": "\\ud800"}', "not JSON"),
        ('{"a": 9223372036854775808}', "a: 9223372036854775808 does not fit in 64 bits"),
        ('{"b": [{"a": 18446744073709551615}]}', "b.0.a: 18446744073709551615 does not fit in 64 bits"),
        ('{"a": 18446744073709551616}', "a: 18446744073709551616 does not fit in 64 bits: send it as a string"),
        ('{"b":[-123456789012345678901234]}', "b.0: -123456789012345678901234 does not fit in 64 bits"),
        ("{'a': 123456789012345678901}", "not JSON"),
        (json.dumps('{"a": 123456789012345678901}'), "a: 123456789012345678901 does not fit in 64 bits"),
        ('{"a": ' + "9" * 400 + "}", "The instance is not JSON: number is infinity when parsed as double"),
        ('{"b": {"x\\u0000y": 1}}', "b: the field"),
        ('{"a": {"$date": "99999-01-01T00:00:00Z"}}', "a: .*99999"),
        ('{"a": {"$date": "2014-02-30T00:00:00Z"}}', "a: .*2014-02-30"),
        ('{"a": {"$date": "2014-01-30T23:59:60Z"}}', "a: .*23:59:60"),
        ('{"a": {"$date": "0001-01-01T00:00:00+01:00"}}', "a: .*0001"),
        ('{"a": {"$date": 99999999999999999}}', "a: .*years 1 to 9999"),
        ('{"a": {"$date": null}}', "a: "),
        ('{"a": {"$date": "x/2014-01-01"}}', "a: "),
        ('{"a": [{"$oid": "123"}]}', "a.0: "),
        ('{"a": {"$numberLong": "9223372036854775808"}}', "a: "),
        ('{"a": {"$numberDouble": "NaN"}}', "a: "),
        ('{"a": {"$binary": "***", "$type": "00"}}', "a: "),
        ('{"a":' * (DEPTH_MAX + 1) + "1" + "}" * (DEPTH_MAX + 1), "deeper"),
        ("[" * 5000, "not JSON"),
    ],
)
def test_poison_fails_alone_with_a_reason(text, words):
    with pytest.raises(InvalidInstanceError, match=words) as caught:
        ANYTHING.encode(text)
    caught.value.message.encode()  # it can be sent
    assert len(caught.value.message) < 700


def test_a_value_in_a_closed_place_that_no_date_stands_for_is_named():
    assert fault(sensor(timestamp={"$date": "yesterday"})).startswith('Sensor.timestamp: {"$date":"yesterday"}')


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**63, "\ud800"])
def test_poison_in_a_parsed_statement_is_refused_too(value):
    with pytest.raises(InvalidInstanceError, match=r"a\.0: "):
        ANYTHING.encode({"a": [value]})


@pytest.mark.parametrize("levels", [300, 900])
def test_what_is_far_too_deep_is_refused_with_the_reason(levels):
    deep: dict = {}
    for _ in range(levels):
        deep = {"a": deep}
    assert "nested deeper than 100 levels" in fault('{"Sensor":' * levels + "1" + "}" * levels)
    assert "nested deeper than 100 levels" in fault(sensor(measure=deep))
    with pytest.raises(InvalidInstanceError, match="deeper"):
        ANYTHING.encode(deep)
    unique = compile_ontology("X", '{"properties": {"a": {"uniqueItems": true, "enum": [[1]]}}}')
    with pytest.raises(InvalidInstanceError):
        unique.encode(json.dumps({"a": [deep, deep]}))


def test_the_deepest_instance_is_stored():
    text = '{"a":' * DEPTH_MAX + "1" + "}" * DEPTH_MAX
    encoded, document = ANYTHING.encode(text)
    assert bson.decode(encoded) == document


def test_a_long_number_that_is_no_integer_is_stored():
    text = '{"a": 1e20, "b": 123456789012345678901.0, "c": "123456789012345678901", "d": [-9223372036854775808]}'
    assert ANYTHING.read(text) == {
        "a": 1e20,
        "b": 123456789012345678901.0,
        "c": "123456789012345678901",
        "d": [-(2**63)],
    }


@pytest.mark.parametrize("n_before", range(6))
@pytest.mark.parametrize("n_digits", [20, 21, 30])
def test_a_long_integer_is_found_wherever_it_stands(n_before, n_digits):
    text = '{"a":' + " " * n_before + "9" * n_digits + "}"
    for spelling in (text, text.encode()):
        with pytest.raises(InvalidInstanceError, match="64 bits"):
            ANYTHING.read(spelling)


def test_a_key_told_twice_counts_as_told_last():
    assert ANYTHING.read('{"a": 1, "a": 2}') == {"a": 2}


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + json.dumps(sensor()),
        json.dumps(json.dumps(sensor())),
        "{Sensor: {timestamp: {$date: '2014-04-29T08:24:54.005Z'}, assetId: 'S_Temperatura_00066', measure: 25,"
        " geometry: {coordinates: [40.512967, -3.67495], type: 'Point'}}}",
        "{'Sensor': {'timestamp': ISODate('2014-04-29T08:24:54.005Z'), 'assetId': 'S_Temperatura_00066', 'measure': 25,"
        " 'geometry': {'coordinates': [40.512967, -3.67495], 'type': 'Point'}}}",
        json.dumps(sensor())[1:],  # as the C client's example sends it
    ],
)
def test_what_old_clients_send_is_understood(text):
    assert SENSOR.read(text) == SENSOR.read(json.dumps(sensor()))


@pytest.mark.parametrize(
    ("json_value", "bson_value"),
    [
        ({"$date": "2014-04-29T08:24:54.005Z"}, MOMENT),
        ({"$date": "2014-04-29T10:24:54.005+02:00"}, MOMENT),
        ({"$date": "2014-04-29T10:24:54.005+0200"}, MOMENT),
        ({"$date": "2014-04-29T08:24:54.005999Z"}, MOMENT),
        ({"$date": "2014-04-29T08:24:54.005"}, MOMENT),
        ({"$date": 1398759894005}, MOMENT),
        ({"$date": {"$numberLong": "1398759894005"}}, MOMENT),
        ({"$date": -1}, datetime(1969, 12, 31, 23, 59, 59, 999000)),
        (
            {"$date": INTERVAL},
            {"$date": INTERVAL},
        ),
        ({"$oid": OID}, ObjectId(OID)),
        ({"$numberLong": "5"}, Int64(5)),
        ({"$numberInt": "5"}, 5),
        ({"$numberDouble": "5"}, 5.0),
        ({"$numberDecimal": "1.50"}, Decimal128("1.50")),
        ({"$binary": "aGk=", "$type": "00"}, b"hi"),
        ({"$binary": {"base64": "aGk=", "subType": "80"}}, Binary(b"hi", 128)),
        ({"$regex": "^a", "$options": "i"}, {"$regex": "^a", "$options": "i"}),
        ({"$date": "2014-04-29T08:24:54.005Z", "more": 1}, {"$date": "2014-04-29T08:24:54.005Z", "more": 1}),
        ({"$near": 1}, {"$near": 1}),
        ({}, {}),
    ],
)
def test_extended_json_becomes_what_bson_stores(json_value, bson_value):
    encoded, document = ANYTHING.encode(json.dumps({"a": [json_value], "b": {"c": json_value}}))
    assert document == {"a": [bson_value], "b": {"c": bson_value}}
    stored = bson.decode(encoded)["b"]["c"]
    assert stored == bson_value
    assert type(stored) is type(bson_value) or isinstance(bson_value, bytes)


def test_a_wrapped_number_is_valid_where_a_number_is():
    document = SENSOR.read(json.dumps(sensor(measure={"$numberLong": "7"})))
    assert document["Sensor"]["measure"] == 7
    assert isinstance(document["Sensor"]["measure"], Int64)
    assert "is not a number" in fault(sensor(measure={"$numberLong": "7", "more": 1}))
    assert fault(sensor(measure={"$numberLong": "x"})).startswith("Sensor.measure: ")


def test_a_parsed_statement_may_hold_bson_values_and_is_not_changed():
    instance = sensor(timestamp=MOMENT)
    document = SENSOR.read(instance)
    assert document == SENSOR.read(json.dumps(sensor()))
    assert instance["Sensor"]["timestamp"] is MOMENT
    instance = sensor()
    SENSOR.read(instance)
    assert instance == sensor()


def test_values_of_all_kinds_come_out_as_json():
    document = {
        "_id": ObjectId(OID),
        "d": MOMENT,
        "l": Int64(5),
        "n": Decimal128("1.5"),
        "r": Regex("a", "i"),
        "list": [MOMENT, {"x": b"hi"}],
    }
    printed = ANYTHING.to_json(document)
    assert printed["_id"] == {"$oid": OID}
    assert printed["d"] == {"$date": "2014-04-29T08:24:54.005Z"}
    assert printed["l"] == 5
    assert printed["list"][0] == printed["d"]
    assert json.loads(json.dumps(printed)) == printed


def test_a_stored_document_is_validated_as_it_would_be_printed():
    document = {"_id": ObjectId(OID), "contextData": {"timestamp": MOMENT}, **SENSOR.read(json.dumps(sensor()))}
    SENSOR.validate_document(document)
    document["Sensor"]["measure"] = MOMENT
    with pytest.raises(InvalidInstanceError, match=r"^Sensor\.measure: .* is not a number"):
        SENSOR.validate_document(document)
    document["Sensor"]["measure"] = float("nan")
    with pytest.raises(InvalidInstanceError, match=r"^Sensor\.measure: "):
        SENSOR.validate_document(document)


def test_a_stored_decimal_stays_valid_where_a_number_is():
    document = SENSOR.read(json.dumps(sensor(measure={"$numberDecimal": "7.5"})))
    assert document["Sensor"]["measure"] == Decimal128("7.5")
    SENSOR.validate_document(document)
    SENSOR.validate(sensor(measure={"$numberInt": "7"}))


def test_an_ontology_survives_pickling():
    copy = pickle.loads(pickle.dumps(SENSOR))
    assert (copy.name, copy.version, copy.root) == ("TestSensorTemperatura", 3, "Sensor")
    assert copy.read(json.dumps(sensor())) == SENSOR.read(json.dumps(sensor()))


names = st.text(string.ascii_letters, min_size=1, max_size=6)
zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-3))])
dates = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | dates
    | st.binary(min_size=12, max_size=12).map(ObjectId)
    | st.binary(max_size=8)
)
documents = st.dictionaries(
    names,
    st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=10
    ),
    max_size=4,
).filter(lambda document: not {"_id", "contextData"} & set(document))


@given(documents)
def test_what_is_printed_is_read_back_as_it_was(document):
    printed = json.dumps(ANYTHING.to_json(document))
    encoded, again = ANYTHING.encode(printed)
    assert again == document
    assert bson.decode(encoded) == document


@given(dates, zones)
def test_a_date_is_the_same_moment_in_every_zone(moment, zone):
    text = moment.replace(tzinfo=UTC).astimezone(zone).isoformat()
    assert ANYTHING.read(json.dumps({"a": {"$date": text}})) == {"a": moment}


wild_keys = st.sampled_from(
    ["a", "b", "$date", "$oid", "$numberLong", "$binary", "$type", "$numberDouble", "_id", "\0"]
)
wild = st.recursive(
    st.none()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(["2014-01-30", "x", OID, "a/b"])
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(wild_keys, inner, max_size=3),
    max_leaves=10,
)


@given(wild)
def test_whatever_comes_it_is_stored_or_refused(value):
    for source in (json.dumps(value), value):
        try:
            encoded, document = ANYTHING.encode(source)
        except InvalidInstanceError as error:
            error.message.encode()
        else:
            assert bson.decode(encoded).keys() == document.keys()


@given(st.binary(max_size=40) | st.text(alphabet="{}[]:,'\"ab1$ \\u/", max_size=30))
def test_whatever_the_text_only_instance_errors_come(text):
    with contextlib.suppress(InvalidInstanceError):
        assert isinstance(ANYTHING.read(text), dict)
