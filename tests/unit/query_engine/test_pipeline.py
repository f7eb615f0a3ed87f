"""Aggregation pipelines: each row is (stages, result)."""

# ruff: noqa: E501 - a row of a table stays on its line

from datetime import datetime

import pytest
from bson import Decimal128, Int64
from hypothesis import given
from hypothesis import strategies as st

from sib.errors import LimitError, OntologyNotFoundError, QueryError, QuerySyntaxError, QueryTimeoutError, SibError
from sib.query.budget import Budget
from sib.query.matcher import compile_filter
from sib.query.pipeline import run_pipeline, split_leading_match

NOW = datetime(2026, 3, 4, 5, 6, 7, 89_000)
SALES = [
    {"_id": 1, "item": "abc", "price": 10, "quantity": 2, "date": datetime(2014, 3, 1), "tags": ["a", "b"]},
    {"_id": 2, "item": "jkl", "price": 20, "quantity": 1, "date": datetime(2014, 3, 1), "tags": []},
    {"_id": 3, "item": "xyz", "price": 5, "quantity": 10, "date": datetime(2014, 3, 15), "tags": None},
    {"_id": 4, "item": "xyz", "price": 5, "quantity": 20, "date": datetime(2014, 4, 4), "tags": ["b"]},
    {"_id": 5, "item": "abc", "price": 10, "quantity": 10, "date": datetime(2014, 4, 4)},
]
STOCK = [
    {"_id": 1, "sku": "abc", "instock": 120},
    {"_id": 2, "sku": "jkl", "instock": 80},
    {"_id": 3, "sku": None, "instock": 1},
    {"_id": 4, "instock": 2},
    {"_id": 5, "sku": ["xyz", "q"], "instock": 60},
]
PEOPLE = [
    {"_id": 1, "name": "Dev"},
    {"_id": 2, "name": "Eliot", "boss": "Dev"},
    {"_id": 3, "name": "Ron", "boss": "Eliot"},
    {"_id": 4, "name": "Andrew", "boss": "Eliot"},
    {"_id": 5, "name": "Ring", "boss": "Gnir"},
    {"_id": 6, "name": "Gnir", "boss": "Ring"},
]
COLLECTIONS = {"sales": SALES, "stock": STOCK, "people": PEOPLE}


def collection(name):
    if name not in COLLECTIONS:
        raise OntologyNotFoundError(f"no ontology {name}")
    return iter(COLLECTIONS[name])


def aggregate(stages, documents=SALES, **options):
    return list(run_pipeline(iter(documents), stages, collection=collection, now=NOW, **options))


def ids(stages, documents=SALES):
    return [document["_id"] for document in aggregate(stages, documents)]


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([], [1, 2, 3, 4, 5]),
        ([{"$match": {"price": {"$gte": 10}}}], [1, 2, 5]),
        ([{"$match": {"$expr": {"$gt": ["$quantity", "$price"]}}}], [3, 4]),
        ([{"$sort": {"price": -1, "_id": -1}}], [2, 5, 1, 4, 3]),
        ([{"$sort": {"price": 1}}, {"$limit": 2}], [3, 4]),
        ([{"$sort": {"price": 1}}, {"$skip": 1}, {"$limit": 2}], [4, 1]),
        ([{"$sort": {"price": 1}}, {"$skip": 3}, {"$skip": 1}], [2]),
        ([{"$limit": 3}, {"$skip": 1}], [2, 3]),
        ([{"$skip": 10}], []),
        ([{"$sort": {"tags": 1}}], [2, 3, 5, 1, 4]),
    ],
)
def test_filtering_and_order(stages, expected):
    assert ids(stages) == expected


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([{"$count": "n"}], [{"n": 5}]),
        ([{"$match": {"_id": 99}}, {"$count": "n"}], []),
        # Reshaping
        ([{"$limit": 1}, {"$project": {"item": 1}}], [{"_id": 1, "item": "abc"}]),
        ([{"$limit": 1}, {"$project": {"_id": 0, "total": {"$multiply": ["$price", "$quantity"]}}}], [{"total": 20}]),
        ([{"$limit": 1}, {"$project": {"tags": 0, "date": 0, "item": 0}}], [{"_id": 1, "price": 10, "quantity": 2}]),
        ([{"$limit": 1}, {"$project": {"_id": 0, "first": {"$slice": ["$tags", 1]}}}], [{"first": ["a"]}]),
        ([{"$limit": 1}, {"$project": {"_id": 0, "a": {"b": "$item", "c": "$price"}}}], [{"a": {"b": "abc", "c": 10}}]),
        ([{"$limit": 1}, {"$project": {"_id": "$item"}}], [{"_id": "abc"}]),
        ([{"$limit": 1}, {"$project": {"_id": 0, "x": "$nothing", "item": 1}}], [{"item": "abc"}]),
        (
            [{"$limit": 1}, {"$project": {"_id": 0, "item": 1}}, {"$addFields": {"a.b": 1, "t": "$$NOW", "item": "$$REMOVE"}}],
            [{"a": {"b": 1}, "t": NOW}],
        ),
        ([{"$limit": 1}, {"$project": {"item": 1}}, {"$set": {"item": {"$toUpper": "$item"}}}], [{"_id": 1, "item": "ABC"}]),
        ([{"$limit": 1}, {"$unset": ["tags", "date", "price", "quantity"]}], [{"_id": 1, "item": "abc"}]),
        ([{"$limit": 1}, {"$project": {"o.i": "$item"}}, {"$unset": "o.i"}], [{"_id": 1, "o": {}}]),
        ([{"$limit": 1}, {"$replaceRoot": {"newRoot": {"x": "$item"}}}], [{"x": "abc"}]),
        ([{"$limit": 1}, {"$replaceWith": {"$mergeObjects": [{"y": 1}, {"x": "$item"}]}}], [{"y": 1, "x": "abc"}]),
        # Unwinding
        (
            [{"$project": {"tags": 1}}, {"$unwind": "$tags"}],
            [{"_id": 1, "tags": "a"}, {"_id": 1, "tags": "b"}, {"_id": 4, "tags": "b"}],
        ),
        (
            [{"$project": {"tags": 1}}, {"$unwind": {"path": "$tags", "preserveNullAndEmptyArrays": True, "includeArrayIndex": "i"}}],
            [
                {"_id": 1, "tags": "a", "i": 0},
                {"_id": 1, "tags": "b", "i": 1},
                {"_id": 2, "i": None},
                {"_id": 3, "tags": None, "i": None},
                {"_id": 4, "tags": "b", "i": 0},
                {"_id": 5, "i": None},
            ],
        ),
        ([{"$limit": 1}, {"$project": {"price": 1}}, {"$unwind": {"path": "$price", "includeArrayIndex": "i"}}], [{"_id": 1, "price": 10, "i": None}]),
        ([{"$limit": 1}, {"$project": {"_id": 0, "a.b": "$tags"}}, {"$unwind": "$a.b"}], [{"a": {"b": "a"}}, {"a": {"b": "b"}}]),
        # Grouping
        (
            [{"$group": {"_id": "$item", "total": {"$sum": {"$multiply": ["$price", "$quantity"]}}, "n": {"$sum": 1}}}, {"$sort": {"_id": 1}}],
            [{"_id": "abc", "total": 120, "n": 2}, {"_id": "jkl", "total": 20, "n": 1}, {"_id": "xyz", "total": 150, "n": 2}],
        ),
        (
            [{"$group": {"_id": None, "avg": {"$avg": "$price"}, "min": {"$min": "$quantity"}, "max": {"$max": "$quantity"}, "n": {"$count": {}}}}],
            [{"_id": None, "avg": 10.0, "min": 1, "max": 20, "n": 5}],
        ),
        (
            [{"$group": {"_id": {"i": "$item", "m": {"$month": "$date"}}}}, {"$sort": {"_id.i": 1, "_id.m": 1}}],
            [{"_id": {"i": "abc", "m": 3}}, {"_id": {"i": "abc", "m": 4}}, {"_id": {"i": "jkl", "m": 3}}, {"_id": {"i": "xyz", "m": 3}}, {"_id": {"i": "xyz", "m": 4}}],
        ),
        (
            [{"$group": {"_id": None, "first": {"$first": "$item"}, "last": {"$last": "$item"}, "items": {"$push": "$item"}, "set": {"$addToSet": "$price"}}}],
            [{"_id": None, "first": "abc", "last": "abc", "items": ["abc", "jkl", "xyz", "xyz", "abc"], "set": [10, 20, 5]}],
        ),
        ([{"$group": {"_id": "$nothing", "n": {"$sum": 1}}}], [{"_id": None, "n": 5}]),
        ([{"$match": {"_id": 99}}, {"$group": {"_id": None, "n": {"$sum": 1}}}], []),
        ([{"$group": {"_id": None, "t": {"$push": "$tags"}}}], [{"_id": None, "t": [["a", "b"], [], None, ["b"]]}]),
        ([{"$group": {"_id": None, "s": {"$sum": "$item"}, "a": {"$avg": "$item"}, "m": {"$max": "$nothing"}}}], [{"_id": None, "s": 0, "a": None, "m": None}]),
        ([{"$group": {"_id": None, "m": {"$mergeObjects": {"x": "$item"}}}}], [{"_id": None, "m": {"x": "abc"}}]),
        ([{"$group": {"_id": None, "sd": {"$stdDevPop": "$price"}, "ss": {"$stdDevSamp": "$nothing"}}}], [{"_id": None, "sd": 30**0.5, "ss": None}]),
        (
            [{"$group": {"_id": None, "f": {"$firstN": {"input": "$_id", "n": 2}}, "l": {"$lastN": {"input": "$_id", "n": 2}}, "x": {"$maxN": {"input": "$price", "n": 2}}}}],
            [{"_id": None, "f": [1, 2], "l": [4, 5], "x": [20, 10]}],
        ),
        (
            [{"$group": {"_id": None, "t": {"$top": {"sortBy": {"price": -1}, "output": "$item"}}, "b": {"$bottomN": {"n": 2, "sortBy": {"_id": 1}, "output": "$_id"}}}}],
            [{"_id": None, "t": "jkl", "b": [4, 5]}],
        ),
        ([{"$sortByCount": "$item"}, {"$limit": 2}], [{"_id": "abc", "count": 2}, {"_id": "xyz", "count": 2}]),
        (
            [{"$bucket": {"groupBy": "$price", "boundaries": [0, 10, 20], "default": "more", "output": {"n": {"$sum": 1}, "ids": {"$push": "$_id"}}}}],
            [{"_id": 0, "n": 2, "ids": [3, 4]}, {"_id": 10, "n": 2, "ids": [1, 5]}, {"_id": "more", "n": 1, "ids": [2]}],
        ),
        (
            [{"$bucketAuto": {"groupBy": "$price", "buckets": 2}}],
            [{"_id": {"min": 5, "max": 20}, "count": 4}, {"_id": {"min": 20, "max": 20}, "count": 1}],
        ),
        (
            [{"$facet": {"n": [{"$count": "c"}], "cheap": [{"$match": {"price": 5}}, {"$project": {"_id": 1}}]}}],
            [{"n": [{"c": 5}], "cheap": [{"_id": 3}, {"_id": 4}]}],
        ),
        # Other ontologies
        (
            [{"$limit": 3}, {"$project": {"item": 1}}, {"$lookup": {"from": "stock", "localField": "item", "foreignField": "sku", "as": "s"}}, {"$project": {"s.instock": 1, "_id": 0}}],
            [{"s": [{"instock": 120}]}, {"s": [{"instock": 80}]}, {"s": [{"instock": 60}]}],
        ),
        (
            [{"$limit": 1}, {"$project": {"_id": 0, "x": {"$literal": 1}}}, {"$lookup": {"from": "stock", "localField": "none", "foreignField": "sku", "as": "s"}}],
            [{"x": 1, "s": [STOCK[2], STOCK[3]]}],
        ),
        (
            [{"$limit": 1}, {"$project": {"_id": 0, "l": ["abc", "q"]}}, {"$lookup": {"from": "stock", "localField": "l", "foreignField": "sku", "as": "s.t"}}],
            [{"l": ["abc", "q"], "s": {"t": [STOCK[0], STOCK[4]]}}],
        ),
        (
            [
                {"$limit": 2},
                {"$lookup": {
                    "from": "stock",
                    "let": {"wanted": "$item", "least": 100},
                    "pipeline": [
                        {"$match": {"$expr": {"$and": [{"$eq": ["$sku", "$$wanted"]}, {"$gt": ["$instock", "$$least"]}]}}},
                        {"$project": {"_id": 0, "n": {"$add": ["$instock", "$$least"]}}},
                    ],
                    "as": "s",
                }},
                {"$project": {"s": 1}},
            ],
            [{"_id": 1, "s": [{"n": 220}]}, {"_id": 2, "s": []}],
        ),
        (
            [{"$limit": 1}, {"$lookup": {"from": "stock", "localField": "item", "foreignField": "sku", "pipeline": [{"$project": {"instock": 1, "_id": 0}}], "as": "s"}}, {"$project": {"s": 1}}],
            [{"_id": 1, "s": [{"instock": 120}]}],
        ),
        ([{"$limit": 1}, {"$project": {"_id": 1}}, {"$unionWith": {"coll": "stock", "pipeline": [{"$match": {"instock": 80}}]}}], [{"_id": 1}, STOCK[1]]),
        ([{"$unionWith": "stock"}, {"$count": "n"}], [{"n": 10}]),
        ([{"$limit": 1}, {"$project": {"tags": 1}}, {"$redact": {"$cond": [{"$eq": ["$_id", 1]}, "$$KEEP", "$$PRUNE"]}}], [{"_id": 1, "tags": ["a", "b"]}]),
    ],
)  # fmt: skip
def test_stages(stages, expected):
    before = repr(COLLECTIONS)
    assert aggregate(stages) == expected
    assert repr(COLLECTIONS) == before, "a document was changed in place"


def reports_of(row):
    return {(report["name"], int(report["depth"])) for report in row["chain"]}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("Ron", {}, {("Eliot", 0), ("Dev", 1)}),
        ("Dev", {}, set()),
        ("Ring", {}, {("Gnir", 0), ("Ring", 1)}),  # a cycle ends
        ("Ron", {"maxDepth": 0}, {("Eliot", 0)}),
        ("Ron", {"restrictSearchWithMatch": {"name": {"$ne": "Dev"}}}, {("Eliot", 0)}),
    ],
)
def test_graph_lookup(name, options, expected):
    stage = {
        "from": "people",
        "startWith": "$boss",
        "connectFromField": "boss",
        "connectToField": "name",
        "as": "chain",
        "depthField": "depth",
    }
    rows = aggregate([{"$match": {"name": name}}, {"$graphLookup": {**stage, **options}}], PEOPLE)
    assert reports_of(rows[0]) == expected


def test_group_keys_and_sums_keep_number_types():
    documents = [{"k": 1, "v": Int64(1)}, {"k": 1.0, "v": 2}, {"k": True, "v": 1.5}, {"k": "1", "v": Decimal128("1")}]
    rows = aggregate([{"$group": {"_id": "$k", "v": {"$sum": "$v"}}}], documents)
    assert [(row["_id"], row["v"]) for row in rows] == [(1, Int64(3)), (True, 1.5), ("1", Decimal128("1"))]
    assert type(rows[0]["v"]) is Int64


def test_sample_takes_as_many_as_there_are():
    assert sorted(ids([{"$sample": {"size": 99}}])) == [1, 2, 3, 4, 5]
    assert len(set(ids([{"$sample": {"size": 3}}]))) == 3


GEO = [{"_id": n, "loc": {"type": "Point", "coordinates": [n, 0]}, "kind": n % 2} for n in (3, 1, 2, 0)] + [{"_id": 9}]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"maxDistance": 120_000}, [0, 1]),
        ({"minDistance": 120_000}, [2, 3]),
        ({"query": {"kind": 1}}, [1, 3]),
        ({"near": [0, 0], "spherical": True, "maxDistance": 0.02}, [0, 1]),
        ({"near": [0, 0], "maxDistance": 1.5}, [0, 1]),
    ],
)
def test_geo_near(options, expected):
    stage = {"near": {"type": "Point", "coordinates": [0, 0]}, "distanceField": "dist.m", "key": "loc", **options}
    rows = aggregate([{"$geoNear": stage}], GEO)
    assert [row["_id"] for row in rows] == expected


def test_geo_near_tells_the_distance():
    stage = {
        "near": {"type": "Point", "coordinates": [0, 0]},
        "distanceField": "d",
        "distanceMultiplier": 0.001,
        "includeLocs": "at",
    }
    rows = aggregate([{"$geoNear": stage}, {"$limit": 2}], GEO, geo_path="loc")
    assert rows[1]["d"] == pytest.approx(111.32, abs=0.01)
    assert rows[1]["at"] == {"type": "Point", "coordinates": [1, 0]}
    with pytest.raises(QuerySyntaxError, match="key"):
        aggregate([{"$geoNear": stage}], GEO)


# Writing


def written(stages, **options):
    calls = []
    assert aggregate(stages, write=lambda output, documents: calls.append((output, list(documents))), **options) == []
    return calls[0]


def test_out_and_merge_go_through_the_callback():
    output, documents = written([{"$limit": 1}, {"$project": {"item": 1}}, {"$out": "target"}])
    assert (output.kind, output.target, documents) == ("out", "target", [{"_id": 1, "item": "abc"}])
    output, _ = written(
        [{"$merge": {"into": "target", "on": ["a", "b"], "whenMatched": "replace", "whenNotMatched": "discard"}}]
    )
    assert (output.kind, output.target, output.on, output.when_not_matched) == (
        "merge",
        "target",
        ("a", "b"),
        "discard",
    )


@pytest.mark.parametrize(
    ("matched", "expected"),
    [
        ("merge", {"_id": 1, "a": 9, "b": 2, "c": 3}),
        ("replace", {"_id": 1, "b": 2, "c": 3}),
        ("keepExisting", {"_id": 1, "a": 9, "b": 1}),
        ([{"$set": {"b": {"$add": ["$b", "$$new.b"]}}}], {"_id": 1, "a": 9, "b": 3}),
    ],
)
def test_merge_combines(matched, expected):
    output, _ = written([{"$merge": {"into": "target", "whenMatched": matched}}])
    assert output.combine({"_id": 1, "a": 9, "b": 1}, {"_id": 7, "b": 2, "c": 3}) == expected


@pytest.mark.parametrize("stage", [{"$out": "x"}, {"$merge": "x"}])
def test_writing_is_refused_without_a_callback(stage):
    with pytest.raises(QuerySyntaxError, match="only reads"):
        aggregate([stage])


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ({"$match": {}}, "array"),
        ([{"$nothing": 1}], "$nothing"),
        ([{"$match": {}, "$limit": 1}], "one field"),
        (["$match"], "one field"),
        ([{"$match": {"$where": "1"}}], "$where"),
        ([{"$match": {"a": {"$near": [0, 0]}}}], "$geoNear"),
        ([{"$limit": 0}], "$limit"),
        ([{"$limit": "x"}], "$limit"),
        ([{"$skip": -1}], "$skip"),
        ([{"$sort": {"a": 5}}], "direction"),
        ([{"$project": {}}], "$project"),
        ([{"$project": {"a": 1, "b": 0}}], "not both"),
        ([{"$addFields": {"a": {"$nothing": 1}}}], "$nothing"),
        ([{"$unwind": "tags"}], "$unwind"),
        ([{"$group": {"n": {"$sum": 1}}}], "_id"),
        ([{"$group": {"_id": 1, "n": 5}}], "accumulator"),
        ([{"$group": {"_id": 1, "n": {"$nothing": 1}}}], "$nothing"),
        ([{"$group": {"_id": 1, "n": {"$accumulator": {}}}}], "$accumulator"),
        ([{"$group": {"_id": 1, "a.b": {"$sum": 1}}}], "plain name"),
        ([{"$count": "a.b"}], "$count"),
        ([{"$bucket": {"groupBy": "$a", "boundaries": [2, 1]}}], "ascending"),
        ([{"$bucket": {"groupBy": "$a", "boundaries": [1, "x"]}}], "one type"),
        ([{"$bucket": {"groupBy": "$a", "boundaries": [1, 3], "default": 2}}], "default"),
        ([{"$facet": {"a": [{"$out": "x"}]}}], "$out"),
        ([{"$facet": {"a": [{"$facet": {"b": []}}]}}], "$facet"),
        ([{"$limit": 1}, {"$geoNear": {"near": [0, 0], "distanceField": "d", "key": "a"}}], "first"),
        ([{"$out": "x"}, {"$limit": 1}], "last"),
        ([{"$lookup": {"from": "stock", "as": "x"}}], "localField"),
        ([{"$lookup": {"from": "stock", "localField": "a", "as": "x"}}], "together"),
        ([{"$lookup": {"from": "stock", "pipeline": [{"$merge": "x"}], "as": "x"}}], "$merge"),
        ([{"$graphLookup": {"from": "people"}}], "startWith"),
        ([{"$changeStream": {}}], "$changeStream"),
        ([{"$limit": 1}] * 500, "at most"),
    ],
)
def test_wrong_pipelines_are_refused_at_once(stages, words):
    with pytest.raises(QuerySyntaxError) as caught:
        run_pipeline(iter(SALES), stages, collection=collection, write=lambda *_: None)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "stages",
    [
        [{"$replaceRoot": {"newRoot": "$item"}}],
        [{"$bucket": {"groupBy": "$price", "boundaries": [0, 10]}}],
        [{"$project": {"x": {"$divide": ["$price", 0]}}}],
    ],
)
def test_wrong_values_are_query_errors(stages):
    with pytest.raises(QueryError):
        aggregate(stages)


def test_an_unknown_ontology_is_the_error_of_the_caller():
    with pytest.raises(OntologyNotFoundError):
        aggregate([{"$lookup": {"from": "nothing", "localField": "a", "foreignField": "b", "as": "c"}}])


@pytest.mark.parametrize(
    "stages",
    [
        [{"$sort": {"n": -1}}],
        [{"$group": {"_id": "$n"}}],
        [{"$group": {"_id": None, "all": {"$push": "$$ROOT"}}}],
        [{"$facet": {"a": []}}],
        [{"$bucketAuto": {"groupBy": "$n", "buckets": 2}}],
        [{"$setWindowFields": {"output": {"s": {"$sum": "$n"}}}}],
        [{"$sample": {"size": 90}}],
    ],
)
def test_blocking_stages_are_bounded(stages):
    documents = ({"n": n} for n in range(100))
    with pytest.raises(LimitError, match="memory"):
        aggregate(stages, documents, budget=Budget(max_held_documents=50))


def test_a_pipeline_inside_gives_back_what_it_held():
    inner = [{"$sort": {"instock": -1}}, {"$limit": 4}, {"$group": {"_id": "$sku"}}]
    stages = [{"$lookup": {"from": "stock", "pipeline": inner, "as": "s"}}, {"$count": "n"}]
    documents = ({"_id": n} for n in range(1000))
    assert aggregate(stages, documents, budget=Budget(max_held_documents=20)) == [{"n": 1000}]


def test_streaming_stages_hold_nothing():
    documents = ({"_id": n} for n in range(100))
    stages = [{"$match": {"_id": {"$gte": 10}}}, {"$addFields": {"x": 1}}, {"$sort": {"_id": -1}}, {"$limit": 1}]
    assert aggregate(stages, documents, budget=Budget(max_held_documents=10)) == [{"_id": 99, "x": 1}]
    page = [{"$sort": {"_id": 1}}, {"$skip": 5}, {"$limit": 1}]
    assert aggregate(page, [{"_id": n} for n in range(100)], budget=Budget(max_held_documents=10)) == [{"_id": 5}]


@pytest.mark.parametrize(
    "stages", [[{"$match": {"a": 1}}], [{"$count": "n"}], [{"$skip": 10**9}], [{"$group": {"_id": None}}]]
)
def test_endless_input_is_stopped_by_time(stages):
    ticks = iter(range(10**9))
    endless = iter(lambda: {"_id": 1}, None)
    with pytest.raises(QueryTimeoutError):
        aggregate(stages, endless, budget=Budget(5, lambda: next(ticks)))


def test_growing_documents_are_bounded():
    double = {"$addFields": {"a": {"x": "$a", "y": "$a"}}}
    with pytest.raises(LimitError):
        aggregate([double] * 40, [{"a": 1}])


def test_results_are_lazy():
    taken = []

    def documents():
        for n in range(100):
            taken.append(n)
            yield {"_id": n}

    list(run_pipeline(documents(), [{"$limit": 3}], collection=collection))
    assert taken == [0, 1, 2]


def test_split_leading_match():
    assert split_leading_match([{"$match": {"a": 1}}, {"$limit": 1}]) == ({"a": 1}, [{"$limit": 1}])
    assert split_leading_match([{"$limit": 1}]) == ({}, [{"$limit": 1}])


VALUES = (
    st.none() | st.integers(-3, 3) | st.sampled_from(["a", "b", True, 1.0]) | st.lists(st.integers(0, 2), max_size=2)
)
DOCUMENTS = st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3), max_size=8)


@given(DOCUMENTS, st.sampled_from("abc"), VALUES)
def test_match_agrees_with_the_filter(documents, field, value):
    matches = compile_filter({field: value})
    assert aggregate([{"$match": {field: value}}], documents) == [
        document for document in documents if matches(document)
    ]


@given(DOCUMENTS, st.sampled_from("abc"))
def test_groups_partition_the_documents(documents, field):
    rows = aggregate([{"$group": {"_id": f"${field}", "n": {"$sum": 1}, "all": {"$push": "$$ROOT"}}}], documents)
    assert sum(row["n"] for row in rows) == len(documents)
    assert sorted(map(repr, (document for row in rows for document in row["all"]))) == sorted(map(repr, documents))


@given(DOCUMENTS, st.sampled_from("abc"))
def test_unwind_gives_one_document_per_element(documents, field):
    rows = aggregate([{"$unwind": f"${field}"}], documents)
    values = [document.get(field) for document in documents]
    assert len(rows) == sum(len(value) if isinstance(value, list) else value is not None for value in values)


STAGE_ARGUMENTS = st.recursive(
    st.none() | st.integers(-2, 5) | st.sampled_from(["a", "$a", "$b", "$$ROOT", "stock", "x"]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(
        st.sampled_from(["a", "_id", "from", "as", "path", "output", "groupBy", "buckets", "boundaries", "size", "newRoot", "coll",
                         "localField", "foreignField", "pipeline", "let", "sortBy", "$sum", "$push", "$match", "$add", "window"]),
        inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
STAGE_NAMES = ["$match", "$group", "$project", "$addFields", "$unset", "$unwind", "$sort", "$limit", "$skip", "$count", "$lookup", "$graphLookup",
               "$facet", "$bucket", "$bucketAuto", "$sortByCount", "$replaceRoot", "$replaceWith", "$sample", "$geoNear",
               "$setWindowFields", "$unionWith", "$merge", "$out", "$redact"]  # fmt: skip


@given(
    st.lists(st.dictionaries(st.sampled_from(STAGE_NAMES), STAGE_ARGUMENTS, min_size=1, max_size=1), max_size=3),
    DOCUMENTS,
)
def test_random_pipelines_raise_nothing_but_refusals(stages, documents):
    try:
        aggregate(stages, documents)
    except SibError:
        pass
