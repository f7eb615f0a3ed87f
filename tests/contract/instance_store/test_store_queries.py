"""A query by index gives exactly what the matcher gives document by document, whatever the indexes and the data."""

import itertools
from datetime import datetime, timedelta

import pytest
from bson import Decimal128, Int64, ObjectId, Regex
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sib.errors import QueryTimeoutError
from sib.query.budget import Budget
from sib.query.matcher import compile_filter
from sib.query.sorting import sort_documents

DAY = datetime(2026, 1, 1)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**53, 2**53 + 1, Int64(2**62), -(2**60) - 1]),
    st.sampled_from([0.5, -0.0, 1.0, 2.5, float("inf"), 1e300]),
    st.sampled_from([Decimal128("0.1"), Decimal128("1"), Decimal128("1E+400")]),
    st.sampled_from(["", "a", "ab", "b", "a\0b", "é", "x" * 300, "x" * 300 + "y"]),
    st.sampled_from([DAY, DAY + timedelta(days=1)]),
    st.sampled_from([ObjectId("0" * 24), ObjectId("f" * 24)]),
    st.sampled_from([b"", b"\x00\xff"]),
)
VALUES = st.one_of(
    SCALARS,
    st.lists(st.one_of(SCALARS, st.lists(SCALARS, max_size=2)), max_size=3),
    st.dictionaries(st.sampled_from(["x", "y"]), SCALARS, max_size=2),
    st.lists(st.dictionaries(st.sampled_from(["x", "y"]), SCALARS, max_size=2), max_size=3),
)
DOCUMENTS = st.lists(st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES, max_size=3), max_size=12)
COMPARISONS = st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), SCALARS, min_size=1, max_size=2)
CONDITIONS = st.one_of(
    VALUES,
    COMPARISONS,
    st.builds(lambda value: {"$eq": value}, VALUES),
    st.builds(lambda value: {"$ne": value}, SCALARS),
    st.builds(lambda values: {"$in": values}, st.lists(VALUES, max_size=3)),
    st.builds(lambda values: {"$all": values}, st.lists(SCALARS, min_size=1, max_size=2)),
    st.builds(lambda condition: {"$elemMatch": condition}, COMPARISONS),
    st.builds(lambda value: {"$elemMatch": {"x": value}}, SCALARS),
    st.builds(lambda condition: {"$not": condition}, COMPARISONS),
    st.sampled_from([{"$exists": True}, {"$exists": False}, {"$size": 1}, {"$type": "string"}, {"$regex": "^a"}]),
    st.sampled_from([Regex("^x+y?"), {"$regex": "^ab?"}]),
)
PATHS = st.sampled_from(["a", "b", "c", "a.x", "a.y", "b.0", "b.x"])
SIMPLE = st.dictionaries(PATHS, CONDITIONS, max_size=3)
FILTERS = st.one_of(
    SIMPLE,
    st.builds(lambda clauses: {"$or": clauses}, st.lists(SIMPLE, min_size=1, max_size=3)),
    st.builds(lambda clauses: {"$and": clauses}, st.lists(SIMPLE, min_size=1, max_size=2)),
    st.builds(lambda clauses, more: {"$or": clauses, **more}, st.lists(SIMPLE, min_size=1, max_size=2), SIMPLE),
)
INDEXES = [
    ("a", {}),
    ([("b", -1)], {"sparse": True}),
    ([("a", 1), ("b", -1)], {}),
    ([("c", 1), ("a", 1), ("b", 1)], {"sparse": True}),
    ("a.x", {}),
    ("b.0", {}),
]


def plain(documents):
    return [{name: value for name, value in document.items() if name != "_id"} for document in documents]


NUMBERS = itertools.count(1)
RELATIONAL = ("sqlite", "mariadb", "postgresql", "oracle")


def fresh(database):
    """A new collection: what an index has seen (arrays, long strings) changes how it is used."""
    collection = database[f"Sensor{next(NUMBERS)}"]
    for keys, options in INDEXES:
        collection.create_index(keys, **options)
    return collection


@pytest.mark.adapters(*RELATIONAL)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(documents=DOCUMENTS, filter_spec=FILTERS, sort=st.lists(st.tuples(PATHS, st.sampled_from([1, -1])), max_size=2))
def test_indexes_change_no_answer(database, documents, filter_spec, sort):
    indexed = fresh(database)
    indexed.insert_many(documents)
    stored = list(indexed.find())
    matches = compile_filter(filter_spec)
    expected = [document for document in stored if matches(document)]

    assert list(indexed.find(filter_spec)) == expected
    assert indexed.count_documents(filter_spec) == len(expected)
    if sort:
        order = list({path: (path, direction) for path, direction in sort}.values())
        ordered = sort_documents(expected, order)
        assert plain(indexed.find(filter_spec).sort(order)) == plain(ordered)
        limited = list(indexed.find(filter_spec).sort(order).limit(4))
        assert len(limited) == min(4, len(expected))
        assert sort_documents(limited, order) == limited


@pytest.mark.adapters(*RELATIONAL)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=30)
@given(documents=DOCUMENTS, replacements=DOCUMENTS, filter_spec=SIMPLE)
def test_indexes_follow_updates_and_deletes(database, documents, replacements, filter_spec):
    indexed = fresh(database)
    ids = indexed.insert_many(documents).inserted_ids
    for id_, replacement in zip(ids, replacements, strict=False):
        indexed.replace_one({"_id": id_}, {name: value for name, value in replacement.items() if name != "_id"})
    indexed.delete_many({"_id": {"$in": ids[::3]}})
    matches = compile_filter(filter_spec)

    assert list(indexed.find(filter_spec)) == [document for document in indexed.find() if matches(document)]


@pytest.mark.adapters(*RELATIONAL)
@pytest.mark.parametrize(
    ("filter_spec", "step"),
    [
        ({"a": 1}, "index a_1"),
        ({"a": {"$gt": 1}}, "range of the index a_1"),
        ({"_id": 5}, "1 _id"),
        ({"$or": [{"a": 1}, {"_id": 5}]}, "any of"),
        ({"a": 1, "z": 2}, "index a_1"),
        ({"z": 1}, "read all"),
        ({"a": {"$ne": 1}}, "read all"),
        ({"a": {"$regex": "^ab"}}, "range of the index a_1"),
        ({"a": {"$in": [1, Regex("^b")]}}, "read all"),
        ({"s": None}, "read all"),
        ({"s": "x"}, "index s_1"),
    ],
)
def test_explain_says_which_index_is_used(collection, filter_spec, step):
    collection.create_index("a")
    collection.create_index("s", sparse=True)
    assert step in collection.find(filter_spec).explain()[0]


@pytest.mark.adapters(*RELATIONAL)
def test_the_newest_of_many_are_read_in_the_order_of_an_index(collection):
    collection.create_index("n")
    collection.insert_many([{"n": number % 97} for number in range(1000)])

    cursor = collection.find().sort("n", -1).limit(25)

    assert "in its order" in cursor.explain()[0]
    assert [document["n"] for document in cursor] == [96] * 10 + [95] * 10 + [94] * 5


@pytest.mark.adapters(*RELATIONAL)
def test_a_compound_index_is_read_backwards_when_both_directions_turn(collection):
    collection.create_index([("a", 1), ("b", -1)])
    collection.insert_many([{"a": number % 3, "b": number} for number in range(9)])

    cursor = collection.find().sort([("a", -1), ("b", 1)]).limit(4)

    assert "in its order" in cursor.explain()[0]
    assert [(document["a"], document["b"]) for document in cursor] == [(2, 2), (2, 5), (2, 8), (1, 1)]


def test_two_bounds_on_an_array_may_be_met_by_different_elements(collection):
    collection.create_index("v")
    collection.insert_many([{"v": [1, 9]}, {"v": 5}, {"v": 1}])

    assert collection.count_documents({"v": {"$gt": 4, "$lt": 6}}) == 2
    assert collection.count_documents({"v": {"$elemMatch": {"$gt": 4, "$lt": 6}}}) == 0


def test_an_instance_with_very_many_keys_is_still_found(collection):
    collection.create_index("v")
    collection.insert_many([{"v": list(range(3000))}, {"v": 2999}, {"v": 1}])

    assert collection.count_documents({"v": 2999}) == 2
    assert collection.count_documents({"v": {"$gte": 2998, "$lt": 3000}}) == 2


@pytest.mark.adapters(*RELATIONAL)
def test_an_index_on_present_documents_is_filled_and_dropped(collection, monkeypatch):
    monkeypatch.setattr("storage.bdtr.relational.BUILD_DOCUMENTS", 10)
    collection.insert_many([{"n": number} for number in range(35)])

    assert collection.create_index("n") == "n_1"
    assert collection.create_index("n") == "n_1"
    assert collection.find_one({"n": 34})["n"] == 34
    assert collection.index_information() == {"_id_": {"key": [("_id", 1)]}, "n_1": {"key": [("n", 1)]}}
    collection.drop_index("n_1")
    assert "read all" in collection.find({"n": 34}).explain()[0]
    assert collection.count_documents({"n": 34}) == 1


def test_declaring_indexes_drops_those_that_are_no_longer_declared(store):
    from storage.bdtr.model import IndexSpec

    old, new = IndexSpec((("a", 1),)), IndexSpec((("b", 1),), unique=True)
    store.ensure_collection("S", [old])
    store.ensure_collection("S", [new])
    store.ensure_collection("S", [new])

    assert store.indexes("S") == [new]


@pytest.mark.adapters(*RELATIONAL)
def test_a_query_stops_at_its_time_limit(collection):
    collection.insert_many([{"n": number} for number in range(500)])
    ticks = iter(range(10_000))
    budget = Budget(2, lambda: next(ticks))

    with pytest.raises(QueryTimeoutError):
        list(collection.database.store.find(collection.name, {"z": 1}, budget=budget))


def test_a_cursor_that_is_not_read_to_its_end_holds_nothing_up(database, collection):
    collection.insert_many([{"n": number} for number in range(2000)])
    cursor = collection.find()
    next(cursor)

    collection.insert_one({"n": -1})
    database.store.checkpoint()

    assert collection.count_documents({"n": -1}) == 1
    assert database.store.stats()["collections"]["Sensor"]["documents"] == 2001


@pytest.mark.adapters(*RELATIONAL)
def test_ids_bound_a_query_by_their_time(store):
    import bson

    from storage.bdtr.model import context_head

    head = context_head({"user": "u"})
    for second in range(4):
        with store.begin() as transaction:
            transaction.append(
                "S", [bson.encode({"n": second})], [{"n": second}], [head], (1_700_000_000 + second) * 1000
            )
    low = ObjectId((1_700_000_002).to_bytes(4, "big") + bytes(8))

    assert [document["n"] for document in store.find("S", {"_id": {"$gt": low}})] == [2, 3]
    assert [document["n"] for document in store.find("S", {"_id": {"$lt": low}})] == [0, 1]
    assert "narrow by the time in _id" in store.explain("S", {"_id": {"$gt": low}})
    assert [document["n"] for document in store.find("S", sort={"_id": -1}, limit=2)] == [3, 2]


@pytest.mark.parametrize("options", [{}, {"sparse": True}], ids=["index", "sparse index"])
def test_distinct_by_index_gives_what_it_gives_without(collection, options):
    values = ["b", "a", 3, 3.0, 2.5, True, datetime(2026, 1, 1), "b"]
    collection.insert_many([*({"v": value} for value in values), {"w": 1}, {"v": None}])
    expected = collection.distinct("v")
    collection.create_index("v", **options)
    collection.insert_many([{"v": "hot"}, {"v": "a"}])

    found = collection.distinct("v")

    assert len(found) == len(expected) + 1
    assert all(value in found for value in [*expected, "hot"])


def test_distinct_of_arrays_is_not_read_from_an_index(collection):
    collection.create_index("v")
    collection.insert_many([{"v": [1, 2]}, {"v": [2, [3]]}])

    assert collection.distinct("v") == [1, 2, [3]]
