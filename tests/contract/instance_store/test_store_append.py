"""Instances with generated ids: the way in that devices use."""

import contextlib
from datetime import UTC, datetime

import bson
import pytest
from sqlalchemy import Engine, event

from sib.errors import DuplicateKeyError, StoreError
from storage.bdtr.identity import number_of, object_id
from storage.bdtr.model import Cause, ChangeKind, DuplicatesInBatchError, IndexSpec, context_head
from storage.open import open_bdtr

CONTEXT = {"session_key": "k", "user": "u", "kp": "KP", "kp_instancia": "i", "timezoneId": "UTC"}
HEAD = context_head(CONTEXT)
ASSET = IndexSpec((("Sensor.asset", 1),))


def append(store, documents, *, now_ms=1_700_000_000_000, collection="S", heads=None):
    with store.begin() as transaction:
        bodies = [bson.encode(document) for document in documents]
        return transaction.append(collection, bodies, documents, heads or [HEAD] * len(documents), now_ms)


def sensors(*assets):
    return [{"Sensor": {"asset": asset, "measure": at}} for at, asset in enumerate(assets)]


def test_an_instance_comes_back_whole_and_in_its_layout(store):
    first = append(store, sensors("a"), now_ms=1_700_000_000_123)

    (document,) = store.find("S")

    moment = datetime.fromtimestamp(1_700_000_000.123, UTC).replace(tzinfo=None, microsecond=123_000)
    assert list(document) == ["_id", "contextData", "Sensor"]
    assert document["contextData"] == {**CONTEXT, "timestamp": moment}
    assert document["_id"] == object_id(first, store.machine)
    assert document["Sensor"] == {"asset": "a", "measure": 0}


def test_ids_and_change_numbers_run_in_step(store):
    first = append(store, sensors(*"abc"))
    second = append(store, sensors(*"de"))

    numbers = [number_of(document["_id"], store.machine) for document in store.find("S")]

    assert numbers == [first, first + 1, first + 2, second, second + 1]
    assert store.seq == 5


def test_ids_only_grow_when_the_clock_is_set_back_and_over_a_restart(store, store_url):
    first = append(store, sensors("a"), now_ms=2_000_000_000_000)
    store.close()
    again = open_bdtr(store_url, writer=True)

    second = append(again, sensors("b"), now_ms=1_000_000_000_000)

    assert second > first
    again.close()


def test_ids_do_not_come_again_after_everything_was_deleted(store):
    first = append(store, sensors("a"))
    with store.begin() as transaction:
        transaction.delete("S", {})

    assert append(store, sensors("b")) > first


def test_a_counter_that_overflows_goes_on_in_the_next_second(store):
    with store.begin() as transaction:
        transaction.insert_document("S", {"_id": object_id((1_700_000_000 << 24) + 0xFFFFFE, store.machine)})

    append(store, sensors("a", "b"), now_ms=1_700_000_000_000)

    newest = list(store.find("S"))[1:]
    assert [number_of(document["_id"], store.machine) & 0xFFFFFF for document in newest] == [0xFFFFFF, 0]
    assert [store.find("S", {"_id": document["_id"]}).__next__()["Sensor"]["asset"] for document in newest] == [
        "a",
        "b",
    ]


def test_an_instance_is_found_by_its_generated_id(store):
    append(store, sensors(*"abc"))
    for document in list(store.find("S")):
        assert list(store.find("S", {"_id": document["_id"]})) == [document]
    assert list(store.find("S", {"_id": bson.ObjectId()})) == []


def test_sessions_of_one_batch_keep_their_contexts(store):
    other = context_head({**CONTEXT, "user": "other"})
    append(store, sensors("a", "b"), heads=[HEAD, other])

    assert [document["contextData"]["user"] for document in store.find("S")] == ["u", "other"]


def test_an_index_on_the_context_sees_it(store):
    store.ensure_collection("S", [IndexSpec((("contextData.user", 1),))])
    other = context_head({**CONTEXT, "user": "other"})
    append(store, sensors("a", "b"), heads=[HEAD, other])

    assert [document["Sensor"]["asset"] for document in store.find("S", {"contextData.user": "other"})] == ["b"]


def test_the_automatic_index_on_time_bounds_a_query(store):
    for at in range(5):
        append(store, sensors(str(at)), now_ms=1_700_000_000_000 + at * 1000)
    low = datetime.fromtimestamp(1_700_000_001, UTC).replace(tzinfo=None)
    high = datetime.fromtimestamp(1_700_000_003, UTC).replace(tzinfo=None)

    found = store.find("S", {"contextData.timestamp": {"$gt": low, "$lte": high}})

    assert [document["Sensor"]["asset"] for document in found] == ["2", "3"]


@pytest.mark.parametrize("steps", [[0, 1, 2, 3], [3, 1, 2, 0]], ids=["clock runs", "clock is set back"])
@pytest.mark.parametrize("direction", [1, -1])
def test_the_order_by_time_is_right_whatever_the_clock_did(store, steps, direction):
    for step in steps:
        append(store, sensors(str(step)), now_ms=1_700_000_000_000 + step * 1000)

    found = store.find("S", sort={"contextData.timestamp": direction}, limit=3)

    assert [document["Sensor"]["asset"] for document in found] == sorted(map(str, steps), reverse=direction < 0)[:3]


def test_a_batch_that_breaks_a_unique_index_is_not_stored_and_names_the_positions(store):
    store.ensure_collection("S", [IndexSpec((("Sensor.asset", 1),), unique=True)])
    append(store, sensors("a"))

    with pytest.raises(DuplicatesInBatchError) as caught:
        append(store, sensors("b", "a", "c", "b"))

    assert sorted(caught.value.positions) == [1, 3]
    assert isinstance(caught.value, DuplicateKeyError)
    assert "Duplicate" in str(caught.value)
    assert store.count("S") == 1


def test_after_duplicates_the_rest_can_be_appended_in_the_same_transaction(store):
    store.ensure_collection("S", [IndexSpec((("Sensor.asset", 1),), unique=True)])
    append(store, sensors("a"))
    documents = sensors("a", "b")

    with store.begin() as transaction:
        with pytest.raises(DuplicatesInBatchError):
            transaction.append("S", list(map(bson.encode, documents)), documents, [HEAD] * 2, 1_700_000_000_000)
        transaction.append("S", [bson.encode(documents[1])], documents[1:], [HEAD], 1_700_000_000_000)

    assert [document["Sensor"]["asset"] for document in store.find("S")] == ["a", "b"]


def test_changes_come_in_the_order_of_their_numbers_over_all_collections(store):
    append(store, sensors("a", "b"), collection="S")
    append(store, sensors("c"), collection="T")
    with store.begin() as transaction:
        transaction.update(
            "S", {"Sensor.asset": "a"}, {"$set": {"Sensor.measure": 9}}, multi=True, now=datetime(2026, 1, 1)
        )
        transaction.delete("T", {})
    append(store, sensors("d"), collection="S")

    changes = store.changes(0, 100)

    assert [(change.seq, change.kind, change.collection) for change in changes] == [
        (1, ChangeKind.INSERT, "S"),
        (2, ChangeKind.INSERT, "S"),
        (4, ChangeKind.UPDATE, "S"),
        (5, ChangeKind.DELETE, "T"),
        (6, ChangeKind.INSERT, "S"),
    ]
    assert changes[2].document["Sensor"]["measure"] == 9
    assert changes[3].document is None


def test_an_update_is_noted_with_its_cause(store):
    append(store, sensors("a"))
    change = {"$inc": {"Sensor.measure": 1}}
    with store.begin() as transaction:
        transaction.update("S", {}, change, multi=True, now=datetime(2026, 1, 1))
        transaction.cause = Cause(1_700_000_000_123, "rule:x:3")
        transaction.update("S", {}, change, multi=True, now=datetime(2026, 1, 1))
    assert [change.cause for change in store.changes(0, 10)] == [(0, ""), (0, ""), (1_700_000_000_123, "rule:x:3")]


def test_an_update_that_changes_nothing_is_a_change_only_for_who_asks(store):
    append(store, sensors("a", "b"))
    same = {"$set": {"Sensor.asset": "a"}}
    for notes_unchanged in (False, True):
        with store.begin() as transaction:
            result = transaction.update(
                "S", {}, same, multi=True, now=datetime(2026, 1, 1), notes_unchanged=notes_unchanged
            )
        assert (result.matched, result.modified) == (2, 1 - notes_unchanged)
        assert len(result.documents) == (2 if notes_unchanged else 1)
    assert [change.seq for change in store.changes(2, 10)] == [3, 4, 5]
    assert store.seq == 5


@pytest.mark.parametrize("page", [1, 2, 3, 7, 1000])
def test_reading_changes_in_pages_gives_each_once(store, page):
    for at in range(4):
        append(store, sensors(*"abc"), collection="S")
        append(store, sensors("x"), collection=f"T{at}")
        with store.begin() as transaction:
            transaction.update(
                "S", {"Sensor.asset": "b"}, {"$inc": {"Sensor.measure": 1}}, multi=False, now=datetime(2026, 1, 1)
            )

    seqs, position = [], 0
    while changes := store.changes(position, page):
        seqs += [change.seq for change in changes]
        position = changes[-1].seq

    assert seqs == list(range(1, store.seq + 1))


def test_trimming_forgets_what_was_read_and_what_is_beyond_the_bound(store):
    append(store, sensors("a"))
    for at in range(6):
        with store.begin() as transaction:
            transaction.update("S", {}, {"$set": {"n": at}}, multi=True, now=datetime(2026, 1, 1))

    assert store.trim_changes(4, 100) == 2
    assert [change.seq for change in store.changes(1, 100)] == [4, 5, 6, 7]
    assert store.trim_changes(0, 2) == 2
    assert [change.seq for change in store.changes(1, 100)] == [6, 7]
    assert store.count("S") == 1


def test_a_write_id_is_remembered_with_its_commit_and_only_with_it(store):
    with store.begin() as transaction:
        assert transaction.recall("gateway", 7) is None
        transaction.remember("gateway", 7, b"outcome")
    with contextlib.suppress(RuntimeError), store.begin() as transaction:
        transaction.remember("gateway", 8, b"lost")
        raise RuntimeError

    with store.begin() as transaction:
        assert transaction.recall("gateway", 7) == b"outcome"
        assert transaction.recall("gateway", 8) is None
        assert transaction.recall("other", 7) is None


def test_eight_write_ids_of_a_gateway_are_remembered(store):
    for number in range(9):
        with store.begin() as transaction:
            transaction.remember("gateway", number, str(number).encode())

    with store.begin() as transaction:
        remembered = [transaction.recall("gateway", number) for number in range(9)]
    assert remembered == [None, *(str(number).encode() for number in range(1, 9))]


def test_positions_are_kept(store, store_url):
    with store.begin() as transaction:
        transaction.set_position("cep", 5)
        transaction.set_position("cep", 9)
    store.save_positions({"rules": 3})
    store.close()

    again = open_bdtr(store_url, writer=False)
    assert again.positions() == {"cep": 9, "rules": 3}
    again.close()


def test_a_failed_transaction_leaves_nothing_and_the_next_one_works(store):
    store.ensure_collection("S", [ASSET])
    append(store, sensors("a"))
    before = store.seq

    with contextlib.suppress(RuntimeError), store.begin() as transaction:
        documents = sensors("b")
        transaction.append("S", list(map(bson.encode, documents)), documents, [HEAD], 1_700_000_000_000)
        transaction.insert_document("New", {"x": 1})
        raise RuntimeError

    assert store.seq == before
    assert store.collections() == ["S"]
    append(store, sensors("c"))
    assert [document["Sensor"]["asset"] for document in store.find("S", {"Sensor.asset": {"$in": ["b", "c"]}})] == ["c"]
    assert store.count("S") == 2


def test_a_failed_savepoint_takes_back_only_what_was_in_it(store):
    store.ensure_collection("S", [ASSET])
    with store.begin() as transaction:
        documents = sensors("a")
        transaction.append("S", list(map(bson.encode, documents)), documents, [HEAD], 1_700_000_000_000)
        with contextlib.suppress(RuntimeError), transaction.savepoint():
            transaction.update("S", {}, {"$set": {"Sensor.asset": ["x", "y"]}}, multi=True, now=datetime(2026, 1, 1))
            transaction.insert_document("New", {})
            raise RuntimeError
        with transaction.savepoint():
            documents = sensors("b")
            transaction.append("S", list(map(bson.encode, documents)), documents, [HEAD], 1_700_000_000_000)

    assert [document["Sensor"]["asset"] for document in store.find("S")] == ["a", "b"]
    assert list(store.find("S", {"Sensor.asset": "x"})) == []
    assert store.collections() == ["S"]
    assert store.count("S") == 2
    assert [change.seq for change in store.changes(0, 10)] == [1, 2] == list(range(1, store.seq + 1))


def test_one_transaction_at_a_time(store):
    with store.begin(), pytest.raises(StoreError, match="under way"), store.begin():
        pass


def test_a_reader_may_not_write_and_sees_every_commit(store, store_url):
    reader = open_bdtr(store_url, writer=False)
    assert list(reader.find("S")) == []

    append(store, sensors("a"))

    assert [document["Sensor"]["asset"] for document in reader.find("S")] == ["a"]
    with pytest.raises(StoreError, match="reading only"), reader.begin():
        pass
    assert reader.machine == store.machine
    assert reader.seq == store.seq
    reader.close()


def test_two_writers_of_one_store_do_not_lose_or_double_anything(store, store_url):
    other = open_bdtr(store_url, writer=True)
    store.ensure_collection("S", [ASSET])
    for at in range(6):
        append((store, other)[at % 2], sensors(f"n{at}"))

    assert [document["Sensor"]["asset"] for document in store.find("S")] == [f"n{at}" for at in range(6)]
    assert len({document["_id"] for document in store.find("S")}) == 6
    assert [change.seq for change in other.changes(0, 10)] == [1, 2, 3, 4, 5, 6]
    assert store.count("S") == 6
    other.close()


def test_a_merged_index_finds_the_same_as_one_that_is_still_hot(store, monkeypatch):
    monkeypatch.setattr("storage.bdtr.hot.HOT_ROWS", 20)
    store.ensure_collection("S", [ASSET])
    expected = {}
    for at in range(60):
        assets = [f"a{(at * 7 + step) % 11}" for step in range(5)]
        append(store, sensors(*assets))
        for asset in assets:
            expected[asset] = expected.get(asset, 0) + 1

    assert {asset: store.count("S", {"Sensor.asset": asset}) for asset in expected} == expected
    ordered = [document["Sensor"]["asset"] for document in store.find("S", sort={"Sensor.asset": 1}, limit=400)]
    assert ordered == sorted(asset for asset, count in expected.items() for _ in range(count))


def test_changing_documents_while_their_entries_are_being_merged_leaves_no_stale_entry(store, monkeypatch):
    monkeypatch.setattr("storage.bdtr.hot.HOT_ROWS", 20)
    store.ensure_collection("S", [ASSET])
    append(store, sensors(*(f"a{at}" for at in range(20))))
    append(store, sensors("z"))  # the merge has begun
    with store.begin() as transaction:
        transaction.update(
            "S", {"Sensor.asset": "a19"}, {"$set": {"Sensor.asset": "new"}}, multi=True, now=datetime(2026, 1, 1)
        )
        transaction.delete("S", {"Sensor.asset": "a18"})
    for _ in range(20):
        append(store, sensors("z"))

    ordered = [document["Sensor"]["asset"] for document in store.find("S", sort={"Sensor.asset": 1}, limit=100)]

    assert ordered == sorted([*(f"a{at}" for at in range(18)), "new", *["z"] * 21])


def test_expired_instances_go_and_others_stay(store, clock):
    store.ensure_collection("S", [IndexSpec((("contextData.timestamp", 1),), expire_after_s=60)])
    now_ms = int(clock.now_s * 1000)
    append(store, sensors("old"), now_ms=now_ms - 61_000)
    append(store, sensors("young"), now_ms=now_ms - 59_000)

    assert store.expire(clock.now_s) == 1
    assert [document["Sensor"]["asset"] for document in store.find("S")] == ["young"]
    assert store.expire(clock.now_s) == 0
    assert store.changes(0, 10)[-1].kind == ChangeKind.DELETE


def test_a_checkpoint_forgets_old_write_ids_and_keeps_the_rest(store, clock):
    append(store, sensors("a"))
    with store.begin() as transaction:
        transaction.remember("gateway", 1, b"old")
    clock.now_s += 7200
    with store.begin() as transaction:
        transaction.remember("gateway", 2, b"new")

    store.checkpoint()

    with store.begin() as transaction:
        assert (transaction.recall("gateway", 1), transaction.recall("gateway", 2)) == (None, b"new")
    assert store.count("S") == 1


def test_collections_and_indexes_are_declared_in_the_middle_of_a_transaction(store):
    with store.begin() as transaction:
        documents = sensors("a", "b")
        transaction.append("S", list(map(bson.encode, documents)), documents, [HEAD] * 2, 1_700_000_000_000)
        store.ensure_collection("S", [ASSET])
        store.ensure_collection("T", [ASSET, IndexSpec((("at", "2dsphere"),))])
        transaction.insert_documents("T", [{"at": {"type": "Point", "coordinates": [1, 2]}}, {"at": [1, 178]}])
        transaction.update(
            "S", {"Sensor.asset": "b"}, {"$set": {"Sensor.asset": "c"}}, multi=True, now=datetime(2026, 1, 1)
        )

    assert [
        document["Sensor"]["asset"] for document in store.find("S", {"Sensor.asset": {"$in": ["a", "b", "c"]}})
    ] == ["a", "c"]
    assert store.count("T", {"at": {"$near": {"$geometry": {"type": "Point", "coordinates": [1, 2]}}}}) == 1
    assert [change.seq for change in store.changes(0, 10)] == [1, 2, 3, 4, 5]
    assert store.indexes("S") == [ASSET]
    assert len(store.indexes("T")) == 2


def test_what_a_failed_transaction_declared_is_gone_and_can_be_declared_again(store):
    with contextlib.suppress(RuntimeError), store.begin() as transaction:
        store.ensure_collection("S", [ASSET])
        transaction.insert_document("S", {"Sensor": {"asset": "lost"}})
        raise RuntimeError
    assert store.collections() == []

    store.ensure_collection("S", [ASSET])
    append(store, sensors("a"))

    assert [document["Sensor"]["asset"] for document in store.find("S", {"Sensor.asset": {"$gte": ""}})] == ["a"]
    store.ensure_collection("S", [])
    store.ensure_collection("S", [ASSET])
    assert store.count("S", {"Sensor.asset": "a"}) == 1


def test_an_index_that_cannot_be_unique_leaves_the_transaction_usable(store):
    append(store, sensors("a", "a"))
    with store.begin() as transaction:
        transaction.insert_document("S", {"Sensor": {"asset": "b"}})
        with pytest.raises(DuplicateKeyError):
            store.ensure_collection("S", [IndexSpec((("Sensor.asset", 1),), unique=True)])
        transaction.insert_document("S", {"Sensor": {"asset": "b"}})

    assert store.indexes("S") == []
    assert store.count("S", {"Sensor.asset": "b"}) == 2


@pytest.mark.adapters("sqlite", "mariadb", "postgresql", "oracle")
def test_given_ids_are_looked_up_together(store):
    ids = [bson.ObjectId() for _ in range(700)]
    append(store, sensors("a"))
    with store.begin() as transaction:
        transaction.insert_documents("S", [{"_id": id_} for id_ in ids[:3]])

    with statements() as made, store.begin() as transaction:
        found = [document["_id"] for document in transaction.find("S", {"_id": {"$in": ids}})]
        with pytest.raises(DuplicatesInBatchError) as refused:
            transaction.insert_documents("S", [{"_id": id_} for id_ in ids])
        transaction.insert_documents("S", [{"_id": id_} for id_ in ids[3:]])

    assert found == ids[:3]
    assert set(refused.value.positions) == {0, 1, 2}
    assert {document["_id"] for document in store.find("S", {"_id": {"$in": ids}})} == set(ids)
    assert len(made) < 50, "a statement for each id"


@contextlib.contextmanager
def statements():
    """What is sent to the database meanwhile."""
    made = []

    def heard(connection, cursor, statement, *_):
        made.append(statement)

    event.listen(Engine, "before_cursor_execute", heard)
    try:
        yield made
    finally:
        event.remove(Engine, "before_cursor_execute", heard)
