"""Conditions of SQL-like statements (WHERE, HAVING) to MongoDB filters, so that indexes can be used.

NULL logic is MongoDB's: ``x <> v`` and ``not (x = v)`` include missing and null, ``is null`` matches missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlglot import exp

from sib.errors import SqlSyntaxError
from sib.query.constructors import Clock
from sib.query.plan import Filter
from sib.query.sqlexpr import COMPARISONS, Expressions, Scope
from sib.query.sqllike import is_like, pattern_of
from sib.query.sqlparse import chain
from sib.query.sqlvalues import compared, constant, is_constant

NEVER: Filter = {"$nor": [{}]}  # matches nothing

_FLIPPED = {"$gt": "$lt", "$lt": "$gt", "$gte": "$lte", "$lte": "$gte"}
_NOT_MERGED = frozenset({"$regex", "$options", "$not"})


class Filters:
    """Translates conditions in one scope."""

    def __init__(self, scope: Scope, now: Clock | None) -> None:
        self.scope = scope
        self.now = now
        self.expressions = Expressions(scope, now)

    def where(self, clause: exp.Expr | None) -> Filter:
        """The filter of a WHERE or HAVING clause; without one everything matches."""
        return {} if clause is None else self.translate(clause.this)

    def translate(self, node: exp.Expr) -> Filter:
        """The filter of a condition. Raises SqlSyntaxError for what is not accepted as one."""
        node = node.unnest()
        if isinstance(node, exp.And):
            return conjunction(self.translate(each) for each in chain(node, exp.And))
        if isinstance(node, exp.Or):
            return {"$or": [self.translate(each) for each in chain(node, exp.Or)]}
        if isinstance(node, exp.Not):
            return self._negation(node.this.unnest())
        if isinstance(node, exp.Boolean):
            return {} if node.this else NEVER
        if type(node) in COMPARISONS:
            return self._comparison(node)
        if isinstance(node, exp.In):
            return self._in(node, "$in")
        if isinstance(node, exp.Between):
            return self._between(node)
        if isinstance(node, exp.Is):
            return self._is(node)
        if is_like(node):
            return self._like(node, is_negated=False)
        path = self.scope.path(node)
        return {path: True} if path is not None else {"$expr": self.expressions.condition(node)}

    def _negation(self, node: exp.Expr) -> Filter:
        if isinstance(node, exp.In):
            return self._in(node, "$nin")
        if is_like(node):
            return self._like(node, is_negated=True)
        if isinstance(node, exp.Is):
            condition = self._is(node)
            path, value = next(iter(condition.items()))
            return {"$nor": [condition]} if path.startswith("$") else {path: {"$ne": value}}
        path_of_flag = self.scope.path(node)
        if path_of_flag is not None:
            return {path_of_flag: {"$ne": True}}
        return {"$nor": [self.translate(node)]}

    def _comparison(self, node: exp.Expr) -> Filter:
        operator, left, right = COMPARISONS[type(node)], node.this.unnest(), node.expression.unnest()
        if is_constant(left) and is_constant(right):
            return self._constant_comparison(operator, left, right)
        if is_constant(left):
            operator, left, right = _FLIPPED.get(operator, operator), right, left
        path = self.scope.path(left)
        if path is None or not is_constant(right):
            return {"$expr": self.expressions.condition(node)}
        value = compared(right, path, self.scope, self.now)
        return {path: value if operator == "$eq" and not isinstance(value, dict) else {operator: value}}

    def _constant_comparison(self, operator: str, left: exp.Expr, right: exp.Expr) -> Filter:
        """``1 = 1``, as generated statements have it."""
        a, b = constant(left, self.now), constant(right, self.now)
        try:
            holds = {
                "$eq": lambda: a == b,
                "$ne": lambda: a != b,
                "$gt": lambda: a > b,
                "$gte": lambda: a >= b,
                "$lt": lambda: a < b,
                "$lte": lambda: a <= b,
            }[operator]()
        except TypeError:
            holds = False
        return {} if holds else NEVER

    def _in(self, node: exp.In, operator: str) -> Filter:
        if not node.expressions:
            raise SqlSyntaxError("IN takes a list of values, for example: a in (1, 2).")
        path = self.scope.path(node.this.unnest())
        if path is None or not all(is_constant(each) for each in node.expressions):
            condition: Filter = {"$expr": self.expressions.condition(node)}
            return condition if operator == "$in" else {"$nor": [condition]}
        return {path: {operator: [compared(each, path, self.scope, self.now) for each in node.expressions]}}

    def _between(self, node: exp.Between) -> Filter:
        if node.args.get("symmetric"):
            raise SqlSyntaxError("BETWEEN SYMMETRIC is not accepted.")
        path, low, high = self.scope.path(node.this.unnest()), node.args["low"], node.args["high"]
        if path is None or not (is_constant(low) and is_constant(high)):
            return {"$expr": self.expressions.condition(node)}
        bounds = (compared(each, path, self.scope, self.now) for each in (low, high))
        return {path: dict(zip(("$gte", "$lte"), bounds, strict=True))}

    def _is(self, node: exp.Is) -> Filter:
        path = self.scope.path(node.this.unnest())
        if not isinstance(node.expression, exp.Null | exp.Boolean):
            raise SqlSyntaxError("IS takes null, not null, true or false.")
        if path is None:
            return {"$expr": self.expressions.condition(node)}
        return {path: constant(node.expression, self.now)}

    def _like(self, node: exp.Expr, *, is_negated: bool) -> Filter:
        subject, pattern, options, has_not = pattern_of(node, self.now)
        path = self.scope.path(subject.unnest())
        if path is None:
            condition: Filter = {"$expr": self.expressions.condition(node)}
            return {"$nor": [condition]} if is_negated else condition
        regex: dict[str, Any] = {"$regex": pattern, **({"$options": options} if options else {})}
        return {path: {"$not": regex} if is_negated != has_not else regex}


def conjunction(filters: Iterable[Filter]) -> Filter:
    """One filter for all; conditions on different fields, and bounds of one field, go into one object."""
    merged: Filter = {}
    rest: list[Filter] = []
    for each in filters:
        if len(each) != 1:
            rest += [each] if each else []
            continue
        path, condition = next(iter(each.items()))
        if path.startswith("$"):
            rest.append(each)
        elif path not in merged:
            merged[path] = dict(condition) if _is_operators(condition) else condition
        elif _can_merge(merged[path], condition):
            merged[path].update(condition)
        else:
            rest.append(each)
    if not rest:
        return merged
    parts = [merged, *rest] if merged else rest
    return parts[0] if len(parts) == 1 else {"$and": parts}


def _can_merge(first: Any, second: Any) -> bool:
    both = _is_operators(first) and _is_operators(second)
    return both and not first.keys() & second.keys() and not _NOT_MERGED & (first.keys() | second.keys())


def _is_operators(condition: Any) -> bool:
    return isinstance(condition, dict) and bool(condition) and all(key.startswith("$") for key in condition)
