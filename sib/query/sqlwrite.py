"""INSERT, UPDATE and DELETE of SQL-like statements to plans. UPDATE and DELETE act on all matches."""

from __future__ import annotations

from typing import Any

from sqlglot import exp

from sib.errors import SqlSyntaxError
from sib.query.constructors import Clock
from sib.query.extended import to_extended
from sib.query.plan import Delete, Insert, Stage, Update
from sib.query.sqlcolumns import Columns, Lookup, is_path, table_of
from sib.query.sqlexpr import Expressions
from sib.query.sqlfilter import Filters
from sib.query.sqlparse import refuse, refuse_arguments
from sib.query.sqlvalues import is_readable, stored

MAX_ROWS = 10_000

_FIXED_FIELDS = ("_id", "contextData")


def plan_insert(tree: exp.Expr, lookup: Lookup, now: Clock | None) -> Insert:
    """``insert into X(a, b) values (1, 2), (3, 4)``: columns go under the root; quoted JSON becomes a value."""
    refuse_arguments(tree, frozenset({"this", "expression"}), "an insert")
    schema, values = tree.this, tree.expression
    if not isinstance(schema, exp.Schema):
        raise SqlSyntaxError("An insert names its columns: insert into ONTOLOGY(a, b) values (1, 2).")
    if not isinstance(values, exp.Values):
        raise SqlSyntaxError("An insert takes values (...): other sources are not accepted.")
    name, alias = table_of(schema.this)
    columns = Columns(lookup(name), alias)
    paths = [columns.resolve_path(column.name) for column in schema.expressions]
    if len(set(paths)) != len(paths):
        raise SqlSyntaxError("A column stands twice in the insert.")
    rows = values.expressions
    if not 1 <= len(rows) <= MAX_ROWS:
        raise SqlSyntaxError(f"An insert takes 1 to {MAX_ROWS} rows.")
    return Insert(columns.ontology.name, tuple(_instance(row, paths, columns, now) for row in rows))


def plan_update(tree: exp.Expr, lookup: Lookup, now: Clock | None) -> Update:
    """``update X set a = 1, b = b + 1 where ...``: ``$set``, as a pipeline when a new value is an expression."""
    refuse_arguments(tree, frozenset({"this", "expressions", "where"}), "an update")
    name, alias = table_of(tree.this)
    columns = Columns(lookup(name), alias)
    if not tree.expressions:
        raise SqlSyntaxError("An update says what to set: update ONTOLOGY set a = 1 where ...")
    changes: dict[str, exp.Expr] = {}
    for each in tree.expressions:
        path = _target(each, columns)
        if path in changes:
            raise SqlSyntaxError(f"{path} is set twice.")
        changes[path] = each.expression.unnest()
    filter_ = Filters(columns, now).where(tree.args.get("where"))
    return Update(columns.ontology.name, filter_, _update_of(changes, columns, now), multi=True)


def plan_delete(tree: exp.Expr, lookup: Lookup, now: Clock | None) -> Delete:
    """``delete from X where ...``; without WHERE every instance, as it says."""
    refuse_arguments(tree, frozenset({"this", "where"}), "a delete (delete from ONTOLOGY where ...)")
    name, alias = table_of(tree.this)
    columns = Columns(lookup(name), alias)
    return Delete(columns.ontology.name, Filters(columns, now).where(tree.args.get("where")), multi=True)


def _instance(row: exp.Expr, paths: list[str], columns: Columns, now: Clock | None) -> dict[str, Any]:
    values = row.expressions if isinstance(row, exp.Tuple) else [row.unnest()]
    if len(values) != len(paths):
        raise SqlSyntaxError(f"The insert names {len(paths)} column(s) and gives {len(values)} value(s).")
    instance: dict[str, Any] = {}
    for path, value in zip(paths, values, strict=True):
        _put(instance, path, to_extended(stored(value, path, columns, now)))
    return instance


def _put(instance: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    place = instance
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            break
    if not isinstance(place, dict) or last in place:
        raise SqlSyntaxError(f"{path} is set twice, as a whole and in part.")
    place[last] = value


def _target(node: exp.Expr, columns: Columns) -> str:
    if not isinstance(node, exp.EQ) or not is_path(node.this):
        refuse(node, "An update sets columns (a = 1), not")
    path = columns.resolve(node.this)
    if path.split(".")[0] in _FIXED_FIELDS:
        raise SqlSyntaxError(f"{path} belongs to the platform and cannot be set.")
    return path


def _update_of(changes: dict[str, exp.Expr], columns: Columns, now: Clock | None) -> dict[str, Any] | list[Stage]:
    if all(is_readable(node) for node in changes.values()):
        return {"$set": {path: stored(node, path, columns, now) for path, node in changes.items()}}
    expressions = Expressions(columns, now)
    values = {
        path: {"$literal": stored(node, path, columns, now)} if is_readable(node) else expressions.translate(node)
        for path, node in changes.items()
    }
    return [{"$set": values}]
