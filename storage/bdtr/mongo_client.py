"""The connection to a MongoDB and what its failures mean.

The client is the synchronous one: a partition serves one batch after the other and a query worker reads in threads, so an
event loop would only add a hop between threads to each call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pymongo.errors as failures
from bson.errors import BSONError
from pymongo import MongoClient
from pymongo.uri_parser import parse_uri

from sib.errors import (
    ConfigurationError,
    DuplicateKeyError,
    QueryError,
    QueryTimeoutError,
    SibError,
    StoreError,
)
from storage.bdtr.failures import unavailable

Client: TypeAlias = MongoClient

DATABASE = "sofia2"
"""The database of a URL that names none."""
TRANSIENT = "TransientTransactionError"

_DEFAULTS = {
    "serverSelectionTimeoutMS": 5_000,
    "connectTimeoutMS": 5_000,
    "socketTimeoutMS": 60_000,
    "w": "majority",
    "journal": "true",
    # A primary shows what was acknowledged by the majority, and nothing that a fail-over could take back.
    "readConcernLevel": "majority",
    "maxPoolSize": 32,
    "appname": "sofia2",
}
_PARTITION = re.compile(r"[A-Za-z0-9_-]{1,40}")


def connect(url: str) -> tuple[Client, str, str]:
    """(client, name of the database, name of the partition or ""). Nothing is sent to the server yet.

    Raises:
        ConfigurationError: the URL cannot be used; it is not shown, it may hold a password.
    """
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        partition = options.pop("partition", "")
        given = {name.lower() for name in options}
        options.update({name: str(value) for name, value in _DEFAULTS.items() if name.lower() not in given})
        path = parts.path or "/"
        address = urlunsplit((parts.scheme, parts.netloc, path, urlencode(options), ""))
        name = parse_uri(address)["database"] if parts.scheme == "mongodb" else path.strip("/")
        if partition and not _PARTITION.fullmatch(partition):
            raise ConfigurationError("The partition in the BDTR URL is a name of at most 40 letters, digits, - and _.")
        return MongoClient(address), name or DATABASE, partition
    except (failures.PyMongoError, ValueError) as error:
        raise ConfigurationError(
            f"The BDTR URL cannot be used ({type(error).__name__}): write mongodb://USER:PASSWORD@HOST/DATABASE?replicaSet=NAME."
        ) from None


@contextmanager
def mongo_errors() -> Iterator[None]:
    """Turns failures of the driver into the platform's errors.

    Raises:
        StoreUnavailableError: the database cannot decide now; the same may succeed later.
        QueryError, QueryTimeoutError, DuplicateKeyError: what the database said of a query or write.
        StoreError: it refused for another reason.
    """
    try:
        yield
    except SibError:
        raise
    except (failures.PyMongoError, BSONError, OverflowError) as error:
        raise translated(error) from error


_BUSY = "another process is writing to the BDTR; it will be tried again"
# Source: https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
_UNAVAILABLE = {
    **dict.fromkeys((112, 246, 251, 24, 225, 267, 262), _BUSY),
    **dict.fromkeys((14031, 39), "the disk of the BDTR is full; free some space"),
    **dict.fromkeys(
        (18, 13, 8000, 11), "it refuses the user or the password; check the URL and the rights of the user"
    ),
    **dict.fromkeys(
        (6, 7, 89, 91, 189, 9001, 10107, 10058, 11600, 11602, 13435, 13436, 64, 100, 79, 202),
        "it has no primary now or lost the connection; it will be tried again",
    ),
    **dict.fromkeys(
        (20, 10003), "it does not allow this, perhaps because it is read-only or no replica set; check its set-up"
    ),
}
_QUERY = frozenset({2, 9, 14, 15, 16, 17, 27, 28, 40, 52, 54, 56, 57, 72, 96, 126, 168, 241, 291, 292, 317})


def translated(error: Exception) -> SibError:
    """The platform's error for one of the driver."""
    if isinstance(error, (BSONError, OverflowError, failures.DocumentTooLarge, failures.InvalidName)):
        return StoreError(f"The document cannot be stored: {_shortened(error)}.")
    if isinstance(error, failures.ConfigurationError):
        return ConfigurationError(f"The BDTR URL cannot be used: {_shortened(error)}.")
    if isinstance(error, failures.ExecutionTimeout) or getattr(error, "code", None) == 50:
        return QueryTimeoutError("the query was over its time limit: narrow its condition, or use an indexed field")
    code, text = _code_and_text(error)
    if code in (11000, 11001, 12582):
        return DuplicateKeyError(f"Duplicate value of a unique index: {text}. Send a value that is not stored yet.")
    if isinstance(error, failures.ConnectionFailure) or (code is None and isinstance(error, failures.AutoReconnect)):
        sentence = "it cannot be reached or has closed the connection; check that it runs, it will be tried again"
        return unavailable(sentence, text)
    if code in _UNAVAILABLE:
        return unavailable(_UNAVAILABLE[code], text)
    if error_has_label(error, TRANSIENT) or isinstance(error, failures.WriteConcernError):
        return unavailable(_BUSY, text)
    if isinstance(error, failures.OperationFailure) and (code in _QUERY or (code or 0) > 15_000):
        return QueryError(f"The database refused the query: {text}.")
    return StoreError(f"The database refused the operation: {text}.")


def error_has_label(error: Exception, label: str) -> bool:
    """Whether the server has marked the error so."""
    return isinstance(error, failures.PyMongoError) and error.has_error_label(label)


def _code_and_text(error: Exception) -> tuple[int | None, str]:
    details = getattr(error, "details", None)
    if isinstance(details, dict):
        for kind in ("writeErrors", "writeConcernErrors"):
            listed = details.get(kind)
            if listed:
                return listed[0].get("code"), _shortened(listed[0].get("errmsg", kind))
    return getattr(error, "code", None), _shortened(error)


def _shortened(error: object) -> str:
    """One line without what the driver adds: its view of the servers, the whole answer."""
    text = str(error).partition(", full error")[0].partition(", Timeout:")[0].partition("\n")[0].rstrip(".")
    return text if len(text) <= 300 else text[:300] + "…"
