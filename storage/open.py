"""From a BDTR URL to the adapter that serves it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias, Union

from sib.errors import ConfigurationError

if TYPE_CHECKING:
    from storage.bdtr.mongo import MongoStore
    from storage.bdtr.mongo_moving import MongoJournal
    from storage.bdtr.mongo_transaction import MongoTransaction
    from storage.bdtr.relational import RelationalStore
    from storage.bdtr.transaction import Transaction
    from storage.bdtr.transfers import TransferJournal

Store: TypeAlias = Union["RelationalStore", "MongoStore"]
"""A BDTR, whatever it is on."""
Writing: TypeAlias = Union["Transaction", "MongoTransaction"]
"""A transaction of a BDTR."""

RELATIONAL = ("sqlite", "mysql", "mariadb", "postgresql", "oracle")
MONGODB = ("mongodb", "mongodb+srv")
FIRST_PARTITION = "partition-0"
_EXAMPLES = "sqlite:PATH, mysql://, postgresql:// or oracle://USER:PASSWORD@HOST/DATABASE or mongodb://HOST/DATABASE"


def open_bdtr(url: str, *, writer: bool, clock: Callable[[], float] = time.time) -> Store:
    """Opens the real-time database that a URL names.

    Args:
        url: ``sqlite:PATH``, or the URL of a database on a server; ``?partition=NAME`` names a further one beside it.
        writer: whether this process writes; then the store is made if it is not there.
        clock: seconds since 1970.

    Raises:
        ConfigurationError: no adapter serves this kind of URL. The URL itself is not shown: it may hold a password.
        StoreUnavailableError: the database cannot be reached or does not let us in.
    """
    scheme = kind_of(url)
    if scheme in RELATIONAL:
        from storage.bdtr.relational import RelationalStore

        return RelationalStore.open(url, writer=writer, clock=clock)
    if scheme in MONGODB:
        from storage.bdtr.mongo import MongoStore

        return MongoStore.open(url, writer=writer, clock=clock)
    raise ConfigurationError(f"No BDTR has URLs of the kind {scheme[:20]!r}; use {_EXAMPLES}.")


def transfer_journal(store: Store) -> TransferJournal | MongoJournal:
    """The steps of transfers to the history that the writer of a store carries out."""
    from storage.bdtr.relational import RelationalStore
    from storage.bdtr.transfers import TransferJournal

    if isinstance(store, RelationalStore):
        return TransferJournal(store)
    from storage.bdtr.mongo_moving import MongoJournal

    return MongoJournal(store)


def check_url(url: str) -> str:
    """Refuses a BDTR URL that cannot be used, without asking the database. Returns it.

    Raises:
        ConfigurationError: what is wrong, without showing the URL.
    """
    scheme = kind_of(url)
    if scheme in MONGODB:
        from storage.bdtr.mongo_client import connect

        client, _, _ = connect(url)
        client.close()
    elif scheme in RELATIONAL:
        from storage.bdtr.dialects import dialect_of

        dialect_of(url)
    else:
        raise ConfigurationError(f"No BDTR has URLs of the kind {scheme[:20]!r}; use {_EXAMPLES}.")
    return url


def kind_of(url: str) -> str:
    """The scheme of a URL without its driver: ``mysql`` of ``mysql+pymysql://…``. MongoDB's ``mongodb+srv`` is whole."""
    scheme = url.partition(":")[0].lower()
    return scheme if scheme in MONGODB else scheme.partition("+")[0]


def partition_url(url: str, partition: str) -> str:
    """The URL of one of several partitions of a BDTR; each has tables or collections of its own.

    On a server the first one is in the database of the URL itself; SQLite's are files in one folder.
    """
    if kind_of(url) == "sqlite":
        return f"{url}/{partition}.db"
    if partition == FIRST_PARTITION:
        return url
    return f"{url}{'&' if '?' in url else '?'}partition={partition}"
