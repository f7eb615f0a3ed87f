"""The health of databases: bounded, and a frozen one is asked once only."""

import asyncio
import threading
import time

from actors import health
from actors.health import Probe, failure_of_last, with_failed_writes
from sib.errors import StoreUnavailableError


async def test_a_database_that_answers_is_well():
    found = await Probe(lambda: None).health()
    assert found["state"] == "ok"
    assert found["latency_ms"] >= 0


async def test_what_is_wrong_is_told_and_it_recovers():
    calls = iter([StoreUnavailableError("The database did not answer."), None])

    def ask():
        error = next(calls)
        if error:
            raise error

    probe = Probe(ask)
    assert await probe.health() == {"state": "failed", "detail": "The database did not answer."}
    assert (await probe.health())["state"] == "ok"


async def test_our_own_fault_shows_no_secret():
    def ask():
        raise ValueError("mysql://u:hunter2@host")

    found = await Probe(ask).health()
    assert found == {"state": "failed", "detail": "it cannot be asked (ValueError)"}


async def test_a_frozen_database_is_asked_once_and_holds_up_nobody(monkeypatch):
    monkeypatch.setattr(health, "ANSWER_S", 0.05)
    thaws, asked = threading.Event(), []

    def ask():
        asked.append(1)
        assert thaws.wait(10)

    probe = Probe(ask)
    began = time.monotonic()
    found = await asyncio.gather(*(probe.health() for _ in range(5)))
    assert time.monotonic() - began < 5
    assert {each["state"] for each in found} == {"failed"}
    assert "has not answered for 0 s" in found[0]["detail"]
    assert (await probe.health())["state"] == "failed"
    assert len(asked) == 1
    thaws.set()
    monkeypatch.setattr(health, "ANSWER_S", 10)
    assert (await probe.health())["state"] == "ok"
    assert (await probe.health())["state"] == "ok"
    assert len(asked) == 2


def test_a_database_that_reads_but_does_not_write_has_failed():
    well = {"state": "ok", "latency_ms": 1.0, "partitions": 2}
    assert with_failed_writes(well, [None, None]) == well
    failed = with_failed_writes(well, [None, "The disk is full."])
    assert failed == {**well, "state": "failed", "detail": "the last write failed: The disk is full."}
    gone = {"state": "failed", "detail": "it cannot be reached"}
    assert with_failed_writes(gone, ["The disk is full."]) == gone


def test_of_the_writes_of_several_processes_the_last_counts():
    assert failure_of_last([]) is None
    assert failure_of_last([(0.0, None), (7.0, "The disk is full."), (6.0, None)]) == "The disk is full."
    assert failure_of_last([(7.0, "The disk is full."), (8.0, None), (0.0, None)]) is None
