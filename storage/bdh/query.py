"""Queries on the history: SQL through DuckDB over the files that the manifest names, in bounded time and memory."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import takewhile
from typing import Any, TypeVar, cast

import duckdb
import pyarrow as pa
from sqlglot import exp

from sib.errors import (
    NotConfiguredError,
    QueryTimeoutError,
    SqlSyntaxError,
    UnknownFieldError,
)
from sib.ontology import Ontology
from sib.query.budget import Budget
from sib.query.parameters import Parameters
from storage.bdc.history import HistoryManifest
from storage.bdc.records import HistoryFileRecord
from storage.bdh import guard, intervals, layout, names, parts
from storage.bdh.answers import QueryResult, ResultColumn, type_name
from storage.bdh.columns import CONTEXT, Layout, layout_of
from storage.bdh.deadlines import Deadlines
from storage.bdh.engine import TOO_LONG, open_engine, translated
from storage.bdh.files import HistoryFiles
from storage.bdh.fitting import to_table
from storage.bdh.intervals import EVER, Intervals
from storage.bdh.journal import JournalOnly, Journals, StoreOf
from storage.bdh.pruning import days_needed
from storage.bdh.scan import literal, quote, scan
from storage.bdh.sql import FIRST_SOURCE, WRITE, Scope, Source, Statement, read_statement
from storage.bdh.transfer import TransferStore
from storage.bdh.view import open_view

MEMORY_BYTES = 1 << 30
"""Memory that the queries of one ``HistoryQueries`` use together; beyond it they are refused."""
THREADS = 2
ROWS_MAX = 1_000_000
"""Rows of a result as Python values."""
LAYOUTS_KEPT = 1_000
STATEMENTS_KEPT, STATEMENT_CHARS_KEPT = 1_000, 10_000
"""Statements that are not read again when they come again, and how long they may be."""

_OF_FILES = (duckdb.Error, duckdb.IOException, duckdb.InvalidInputException)
"""What DuckDB says of files that it cannot read; the first one itself, not what is derived from it."""
_PLAIN_MOMENT = re.compile(r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d:\d\d(?:\.\d{3}|\.\d{6})?)?")

_READS = {
    Scope.HISTORY: "the history",
    Scope.REAL_TIME: "the real-time database",
    Scope.BOTH: "the history and the real-time database, each instance once",
}

Result = TypeVar("Result")
Lookup = Callable[[str], Ontology]


class HistoryQueries:
    """Runs SQL on one history. Safe for threads; each query has a connection of its own to one DuckDB in memory."""

    def __init__(
        self,
        files: HistoryFiles,
        manifest: HistoryManifest | None,
        lookup: Lookup,
        store_of: StoreOf = lambda _: None,
        *,
        memory_bytes: int = MEMORY_BYTES,
        threads: int = THREADS,
    ) -> None:
        """Make it ready; nothing is opened yet.

        Args:
            files: where history lies.
            manifest: which files count; None if it is always said which to read.
            lookup: the ontology of a name; raises OntologyNotFoundError, or AuthorizationError to refuse a read.
            store_of: the BDTR of an ontology, None if it has none.
            memory_bytes: see ``MEMORY_BYTES``.
            threads: of DuckDB.
        """
        self._files = files
        self._manifest = manifest
        self._lookup = lookup
        self._store_of = store_of
        self._schemas: dict[str, pa.Schema] = {}
        self._journals = Journals(store_of)
        self._deadlines = Deadlines()
        self._statements: dict[tuple[str, Scope], Statement] = {}
        self._database = open_engine(files, memory_bytes, threads)

    def close(self) -> None:
        """End all queries."""
        self._journals.close()
        self._database.close()

    def run(
        self,
        text: str,
        *,
        scope: Scope = Scope.HISTORY,
        lookup: Lookup | None = None,
        parameters: Parameters | None = None,
        row_cap: int = ROWS_MAX,
        time_limit_s: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> QueryResult:
        """Carry out a SELECT.

        Args:
            text: the statement, see ``sql``.
            scope: where instances come from when the statement does not say it.
            lookup: the ontology of a name for this query; by default that of ``__init__``.
            parameters: values for ``{$name}`` of a predefined query.
            row_cap: rows of the result.
            time_limit_s: after that it is stopped.
            monotonic: seconds that only grow.

        Raises:
            SqlSyntaxError, UnknownFieldError, OntologyNotFoundError: the statement is wrong.
            QueryTimeoutError, LimitError: it takes too long or too much memory.
            StoreUnavailableError: a database or file system does not answer.
        """
        cap = min(row_cap, ROWS_MAX)
        deadline_s = monotonic() + time_limit_s
        lookup = lookup or self._lookup
        if parameters is None:
            statement = self._statement(text, scope, lookup)
        else:
            statement = read_statement(text, lookup=lookup, scope=scope, parameters=parameters)

        def rows(connection: duckdb.DuckDBPyConnection, sql: str) -> QueryResult:
            connection.execute(sql)
            columns = [ResultColumn(each[0], type_name(str(each[1]))) for each in connection.description or ()]
            found = connection.fetchmany(cap + 1)
            return QueryResult(columns, found[:cap], len(found) > cap)

        return self._execute(statement, rows, deadline_s, monotonic)

    def arrow(
        self,
        text: str,
        *,
        scope: Scope = Scope.HISTORY,
        time_limit_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> pa.Table:
        """As ``run``, but all rows as an Arrow table in memory."""
        deadline_s = monotonic() + time_limit_s
        statement = self._statement(text, scope, self._lookup)

        def read(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
            return connection.sql(sql).to_arrow_table()

        return self._execute(statement, read, deadline_s, monotonic)

    def table(
        self,
        ontology: str,
        *,
        needed: Intervals = EVER,
        condition: tuple[str, exp.Expr] | None = None,
        columns: Sequence[str] | None = None,
        files: list[HistoryFileRecord] | None = None,
        scope: Scope = Scope.HISTORY,
        time_limit_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> pa.Table:
        """History as an Arrow table with the ontology's own columns (``_id``, ``contextData``, root or fields, ``_raw``).

        Args:
            ontology: its name.
            needed: times of the instances.
            condition: of ``sql.read_condition``.
            columns: names, also dotted ones; all by default.
            files: the only ones to read; by default those of the manifest.
            scope: the history, or what is in real time with it.
            time_limit_s: after that it is stopped.
            monotonic: seconds that only grow.

        Raises:
            SibError: as ``run``.
        """
        statement = table_statement(self._lookup(ontology), needed, condition, columns)
        statement.sources[0].files, statement.sources[0].scope = files, scope
        wanted = statement.sources[0].layout.arrow()

        def read(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
            table = connection.sql(sql).to_arrow_table()
            own = [
                wanted.field(name) if name in wanted.names else table.schema.field(name) for name in table.column_names
            ]
            return table.cast(pa.schema(own))  # DuckDB has times of another precision

        return self._execute(statement, read, monotonic() + time_limit_s, monotonic)

    def explain(self, text: str, *, scope: Scope = Scope.HISTORY, time_limit_s: float = 30.0) -> list[tuple[str, str]]:
        """What ``run`` would do, as (title, text): the statement for DuckDB, then what is read of each ontology.

        Raises:
            SibError: as ``run``.
        """
        statement = self._statement(text, scope, self._lookup)
        stages = [("statement for DuckDB", statement.text([]))]
        with self._connection(time_limit_s) as connection:
            _check(connection, statement)
            for source in statement.sources:
                needed = self._needed(source, lambda node: _constant(connection, node))
                stages.append((f"{source.name} = {source.ontology.name}", "\n".join(self._told(source, needed))))
        return stages

    def _told(self, source: Source, needed: Intervals) -> Iterator[str]:
        yield f"reads: {_READS[source.scope]}"
        yield f"times: {intervals.printed(needed)}"
        if source.scope is not Scope.REAL_TIME:
            name = source.ontology.name
            files = open_view(name, self._named(), self._store(source), needed)
            days = len({record.day for record in files})
            size_bytes = sum(record.size_bytes for record in files)
            n_all = len(self._named().files(name))
            yield f"files: {len(files)} of {n_all}, {days} days, {size_bytes} bytes, {sum(f.n_rows for f in files)} rows"

    def _statement(self, text: str, scope: Scope, lookup: Lookup) -> Statement:
        """The statement of a text, read once as long as its ontologies stay as they are."""
        known = self._statements.get((text, scope))
        if known is not None:
            # Asked for each time: the caller may have lost the right to read it.
            present = [lookup(source.ontology.name) for source in known.sources]
            if all(source.ontology is ontology for source, ontology in zip(known.sources, present, strict=True)):
                return known
        statement = read_statement(text, lookup=lookup, scope=scope)
        if len(self._statements) >= STATEMENTS_KEPT:
            self._statements.clear()
        if len(text) <= STATEMENT_CHARS_KEPT:
            self._statements[text, scope] = statement
        return statement

    def _execute(
        self,
        statement: Statement,
        read: Callable[[duckdb.DuckDBPyConnection, str], Result],
        deadline_s: float,
        monotonic: Callable[[], float],
    ) -> Result:
        budget = Budget.lasting(deadline_s - monotonic(), monotonic)
        for is_last in (False, True):
            with self._connection(deadline_s - monotonic()) as connection:
                _check(connection, statement)
                used: list[HistoryFileRecord] = []
                try:
                    given = [(each.name, self._define(connection, each, budget, used)) for each in statement.sources]
                    return read(connection, statement.text(given))
                except (duckdb.Error, parts.LostPartError) as error:
                    # A compaction may have deleted what the manifest had named: it names other files now.
                    if not is_last and (isinstance(error, parts.LostPartError) or "No files found" in str(error)):
                        continue
                    if type(error) in _OF_FILES:
                        in_time = takewhile(lambda _: monotonic() < deadline_s, used)
                        parts.check(self._files, map(layout.record_path, in_time))
                    raise
        raise AssertionError

    @staticmethod
    def _needed(source: Source, constant: Callable[[exp.Expr], datetime | None]) -> Intervals:
        """The times that a source's conditions leave."""
        found: Intervals = source.needed
        if source.as_of is not None:
            moment = constant(source.as_of)
            if moment is None:
                raise SqlSyntaxError("AS OF is followed by a moment: AS OF '2026-01-31 12:00:00'.")
            found = intervals.both(found, intervals.up_to(moment))
        for condition in source.conditions:
            found = intervals.both(found, days_needed(condition, source.name, constant))
        return found

    def _define(
        self,
        connection: duckdb.DuckDBPyConnection,
        source: Source,
        budget: Budget,
        used: list[HistoryFileRecord],
    ) -> str:
        """The SELECT that gives a source its rows; ``used`` gets the files that it reads."""

        def constant(node: exp.Expr) -> datetime | None:
            return _constant(connection, node)

        needed = self._needed(source, constant)
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
        moment = constant(source.as_of)
        time_ = f"{quote(CONTEXT)}.{quote('timestamp')}"
        return f"SELECT * FROM ({select}) WHERE {time_} <= TIMESTAMP '{moment}'"

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

    @contextmanager
    def _connection(self, time_limit_s: float) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection that is interrupted at the limit; failures come out as the platform's errors."""
        if time_limit_s <= 0:
            raise QueryTimeoutError(TOO_LONG)
        connection = self._database.cursor()
        try:
            with translated(), self._deadlines.interrupted_after(time_limit_s, connection.interrupt):
                yield connection
        finally:
            connection.close()

    def files_of(
        self,
        ontology: str,
        *,
        needed: Intervals = EVER,
        condition: tuple[str, exp.Expr] | None = None,
        time_limit_s: float,
    ) -> list[HistoryFileRecord]:
        """The files that ``table`` would read."""
        source = table_statement(self._lookup(ontology), needed, condition).sources[0]
        with self._connection(time_limit_s) as connection:
            times = self._needed(source, lambda node: _constant(connection, node))
        return open_view(ontology, self._named(), self._store(source), times)


def table_statement(
    ontology: Ontology,
    needed: Intervals,
    condition: tuple[str, exp.Expr] | None = None,
    columns: Sequence[str] | None = None,
) -> Statement:
    """A SELECT of an ontology's own columns, for times and a condition.

    Raises:
        UnknownFieldError: there is no such column.
    """
    source = Source(FIRST_SOURCE, ontology, layout_of(ontology), Scope.HISTORY, None, needed=needed)
    conditions = []
    if condition is not None:
        source.conditions.append(condition[1])
        conditions.append(f"({condition[0]})")
    if needed != EVER:
        conditions.append(_within(needed))
    items = ", ".join(_items(ontology, source.layout, columns))
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return Statement([source], [], False, f"SELECT {items} FROM {quote(source.name)}{where}")


def _check(connection: duckdb.DuckDBPyConnection, statement: Statement) -> None:
    if statement.is_checked:
        return
    guard.check(connection, statement.text([]), [source.name for source in statement.sources])
    for source in statement.sources:
        if source.as_of is not None:
            guard.check(connection, f"SELECT {source.as_of.sql(dialect=WRITE)}", ())
    statement.is_checked = True


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


def _items(ontology: Ontology, columns: Layout, wanted: Sequence[str] | None) -> Iterator[str]:
    if wanted is None:
        yield from (quote(name) for name in columns.arrow().names)
        return
    if not wanted:
        raise UnknownFieldError("Name at least one column, or give no columns for all.")
    for name in wanted:
        found = names.find(name.split("."), ontology, columns)
        path = ".".join(map(quote, found.path))
        if found.rest:
            inside = "$" + "".join(f'."{part}"' for part in found.rest)
            path = f"json_extract_string({path}, {literal(inside)})"
        yield f"{path} AS {quote(name)}"


def _within(needed: Intervals) -> str:
    moment = f"{quote(CONTEXT)}.{quote('timestamp')}"
    ranges = []
    for start, end in needed:
        bounds = [] if start == datetime.min else [f"{moment} >= TIMESTAMP '{start}'"]
        bounds += [] if end == datetime.max else [f"{moment} < TIMESTAMP '{end}'"]
        ranges.append(f"({' AND '.join(bounds)})" if bounds else "true")
    return f"({' OR '.join(ranges)})" if ranges else "false"


def _real_time(documents: list[dict[str, Any]], columns: Layout) -> pa.Table:
    table = to_table(documents, columns)
    days = pa.array([layout.day_of(document) for document in documents], pa.date32())
    return table.append_column(layout.DAY_COLUMN, days)
