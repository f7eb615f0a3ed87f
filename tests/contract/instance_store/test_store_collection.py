"""The synchronous collection of ``sofia2.bdtr``: pymongo's names, arguments and results."""

import subprocess
import sys
from datetime import datetime, timedelta

import pytest
from bson import Binary, Decimal128, Int64, ObjectId
from pymongo import DeleteMany, DeleteOne, InsertOne, ReplaceOne, UpdateMany, UpdateOne

from sib.errors import ConfigurationError, DuplicateKeyError, QueryError, QuerySyntaxError, StoreError
from sofia2.bdtr import AFTER, BulkWriteError
from storage.open import open_bdtr


def test_insert_one_gives_the_document_its_id(collection):
    document = {"v": 1}

    result = collection.insert_one(document)

    assert isinstance(result.inserted_id, ObjectId)
    assert document["_id"] == result.inserted_id
    assert list(collection.find_one(result.inserted_id)) == ["_id", "v"]


@pytest.mark.parametrize(
    "id_", [1, 1.5, "text", None, True, datetime(2026, 1, 1), {"a": 1, "b": 2}, ObjectId(), b"\x01", "x" * 1000]
)
def test_an_id_may_be_any_value(collection, id_):
    collection.insert_one({"_id": id_, "v": 1})

    assert collection.find_one({"_id": id_}) == {"_id": id_, "v": 1}
    assert collection.find_one({"_id": "another"}) is None
    assert collection.delete_one({"_id": id_}).deleted_count == 1
    assert collection.find_one({"_id": id_}) is None


@pytest.mark.parametrize("same", [1, 1.0, Int64(1), Decimal128("1")])
def test_one_number_is_one_key(collection, same):
    collection.insert_one({"_id": 1})

    with pytest.raises(DuplicateKeyError, match="Duplicate"):
        collection.insert_one({"_id": same})


def test_true_is_not_1(collection):
    collection.insert_many([{"_id": 1}, {"_id": True}])
    assert collection.find_one({"_id": True})["_id"] is True


def test_long_ids_that_share_their_key_are_told_apart(collection):
    collection.insert_many([{"_id": "x" * 400 + "a"}, {"_id": "x" * 400 + "b"}])

    assert collection.find_one({"_id": "x" * 400 + "b"})["_id"].endswith("b")
    with pytest.raises(DuplicateKeyError):
        collection.insert_one({"_id": "x" * 400 + "a"})


def test_types_come_back_as_they_went_in(collection):
    document = {
        "_id": 1,
        "int": 5,
        "long": Int64(5),
        "double": 5.0,
        "decimal": Decimal128("5.10"),
        "date": datetime(2026, 1, 1, 12, 0, 0, 5000),
        "binary": Binary(b"\x00\x01", 5),
        "nested": {"z": 1, "a": [None, True, {"k": "v"}]},
    }
    collection.insert_one(document)

    found = collection.find_one(1)

    assert found == document
    assert [type(value) for value in found.values()] == [type(value) for value in document.values()]
    assert list(found["nested"]) == ["z", "a"]


def test_ordered_inserts_stop_at_the_first_duplicate_and_unordered_ones_do_not(collection):
    with pytest.raises(DuplicateKeyError):
        collection.insert_many([{"_id": 1}, {"_id": 1}, {"_id": 2}])
    assert [document["_id"] for document in collection.find()] == [1]

    with pytest.raises(DuplicateKeyError):
        collection.insert_many([{"_id": 1}, {"_id": 3}, {"_id": 3}, {"_id": 4}], ordered=False)
    assert [document["_id"] for document in collection.find()] == [1, 3, 4]


def test_find_takes_projection_sort_skip_and_limit(collection):
    collection.insert_many([{"_id": number, "v": number % 3, "w": "x"} for number in range(9)])

    cursor = collection.find({"v": {"$ne": 1}}, {"v": 1}).sort([("v", -1), ("_id", 1)]).skip(1).limit(3)

    assert list(cursor) == [{"_id": 5, "v": 2}, {"_id": 8, "v": 2}, {"_id": 0, "v": 0}]
    assert collection.find(sort=[("_id", -1)], limit=1).to_list() == [{"_id": 8, "v": 2, "w": "x"}]


def test_an_update_that_changes_nothing_has_modified_nothing(collection):
    collection.insert_one({"_id": 1, "v": 5})

    result = collection.update_one({"_id": 1}, {"$set": {"v": 5}})

    assert (result.matched_count, result.modified_count, result.upserted_id) == (1, 0, None)


def test_update_many_and_replace_one(collection):
    collection.insert_many([{"_id": number, "v": number} for number in range(4)])

    many = collection.update_many({"v": {"$gte": 2}}, {"$inc": {"v": 10}})
    one = collection.replace_one({"_id": 0}, {"new": True})

    assert (many.matched_count, many.modified_count, one.modified_count) == (2, 2, 1)
    assert list(collection.find()) == [
        {"_id": 0, "new": True},
        {"_id": 1, "v": 1},
        {"_id": 2, "v": 12},
        {"_id": 3, "v": 13},
    ]


def test_an_upsert_inserts_once(collection):
    first = collection.update_one({"k": "a"}, {"$set": {"v": 1}}, upsert=True)
    second = collection.update_one({"k": "a"}, {"$set": {"v": 2}}, upsert=True)
    third = collection.replace_one({"_id": "mine"}, {"v": 3}, upsert=True)

    assert (first.matched_count, second.upserted_id, third.upserted_id) == (0, None, "mine")
    assert collection.find_one({"k": "a"}) == {"_id": first.upserted_id, "k": "a", "v": 2}
    assert collection.count_documents({}) == 2


@pytest.mark.parametrize("update", [{"$set": {"_id": 2}}, {"$unset": {"_id": 1}}])
def test_an_id_never_changes(collection, update):
    collection.insert_one({"_id": 1})
    with pytest.raises(QueryError, match="_id"):
        collection.update_one({"_id": 1}, update)
    with pytest.raises(QueryError, match="_id"):
        collection.replace_one({"_id": 1}, {"_id": 2})


def test_updates_and_replacements_are_not_mixed_up(collection):
    with pytest.raises(QuerySyntaxError, match="replace_one"):
        collection.update_one({}, {"v": 1})
    with pytest.raises(QuerySyntaxError, match="update_one"):
        collection.replace_one({}, {"$set": {"v": 1}})


def test_the_positional_operator_and_array_filters(collection):
    collection.insert_one({"_id": 1, "v": [1, 5, 9]})

    collection.update_one({"v": 5}, {"$set": {"v.$": 6}})
    collection.update_one({}, {"$inc": {"v.$[high]": 100}}, array_filters=[{"high": {"$gt": 5}}])

    assert collection.find_one()["v"] == [1, 106, 109]


def test_a_failed_update_of_many_changes_none(collection):
    collection.insert_many([{"_id": 1, "v": 1}, {"_id": 2, "v": "text"}])

    with pytest.raises(QueryError):
        collection.update_many({}, {"$inc": {"v": 1}})

    assert [document["v"] for document in collection.find()] == [1, "text"]


def test_find_one_and_update_gives_before_or_after(collection):
    collection.insert_many([{"_id": number, "v": number} for number in range(3)])

    before = collection.find_one_and_update({}, {"$set": {"hit": True}}, sort=[("v", -1)])
    after = collection.find_one_and_update({"_id": 0}, {"$set": {"hit": True}}, {"hit": 1}, return_document=AFTER)
    made = collection.find_one_and_update({"_id": 9}, {"$set": {"v": 9}}, upsert=True, return_document=AFTER)

    assert before == {"_id": 2, "v": 2}
    assert after == {"_id": 0, "hit": True}
    assert made == {"_id": 9, "v": 9}
    assert collection.find_one_and_update({"_id": 99}, {"$set": {"v": 9}}) is None
    assert collection.find_one_and_delete({}, sort={"v": -1}) == {"_id": 9, "v": 9}
    assert collection.find_one_and_replace({"_id": 1}, {"w": 1}, return_document=AFTER) == {"_id": 1, "w": 1}


def test_deletes(collection):
    collection.insert_many([{"v": number} for number in range(5)])

    assert collection.delete_one({"v": {"$gt": 1}}).deleted_count == 1
    assert collection.delete_many({"v": {"$gt": 1}}).deleted_count == 2
    assert collection.delete_many({"v": 99}).deleted_count == 0
    assert [document["v"] for document in collection.find()] == [0, 1]


def test_bulk_write_counts_what_it_did(collection):
    result = collection.bulk_write(
        [
            InsertOne({"_id": 1, "v": 1}),
            InsertOne({"_id": 2, "v": 1}),
            UpdateOne({"_id": 1}, {"$inc": {"v": 1}}),
            UpdateMany({}, {"$set": {"w": 0}}),
            ReplaceOne({"_id": 7}, {"v": 7}, upsert=True),
            DeleteOne({"_id": 2}),
            DeleteMany({"v": 99}),
        ]
    )

    counts = (result.inserted_count, result.matched_count, result.modified_count, result.deleted_count)
    assert counts == (2, 3, 3, 1)
    assert result.upserted_ids == {4: 7}
    assert list(collection.find()) == [{"_id": 1, "v": 2, "w": 0}, {"_id": 7, "v": 7}]


@pytest.mark.parametrize(("ordered", "stored"), [(True, [1]), (False, [1, 2])])
def test_a_failed_operation_of_a_bulk_write(collection, ordered, stored):
    with pytest.raises(BulkWriteError, match="Duplicate") as caught:
        collection.bulk_write([InsertOne({"_id": 1}), InsertOne({"_id": 1}), InsertOne({"_id": 2})], ordered=ordered)

    assert list(caught.value.errors) == [1]
    assert caught.value.result.inserted_count == len(stored)
    assert [document["_id"] for document in collection.find()] == stored


def test_distinct_unrolls_arrays_and_skips_what_is_missing(collection):
    collection.insert_many([{"v": 1}, {"v": [2, 1.0]}, {"w": 1}, {"v": None}, {"v": [{"a": 1}]}])

    assert collection.distinct("v") == [1, 2, None, {"a": 1}]
    assert collection.distinct("v", {"v": {"$gt": 1}}) == [2, 1.0]


def test_pipelines_read_other_collections_and_write_into_them(database):
    database["a"].insert_many([{"_id": number, "k": number % 2} for number in range(4)])
    database["b"].insert_many([{"_id": 0, "name": "even"}, {"_id": 1, "name": "odd"}])

    joined = [{"$lookup": {"from": "b", "localField": "k", "foreignField": "_id", "as": "kind"}}, {"$limit": 2}]
    assert [row["kind"][0]["name"] for row in database["a"].aggregate(joined)] == ["even", "odd"]
    list(database["a"].aggregate([{"$match": {"k": 1}}, {"$out": "odd"}]))
    assert [document["_id"] for document in database["odd"].find()] == [1, 3]
    list(database["a"].aggregate([{"$set": {"seen": True}}, {"$merge": {"into": "odd", "whenNotMatched": "discard"}}]))
    assert list(database["odd"].find()) == [{"_id": 1, "k": 1, "seen": True}, {"_id": 3, "k": 1, "seen": True}]


def test_a_unique_index_refuses_inserts_updates_and_building(collection):
    collection.insert_many([{"_id": 1, "v": 1}, {"_id": 2, "v": 2}, {"_id": 3, "w": 1}])
    collection.create_index("v", unique=True)

    with pytest.raises(DuplicateKeyError, match="Duplicate"):
        collection.insert_one({"v": 1.0})
    with pytest.raises(DuplicateKeyError, match="Duplicate"):
        collection.insert_one({"w": 2})
    with pytest.raises(DuplicateKeyError):
        collection.update_one({"_id": 2}, {"$set": {"v": 1}})
    with pytest.raises(DuplicateKeyError):
        collection.create_index("nothing", unique=True)
    assert "nothing_1" not in collection.index_information()
    assert collection.update_one({"_id": 2}, {"$set": {"v": 2, "x": 1}}).modified_count == 1


def test_a_sparse_unique_index_lets_missing_ones_be(collection):
    collection.create_index("v", unique=True, sparse=True)
    collection.insert_many([{"w": 1}, {"w": 2}, {"v": 1}])

    with pytest.raises(DuplicateKeyError):
        collection.insert_one({"v": 1})
    assert collection.count_documents({"v": None}) == 2


def test_a_compound_unique_index_looks_at_all_its_fields(collection):
    collection.create_index([("a", 1), ("b", -1)], unique=True)
    collection.insert_many([{"a": 1, "b": 1}, {"a": 1, "b": 2}])

    with pytest.raises(DuplicateKeyError):
        collection.insert_one({"a": 1, "b": 2})


def test_a_ttl_index_lets_old_documents_go(database, collection, clock):
    start = datetime(1970, 1, 1) + timedelta(seconds=clock.now_s)
    collection.create_index("seen", expireAfterSeconds=60)
    collection.insert_many([{"_id": 1, "seen": start}, {"_id": 2, "seen": start + timedelta(seconds=30)}, {"_id": 3}])
    clock.now_s += 61

    assert [document["_id"] for document in collection.find()] == [2, 3]
    assert collection.index_information()["seen_1"]["expireAfterSeconds"] == 60


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("select count(*) from Sensor", 4),
        ("select count(*) as n from Sensor where Sensor.v > 1", [{"n": 2}]),
        ("SELECT Sensor.v FROM Sensor WHERE Sensor.unit='C' ORDER BY Sensor.v DESC LIMIT 1", [{"Sensor": {"v": 3}}]),
        (
            "select Sensor.unit as u, sum(Sensor.v) as s from Sensor group by Sensor.unit order by u",
            [{"u": "C", "s": 6}],
        ),
        ("select Sensor.v as v from Sensor where Sensor.at >= '2026-01-03T00:00:00Z'", [{"v": 2}, {"v": 3}]),
        ("update Sensor set Sensor.v = 9 where Sensor.v = 3", 1),
        ("delete from Sensor where Sensor.v < 2", 2),
        ("insert into Sensor(Sensor.v) values (7)", 1),
    ],
)
def test_sql(database, text, answer):
    sensor = database["Sensor"]
    sensor.insert_many([{"Sensor": {"v": at, "unit": "C", "at": datetime(2026, 1, 1 + at)}} for at in range(4)])

    rows = sensor.sql(text)

    assert ([{**row} for row in rows] if isinstance(rows, list) else rows) == answer


def test_a_copy_of_documents_keeps_their_ids_and_new_ids_avoid_them(database):
    database["a"].insert_many([{"v": number} for number in range(3)])
    database["b"].insert_many(list(database["a"].find()))
    database["a"].delete_many({})
    database["b"].insert_one({"v": 3})

    ids = database["b"].distinct("_id")
    assert len(ids) == 4
    assert all(database["b"].find_one(id_)["_id"] == id_ for id_ in ids)


@pytest.mark.parametrize(
    "url",
    [
        "cassandra://user:secret@host/db",
        "mysql://user:secret@host",
        "mysql://user:secret@host:port/db",
        "postgresql://user:secret@host/db?partition=a.b",
        "mongodb://user:secret@host:port/db",
        "mongodb://user:secret@host/db?partition=a.b",
        "mongodb://user:secret:more@host/db",
        "nonsense",
        "sqlite:",
    ],
)
def test_other_urls_are_refused_without_showing_a_password(url):
    with pytest.raises(ConfigurationError) as caught:
        open_bdtr(url, writer=True)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) > 20


def test_it_imports_no_ray():
    code = "import sys, sofia2.bdtr; raise SystemExit('ray' in sys.modules or 'pymongo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "document", [{"_id": [1]}, {"v": 2**64}, {"v": object()}, {"a\0b": 1}, {"v": "x" * (17 * 1024 * 1024)}]
)
def test_what_cannot_be_stored_is_refused_and_nothing_else_suffers(collection, document):
    with pytest.raises(StoreError):
        collection.insert_many([{"fine": True}, document])
    assert collection.count_documents({}) == 0
    collection.insert_one({"fine": True})
    assert collection.count_documents({}) == 1
