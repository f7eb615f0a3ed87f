"""Which days a query can need, read from its conditions: the files of all others are never opened."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta

from sqlglot import exp

from storage.bdh import intervals
from storage.bdh.columns import CONTEXT
from storage.bdh.intervals import EVER, NEVER, Intervals
from storage.bdh.layout import DAY_COLUMN

Constant = Callable[[exp.Expr], datetime | None]
"""Gives the moment that an expression without names stands for; None if it is none."""

_FLIPPED = {exp.LT: exp.GT, exp.GT: exp.LT, exp.LTE: exp.GTE, exp.GTE: exp.LTE, exp.EQ: exp.EQ}
DEPTH_MAX = 64


def days_needed(condition: exp.Expr, source: str, constant: Constant) -> Intervals:
    """When the instances of a source can fulfil a condition, as a set of times.

    Args:
        condition: with names resolved (``sql.read_statement``).
        source: the name of the source in it.
        constant: evaluates what has no names in it.
    """
    return _Pruner(source, constant).needed(condition, 0)


class _Pruner:
    def __init__(self, source: str, constant: Constant) -> None:
        self._source = source
        self._constant = constant

    def needed(self, node: exp.Expr, depth: int) -> Intervals:
        if depth > DEPTH_MAX:
            return EVER
        if isinstance(node, exp.Paren):
            return self.needed(node.this, depth + 1)
        if isinstance(node, exp.And | exp.Or):
            combine = intervals.both if isinstance(node, exp.And) else intervals.either
            found = EVER if isinstance(node, exp.And) else NEVER
            for term in node.flatten():  # without recursion: a chain is a deep tree
                found = combine(found, self.needed(term, depth + 1))
            return found
        if isinstance(node, exp.Between):
            low = self._compared(exp.GTE, node.this, node.args["low"])
            return intervals.both(low, self._compared(exp.LTE, node.this, node.args["high"]))
        if isinstance(node, exp.In) and node.expressions and not node.args.get("query"):
            found = NEVER
            for value in node.expressions:
                found = intervals.either(found, self._compared(exp.EQ, node.this, value))
            return found
        kind = type(node)
        if kind in _FLIPPED:
            if self._is_about(node.this) is not None:
                return self._compared(kind, node.this, node.expression)
            return self._compared(_FLIPPED[kind], node.expression, node.this)
        return EVER

    def _compared(self, kind: type[exp.Expr], name: exp.Expr, value: exp.Expr) -> Intervals:
        is_day = self._is_about(name)
        if is_day is None or value.find(exp.Column, exp.Query):
            return EVER
        moment = self._constant(value)
        if moment is None:
            return EVER
        if is_day:
            return _days(kind, moment)
        if kind is exp.EQ:
            return intervals.both(intervals.since(moment), intervals.up_to(moment))
        if kind is exp.LT:
            return intervals.until(moment)
        if kind is exp.LTE:
            return intervals.up_to(moment)
        return intervals.since(intervals.after(moment) if kind is exp.GT else moment)

    def _is_about(self, node: exp.Expr) -> bool | None:
        """True: the expression is the day of an instance; False: its time; None: something else."""
        while isinstance(node, exp.Paren):
            node = node.this
        if isinstance(node, exp.Column) and node.table == self._source and node.name == DAY_COLUMN:
            return True
        if self._is_time(node):
            return False
        if isinstance(node, exp.Cast):
            if node.to.this in (exp.DataType.Type.DATE, exp.DataType.Type.DATE32):
                return True if self._is_about(node.this) is not None else None
            if node.to.this in (exp.DataType.Type.TIMESTAMP, exp.DataType.Type.DATETIME):
                return self._is_about(node.this)
        if isinstance(node, exp.Date | exp.TsOrDsToDate) and not node.expressions:
            return True if self._is_about(node.this) is not None else None
        return None

    def _is_time(self, node: exp.Expr) -> bool:
        if not isinstance(node, exp.Dot) or node.expression.name != "timestamp":
            return False
        column = node.this
        return isinstance(column, exp.Column) and column.table == self._source and column.name == CONTEXT


def _days(kind: type[exp.Expr], moment: datetime) -> Intervals:
    """The time of the days that may compare so with a moment, however the moment is made a day."""
    day = moment.date()
    is_midnight = moment == datetime(day.year, day.month, day.day)
    if kind is exp.EQ:
        return intervals.of_day(day)
    if kind is exp.LT:
        return intervals.until(_start(day if is_midnight else _next(day)))
    if kind is exp.LTE:
        return intervals.until(_start(_next(day)))
    return intervals.since(_start(day if kind is exp.GTE else _next(day)))


def _start(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)


def _next(day: date) -> date:
    return day + timedelta(days=1) if day < date.max else day
