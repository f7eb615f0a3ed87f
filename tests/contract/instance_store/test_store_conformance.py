"""One table of questions with the answers that MongoDB's documentation gives; every backend gives the same.

Source: https://www.mongodb.com/docs/manual/reference/mql/ (operators, aggregation stages) and
https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId, Regex

from sib.errors import SibError

DAY = datetime(2026, 1, 1)
OID = ObjectId("0123456789abcdef01234567")

SENSORS = [
    {"_id": 1, "name": "a", "v": 5, "tags": ["x", "y"], "at": DAY, "place": {"city": "Madrid", "floor": 1}},
    {"_id": 2, "name": "b", "v": 7.5, "tags": ["y"], "at": datetime(2026, 1, 2), "place": {"city": "León", "floor": 2}},
    {"_id": 3, "name": "c", "v": None, "tags": [], "place": {"city": "Madrid"}},
    {"_id": 4, "name": "d", "tags": "x", "v": "7", "readings": [{"k": "t", "n": 1}, {"k": "h", "n": 9}]},
    {"_id": 5, "name": "e", "v": [1, 9], "readings": [{"k": "t", "n": 6}], "at": datetime(2026, 1, 3, 12, 30)},
    {"_id": 6, "name": "f", "v": Int64(2**60), "on": True, "readings": []},
    {"_id": 7, "name": "g", "v": Decimal128("2.50"), "on": False, "ref": OID},
]


@dataclass(frozen=True)
class Case:
    name: str
    ask: Any
    answer: Any
    documents: list = field(default_factory=lambda: SENSORS)
    indexes: tuple = ()

    def __str__(self):
        return self.name


def ids(name, filter_, *expected, **options):
    return Case(name, filter_, list(expected), **options)


FINDS = [
    ids("equality", {"v": 5}, 1),
    ids("equality over number types", {"v": 2.5}, 7),
    ids("a number is no string", {"v": "7"}, 4),
    ids("null matches missing", {"at": None}, 3, 4, 6, 7),
    ids("null matches null and missing only", {"v": None}, 3),
    ids("equality of an element", {"tags": "x"}, 1, 4),
    ids("equality of a whole array", {"tags": ["x", "y"]}, 1),
    ids("the order in an array counts", {"tags": ["y", "x"]}),
    ids("an empty array", {"tags": []}, 3),
    ids("a nested field", {"place.city": "Madrid"}, 1, 3),
    ids("a whole object is equal field by field in order", {"place": {"city": "Madrid", "floor": 1}}, 1),
    ids("the order in an object counts", {"place": {"floor": 1, "city": "Madrid"}}),
    ids("a field of objects in an array", {"readings.k": "h"}, 4),
    ids("an element by its position", {"readings.0.n": 6}, 5),
    ids("gt brackets by type", {"v": {"$gt": 5}}, 2, 5, 6),
    ids("gte and lte, each met by some element", {"v": {"$gte": 5, "$lte": 7.5}}, 1, 2, 5),
    ids("lt of strings", {"name": {"$lt": "c"}}, 1, 2),
    ids("dates", {"at": {"$gte": datetime(2026, 1, 2)}}, 2, 5),
    ids("ObjectIds", {"ref": OID}, 7),
    ids("booleans are no numbers", {"on": 1}),
    ids("a boolean", {"on": False}, 7),
    ids("ne counts missing", {"on": {"$ne": True}}, 1, 2, 3, 4, 5, 7),
    ids("in", {"v": {"$in": [5, None, "7"]}}, 1, 3, 4),
    ids("in with a regular expression", {"name": {"$in": [Regex("^[ab]$"), "g"]}}, 1, 2, 7),
    ids("in nothing", {"v": {"$in": []}}),
    ids("nin", {"tags": {"$nin": ["x", "y"]}}, 3, 5, 6, 7),
    ids("exists", {"on": {"$exists": True}}, 6, 7),
    ids("exists counts null", {"v": {"$exists": True}}, 1, 2, 3, 4, 5, 6, 7),
    ids("does not exist", {"readings": {"$exists": False}}, 1, 2, 3, 7),
    ids("type by name", {"v": {"$type": "string"}}, 4),
    ids("type number", {"v": {"$type": "number"}}, 1, 2, 5, 6, 7),
    ids("type of an array field looks at its elements", {"tags": {"$type": "string"}}, 1, 2, 4),
    ids("type array", {"tags": {"$type": "array"}}, 1, 2, 3),
    ids("several types", {"v": {"$type": ["null", "decimal"]}}, 3, 7),
    ids("size", {"tags": {"$size": 1}}, 2),
    ids("all", {"tags": {"$all": ["x", "y"]}}, 1),
    ids("all of one matches a scalar", {"tags": {"$all": ["x"]}}, 1, 4),
    ids("elemMatch of objects", {"readings": {"$elemMatch": {"k": "t", "n": {"$gt": 5}}}}, 5),
    ids("conditions may be met by different elements", {"readings.k": "t", "readings.n": {"$gt": 5}}, 4, 5),
    ids("elemMatch of scalars", {"v": {"$elemMatch": {"$gt": 1, "$lte": 9}}}, 5),
    ids("regular expression", {"name": {"$regex": "^[b-d]"}}, 2, 3, 4),
    ids("regular expression without case", {"place.city": {"$regex": "madrid", "$options": "i"}}, 1, 3),
    ids("mod", {"v": {"$mod": [5, 0]}}, 1),
    ids("not", {"v": {"$not": {"$gt": 5}}}, 1, 3, 4, 7),
    ids("or", {"$or": [{"v": 5}, {"name": "g"}]}, 1, 7),
    ids("and of one field", {"$and": [{"v": {"$gt": 1}}, {"v": {"$lt": 6}}]}, 1, 5, 7),
    ids("nor", {"$nor": [{"v": {"$exists": True}}, {"name": "a"}]}),
    ids("expr compares two fields", {"$expr": {"$gt": ["$place.floor", 1]}}, 2),
    ids("jsonSchema", {"$jsonSchema": {"required": ["ref"]}}, 7),
    ids("bits", {"_id": {"$bitsAllSet": 5}}, 5, 7),
    ids("everything", {}, 1, 2, 3, 4, 5, 6, 7),
]


@pytest.fixture
def filled(collection, case):
    for index in case.indexes:
        collection.create_index(index)
    if case.documents:
        collection.insert_many([dict(document) for document in case.documents])
    return collection


def same(found, expected):
    """Equal, and of the same types inside (1 is not True, 1 is not 1.0)."""
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and list(found) == list(expected)
            and all(same(found[k], expected[k]) for k in found)
        )
    if isinstance(expected, list):
        return isinstance(found, list) and len(found) == len(expected) and all(map(same, found, expected))
    number = (int, float)
    if isinstance(expected, number) and not isinstance(expected, bool):
        return isinstance(found, number) and not isinstance(found, bool) and found == pytest.approx(expected)
    return type(found) is type(expected) and found == expected


@pytest.fixture(scope="module")
def sensors(server, tmp_path_factory):
    """The documents of the finds, with and without indexes; read only."""
    import sofia2.bdtr

    url = f"sqlite:{tmp_path_factory.mktemp('conformance')}/bdtr.db" if server is None else server.place()
    with sofia2.bdtr.open(url) as database:
        database["plain"].insert_many([dict(document) for document in SENSORS])
        for index in ("v", "tags", "name", "place.city", "at", "readings.k", [("name", 1), ("v", -1)]):
            database["indexed"].create_index(index)
        database["indexed"].insert_many([dict(document) for document in SENSORS])
        yield database


@pytest.mark.parametrize("name", ["plain", "indexed"])
@pytest.mark.parametrize("case", FINDS, ids=str)
def test_find(sensors, case, name):
    collection = sensors[name]

    assert [document["_id"] for document in collection.find(case.ask).sort("_id", 1)] == case.answer
    assert collection.count_documents(case.ask) == len(case.answer)


ORDER = [
    {"_id": at, "v": value}
    for at, value in enumerate([True, "b", 3, None, DAY, [2, 8], {"a": 1}, OID, 2.5, "a", [], b"\x01", Int64(3)])
]
SORTS = [
    Case("types in BSON's order", [("v", 1), ("_id", 1)], [10, 3, 5, 8, 2, 12, 9, 1, 6, 11, 7, 0, 4], ORDER),
    Case(
        "downwards an array counts by its greatest",
        [("v", -1), ("_id", 1)],
        [4, 0, 7, 11, 6, 1, 9, 5, 2, 12, 8, 3, 10],
        ORDER,
    ),
    Case("two fields", [("place.city", 1), ("_id", -1)], [7, 6, 5, 4, 2, 3, 1]),
]


@pytest.mark.parametrize("case", SORTS, ids=str)
def test_sort(filled, case):
    assert [document["_id"] for document in filled.find().sort(case.ask)] == case.answer
    assert [document["_id"] for document in filled.find().sort(case.ask).skip(1).limit(3)] == case.answer[1:4]


PROJECTIONS = [
    Case("fields", {"name": 1}, {"_id": 4, "name": "d"}),
    Case("without _id", {"name": 1, "_id": 0}, {"name": "d"}),
    Case("leaving out", {"readings": 0, "v": 0}, {"_id": 4, "name": "d", "tags": "x"}),
    Case("inside an array", {"readings.n": 1}, {"_id": 4, "readings": [{"n": 1}, {"n": 9}]}),
    Case(
        "slice",
        {"readings": {"$slice": -1}, "name": 0, "v": 0},
        {"_id": 4, "tags": "x", "readings": [{"k": "h", "n": 9}]},
    ),
    Case("elemMatch", {"readings": {"$elemMatch": {"n": {"$gt": 5}}}}, {"_id": 4, "readings": [{"k": "h", "n": 9}]}),
    Case("computed", {"n": {"$size": "$readings"}}, {"_id": 4, "n": 2}),
]


@pytest.mark.parametrize("case", PROJECTIONS, ids=str)
def test_projection(filled, case):
    assert same(filled.find_one({"_id": 4}, case.ask), case.answer)


ONE = [{"_id": 1, "n": 5, "s": "a", "list": [1, 5, 9], "sub": {"x": 1}, "rows": [{"k": 1, "n": 1}, {"k": 2, "n": 2}]}]


def updated(name, update, filter_=None, **answer):
    return Case(name, (filter_ or {}, update), answer, ONE)


GONE = object()
UPDATES = [
    updated("set", {"$set": {"n": 6, "new.deep": 1}}, n=6, new={"deep": 1}),
    updated("unset", {"$unset": {"n": ""}}, n=GONE),
    updated("inc", {"$inc": {"n": 2, "made": 3}}, n=7, made=3),
    updated("inc keeps doubles", {"$inc": {"n": 0.5}}, n=5.5),
    updated("mul", {"$mul": {"n": 3, "made": 3}}, n=15, made=0),
    updated("min", {"$min": {"n": 4}}, n=4),
    updated("max that changes nothing", {"$max": {"n": 4}}, n=5),
    updated("rename", {"$rename": {"s": "t"}}, s=GONE, t="a"),
    updated("push", {"$push": {"list": 7}}, list=[1, 5, 9, 7]),
    updated(
        "push many sorted and cut", {"$push": {"list": {"$each": [7, 3], "$sort": -1, "$slice": 3}}}, list=[9, 7, 5]
    ),
    updated("push at a position", {"$push": {"list": {"$each": [0], "$position": 0}}}, list=[0, 1, 5, 9]),
    updated("addToSet", {"$addToSet": {"list": {"$each": [5, 6]}}}, list=[1, 5, 9, 6]),
    updated("pop", {"$pop": {"list": -1}}, list=[5, 9]),
    updated("pull by condition", {"$pull": {"list": {"$gte": 5}}}, list=[1]),
    updated("pull objects", {"$pull": {"rows": {"k": 2}}}, rows=[{"k": 1, "n": 1}]),
    updated("pullAll", {"$pullAll": {"list": [1, 9]}}, list=[5]),
    updated("positional", {"$set": {"list.$": 6}}, {"list": 5}, list=[1, 6, 9]),
    updated(
        "positional in objects", {"$set": {"rows.$.n": 7}}, {"rows.k": 2}, rows=[{"k": 1, "n": 1}, {"k": 2, "n": 7}]
    ),
    updated("all elements", {"$inc": {"rows.$[].n": 1}}, rows=[{"k": 1, "n": 2}, {"k": 2, "n": 3}]),
    updated("bit", {"$bit": {"n": {"or": 2}}}, n=7),
    updated("an element by its index", {"$set": {"list.4": 7}}, list=[1, 5, 9, None, 7]),
    updated("a pipeline", [{"$set": {"n": {"$add": ["$n", "$sub.x"]}}}, {"$unset": "s"}], n=6, s=GONE),
]


@pytest.mark.parametrize("case", UPDATES, ids=str)
def test_update(filled, case):
    filter_, update = case.ask

    result = filled.update_one(filter_, update)

    after = filled.find_one({"_id": 1})
    assert result.matched_count == 1
    expected = {**ONE[0], **case.answer}
    assert after.keys() == {name for name, value in expected.items() if value is not GONE}
    assert all(same(value, expected[name]) for name, value in after.items())
    assert result.modified_count == (after != ONE[0])


BAD_UPDATES = [
    Case("inc of a string", {"$inc": {"s": 1}}, None, ONE),
    Case("push to no array", {"$push": {"n": 1}}, None, ONE),
    Case("two operators on one path", {"$set": {"n": 1}, "$inc": {"n": 1}}, None, ONE),
    Case("an unknown operator", {"$frobnicate": {"n": 1}}, None, ONE),
    Case("_id", {"$set": {"_id": 2}}, None, ONE),
    Case("positional without a match", {"$set": {"list.$": 1}}, None, ONE),
]


@pytest.mark.parametrize("case", BAD_UPDATES, ids=str)
def test_bad_update(filled, case):
    with pytest.raises(SibError):
        filled.update_one({"_id": 1}, case.ask)
    assert filled.find_one() == ONE[0]


SALES = [
    {"_id": 1, "item": "a", "n": 2, "price": 10, "at": datetime(2026, 1, 1, 8), "tags": ["x", "y"]},
    {"_id": 2, "item": "b", "n": 1, "price": 20, "at": datetime(2026, 1, 1, 9), "tags": ["x"]},
    {"_id": 3, "item": "a", "n": 5, "price": 5.5, "at": datetime(2026, 2, 1, 9), "tags": []},
    {"_id": 4, "item": "c", "n": 3, "at": datetime(2026, 2, 3, 23, 59)},
]


def piped(name, *stages_and_answer):
    *stages, answer = stages_and_answer
    return Case(name, list(stages), answer, SALES)


def row(_id, **fields):
    return {"_id": _id, **fields}


PIPELINES = [
    piped(
        "match and project",
        {"$match": {"n": {"$gt": 2}}},
        {"$project": {"item": 1, "_id": 0}},
        [{"item": "a"}, {"item": "c"}],
    ),
    piped(
        "group and sort",
        {"$group": {"_id": "$item", "n": {"$sum": "$n"}, "mean": {"$avg": "$price"}}},
        {"$sort": {"_id": 1}},
        [row("a", n=7, mean=7.75), row("b", n=1, mean=20), row("c", n=3, mean=None)],
    ),
    piped(
        "accumulators",
        {"$sort": {"_id": 1}},
        {
            "$group": {
                "_id": None,
                "first": {"$first": "$item"},
                "last": {"$last": "$n"},
                "all": {"$push": "$n"},
                "top": {"$max": "$price"},
            }
        },
        [row(None, first="a", last=3, all=[2, 1, 5, 3], top=20)],
    ),
    piped(
        "addToSet",
        {"$group": {"_id": None, "items": {"$addToSet": "$item"}}},
        {"$project": {"n": {"$size": "$items"}}},
        [row(None, n=3)],
    ),
    piped(
        "unwind",
        {"$unwind": "$tags"},
        {"$project": {"tags": 1}},
        [row(1, tags="x"), row(1, tags="y"), row(2, tags="x")],
    ),
    piped(
        "unwind keeps what is empty",
        {"$unwind": {"path": "$tags", "preserveNullAndEmptyArrays": True, "includeArrayIndex": "at"}},
        {"$match": {"_id": {"$gte": 3}}},
        {"$project": {"tags": 1, "at": 1}},
        [row(3, at=None), row(4, at=None)],
    ),
    piped(
        "sort, skip and limit",
        {"$sort": {"n": -1}},
        {"$skip": 1},
        {"$limit": 2},
        {"$project": {"n": 1}},
        [row(4, n=3), row(1, n=2)],
    ),
    piped("count", {"$match": {"item": "a"}}, {"$count": "n"}, [{"n": 2}]),
    piped(
        "set",
        {"$set": {"total": {"$multiply": ["$n", "$price"]}}},
        {"$match": {"_id": 1}},
        {"$project": {"total": 1}},
        [row(1, total=20)],
    ),
    piped("replaceRoot", {"$limit": 1}, {"$replaceRoot": {"newRoot": {"k": "$item"}}}, [{"k": "a"}]),
    piped("unset", {"$limit": 1}, {"$unset": ["at", "tags", "price"]}, [row(1, item="a", n=2)]),
    piped("sortByCount", {"$sortByCount": "$item"}, {"$limit": 1}, [row("a", count=2)]),
    piped(
        "bucket",
        {"$bucket": {"groupBy": "$n", "boundaries": [0, 2, 4], "default": "more", "output": {"n": {"$sum": 1}}}},
        {"$sort": {"n": 1, "_id": 1}},
        [row(0, n=1), row("more", n=1), row(2, n=2)],
    ),
    piped(
        "facet",
        {"$facet": {"few": [{"$match": {"n": {"$lt": 2}}}, {"$project": {"n": 1}}], "all": [{"$count": "n"}]}},
        [{"few": [row(2, n=1)], "all": [{"n": 4}]}],
    ),
    piped(
        "lookup of itself",
        {"$match": {"_id": 2}},
        {"$lookup": {"from": "Sensor", "localField": "n", "foreignField": "_id", "as": "found"}},
        {"$project": {"found._id": 1}},
        [row(2, found=[{"_id": 1}])],
    ),
    piped(
        "unionWith",
        {"$match": {"_id": 1}},
        {"$unionWith": {"coll": "Sensor", "pipeline": [{"$match": {"_id": 2}}]}},
        {"$project": {"n": 1}},
        [row(1, n=2), row(2, n=1)],
    ),
    piped(
        "dates",
        {"$match": {"_id": 4}},
        {
            "$project": {
                "y": {"$year": "$at"},
                "m": {"$month": "$at"},
                "w": {"$dayOfWeek": "$at"},
                "s": {"$dateToString": {"date": "$at", "format": "%Y-%m-%d %H"}},
            }
        },
        [row(4, y=2026, m=2, w=3, s="2026-02-03 23")],
    ),
    piped(
        "dateTrunc groups by hour",
        {"$group": {"_id": {"$dateTrunc": {"date": "$at", "unit": "day"}}, "n": {"$sum": 1}}},
        {"$sort": {"_id": 1}},
        [row(datetime(2026, 1, 1), n=2), row(datetime(2026, 2, 1), n=1), row(datetime(2026, 2, 3), n=1)],
    ),
    piped(
        "cond, ifNull and switch",
        {"$project": {"p": {"$ifNull": ["$price", 0]}, "k": {"$cond": [{"$gt": ["$n", 2]}, "many", "few"]}}},
        {"$sort": {"_id": -1}},
        {"$limit": 2},
        [row(4, p=0, k="many"), row(3, p=5.5, k="many")],
    ),
    piped(
        "arrays",
        {"$match": {"_id": 1}},
        {
            "$project": {
                "m": {"$map": {"input": "$tags", "as": "t", "in": {"$concat": ["$$t", "!"]}}},
                "f": {"$filter": {"input": [1, 2, 3], "cond": {"$gt": ["$$this", 1]}}},
                "r": {"$reduce": {"input": [1, 2, 3], "initialValue": 0, "in": {"$add": ["$$value", "$$this"]}}},
                "e": {"$arrayElemAt": ["$tags", -1]},
            }
        },
        [row(1, m=["x!", "y!"], f=[2, 3], r=6, e="y")],
    ),
    piped(
        "strings",
        {"$match": {"_id": 1}},
        {
            "$project": {
                "u": {"$toUpper": "$item"},
                "s": {"$substrCP": ["sensor", 1, 3]},
                "p": {"$split": ["a,b", ","]},
                "n": {"$toString": "$n"},
            }
        },
        [row(1, u="A", s="ens", p=["a", "b"], n="2")],
    ),
    piped(
        "arithmetic",
        {"$match": {"_id": 3}},
        {
            "$project": {
                "d": {"$divide": ["$n", 2]},
                "m": {"$mod": ["$n", 2]},
                "r": {"$round": ["$price", 0]},
                "f": {"$floor": "$price"},
                "a": {"$abs": -3},
            }
        },
        [row(3, d=2.5, m=1, r=6, f=5, a=3)],
    ),
    piped(
        "windows",
        {
            "$setWindowFields": {
                "sortBy": {"_id": 1},
                "output": {"sum": {"$sum": "$n", "window": {"documents": ["unbounded", "current"]}}},
            }
        },
        {"$project": {"sum": 1}},
        [row(1, sum=2), row(2, sum=3), row(3, sum=8), row(4, sum=11)],
    ),
    piped("an empty result", {"$match": {"item": "z"}}, {"$group": {"_id": None, "n": {"$sum": 1}}}, []),
]


@pytest.mark.parametrize("case", PIPELINES, ids=str)
def test_aggregate(filled, case):
    found = list(filled.aggregate(case.ask))
    assert same([dict(sorted(r.items())) for r in found], [dict(sorted(r.items())) for r in case.answer]), found


PLACES = [
    {"_id": "Madrid", "at": {"type": "Point", "coordinates": [-3.70, 40.42]}},
    {"_id": "Toledo", "at": {"type": "Point", "coordinates": [-4.02, 39.86]}},
    {"_id": "León", "at": {"type": "Point", "coordinates": [-5.57, 42.60]}},
    {"_id": "Sydney", "at": {"type": "Point", "coordinates": [151.21, -33.87]}},
    {"_id": "nowhere"},
]
CENTRE = {"type": "Point", "coordinates": [-3.70, 40.42]}
SQUARE = {"type": "Polygon", "coordinates": [[[-5, 39], [-3, 39], [-3, 41], [-5, 41], [-5, 39]]]}


def placed(name, condition, *expected):
    return Case(name, {"at": condition}, list(expected), PLACES, ([("at", "2dsphere")],))


GEO = [
    placed("near, nearest first", {"$near": {"$geometry": CENTRE}}, "Madrid", "Toledo", "León", "Sydney"),
    placed("near within a distance", {"$near": {"$geometry": CENTRE, "$maxDistance": 100_000}}, "Madrid", "Toledo"),
    placed(
        "near beyond a distance",
        {"$near": {"$geometry": CENTRE, "$minDistance": 10, "$maxDistance": 400_000}},
        "Toledo",
        "León",
    ),
    placed("nearSphere", {"$nearSphere": {"$geometry": CENTRE, "$maxDistance": 100_000}}, "Madrid", "Toledo"),
    placed("within a polygon", {"$geoWithin": {"$geometry": SQUARE}}, "Madrid", "Toledo"),
    placed("within a circle", {"$geoWithin": {"$centerSphere": [[-3.70, 40.42], 100 / 6378.1]}}, "Madrid", "Toledo"),
    placed("within a box", {"$geoWithin": {"$box": [[-6, 42], [-5, 43]]}}, "León"),
    placed("intersects", {"$geoIntersects": {"$geometry": SQUARE}}, "Madrid", "Toledo"),
]


@pytest.mark.parametrize("case", GEO, ids=str)
def test_geo(filled, case):
    found = [document["_id"] for document in filled.find(case.ask)]
    is_ordered = any(operator in case.ask["at"] for operator in ("$near", "$nearSphere"))
    assert (found if is_ordered else sorted(found)) == (case.answer if is_ordered else sorted(case.answer))


def test_geo_near_stage(collection):
    collection.create_index([("at", "2dsphere")])
    collection.insert_many([dict(place) for place in PLACES])
    stage = {"near": CENTRE, "distanceField": "far", "spherical": True, "maxDistance": 400_000}

    found = list(collection.aggregate([{"$geoNear": stage}, {"$project": {"far": 1}}]))

    assert [row["_id"] for row in found] == ["Madrid", "Toledo", "León"]
    assert found[1]["far"] == pytest.approx(68_000, rel=0.02)


DISTINCTS = [
    Case("of scalars", ("item", {}), ["a", "b", "c"], SALES),
    Case("of arrays", ("tags", {}), ["x", "y"], SALES),
    Case("with a condition", ("n", {"item": "a"}), [2, 5], SALES),
    Case("of nothing", ("nothing", {}), [], SALES),
]


@pytest.mark.parametrize("case", DISTINCTS, ids=str)
def test_distinct(filled, case):
    assert sorted(filled.distinct(*case.ask)) == case.answer
