"""The state of a session: windows, queues, exactly once."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sib.mqtt.session import MESSAGE_OVERHEAD_BYTES, PACKET_ID_MAX, Message, QueueBounds, Session
from sib.mqtt.topics import Subscription


def message(text: str = "x", qos: int = 1) -> Message:
    return Message("t", text.encode(), qos)


def test_packet_ids_go_round_and_leave_out_those_under_way():
    session = Session("c", packet_id=PACKET_ID_MAX - 1)
    assert session.start(message()) == PACKET_ID_MAX
    assert session.start(message()) == 1
    session._packet_id = PACKET_ID_MAX - 1
    assert session.start(message()) == 2


def test_qos_2_to_the_client():
    session = Session("c")
    first = message("a", 2)
    packet_id = session.start(first)
    assert session.release(packet_id) == (True, first)
    assert session.release(packet_id) == (True, None)
    assert list(session.unfinished()) == [(packet_id, None)]
    assert session.finish(packet_id) is None
    assert session.in_flight_count == 0
    assert session.release(packet_id) == (False, None)


def test_unfinished_keeps_the_order_of_sending():
    session = Session("c")
    sent = [message(str(number)) for number in range(5)]
    ids = [session.start(one) for one in sent]
    session.finish(ids[1])
    assert [one for _, one in session.unfinished()] == [sent[0], sent[2], sent[3], sent[4]]


def test_a_full_queue_drops_its_oldest():
    session = Session("c")
    bounds = QueueBounds(messages_max=2)
    sent = [message(str(number)) for number in range(3)]
    assert [session.enqueue(one, bounds) for one in sent] == [[], [], [sent[0]]]
    assert [session.dequeue(), session.dequeue(), session.dequeue()] == [sent[1], sent[2], None]
    assert session.queue_bytes == 0


def test_a_queue_is_bounded_by_bytes_too():
    session = Session("c")
    bounds = QueueBounds(messages_max=100, bytes_max=3 * (MESSAGE_OVERHEAD_BYTES + 10))
    small = [message("x" * 10) for _ in range(3)]
    for one in small:
        assert session.enqueue(one, bounds) == []
    large = message("y" * (MESSAGE_OVERHEAD_BYTES + 20))
    assert session.enqueue(large, bounds) == small[:2]
    huge = message("z" * 10_000)
    assert session.enqueue(huge, bounds) == [huge]
    assert session.queue_count == 2


def test_a_qos_2_request_runs_once():
    session = Session("c")
    assert session.receive(7)
    assert not session.receive(7)
    assert not session.is_decided(7)
    assert session.decide(7)
    assert not session.decide(7)
    assert session.is_decided(7)
    assert not session.receive(7)
    assert session.complete(7)
    assert not session.complete(7)
    assert session.receive(7)


def test_what_could_not_be_decided_runs_again():
    session = Session("c")
    session.receive(1)
    session.receive(2)
    session.forget(1)
    assert session.receive(1)
    assert not session.receive(2)


def test_a_session_comes_back_from_json():
    session = Session("c", expiry_s=60)
    session.subscriptions = {"a/#": Subscription(2, True, False, 1, 9), "$share/g/b": Subscription(0)}
    session.receive(5)
    session.receive(6)
    session.decide(5)
    again = Session.from_state("c", json.loads(json.dumps(session.to_state())), expiry_s=60, packet_id=100)
    assert again.subscriptions == session.subscriptions
    assert again.is_decided(5)
    assert again.receive(6)
    assert again.start(message()) == 101
    assert again.is_persistent


@given(st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=40), st.integers(0, 5), st.integers(0, 1500))
def test_queue_bounds_always_hold(steps, messages_max, bytes_max):
    session, bounds = Session("c"), QueueBounds(messages_max, bytes_max)
    added = dropped = taken = 0
    for size, is_taken in steps:
        if is_taken:
            taken += session.dequeue() is not None
        else:
            added += 1
            dropped += len(session.enqueue(Message("t", b"x" * size, 1), bounds))
        assert session.queue_count <= messages_max
        assert session.queue_bytes <= bytes_max
    assert added == dropped + taken + session.queue_count


class Deliveries(RuleBasedStateMachine):
    """A session against the plain idea of it: what is under way, in order, with a state each."""

    def __init__(self):
        super().__init__()
        self.session = Session("c", packet_id=PACKET_ID_MAX - 3)
        self.under_way: dict[int, Message | None] = {}

    @rule(qos=st.sampled_from([1, 2]))
    def send(self, qos):
        one = message(qos=qos)
        packet_id = self.session.start(one)
        assert packet_id not in self.under_way
        assert 1 <= packet_id <= PACKET_ID_MAX
        self.under_way[packet_id] = one

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def finish(self, data):
        packet_id = data.draw(st.sampled_from(sorted(self.under_way)))
        assert self.session.finish(packet_id) is self.under_way.pop(packet_id)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def release(self, data):
        packet_id = data.draw(st.sampled_from(sorted(self.under_way)))
        assert self.session.release(packet_id) == (True, self.under_way[packet_id])
        self.under_way[packet_id] = None

    @rule(packet_id=st.integers(100, 200))
    def finish_unknown(self, packet_id):
        assert self.session.finish(packet_id) is self.under_way.pop(packet_id, None)

    @invariant()
    def same(self):
        assert list(self.session.unfinished()) == list(self.under_way.items())
        assert self.session.in_flight_count == len(self.under_way)


TestDeliveries = Deliveries.TestCase
