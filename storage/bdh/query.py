"""Queries on the history: SQL through DuckDB over the files that the manifest names, in bounded time and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import TypeVar

import duckdb
import pyarrow as pa
from sqlglot import exp

from sib.errors import QueryTimeoutError
from sib.ontology import Ontology
from sib.query.budget import Budget
from sib.query.parameters import Parameters
from storage.bdc.history import HistoryManifest
from storage.bdc.records import HistoryFileRecord
from storage.bdh import guard, layout, parts
from storage.bdh.answers import QueryResult, ResultColumn, type_name
from storage.bdh.deadlines import Deadlines
from storage.bdh.engine import TOO_LONG, open_engine, translated
from storage.bdh.files import HistoryFiles
from storage.bdh.intervals import EVER, Intervals
from storage.bdh.journal import Journals, StoreOf
from storage.bdh.selecting import table_statement
from storage.bdh.sources import Sources
from storage.bdh.sql import WRITE, Scope, Statement, read_statement

MEMORY_BYTES = 1 << 30
"""Memory that the queries of one ``HistoryQueries`` use together; beyond it they are refused."""
THREADS = 2
ROWS_MAX = 1_000_000
"""Rows of a result as Python values."""
STATEMENTS_KEPT, STATEMENT_CHARS_KEPT = 1_000, 10_000
"""Statements that are not read again when they come again, and how long they may be."""

_OF_FILES = (duckdb.Error, duckdb.IOException, duckdb.InvalidInputException)
"""What DuckDB says of files that it cannot read; the first one itself, not what is derived from it."""

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
        self._lookup = lookup
        self._journals = Journals(store_of)
        self._sources = Sources(files, manifest, store_of, self._journals)
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
                told = "\n".join(self._sources.told(connection, source))
                stages.append((f"{source.name} = {source.ontology.name}", told))
        return stages

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
                    given = [
                        (each.name, self._sources.define(connection, each, budget, used)) for each in statement.sources
                    ]
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
            needed_here = self._sources.needed(connection, source)
        return self._sources.files(source, needed_here)


def _check(connection: duckdb.DuckDBPyConnection, statement: Statement) -> None:
    if statement.is_checked:
        return
    guard.check(connection, statement.text([]), [source.name for source in statement.sources])
    for source in statement.sources:
        if source.as_of is not None:
            guard.check(connection, f"SELECT {source.as_of.sql(dialect=WRITE)}", ())
    statement.is_checked = True
