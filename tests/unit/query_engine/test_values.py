"""The BSON order: total, by type, numbers by value."""

import itertools
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from hypothesis import given
from hypothesis import strategies as st

from sib.query.values import MISSING, compare, copy_value, equal, hashable, identical, is_truthy, type_name

OID = ObjectId("0123456789abcdef01234567")
ASCENDING = [
    MinKey(),
    MISSING,
    None,
    float("nan"),
    float("-inf"),
    -1,
    0,
    0.5,
    Int64(1),
    Decimal128("1.5"),
    2**53,
    2**53 + 1,
    float("inf"),
    "",
    "B",
    "a",
    "á",
    {},
    {"a": 1},
    {"a": 1, "b": 1},
    {"a": 2},
    {"b": 0},
    {"a": "x"},
    [],
    [1],
    [1, 2],
    [2],
    b"",
    b"b",
    b"aa",
    OID,
    False,
    True,
    datetime(2020, 1, 1),
    datetime(2021, 1, 1),
    Timestamp(1, 1),
    Timestamp(1, 2),
    Regex("a"),
    Regex("b"),
    Code("x"),
    MaxKey(),
]


@pytest.mark.parametrize(("low", "high"), list(itertools.pairwise(ASCENDING)))
def test_order(low, high):
    assert compare(low, high) == -1
    assert compare(high, low) == 1
    assert not equal(low, high)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, 1.0),
        (1, Int64(1)),
        (1, Decimal128("1.00")),
        (0.0, -0.0),
        (float("nan"), float("nan")),
        (float("nan"), Decimal128("NaN")),
        (b"a", Binary(b"a", 0)),
        ([1, {"a": 2}], [1.0, {"a": Int64(2)}]),
        (datetime(2020, 1, 1, 12), datetime(2020, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))),
        (datetime(2020, 1, 1, 12), datetime(2020, 1, 1, 12, tzinfo=UTC)),
        (re.compile("a"), Regex("a")),
    ],
)
def test_equal_over_types(left, right):
    assert compare(left, right) == 0
    assert equal(left, right)
    assert hashable(left) == hashable(right)
    assert hash(hashable(left)) == hash(hashable(right))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, True),
        (0, False),
        ("1", 1),
        (None, MISSING),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ([1], 1),
        (Code("x"), "x"),
    ],
)
def test_not_equal(left, right):
    assert not equal(left, right)
    assert hashable(left) != hashable(right)


def test_identical_keeps_types_and_order_apart():
    assert identical({"a": [1, float("nan")]}, {"a": [1, float("nan")]})
    assert not identical(1, 1.0)
    assert not identical(1, Int64(1))
    assert not identical({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert not identical(1, True)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (MISSING, "missing"), (None, "null"), (1, "int"), (2**31, "long"), (Int64(1), "long"), (1.0, "double"), ("", "string"),
        (Decimal128("1"), "decimal"), (True, "bool"), ({}, "object"), ([], "array"), (b"", "binData"), (OID, "objectId"),
        (datetime(2020, 1, 1), "date"), (Timestamp(1, 1), "timestamp"), (Regex("a"), "regex"), (MinKey(), "minKey"),
    ],
)  # fmt: skip
def test_type_names(value, name):
    assert type_name(value) == name


@pytest.mark.parametrize("value", [None, MISSING, False, 0, 0.0, Decimal128("0.0"), Int64(0)])
def test_falsy(value):
    assert not is_truthy(value)


@pytest.mark.parametrize("value", [True, 1, -0.5, "", [], {}, float("nan"), OID])
def test_truthy(value):
    assert is_truthy(value)


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=3), st.binary(max_size=2),
        st.just(OID), st.just(MISSING), st.sampled_from([MinKey(), MaxKey(), Decimal128("1"), Decimal128("-0.5")]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)  # fmt: skip


@given(VALUES, VALUES, VALUES)
def test_the_order_is_total(a, b, c):
    assert compare(a, a) == 0
    assert compare(a, b) == -compare(b, a)
    if compare(a, b) <= 0 and compare(b, c) <= 0:
        assert compare(a, c) <= 0
    assert equal(a, b) is (compare(a, b) == 0)
    assert (hashable(a) == hashable(b)) is equal(a, b)


@given(VALUES)
def test_a_copy_is_identical(value):
    assert identical(copy_value(value), value)
