"""The relational BDTR on a database server: MySQL and MariaDB, PostgreSQL, Oracle.

Each partition has tables of its own: in the database that the URL names, or beside it in one that ``?partition=NAME``
names (a database on MySQL, a schema on PostgreSQL and Oracle). Writers take turns by a row lock; what another one has
written is noticed by the name that it leaves in that row.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from sqlalchemy import Connection, Engine, Table, event, select, text, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import NullPool, QueuePool

from sib.errors import ConfigurationError
from storage.bdtr import schema
from storage.bdtr.dialects import READERS_MAX
from storage.connecting import CONNECT_S, LOCK_S, ORACLE_ARGS, STATEMENT_S, mysql_args, server_engine

RECYCLE_S = 1800
"""Idle connections of readers are made anew after this: firewalls forget them."""

_PARTITION = re.compile(r"[A-Za-z0-9_-]{1,40}")


class ServerDialect:
    """What the servers have in common."""

    name = ""
    driver = ""
    verbs: ClassVar[tuple[str, str]] = ("INSERT INTO", "")
    """How an insert begins and ends that leaves out rows whose key is there already."""
    has_hot_tables = False
    has_rtree = False
    has_ddl_in_transactions = False
    reader_isolation = "REPEATABLE READ"

    def __init__(self, url: URL, partition: str = "") -> None:
        self.url = url.set(drivername=self.driver)
        self.partition = partition.replace("-", "_")
        self._token = random.SystemRandom().getrandbits(60) | 1
        self._version = 0
        self._statements: dict[tuple[bool, str], str] = {}

    def writer_engine(self) -> Engine:
        self.make_namespace()
        return self._engine(poolclass=NullPool, isolation_level="READ COMMITTED")

    def reader_engine(self) -> Engine:
        return self._engine(
            poolclass=QueuePool,
            pool_size=READERS_MAX,
            max_overflow=0,
            pool_pre_ping=True,
            pool_recycle=RECYCLE_S,
            isolation_level=self.reader_isolation,
        )

    def _engine(self, **options: Any) -> Engine:
        engine = server_engine(self.url, self.connect_args(), **options)
        self.listen(engine)
        return engine

    def connect_args(self) -> dict[str, Any]:
        raise NotImplementedError

    def listen(self, engine: Engine) -> None:
        """What must be done with every new connection."""

    def make_namespace(self) -> None:
        """Makes the place of the partition's tables if it is not there."""

    def lock_set_up(self, connection: Connection) -> None:
        raise NotImplementedError

    def unlock_set_up(self, connection: Connection) -> None:
        """Nothing: such a lock ends with the transaction."""

    def insert(self, connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        self._insert(connection, table, rows, is_new=False)

    def insert_new(self, connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        self._insert(connection, table, rows, is_new=True)

    def _insert(self, connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]], *, is_new: bool) -> None:
        if not rows:
            return
        statement = self._statements.get((is_new, table.name))
        if statement is None:
            statement = self._statements[is_new, table.name] = self.insert_statement(table, is_new=is_new)
        connection.exec_driver_sql(statement, list(rows))

    def insert_statement(self, table: Table, *, is_new: bool) -> str:
        names = ", ".join(column.name for column in table.columns)
        marks = ", ".join(["%s"] * len(table.columns))
        verb, ending = self.verbs if is_new else ("INSERT INTO", "")
        return f"{verb} {table.name} ({names}) VALUES ({marks}){ending}"

    def data_version(self, connection: Connection) -> int:
        row = schema.meta.c
        turn = select(row.num).where(row.name == "writer").with_for_update()
        if connection.execute(turn).scalar_one() != self._token:
            connection.execute(update(schema.meta).where(row.name == "writer").values(num=self._token))
            self._version += 1
        return self._version

    def checkpoint(self, connection: Connection) -> None:
        """Nothing: servers look after their files themselves."""

    def size_bytes(self, connection: Connection) -> int:
        raise NotImplementedError


class MysqlDialect(ServerDialect):
    """MySQL 8 and MariaDB 10.6 or newer, with InnoDB. A partition is a database: ``<database>_<partition>``."""

    name = "mysql"
    driver = "mysql+pymysql"
    verbs = ("INSERT IGNORE INTO", "")

    def __init__(self, url: URL, partition: str = "") -> None:
        super().__init__(url, partition)
        self._is_locked = False
        if self.partition:
            self.url = self.url.set(database=f"{self.url.database}_{self.partition}")

    def connect_args(self) -> dict[str, Any]:
        return mysql_args(self.url)

    def make_namespace(self) -> None:
        server = server_engine(self.url.set(database=""), self.connect_args(), poolclass=NullPool)
        name = str(self.url.database)
        with server.connect() as connection:
            found = connection.execute(
                text("SELECT 1 FROM information_schema.schemata WHERE schema_name = :name"), {"name": name}
            ).scalar_one_or_none()
            if found is None:
                quoted = server.dialect.identifier_preparer.quote_identifier(name)
                connection.exec_driver_sql(f"CREATE DATABASE IF NOT EXISTS {quoted} CHARACTER SET utf8mb4")

    def lock_set_up(self, connection: Connection) -> None:
        connection.execute(text("SELECT GET_LOCK('sofia2.set_up', :wait_s)"), {"wait_s": LOCK_S})
        self._is_locked = True

    def unlock_set_up(self, connection: Connection) -> None:
        if self._is_locked:
            self._is_locked = False
            with connection.begin():
                connection.execute(text("SELECT RELEASE_LOCK('sofia2.set_up')"))

    def size_bytes(self, connection: Connection) -> int:
        statement = (
            "SELECT SUM(data_length + index_length) FROM information_schema.tables WHERE table_schema = DATABASE()"
        )
        return int(connection.execute(text(statement)).scalar_one() or 0)


class PostgresqlDialect(ServerDialect):
    """PostgreSQL 13 or newer. A partition is a schema."""

    name = "postgresql"
    driver = "postgresql+psycopg"
    verbs = ("INSERT INTO", " ON CONFLICT DO NOTHING")
    has_ddl_in_transactions = True

    def connect_args(self) -> dict[str, Any]:
        options = [f"-c statement_timeout={STATEMENT_S * 1000}", f"-c lock_timeout={LOCK_S * 1000}"]
        if self.partition:
            options.append(f"-c search_path={self.partition}")
        return {
            "connect_timeout": CONNECT_S,
            "options": " ".join(options),
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": STATEMENT_S * 1000,
        }

    def make_namespace(self) -> None:
        if not self.partition:
            return
        server = self._engine(poolclass=NullPool)
        with server.begin() as connection:
            name = server.dialect.identifier_preparer.quote_identifier(self.partition)
            connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {name}")

    def lock_set_up(self, connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(726376)"))

    def size_bytes(self, connection: Connection) -> int:
        statement = (
            "SELECT SUM(pg_total_relation_size(oid)) FROM pg_class "
            "WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
        )
        return int(connection.execute(text(statement)).scalar_one() or 0)


class OracleDialect(ServerDialect):
    """Oracle 12.1 or newer, by oracledb without Oracle's client. A partition is a schema (a user) that must exist."""

    name = "oracle"
    driver = "oracle+oracledb"
    reader_isolation = "SERIALIZABLE"

    def connect_args(self) -> dict[str, Any]:
        return ORACLE_ARGS

    def listen(self, engine: Engine) -> None:
        if self.partition:
            event.listen(engine, "connect", self._choose_schema)

    def _choose_schema(self, connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER SESSION SET CURRENT_SCHEMA = {self.partition}")

    def lock_set_up(self, connection: Connection) -> None:
        """Nothing: the second one fails because the tables are there, and succeeds when it tries again."""

    def insert_statement(self, table: Table, *, is_new: bool) -> str:
        names = [column.name for column in table.columns]
        marks = ", ".join(f":{at}" for at in range(1, len(names) + 1))
        listed = ", ".join(names)
        if not is_new:
            return f"INSERT INTO {table.name} ({listed}) VALUES ({marks})"
        given = ", ".join(f":{at} AS {name}" for at, name in enumerate(names, 1))
        same = " AND ".join(f"t.{column.name} = s.{column.name}" for column in table.primary_key.columns)
        values = ", ".join(f"s.{name}" for name in names)
        return (
            f"MERGE INTO {table.name} t USING (SELECT {given} FROM dual) s ON ({same}) "
            f"WHEN NOT MATCHED THEN INSERT ({listed}) VALUES ({values})"
        )

    def size_bytes(self, connection: Connection) -> int:
        return int(connection.execute(text("SELECT SUM(bytes) FROM user_segments")).scalar_one() or 0)


_DIALECTS: Mapping[str, Callable[[URL, str], ServerDialect]] = {
    "mysql": MysqlDialect,
    "mariadb": MysqlDialect,
    "postgresql": PostgresqlDialect,
    "oracle": OracleDialect,
}
SERVERS = tuple(_DIALECTS)


def server_dialect(url: str) -> ServerDialect:
    """The dialect of a URL such as ``mysql://USER:PASSWORD@HOST/DATABASE?partition=NAME``.

    Raises:
        ConfigurationError: it cannot be read, or is of another kind. The URL is not shown: it may hold a password.
    """
    scheme = url.partition(":")[0].partition("+")[0].lower()
    if scheme not in _DIALECTS:
        raise ConfigurationError(f"No relational BDTR has URLs of the kind {scheme[:20]!r}.")
    try:
        parsed = make_url(url)
        partition = parsed.query.get("partition", "")
    except (ArgumentError, ValueError, NoSuchModuleError):
        raise ConfigurationError(
            f"The BDTR URL cannot be read: write {scheme}://USER:PASSWORD@HOST/DATABASE."
        ) from None
    if not parsed.database and scheme != "oracle":
        raise ConfigurationError(f"The BDTR URL names no database: write {scheme}://USER:PASSWORD@HOST/DATABASE.")
    if not isinstance(partition, str) or (partition and not _PARTITION.fullmatch(partition)):
        raise ConfigurationError("The partition in the BDTR URL is a name of at most 40 letters, digits, - and _.")
    return _DIALECTS[scheme](parsed.difference_update_query(["partition"]), partition)
