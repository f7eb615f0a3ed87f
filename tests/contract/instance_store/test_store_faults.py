"""A database that cannot decide says so, and says what to do; it works again when the cause is gone."""

import contextlib
import sqlite3

import pytest

from sib.errors import ConfigurationError, StoreError, StoreUnavailableError
from storage.open import open_bdtr


@pytest.fixture
def path(tmp_path):
    return tmp_path / "bdtr.db"


@pytest.fixture
def filled(path):
    store = open_bdtr(f"sqlite:{path}", writer=True)
    with store.begin() as transaction:
        transaction.insert_document("S", {"_id": 1})
    yield store
    store.close()


def test_a_locked_file_is_unavailable_and_available_afterwards(filled, path, monkeypatch):
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    filled._state.connection.connection.dbapi_connection.execute("PRAGMA busy_timeout=10")

    with pytest.raises(StoreUnavailableError, match="another process"), filled.begin():
        pass
    other.execute("COMMIT")
    other.close()

    with filled.begin() as transaction:
        transaction.insert_document("S", {"_id": 2})
    assert filled.count("S") == 2


def test_a_full_disk_takes_the_write_back_and_later_writes_work(filled):
    raw = filled._state.connection.connection.dbapi_connection
    pages = raw.execute("PRAGMA page_count").fetchone()[0]
    raw.execute(f"PRAGMA max_page_count={pages}")

    with pytest.raises(StoreUnavailableError, match="disk of the BDTR is full"), filled.begin() as transaction:
        transaction.insert_document("S", {"_id": 2, "text": "x" * 1_000_000})

    assert filled.count("S") == 1
    raw.execute("PRAGMA max_page_count=1000000")
    with filled.begin() as transaction:
        transaction.insert_document("S", {"_id": 2})
    assert [document["_id"] for document in filled.find("S")] == [1, 2]
    assert [change.seq for change in filled.changes(0, 10)] == [1, 2]


def test_a_commit_that_fails_leaves_the_store_usable(filled):
    """A disk without space for the log fails at the commit, where the database leaves its transaction open."""
    raw = filled._state.connection.connection.dbapi_connection
    refuse = sqlite3.SQLITE_DENY
    raw.set_authorizer(lambda action, verb, *_: refuse if (action, verb) == (22, "COMMIT") else sqlite3.SQLITE_OK)
    for _ in range(2):
        with pytest.raises(StoreError, match="not authorized"), filled.begin() as transaction:
            transaction.insert_document("S", {"_id": 2})
    raw.set_authorizer(None)

    with filled.begin() as transaction:
        transaction.insert_document("S", {"_id": 2})
    assert [document["_id"] for document in filled.find("S")] == [1, 2]
    assert [change.seq for change in filled.changes(0, 10)] == [1, 2]


def test_a_store_that_is_not_there_yet_is_unavailable_for_readers(path):
    reader = open_bdtr(f"sqlite:{path}", writer=False)
    with pytest.raises(StoreUnavailableError, match="cannot be opened"):
        list(reader.find("S"))

    open_bdtr(f"sqlite:{path}", writer=True).close()

    assert list(reader.find("S")) == []
    reader.close()


def test_a_file_that_is_no_database_is_named_as_such(path):
    path.write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(StoreUnavailableError, match="no SQLite database"):
        open_bdtr(f"sqlite:{path}", writer=True)


def test_a_damaged_file_says_restore(filled, path):
    with filled.begin() as transaction:
        transaction.insert_documents("S", [{"text": "x" * 1000} for _ in range(500)])
    filled.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * (size - 8192))

    with pytest.raises(StoreUnavailableError, match="damaged"):
        open_bdtr(f"sqlite:{path}", writer=True).count("S", {"x": 1})


def test_another_format_is_refused(filled, path):
    filled.close()
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE t_meta SET num = 99 WHERE name = 'format'")
    raw.close()

    with pytest.raises(ConfigurationError, match="format 99"):
        open_bdtr(f"sqlite:{path}", writer=True)


def test_a_commit_that_fails_and_cannot_be_read_back_is_read_back_later(filled, path, monkeypatch):
    from storage.bdtr.state import WriterState

    def unreadable(self):
        raise StoreUnavailableError("the disk has gone")

    before = filled.seq
    with monkeypatch.context() as patch, contextlib.suppress(ZeroDivisionError), filled.begin() as transaction:
        patch.setattr(WriterState, "reload", unreadable)
        transaction.insert_document("New", {"_id": 2})
        raise ZeroDivisionError

    assert filled.seq == before
    with filled.begin() as transaction:
        transaction.insert_document("S", {"_id": 2})
    assert filled.collections() == ["S"]
    assert [change.seq for change in filled.changes(0, 10)] == [1, 2] == [before, filled.seq]


def test_a_transaction_that_does_nothing_writes_nothing(filled, path):
    log = path.with_name(path.name + "-wal")
    size = log.stat().st_size

    with filled.begin():
        pass
    filled.expire(0)

    assert log.stat().st_size == size
