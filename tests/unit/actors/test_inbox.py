"""What a gateway says it has delivered: never more than it has."""

import asyncio

from actors.feed import Announcement, Indication
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
