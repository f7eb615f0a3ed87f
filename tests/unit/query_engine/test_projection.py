"""Projections of find: each row is (projection, shown)."""

import pytest

from sib.errors import QueryError, QuerySyntaxError
from sib.query.projection import compile_projection

DOCUMENT = {
    "_id": 1,
    "a": {"b": 1, "c": {"d": 2, "e": 3}},
    "l": [1, 2, 3, 4],
    "o": [{"x": 1, "y": 2}, {"x": 3, "y": 4}, 5, [{"x": 6, "y": 7}]],
    "z": None,
}


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        (None, DOCUMENT),
        ({}, DOCUMENT),
        ({"z": 1}, {"_id": 1, "z": None}),
        ({"z": True, "_id": 0}, {"z": None}),
        ({"_id": 1}, {"_id": 1}),
        ({"_id": 0}, {name: value for name, value in DOCUMENT.items() if name != "_id"}),
        (["z"], {"_id": 1, "z": None}),
        ({"nothing": 1}, {"_id": 1}),
        ({"a.b": 1}, {"_id": 1, "a": {"b": 1}}),
        ({"a.c.d": 1, "_id": 0}, {"a": {"c": {"d": 2}}}),
        ({"a": {"c": {"d": 1}}, "_id": 0}, {"a": {"c": {"d": 2}}}),
        ({"a.b.x": 1, "_id": 0}, {"a": {}}),
        ({"o.x": 1, "_id": 0}, {"o": [{"x": 1}, {"x": 3}, [{"x": 6}]]}),
        ({"a": 0, "o": 0, "l": 0}, {"_id": 1, "z": None}),
        ({"a.c": 0, "o": 0, "l": 0, "_id": 0}, {"a": {"b": 1}, "z": None}),
        ({"o.x": 0, "a": 0, "l": 0, "z": 0}, {"_id": 1, "o": [{"y": 2}, {"y": 4}, 5, [{"y": 7}]]}),
        # $slice alone hides nothing; with inclusions it includes.
        ({"l": {"$slice": 2}}, {**DOCUMENT, "l": [1, 2]}),
        ({"l": {"$slice": -1}, "a": 0, "o": 0}, {"_id": 1, "l": [4], "z": None}),
        ({"l": {"$slice": [1, 2]}, "z": 1}, {"_id": 1, "l": [2, 3], "z": None}),
        ({"l": {"$slice": [-3, 2]}, "z": 1}, {"_id": 1, "l": [2, 3], "z": None}),
        ({"l": {"$slice": [-9, 2]}, "z": 1}, {"_id": 1, "l": [1, 2], "z": None}),
        # $elemMatch
        ({"o": {"$elemMatch": {"x": 3}}}, {"_id": 1, "o": [{"x": 3, "y": 4}]}),
        ({"o": {"$elemMatch": {"x": 9}}}, {"_id": 1}),
        ({"l": {"$elemMatch": {"$gt": 2}}, "_id": 0}, {"l": [3]}),
        # Expressions
        ({"n": "$a.b", "_id": 0}, {"n": 1}),
        ({"n": {"$add": ["$a.b", 1]}, "z": 1}, {"_id": 1, "z": None, "n": 2}),
        ({"a.n": {"$literal": 5}, "a.b": 1, "_id": 0}, {"a": {"b": 1, "n": 5}}),
        ({"n": "$nothing", "_id": 0}, {}),
        ({"n": "text", "_id": 0}, {"n": "text"}),
        ({"_id": "$a.b"}, {"_id": 1}),
        ({"l": {"$slice": ["$l", 1]}, "_id": 0}, {"l": [1]}),
        ({"n": ["$a.b", "$nothing"], "_id": 0}, {"n": [1, None]}),
    ],
)
def test_projection(spec, shown):
    before = repr(DOCUMENT)
    assert compile_projection(spec)(DOCUMENT) == shown
    assert repr(DOCUMENT) == before


def test_id_comes_first_and_the_rest_in_the_order_of_the_document():
    assert list(compile_projection({"z": 1, "a": 1})({"a": 1, "_id": 2, "z": 3})) == ["_id", "a", "z"]


@pytest.mark.parametrize(
    ("filter_spec", "spec", "shown"),
    [
        ({"l": {"$gt": 2}}, {"l.$": 1, "_id": 0}, {"l": [3]}),
        ({"o.x": 3}, {"o.$": 1, "_id": 0}, {"o": [{"x": 3, "y": 4}]}),
        ({"o": {"$elemMatch": {"x": 1}}}, {"o.$": 1, "z": 1}, {"_id": 1, "o": [{"x": 1, "y": 2}], "z": None}),
    ],
)
def test_positional_projection(filter_spec, spec, shown):
    assert compile_projection(spec, filter_spec)(DOCUMENT) == shown


def test_positional_projection_without_a_match_is_an_error():
    with pytest.raises(QueryError, match="matched no element"):
        compile_projection({"l.$": 1}, {"l": 99})(DOCUMENT)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"a": 1, "b": 0}, "not both"),
        ({"a": 0, "b": "$c"}, "not both"),
        ({"a": 1, "a.b": 1}, "overlap"),
        ({"a": {}}, "empty object"),
        ({"a..b": 1}, "empty field name"),
        ({"$a": 1}, "$a"),
        ({"a": {"$nothing": 1}}, "$nothing"),
        ({"l.$": 1}, "positional"),
        ({"l": {"$slice": "x"}}, "$slice"),
        ({"l": {"$slice": [1, 0]}}, "$slice"),
        ({"l": {"$elemMatch": 1}}, "$elemMatch"),
    ],
)
def test_wrong_projections_are_refused(spec, words):
    with pytest.raises(QuerySyntaxError) as caught:
        compile_projection(spec)
    assert words in str(caught.value)
