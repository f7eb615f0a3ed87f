"""What differs between databases: how a store is opened, how rows go in fast, and what a failure means.

Engines belong to one process: open the store again after a fork.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, Table, create_engine, event
from sqlalchemy.pool import NullPool, QueuePool

from sib.errors import ConfigurationError

BUSY_TIMEOUT_MS = 5_000
"""How long a writer waits for another process that writes to the same file."""

CHECKPOINT_WAIT_MS = 50
"""How long a checkpoint waits for readers; what they still need is left for the next one."""

READERS_MAX = 16
"""Connections that read at once in one process; more wait for one of them."""

PAGE_BYTES, WAL_PAGES, WAL_BYTES_KEPT = 8192, 4000, 64 * 1024 * 1024
CACHE_KIB, READER_CACHE_KIB = 64 * 1024, 4 * 1024


class Dialect(Protocol):
    """One kind of relational database.

    ``has_hot_tables``: new entries of an index are appended first and merged later (see ``hot``).
    ``has_rtree``: boxes are in an R*Tree, else in an ordinary table.
    ``has_ddl_in_transactions``: making a table does not commit what the transaction has done so far.
    """

    name: str
    has_hot_tables: bool
    has_rtree: bool
    has_ddl_in_transactions: bool

    def writer_engine(self) -> Engine:
        """The engine of the one connection that writes; makes the database if it can and must."""

    def reader_engine(self) -> Engine:
        """An engine with a pool, whose transactions see one moment."""

    def lock_set_up(self, connection: Connection) -> None:
        """Lets others that set up the same database wait until ``unlock_set_up``, which comes after the commit."""

    def unlock_set_up(self, connection: Connection) -> None:
        """See ``lock_set_up``; also called when it was not."""

    def insert(self, connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Adds rows, fast; each has all columns in their order."""

    def insert_new(self, connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """As ``insert``, but rows whose key is there already are left out."""

    def data_version(self, connection: Connection) -> int:
        """Makes this transaction the only one that writes; gives a number that changes when others have written before."""

    def checkpoint(self, connection: Connection) -> None:
        """Upkeep of the database's own files, if it needs that from us."""

    def size_bytes(self, connection: Connection) -> int:
        """What the store takes on the disk."""


class SqliteDialect:
    """A store in one SQLite file: WAL, one writer at a time over all processes, fsync with every commit."""

    name = "sqlite"
    has_hot_tables = True
    has_rtree = True
    has_ddl_in_transactions = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self._statements: dict[tuple[str, str], str] = {}

    def writer_engine(self) -> Engine:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine("sqlite://", creator=self._connect_writer, poolclass=NullPool)
        event.listen(engine, "begin", _begin_immediate)
        return engine

    def reader_engine(self) -> Engine:
        engine = create_engine(
            "sqlite://", creator=self._connect_reader, poolclass=QueuePool, pool_size=READERS_MAX, max_overflow=0
        )
        event.listen(engine, "begin", _begin)
        return engine

    def _connect_writer(self) -> sqlite3.Connection:
        connection = self._connect("rwc")
        for pragma in (
            f"page_size={PAGE_BYTES}",
            "journal_mode=WAL",
            "synchronous=FULL",
            f"cache_size=-{CACHE_KIB}",
            # The writer checkpoints itself: left to others, the log grows without end under continuous readers.
            f"wal_autocheckpoint={WAL_PAGES}",
            f"journal_size_limit={WAL_BYTES_KEPT}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _connect_reader(self) -> sqlite3.Connection:
        # Not mode=ro: a reader of a WAL file must be able to make its shared memory after a crash of the writer.
        connection = self._connect("rw")
        connection.execute("PRAGMA query_only=ON")
        connection.execute(f"PRAGMA cache_size=-{READER_CACHE_KIB}")
        return connection

    def _connect(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_TIMEOUT_MS / 1000,
            cached_statements=512,
        )

    def lock_set_up(self, connection: Connection) -> None:
        """Nothing: the transaction began as a writer."""

    def unlock_set_up(self, connection: Connection) -> None:
        """Nothing."""

    def insert(self, connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        self._insert(connection, table, rows, "INSERT")

    def insert_new(self, connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        self._insert(connection, table, rows, "INSERT OR IGNORE")

    def _insert(self, connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]], verb: str) -> None:
        if not rows:
            return
        statement = self._statements.get((verb, table.name))
        if statement is None:
            names = ", ".join(column.name for column in table.columns)
            marks = ", ".join("?" * len(table.columns))
            statement = f"{verb} INTO {table.name}({names}) VALUES({marks})"
            self._statements[verb, table.name] = statement
        connection.exec_driver_sql(statement, list(rows))

    def data_version(self, connection: Connection) -> int:
        """A number that changes when another connection has committed."""
        return int(connection.exec_driver_sql("PRAGMA data_version").scalar_one())

    def checkpoint(self, connection: Connection) -> None:
        """Empties the log if no reader is in the way, else as much of it as may be; waits for nobody long."""
        raw = connection.connection.dbapi_connection
        assert isinstance(raw, sqlite3.Connection)
        raw.execute(f"PRAGMA busy_timeout={CHECKPOINT_WAIT_MS}")
        try:
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            raw.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")

    def size_bytes(self, connection: Connection) -> int:
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def dialect_of(url: str) -> Dialect:
    """The dialect and address that a BDTR URL names.

    Raises:
        ConfigurationError: the URL is of no kind that this store supports.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite":
        path = rest.removeprefix("///") if rest.startswith("///") else rest
        if not path or path.startswith("//") or "?" in path or path == ":memory:":
            raise ConfigurationError(
                "A BDTR in SQLite needs the path of a file, for example sqlite:data/bdtr.db or sqlite:////var/sofia2/bdtr.db."
            )
        return SqliteDialect(Path(path))
    from storage.bdtr.servers import server_dialect

    return server_dialect(url)
