"""The tables of a relational BDTR: a few fixed ones, and per collection documents and side tables of its indexes.

Names are short and made of numbers from the catalogue (``d_12``, ``x_12_3``): ontologies may be called anything, tables
may not. Rules that keep the tables portable: names of at most 30 characters and no reserved word of any database,
bytes and whole numbers only in keys, strings with a length, no booleans, no JSON.
"""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects import mysql, oracle
from sqlalchemy.types import TypeEngine

from sib.errors import ConfigurationError
from storage.bdtr.keys import KEY_BYTES_MAX

FORMAT = 1
"""The version of these tables; a store of another one is refused."""

ID_SLOT = 0
"""The number of the side table of ``_id``: only instances whose id was not given by the store are in it."""

NO_TIME_MS = -(2**62)
"""In ``t_block.ts_ms``: the instances have no ``contextData.timestamp``."""

Number = BigInteger().with_variant(Integer, "sqlite")
Key = (
    LargeBinary(KEY_BYTES_MAX)
    .with_variant(mysql.VARBINARY(KEY_BYTES_MAX), "mysql", "mariadb")
    .with_variant(oracle.RAW(KEY_BYTES_MAX), "oracle")
)
Blob = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def _name(chars_max: int) -> TypeEngine[str]:
    """A case-sensitive string: MySQL would take "A" for "a" under its default collation."""
    exact = mysql.VARCHAR(chars_max, charset="utf8mb4", collation="utf8mb4_bin")
    return String(chars_max).with_variant(exact, "mysql", "mariadb")


Name = _name(200)
LongText = Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")

metadata = MetaData()

meta = Table(
    "t_meta",
    metadata,
    Column("name", _name(30), primary_key=True),
    Column("num", Number),
    Column("raw", LargeBinary(16).with_variant(oracle.RAW(16), "oracle")),
)
collection = Table(
    "t_collection",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=False),
    Column("name", Name, nullable=False, unique=True),
    Column("flags", Number, nullable=False),
    Column("n_docs", Number, nullable=False),
)
side_index = Table(
    "t_index",
    metadata,
    Column("collection_id", Number, primary_key=True, autoincrement=False),
    Column("slot", Number, primary_key=True, autoincrement=False),
    Column("name", Name, nullable=False),
    Column("spec", LongText, nullable=False),
    Column("flags", Number, nullable=False),
)
# A row for each run of instances that were inserted together: seq and id both grow in steps of one inside it, so it is the
# index on generated ids and on contextData.timestamp, and the list of inserts of the change feed. first_id is NULL for
# instances that came with an id of their own.
block = Table(
    "t_block",
    metadata,
    Column("seq", Number, primary_key=True, autoincrement=False),
    Column("first_id", Number),
    Column("n_docs", Number, nullable=False),
    Column("ts_ms", Number, nullable=False),
    Column("collection_id", Number, nullable=False),
    Index("t_block_first", "first_id"),
    Index("t_block_ts", "collection_id", "ts_ms", "seq", "n_docs"),
)
change_log = Table(
    "t_change",
    metadata,
    Column("seq", Number, primary_key=True, autoincrement=False),
    Column("kind", SmallInteger, nullable=False),
    Column("collection_id", Number, nullable=False),
    Column("doc_id", Blob, nullable=False),
    Column("doc", Blob),
)
write_id = Table(
    "t_write",
    metadata,
    Column("gateway", _name(64), primary_key=True),
    Column("slot", Number, primary_key=True, autoincrement=False),
    Column("num", Number, nullable=False),
    Column("ts_ms", Number, nullable=False),
    Column("outcome", Blob, nullable=False),
)
consumer = Table(
    "t_consumer",
    metadata,
    Column("name", _name(100), primary_key=True),
    Column("seq", Number, nullable=False),
)


@lru_cache(maxsize=10_000)
def document_table(collection_id: int) -> Table:
    """The instances of a collection. The ``_id`` is inside ``doc`` only."""
    return Table(
        f"d_{collection_id}",
        MetaData(),
        Column("seq", Number, primary_key=True, autoincrement=False),
        Column("doc", Blob, nullable=False),
    )


@lru_cache(maxsize=10_000)
def side_table(collection_id: int, slot: int) -> Table:
    """The entries of an index in key order: one row for each different key of an instance."""
    return Table(
        f"x_{collection_id}_{slot}",
        MetaData(),
        Column("k", Key, primary_key=True),
        Column("seq", Number, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )


@lru_cache(maxsize=10_000)
def hot_table(collection_id: int, slot: int) -> Table:
    """The newest entries of an index, in the order of arrival, not yet merged into its side table."""
    return Table(
        f"h_{collection_id}_{slot}",
        MetaData(),
        Column("seq", Number, primary_key=True, autoincrement=False),
        Column("k", Key, primary_key=True),
        sqlite_with_rowid=False,
    )


@lru_cache(maxsize=10_000)
def geo_table(collection_id: int, slot: int) -> Table:
    """The boxes of a geo index: an R*Tree on SQLite, where this describes its columns only; else a table in order of x1."""
    name = f"g_{collection_id}_{slot}"
    edges: list[Column[float]] = [Column(edge, Double(), nullable=False) for edge in ("x1", "x2", "y1", "y2")]
    return Table(
        name,
        MetaData(),
        Column("n", Number, primary_key=True, autoincrement=False),
        *edges,
        Column("seq", Number, nullable=False),
        Index(f"{name}_x", *edges, "seq"),
    )


def refuse_other_format(found: int | None) -> None:
    """Refuses a store of another version.

    Raises:
        ConfigurationError: it was written in another format than this version's.
    """
    if found is not None and found != FORMAT:
        raise ConfigurationError(
            f"The BDTR was written in format {found}, this version reads format {FORMAT}: "
            "start the version of Sofia2 that wrote it, or give another bdtr URL."
        )
