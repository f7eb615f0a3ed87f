"""Consumers of whole changes (CEP, rules): fed live, and from the change log when they were away."""

import pickle
from datetime import datetime

from bson import DatetimeMS

from actors.feed import Changed, Feed


def changed(first_seq, ontology, *values):
    instances = [{"v": value} for value in values]
    return Changed(first_seq, ontology, instances, lambda at: {"_id": first_seq + at, **instances[at]})


def watching(*ontologies, seq=0):
    feed = Feed({}, seq)
    feed.watch("cep", frozenset(ontologies))
    feed.consumer("cep", "epoch")
    feed.catch_up("cep", [], is_last=True)
    return feed


def told(announcement):
    return [event for events in announcement.events for event in events.each()]


def test_a_watcher_gets_the_changes_of_its_ontologies_with_their_numbers():
    feed = watching("A")
    announcement = feed.publish(3, [changed(1, "A", 10, 11), changed(3, "B", 12)])["cep"]
    assert [(event.seq, event.document["v"]) for event in told(announcement)] == [(1, 10), (2, 11)]
    assert announcement.indications == []


def test_other_ontologies_announce_nothing():
    assert watching("A").publish(1, [changed(1, "B", 1)]) == {}


def test_a_watcher_of_a_new_process_reads_the_log_from_what_it_acknowledged():
    feed = watching("A")
    feed.publish(1, [changed(1, "A", 1)])
    feed.consumer("cep", "epoch").acknowledge(1)
    feed.publish(2, [changed(2, "A", 2)])
    consumer = feed.consumer("cep", "another epoch")
    assert not consumer.is_live
    assert consumer.acked == 1
    page = feed.catch_up("cep", [(2, changed(2, "A", 2))], is_last=True)
    assert page.is_reset
    assert [event.seq for event in told(page)] == [2]
    assert feed.publish(3, [changed(3, "A", 3)])["cep"].previous == page.seq


def test_a_watcher_that_ends_holds_nothing_back():
    feed = watching("A")
    feed.publish(1, [changed(1, "A", 1)])
    feed.unwatch("cep")
    assert "cep" not in feed.positions()
    assert feed.publish(2, [changed(2, "A", 2)]) == {}


def test_what_changes_together_travels_as_one_object():
    """Ray packs each object by itself: five hundred events are not to be five hundred objects."""
    announcement = watching("A").publish(500, [changed(1, "A", *range(500))])["cep"]
    assert [events.changes for events in announcement.events] == [500]
    assert pickle.loads(pickle.dumps(announcement, protocol=5)) == announcement


def test_what_changed_together_can_be_handled_one_by_one():
    [events] = watching("A").publish(3, [changed(1, "A", 10, "text", None)])["cep"].events
    alone = list(events.alone())
    assert [one.changes for one in alone] == [1, 1, 1]
    assert [event for one in alone for event in one.each()] == events.each()


def test_a_date_that_python_does_not_have_keeps_no_event_from_being_read():
    moment = datetime(2026, 1, 1)
    [events] = watching("A").publish(2, [changed(1, "A", DatetimeMS(2**62), moment)])["cep"].events
    assert [event.document["v"] for event in events.each()] == [DatetimeMS(2**62), moment]
