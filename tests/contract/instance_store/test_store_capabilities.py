"""In what backends differ, named and asserted both ways."""

import itertools
from datetime import datetime

import pytest

from sib.errors import QuerySyntaxError, QueryTimeoutError, StoreError
from sib.query.budget import Budget
from storage.bdtr.capabilities import Capability
from storage.bdtr.model import IndexSpec

MOMENT = datetime(2001, 2, 3, 4, 5, 6)


def test_whose_clock_is_now(store):
    with store.begin() as transaction:
        transaction.insert_document("S", {"_id": 1})

    (row,) = store.aggregate("S", [{"$project": {"now": "$$NOW"}}], now=MOMENT)

    assert (row["now"] == MOMENT) == (Capability.OWN_CLOCK in store.capabilities)


def test_whose_steps_are_explained(store):
    store.ensure_collection("S", [IndexSpec((("a", 1),))])

    steps = store.explain("S", {"a": 1})

    assert steps
    assert ("check each document exactly" in steps) == (Capability.EXPLAINS_STEPS in store.capabilities)


def test_only_a_file_is_not_on_a_server(store, adapter):
    assert (Capability.SERVER in store.capabilities) == (adapter != "sqlite")


@pytest.mark.parametrize("read", ["find", "count", "distinct", "aggregate"])
def test_no_time_left_is_a_time_limit(store, read):
    with store.begin() as transaction:
        transaction.insert_documents("S", [{"n": number} for number in range(300)])
    budget = Budget(0.0, lambda: 1.0)
    calls = {
        "find": lambda: list(store.find("S", {"n": {"$gte": 0}}, budget=budget)),
        "count": lambda: store.count("S", {"n": {"$gte": 0}}, budget=budget),
        "distinct": lambda: store.distinct("S", "n", {"n": {"$gte": 0}}, budget=budget),
        "aggregate": lambda: list(store.aggregate("S", [{"$match": {"n": {"$gte": 0}}}], budget=budget)),
    }

    with pytest.raises(QueryTimeoutError):
        calls[read]()


@pytest.mark.parametrize(
    "pipeline",
    [
        [{"$match": {"$where": "true"}}],
        [{"$project": {"x": {"$function": {"body": "x", "args": [], "lang": "js"}}}}],
        [{"$out": "other"}],
        [{"$merge": {"into": "other"}}],
        [{"$merge": {"into": {"db": "admin", "coll": "x"}}}],
        [{"$currentOp": {}}],
        [{"$collStats": {}}],
        [{"$listSessions": {}}],
        [{"$facet": {"a": [{"$out": "other"}]}}],
    ],
)
def test_what_no_backend_carries_out(store, pipeline):
    with store.begin() as transaction:
        transaction.insert_document("S", {"_id": 1})
    with pytest.raises(QuerySyntaxError):
        list(store.aggregate("S", pipeline))


@pytest.mark.adapters("mongodb")
@pytest.mark.parametrize(
    "pipeline",
    [
        [{"$lookup": {"from": "sofia2.state", "pipeline": [], "as": "x"}}],
        [{"$unionWith": "sofia2.log"}],
        [{"$facet": {"a": [{"$lookup": {"from": "system.users", "pipeline": [], "as": "x"}}]}}],
    ],
)
def test_what_a_partition_notes_is_not_for_queries(store, pipeline):
    with pytest.raises(StoreError, match="may be called"):
        list(store.aggregate("S", pipeline))
    for read in (store.find, store.count):
        with pytest.raises(StoreError, match="may be called"):
            read("sofia2.state")


@pytest.mark.adapters("mongodb")
def test_what_others_write_is_told_and_what_we_write_is_not(store):
    with store.begin() as transaction:
        transaction.insert_document("S", {"_id": "before"})
    changes = store.foreign_changes(wait_s=0.1)
    next(changes)
    with store.begin() as transaction:
        transaction.insert_document("S", {"_id": "ours"})

    store.documents("S").insert_one({"_id": "foreign"})
    store.documents("S").delete_one({"_id": "before"})

    told = [change for change, _ in itertools.islice(changes, 20) if change is not None]
    assert [(change.kind.value, change.id) for change in told] == [("insert", "foreign"), ("delete", "before")]
