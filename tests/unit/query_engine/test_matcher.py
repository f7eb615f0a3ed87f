"""Filters against documents: each row is (filter, ids that match)."""

# ruff: noqa: E501 - a row of a table stays on its line

import re
from datetime import datetime

import pytest
from bson import Binary, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex
from hypothesis import given
from hypothesis import strategies as st

from sib.errors import QueryError, QuerySyntaxError, SibError
from sib.query.budget import MAX_NESTING, Budget, Context
from sib.query.matcher import compile_filter

OID = ObjectId("0123456789abcdef01234567")
DATE = datetime(2024, 2, 29, 12)

VALUES = {
    "int": 18,
    "double": 18.0,
    "bigger": 20,
    "text": "18",
    "true": True,
    "one": 1,
    "null": None,
    "list": [5, 20],
    "nested_list": [[5, 20]],
    "empty_list": [],
    "object": {"b": 1, "c": 2},
    "objects": [{"b": 1}, {"b": 7, "c": 3}],
    "some_b": [{"b": 1}, {"c": 1}],
    "date": DATE,
    "oid": OID,
    "long": Int64(2**40),
    "decimal": Decimal128("18"),
    "nan": float("nan"),
    "binary": b"ab",
}
DOCUMENTS = [{"_id": name, "a": value} for name, value in VALUES.items()] + [{"_id": "missing"}]
ALL = {document["_id"] for document in DOCUMENTS}


def matching(filter_spec, documents=DOCUMENTS):
    matches = compile_filter(filter_spec)
    return {document["_id"] for document in documents if matches(document)}


@pytest.mark.parametrize(
    ("filter_spec", "expected"),
    [
        ({}, ALL),
        # Equality: by value over number types, never over other types.
        ({"a": 18}, {"int", "double", "decimal"}),
        ({"a": 18.0}, {"int", "double", "decimal"}),
        ({"a": Decimal128("18.0")}, {"int", "double", "decimal"}),
        ({"a": "18"}, {"text"}),
        ({"a": 1}, {"one"}),
        ({"a": True}, {"true"}),
        ({"a": None}, {"null", "missing"}),
        ({"a": {"$eq": None}}, {"null", "missing"}),
        ({"a": {"$ne": None}}, ALL - {"null", "missing"}),
        ({"a": OID}, {"oid"}),
        ({"a": DATE}, {"date"}),
        ({"a": float("nan")}, {"nan"}),
        ({"a": b"ab"}, {"binary"}),
        ({"a": Binary(b"ab", 0)}, {"binary"}),
        ({"a": Binary(b"ab", 5)}, set()),
        # Arrays: any element, or the whole.
        ({"a": 20}, {"bigger", "list"}),
        ({"a": [5, 20]}, {"list", "nested_list"}),
        ({"a": [20, 5]}, set()),
        ({"a": []}, {"empty_list"}),
        # Embedded documents: all fields, in order.
        ({"a": {"b": 1, "c": 2}}, {"object"}),
        ({"a": {"c": 2, "b": 1}}, set()),
        ({"a": {"b": 1}}, {"objects", "some_b"}),
        # Ranges are bracketed by type.
        ({"a": {"$gt": 18}}, {"bigger", "list", "long"}),
        ({"a": {"$gte": 18}}, {"int", "double", "decimal", "bigger", "list", "long"}),
        ({"a": {"$lt": 11}}, {"one", "list"}),
        ({"a": {"$lte": None}}, {"null", "missing"}),
        ({"a": {"$lt": None}}, set()),
        ({"a": {"$gt": "1"}}, {"text"}),
        ({"a": {"$gte": DATE}}, {"date"}),
        ({"a": {"$gt": datetime(2024, 3, 1)}}, set()),
        ({"a": {"$gte": OID}}, {"oid"}),
        ({"a": {"$gt": False}}, {"true"}),
        ({"a": {"$gte": float("nan")}}, {"nan"}),
        ({"a": {"$gt": float("nan")}}, set()),
        ({"a": {"$gt": [5]}}, {"list", "nested_list", "objects", "some_b"}),
        ({"a": {"$gt": MinKey()}}, ALL),
        ({"a": {"$gt": MaxKey()}}, set()),
        ({"a": {"$gt": 4, "$lt": 6}}, {"list"}),
        ({"a": {"$gt": 6, "$lt": 18}}, {"list"}),  # through different elements
        ({"a": {"$elemMatch": {"$gt": 6, "$lt": 18}}}, set()),
        # Sets
        ({"a": {"$in": [18, "18"]}}, {"int", "double", "decimal", "text"}),
        ({"a": {"$in": [None]}}, {"null", "missing"}),
        ({"a": {"$in": [re.compile("^1")]}}, {"text"}),
        ({"a": {"$in": [[5, 20]]}}, {"list", "nested_list"}),
        ({"a": {"$in": []}}, set()),
        ({"a": {"$nin": [18, None]}}, ALL - {"int", "double", "decimal", "null", "missing"}),
        ({"a": {"$nin": []}}, ALL),
        ({"a": {"$ne": 20}}, ALL - {"bigger", "list"}),
        # Existence and types
        ({"a": {"$exists": True}}, ALL - {"missing"}),
        ({"a": {"$exists": False}}, {"missing"}),
        ({"a": {"$exists": 0}}, {"missing"}),
        ({"a": {"$type": "string"}}, {"text"}),
        ({"a": {"$type": 2}}, {"text"}),
        ({"a": {"$type": "number"}}, {"int", "double", "bigger", "one", "list", "long", "decimal", "nan"}),
        ({"a": {"$type": "double"}}, {"double", "nan"}),
        ({"a": {"$type": "int"}}, {"int", "bigger", "one", "list"}),
        ({"a": {"$type": ["long", 19]}}, {"long", "decimal"}),
        ({"a": {"$type": "array"}}, {"list", "nested_list", "empty_list", "objects", "some_b"}),
        ({"a": {"$type": "object"}}, {"object", "objects", "some_b"}),
        ({"a": {"$type": "null"}}, {"null"}),
        ({"a": {"$type": "bool"}}, {"true"}),
        ({"a": {"$type": "date"}}, {"date"}),
        ({"a": {"$type": 7}}, {"oid"}),
        # Arrays as a whole
        ({"a": {"$size": 2}}, {"list", "objects", "some_b"}),
        ({"a": {"$size": 0}}, {"empty_list"}),
        ({"a": {"$all": [5, 20]}}, {"list"}),
        ({"a": {"$all": [18]}}, {"int", "double", "decimal"}),
        ({"a": {"$all": [[5, 20]]}}, {"list", "nested_list"}),
        ({"a": {"$all": []}}, set()),
        ({"a": {"$all": [{"$elemMatch": {"b": 1}}, {"$elemMatch": {"c": 3}}]}}, {"objects"}),
        ({"a": {"$elemMatch": {"$gte": 20}}}, {"list"}),
        ({"a": {"$elemMatch": {"b": 7, "c": 3}}}, {"objects"}),
        ({"a": {"$elemMatch": {"b": 1, "c": 3}}}, set()),
        ({"a": {"$elemMatch": {"$or": [{"b": 7}, {"c": 1}]}}}, {"objects", "some_b"}),
        ({"a": {"$elemMatch": {"$elemMatch": {"$gt": 6}}}}, {"nested_list"}),
        ({"a": {"$not": {"$elemMatch": {"b": 1}}}}, ALL - {"objects", "some_b"}),
        # Dotted paths
        ({"a.b": 1}, {"object", "objects", "some_b"}),
        ({"a.b": {"$gt": 1}}, {"objects"}),
        ({"a.0": 5}, {"list"}),
        ({"a.1": 20}, {"list"}),
        ({"a.0.b": 1}, {"objects", "some_b"}),
        ({"a.1.b": 7}, {"objects"}),
        ({"a.0.1": 20}, {"nested_list"}),
        ({"a.0": [5, 20]}, {"nested_list"}),
        ({"a.7": {"$exists": True}}, set()),
        ({"a.b": {"$exists": True}}, {"object", "objects", "some_b"}),
        (
            {"a.b": None},
            ALL - {"object", "objects", "list", "nested_list", "empty_list"},
        ),
        ({"a.c": {"$exists": False}}, ALL - {"object", "objects", "some_b"}),
        # Numbers and text
        ({"a": {"$mod": [5, 0]}}, {"bigger", "list"}),
        ({"a": {"$mod": [4, 2]}}, {"int", "double", "decimal"}),
        ({"a": {"$regex": "^1"}}, {"text"}),
        ({"a": re.compile("8$")}, {"text"}),
        ({"a": Regex("8$")}, {"text"}),
        ({"a": {"$bitsAllSet": 18}}, {"int", "double"}),
        ({"a": {"$bitsAnySet": [0]}}, {"one", "list"}),
        # Logic
        ({"$and": [{"a": {"$gt": 1}}, {"a": {"$lt": 19}}]}, {"int", "double", "decimal", "list"}),
        ({"$or": [{"a": 1}, {"a": "18"}]}, {"one", "text"}),
        ({"$nor": [{"a": 1}, {"a": "18"}]}, ALL - {"one", "text"}),
        (
            {"a": {"$not": {"$gt": 1}}},
            ALL - {"int", "double", "bigger", "list", "long", "decimal", "objects"} | {"objects"},
        ),
        ({"a": {"$not": re.compile("^1")}}, ALL - {"text"}),
        ({"a": {"$not": {"$regex": "^1"}}}, ALL - {"text"}),
        ({"$comment": "x", "a": 1}, {"one"}),
        # Expressions
        ({"$expr": {"$eq": ["$a", 18]}}, {"int", "double", "decimal"}),
        (
            {"$expr": {"$gt": [{"$size": {"$ifNull": [{"$cond": [{"$isArray": "$a"}, "$a", []]}, []]}}, 1]}},
            {"list", "objects", "some_b"},
        ),
        # Schemas
        ({"$jsonSchema": {"required": ["a"], "properties": {"a": {"bsonType": "string"}}}}, {"text"}),
        (
            {"$jsonSchema": {"properties": {"a": {"type": "number", "minimum": 19}}, "required": ["a"]}},
            {"bigger", "long"},
        ),
        ({"$jsonSchema": {"not": {"required": ["a"]}}}, {"missing"}),
    ],
)
def test_filter(filter_spec, expected):
    assert matching(filter_spec) == expected


@pytest.mark.parametrize(
    ("pattern", "options", "text", "expected"),
    [
        ("abc", "", "xabcx", True),
        ("ABC", "i", "xabcx", True),
        ("^b", "", "a\nb", False),
        ("^b", "m", "a\nb", True),
        ("a.b", "", "a\nb", False),
        ("a.b", "s", "a\nb", True),
        ("a b # blank\n c", "x", "abc", True),
        (r"a\ b [ #] c", "x", "a b c", True),
        ("ñ+", "", "niño", True),
        ("^Ñ", "i", "ñandú", True),
        ("a{2,3}", "im", "xAAx", True),
    ],
)
def test_regular_expression_options(pattern, options, text, expected):
    assert compile_filter({"a": {"$regex": pattern, "$options": options}})({"a": text}) is expected


def test_options_of_a_literal_count():
    assert compile_filter({"a": re.compile("ABC", re.IGNORECASE)})({"a": "abc"})
    assert compile_filter({"a": {"$regex": Regex("ABC", "i")}})({"a": "abc"})


@pytest.mark.parametrize("pattern", ["(?=a)b", "(?<!a)b", r"(a)\1", "a++", "(", "[a", "a{2000}"])
def test_patterns_beyond_linear_time_are_refused_in_a_sentence(pattern):
    with pytest.raises(QuerySyntaxError, match="refused"):
        compile_filter({"a": {"$regex": pattern}})


def test_an_exploding_pattern_is_harmless():
    matches = compile_filter({"a": {"$regex": "^(a+)+$"}})
    assert not matches({"a": "a" * 50_000 + "b"})


@pytest.mark.parametrize(
    ("filter_spec", "words"),
    [
        ({"$where": "this.a"}, "$where"),
        ({"$text": {"$search": "x"}}, "$text"),
        ({"$foo": 1}, "$foo"),
        ({"a": {"$foo": 1}}, "$foo"),
        ({"a": {"$gt": 1, "b": 2}}, "unknown operator b"),
        ({"$and": []}, "$and"),
        ({"$or": {"a": 1}}, "$or"),
        ({"$and": [1]}, "$and"),
        ({"a": {"$in": 1}}, "$in"),
        ({"a": {"$in": [{"$gt": 1}]}}, "$in"),
        ({"a": {"$size": -1}}, "$size"),
        ({"a": {"$size": 1.5}}, "$size"),
        ({"a": {"$mod": [0, 1]}}, "$mod"),
        ({"a": {"$mod": [2]}}, "$mod"),
        ({"a": {"$type": "nothing"}}, "$type"),
        ({"a": {"$type": []}}, "$type"),
        ({"a": {"$not": 5}}, "$not"),
        ({"a": {"$elemMatch": 5}}, "$elemMatch"),
        ({"a": {"$options": "i"}}, "$options"),
        ({"a": {"$regex": "x", "$options": "q"}}, "$options"),
        ({"a": {"$regex": 5}}, "$regex"),
        ({"a": {"$ne": re.compile("x")}}, "$ne"),
        ({"$expr": {"$function": {"body": "x"}}}, "$function"),
        ({"$expr": {"$nothing": 1}}, "$nothing"),
        ({"$expr": "$$unknown"}, "unknown"),
        ({"$jsonSchema": {"$ref": "x"}}, "$ref"),
        ({"a": {"$geoWithin": {"$foo": 1}}}, "$foo"),
        ("text", "object"),
    ],
)
def test_wrong_filters_are_refused_by_name(filter_spec, words):
    with pytest.raises(QuerySyntaxError) as caught:
        compile_filter(filter_spec)
    assert words in str(caught.value)


def deep(levels):
    spec = {"a": 1}
    for _ in range(levels):
        spec = {"$and": [spec]}
    return spec


def test_nesting_is_bounded():
    assert compile_filter(deep(MAX_NESTING // 2 - 1))({"a": 1})
    with pytest.raises(QuerySyntaxError, match="nested"):
        compile_filter(deep(5000))


def test_expr_reads_now_and_variables():
    context = Context(Budget(), DATE, {"limit": 5})
    matches = compile_filter({"$expr": {"$and": [{"$lt": ["$a", "$$limit"]}, {"$lt": ["$t", "$$NOW"]}]}}, context)
    assert matches({"a": 4, "t": datetime(2024, 1, 1)})
    assert not matches({"a": 6, "t": datetime(2024, 1, 1)})
    assert not matches({"a": 4, "t": datetime(2025, 1, 1)})


def test_wrong_types_in_expr_are_query_errors():
    with pytest.raises(QueryError, match="array"):
        compile_filter({"$expr": {"$size": "$a"}})({"a": 1})


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=5),
    st.just(OID),
    st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2100, 1, 1)),
    st.builds(Int64, st.integers(-5, 5)),
    st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-100, max_value=100).map(Decimal128),
    st.binary(max_size=3),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "0", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
DOCS = st.dictionaries(st.sampled_from(["a", "b", "c"]), JSON, max_size=3)
PATHS = st.sampled_from(["a", "b", "a.b", "a.0", "a.b.0", "c.x"])
OPERATORS = st.sampled_from(
    ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$type", "$size", "$all", "$mod", "$regex",
     "$elemMatch", "$not", "$near", "$geoWithin", "$geoIntersects", "$bitsAllSet", "$nonsense", "$options"]
)  # fmt: skip
CONDITIONS = st.recursive(
    JSON,
    lambda inner: st.dictionaries(OPERATORS, inner | st.lists(inner, max_size=3), min_size=1, max_size=2),
    max_leaves=4,
)
FILTERS = st.recursive(
    st.dictionaries(PATHS, CONDITIONS, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from(["$and", "$or", "$nor", "$expr", "$jsonSchema"]), st.lists(inner, max_size=3) | inner, max_size=2),
    max_leaves=5,
)  # fmt: skip


@given(FILTERS, DOCS)
def test_random_filters_raise_nothing_but_refusals(filter_spec, document):
    try:
        matches = compile_filter(filter_spec)
        assert matches(document) in (True, False)
    except SibError:
        pass


@given(PATHS, JSON, st.sampled_from(["$eq", "$gt", "$gte", "$lt", "$lte"]), DOCS)
def test_not_is_the_negation(path, value, operator, document):
    positive = compile_filter({path: {operator: value}})
    negative = compile_filter({path: {"$not": {operator: value}}})
    nor = compile_filter({"$nor": [{path: {operator: value}}]})
    assert positive(document) is not negative(document)
    assert negative(document) is nor(document)


@given(PATHS, st.lists(SCALARS, max_size=4), DOCS)
def test_in_is_the_or_of_its_elements(path, values, document):
    by_in = compile_filter({path: {"$in": values}})(document)
    assert by_in is any(compile_filter({path: {"$eq": value}})(document) for value in values)
    assert compile_filter({path: {"$nin": values}})(document) is not by_in


@given(DOCS.filter(bool))
def test_a_document_matches_itself(document):
    assert compile_filter(dict(document))(document)
