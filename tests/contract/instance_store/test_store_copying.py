"""Copies of whole databases between backends, and the journal of transfers, which every backend keeps."""

from datetime import datetime

import bson
import pytest
from bson import Decimal128, ObjectId

import sofia2.bdtr
from sib.errors import ConfigurationError, NotFoundError, StoreError
from storage.bdtr.model import IndexSpec, context_head
from storage.bdtr.mongo_aged import raw
from storage.bdtr.moving import digest_of
from storage.bdtr.transfers import Receipt
from storage.copying import check, copy_bdtr, kind_of_database
from storage.open import open_bdtr, transfer_journal

HEAD = context_head({"user": "u"})
NOW_MS = 1_700_000_000_000


@pytest.fixture
def elsewhere(tmp_path):
    return f"sqlite:{tmp_path}/elsewhere.db"


def fill(url, n_documents=2500):
    with sofia2.bdtr.open(url) as database:
        database["Sensor"].create_index("n", unique=True)
        database["Sensor"].insert_many([{"n": number, "text": "ñ"} for number in range(n_documents)])
        database["Other"].insert_many([{"_id": "mine", "deep": {"x": [1, None]}}, {"_id": 7}])


def content(url):
    with sofia2.bdtr.open(url) as database:
        return {
            name: (sorted(map(repr, database[name].find())), database[name].index_information())
            for name in database.list_collection_names()
        }


@pytest.mark.parametrize("is_source", [True, False], ids=["from it", "into it"])
def test_a_copy_has_everything(store_url, elsewhere, is_source):
    source, target = (store_url, elsewhere) if is_source else (elsewhere, store_url)
    fill(source)
    steps = []

    assert copy_bdtr(source, target, steps.append) == 2502

    assert content(target) == content(source)
    assert steps[0].n_done == 0
    assert (steps[-1].name, steps[-1].n_done, steps[-1].n_total) == ("Sensor", 2500, 2500)
    assert copy_bdtr(source, target) == 0


@pytest.mark.parametrize("is_source", [True, False], ids=["from it", "into it"])
def test_numbers_of_changes_go_on_from_those_of_the_source(store_url, elsewhere, is_source):
    source, target = (store_url, elsewhere) if is_source else (elsewhere, store_url)
    with sofia2.bdtr.open(source) as database:
        database["Sensor"].insert_one({"_id": 1, "n": 0})
        for n in range(1, 8):
            database["Sensor"].update_one({"_id": 1}, {"$set": {"n": n}})
    reader = open_bdtr(source, writer=False)
    reached = reader.seq
    reader.close()

    copy_bdtr(source, target)

    writer = open_bdtr(target, writer=True)
    try:
        assert writer.seq == reached
        with writer.begin() as transaction:
            transaction.insert_documents("Sensor", [{"_id": 2}])
        assert [change.seq for change in writer.changes(reached, 10)] == [reached + 1]
    finally:
        writer.close()


def test_an_interrupted_copy_goes_on_where_it_was(store_url, elsewhere):
    fill(elsewhere)

    def interrupt(step):
        if step.n_done == 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_bdtr(elsewhere, store_url, interrupt)
    assert copy_bdtr(elsewhere, store_url) == 1500
    assert content(store_url) == content(elsewhere)


def test_what_changed_in_the_source_is_copied_again_and_what_the_target_has_more_is_said(store_url, elsewhere):
    fill(elsewhere, 5)
    copy_bdtr(elsewhere, store_url)
    with sofia2.bdtr.open(elsewhere) as database:
        database["Sensor"].update_one({"n": 3}, {"$set": {"text": "new"}})
    assert copy_bdtr(elsewhere, store_url) == 1
    assert content(store_url) == content(elsewhere)
    with sofia2.bdtr.open(store_url) as database:
        database["Sensor"].insert_one({"n": 99})
    with pytest.raises(StoreError, match="the source has not"):
        copy_bdtr(elsewhere, store_url)


def test_a_database_is_not_copied_into_itself(store_url):
    with pytest.raises(ConfigurationError, match="same"):
        copy_bdtr(store_url, store_url)


def test_a_check_says_what_is_there(store_url, tmp_path):
    fill(store_url, 1)

    bdc, bdtr = check(f"sqlite:///{tmp_path}/bdc.db", store_url)

    assert not bdc.is_good
    assert "no tables" in bdc.sentence
    assert bdtr.is_good
    assert "2 ontologies" in bdtr.sentence


def test_the_kind_of_a_database_is_told(elsewhere, adapter, store_url):
    fill(elsewhere, 1)
    assert kind_of_database(elsewhere) == "bdtr"
    if adapter in ("mongodb", "postgresql"):
        assert kind_of_database(store_url) == "bdtr"


# -------------------------------------------------------------------- moving instances to the history


def aged(store, before_ms=NOW_MS + 1, after=None, limit=100):
    with store.snapshot() as moment:
        return moment.aged("S", before_ms, after, limit)


@pytest.fixture
def old(store):
    """Five instances of NOW_MS and two of a minute later."""
    store.ensure_collection("S", [IndexSpec((("n", 1),))])
    for numbers, now_ms in ((range(5), NOW_MS), (range(5, 7), NOW_MS + 60_000)):
        documents = [{"n": number} for number in numbers]
        with store.begin() as transaction:
            bodies = [bson.encode(document) for document in documents]
            transaction.append("S", bodies, documents, [HEAD] * len(documents), now_ms)
    return store


def receipt_of(rows):
    return Receipt([row.seq for row in rows], [digest_of(row.blob) for row in rows]).to_bytes()


def test_old_instances_are_found_in_pages(old):
    first = aged(old, limit=3)
    rest = aged(old, after=first[-1], limit=3)

    assert [bson.decode(row.blob)["n"] for row in first + rest] == [0, 1, 2, 3, 4]
    assert [row.seq for row in first + rest] == sorted(row.seq for row in first + rest)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 7])
def test_pages_end_anywhere_among_instances_of_one_moment(old, limit):
    odd = [{}, {"timestamp": "soon"}, {"timestamp": [datetime(2023, 1, 1)]}, {"timestamp": [datetime(2053, 1, 1)]}]
    with old.begin() as transaction:
        transaction.insert_documents("S", [{"_id": f"x{at}", "contextData": odd[at]} for at in range(len(odd))])
    rows = []
    while page := aged(old, NOW_MS + 60_001, rows[-1] if rows else None, limit):
        assert len(page) <= limit
        rows += page
    assert len(rows) == len({row.seq for row in rows}) == 7 + len(odd)


@pytest.mark.adapters("mongodb")
def test_finding_old_instances_reads_no_young_ones(old, monkeypatch):
    """Else each transfer would read the whole window, which is most of what there is."""
    with old.begin() as transaction:
        young = {"contextData": {"timestamp": datetime(2053, 1, 1)}}
        transaction.insert_documents("S", [{"_id": number, **young} for number in range(300)])
    asked = []

    class Recorder:
        def __init__(self, documents):
            self.find = lambda condition, **options: asked.append(condition) or documents.find(condition, **options)

    monkeypatch.setattr("storage.bdtr.mongo_aged.raw", lambda documents: Recorder(raw(documents)))
    first = aged(old, limit=3)
    assert len(aged(old, after=first[-1], limit=3)) == 2

    def n_read(condition):
        find = {"find": "S", "filter": condition}
        told = old._database.command({"explain": find, "verbosity": "executionStats"})["executionStats"]
        return told["totalDocsExamined"]

    spans = [condition for condition in asked if "$lt" in str(condition.get("contextData.timestamp"))]
    assert [n_read(condition) for condition in spans] == [5, 0]


@pytest.mark.parametrize("heard", [0, 3, 5, 7])
def test_what_a_consumer_has_still_to_hear_of_does_not_move(old, heard):
    """An insert is told from the instance: once moved, it could not be told any more."""
    first = next(iter(old.changes(0, 1))).seq
    old.save_positions({"slow": first - 1 + heard, "quick": old.seq})

    moved = [bson.decode(row.blob)["n"] for row in aged(old, before_ms=NOW_MS + 120_000)]

    untold = [change.document["n"] for change in old.changes(first - 1 + heard, 100)]
    assert set(moved) & set(untold) == set()
    if heard in (0, 5, 7):
        assert moved + untold == list(range(7))

    old.forget_consumers(["slow"])
    assert len(aged(old, before_ms=NOW_MS + 120_000)) == 7


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_nor_what_came_with_an_id_without_a_date_or_with_an_old_one(old, limit):
    """``contextData`` of a copy, or of what another program wrote, says nothing of when somebody will hear of it."""
    odd = [
        {"_id": "early"},
        {"_id": {"a": 1}, "contextData": {"timestamp": datetime(2000, 1, 1)}},
        {"contextData": {"timestamp": datetime(2000, 1, 1)}},
        {"_id": 7.5, "contextData": {"timestamp": "soon"}},
    ]
    for heard in range(len(odd) + 1):
        if not heard:
            old.save_positions({"slow": old.seq})
            with old.begin() as transaction:
                ids = transaction.insert_documents("S", odd)
        old.save_positions({"slow": old.seq - len(odd) + heard})
        moved, page = [], []
        while page := aged(old, before_ms=NOW_MS + 120_000, after=page[-1] if page else None, limit=limit):
            moved += [bson.decode(row.blob)["_id"] for row in page]
        assert len(moved) == 7 + heard
        assert [id_ for id_ in ids if id_ in moved] == ids[:heard]


def test_moving_takes_out_what_nobody_changed_and_tells_nobody(old):
    journal, rows, seq = transfer_journal(old), aged(old), old.seq
    files = [{"n_rows": 2}, {"n_rows": 3}]
    number = journal.plan("S", files, receipt_of(rows), NOW_MS)
    with old.begin() as transaction:
        transaction.update("S", {"n": 3}, {"$set": {"n": 33}}, multi=False, now=None)

    refused = journal.commit(number, files, accept_stale=False)
    done = journal.commit(number, files, accept_stale=True)
    again = journal.commit(number, files, accept_stale=True)

    assert (refused.is_done, refused.n_stale) == (False, 1)
    assert (done.is_done, done.n_moved, done.n_stale) == (True, 4, 1)
    assert (again.is_done, again.n_moved) == (True, 0)
    assert sorted(document["n"] for document in old.find("S")) == [5, 6, 33]
    assert list(old.find("S", {"n": 1})) == []
    assert [change.kind.value for change in old.changes(seq, 10)] == ["update"]
    with old.snapshot() as moment:
        (row,) = moment.transfers("S")
        assert (row.id, row.state.name) == (number, "DONE")
        assert [file["stale_rows"] for file in row.files] == [[], [1]]
        assert sorted(document["n"] for document in moment.find("S", {})) == [5, 6, 33]


IDS = [
    None,
    5,
    2.5,
    Decimal128("7"),
    "x",
    "ñ",
    {"a": 1},
    b"raw",
    ObjectId(),
    ObjectId("0" * 24),
    True,
    datetime(2020, 1, 1),
]


def test_instances_with_ids_of_any_kind_move(old):
    context = {"contextData": {"timestamp": datetime(2023, 1, 1)}}
    with old.begin() as transaction:
        transaction.insert_documents("S", [{"_id": id_, **context, "n": 10 + at} for at, id_ in enumerate(IDS)])
    rows = []
    while page := aged(old, after=rows[-1] if rows else None, limit=2):
        rows += page
    assert sorted(bson.decode(row.blob)["n"] for row in rows) == [0, 1, 2, 3, 4, *range(10, 10 + len(IDS))]
    with old.snapshot() as moment:
        assert moment.by_seq("S", [row.seq for row in rows]) == {row.seq: row.blob for row in rows}

    journal, files = transfer_journal(old), [{"n_rows": len(rows)}]
    number = journal.plan("S", files, receipt_of(rows), NOW_MS)
    with old.begin() as transaction:
        transaction.update("S", {"_id": "ñ"}, {"$set": {"n": -1}}, multi=False, now=None)
    with old.snapshot() as moment:
        assert list(moment.transfers("S")[0].receipt.seqs) == [row.seq for row in rows]
    assert journal.commit(number, files, accept_stale=False).n_stale == 1
    assert journal.commit(number, files, accept_stale=True).n_moved == len(rows) - 1
    assert sorted(document["n"] for document in old.find("S")) == [-1, 5, 6]


def test_a_transfer_is_abandoned_or_published(old):
    journal, rows = transfer_journal(old), aged(old, limit=2)
    first = journal.plan("S", [{"n_rows": 2}], receipt_of(rows), NOW_MS)
    journal.abandon(first)
    with pytest.raises(NotFoundError):
        journal.commit(first, [{"n_rows": 2}], accept_stale=True)
    second = journal.plan("S", [{"n_rows": 2}], receipt_of(rows), NOW_MS)
    journal.commit(second, [{"n_rows": 2}], accept_stale=False)
    journal.publish([second], NOW_MS)

    with old.snapshot() as moment:
        assert [row.state.name for row in moment.transfers("S")] == ["PUBLISHED"]
        assert moment.by_seq("S", [row.seq for row in rows]) == {}
        assert len(moment.by_seq("S", [row.seq for row in aged(old)])) == 3


def test_a_copy_waits_for_a_transfer_under_way(old, store_url, elsewhere):
    transfer_journal(old).plan("S", [{"n_rows": 5}], receipt_of(aged(old)), NOW_MS)
    old.close()

    with pytest.raises(ConfigurationError, match="under way"):
        copy_bdtr(store_url, elsewhere)


def test_a_transfer_survives_a_restart(old, store_url):
    rows = aged(old)
    number = transfer_journal(old).plan("S", [{"n_rows": 5}], receipt_of(rows), NOW_MS)
    old.close()

    again = open_bdtr(store_url, writer=True)
    assert transfer_journal(again).commit(number, [{"n_rows": 5}], accept_stale=False).n_moved == 5
    again.close()
