"""Where history lies: ``<root>/<ontology>/fecha=YYYY-MM-DD/part-<from>-<to>.parquet``, and ``<ontology>/_tmp`` beside it.

Readers of Parquet folders (Hive, Spark, DuckDB, Ray) take ``fecha`` as a column and skip names that begin with ``_``.
All paths are relative to the root of the history.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import quote

from bson import ObjectId

from storage.bdc.records import HistoryFileRecord

DAY_COLUMN = "fecha"
TMP = "_tmp"
PART_NAME_CHARS_MAX = 80
NO_DAY = date(1970, 1, 1)
"""The day of an instance that has no time at all: neither ``contextData.timestamp`` nor a generated ``_id``."""

_PART = re.compile(r"part-[\w.-]+\.parquet")
_SAFE = " ._-~+@()!,=$"


def folder_of(ontology: str) -> str:
    """The folder of an ontology: its name, with what file systems do not take escaped as in a URL."""
    quoted = quote(ontology, safe=_SAFE)
    return f"%{ord(quoted[0]):02X}{quoted[1:]}" if quoted[:1] in "._" else quoted


def path_of(ontology: str, day: date, name: str) -> str:
    """The path of one file."""
    return f"{folder_of(ontology)}/{DAY_COLUMN}={day.isoformat()}/{name}"


def record_path(record: HistoryFileRecord) -> str:
    """The path of a file that the manifest names."""
    return path_of(record.ontology, record.day, record.name)


def tmp_path_of(ontology: str, day: date, name: str) -> str:
    """Where a file is written before it gets its name. Always the same one, so that a repeated attempt replaces it."""
    return f"{folder_of(ontology)}/{TMP}/{day.isoformat()}-{name}"


def part_name(first: int | str, last: int | str, suffix: str = "") -> str:
    """``part-<from>-<to>.parquet``; numbers are padded so that names sort as numbers do."""
    low, high = (f"{end:012d}" if isinstance(end, int) else end for end in (first, last))
    return f"part-{low}-{high}{'-' + suffix if suffix else ''}.parquet"


def is_part_name(name: str) -> bool:
    """Whether a file in a day's folder is one of ours."""
    return len(name) <= PART_NAME_CHARS_MAX and _PART.fullmatch(name) is not None


def day_of(document: dict[str, Any]) -> date:
    """The UTC day of a stored document: of its ``contextData.timestamp``, else of its ``_id``, else ``NO_DAY``."""
    moment = moment_of(document)
    return NO_DAY if moment is None else moment.date()


def moment_of(document: dict[str, Any]) -> datetime | None:
    """When a stored document was inserted, naive UTC; None if nothing tells."""
    context = document.get("contextData")
    moment = context.get("timestamp") if isinstance(context, dict) else None
    if isinstance(moment, datetime):
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    id_ = document.get("_id")
    return id_.generation_time.replace(tzinfo=None) if isinstance(id_, ObjectId) else None


def days(first: date, last: date) -> Iterator[date]:
    """The days from the first to the last, both included."""
    for at in range((last - first).days + 1):
        yield first + timedelta(days=at)
