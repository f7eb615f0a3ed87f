"""SELECT without groups to plans: whole instances, projections that keep the nesting, expressions with flat keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlglot import exp

from sib.errors import SqlSyntaxError
from sib.query.plan import Aggregate, Find, Plan, Sort, Stage
from sib.query.sqlcolumns import is_path, raw_path
from sib.query.sqlexpr import Expressions
from sib.query.sqlfilter import NEVER
from sib.query.sqlparse import print_node
from sib.query.sqlselect import Item, Select, path_in_order

MAX_KEY_CHARS = 200

_SORT_FIELD = "__sort"


def plan_rows(select: Select) -> Plan:
    """The plan of a SELECT without aggregates, GROUP BY and DISTINCT.

    Source: the Sofia2 manuals show ``select X.temp from X`` giving ``{"X": {"temp": 31}}``: nested, without ``_id``.
    """
    others = [item for item in select.items if not select.columns.is_all(item.node)]
    is_all = len(others) < len(select.items)
    sort, computed = _sort(select)
    if not computed and all(item.alias is None and is_simple_path(item.node) for item in others):
        paths = [select.columns.resolve(item.node) for item in others]
        condition = NEVER if select.limit == 0 else select.filter
        projection = None if is_all else _projection(paths)
        return Find(select.ontology, condition, projection, sort, select.skip, select.limit or None)
    stages = select.match()
    stages += [{"$addFields": computed}] if computed else []
    stages += [{"$sort": dict(sort)}] if sort else []
    stages += select.window()
    return Aggregate(select.ontology, (*stages, *_shown(select, others, is_all=is_all, computed=list(computed))))


def _shown(select: Select, others: list[Item], *, is_all: bool, computed: list[str]) -> list[Stage]:
    rows = Rows()
    expressions = Expressions(select.columns, select.now)
    for item in others:
        if item.alias is None and is_simple_path(item.node):
            if not is_all:
                rows.add_nested(select.columns.resolve(item.node), 1)
        else:
            rows.add_flat(item, expressions.translate(item.node))
    if not is_all:
        return [rows.project()]
    stages: list[Stage] = [{"$addFields": rows.keys}] if rows.keys else []
    return [*stages, {"$unset": computed}] if computed else stages


class Rows:
    """The keys of the rows of a select, and where their values come from."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self._flat: set[str] = set()
        self._nested: set[str] = set()

    def add_nested(self, path: str, value: Any) -> None:
        """A column without alias keeps its place in the instance."""
        self._nested.add(path)
        self.keys[path] = value
        self._refuse_collisions()

    def add_flat(self, item: Item, value: Any) -> str:
        """An alias or an expression is a key of its own; returns the key."""
        key = item.alias if item.alias is not None else self._free(text_of(item.node))
        is_number = isinstance(value, bool | int | float)  # which $project would read as "include"
        self._flat.add(key)
        self.keys[key] = {"$literal": value} if is_number else value
        self._refuse_collisions()
        return key

    def project(self) -> Stage:
        """The stage that makes the rows. A path inside another one that is shown goes with it."""
        shown = {key: value for key, value in self.keys.items() if not _is_inside(key, self._nested)}
        return {"$project": shown if "_id" in shown else {"_id": 0, **shown}}

    def _free(self, key: str) -> str:
        number, free = 2, key
        while free in self.keys:
            free = f"{key}_{number}"
            number += 1
        return free

    def _refuse_collisions(self) -> None:
        both = self._flat & {path.split(".")[0] for path in self._nested}
        if both:
            raise SqlSyntaxError(f"'{min(both)}' is the key of two items: give one of them another alias.")


def is_simple_path(node: exp.Expr) -> bool:
    """Whether a projection can show the field: a path without array indexes."""
    node = node.unnest()
    return is_path(node) and not any(segment.isdigit() for segment in raw_path(node).split("."))


def text_of(node: exp.Expr) -> str:
    """The key of an expression without alias: its text, with columns by their last name (``max(measure)``)."""
    copy = node.unnest().copy()
    if isinstance(copy, exp.Dot):
        copy = copy.expression  # a.b[0].c is shown as c
    for column in list(copy.find_all(exp.Column)):
        if not isinstance(column.this, exp.Star) and len(column.parts) > 1:
            column.replace(exp.column(column.name))
    return (
        print_node(copy).replace("`", "").replace(".", "_").replace("$", "_").replace("\0", "_")[:MAX_KEY_CHARS]
        or "value"
    )


def _projection(paths: list[str]) -> dict[str, Any]:
    kept: dict[str, Any] = {path: 1 for path in paths if not _is_inside(path, paths)}
    return kept if "_id" in kept else {**kept, "_id": 0}


def _is_inside(path: str, others: Iterable[str]) -> bool:
    return any(path.startswith(f"{other}.") for other in others)


def _sort(select: Select) -> tuple[Sort, dict[str, Any]]:
    """The keys of ORDER BY, and the fields to compute for those that are expressions."""
    keys: dict[str, int] = {}
    computed: dict[str, Any] = {}
    for node, direction in select.order:
        path = path_in_order(node, select.columns)
        if path is None:
            path = f"{_SORT_FIELD}{len(computed)}"
            computed[path] = Expressions(select.columns, select.now).translate(node)
        keys.setdefault(path, direction)
    return tuple(keys.items()), computed
