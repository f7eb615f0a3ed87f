"""Index keys sort as BSON values compare."""

from datetime import datetime, timedelta

import pytest
from bson import Binary, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from hypothesis import given
from hypothesis import strategies as st

from sib.query.values import compare
from storage.bdtr.keys import KEY_BYTES_MAX, compound_key, date_key, key_of, milliseconds, nested_key, type_range

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(2**53 - 2, 2**53 + 2),
    st.floats(),
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9).map(Decimal128),
    st.text(max_size=8),
    st.text("ab\0", max_size=400),
    st.binary(max_size=6),
    st.binary(max_size=4).map(lambda data: Binary(data, 5)),
    st.datetimes(datetime(1, 1, 2), datetime(9999, 1, 1)).map(lambda day: day.replace(microsecond=0)),
    st.binary(min_size=12, max_size=12).map(ObjectId),
    st.sampled_from([MinKey(), MaxKey(), Timestamp(1, 2), Timestamp(2, 1), float("-inf"), 1e308, Decimal128("NaN")]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["", "a", "b", "a\x01"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def sign(left, right):
    return (left > right) - (left < right)


@given(VALUES, VALUES)
def test_keys_never_sort_the_wrong_way_and_exact_ones_sort_exactly(left, right):
    (left_key, left_exact), (right_key, right_exact) = key_of(left), key_of(right)
    order = sign(left_key, right_key)

    assert len(left_key) <= KEY_BYTES_MAX
    assert order in (0, compare(left, right))
    if left_exact and right_exact:
        assert order == compare(left, right)


@given(st.lists(SCALARS, min_size=2, max_size=2), st.lists(SCALARS, min_size=2, max_size=2), st.sampled_from([1, -1]))
def test_compound_keys_sort_by_their_fields_in_turn(left, right, direction):
    ways = [1, direction]
    left_key, left_exact = compound_key(zip(left, ways, strict=True))
    right_key, right_exact = compound_key(zip(right, ways, strict=True))
    expected = next(
        (way * compare(one, other) for one, other, way in zip(left, right, ways, strict=True) if compare(one, other)), 0
    )

    assert sign(left_key, right_key) in (0, expected)
    if left_exact and right_exact:
        assert sign(left_key, right_key) == expected


@given(SCALARS, SCALARS)
def test_a_compound_key_starts_with_its_first_field(first, second):
    key, _ = compound_key([(first, -1), (second, 1)])
    assert key[:KEY_BYTES_MAX].startswith(nested_key(first, -1)[:KEY_BYTES_MAX])


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 1.0), (1, Int64(1)), (1, Decimal128("1.0")), (0.0, -0.0), (2**60, float(2**60)), ({"a": 1}, {"a": 1.0})],
)
def test_equal_values_have_one_key(one, other):
    assert key_of(one) == key_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, True), (0, False), (2**53, 2**53 + 1), ("1", 1), (b"a", "a"), (None, 0), ([], None), ({"a": 1}, {"b": 1})],
)
def test_different_values_have_different_keys(one, other):
    assert key_of(one)[0] != key_of(other)[0]


@pytest.mark.parametrize("value", [-1, 1.5, "text", True, datetime(2026, 1, 1), ObjectId()])
def test_a_key_lies_in_the_range_of_its_type(value):
    key, _ = key_of(value)
    low, high = type_range(key[0])
    assert low <= key < high


def test_dates_before_1970_and_with_zones_are_milliseconds():
    from datetime import UTC

    assert milliseconds(datetime(1969, 12, 31, 23, 59, 59)) == -1000
    assert milliseconds(datetime(1970, 1, 1, 0, 0, 1, 1999, tzinfo=UTC)) == 1001
    assert (
        date_key(-1)
        < date_key(0)
        == key_of(datetime(1970, 1, 1))[0]
        < key_of(datetime(1970, 1, 1) + timedelta(milliseconds=1))[0]
    )
