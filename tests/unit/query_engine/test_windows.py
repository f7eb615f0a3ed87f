"""``$setWindowFields``: each row is (output, the values of the field over the sorted partitions)."""

# ruff: noqa: E501 - a row of a table stays on its line

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sib.errors import LimitError, QueryError, QuerySyntaxError
from sib.query.pipeline import run_pipeline

CAKES = [
    {"_id": 0, "state": "CA", "n": 120, "at": datetime(2019, 5, 18)},
    {"_id": 1, "state": "CA", "n": 145, "at": datetime(2020, 5, 18)},
    {"_id": 2, "state": "CA", "n": 162, "at": datetime(2021, 1, 11)},
    {"_id": 3, "state": "WA", "n": 140, "at": datetime(2019, 1, 8)},
    {"_id": 4, "state": "WA", "n": 104, "at": datetime(2020, 2, 8)},
    {"_id": 5, "state": "WA", "n": 134, "at": datetime(2021, 3, 20)},
]


def run(spec, documents):
    return list(run_pipeline(documents, [{"$setWindowFields": spec}], collection=lambda _: []))


def values(output, documents=CAKES, sort=("at", 1), partition="$state"):
    spec = {"sortBy": dict([sort]), "output": {"out": output}}
    if partition:
        spec["partitionBy"] = partition
    return [row["out"] for row in run(spec, documents)]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({"$sum": "$n", "window": {"documents": ["unbounded", "current"]}}, [120, 265, 427, 140, 244, 378]),
        ({"$sum": "$n", "window": {"documents": ["unbounded", "unbounded"]}}, [427, 427, 427, 378, 378, 378]),
        ({"$sum": "$n"}, [427, 427, 427, 378, 378, 378]),
        ({"$sum": "$n", "window": {}}, [427, 427, 427, 378, 378, 378]),
        ({"$avg": "$n", "window": {"documents": [-1, 0]}}, [120.0, 132.5, 153.5, 140.0, 122.0, 119.0]),
        ({"$sum": "$n", "window": {"documents": ["current", "unbounded"]}}, [427, 307, 162, 378, 238, 134]),
        ({"$max": "$n", "window": {"documents": [1, 2]}}, [162, 162, None, 134, 134, None]),
        ({"$push": "$n", "window": {"documents": [-1, 1]}}, [[120, 145], [120, 145, 162], [145, 162], [140, 104], [140, 104, 134], [104, 134]]),
        ({"$count": {}, "window": {"documents": ["unbounded", "current"]}}, [1, 2, 3, 1, 2, 3]),
        ({"$first": "$n"}, [120] * 3 + [140] * 3),
        ({"$sum": "$n", "window": {"range": ["unbounded", -10], "unit": "month"}}, [0, 120, 120, 0, 140, 244]),
        ({"$sum": "$n", "window": {"range": [-1, "current"], "unit": "year"}}, [120, 265, 307, 140, 104, 134]),
        ({"$rank": {}}, [1, 2, 3, 1, 2, 3]),
        ({"$documentNumber": {}}, [1, 2, 3, 1, 2, 3]),
        ({"$shift": {"output": "$n", "by": 1, "default": "none"}}, [145, 162, "none", 104, 134, "none"]),
        ({"$shift": {"output": "$n", "by": -1}}, [None, 120, 145, None, 140, 104]),
        ({"$expMovingAvg": {"input": "$n", "N": 3}}, [120.0, 132.5, 147.25, 140.0, 122.0, 128.0]),
        ({"$expMovingAvg": {"input": "$n", "alpha": 0.5}}, [120.0, 132.5, 147.25, 140.0, 122.0, 128.0]),
    ],
)  # fmt: skip
def test_window(output, expected):
    assert values(output) == expected


SCORES = [{"_id": n, "s": s} for n, s in enumerate([5, 7, 7, 9])]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({"$rank": {}}, [1, 2, 2, 4]),
        ({"$denseRank": {}}, [1, 2, 2, 3]),
        ({"$documentNumber": {}}, [1, 2, 3, 4]),
        ({"$sum": "$s", "window": {"range": [-2, 0]}}, [5, 19, 19, 23]),
        ({"$sum": "$s", "window": {"range": ["current", "current"]}}, [5, 14, 14, 9]),
        ({"$sum": "$s", "window": {"range": [0.5, 2]}}, [14, 9, 9, 0]),
    ],
)
def test_peers(output, expected):
    assert values(output, SCORES, ("s", 1), None) == expected


def test_series():
    hours = [
        {"_id": n, "at": datetime(2024, 1, 1) + timedelta(hours=n), "v": v} for n, v in enumerate([0, 10, None, 30])
    ]
    assert values({"$locf": "$v"}, hours, partition=None) == [0, 10, 10, 30]
    assert values({"$linearFill": "$v"}, hours, partition=None) == [0, 10, 20.0, 30]
    speed = {"$derivative": {"input": "$v", "unit": "hour"}, "window": {"documents": [-1, 0]}}
    assert values(speed, hours[:2], partition=None) == [None, 10.0]
    area = {"$integral": {"input": "$v", "unit": "hour"}, "window": {"documents": ["unbounded", "current"]}}
    assert values(area, hours[:2], partition=None) == [0.0, 5.0]


def test_partitions_come_in_order_and_missing_is_one():
    documents = [{"_id": 1, "p": "b"}, {"_id": 2}, {"_id": 3, "p": "a"}, {"_id": 4, "p": None}]
    rows = run({"partitionBy": "$p", "output": {"n.c": {"$sum": 1}}}, documents)
    assert [(row["_id"], row["n"]["c"]) for row in rows] == [(2, 2), (4, 2), (3, 1), (1, 1)]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"output": {}}, "output"),
        ({"output": {"a": 1}}, "window operator"),
        ({"output": {"a": {"$nothing": 1}}}, "$nothing"),
        ({"output": {"a": {"$rank": {}}}}, "sortBy"),
        ({"output": {"a": {"$sum": 1, "window": {"documents": [-1, 0]}}}}, "sortBy"),
        ({"sortBy": {"a": 1}, "output": {"a": {"$sum": 1, "window": {"documents": [1, 0]}}}}, "above"),
        ({"sortBy": {"a": 1}, "output": {"a": {"$sum": 1, "window": {"documents": [0]}}}}, "two bounds"),
        ({"sortBy": {"a": 1}, "output": {"a": {"$sum": 1, "window": {"documents": [0.5, 1]}}}}, "bound"),
        (
            {"sortBy": {"a": 1}, "output": {"a": {"$sum": 1, "window": {"documents": [0, 1], "range": [0, 1]}}}},
            "window",
        ),
        ({"sortBy": {"a": -1}, "output": {"a": {"$sum": 1, "window": {"range": [0, 1]}}}}, "ascending"),
        ({"sortBy": {"a": 1}, "output": {"a": {"$sum": 1, "window": {"range": [0, 1], "unit": "eon"}}}}, "unit"),
        ({"sortBy": {"a": 1}, "output": {"a": {"$shift": {"output": "$a", "by": 0.5}}}}, "$shift"),
        ({"sortBy": {"a": 1}, "output": {"a": {"$sum": 1}, "a.b": {"$sum": 1}}}, "overlap"),
    ],
)
def test_wrong_windows_are_refused(spec, words):
    with pytest.raises(QuerySyntaxError) as caught:
        run(spec, [])
    assert words in str(caught.value)


@pytest.mark.parametrize("window", [{"range": [-1, 0]}, {"range": [-1, 0], "unit": "day"}])
def test_ranges_need_fitting_values(window):
    with pytest.raises(QueryError):
        values({"$sum": 1, "window": window}, [{"a": "text"}], ("a", 1), None)


def test_gathered_arrays_are_bounded():
    documents = [{"_id": n} for n in range(5000)]
    with pytest.raises(LimitError, match="gather"):
        values({"$push": "$_id", "window": {"documents": ["unbounded", "current"]}}, documents, ("_id", 1), None)


@given(st.lists(st.integers(-5, 5), max_size=12), st.integers(-3, 3), st.integers(0, 3))
def test_document_windows_agree_with_slices(numbers, low, width):
    documents = [{"_id": n, "v": v} for n, v in enumerate(numbers)]
    output = {"$sum": "$v", "window": {"documents": [low, low + width]}}
    expected = [sum(numbers[max(at + low, 0) : max(at + low + width + 1, 0)]) for at in range(len(numbers))]
    assert values(output, documents, ("_id", 1), None) == expected


@given(st.lists(st.integers(-5, 5), max_size=12), st.integers(-3, 3), st.integers(0, 3))
def test_range_windows_agree_with_a_scan(numbers, low, width):
    documents = [{"v": v} for v in numbers]
    output = {"$count": {}, "window": {"range": [low, low + width]}}
    ordered = sorted(numbers)
    expected = [sum(1 for other in ordered if v + low <= other <= v + low + width) for v in ordered]
    assert values(output, documents, ("v", 1), None) == expected
