"""What a query on the history finds, and how clients are told it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as dt_time
from decimal import Decimal
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class ResultColumn:
    """A column of a result: its name and its SQL type (VARCHAR, BIGINT, DOUBLE, TIMESTAMP …)."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Rows as Python values. ``was_capped``: there were more."""

    columns: list[ResultColumn]
    rows: list[tuple[Any, ...]]
    was_capped: bool = False

    def as_dicts(self) -> list[dict[str, Any]]:
        """Each row by the names of its columns, plain JSON values; of columns with one name the last counts."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, map(_plain, row), strict=True)) for row in self.rows]


def type_name(type_: str) -> str:
    """How clients are told a type of DuckDB."""
    if type_.endswith("]"):
        return "ARRAY"
    return "TIMESTAMP" if type_.startswith("TIMESTAMP") else type_.partition("(")[0]


def to_answer(result: QueryResult) -> dict[str, Any]:
    """A result as clients expect it: ``{"columns": [{name, type, index}], "values": [[…]]}``, plain JSON values.

    Source: Sofia2 java-api, KpFunctionalAbstract.java (a BDH answer inside a test).
    """
    columns = [
        {"name": column.name, "type": column.type, "index": index} for index, column in enumerate(result.columns, 1)
    ]
    return {"columns": columns, "values": [[_plain(value) for value in row] for row in result.rows]}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return _print_moment(value)
    if isinstance(value, date | timedelta | UUID | dt_time):
        return str(value)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    return value


def _print_moment(moment: datetime) -> str:
    """As ``java.sql.Timestamp`` prints: a fraction of at least one digit."""
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    whole = moment.strftime("%Y-%m-%d %H:%M:%S")
    fraction = f"{moment.microsecond:06d}".rstrip("0") or "0"
    return f"{whole}.{fraction}"
