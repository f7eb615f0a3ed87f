"""INDICATIONs on their last way: order, msRefresh, silence, and what counts as delivered. Time is the test's."""

import asyncio
import json

import pytest

from actors.feed import Announcement, Indication
from actors.gateway import notifier as module
from actors.gateway.notifier import LocalSubscription, Notifier
from actors.inbox import Inbox
from sib.ssap.messages import Dialect


class Timer:
    def __init__(self, at_s, work):
        self.at_s, self.work, self.is_cancelled = at_s, work, False

    def cancel(self):
        self.is_cancelled = True


class Clock:
    """The loop's time and timers, moved by hand."""

    def __init__(self):
        self.now_s, self.timers = 1000.0, []

    def time(self):
        return self.now_s

    def call_later(self, delay_s, function, *arguments):
        self.timers.append(Timer(self.now_s + delay_s, lambda: function(*arguments)))
        return self.timers[-1]

    def create_future(self):
        return asyncio.get_running_loop().create_future()

    def advance(self, seconds):
        self.now_s += seconds
        due = [timer for timer in self.timers if timer.at_s <= self.now_s + 1e-9]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in due:
            if not timer.is_cancelled:
                timer.work()


class Sent(list):
    """What was delivered: (subscription id, the measures in it). ``slow`` deliveries wait for the test."""

    def __init__(self):
        super().__init__()
        self.slow = None

    def __call__(self, subscription, payload):
        message = json.loads(payload)
        body = message["body"] if isinstance(message["body"], dict) else json.loads(message["body"])
        rows = body["data"] if isinstance(body["data"], list) else json.loads(body["data"])
        self.append((message["messageId"], [row["m"] for row in rows]))
        return self.slow


@pytest.fixture
async def clock():
    return Clock()


@pytest.fixture
async def sent():
    return Sent()


@pytest.fixture
async def notifier(clock, sent):
    made = Notifier(sent)
    made._loop, made._clock = clock, clock.time
    return made


def subscription(id_="a", ms_refresh=0, *, session="s", dialect=Dialect.STRING, **options):
    return LocalSubscription(id_, session, "O", dialect, ms_refresh, **options)


def matched(measure, *ids, ontology="O"):
    return Indication(ontology, f'{{ "m" : {measure}}}', b'{"m":%d}' % measure, list(ids or ("a",)))


async def test_every_event_by_itself_without_ms_refresh(notifier, sent):
    notifier.add(subscription())
    assert notifier.apply(1, [matched(1), matched(2)]) is None
    assert sent == [("a", [1]), ("a", [2])]


@pytest.mark.parametrize("dialect", list(Dialect))
async def test_ms_refresh_sends_the_first_at_once_and_collects_the_rest(notifier, sent, clock, dialect):
    notifier.add(subscription(ms_refresh=500, dialect=dialect))
    notifier.apply(1, [matched(1), matched(2)])
    clock.advance(0.3)
    notifier.apply(2, [matched(3)])
    assert sent == [("a", [1])]
    clock.advance(0.2)
    assert sent == [("a", [1]), ("a", [2, 3])]
    clock.advance(0.1)
    notifier.apply(3, [matched(4)])
    clock.advance(0.3)
    assert len(sent) == 2
    clock.advance(0.1)
    assert sent[2:] == [("a", [4])]
    clock.advance(5)
    notifier.apply(4, [matched(5)])
    assert sent[3:] == [("a", [5])]


async def test_what_is_collected_counts_as_delivered_when_it_is_sent(notifier, clock):
    notifier.add(subscription(ms_refresh=500))
    inbox = Inbox(notifier.apply)
    inbox.put(Announcement(True, 0, 1, [matched(1)]))
    assert inbox.acked == 1
    inbox.put(Announcement(False, 1, 2, [matched(2)]))
    assert inbox.acked == 1
    clock.advance(0.5)
    for _ in range(5):
        await asyncio.sleep(0)
    assert inbox.acked == 2


async def test_what_is_collected_and_delivered_slowly_counts_when_that_is_done(notifier, sent, clock):
    notifier.add(subscription(ms_refresh=500))
    inbox = Inbox(notifier.apply)
    inbox.put(Announcement(True, 0, 1, [matched(1)]))
    inbox.put(Announcement(False, 1, 2, [matched(2)]))
    sent.slow = asyncio.get_running_loop().create_future()
    clock.advance(0.5)
    for _ in range(5):
        await asyncio.sleep(0)
    assert (sent[-1], inbox.acked) == (("a", [2]), 1)
    sent.slow.set_result(None)
    for _ in range(10):
        await asyncio.sleep(0)
    assert inbox.acked == 2


async def test_the_collection_is_bounded_and_sent_early_rather_than_lost(notifier, sent, clock, monkeypatch):
    monkeypatch.setattr(module, "ROWS_COLLECTED_MAX", 4)
    notifier.add(subscription(ms_refresh=3_600_000))
    for measure in range(7):
        notifier.apply(measure, [matched(measure)])
    assert sent == [("a", [0]), ("a", [1, 2, 3, 4])]
    clock.advance(3600)
    assert sent[2:] == [("a", [5, 6])]


async def test_one_indication_is_bounded(notifier, sent, clock, monkeypatch):
    monkeypatch.setattr(module, "ROWS_PER_INDICATION_MAX", 2)
    notifier.add(subscription(ms_refresh=100))
    notifier.apply(1, [matched(measure) for measure in range(6)])
    clock.advance(0.1)
    assert sent == [("a", [0]), ("a", [1, 2]), ("a", [3, 4]), ("a", [5])]


async def test_nothing_before_the_answer_to_subscribe(notifier, sent):
    notifier.add(subscription(is_announced=False))
    notifier.apply(1, [matched(1), matched(2)])
    assert sent == []
    notifier.announce("a")
    assert sent == [("a", [1]), ("a", [2])]
    notifier.announce("a")
    notifier.announce("unknown")
    notifier.apply(2, [matched(3)])
    assert len(sent) == 3


async def test_nothing_after_unsubscribe_and_what_is_pending_is_dropped(notifier, sent, clock):
    notifier.add(subscription(ms_refresh=500))
    notifier.apply(1, [matched(1)])
    waiting = asyncio.ensure_future(notifier.apply(2, [matched(2)]))
    assert notifier.remove("a").id == "a"
    clock.advance(1)
    notifier.apply(3, [matched(3)])
    assert sent == [("a", [1])]
    assert notifier.remove("a") is None
    assert notifier.stale == 1
    await asyncio.wait_for(waiting, 1)


async def test_a_session_ends_with_all_its_subscriptions(notifier, sent):
    for id_, session in (("a", "s"), ("b", "s"), ("c", "t")):
        notifier.add(subscription(id_, session=session))
    assert {gone.id for gone in notifier.remove_session("s")} == {"a", "b"}
    assert notifier.sessions() == ["t"]
    assert not notifier.has_session("s")
    notifier.apply(1, [matched(1, "a", "b", "c")])
    assert sent == [("c", [1])]
    assert len(notifier) == 1


async def test_a_known_subscription_keeps_its_state_when_it_is_added_again(notifier, sent, clock):
    notifier.add(subscription(ms_refresh=500))
    notifier.apply(1, [matched(1), matched(2)])
    notifier.add(subscription(ms_refresh=500))
    clock.advance(0.5)
    assert sent == [("a", [1]), ("a", [2])]


async def test_subscriptions_without_a_right_are_silent_until_it_comes_back(notifier, sent, clock):
    notifier.add(subscription(ms_refresh=100))
    notifier.apply(1, [matched(1), matched(2)])
    notifier.mute_except("s", {"Other"})
    clock.advance(1)
    notifier.apply(2, [matched(3)])
    assert sent == [("a", [1])]
    notifier.mute_except("s", {"O"})
    notifier.apply(3, [matched(4)])
    assert sent[1:] == [("a", [4])]


async def test_an_announcement_for_an_id_of_another_ontology_is_not_believed(notifier, sent):
    notifier.add(subscription())
    notifier.apply(1, [matched(1, ontology="P")])
    assert sent == []
    assert notifier.stale == 1


async def test_the_inbox_puts_announcements_back_into_their_order():
    got = []
    inbox = Inbox(lambda seq, indications: got.append(seq))
    inbox.put(Announcement(False, 2, 3, [matched(3)]))
    inbox.put(Announcement(False, 1, 2, [matched(2)]))
    assert (got, inbox.acked) == ([], 0)
    inbox.put(Announcement(True, 0, 1, [matched(1)]))
    assert (got, inbox.acked) == ([1, 2, 3], 3)
    inbox.put(Announcement(False, 1, 2, [matched(2)]))
    assert got == [1, 2, 3]


async def test_a_reset_drops_what_it_covers():
    got = []
    inbox = Inbox(lambda seq, indications: got.append(seq))
    inbox.put(Announcement(True, 0, 1, [matched(1)]))
    inbox.put(Announcement(False, 4, 5, [matched(5)]))
    inbox.put(Announcement(False, 8, 9, [matched(9)]))
    inbox.put(Announcement(True, 1, 8, [matched(8)]))
    assert got == [1, 8, 9]


async def test_what_was_announced_before_a_session_left_is_delivered(notifier, clock, sent):
    notifier.add(subscription("a", ms_refresh=2000))
    notifier.apply(1, [matched(1, "a")])
    collected = notifier.apply(2, [matched(2, "a")])
    notifier.leave_session("s")
    await collected
    assert notifier.sessions() == []
    clock.advance(3)
    assert notifier.apply(3, [matched(3, "a")]) is None
    clock.advance(3)
    assert len(notifier) == 0
    assert [measures for _, measures in sent] == [[1], [2], [3]]


async def test_a_session_that_comes_back_soon_stays(notifier, clock, sent):
    notifier.add(subscription("a", client="one"))
    notifier.leave_session("s")
    notifier.add(subscription("a", client="two"))
    clock.advance(60)
    notifier.apply(1, [matched(1, "a")])
    assert sent == [("a", [1])]
    assert notifier.sessions() == ["s"]
    assert notifier.clients() == {"two"}


async def test_callbacks_of_a_session_that_leaves_stay(notifier, clock, sent):
    notifier.add(subscription("a", endpoint="http://127.0.0.1/"))
    notifier.add(subscription("b"))
    notifier.leave_session("s")
    assert notifier.sessions() == ["s"]
    notifier.add(subscription("c", endpoint="http://127.0.0.1/"))  # the session speaks elsewhere all the same
    clock.advance(60)
    assert len(notifier) == 2
    assert notifier.sessions() == ["s"]
    notifier.remove_session("s")
    assert len(notifier) == 0


async def test_what_is_announced_before_the_session_is_here_waits_for_it(notifier, clock, sent):
    waiting = notifier.apply(1, [matched(1, "a")])
    waiting_too = notifier.apply(2, [matched(2, "a"), matched(2, "b")])
    assert sent == []
    notifier.add(subscription("a"))
    assert sent == [("a", [1]), ("a", [2])]
    await waiting
    later = asyncio.ensure_future(waiting_too)
    await asyncio.sleep(0)
    assert not later.done()
    clock.advance(6)
    await later
    assert notifier.stale == 1


async def test_nothing_waits_for_what_has_ended_and_not_too_much_for_anybody(notifier, monkeypatch):
    notifier.add(subscription("a"))
    notifier.remove("a")
    assert notifier.apply(1, [matched(1, "a")]) is None
    monkeypatch.setattr(module, "EARLY_ROWS_MAX", 2)
    assert notifier.apply(2, [matched(2, "b"), matched(3, "b")]) is not None
    assert notifier.apply(3, [matched(4, "b")]) is None
    assert notifier.stale == 2
