"""The pre-processing hook: it reshapes one instance, and neither its identity nor a bad value can do harm."""

from datetime import datetime

from bson import ObjectId

from actors.processes.preparing import Preparation

NOW = datetime(2026, 3, 1)
DOCUMENT = {"_id": ObjectId("5" * 24), "contextData": {"timestamp": NOW, "user": "ana"}, "S": {"f": 50, "secret": "x"}}


def test_fields_are_computed_and_left_out():
    prepare = Preparation(
        [{"$set": {"S.c": {"$divide": [{"$subtract": ["$S.f", 32]}, 1.8]}}}, {"$unset": "S.secret"}], NOW
    )
    (made,) = prepare([DOCUMENT])
    assert made == {**DOCUMENT, "S": {"f": 50, "c": 10.0}}
    assert DOCUMENT["S"] == {"f": 50, "secret": "x"}


def test_the_id_and_the_context_cannot_be_changed():
    prepare = Preparation([{"$replaceWith": {"_id": 1, "contextData": {}, "other": "$S.f"}}], NOW)
    (made,) = prepare([DOCUMENT])
    assert made == {"_id": DOCUMENT["_id"], "contextData": DOCUMENT["contextData"], "other": 50}


def test_an_instance_it_fails_on_goes_as_it_is_and_is_counted():
    prepare = Preparation([{"$set": {"S.c": {"$divide": ["$S.f", 2]}}}], NOW)
    odd = {**DOCUMENT, "S": {"f": "warm"}}
    assert prepare([odd, DOCUMENT])[0] == odd
    assert prepare.n_unprepared == 1
