"""Braces around queries and data, as old clients put them."""

import pytest

from sib.ssap.messages import QueryType
from sib.ssap.text import instance_text, query_text, replacement_text

NATIVE, SQL, DEFINED = QueryType.NATIVE, QueryType.SQLLIKE, QueryType.SIB_DEFINED

STATEMENTS = [
    "select * from X",
    "SELECT Sensor.measure FROM X WHERE a = 'b:c'",
    "select*from X",
    'select "a" from X;',
    "insert into X(geometry) values (\"{ 'type': 'Point' }\")",
    'update X set a = 1 where b = "c"',
    "delete from X where a='1'",
    "db.X.find()",
    'db.X.find({"_id":{"$oid":"5a8eaae2e4b06f95860d1e1b"}}).sort({"a":-1}).limit(1)',
    "db.X.remove({'Sensor.measure':15});",
    'db.X.update({"a":1},{"$set":{"b":2}})',
    "db . X . find({})",
]

CRITERIA = [
    "{Sensor.measure:{$gt:10}}",
    '{Sensor.assetId:"x"}',
    "{select:1}",
    "{select : 1}",
    "{update: {$gt: 1}}",
    "{delete:{$exists:true}}",
    "{db.X:1}",
    '{"db.X.find":1}',
    "{insert :'into'}",
    "{'a':1}",
    "{$or:[{a:1},{b:2}]}",
]


@pytest.mark.parametrize("text", STATEMENTS)
@pytest.mark.parametrize("query_type", [NATIVE, SQL])
@pytest.mark.parametrize("form", ["%s", "{%s}", "{ %s }", " {%s}\n"])
def test_braces_around_statements_are_taken_off(text, query_type, form):
    assert query_text(form % text, query_type) == text


@pytest.mark.parametrize("text", CRITERIA)
@pytest.mark.parametrize("form", ["%s", " %s "])
def test_criteria_keep_their_braces(text, form):
    assert query_text(form % text, NATIVE) == text


@pytest.mark.parametrize("query_type", [NATIVE, DEFINED])
def test_what_is_no_object_loses_its_braces(query_type):
    assert query_text("{NoSuchQuery}", query_type) == "NoSuchQuery"


def test_the_name_of_a_stored_query_may_hold_a_colon():
    assert query_text("{my:query}", DEFINED) == "my:query"


@pytest.mark.parametrize("query_type", QueryType)
@pytest.mark.parametrize("text", [None, "", "  ", "{}", "{ }", " {} ", "null", {}])
def test_the_empty_query(text, query_type):
    assert query_text(text, query_type) == ""


def test_only_one_pair_is_taken_off():
    assert query_text("{{select * from X}}", SQL) == "{select * from X}"


@pytest.mark.parametrize("text", ["{", "}", "{select * from X", "db.X.find({})"])
def test_unpaired_braces_stay(text):
    assert query_text(text, NATIVE) == text


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (None, None),
        ("", ""),
        ('{"a":1}', '{"a":1}'),
        ('  {"a":1}  ', '  {"a":1}  '),
        ("{'a':1}", "{'a':1}"),
        ('{a:{"b":1}}', '{a:{"b":1}}'),
        ('{ \n{"a":1}}', '{"a":1}'),
        ('{[{"a":1}]}', '[{"a":1}]'),
        ({"a": [1, "é"]}, '{"a":[1,"é"]}'.encode()),
        ([{"a": 1}], b'[{"a":1}]'),
        (5, b"5"),
    ],
)
def test_instances(sent, read):
    assert instance_text(sent) == read


@pytest.mark.parametrize("sent", [None, "", " ", "null", "{}", {}])
def test_no_replacement(sent):
    assert replacement_text(sent) is None
