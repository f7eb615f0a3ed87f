"""What a gateway says it has delivered: never more than it has."""

import asyncio
import logging

import bson

from actors import inbox as inbox_module
from actors.feed import Announcement, Events, Indication
from actors.inbox import Inbox

ONE = [Indication("A", "{}", None, ["s"])]


class Deliveries:
    """Deliveries that end when the test says so."""

    def __init__(self):
        self.pending = []

    def __call__(self, seq, indications):
        self.pending.append(asyncio.get_running_loop().create_future())
        return self.pending[-1]

    async def end(self, at):
        self.pending[at].set_result(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def announcement(previous, seq, *, is_reset=False):
    return Announcement(is_reset, previous, seq, ONE, [])


async def test_a_page_under_delivery_counts_from_before_its_first_change():
    deliveries = Deliveries()
    inbox = Inbox(deliveries)
    inbox.put(announcement(0, 1000, is_reset=True))
    assert (inbox.acked, inbox.received) == (0, 1000)
    inbox.put(announcement(1000, 2000, is_reset=True))
    await deliveries.end(0)
    assert (inbox.acked, inbox.received) == (0, 2000)  # the second page was begun when nothing was delivered
    await deliveries.end(1)
    assert inbox.acked == 2000


async def test_a_batch_of_several_changes_counts_from_the_batch_before():
    deliveries = Deliveries()
    inbox = Inbox(deliveries)
    inbox.put(Announcement(True, 0, 5, [], []))
    assert inbox.acked == 5
    inbox.put(announcement(5, 205))
    inbox.put(announcement(205, 300))
    assert inbox.acked == 5
    await deliveries.end(0)
    assert inbox.acked == 205
    await deliveries.end(1)
    assert inbox.acked == 300


async def test_the_same_page_twice_is_delivered_when_both_are():
    deliveries = Deliveries()
    inbox = Inbox(deliveries)
    inbox.put(announcement(0, 10, is_reset=True))
    inbox.put(announcement(0, 10, is_reset=True))
    await deliveries.end(1)
    assert inbox.acked == 0
    await deliveries.end(0)
    assert inbox.acked == 10


class Failing:
    """Deliveries in which some ontologies always fail, or so many times."""

    def __init__(self, **failures):
        self.failures, self.delivered = failures, []

    def __call__(self, seq, indications):
        names = [indication.ontology for indication in indications]
        for name in names:
            if self.failures.get(name, 0) > 0:
                self.failures[name] -= 1
                raise ValueError(name)
        self.delivered += names
        return asyncio.sleep(0)


async def until_over(inbox):
    await asyncio.gather(*inbox._work)


def of(*names):
    return [Indication(name, "{}", None, ["s"]) for name in names]


async def test_a_failed_delivery_is_given_again_and_not_acknowledged_before(monkeypatch):
    monkeypatch.setattr(inbox_module, "PAUSES_S", (0, 0, 0))
    deliver = Failing(A=2)
    inbox = Inbox(deliver)
    inbox.put(Announcement(True, 0, 5, of("A", "B"), []))
    assert inbox.acked == 0
    await until_over(inbox)
    assert (inbox.acked, inbox.set_aside, deliver.delivered) == (5, 0, ["A", "B"])


async def test_what_always_fails_is_set_aside_alone_and_logged(monkeypatch, caplog):
    monkeypatch.setattr(inbox_module, "PAUSES_S", (0, 0, 0))
    deliver = Failing(B=99)
    inbox = Inbox(deliver)
    with caplog.at_level(logging.ERROR):
        inbox.put(Announcement(True, 0, 5, of("A", "B", "C"), []))
        await until_over(inbox)
    assert (inbox.acked, inbox.set_aside, deliver.delivered) == (5, 1, ["A", "C"])
    assert [record.code for record in caplog.records] == ["feed.failed", "feed.set_aside"]


async def test_events_that_travel_together_fail_alone(monkeypatch):
    monkeypatch.setattr(inbox_module, "PAUSES_S", (0, 0, 0))
    handled = []

    def handle(seq, announced):
        numbers = [event.seq for events in announced for event in events.each()]
        if 2 in numbers:
            raise ValueError("the second")
        handled.extend(numbers)

    inbox = Inbox(handle)
    documents = b"".join(bson.encode({"v": number}) for number in range(3))
    inbox.put(Announcement(True, 0, 3, [], [Events(1, "A", 3, documents)]))
    await until_over(inbox)
    assert (inbox.acked, inbox.set_aside, handled) == (3, 1, [1, 3])


async def test_a_delivery_that_is_cancelled_is_never_acknowledged():
    inbox = Inbox(lambda seq, items: asyncio.get_running_loop().create_future())
    inbox.put(announcement(0, 10, is_reset=True))
    await asyncio.sleep(0)
    for task in inbox._work:
        task.cancel()
    await asyncio.sleep(0)
    assert inbox.acked == 0
