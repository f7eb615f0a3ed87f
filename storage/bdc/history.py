"""The manifest of the history: which Parquet files count, and what is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from storage.bdc.engine import Database
from storage.bdc.models import HistoryFile
from storage.bdc.records import HistoryFileRecord

_SELECT = select(HistoryFile.__table__)


class HistoryManifest:
    """The files of the history by ontology and day. Every call is one transaction; safe for threads and processes."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def files(
        self, ontology: str, *, since: date | None = None, until: date | None = None, with_retired: bool = False
    ) -> list[HistoryFileRecord]:
        """The files of an ontology, oldest day first.

        Args:
            ontology: its name.
            since: the first day; all by default.
            until: the last day, included.
            with_retired: also files that others have replaced.
        """
        statement = _SELECT.where(HistoryFile.ontology == ontology)
        if since is not None:
            statement = statement.where(HistoryFile.day_text >= since.isoformat())
        if until is not None:
            statement = statement.where(HistoryFile.day_text <= until.isoformat())
        if not with_retired:
            statement = statement.where(HistoryFile.retired_at.is_(None))
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(HistoryFile.day_text, HistoryFile.file_name))
            return [_record(row) for row in rows]

    def ontologies(self) -> list[str]:
        """The names of the ontologies that have history."""
        with self._database.read() as connection:
            found = connection.execute(select(HistoryFile.ontology).distinct().order_by(HistoryFile.ontology))
            return [str(name) for name in found.scalars()]

    def add(self, records: Sequence[HistoryFileRecord]) -> None:
        """Enter files. One that is there already stays as it is, so a repeated call does no harm."""
        if records:
            with self._database.write() as connection:
                self._insert(connection, records)

    def replace(self, old: Sequence[HistoryFileRecord], new: Sequence[HistoryFileRecord]) -> None:
        """Let new files stand for old ones, which are retired, in one step for every reader. Idempotent."""
        with self._database.write() as connection:
            self._insert(connection, new)
            for record in old:
                connection.execute(
                    update(HistoryFile)
                    .where(*_is(record), HistoryFile.retired_at.is_(None))
                    .values(retired_at=self._now())
                )

    def retired(self, ontology: str, before: datetime) -> list[HistoryFileRecord]:
        """The files that were retired before a moment."""
        return [
            record
            for record in self.files(ontology, with_retired=True)
            if record.retired_at is not None and record.retired_at < before
        ]

    def forget(self, records: Iterable[HistoryFileRecord]) -> None:
        """Take files out: retired ones that have been deleted. Idempotent."""
        with self._database.write() as connection:
            for record in records:
                connection.execute(delete(HistoryFile).where(*_is(record)))

    def _insert(self, connection: Connection, records: Sequence[HistoryFileRecord]) -> None:
        for record in records:
            if connection.execute(select(HistoryFile.id).where(*_is(record))).first() is None:
                connection.execute(insert(HistoryFile).values(self._values(record)))

    def _values(self, record: HistoryFileRecord) -> dict[str, Any]:
        return {
            "ontology": record.ontology,
            "day_text": record.day.isoformat(),
            "file_name": record.name,
            "n_rows": record.n_rows,
            "size_bytes": record.size_bytes,
            "first_at": record.first_at,
            "last_at": record.last_at,
            "layout": record.layout,
            "stale_rows": list(record.stale_rows),
            "created_at": self._now(),
            "retired_at": None,
        }


def _is(record: HistoryFileRecord) -> tuple[Any, Any, Any]:
    return (
        HistoryFile.ontology == record.ontology,
        HistoryFile.day_text == record.day.isoformat(),
        HistoryFile.file_name == record.name,
    )


def _record(row: Row[Any]) -> HistoryFileRecord:
    return HistoryFileRecord(
        ontology=row.ontology,
        day=date.fromisoformat(row.day_text),
        name=row.file_name,
        n_rows=row.n_rows,
        size_bytes=row.size_bytes,
        layout=row.layout,
        first_at=row.first_at,
        last_at=row.last_at,
        stale_rows=tuple(row.stale_rows or ()),
        created_at=row.created_at,
        retired_at=row.retired_at,
    )
