"""Column types that mean the same on SQLite, MySQL/MariaDB and Oracle (11.2 to 23).

Every type here answers a trap of one of these databases; migrations use the same types as the models.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Dialect,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Text,
    TypeDecorator,
    literal,
)
from sqlalchemy.dialects import mysql, oracle
from sqlalchemy.types import TypeEngine

NAME_CHARS_MAX = 191
"""Longest name of anything: the longest utf8mb4 key that every MySQL row format can index."""


class Flag(TypeDecorator[bool]):
    """A boolean as 0 or 1: Oracle has BOOLEAN only from version 23 on, and offline scripts would assume it."""

    impl = SmallInteger
    cache_ok = True

    def process_bind_param(self, value: bool | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> bool | None:
        return None if value is None else bool(value)


def name_type(chars_max: int = NAME_CHARS_MAX) -> TypeEngine[str]:
    """A case-sensitive string: MySQL would take "ADMIN" for "admin" under its default collation."""
    return String(chars_max).with_variant(mysql.VARCHAR(chars_max, collation="utf8mb4_bin"), "mysql", "mariadb")


class OptionalText(TypeDecorator[str]):
    """A string of bounded length that may be empty. Empty is stored as NULL, as Oracle does anyway, and read as ""."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return value or None

    def process_result_value(self, value: Any | None, dialect: Dialect) -> str:
        return "" if value is None else str(value)


class LongText(TypeDecorator[str]):
    """Text of any length, character for character; MySQL's TEXT would end at 64 KB. Empty is stored as NULL."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(mysql.LONGTEXT() if dialect.name in ("mysql", "mariadb") else Text())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return value or None

    def process_result_value(self, value: Any | None, dialect: Dialect) -> str:
        return "" if value is None else str(value)


class Json(TypeDecorator[Any]):
    """A JSON value as text. Never queried inside: the JSON types of the databases differ too much."""

    impl = LongText
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any:
        return json.loads(value) if value else None


class Blob(TypeDecorator[bytes]):
    """Bytes of any length; MySQL's BLOB would end at 64 KB. Empty may be stored as NULL and is read as b""."""

    impl = LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(mysql.LONGBLOB() if dialect.name in ("mysql", "mariadb") else LargeBinary())

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> bytes | None:
        return value or None

    def process_result_value(self, value: Any | None, dialect: Dialect) -> bytes:
        return b"" if value is None else bytes(value)


def moment_type() -> TypeEngine[datetime]:
    """A naive UTC datetime with microseconds; the plain types of MySQL and Oracle keep whole seconds only."""
    return DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb").with_variant(oracle.TIMESTAMP(), "oracle")


def key_type() -> TypeEngine[int]:
    """A generated key: SQLite counts up by itself only for INTEGER."""
    return BigInteger().with_variant(Integer, "sqlite")


def is_set(column: Any) -> ColumnElement[bool]:
    """The condition that a Flag is true; ``column.is_(True)`` would be ``IS 1``, which Oracle refuses."""
    condition: ColumnElement[bool] = column == literal(True, Flag())
    return condition
