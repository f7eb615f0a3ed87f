"""Connections to the BDC: one per call, safe for several threads and several processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import OperationalError as SqliteOperationalError
from typing import Any, TypeAlias

from sqlalchemy import Connection, Engine, create_engine, event, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from sib.errors import ConfigurationError, StoreError, StoreUnavailableError
from storage.bdc.models import ConfigCounter
from storage.bdtr.failures import explained
from storage.connecting import LOCK_S, ORACLE_ARGS, mysql_args, server_engine

BUSY_TIMEOUT_MS = 5000
"""How long a writer waits for another process to finish its transaction."""
CONNECTIONS_KEPT = 4
CONNECTIONS_MAX = 16
WRITES = "bdc_writes"

RECYCLE_S = 1800
"""Idle connections to a server are made anew after this: firewalls forget them."""
MIGRATION_S = 60
"""How long an upgrade waits for another process that upgrades the same database."""

_TURN = select(ConfigCounter.version).with_for_update().suffix_with(f"WAIT {LOCK_S}", dialect="oracle")
"""Writers take turns, as SQLite makes them: what a transaction has read is true until it ends. Oracle would wait for ever."""

_READERS = {"mysql": "REPEATABLE READ", "mariadb": "REPEATABLE READ", "oracle": "SERIALIZABLE"}
"""Transactions that see one moment, whatever the server does by default."""

_DRIVERS = {"mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql", "oracle": "oracle+oracledb"}


LastWrite: TypeAlias = tuple[float, str | None]
"""When this process wrote last (seconds since 1970; 0: never), and why the database could not do it; None: it could."""


class Database:
    """Transactions on the BDC; every failure comes out as a SibError."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.last_write: LastWrite = 0.0, None
        self._is_server = engine.dialect.name != "sqlite"
        self._reader, self._writer = engine, engine.execution_options(**{WRITES: True})
        if self._is_server:  # a writer that had to wait for its turn must see what the one before it has written
            self._reader = self._reader.execution_options(isolation_level=_READERS[engine.dialect.name])
            self._writer = self._writer.execution_options(isolation_level="READ COMMITTED")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view; nothing written in it is kept.

        Raises:
            StoreUnavailableError: the database cannot be reached or stays locked.
        """
        with _translated_errors(), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: committed at the end of the block, rolled back when the block raises.

        Raises:
            StoreUnavailableError: the database cannot be reached, stays locked or its disk is full.
                Nothing was written.
            StoreError: the database refused what was written; nothing was written.
        """
        try:
            with _translated_errors(), self._writer.begin() as connection:
                if self._is_server:
                    connection.execute(_TURN)
                yield connection
        except StoreUnavailableError as error:
            self.last_write = time.time(), error.message
            raise
        self.last_write = time.time(), None

    @contextmanager
    def migration(self) -> Iterator[Connection]:
        """A transaction that may rebuild tables: SQLite would else delete the rows that refer to a dropped table."""
        with _translated_errors(), self._writer.connect() as connection:
            raw: Any = connection.connection.driver_connection
            is_sqlite, is_mysql = not self._is_server, self.engine.dialect.name in ("mysql", "mariadb")
            if is_sqlite:
                raw.execute("PRAGMA foreign_keys=OFF")
            try:
                with connection.begin():
                    if is_mysql:  # its DDL commits: only a lock by name keeps others out until the last migration
                        connection.execute(text("SELECT GET_LOCK('sofia2.bdc', :wait_s)"), {"wait_s": MIGRATION_S})
                    yield connection
                    if is_mysql:
                        connection.execute(text("SELECT RELEASE_LOCK('sofia2.bdc')"))
            finally:
                if is_sqlite:
                    raw.execute("PRAGMA foreign_keys=ON")


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        raise _unavailable(error) from error
    except IntegrityError as error:
        # The driver's text may hold the value, which may be a token.
        raise StoreError("The configuration database refused the change: a name is taken or still used.") from error
    except UnicodeEncodeError as error:
        raise StoreError("A text with half a character (a lone surrogate) cannot be stored or looked up.") from error
    except SQLAlchemyError as error:
        # Oracle's driver has no kind of its own for a lock or a call that was over its time.
        if type(error) is DatabaseError and _is_oracles(error.orig) and explained(error.orig, "BDC"):
            raise _unavailable(error) from error
        raise StoreError(f"The configuration database refused the operation ({type(error).__name__}).") from error


def _unavailable(error: SQLAlchemyError) -> StoreUnavailableError:
    cannot = "The configuration database cannot be used now"
    if not isinstance(error, DBAPIError):
        return StoreUnavailableError(f"{cannot} (all connections are in use): try again.", "all connections are in use")
    sentence = explained(error.orig, "BDC")
    return StoreUnavailableError(
        f"{cannot}: {sentence or 'try again'} ({error.orig}).", (sentence or "").partition(";")[0]
    )


def parse_url(url: str) -> URL:
    """Read a BDC URL: ``sqlite:///path``, ``mysql://…`` or ``oracle://…``; a password never appears in an error.

    Raises:
        ConfigurationError: it is no URL of a database that the BDC can use.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigurationError("The BDC URL cannot be read: write sqlite:////data/bdc.db.") from None
    if parsed.get_backend_name() == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise ConfigurationError("The BDC needs a file that several processes can open: sqlite:///path/to/bdc.db.")
        return parsed
    if parsed.get_backend_name() not in _DRIVERS:
        raise ConfigurationError(
            f"The BDC cannot be on {parsed.get_backend_name()!r}: use sqlite, mysql, mariadb or oracle."
        )
    return parsed if "+" in parsed.drivername else parsed.set(drivername=_DRIVERS[parsed.drivername])


def _is_oracles(original: object) -> bool:
    return type(original).__module__.partition(".")[0] == "oracledb"


def make_engine(url: str) -> Engine:
    """An engine whose transactions are what the BDC needs. Makes a SQLite file, readable by its owner only.

    Raises:
        ConfigurationError: the URL cannot be used, its driver is missing or its folder cannot be written.
    """
    parsed = parse_url(url)
    kind = parsed.get_backend_name()
    pool = {
        "pool_size": CONNECTIONS_KEPT,
        "max_overflow": CONNECTIONS_MAX - CONNECTIONS_KEPT,
        "pool_timeout": BUSY_TIMEOUT_MS / 1000,
    }
    if kind == "sqlite":
        return _sqlite_engine(parsed, pool)
    try:
        return server_engine(
            parsed,
            ORACLE_ARGS if kind == "oracle" else mysql_args(parsed),
            pool_pre_ping=True,
            pool_recycle=RECYCLE_S,
            **pool,
        )
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigurationError(f"The driver for this BDC is not installed: {error}.") from None


def _sqlite_engine(url: URL, pool: dict[str, Any]) -> Engine:
    _make_private_file(Path(str(url.database)))
    engine = create_engine(url, hide_parameters=True, **pool)  # parameters are tokens and keys: not into error texts
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _make_private_file(path: Path) -> None:
    # The BDC holds tokens and cipher keys. SQLite gives -wal and -shm the permissions of the database itself.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise ConfigurationError(f"The BDC file {path} cannot be written: {error.strerror}.") from None


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we begin transactions ourselves, see _begin_sqlite
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    _switch_to_wal(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _switch_to_wal(cursor: Any) -> None:
    # The first switch needs the file alone and does not wait for the busy timeout.
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except SqliteOperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    # A writer that began as a reader could not wait for another writer: SQLite refuses it at once with "locked".
    is_writer = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")
