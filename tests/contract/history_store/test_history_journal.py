"""Queries on the history alone, while the real-time database answers, fails or does not answer at all."""

import logging
import threading
import time
from contextlib import contextmanager
from datetime import datetime

import pytest

from sib.errors import StoreUnavailableError
from storage.bdh.journal import THREADS, Journals
from storage.bdh.query import HistoryQueries

DAY_1, DAY_2 = datetime(2026, 1, 1, 10), datetime(2026, 1, 2, 10)


class Frozen:
    """A store whose snapshots begin when it is let go."""

    def __init__(self, store):
        self.store, self.may_go, self.n_asked = store, threading.Event(), 0

    @contextmanager
    def snapshot(self):
        self.n_asked += 1
        assert self.may_go.wait(60)
        with self.store.snapshot() as snapshot:
            yield snapshot


@pytest.fixture
def frozen(world):
    frozen = Frozen(world.store)
    yield frozen
    frozen.may_go.set()


class Dies:
    """Killed when the instances have left the real-time database and the manifest does not know it yet."""

    def add(self, records):
        raise InterruptedError


def test_what_the_manifest_does_not_know_yet_is_found_by_the_journal(world):
    world.insert(range(5), DAY_1)
    with pytest.raises(InterruptedError):
        world.transfer(manifest=Dies()).run(DAY_2)
    assert world.manifest.files("S") == []
    assert world.history() == list(range(5))


def test_a_frozen_real_time_database_holds_up_one_query_for_a_moment_only(world, frozen, caplog):
    world.insert(range(5), DAY_1)
    world.transfer().run(DAY_2)
    queries = HistoryQueries(world.files, world.manifest, lambda name: world.ontology, lambda name: frozen)
    try:
        with caplog.at_level(logging.WARNING, "sofia2.history"):
            began = time.monotonic()
            for _ in range(20):
                assert queries.run("select count(*) from S").rows == [(5,)]
            assert time.monotonic() - began < 10
        assert frozen.n_asked == 1
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        frozen.may_go.set()
        assert queries.run("select count(*) from both.S").rows == [(5,)]
    finally:
        queries.close()


def test_a_journal_that_answers_again_is_read_again(world, frozen):
    journals = Journals(lambda name: frozen, wait_s=0.01)
    for _ in range(3):
        with pytest.raises(StoreUnavailableError, match="does not answer in time"):
            journals.rows("S")
    assert frozen.n_asked == 1
    late = journals._late["S"]
    frozen.may_go.set()
    late.result(60)
    patient = Journals(lambda name: frozen)
    assert patient.rows("S") == []
    assert patient.rows("S") == []
    assert frozen.n_asked == 3
    patient.close()
    journals.close()


def test_one_frozen_database_does_not_keep_others_from_being_read(world, frozen):
    journals = Journals(lambda name: frozen if name == "frozen" else None, wait_s=0.5)
    with pytest.raises(StoreUnavailableError):
        journals.rows("frozen")
    for _ in range(2 * THREADS):
        assert journals.rows("other") == []
    journals.close()


def test_a_failure_is_that_of_the_store(world):
    def store_of(name):
        raise StoreUnavailableError("gone")

    journals = Journals(store_of)
    with pytest.raises(StoreUnavailableError, match="gone"):
        journals.rows("S")
    queries = HistoryQueries(world.files, world.manifest, lambda name: world.ontology, store_of)
    assert queries.run("select count(*) from S").rows == [(0,)]
    with pytest.raises(StoreUnavailableError, match="gone"):
        queries.run("select count(*) from both.S")
    queries.close()
    journals.close()
