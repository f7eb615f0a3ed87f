"""From commits to announcements: who is told what, in which chain, and where a consumer goes on after a crash."""

from actors import feed as module
from actors.feed import Changed, Feed, Subscriber


def changed(seq, *measures, ontology="O"):
    instances = [{"m": measure} for measure in measures]
    return Changed(seq, ontology, instances, lambda at: {"_id": seq + at, **instances[at]})


def subscriber(id_, condition=None, gateway="g1", *, session="s", ontology="O", is_one=False):
    return Subscriber(id_, session, ontology, condition or {}, gateway, is_one)


def live(feed, *gateways):
    for gateway in gateways:
        feed.consumer(gateway, "e1")
        feed.catch_up(gateway, [], is_last=True)


def told(announcement):
    return [(indication.legacy, indication.subscriptions) for indication in announcement.indications]


def test_each_gateway_hears_of_its_own_subscriptions():
    feed = Feed({}, 0)
    feed.subscribe(subscriber("a", {"m": {"$gt": 1}}))
    feed.subscribe(subscriber("b", gateway="g2", is_one=True))
    feed.subscribe(subscriber("c", ontology="P"))
    live(feed, "g1", "g2", "g3")
    announcements = feed.publish(3, [changed(1, 0, 1, 2)])
    assert set(announcements) == {"g1", "g2"}
    assert told(announcements["g1"]) == [('{ "_id" : 3 , "m" : 2}', ["a"])]
    assert [indication.one for indication in announcements["g2"].indications] == [
        b'{"_id":1,"m":0}', b'{"_id":2,"m":1}', b'{"_id":3,"m":2}',
    ]  # fmt: skip
    assert [indication.legacy is None for indication in announcements["g2"].indications] == [True, True, False]


def test_announcements_of_one_gateway_form_a_chain():
    feed = Feed({}, 5)
    feed.subscribe(subscriber("a"))
    live(feed, "g1")
    first, second = feed.publish(6, [changed(6, 1)])["g1"], feed.publish(9, [changed(9, 1)])["g1"]
    assert (first.is_reset, first.previous, first.seq) == (False, 5, 6)
    assert (second.previous, second.seq) == (6, 9)
    assert feed.publish(10, [changed(10, 1, ontology="Other")]) == {}
    assert feed.publish(11, [changed(11, 1)])["g1"].previous == 9


def test_a_new_subscription_is_not_told_of_what_was_there_before_it():
    """Its gateway may read the change log from long ago: after a crash, or because an endpoint takes nothing."""
    feed = Feed({"g1": 3}, 6)
    feed.subscribe(subscriber("old"))
    feed.consumer("g1", "e1")
    feed.publish(7, [changed(7, 1)])
    for _ in range(2):
        feed.subscribe(subscriber("new"), is_new=True)
        feed.publish(9, [changed(8, 1, 2)])
    feed.move("s", "g1")
    page = feed.catch_up("g1", [(4, changed(4, 1)), (7, changed(6, 1, 1)), (9, changed(8, 1, 2))], is_last=True)
    assert [indication.subscriptions for indication in page.indications] == [["old"]] * 3 + [["old", "new"]] * 2
    feed.unsubscribe(["old"])
    assert feed.catch_up("g1", [(4, changed(4, 1))], is_last=True).indications == []


def test_a_consumer_that_is_not_live_is_told_nothing_until_it_has_caught_up():
    feed = Feed({"g1": 3}, 7)
    feed.subscribe(subscriber("a"))
    consumer = feed.consumer("g1", "e1")
    assert consumer.acked == 3
    assert feed.publish(8, [changed(8, 1)]) == {}
    page = feed.catch_up("g1", [(4, changed(4, 1)), (5, changed(5, 2))], is_last=False)
    assert (page.is_reset, page.seq, len(page.indications)) == (True, 5, 2)
    assert not consumer.is_live
    last = feed.catch_up("g1", [(8, changed(8, 3))], is_last=True)
    assert (last.is_reset, last.previous, last.seq) == (True, 5, 8)
    assert feed.publish(9, [changed(9, 1)])["g1"].previous == 8


def test_a_new_process_of_a_gateway_begins_where_the_old_one_had_delivered():
    feed = Feed({}, 0)
    feed.subscribe(subscriber("a"))
    live(feed, "g1")
    for seq in (1, 2, 3):
        feed.publish(seq, [changed(seq, 1)])
    feed.consumer("g1", "e1").acknowledge(2)
    assert feed.positions() == {"g1": 2}
    assert feed.consumer("g1", "e2").acked == 2
    assert not feed.consumer("g1", "e2").is_live


def test_positions_go_on_with_commits_that_concern_nobody():
    feed = Feed({"gone": 4}, 0)
    feed.subscribe(subscriber("a"))
    live(feed, "g1")
    feed.consumer("g1", "e1").acknowledge(0)
    feed.publish(50, [changed(50, 1, ontology="Other")])
    assert feed.positions() == {"gone": 4, "g1": 50}
    feed.publish(51, [changed(51, 1)])
    feed.publish(60, [])
    assert feed.positions()["g1"] == 0
    feed.consumer("g1", "e1").acknowledge(51)
    assert feed.positions()["g1"] == 60


def test_a_gateway_that_falls_behind_reads_the_log_instead(monkeypatch):
    monkeypatch.setattr(module, "UNACKNOWLEDGED_MAX", 3)
    feed = Feed({}, 0)
    feed.subscribe(subscriber("a"))
    live(feed, "g1")
    for seq in range(1, 5):
        assert "g1" in feed.publish(seq, [changed(seq, 1)])
    assert feed.publish(5, [changed(5, 1)]) == {}
    assert not feed.consumer("g1", "e1").is_live
    feed.skip_live()


def test_a_session_that_moves_takes_its_subscriptions_along():
    feed = Feed({}, 0)
    for id_, session in (("a", "s"), ("b", "t")):
        feed.subscribe(subscriber(id_, session=session))
    live(feed, "g1", "g2")
    feed.move("s", "g2")
    announcements = feed.publish(1, [changed(1, 1)])
    assert {gateway: announcement.indications[0].subscriptions for gateway, announcement in announcements.items()} == {
        "g1": ["b"],
        "g2": ["a"],
    }


def test_unsubscribed_is_not_told_and_unknown_ids_are_no_error():
    feed = Feed({}, 0)
    feed.subscribe(subscriber("a"))
    live(feed, "g1")
    feed.unsubscribe(["a", "never"])
    assert feed.subscriptions == 0
    assert feed.publish(1, [changed(1, 1)]) == {}


def test_the_same_subscription_again_replaces_the_old_one():
    feed = Feed({}, 0)
    feed.subscribe(subscriber("a", {"m": 1}))
    feed.subscribe(subscriber("a", {"m": 2}))
    live(feed, "g1")
    assert feed.publish(1, [changed(1, 1)]) == {}
    assert "g1" in feed.publish(2, [changed(2, 2)])
