"""The index of subscriptions gives the same answer as matching every condition by itself."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sib.errors import QuerySyntaxError, SibError
from sib.query.matcher import compile_filter
from sib.subscriptions import SubscriptionIndex

numbers = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, 1.0, -2.5, 2**40, 1e300]), st.booleans())
scalars = st.one_of(numbers, st.sampled_from(["a", "b", "", "1"]), st.none())
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)),
    max_leaves=5,
)
instances = st.dictionaries(st.sampled_from("xyz"), values, max_size=3)
paths = st.sampled_from(["x", "y", "x.y", "x.y.z", "z.0", "_id", "contextData.kp", "x.x"])
operators = st.one_of(
    scalars,
    st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte", "$eq", "$ne"]), scalars, min_size=1, max_size=2),
    st.fixed_dictionaries({"$in": st.lists(scalars, max_size=3)}),
    st.fixed_dictionaries({"$exists": st.booleans()}),
    st.fixed_dictionaries({"$size": st.integers(0, 3)}),
    st.fixed_dictionaries({"$not": st.fixed_dictionaries({"$gt": numbers})}),
    st.just({"$regex": "^a"}),
    st.lists(scalars, max_size=2),
)
simple = st.dictionaries(paths, operators, max_size=3)
conditions = st.one_of(
    simple,
    st.fixed_dictionaries({"$or": st.lists(simple, min_size=1, max_size=2)}),
    st.fixed_dictionaries({"$and": st.lists(simple, min_size=1, max_size=2), "x": scalars}),
)


def whole(instance):
    return {"_id": 7, "contextData": {"kp": "a"}, **instance}


def exactly(condition, document):
    try:
        return compile_filter(condition)(document)
    except SibError:
        return False


def found_by(index, found):
    matched = index.match(found, lambda position: whole(found[position]))
    return {position: sorted(ids) for position, ids in matched}


@given(st.lists(conditions, max_size=12), st.lists(instances, max_size=6), st.sets(st.integers(0, 11)))
def test_the_same_answer_as_the_exact_matcher(chosen, found, removed):
    index, kept = SubscriptionIndex(), {}
    for number, condition in enumerate(chosen):
        try:
            index.add(f"s{number:02}", condition)
        except QuerySyntaxError:
            continue
        kept[f"s{number:02}"] = condition
    for number in removed:
        index.remove(f"s{number:02}")
        kept.pop(f"s{number:02}", None)
    assert len(index) == len(kept)
    expected = {}
    for position, instance in enumerate(found):
        ids = [id_ for id_, condition in sorted(kept.items()) if exactly(condition, whole(instance))]
        if ids:
            expected[position] = ids
    assert found_by(index, found) == expected


def test_a_condition_that_cannot_be_used_registers_nothing_and_keeps_the_old_one():
    index = SubscriptionIndex()
    index.add("s", {"x": 1})
    with pytest.raises(QuerySyntaxError):
        index.add("s", {"x": {"$nope": 1}})
    assert found_by(index, [{"x": 1}]) == {0: ["s"]}
    index.add("s", {"x": 2})
    assert found_by(index, [{"x": 1}, {"x": 2}]) == {1: ["s"]}


def test_a_condition_that_fails_on_an_instance_is_no_match_and_harms_no_other():
    index = SubscriptionIndex()
    index.add("failing", {"$expr": {"$gt": [{"$divide": [1, "$x"]}, 0]}})
    index.add("good", {})
    assert found_by(index, [{"x": 0}, {"x": 1}]) == {0: ["good"], 1: ["failing", "good"]}


def test_the_whole_document_is_made_only_where_a_condition_needs_it():
    index, made = SubscriptionIndex(), []
    index.add("by value", {"x": "a"})
    index.add("by limit", {"x": {"$gt": 3}})

    def whole_of(position):
        made.append(position)
        return whole(rows[position])

    rows = [{"x": "a"}, {"x": 5}, {"x": "b"}, {}]
    assert index.match(rows, whole_of) == [(0, ["by value"]), (1, ["by limit"])]
    assert made == []
    index.add("by context", {"x": "a", "contextData.kp": "a"})
    assert sorted(index.match(rows[:1], whole_of)[0][1]) == ["by context", "by value"]
    assert made == [0]


def test_positions_without_an_instance_are_passed_over():
    index = SubscriptionIndex()
    index.add("all", {})
    assert index.match([None, {"x": 1}], lambda _: {}) == [(1, ["all"])]
    index.remove("all")
    index.remove("never")
    assert "all" not in index
    assert index.match([{"x": 1}], lambda _: {}) == []


@pytest.mark.parametrize(
    "condition",
    [
        lambda number: {"x": number},
        lambda number: {"x": "same"},
        lambda number: {"x": {"$gt": number}},
        lambda number: {f"x.p{number}": 1},
        lambda number: {},
    ],
)
def test_thousands_of_subscriptions_end_without_looking_at_each_other(condition):
    """A session with 10,000 subscriptions leaves: the partition serves nobody else until they are out."""
    index = SubscriptionIndex()
    for number in range(2000):
        index.add(f"s{number}", condition(number))
    steps = 0

    def count(*_):
        nonlocal steps
        steps += 1

    sys.setprofile(count)
    try:
        for number in range(2000):
            index.remove(f"s{number}")
    finally:
        sys.setprofile(None)
    assert len(index) == 0
    assert found_by(index, [{"x": 1}]) == {}
    assert steps < 2000 * 100
