"""What drivers say, and what it means."""

import psycopg
import pymongo.errors
import pymysql
import pytest
from sqlalchemy.exc import OperationalError

from sib.errors import DuplicateKeyError, QueryError, QueryTimeoutError, StoreError, StoreUnavailableError
from storage.bdtr.failures import store_errors
from storage.bdtr.mongo_client import connect, mongo_errors


def postgresql(state):
    error = psycopg.OperationalError("says the server")
    error.sqlstate = state
    return error


MEANINGS = [
    (pymysql.OperationalError(1045, "Access denied"), "user or the password"),
    (pymysql.OperationalError(1049, "Unknown database"), "no such database"),
    (pymysql.OperationalError(1205, "Lock wait timeout"), "another process"),
    (pymysql.OperationalError(1213, "Deadlock"), "another process"),
    (pymysql.OperationalError(1290, "--read-only"), "read-only"),
    (pymysql.OperationalError(1021, "Disk full"), "disk of the BDTR is full"),
    (pymysql.OperationalError(1030, "Got error 28 from storage engine; errno: 28"), "disk of the BDTR is full"),
    (pymysql.OperationalError(2003, "Can't connect"), "cannot be reached"),
    (pymysql.OperationalError(2013, "Lost connection"), "cannot be reached"),
    (pymysql.OperationalError(1969, "Query execution was interrupted"), "too long"),
    (pymysql.ProgrammingError(1146, "no table"), "not been set up"),
    (postgresql("28P01"), "user or the password"),
    (postgresql("3D000"), "no such database"),
    (postgresql("40P01"), "another process"),
    (postgresql("53100"), "disk of the BDTR is full"),
    (postgresql("25006"), "read-only"),
    (postgresql("57P01"), "cannot be reached"),
    (postgresql("57014"), "too long"),
    (postgresql("42P01"), "not been set up"),
    (psycopg.OperationalError("connection failed: password authentication failed"), "user or the password"),
    (psycopg.OperationalError("connection timeout expired"), "cannot be reached"),
]


@pytest.mark.parametrize(("error", "meaning"), MEANINGS, ids=str)
def test_what_may_succeed_later_is_unavailable(error, meaning):
    with pytest.raises(StoreUnavailableError, match=meaning), store_errors():
        raise OperationalError("INSERT secret", {"secret": 1}, error)


def test_the_reason_is_in_our_words_only():
    with pytest.raises(StoreUnavailableError, match="/secret/path") as caught, store_errors():
        raise OperationalError("INSERT", {}, pymysql.OperationalError(1021, "Disk full writing /secret/path"))
    assert caught.value.reason == "the disk of the BDTR is full"
    with pytest.raises(StoreUnavailableError, match="host-7") as caught, mongo_errors():
        raise pymongo.errors.AutoReconnect("host-7: connection closed")
    assert caught.value.reason == "it cannot be reached or has closed the connection"


@pytest.mark.parametrize("error", [pymysql.DataError(1406, "Data too long"), postgresql("22001")], ids=str)
def test_what_the_database_refuses_is_an_error_of_the_write(error):
    with pytest.raises(StoreError, match="refused") as caught, store_errors():
        raise OperationalError("INSERT secret", {"secret": 1}, error)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (
            pymongo.errors.ServerSelectionTimeoutError("host:1: refused, Timeout: 5s, Topology"),
            StoreUnavailableError,
            "reached",
        ),
        (pymongo.errors.AutoReconnect("connection closed"), StoreUnavailableError, "reached"),
        (pymongo.errors.NotPrimaryError("not primary"), StoreUnavailableError, "reached"),
        (pymongo.errors.OperationFailure("Authentication failed", 18), StoreUnavailableError, "password"),
        (pymongo.errors.OperationFailure("not authorized", 13), StoreUnavailableError, "rights"),
        (pymongo.errors.OperationFailure("disk", 14031), StoreUnavailableError, "disk of the BDTR is full"),
        (pymongo.errors.OperationFailure("WriteConflict", 112), StoreUnavailableError, "another process"),
        (pymongo.errors.OperationFailure("stepdown", 189), StoreUnavailableError, "no primary"),
        (pymongo.errors.ExecutionTimeout("operation exceeded time limit", 50), QueryTimeoutError, "time limit"),
        (pymongo.errors.OperationFailure("bad value", 2), QueryError, "bad value"),
        (pymongo.errors.DuplicateKeyError("E11000", 11000), DuplicateKeyError, "Duplicate"),
        (
            pymongo.errors.BulkWriteError({"writeErrors": [{"code": 11000, "errmsg": "E11000"}]}),
            DuplicateKeyError,
            "Duplicate",
        ),
        (
            pymongo.errors.BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64, "errmsg": "w"}]}),
            StoreUnavailableError,
            "primary",
        ),
        (pymongo.errors.DocumentTooLarge("BSON too large"), StoreError, "cannot be stored"),
    ],
    ids=lambda value: type(value).__name__ + getattr(value, "__name__", ""),
)
def test_what_mongodb_says(error, kind, text):
    with pytest.raises(kind, match=text), mongo_errors():
        raise error


def test_the_url_of_a_mongodb_is_completed_and_its_own_options_win():
    client, database, partition = connect("mongodb://host:1/iot?partition=p-1&w=1&serverSelectionTimeoutMS=7")
    with client:
        assert (database, partition) == ("iot", "p-1")
        assert client.write_concern.document == {"w": 1, "j": True}
        assert client.options.server_selection_timeout == 0.007
        assert client.read_concern.level == "majority"
    client, database, _ = connect("mongodb://host:1")
    with client:
        assert database == "sofia2"
        assert client.write_concern.document == {"w": "majority", "j": True}
