"""A SQL statement on history: read, checked, and rewritten so that DuckDB runs it over the files.

The text is read in Hive's dialect, the original's: back quotes around names, both quotes around strings, its functions.
Each table is an ontology: ``Name`` (where the caller says), ``bdh.Name`` (history), ``bdtr.Name`` (real time) or
``both.Name`` (both, without gap or double), each with an optional ``AS OF 'moment'``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError

from sib.errors import SqlSyntaxError, UnknownFieldError
from sib.ontology import Ontology
from sib.query.parameters import Parameters
from sib.query.sqlparse import MAX_TREE_DEPTH, normalise, substitute
from storage.bdc.records import HistoryFileRecord
from storage.bdh import names
from storage.bdh.columns import Layout, layout_of
from storage.bdh.hive import to_duckdb
from storage.bdh.intervals import EVER, Intervals

READ, WRITE = "hive", "duckdb"
FIRST_SOURCE = "__t0"
TABLES_MAX = 16
"""Ontologies that one statement may read."""

_AS_OF = re.compile(
    r"""('(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`[^`]*`|(?:SYSTEM_TIME|TIMESTAMP)\s+AS\s+OF\b)|\bAS\s+OF\s+(?:TIMESTAMP\s+)?(?=['"])""",
    re.IGNORECASE,
)
_ALLOWED = (exp.Select, exp.SetOperation)
_REFUSED: tuple[type[exp.Expr], ...] = (
    exp.Command, exp.Into, exp.Placeholder, exp.Parameter, exp.SessionParameter, exp.DML, exp.DDL, exp.Pivot, exp.Lock,
)  # fmt: skip


class Scope(StrEnum):
    """Where the instances of a table come from."""

    HISTORY = "bdh"
    REAL_TIME = "bdtr"
    BOTH = "both"


@dataclass(slots=True)
class Source:
    """One ontology that a statement reads, under the name that the rewritten statement gives it."""

    name: str
    ontology: Ontology
    layout: Layout
    scope: Scope
    as_of: exp.Expr | None
    needed: Intervals = EVER
    files: list[HistoryFileRecord] | None = None
    conditions: list[exp.Expr] = field(default_factory=list)
    """Conditions that every row in the result fulfils, in terms of this source alone: they say which days are needed."""


@dataclass(slots=True)
class Statement:
    """A statement ready to run: ``with_`` and ``body`` are DuckDB's SQL, to be put after the sources' own definitions."""

    sources: list[Source]
    with_: list[str]
    is_recursive: bool
    body: str
    is_checked: bool = False
    """Whether ``guard`` has looked at it."""

    def text(self, definitions: Iterable[tuple[str, str]]) -> str:
        """The whole statement; ``definitions`` give each source's name and its SELECT."""
        # Materialised, a source would be read as a whole, without conditions and with all columns.
        parts = [f'"{name}" AS NOT MATERIALIZED ({select})' for name, select in definitions] + self.with_
        return f"WITH {'RECURSIVE ' if self.is_recursive else ''}{', '.join(parts)} {self.body}" if parts else self.body


def read_statement(
    text: str,
    *,
    lookup: Callable[[str], Ontology],
    scope: Scope = Scope.HISTORY,
    parameters: Parameters | None = None,
) -> Statement:
    """Read one SELECT.

    Args:
        text: the statement.
        lookup: the ontology of a name; raises OntologyNotFoundError.
        scope: where instances of a table come from that does not say it.
        parameters: values for ``{$name}`` of a predefined query; without them such a text is refused.

    Raises:
        SqlSyntaxError: it cannot be read, or is no SELECT on ontologies.
        UnknownFieldError, OntologyNotFoundError: it names what there is not.
    """
    tree = _parse(normalise(text, parameters))
    _check(tree)
    if parameters is not None:
        substitute(tree, parameters)
    rewriter = _Rewriter(lookup, scope)
    rewriter.query(tree, {})
    with_ = tree.args.pop("with_", None)
    definitions = [] if with_ is None else [_print(cte) for cte in with_.expressions]
    is_recursive = with_ is not None and bool(with_.args.get("recursive"))
    return Statement(rewriter.sources, definitions, is_recursive, _print(tree))


def read_condition(text: str, ontology: Ontology) -> tuple[str, exp.Expr]:
    """A WHERE condition on one ontology: (DuckDB's SQL, the condition with names resolved).

    Raises:
        SqlSyntaxError, UnknownFieldError: as ``read_statement``.
    """
    statement = _Rewriter(lambda _: ontology, Scope.HISTORY)
    tree = _parse(f"select 1 from `{ontology.name.replace('`', '')}` where {normalise(text)}")
    _check(tree)
    if not isinstance(tree, exp.Select) or tree.find(exp.Subquery) or len(list(tree.find_all(exp.Select))) > 1:
        raise SqlSyntaxError("The condition cannot be read as one condition on the fields of the ontology.")
    if any(tree.args.get(name) for name in ("group", "having", "order", "limit", "offset", "joins")):
        raise SqlSyntaxError("The condition has more than a condition in it: give only what follows WHERE.")
    statement.query(tree, {})
    condition = tree.args["where"].this
    return _print(condition), condition


def _parse(text: str) -> exp.Expr:
    text = _AS_OF.sub(lambda match: match.group(1) or "TIMESTAMP AS OF ", text)
    try:
        trees = [tree for tree in sqlglot.parse(text, dialect=READ) if tree is not None]
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        raise SqlSyntaxError(
            f"The statement cannot be read at line {first.get('line')}, column {first.get('col')}: "
            f"{str(first.get('description'))[:200]}."
        ) from None
    except RecursionError:
        raise SqlSyntaxError("The statement is nested too deeply.") from None
    except (SqlglotError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise SqlSyntaxError(f"The statement cannot be read: {str(error)[:200]}") from None
    if len(trees) != 1 or not isinstance(trees[0], _ALLOWED):
        raise SqlSyntaxError("A query on the history is one SELECT.")
    return trees[0]


def _check(tree: exp.Expr) -> None:
    pending: list[tuple[exp.Expr, int]] = [(tree, 0)]
    while pending:
        node, depth = pending.pop()
        if depth > MAX_TREE_DEPTH:
            raise SqlSyntaxError(f"A statement nested deeper than {MAX_TREE_DEPTH} is refused.")
        if isinstance(node, _REFUSED):
            raise SqlSyntaxError(f"{type(node).__name__.upper()} is not accepted in a query on the history.")
        if isinstance(node, exp.Table) and not isinstance(node.this, exp.Identifier):
            raise SqlSyntaxError("A query on the history reads ontologies only, no functions as tables.")
        for child in node.iter_expressions():
            is_chain = isinstance(node, exp.And | exp.Or) and type(child) is type(node)
            pending.append((child, depth if is_chain else depth + 1))


def _print(node: exp.Expr) -> str:
    try:
        return to_duckdb(node).sql(dialect=WRITE, comments=False, unsupported_level=sqlglot.ErrorLevel.RAISE)
    except SqlglotError as error:
        raise SqlSyntaxError(f"The statement uses what cannot be run on the history: {str(error)[:200]}.") from None


class _Rewriter:
    """Replaces tables by sources and names by paths, select by select."""

    def __init__(self, lookup: Callable[[str], Ontology], scope: Scope) -> None:
        self._lookup = lookup
        self._scope = scope
        self.sources: list[Source] = []

    def query(self, node: exp.Expr, views: dict[str, None]) -> None:
        """Rewrite a SELECT or a set operation; ``views`` are the names that WITH defines around it."""
        views = dict(views)
        with_ = node.args.get("with_")
        is_recursive = with_ is not None and bool(with_.args.get("recursive"))
        for cte in [] if with_ is None else with_.expressions:
            if is_recursive:
                views[cte.alias.lower()] = None
            self.query(cte.this, views)
            views[cte.alias.lower()] = None
        if isinstance(node, exp.SetOperation):
            self.query(node.this, views)
            self.query(node.expression, views)
        elif isinstance(node, exp.Subquery):
            self.query(node.this, views)
        elif isinstance(node, exp.Select):
            self._select(node, views)
        else:
            raise SqlSyntaxError("A query on the history is one SELECT.")

    def _select(self, select: exp.Select, views: dict[str, None]) -> None:
        here: dict[str, Source | None] = {}
        for table in self._tables(select):
            if isinstance(table, exp.Table):
                self._table(table, views, here)
            elif isinstance(table, exp.Subquery):
                self.query(table.this, views)
                here[table.alias.lower()] = None
            else:
                here[(table.alias_or_name or "").lower()] = None
        for inner in list(_inner_queries(select)):
            self.query(inner, views)
        self._star(select, here)
        self._columns(select, here)
        self._note_conditions(select, here)

    @staticmethod
    def _tables(select: exp.Select) -> Iterator[exp.Expr]:
        from_ = select.args.get("from_")
        if from_ is not None:
            yield from_.this
        for join in select.args.get("joins") or ():
            yield join.this
        yield from select.args.get("laterals") or ()

    def _table(self, table: exp.Table, views: dict[str, None], here: dict[str, Source | None]) -> None:
        written = table.name
        alias = table.alias or written
        for join in table.args.get("joins") or ():
            if isinstance(join.this, exp.Table):
                self._table(join.this, views, here)
        if not table.args.get("db") and written.lower() in views:
            here[alias.lower()] = None
            return
        scope = self._scope
        if table.args.get("db"):
            try:
                scope = Scope(table.args["db"].name.lower())
            except ValueError:
                raise SqlSyntaxError("Before the name of an ontology stands bdh, bdtr or both, or nothing.") from None
        if table.args.get("catalog") or len(self.sources) >= TABLES_MAX:
            raise SqlSyntaxError(f"A statement names at most {TABLES_MAX} tables, each as Name or bdh.Name.")
        ontology = self._lookup(written)
        version = table.args.get("version")
        source = Source(
            f"__t{len(self.sources)}",
            ontology,
            layout_of(ontology),
            scope,
            None if version is None else _moment(version),
        )
        self.sources.append(source)
        here[alias.lower()] = source
        for name in ("db", "version"):
            table.set(name, None)
        table.set("this", exp.to_identifier(source.name, quoted=True))
        table.set("alias", exp.TableAlias(this=exp.to_identifier(source.name, quoted=True)))

    def _star(self, select: exp.Select, here: dict[str, Source | None]) -> None:
        shown: list[exp.Expr] = []
        for item in select.expressions:
            if isinstance(item, exp.Star) and not item.args.get("except_") and any(here.values()):
                for alias, source in here.items():
                    shown += _all_of(source) if source is not None else [_star_of(alias)]
            elif isinstance(item, exp.Column) and isinstance(item.this, exp.Star):
                source = here.get(item.table.lower())
                shown += _all_of(source) if source is not None else [item]
            elif not isinstance(item, exp.Alias):
                shown.append(self._aliased(item, here))
            else:
                shown.append(item)
        select.set("expressions", shown)

    def _aliased(self, item: exp.Expr, here: dict[str, Source | None]) -> exp.Expr:
        if isinstance(item, exp.Star | exp.Aliases | exp.Explode) or not any(here.values()):
            return item
        parts = _parts(item)
        if parts is not None:
            found = self._find(parts, here)
            return item if found is None else exp.alias_(item.copy(), found[1].shown, quoted=True)
        return exp.alias_(item.copy(), item.sql(dialect=READ, normalize_functions="lower", comments=False), quoted=True)

    def _columns(self, select: exp.Select, here: dict[str, Source | None]) -> None:
        aliases = {item.alias.lower() for item in select.expressions if isinstance(item, exp.Alias)}
        for node in list(_own_names(select)):
            parts = _parts(node)
            if parts is None or any(source.name == parts[0] for source in self.sources):
                continue  # put there by _star
            is_late = any(node.find_ancestor(kind) for kind in (exp.Order, exp.Group, exp.Having, exp.Qualify))
            if is_late and len(parts) == 1 and parts[0].lower() in aliases:
                continue
            found = self._find(parts, here)
            if found is not None:
                node.replace(_access(*found))

    def _find(self, parts: list[str], here: dict[str, Source | None]) -> tuple[Source, names.Named] | None:
        """What a name means; None if it belongs to a view, a subquery or a select around this one."""
        if len(parts) > 1 and parts[0].lower() in here:
            source = here[parts[0].lower()]
            if source is None:
                return None
            try:
                return source, names.find(parts[1:], source.ontology, source.layout)
            except UnknownFieldError:
                return source, names.find(parts, source.ontology, source.layout)
        error: UnknownFieldError | None = None
        for source in here.values():
            if source is None:
                return None
            try:
                return source, names.find(parts, source.ontology, source.layout)
            except UnknownFieldError as failure:
                error = error or failure
        if error is not None:
            raise error
        return None

    @staticmethod
    def _note_conditions(select: exp.Select, here: dict[str, Source | None]) -> None:
        """Conditions on rows that no outer join fills up, by the one source that they are about."""
        where = select.args.get("where")
        sides = [str(join.args.get("side") or "").upper() for join in select.args.get("joins") or ()]
        if where is None:
            return
        for source in here.values():
            if source is not None and not any(sides):
                source.conditions.append(where.this)


def _moment(version: exp.Expr) -> exp.Expr:
    moment: exp.Expr | None = version.args.get("expression")
    if moment is None or moment.find(exp.Column) or moment.find(exp.Select):
        raise SqlSyntaxError("AS OF is followed by a moment: AS OF '2026-01-31 12:00:00'.")
    return moment


def _own_names(select: exp.Select) -> Iterator[exp.Expr]:
    """The names in a SELECT that are not in a SELECT inside it; of ``a.b.c.d.e`` the whole."""
    pending: list[exp.Expr] = [child for child in select.iter_expressions() if not isinstance(child, exp.With)]
    while pending:
        node = pending.pop()
        if isinstance(node, exp.Query):
            continue
        if isinstance(node, exp.Column | exp.Dot) and _parts(node) is not None:
            yield node
            continue
        pending += list(node.iter_expressions())


def _inner_queries(select: exp.Select) -> Iterator[exp.Expr]:
    """The SELECTs in conditions and expressions of a SELECT: subqueries that are no tables."""
    pending: list[exp.Expr] = [
        child for child in select.iter_expressions() if not isinstance(child, exp.With | exp.From | exp.Lateral)
    ]
    while pending:
        node = pending.pop()
        if isinstance(node, exp.Join):
            pending += [node.args["on"]] if node.args.get("on") is not None else []
        elif isinstance(node, exp.Select | exp.SetOperation):
            yield node
        else:
            pending += list(node.iter_expressions())


def _parts(node: exp.Expr) -> list[str] | None:
    """The parts of a dotted name; None if it is no plain name."""
    if isinstance(node, exp.Column) and not isinstance(node.this, exp.Star):
        return [part for identifier in node.parts for part in _split(identifier)]
    if isinstance(node, exp.Dot) and isinstance(node.expression, exp.Identifier):
        before = _parts(node.this)
        return None if before is None else before + _split(node.expression)
    return None


def _split(identifier: exp.Expr) -> list[str]:
    # The name of a result's column, in back quotes: `contextdata.timestamp`.
    return [part for part in identifier.name.split(".") if part] or [identifier.name]


def _access(source: Source, named: names.Named) -> exp.Expr:
    first, *others = named.path
    node: exp.Expr = exp.column(
        exp.to_identifier(first, quoted=True), table=exp.to_identifier(source.name, quoted=True)
    )
    for name in others:
        node = exp.Dot(this=node, expression=exp.to_identifier(name, quoted=True))
    if named.rest:
        path = "$" + "".join(f'."{part}"' for part in named.rest)
        node = exp.Anonymous(this="json_extract_string", expressions=[node, exp.Literal.string(path)])
    return node


def _all_of(source: Source) -> list[exp.Expr]:
    return [exp.alias_(_access(source, named), named.shown, quoted=True) for named in names.all_columns(source.layout)]


def _star_of(alias: str) -> exp.Expr:
    return exp.Column(this=exp.Star(), table=exp.to_identifier(alias, quoted=True))
