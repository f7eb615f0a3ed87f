"""Groups: one instance for many, and groups of groups weigh what they stand for."""

import random
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.bdh.groups import Group, GroupBy, value_at

DAY = datetime(2026, 3, 1)
EVERY = {function: function for function in ("avg", "sum", "min", "max", "first", "last", "count")}
GROUP = GroupBy(3600, ("kp",), {f"S.{function}": function for function in EVERY})


def instance(second, value):
    fields = {} if value is None else dict.fromkeys(EVERY, value)
    return {"_id": second, "contextData": {"timestamp": DAY + timedelta(seconds=second), "kp": "a"}, "S": fields}


def grouped(documents):
    ordered = list(documents)
    first = ordered[0]
    group = Group(GROUP, DAY, first, first["contextData"]["timestamp"])
    for document in ordered:
        group.add(document, document["contextData"]["timestamp"])
    return group.document()


def test_each_function_makes_one_value_of_many():
    made = grouped([instance(0, 4), instance(10, 1), instance(20, 7)])
    assert made["S"] == {"avg": 4, "sum": 12, "min": 1, "max": 7, "first": 4, "last": 7, "count": 3}
    assert made["_id"] == 0
    assert made["contextData"]["timestamp"] == DAY
    assert made["contextData"]["kp"] == "a"
    assert made["contextData"]["grouped"]["n"] == 3


def test_the_order_of_arrival_does_not_matter():
    documents = [instance(second, second * 3 % 7) for second in range(20)]
    expected = grouped(documents)
    random.Random(1).shuffle(documents)
    assert grouped(documents) == expected


def test_values_of_another_type_are_left_out():
    made = grouped([instance(0, 2), instance(1, "x"), instance(2, True), instance(3, None)])
    assert (made["S"]["avg"], made["S"]["sum"], made["S"]["max"]) == (2, 2, 2)
    assert made["S"]["count"] == 3
    assert made["S"]["last"] is True
    assert made["contextData"]["grouped"]["n"] == 4


def test_without_any_value_the_field_is_as_it_was():
    assert grouped([instance(0, None), instance(1, None)])["S"] == {}


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=30), st.data())
def test_a_group_of_groups_is_the_group_of_all(values, data):
    documents = [instance(second, value) for second, value in enumerate(values)]
    cut = data.draw(st.integers(1, len(documents) - 1))
    at_once = grouped(documents)
    in_parts = grouped([grouped(documents[:cut]), grouped(documents[cut:])])
    assert in_parts["S"].pop("avg") == pytest.approx(at_once["S"].pop("avg"))
    assert in_parts == at_once


def test_a_period_begins_where_the_day_is_divided():
    assert GroupBy(900).period_of(datetime(2026, 3, 1, 10, 29, 59, 999000)) == datetime(2026, 3, 1, 10, 15)


def test_a_value_at_a_path():
    assert value_at({"a": {"b": 1}}, "a.b") == 1
    assert value_at({"a": 5}, "a.b") is None
