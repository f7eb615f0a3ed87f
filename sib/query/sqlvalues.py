"""Constants of SQL-like statements: from nodes of the tree to BSON values, and to the type of their column."""

from __future__ import annotations

import calendar
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlglot import exp

from sib.errors import QuerySyntaxError, SqlSyntaxError
from sib.integers import HINT, fits
from sib.query.constructors import FUNCTION_NAMES, Clock, construct
from sib.query.extended import is_object_id, object_id, parse_date
from sib.query.relaxed import parse_relaxed
from sib.query.sqlparse import BOUND, refuse

MAX_NUMBER_CHARS = 400

_FUNCTIONS = {name.lower(): name for name in FUNCTION_NAMES}
_NOW_FUNCTIONS = frozenset({"now", "sysdate", "current_timestamp", "localtime", "localtimestamp", "utc_timestamp"})
_SECONDS = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86400, "WEEK": 7 * 86400}
_MONTHS = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}


class Typing(Protocol):
    """What must be known of an ontology to give a constant the type of its column."""

    def is_date(self, path: str) -> bool: ...


def is_constant(node: exp.Expr) -> bool:
    """Whether the node names no field and is no aggregate."""
    return node.find(exp.Column, exp.Dot, exp.Star, exp.AggFunc) is None


def is_readable(node: exp.Expr) -> bool:
    """Whether ``constant`` can read the node (its parts may still be refused)."""
    return type(node) in _READERS and is_constant(node)


def constant(node: exp.Expr, now: Clock | None) -> Any:
    """The value of a constant: a literal, a date, a list, an object, or arithmetic of numbers.

    Raises:
        SqlSyntaxError: the node is no constant that is accepted.
    """
    read = _READERS.get(type(node))
    if read is None:
        refuse(node, "This is not accepted as a value")
    return read(node, now)


def text_value(node: exp.Expr, now: Clock | None, what: str) -> str:
    """A constant that must be text."""
    value = constant(node, now)
    if not isinstance(value, str):
        raise SqlSyntaxError(f"{what} takes text in quotes.")
    return value


def compared(node: exp.Expr, path: str | None, typing: Typing, now: Clock | None) -> Any:
    """A constant that is compared with the field at ``path``: ids become ObjectId, dates datetime.

    ``path`` None: with an expression.
    """
    value = constant(node, now)
    if not isinstance(value, str) or path is None:
        return value
    if value.lstrip()[:1] == "{" and not node.meta.get(BOUND):
        value = _read_json(value, only_scalars=True)
    return _typed(value, path, typing)


def stored(node: exp.Expr, path: str, typing: Typing, now: Clock | None) -> Any:
    """A constant that is written into the field at ``path``: text that is a JSON object or array becomes one."""
    value = constant(node, now)
    if not isinstance(value, str):
        return value
    if value.lstrip()[:1] in ("{", "[") and not node.meta.get(BOUND):
        value = _read_json(value, only_scalars=False)
    return _typed(value, path, typing)


def _typed(value: Any, path: str, typing: Typing) -> Any:
    if not isinstance(value, str):
        return value
    if path == "_id" and is_object_id(value):
        return object_id(value)
    if path == "contextData.timestamp" or typing.is_date(path):
        try:
            return parse_date(value)
        except ValueError as error:
            raise SqlSyntaxError(f"{path} holds dates, but {error}.") from None
    return value


def _read_json(text: str, *, only_scalars: bool) -> Any:
    """The JSON in a quoted text; the text itself if it is none."""
    try:
        value = parse_relaxed(text)
    except QuerySyntaxError:
        return text
    return text if only_scalars and isinstance(value, dict | list) else value


def _literal(node: exp.Expr, now: Clock | None) -> Any:
    text = node.this
    if node.args.get("is_string"):
        return text
    if len(text) > MAX_NUMBER_CHARS:
        raise SqlSyntaxError(f"A number longer than {MAX_NUMBER_CHARS} characters is refused.")
    try:
        return _bounded(int(text) if text.isascii() and text.isdigit() else float(text))
    except ValueError:
        raise SqlSyntaxError(f"'{text[:40]}' is not a number.") from None


def _bounded(value: int | float) -> int | float:
    if isinstance(value, int) and not fits(value):  # as a double it would lose digits in silence
        raise SqlSyntaxError(f"{str(value)[:40]} does not fit in 64 bits: {HINT}.")
    if isinstance(value, float) and value - value != 0:
        raise SqlSyntaxError("A number is too large.")
    return value


def _negative(node: exp.Expr, now: Clock | None) -> Any:
    return _bounded(-_number(node.this, now))


def _number(node: exp.Expr, now: Clock | None) -> int | float:
    value = constant(node, now)
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(node, "A number is needed here, not")
    return value


def _hexadecimal(node: exp.Expr, now: Clock | None) -> Any:
    return _bounded(int(node.name[:MAX_NUMBER_CHARS], 16))


def _cast(node: exp.Expr, now: Clock | None) -> Any:
    """``date '2014-04-29'``, ``timestamp '...'``, ``cast('...' as datetime)``; other casts are not constants."""
    kind = node.args["to"].this.name
    if not kind.startswith(("DATE", "TIMESTAMP")):
        refuse(node, "This is not accepted as a value")
    return _as_date(constant(node.this, now))


def _as_date(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    try:
        return parse_date(str(value))
    except ValueError as error:
        raise SqlSyntaxError(f"A date is needed here, but {error}.") from None


def _function(node: exp.Expr, now: Clock | None) -> Any:
    """``now()`` and the value functions of the Mongo shell: ``ISODate('...')``, ``ObjectId('...')``."""
    name = str(node.this).lower()
    if name in _NOW_FUNCTIONS:
        return _now(node, now)
    if name not in _FUNCTIONS:
        refuse(node, "This function is not accepted here")
    try:
        return construct(_FUNCTIONS[name], [constant(each, now) for each in node.expressions], now)
    except ValueError as error:
        raise SqlSyntaxError(f"{name}(): {error}.") from None


def _now(node: exp.Expr, now: Clock | None) -> datetime:
    try:
        moment: datetime = construct("Date", [], now)
    except ValueError as error:
        raise SqlSyntaxError(f"{error}.") from None
    return moment


def _today(node: exp.Expr, now: Clock | None) -> datetime:
    return _now(node, now).replace(hour=0, minute=0, second=0, microsecond=0)


def _sum(node: exp.Expr, now: Clock | None) -> Any:
    sign = -1 if isinstance(node, exp.Sub) else 1
    interval = node.expression
    if isinstance(interval, exp.Interval):
        return _moved(_as_date(constant(node.this, now)), interval.this, interval.args.get("unit"), sign, now)
    return _bounded(_number(node.this, now) + sign * _number(node.expression, now))


def _product(node: exp.Expr, now: Clock | None) -> Any:
    left, right = _number(node.this, now), _number(node.expression, now)
    if isinstance(node, exp.Mul):
        return _bounded(left * right)
    if right == 0:
        raise SqlSyntaxError("A division by zero.")
    try:
        return _bounded(left / right if isinstance(node, exp.Div) else left % right)
    except OverflowError:
        raise SqlSyntaxError("A number is too large.") from None


def _date_shift(node: exp.Expr, now: Clock | None) -> Any:
    """``date_add(now(), interval 1 day)`` and ``date_sub``."""
    sign = -1 if isinstance(node, exp.DateSub) else 1
    return _moved(_as_date(constant(node.this, now)), node.expression, node.args.get("unit"), sign, now)


def _moved(moment: datetime, amount: exp.Expr, unit: Any, sign: int, now: Clock | None) -> datetime:
    name = str(getattr(unit, "name", unit or "DAY")).upper().rstrip("S")
    value = constant(amount, now)
    try:
        count = sign * float(value)
        if name in _SECONDS:
            return moment + timedelta(seconds=count * _SECONDS[name])
        if name in _MONTHS:
            return _plus_months(moment, int(count) * _MONTHS[name])
    except (ValueError, TypeError, OverflowError):
        raise SqlSyntaxError("An interval takes a number and a unit, for example interval 1 day.") from None
    raise SqlSyntaxError(f"An interval in {name[:40]} is not accepted; units are {', '.join([*_SECONDS, *_MONTHS])}.")


def _plus_months(moment: datetime, months: int) -> datetime:
    index = moment.year * 12 + moment.month - 1 + months
    year, month = index // 12, index % 12 + 1
    day = min(moment.day, calendar.monthrange(year, month)[1])
    return moment.replace(year=year, month=month, day=day)


def _list(node: exp.Expr, now: Clock | None) -> list[Any]:
    return [constant(each, now) for each in node.expressions]


def _object(node: exp.Expr, now: Clock | None) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for each in node.expressions:
        if not isinstance(each, exp.PropertyEQ):
            refuse(node, "This is not accepted as a value")
        fields[each.this.name] = constant(each.expression, now)
    return fields


_READERS: dict[type[exp.Expr], Callable[[exp.Expr, Clock | None], Any]] = {
    exp.Literal: _literal,
    exp.Neg: _negative,
    exp.Boolean: lambda node, now: bool(node.this),
    exp.Null: lambda node, now: None,
    exp.Paren: lambda node, now: constant(node.this, now),
    exp.HexString: _hexadecimal,
    exp.Cast: _cast,
    exp.Anonymous: _function,
    exp.CurrentTimestamp: _now,
    exp.CurrentDatetime: _now,
    exp.CurrentDate: _today,
    exp.Add: _sum,
    exp.Sub: _sum,
    exp.Mul: _product,
    exp.Div: _product,
    exp.Mod: _product,
    exp.DateAdd: _date_shift,
    exp.DateSub: _date_shift,
    exp.Array: _list,
    exp.Struct: _object,
}
