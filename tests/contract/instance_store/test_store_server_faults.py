"""A server that is gone, locked, refusing or of another version; writers that are killed. Nothing acknowledged is lost."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest

import sofia2.bdtr
from sib.errors import ConfigurationError, SibError, StoreUnavailableError
from storage.open import open_bdtr
from tests.own_servers import own_server

SERVERS = ("mariadb", "postgresql", "mongodb", "oracle")
ALL = ("sqlite", *SERVERS)


def insert(store, *numbers):
    with store.begin() as transaction:
        transaction.insert_documents("S", [{"_id": number} for number in numbers])


def stored(store):
    return sorted(document["_id"] for document in store.find("S"))


@pytest.mark.adapters(*SERVERS)
def test_a_server_that_is_not_there_is_unavailable_soon(store_url):
    nobody = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", store_url)
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        open_bdtr(nobody, writer=True)
    assert time.monotonic() - began < 15
    reader = open_bdtr(nobody, writer=False)
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        list(reader.find("S"))
    reader.close()


@pytest.mark.adapters("mariadb", "postgresql")
def test_a_wrong_password_is_said_and_not_shown(store_url):
    with pytest.raises(StoreUnavailableError, match="refuses the user or the password") as caught:
        open_bdtr(store_url.replace("sofia2:sofia2@", "sofia2:wr0ng-secret@"), writer=True)
    assert "wr0ng-secret" not in str(caught.value)


@pytest.mark.adapters("postgresql")
def test_a_database_that_is_not_there_is_said(store_url):
    with pytest.raises(StoreUnavailableError, match="no such database"):
        open_bdtr(store_url.replace("/sofia2?", "/nothing?"), writer=True)


@pytest.mark.adapters("mariadb")
def test_a_database_that_is_not_allowed_is_said(store_url):
    with pytest.raises(StoreUnavailableError, match="rights of the user"):
        open_bdtr(store_url.replace("/sofia2?", "/mysql?").partition("?")[0] + "x", writer=True)


@pytest.mark.adapters("postgresql")
def test_a_read_only_database_takes_no_writes_and_answers_reads(store, store_url):
    insert(store, 1)
    store.close()
    read_only = open_bdtr(store_url, writer=False)
    with pytest.raises(StoreUnavailableError, match="read-only"), read_only._session() as connection:  # noqa: PT012
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        connection.exec_driver_sql("DELETE FROM t_block")
    assert stored(read_only) == [1]
    read_only.close()


@pytest.mark.adapters("mariadb", "postgresql", "mongodb")
def test_a_server_that_is_killed_loses_nothing_and_the_store_goes_on_by_itself(store, store_url, server):
    reader = open_bdtr(store_url, writer=False)
    insert(store, 1, 2)
    assert stored(reader) == [1, 2]

    with pytest.raises(StoreUnavailableError), store.begin() as transaction:  # noqa: PT012
        transaction.insert_documents("S", [{"_id": 3}])
        server.control("kill")
    with pytest.raises(StoreUnavailableError):
        insert(store, 4)
    with pytest.raises(StoreUnavailableError):
        stored(reader)
    server.control("start")

    insert(store, 5)
    assert stored(reader) == stored(store) == [1, 2, 5]
    assert [change.id for change in reader.changes(0, 10)] == [1, 2, 5]
    assert store.seq == 3
    reader.close()


@pytest.mark.adapters(*SERVERS)
def test_writers_wait_for_each_other_but_not_for_ever(store, store_url):
    other = open_bdtr(store_url, writer=True)
    insert(store, 1)
    with store.begin() as transaction:
        transaction.insert_documents("S", [{"_id": 2}])
        with pytest.raises(StoreUnavailableError, match="another process"):
            insert(other, 3)
    insert(other, 4)
    assert stored(store) == [1, 2, 4]
    other.close()


def test_another_format_is_refused_everywhere(store, store_url, adapter):
    insert(store, 1)
    if adapter == "mongodb":
        store._notes.update_one({"_id": "state"}, {"$set": {"format": 99}})
    else:
        with store._state.connection.begin():
            store._state.connection.exec_driver_sql("UPDATE t_meta SET num = 99 WHERE name = 'format'")
    store.close()

    with pytest.raises(ConfigurationError, match="format 99"):
        open_bdtr(store_url, writer=True)


WRITER = """
    import sys, sofia2.bdtr
    with sofia2.bdtr.open(sys.argv[1]) as database:
        collection = database["S"]
        for number in range(int(sys.argv[2]), 100_000):
            collection.insert_many([{"_id": number * 10 + at} for at in range(10)])
            print(number, flush=True)
"""


@pytest.mark.adapters(*ALL)
def test_a_writer_that_is_killed_loses_nothing_acknowledged_and_leaves_no_half(store_url):
    start = 0
    for _ in range(3):
        command = [sys.executable, "-c", textwrap.dedent(WRITER), store_url, str(start)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=os.getcwd())
        acknowledged = [int(writer.stdout.readline()) for _ in range(8)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout.read().split("\n") if line]
        writer.wait()

        began = time.monotonic()
        store = open_bdtr(store_url, writer=True)
        with store.begin() as transaction:
            transaction.set_position("test", 1)
        assert time.monotonic() - began < 10
        found = stored(store)
        batches = sorted({number // 10 for number in found})
        assert set(acknowledged) <= set(batches)
        assert found == [batch * 10 + at for batch in batches for at in range(10)]
        assert len(store.changes(0, 100_000)) == len(found)
        store.close()
        start = batches[-1] + 1


COUNTER = """
    import sys, sofia2.bdtr
    from sib.errors import StoreUnavailableError
    with sofia2.bdtr.open(sys.argv[1]) as database:
        for _ in range(25):
            while True:
                try:
                    database["S"].update_one({"_id": "counter"}, {"$inc": {"n": 1}}, upsert=True)
                    break
                except StoreUnavailableError:
                    pass
"""


@pytest.mark.adapters(*ALL)
def test_several_processes_count_together(store_url):
    open_bdtr(store_url, writer=True).close()
    command = [sys.executable, "-c", textwrap.dedent(COUNTER), store_url]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(100) for process in processes] == [0, 0]

    with sofia2.bdtr.open(store_url) as database:
        assert database["S"].find_one({"_id": "counter"})["n"] == 50


def test_a_document_that_the_database_refuses_leaves_the_transaction_usable(store):
    huge = {"_id": 2, "text": "x" * (17 * 1024 * 1024)}
    with store.begin() as transaction:
        transaction.insert_document("S", {"_id": 1})
        with contextlib.suppress(SibError), transaction.savepoint():
            transaction.insert_document("S", huge)
        transaction.insert_document("S", {"_id": 3})
    assert stored(store) == [1, 3]


@pytest.mark.server
def test_a_mongodb_without_transactions_is_refused(tmp_path, monkeypatch):
    """It could lose instances: the commit of a move to the history is deletes and a note, and there is nothing to join them."""
    monkeypatch.setenv("SOFIA2_MONGODB_STANDALONE", "1")
    with own_server("mongodb", tmp_path) as standalone:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=r"no replica set.*rs\.initiate"):
                open_bdtr(standalone.url, writer=True)
        reader = open_bdtr(standalone.url, writer=False)
        assert reader.collections() == []
        with pytest.raises(ConfigurationError, match=r"no replica set"), reader.snapshot():
            pass
        reader.close()
