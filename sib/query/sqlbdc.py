"""Statements on the configuration database (queryType BDC): ``select * from Asset where identificacion='x'``."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlglot import exp

from sib.errors import SqlSyntaxError
from sib.query.plan import Filter
from sib.query.sqlcolumns import Columns
from sib.query.sqlparse import parse_sql
from sib.query.sqlrows import is_simple_path
from sib.query.sqlselect import path_in_order, read_select


@dataclass(frozen=True, slots=True)
class TableRead:
    """A read of one table. Names of the table and of columns are in lower case; ``columns`` None: all of them.

    ``filter`` is a MongoDB filter over rows whose keys are the column names in lower case.
    """

    table: str
    columns: tuple[str, ...] | None = None
    filter: Filter = field(default_factory=dict)
    order: tuple[tuple[str, int], ...] = ()
    skip: int = 0
    limit: int | None = None
    is_count: bool = False


def plan_bdc(text: str) -> TableRead:
    """The plan of a SELECT on one table: columns, WHERE, ORDER BY, LIMIT, or ``count(*)`` alone.

    ``limit`` 0 means no row. Which tables and columns there are is for the store to say.

    Raises:
        SqlSyntaxError: it is not such a statement. The configuration is read only.
    """
    tree = parse_sql(text)
    if not isinstance(tree, exp.Select):
        raise SqlSyntaxError("The configuration is read only: a BDC query is a select.")
    if tree.args.get("group") or tree.args.get("having") or tree.args.get("distinct"):
        raise SqlSyntaxError("A BDC query takes columns, WHERE, ORDER BY and LIMIT only.")
    try:
        return _read(tree)
    except RecursionError:
        raise SqlSyntaxError("The statement is nested too deeply.") from None


def _read(tree: exp.Select) -> TableRead:
    select = read_select(tree, _Table, now=None)
    names, is_count = _columns(tree, select.columns)
    return TableRead(
        table=select.ontology.lower(),
        columns=names,
        filter=select.filter,
        order=tuple((_order_column(node, select.columns), direction) for node, direction in select.order),
        skip=select.skip,
        limit=select.limit,
        is_count=is_count,
    )


def _columns(tree: exp.Select, columns: Columns) -> tuple[tuple[str, ...] | None, bool]:
    nodes = [each.unalias().unnest() for each in tree.expressions]
    if len(nodes) == 1 and isinstance(nodes[0], exp.Count) and isinstance(nodes[0].this, exp.Star | exp.Literal):
        return None, True
    if any(columns.is_all(node) for node in nodes):
        return None, False
    if any(isinstance(each, exp.Alias) or not is_simple_path(each) for each in tree.expressions):
        raise SqlSyntaxError("A BDC query names columns, *, or count(*).")
    return tuple(columns.resolve(node) for node in nodes), False


def _order_column(node: exp.Expr, columns: Columns) -> str:
    path = path_in_order(node, columns)
    if path is None:
        raise SqlSyntaxError("ORDER BY of a BDC query takes columns.")
    return path


class _Table:
    """A table as the planner sees an ontology: columns are what stands behind the table's name, in lower case."""

    def __init__(self, name: str) -> None:
        self.name = name

    def resolve_column(self, path: str) -> str:
        *table, column = path.lower().split(".")
        if table not in ([], [self.name.lower()]):
            raise SqlSyntaxError(f"{path[:60]} is not a column of {self.name}.")
        return column

    def is_date(self, path: str) -> bool:
        return False
