"""From schemas to columns, and documents into columns and back."""

import io
import json
import math
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bson import Decimal128, Int64, ObjectId
from hypothesis import given
from hypothesis import strategies as st

from sib.ontology import compile_ontology
from sib.ontology.templates import TEMPLATES, template
from storage.bdh.columns import fingerprint, layout_of
from storage.bdh.fitting import restore, to_table

DATE = {"type": "object", "properties": {"$date": {"type": "string"}}, "required": ["$date"]}
SCHEMA = {
    "$schema": "http://json-schema.org/draft-04/schema#",
    "type": "object",
    "properties": {
        "S": {
            "type": "object",
            "properties": {
                "text": {"type": "string"},
                "count": {"type": "integer"},
                "value": {"type": ["number", "null"]},
                "either": {"type": ["string", "number"]},
                "mixed": {"type": ["integer", "number"]},
                "is_on": {"type": "boolean"},
                "at": DATE,
                "ref": {"type": "object", "properties": {"$oid": {"type": "string"}}},
                "tags": {"type": "array", "items": {"type": "string"}},
                "point": {"type": "array", "items": [{"type": "number"}, {"type": "number"}]},
                "pair": {"type": "array", "items": [{"type": "number"}, {"type": "string"}]},
                "inner": {"type": "object", "properties": {"a": {"type": "integer"}, "A": {"type": "string"}}},
                "parts": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}},
                "free": {"type": "object"},
                "level": {"enum": ["low", "high"]},
                "anything": {},
            },
        }
    },
}


@pytest.fixture(scope="module")
def layout():
    return layout_of(compile_ontology("S", json.dumps(SCHEMA)))


def roundtrip(documents, layout):
    table = to_table(documents, layout)
    assert table.schema == layout.arrow()
    table.validate(full=True)
    return list(restore(iter(table.to_pylist()), layout)), table


def test_types_of_columns(layout):
    types = {field.name: field.type for field in layout.arrow().field("S").type}
    assert types == {
        "text": pa.string(),
        "count": pa.int64(),
        "value": pa.float64(),
        "mixed": pa.float64(),
        "is_on": pa.bool_(),
        "at": pa.timestamp("ms"),
        "ref": pa.string(),
        "tags": pa.list_(pa.string()),
        "point": pa.list_(pa.float64()),
        "inner": pa.struct([("a", pa.int64())]),
        "parts": pa.list_(pa.struct([("n", pa.int64())])),
        "level": pa.string(),
    }
    assert layout.arrow().names == ["_id", "contextData", "S", "_raw"]
    assert layout.root == "S"


def test_every_template_has_columns_and_its_sample_fits():
    for each in TEMPLATES:
        name = each if isinstance(each, str) else getattr(each, "name", each)
        ontology = compile_ontology("X", template(name).schema_text)
        layout = layout_of(ontology)
        document = {"_id": ObjectId(), **ontology.read(json.dumps(ontology.sample()))}
        back, _ = roundtrip([document], layout)
        assert back == [document]


def test_plain_values_need_no_raw(layout):
    document = {
        "_id": ObjectId(),
        "contextData": {"user": "u", "timestamp": datetime(2026, 1, 1, 0, 0, 0, 5000)},
        "S": {"text": "ñ€", "count": Int64(2**40), "value": 0.5, "at": datetime(1969, 1, 1), "ref": ObjectId(), "tags": [],
              "point": [1.5, 2.5], "inner": {"a": 1}, "parts": [{"n": 1}, {}], "is_on": False},
    }  # fmt: skip
    back, table = roundtrip([document, {"_id": ObjectId()}], layout)
    assert back[0] == document
    assert table["_raw"].null_count == 2
    assert table["_id"][0].as_py() == str(document["_id"])


@pytest.mark.parametrize(
    ("fields", "raw"),
    [
        ({"text": 5}, {"text": 5}),
        ({"count": "five", "value": 1.5}, {"count": "five"}),
        ({"count": 1.5}, {"count": 1.5}),
        ({"count": True}, {"count": True}),
        ({"value": True}, {"value": True}),
        ({"value": 2**60}, {"value": 2**60}),
        ({"value": None}, {"value": None}),
        ({"text": "x", "undeclared": {"a": [1]}}, {"undeclared": {"a": [1]}}),
        ({"either": "x"}, {"either": "x"}),
        ({"pair": [1, "a"]}, {"pair": [1, "a"]}),
        ({"tags": ["a", 1]}, {"tags": ["a", 1]}),
        ({"tags": "a"}, {"tags": "a"}),
        ({"parts": [{"n": 1, "more": 2}]}, {"parts": [{"n": 1, "more": 2}]}),
        ({"inner": {"a": 1, "A": "x"}}, {"inner": {"A": "x"}}),
        ({"inner": 3}, {"inner": 3}),
        ({"at": "yesterday"}, {"at": "yesterday"}),
        ({"value": Decimal128("1.5")}, {"value": {"$numberDecimal": "1.5"}}),
        ({"anything": datetime(2026, 1, 1)}, {"anything": {"$date": "2026-01-01T00:00:00Z"}}),
    ],
)
def test_what_does_not_fit_goes_to_raw(layout, fields, raw):
    document = {"_id": ObjectId(), "S": fields}
    back, table = roundtrip([{"_id": ObjectId(), "S": {"text": "before"}}, document], layout)
    assert back[1] == document
    assert table["_raw"][0].as_py() is None
    assert json.loads(table["_raw"][1].as_py()) == {"S": raw}


def test_whole_numbers_fit_into_columns_of_numbers(layout):
    back, table = roundtrip([{"_id": ObjectId(), "S": {"value": 3, "count": 4.0}}], layout)
    assert back[0]["S"] == {"value": 3, "count": 4}
    assert table["_raw"].null_count == 1


def test_an_instance_of_another_shape(layout):
    documents = [{"_id": 5, "S": [1]}, {"_id": "own", "Other": 1}, {"_id": "0" * 24, "S": {}}, {"_id": {"a": 1}}]
    back, table = roundtrip(documents, layout)
    assert back == documents
    assert table["_id"].to_pylist() == ["5", "own", "0" * 24, '{"a":1}']


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.just(ObjectId("0" * 24))
    | st.integers(-(10**12), 10**12).map(lambda ms: datetime(1970, 1, 1) + timedelta(milliseconds=ms)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abn"), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
names = st.sampled_from([*SCHEMA["properties"]["S"]["properties"], "other"])
contexts = st.dictionaries(st.sampled_from(["user", "timestamp", "x"]), values)
documents = st.fixed_dictionaries(
    {"_id": st.just(ObjectId("0" * 24)) | st.integers(0, 9)},
    optional={"S": st.dictionaries(names, values, max_size=6) | values, "beside": values, "contextData": contexts},
)


@given(st.lists(documents, max_size=4))
def test_nothing_is_lost_whatever_comes(layout, found):
    back, _ = roundtrip(found, layout)
    assert back == found


def test_no_number_and_infinity_are_kept(layout):
    back, _ = roundtrip([{"_id": 1, "S": {"value": math.nan}}, {"_id": 2, "S": {"value": math.inf}}], layout)
    assert math.isnan(back[0]["S"]["value"])
    assert back[1]["S"]["value"] == math.inf


def test_fingerprints_tell_layouts_apart(layout):
    other = json.loads(json.dumps(SCHEMA))
    other["properties"]["S"]["properties"]["level"] = {"type": "integer"}
    changed = layout_of(compile_ontology("S", json.dumps(other)))
    assert fingerprint(layout.arrow()) != fingerprint(changed.arrow())
    assert fingerprint(layout.arrow()) == fingerprint(layout_of(compile_ontology("T", json.dumps(SCHEMA))).arrow())


def test_a_file_has_the_fingerprint_that_it_was_written_with():
    layout = layout_of(compile_ontology("S", template("SensorPoint").schema_text))  # with a list of coordinates
    file = io.BytesIO()
    pq.write_table(layout.arrow().empty_table(), file)
    assert fingerprint(pq.read_schema(file)) == fingerprint(layout.arrow())


def test_a_schema_that_contains_itself_ends():
    schema = {"type": "object", "properties": {"T": {"$ref": "#/definitions/node"}}, "definitions": {
        "node": {"type": "object", "properties": {"n": {"type": "integer"}, "next": {"$ref": "#/definitions/node"}}}}}  # fmt: skip
    layout = layout_of(compile_ontology("T", json.dumps(schema)))
    document = {"_id": ObjectId(), "T": {"n": 0}}
    node = document["T"]
    for n in range(1, 30):
        node["next"] = {"n": n}
        node = node["next"]
    assert roundtrip([document], layout)[0] == [document]
