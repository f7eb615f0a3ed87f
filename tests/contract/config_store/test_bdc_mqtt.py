"""Persistent MQTT sessions and their queues."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from sib.errors import LimitError, StoreError
from storage.bdc.mqtt import ForeignSessionsError
from storage.bdc.records import MqttMessageRecord, MqttRetainedRecord, MqttSessionRecord, QueueState

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456)
SESSION = MqttSessionRecord("client", "gateway-1", [{"filter": "a/#", "qos": 2}], 3600)


def message(number, **changes):
    made = MqttMessageRecord("client", number, "topic/ñ", b"\x00\xff" * 10, 1)
    return replace(made, **changes)


def test_sessions_come_back_as_they_were_saved(bdc):
    bdc.mqtt.save(SESSION)
    assert bdc.mqtt.get("client") == SESSION
    moved = replace(SESSION, gateway="gateway-2", disconnected_at=NOW)
    bdc.mqtt.save(moved)
    assert bdc.mqtt.load("gateway-1") == []
    assert bdc.mqtt.load("gateway-2") == bdc.mqtt.load() == [moved]
    assert bdc.mqtt.get("Client") is None


def test_saving_a_session_keeps_its_queue_and_deleting_takes_it(bdc):
    bdc.mqtt.save(SESSION)
    bdc.mqtt.enqueue([message(1)])
    bdc.mqtt.save(SESSION)
    assert len(bdc.mqtt.queue("client", 10)) == 1
    bdc.mqtt.delete("client")
    bdc.mqtt.delete("client")
    assert bdc.mqtt.get("client") is None
    assert bdc.mqtt.queue("client", 10) == []


def test_many_sessions_in_one_call(bdc):
    sessions = [replace(SESSION, client_id=f"c{number}") for number in range(1200)]
    bdc.mqtt.save()
    bdc.mqtt.save(*sessions, replace(sessions[0], expiry_s=1))
    bdc.mqtt.save(*sessions[1:])
    bdc.mqtt.enqueue([message(1, client_id=session.client_id) for session in sessions])
    assert sorted({session.expiry_s for session in bdc.mqtt.load()}) == [1, 3600]
    bdc.mqtt.delete()
    bdc.mqtt.delete(*(session.client_id for session in sessions[:-1]))
    assert [session.client_id for session in bdc.mqtt.load()] == ["c1199"]
    assert bdc.mqtt.queue("c0", 10) == []
    assert len(bdc.mqtt.queue("c1199", 10)) == 1


def test_a_queue_gives_messages_in_the_order_of_their_numbers(bdc):
    messages = [
        message(1, retain=True, qos=2, properties={"user": [["a", "b"]]}, expires_at=NOW),
        message(2, payload=b"", topic=""),
        message(10, payload=b"x" * 200_000),
    ]
    bdc.mqtt.enqueue([*messages[::-1], message(1, client_id="other")])
    assert bdc.mqtt.queue("client", 10) == messages
    assert bdc.mqtt.queue("client", 2) == messages[:2]
    assert bdc.mqtt.queue("client", 10, after=2) == messages[2:]


def test_delivered_messages_are_forgotten(bdc):
    bdc.mqtt.enqueue([message(number) for number in (1, 2, 3)])
    bdc.mqtt.enqueue([])
    bdc.mqtt.dequeue([("client", 1), ("client", 3), ("client", 99), ("other", 2)])
    bdc.mqtt.dequeue([])
    assert [item.number for item in bdc.mqtt.queue("client", 10)] == [2]


def test_a_number_is_taken_once_and_a_refused_batch_leaves_nothing(bdc):
    bdc.mqtt.enqueue([message(1)])
    with pytest.raises(StoreError):
        bdc.mqtt.enqueue([message(2), message(1)])
    assert [item.number for item in bdc.mqtt.queue("client", 10)] == [1]


def test_the_state_of_a_queue(bdc):
    assert bdc.mqtt.queue_state("client") == QueueState(0, 0, 0)
    bdc.mqtt.enqueue([message(3, topic="t"), message(7, topic="t")])
    assert bdc.mqtt.queue_state("client") == QueueState(messages=2, size_bytes=42, last_number=7)


def test_sessions_expire_after_their_disconnect_only(bdc):
    bdc.mqtt.save(SESSION)
    bdc.mqtt.save(replace(SESSION, client_id="gone", disconnected_at=NOW - timedelta(seconds=3600)))
    bdc.mqtt.save(replace(SESSION, client_id="back soon", disconnected_at=NOW - timedelta(seconds=3599)))
    bdc.mqtt.enqueue([message(1, client_id="gone"), message(1), message(2, expires_at=NOW)])
    assert bdc.mqtt.delete_expired(NOW) == ["gone"]
    assert {item.client_id for item in bdc.mqtt.load()} == {"client", "back soon"}
    assert bdc.mqtt.queue("gone", 10) == []
    assert [item.number for item in bdc.mqtt.queue("client", 10)] == [1]


def test_over_long_client_ids_are_refused(bdc):
    with pytest.raises(LimitError, match="255"):
        bdc.mqtt.save(SESSION, replace(SESSION, client_id="x" * 256))
    assert bdc.mqtt.load() == []
    bdc.mqtt.save(replace(SESSION, client_id="x" * 255))


def test_what_another_gateway_holds_cannot_be_changed(bdc):
    bdc.mqtt.save(SESSION)
    bdc.mqtt.enqueue([message(1)], owner="gateway-1")
    assert bdc.mqtt.claim(["client", "unknown"], "gateway-2") == [replace(SESSION, gateway="gateway-2")]
    other = replace(SESSION, client_id="other")
    with pytest.raises(ForeignSessionsError) as caught:
        bdc.mqtt.save(other, replace(SESSION, expiry_s=1), owner="gateway-1")
    assert caught.value.client_ids == ["client"]
    with pytest.raises(ForeignSessionsError):
        bdc.mqtt.enqueue([message(2), message(1, client_id="other")], owner="gateway-1")
    bdc.mqtt.delete("client", "other", owner="gateway-1")
    assert [item.client_id for item in bdc.mqtt.load()] == ["client"]
    assert [item.number for item in bdc.mqtt.queue("client", 10)] == [1]
    assert bdc.mqtt.queue("other", 10) == []
    bdc.mqtt.enqueue([message(2)], owner="gateway-2")
    bdc.mqtt.delete("client", owner="gateway-2")
    assert bdc.mqtt.load() == bdc.mqtt.queue("client", 10) == []


def test_sessions_of_a_gateway_that_is_no_more_find_another(bdc):
    bdc.mqtt.save(SESSION, replace(SESSION, client_id="b", gateway="gateway-2"))
    assert bdc.mqtt.adopt("gateway-1", ["gateway-1", "gateway-2"]) == 0
    assert bdc.mqtt.adopt("gateway-1", ["gateway-1"]) == 1
    assert {item.client_id for item in bdc.mqtt.load("gateway-1")} == {"client", "b"}


def test_retained_messages_newest_by_their_stamp(bdc):
    first = MqttRetainedRecord("a/ñ", b"\x00\xff", 1, [[3, "text"]], 10)
    long = MqttRetainedRecord("x" * 60_000, b"y" * 100_000, 0, [], 11, NOW + timedelta(seconds=1))
    bdc.retained.put([first, long])
    bdc.retained.put([])
    bdc.retained.put([replace(first, payload=b"older", stamp=9)])
    assert sorted(bdc.retained.load(NOW), key=lambda record: record.stamp) == [first, long]
    assert bdc.retained.load(NOW + timedelta(seconds=1)) == [first]
    assert bdc.retained.load(NOW) == [first]
    bdc.retained.put([replace(first, payload=b"new", stamp=12), replace(first, payload=b"", stamp=11)])
    assert [record.payload for record in bdc.retained.load(NOW)] == [b"new"]
    bdc.retained.put([replace(first, payload=b"", stamp=13)])
    assert bdc.retained.load(NOW) == []


def test_many_retained_messages_in_one_call(bdc):
    records = [MqttRetainedRecord(f"t/{number}", b"1", 0, [], 1) for number in range(1200)]
    bdc.retained.put(records)
    bdc.retained.put([replace(record, payload=b"2", stamp=2) for record in records])
    assert {record.payload for record in bdc.retained.load(NOW)} == {b"2"}
