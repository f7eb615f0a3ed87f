"""Sorting documents."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sib.errors import LimitError, QuerySyntaxError
from sib.query.budget import Budget
from sib.query.sorting import sort_documents
from sib.query.values import compare


def ids(documents, spec, **options):
    return [document["_id"] for document in sort_documents(documents, spec, **options)]


MIXED = [
    {"_id": "text", "a": "x"},
    {"_id": "missing"},
    {"_id": "number", "a": 5},
    {"_id": "array", "a": [9, 1]},
    {"_id": "empty", "a": []},
    {"_id": "null", "a": None},
    {"_id": "true", "a": True},
    {"_id": "object", "a": {"b": 3}},
]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"a": 1}, ["empty", "missing", "null", "array", "number", "text", "object", "true"]),
        ({"a": -1}, ["true", "object", "text", "array", "number", "missing", "null", "empty"]),
        ([("a", 1)], ["empty", "missing", "null", "array", "number", "text", "object", "true"]),
    ],
)
def test_types_and_arrays(spec, expected):
    assert ids(MIXED, spec) == expected


def test_several_fields_and_deep_paths():
    documents = [{"_id": n, "a": {"b": b}, "c": c} for n, (b, c) in enumerate([(1, 1), (1, 2), (0, 1), (0, 2)])]
    assert ids(documents, {"a.b": 1, "c": -1}) == [3, 2, 1, 0]
    assert ids(documents, {"a.b": -1, "c": 1}) == [0, 1, 2, 3]


def test_paths_through_arrays_take_the_least_or_greatest():
    documents = [{"_id": 1, "a": [{"b": 5}, {"b": 1}]}, {"_id": 2, "a": [{"b": 3}]}, {"_id": 3, "a": [{"c": 1}]}]
    assert ids(documents, {"a.b": 1}) == [3, 1, 2]
    assert ids(documents, {"a.b": -1}) == [1, 2, 3]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"a": 2},
        {"a": "asc"},
        {"a": True},
        {"a..b": 1},
        {"": 1},
        {"$a": 1},
        {"a": 1, "$natural": 1},
        {"a": {"$meta": "textScore"}},
    ],
)
def test_wrong_sorts_are_refused(spec):
    with pytest.raises(QuerySyntaxError):
        sort_documents([], spec)


@pytest.mark.parametrize(
    ("direction", "limit", "expected"), [(1, None, [0, 1, 2]), (-1, None, [2, 1, 0]), (1, 2, [0, 1]), (-1, 2, [2, 1])]
)
def test_natural_order(direction, limit, expected):
    assert ids([{"_id": n} for n in range(3)], {"$natural": direction}, limit=limit) == expected


def test_memory_is_bounded_and_a_limit_needs_less():
    documents = [{"_id": n} for n in range(100)]
    with pytest.raises(LimitError):
        sort_documents(documents, {"_id": -1}, budget=Budget(max_held_documents=50))
    assert ids(documents, {"_id": -1}, limit=2, budget=Budget(max_held_documents=50)) == [99, 98]


VALUES = (
    st.none() | st.integers(0, 3) | st.sampled_from(["a", "b", True, 1.0]) | st.lists(st.integers(0, 3), max_size=2)
)


@given(
    st.lists(st.fixed_dictionaries({}, optional={"a": VALUES, "b": VALUES}), max_size=12),
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([1, -1])), min_size=1, max_size=2, unique_by=lambda pair: pair[0]),
    st.integers(0, 12),
)  # fmt: skip
def test_sorting_is_stable_and_a_limit_is_a_prefix(rows, spec, limit):
    documents = [{"_id": n, **row} for n, row in enumerate(rows)]
    ordered = sort_documents(documents, spec)
    assert sorted(document["_id"] for document in ordered) == list(range(len(rows)))
    assert sort_documents(documents, spec, limit=limit) == ordered[:limit]
    for left, right in itertools.pairwise(ordered):
        if all(left.get(path) == right.get(path) and type(left.get(path)) is type(right.get(path)) for path, _ in spec):
            assert left["_id"] < right["_id"]


@given(st.lists(st.none() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=2), max_size=10))
def test_scalars_come_in_the_order_of_compare(values):
    ordered = [document["a"] for document in sort_documents([{"a": value} for value in values], {"a": 1})]
    assert all(compare(left, right) <= 0 for left, right in itertools.pairwise(ordered))
