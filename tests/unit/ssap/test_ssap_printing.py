"""How values are printed: extended JSON, and the spacing of the old Java driver."""

import json
import re
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from bson import Binary, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from hypothesis import given
from hypothesis import strategies as st

from sib.ssap.printing import (
    legacy_id,
    one_id,
    parse_id,
    print_legacy,
    print_one,
    print_rows_legacy,
    print_rows_one,
    respace,
)

OID = ObjectId("5a8eaae2e4b06f95860d1e1b")
WHEN = datetime(2014, 4, 29, 8, 24, 54, 5000)
ROW = {
    "_id": OID,
    "contextData": {"session_key": "K", "user": "sofia", "timestamp": WHEN},
    "Sensor": {"geometry": {"coordinates": [40.512967, -3.67495], "type": "Point"}, "measure": 25},
}


@pytest.mark.parametrize(
    ("value", "one", "legacy"),
    [
        ({}, "{}", "{ }"),
        ([], "[]", "[ ]"),
        ({"k": 1, "k2": 2}, '{"k":1,"k2":2}', '{ "k" : 1 , "k2" : 2}'),
        ([1, 2], "[1,2]", "[ 1 , 2]"),
        ([[], {}, [{}]], "[[],{},[{}]]", "[ [ ] , { } , [ { }]]"),
        (OID, '{"$oid":"5a8eaae2e4b06f95860d1e1b"}', '{ "$oid" : "5a8eaae2e4b06f95860d1e1b"}'),
        (WHEN, '{"$date":"2014-04-29T08:24:54.005Z"}', '{ "$date" : "2014-04-29T08:24:54.005Z"}'),
        (25, "25", "25"),
        (25.0, "25.0", "25.0"),
        (40.512967, "40.512967", "40.512967"),
        (0.1, "0.1", "0.1"),
        (Int64(2**62), str(2**62), str(2**62)),
        (-(2**63), str(-(2**63)), str(-(2**63))),
        (2**70, str(2**70), str(2**70)),
        (True, "true", "true"),
        (None, "null", "null"),
        ("", '""', '""'),
        ("ñ €", '"ñ €"', '"ñ €"'),
        ('a"b', r'"a\"b"', r'"a\"b"'),
        ("\\", r'"\\"', r'"\\"'),
        ('\\"', r'"\\\""', r'"\\\""'),
        ("{,[:", '"{,[:"', '"{,[:"'),
        ("\n\x00", r'"\n\u0000"', r'"\n\u0000"'),
        ({'q"{': "x\\"}, r'{"q\"{":"x\\"}', r'{ "q\"{" : "x\\"}'),
        (Decimal128("1.50"), '{"$numberDecimal":"1.50"}', '{ "$numberDecimal" : "1.50"}'),
        (b"\x01\x02", '{"$binary":"AQI=","$type":"00"}', '{ "$binary" : "AQI=" , "$type" : "00"}'),
        (Binary(b"\x01", 5), '{"$binary":"AQ==","$type":"05"}', '{ "$binary" : "AQ==" , "$type" : "05"}'),
        (Regex("^a", "im"), '{"$regex":"^a","$options":"im"}', '{ "$regex" : "^a" , "$options" : "im"}'),
        (DatetimeMS(-(2**60)), '{"$date":{"$numberLong":"-1152921504606846976"}}', None),
        (Timestamp(5, 6), '{"$timestamp":{"t":5,"i":6}}', None),
        (MinKey(), '{"$minKey":1}', None),
        (MaxKey(), '{"$maxKey":1}', None),
        (date(2014, 4, 29), '{"$date":"2014-04-29T00:00:00.000Z"}', None),
        (float("nan"), "null", "null"),
        ([float("inf"), -float("inf"), 2**70], f"[null,null,{2**70}]", f"[ null , null , {2**70}]"),
        ({"a": (1, 2)}, '{"a":[1,2]}', '{ "a" : [ 1 , 2]}'),
        ({5: 1}, '{"5":1}', '{ "5" : 1}'),
    ],
)
def test_values(value, one, legacy):
    assert print_one(value).decode() == one
    assert legacy is None or print_legacy(value) == legacy


def test_aware_dates_are_printed_in_utc():
    aware = datetime(2014, 4, 29, 10, 24, 54, 5999, timezone(timedelta(hours=2)))
    assert json.loads(print_one([aware, aware.astimezone(UTC)])) == [{"$date": "2014-04-29T08:24:54.005Z"}] * 2


def test_rows():
    assert print_rows_legacy([ROW, {"a": []}]) == (
        '[ { "_id" : { "$oid" : "5a8eaae2e4b06f95860d1e1b"} , "contextData" : { "session_key" : "K" , '
        '"user" : "sofia" , '
        '"timestamp" : { "$date" : "2014-04-29T08:24:54.005Z"}} , "Sensor" : { "geometry" : { "coordinates" : '
        '[ 40.512967 , -3.67495] , "type" : "Point"} , "measure" : 25}} , { "a" : [ ]}]'
    )
    assert print_rows_one(iter([ROW])).startswith(b'[{"_id":{"$oid":"5a8eaae2e4b06f95860d1e1b"},"contextData":{')


def test_no_rows_are_exactly_this():
    assert print_rows_legacy([]) == "[ ]"
    assert print_rows_one([]) == b"[]"


def test_ids():
    assert legacy_id(OID) == '{"_id":ObjectId("5a8eaae2e4b06f95860d1e1b")}'
    assert one_id(OID) == {"_id": {"$oid": "5a8eaae2e4b06f95860d1e1b"}}
    assert parse_id(str(OID)) == OID


@pytest.mark.parametrize("text", ["", "5a8e", "z" * 24, "5a8eaae2e4b06f95860d1e1b0"])
def test_no_id(text):
    assert parse_id(text) is None


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.text('\\"{}[]:, \n'),
    lambda children: st.lists(children) | st.dictionaries(st.text('ab\\"{}[]:,') | st.text(), children),
    max_leaves=30,
)


@given(VALUES)
def test_both_printings_read_back_as_the_value(value):
    assert json.loads(print_one(value)) == value
    assert json.loads(print_legacy(value)) == value


@given(VALUES)
def test_the_legacy_printing_differs_only_in_blanks_outside_strings(value):
    strings = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
    one, legacy = print_one(value).decode(), print_legacy(value)
    assert strings.findall(legacy) == strings.findall(one)
    assert strings.sub("S", legacy).replace(" ", "") == strings.sub("S", one)


def plain_java(value):
    """The rule of the old driver, written the slow way."""
    if isinstance(value, dict):
        return "{ " + " , ".join(f"{plain_java(key)} : {plain_java(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[ " + " , ".join(map(plain_java, value)) + "]"
    return print_one(value).decode()


@given(VALUES)
def test_the_legacy_printing_follows_the_rule(value):
    assert print_legacy(value) == plain_java(value)


@given(VALUES)
def test_respacing_what_was_printed_as_one(value):
    assert respace(print_one(value).decode()) == print_legacy(value)
