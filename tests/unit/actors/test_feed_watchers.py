"""Consumers of whole changes (CEP, rules): fed live, and from the change log when they were away."""

import bson

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


def test_a_watcher_gets_the_changes_of_its_ontologies_with_their_numbers():
    feed = watching("A")
    announcement = feed.publish(3, [changed(1, "A", 10, 11), changed(3, "B", 12)])["cep"]
    assert [(event.seq, bson.decode(event.document)["v"]) for event in announcement.events] == [(1, 10), (2, 11)]
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
    assert [event.seq for event in page.events] == [2]
    assert feed.publish(3, [changed(3, "A", 3)])["cep"].previous == page.seq


def test_a_watcher_that_ends_holds_nothing_back():
    feed = watching("A")
    feed.publish(1, [changed(1, "A", 1)])
    feed.unwatch("cep")
    assert "cep" not in feed.positions()
    assert feed.publish(2, [changed(2, "A", 2)]) == {}
