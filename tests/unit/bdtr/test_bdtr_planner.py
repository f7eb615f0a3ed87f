"""Plans: which keys, ranges and bounds a filter gives. That they find a superset is tested on stored documents."""

import re
from datetime import datetime

import pytest
from bson import ObjectId, Regex

from storage.bdtr.catalogue import BUILDING, FOREIGN_IDS, MULTIKEY, TIME_OFF, CollectionInfo, IndexInfo
from storage.bdtr.keys import date_key, key_of
from storage.bdtr.model import IndexSpec
from storage.bdtr.planner import IdLookup, KeyLookup, KeyRange, Union, plan_filter
from storage.bdtr.reader import split_pipeline


def collection(*specs, flags=0, index_flags=0):
    info = CollectionInfo(1, "S", flags)
    for slot, spec in enumerate(specs, 1):
        info.indexes[spec.name] = IndexInfo(1, slot, spec, index_flags)
    return info


A = IndexSpec((("a", 1),))
AB = IndexSpec((("a", 1), ("b", -1)))


def keys_of_range(access):
    return access.low, access.high


def test_equalities_are_lookups():
    (access,) = plan_filter({"a": {"$in": [2, 1, 1.0]}}, collection(A)).accesses
    assert isinstance(access, KeyLookup)
    assert access.keys == (key_of(1)[0], key_of(2)[0])


def test_two_bounds_are_one_range_unless_there_are_arrays():
    both = {"a": {"$gt": 1, "$lte": 5}}
    (access,) = plan_filter(both, collection(A)).accesses
    assert keys_of_range(access) == (key_of(1)[0], key_of(5)[0])

    apart = plan_filter(both, collection(A, index_flags=MULTIKEY)).accesses
    assert [keys_of_range(access) for access in apart] == [(key_of(1)[0], b"\x04"), (b"\x03", key_of(5)[0])]


def test_an_elem_match_is_met_by_one_element_so_its_bounds_are_one_range():
    (access,) = plan_filter({"a": {"$elemMatch": {"$gt": 1, "$lt": 5}}}, collection(A, index_flags=MULTIKEY)).accesses
    assert keys_of_range(access) == (key_of(1)[0], key_of(5)[0])


@pytest.mark.parametrize(
    ("condition", "prefix"),
    [
        ({"$regex": "^abc"}, b"\x04abc"),
        ({"$regex": "^abc*"}, b"\x04ab"),
        ({"$regex": "^ab.c"}, b"\x04ab"),
        (Regex("^ab"), b"\x04ab"),
        (re.compile("^ab"), b"\x04ab"),
    ],
)
def test_an_anchored_expression_is_a_range(condition, prefix):
    (access,) = plan_filter({"a": condition}, collection(A)).accesses
    assert isinstance(access, KeyRange)
    assert access.low == prefix


@pytest.mark.parametrize(
    "condition",
    [
        {"$regex": "abc"},
        {"$regex": "^ab|c"},
        {"$regex": "^ab", "$options": "i"},
        Regex("^ab", "i"),
        {"$regex": "^a*"},
        {"$ne": 1},
        {"$nin": [1]},
        {"$exists": True},
        {"$gt": None},
        {"$gt": [1]},
        {"$gt": float("nan")},
        {"$in": [1, Regex("x")]},
        {"$not": {"$gt": 1}},
    ],
)
def test_what_no_index_can_tell_is_read_without_one(condition):
    assert plan_filter({"a": condition}, collection(A)).accesses == []


def test_a_sparse_index_does_not_know_what_is_missing():
    sparse = collection(IndexSpec((("a", 1),), sparse=True))
    assert plan_filter({"a": None}, sparse).accesses == []
    assert len(plan_filter({"a": 1}, sparse).accesses) == 1


def test_an_index_that_is_being_built_is_not_used():
    assert plan_filter({"a": 1}, collection(A, index_flags=BUILDING)).accesses == []


def test_a_compound_index_takes_equalities_and_then_one_range():
    (only_first,) = plan_filter({"a": 1}, collection(AB)).accesses
    (with_range,) = plan_filter({"a": 1, "b": {"$gt": 2, "$lt": 9}}, collection(AB)).accesses
    (exact,) = plan_filter({"a": 1, "b": 5}, collection(AB)).accesses

    assert only_first.low < with_range.low < exact.low < exact.high < with_range.high < only_first.high
    assert plan_filter({"b": 1}, collection(AB)).accesses == []


def test_an_or_needs_an_access_for_every_branch():
    (access,) = plan_filter({"$or": [{"a": 1}, {"_id": 2}]}, collection(A)).accesses
    assert isinstance(access, Union)
    assert [type(part) for part in access.parts] == [KeyLookup, IdLookup]
    assert plan_filter({"$or": [{"a": 1}, {"z": 2}]}, collection(A)).accesses == []


def test_the_time_bounds_every_query_until_it_is_unreliable():
    moment = datetime(2026, 1, 1)
    filter_spec = {"$and": [{"contextData.timestamp": {"$gte": moment}}, {"contextData.timestamp": {"$lt": moment}}]}
    plan = plan_filter(filter_spec, collection())

    assert plan.time_ms == (1767225600000, 1767225600000)
    assert date_key(plan.time_ms[0]) == key_of(moment)[0]
    assert plan_filter(filter_spec, collection(flags=TIME_OFF)).time_ms is None


def test_generated_ids_bound_a_query_by_their_seconds_unless_there_are_others():
    id_ = ObjectId((1000).to_bytes(4, "big") + b"\xff" * 8)
    assert plan_filter({"_id": {"$gt": id_}}, collection()).id_numbers == (1000 << 24, 2**62)
    assert plan_filter({"_id": {"$lte": id_}}, collection()).id_numbers == (0, (1001 << 24) - 1)
    assert plan_filter({"_id": {"$gt": id_}}, collection(flags=FOREIGN_IDS)).id_numbers is None


def test_a_pipeline_begins_with_what_a_find_can_do():
    pipeline = [{"$match": {"a": 1}}, {"$match": {"b": 2}}, {"$sort": {"c": -1}}, {"$limit": 5}, {"$count": "n"}]

    assert split_pipeline(pipeline) == ({"$and": [{"a": 1}, {"b": 2}]}, [("c", -1)], 5, [{"$count": "n"}])
    assert split_pipeline([{"$sort": {"c": 1}}, {"$count": "n"}]) == (
        {},
        [],
        None,
        [{"$sort": {"c": 1}}, {"$count": "n"}],
    )
    assert split_pipeline([{"$limit": 3}]) == ({}, [], 3, [])
    assert split_pipeline([{"$limit": -3}])[3] == [{"$limit": -3}]
