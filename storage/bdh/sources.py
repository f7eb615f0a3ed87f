"""What the sources of a statement read: files of the history, instances in real time, within the times that it asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, cast

import duckdb
import pyarrow as pa
from sqlglot import exp

from sib.errors import NotConfiguredError, SqlSyntaxError
from sib.query.budget import Budget
from storage.bdc.history import HistoryManifest
from storage.bdc.records import HistoryFileRecord
from storage.bdh import intervals, layout, parts
from storage.bdh.columns import CONTEXT, Layout
from storage.bdh.files import HistoryFiles
from storage.bdh.fitting import to_table
from storage.bdh.intervals import Intervals
from storage.bdh.journal import JournalOnly, Journals, StoreOf
from storage.bdh.pruning import days_needed
from storage.bdh.scan import quote, scan
from storage.bdh.sql import WRITE, Scope, Source
from storage.bdh.transfer import TransferStore
from storage.bdh.view import open_view

LAYOUTS_KEPT = 1_000

_PLAIN_MOMENT = re.compile(r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d:\d\d(?:\.\d{3}|\.\d{6})?)?")

_READS = {
    Scope.HISTORY: "the history",
    Scope.REAL_TIME: "the real-time database",
    Scope.BOTH: "the history and the real-time database, each instance once",
}


class Sources:
    """The history, and the real-time databases beside it. Safe for threads.

    ``manifest``: None if each source says which files it reads.
    """

    def __init__(
        self, files: HistoryFiles, manifest: HistoryManifest | None, store_of: StoreOf, journals: Journals
    ) -> None:
        self._files, self._manifest, self._store_of, self._journals = files, manifest, store_of, journals
        self._schemas: dict[str, pa.Schema] = {}

    def needed(self, connection: duckdb.DuckDBPyConnection, source: Source) -> Intervals:
        """The times that a source's conditions leave."""
        constant = partial(_constant, connection)
        found: Intervals = source.needed
        if source.as_of is not None:
            moment = constant(source.as_of)
            if moment is None:
                raise SqlSyntaxError("AS OF is followed by a moment: AS OF '2026-01-31 12:00:00'.")
            found = intervals.both(found, intervals.up_to(moment))
        for condition in source.conditions:
            found = intervals.both(found, days_needed(condition, source.name, constant))
        return found

    def files(self, source: Source, needed: Intervals) -> list[HistoryFileRecord]:
        """The files that have instances of these times."""
        return open_view(source.ontology.name, self._named(), self._store(source), needed)

    def define(
        self,
        connection: duckdb.DuckDBPyConnection,
        source: Source,
        budget: Budget,
        used: list[HistoryFileRecord],
    ) -> str:
        """The SELECT that gives a source its rows; ``used`` gets the files that it reads."""
        needed = self.needed(connection, source)
        if source.files is not None:
            used += source.files
            return scan(source.files, source.layout, self._files, self._schema_of)
        tables: list[pa.Table] = []
        wants_documents = source.scope is not Scope.HISTORY
        files = open_view(
            source.ontology.name,
            self._named(),
            self._store(source),
            needed,
            with_files=source.scope is not Scope.REAL_TIME,
            take=(lambda documents: tables.append(_real_time(documents, source.layout))) if wants_documents else None,
            budget=budget,
        )
        used += files
        selects = []
        if source.scope is not Scope.REAL_TIME:
            selects.append(scan(files, source.layout, self._files, self._schema_of))
        if wants_documents:
            name = f"{source.name}_bdtr"
            connection.register(name, pa.concat_tables(tables or [_real_time([], source.layout)]))
            selects.append(f"SELECT * FROM {quote(name)}")
        select = " UNION ALL ".join(selects)
        if source.as_of is None:
            return select
        moment = _constant(connection, source.as_of)
        time_ = f"{quote(CONTEXT)}.{quote('timestamp')}"
        return f"SELECT * FROM ({select}) WHERE {time_} <= TIMESTAMP '{moment}'"

    def told(self, connection: duckdb.DuckDBPyConnection, source: Source) -> Iterator[str]:
        """What would be read, in lines for a person."""
        needed = self.needed(connection, source)
        yield f"reads: {_READS[source.scope]}"
        yield f"times: {intervals.printed(needed)}"
        if source.scope is not Scope.REAL_TIME:
            name = source.ontology.name
            files = self.files(source, needed)
            days = len({record.day for record in files})
            size_bytes = sum(record.size_bytes for record in files)
            n_all = len(self._named().files(name))
            yield f"files: {len(files)} of {n_all}, {days} days, {size_bytes} bytes, {sum(f.n_rows for f in files)} rows"

    def _store(self, source: Source) -> TransferStore | None:
        """The BDTR of a source. Who asks for history alone does not wait for it."""
        if source.scope is Scope.HISTORY:
            return cast(TransferStore, JournalOnly(self._journals))
        return self._store_of(source.ontology.name)

    def _named(self) -> HistoryManifest:
        if self._manifest is None:
            raise NotConfiguredError("There is no manifest of the history here: say which files to read.")
        return self._manifest

    def _schema_of(self, record: HistoryFileRecord) -> pa.Schema:
        found = self._schemas.get(record.layout)
        if found is None:
            info = parts.inspected(self._files, layout.record_path(record))
            if len(self._schemas) >= LAYOUTS_KEPT:
                self._schemas.clear()
            found = self._schemas[record.layout] = info.schema
        return found


def _constant(connection: duckdb.DuckDBPyConnection, node: exp.Expr) -> datetime | None:
    """The moment that an expression without names stands for, as DuckDB sees it."""
    if isinstance(node, exp.Literal) and node.is_string and _PLAIN_MOMENT.fullmatch(node.this):
        with suppress(ValueError):
            return datetime.fromisoformat(node.this)
    try:
        rows = connection.execute(f"SELECT TRY_CAST({node.sql(dialect=WRITE)} AS TIMESTAMP)").fetchall()
    except (duckdb.BinderException, duckdb.CatalogException, duckdb.ConversionException):
        return None
    moment: datetime | None = rows[0][0]
    return moment


def _real_time(documents: list[dict[str, Any]], columns: Layout) -> pa.Table:
    table = to_table(documents, columns)
    days = pa.array([layout.day_of(document) for document in documents], pa.date32())
    return table.append_column(layout.DAY_COLUMN, days)
