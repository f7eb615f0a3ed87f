"""Expressions of SQL-like statements to MongoDB's aggregation expressions.

NULL logic is MongoDB's, except that a missing or null value is never less than anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from sqlglot import exp

from sib.errors import SqlSyntaxError
from sib.query.constructors import Clock
from sib.query.sqllike import is_like, pattern_of
from sib.query.sqlparse import chain, refuse
from sib.query.sqlvalues import compared, constant, is_constant, is_readable, text_value

Expression = Any


class Scope(Protocol):
    """Where an expression is evaluated: over instances, or over the groups of a GROUP BY."""

    def path(self, node: exp.Expr) -> str | None: ...
    def is_date(self, path: str) -> bool: ...


COMPARISONS: dict[type[exp.Expr], str] = {
    exp.EQ: "$eq",
    exp.NullSafeEQ: "$eq",
    exp.NEQ: "$ne",
    exp.GT: "$gt",
    exp.GTE: "$gte",
    exp.LT: "$lt",
    exp.LTE: "$lte",
}


class Expressions:
    """Translates expressions in one scope."""

    def __init__(self, scope: Scope, now: Clock | None) -> None:
        self.scope = scope
        self.now = now

    def translate(self, node: exp.Expr) -> Expression:
        """The aggregation expression of a node. Raises SqlSyntaxError for what has none."""
        node = node.unnest()
        path = self.scope.path(node)
        if path is not None:
            return field(path)
        if is_readable(node):
            return literal(constant(node, self.now))
        if _is_condition(node):
            return self.condition(node)
        translate = _TRANSLATIONS.get(type(node))
        if translate is None:
            refuse(node, f"This is not accepted in an expression; functions are {', '.join(FUNCTION_NAMES)}")
        return translate(self, node)

    def condition(self, node: exp.Expr) -> Expression:
        """The expression that is true where a condition holds."""
        node = node.unnest()
        if isinstance(node, exp.And | exp.Or):
            operator = "$and" if isinstance(node, exp.And) else "$or"
            return {operator: [self.condition(each) for each in chain(node, type(node))]}
        if isinstance(node, exp.Not):
            return {"$not": [self.condition(node.this)]}
        if type(node) in COMPARISONS:
            return self._comparison(node)
        if isinstance(node, exp.Between):
            value = self.translate(node.this)
            low, high = (self._beside(node.args[key], node.this) for key in ("low", "high"))
            return {"$and": [{"$gte": [value, low]}, {"$lte": [value, high]}]}
        if isinstance(node, exp.In) and node.expressions:
            return {"$in": [self.translate(node.this), [self._beside(each, node.this) for each in node.expressions]]}
        if isinstance(node, exp.Is):
            return self._is(node)
        if is_like(node):
            return self._like(node)
        if isinstance(node, exp.Boolean):
            return bool(node.this)
        if self.scope.path(node) is None and type(node) not in _TRANSLATIONS:
            refuse(node, "This is not accepted as a condition")
        return self.translate(node)

    def _comparison(self, node: exp.Expr) -> Expression:
        operator = COMPARISONS[type(node)]
        left, right = self._beside(node.this, node.expression), self._beside(node.expression, node.this)
        comparison = {operator: [left, right]}
        smaller = node.this if operator in ("$lt", "$lte") else node.expression if operator in ("$gt", "$gte") else None
        if smaller is None or is_constant(smaller):
            return comparison
        return {"$and": [{"$gt": [left if smaller is node.this else right, None]}, comparison]}

    def _beside(self, node: exp.Expr, other: exp.Expr) -> Expression:
        """A side of a comparison; a constant takes the type of the field on the other side."""
        path = self.scope.path(other.unnest())
        if path is not None and is_constant(node):
            return literal(compared(node, path, self.scope, self.now))
        return self.translate(node)

    def _is(self, node: exp.Expr) -> Expression:
        value = self.translate(node.this)
        if isinstance(node.expression, exp.Null):
            return {"$lte": [value, None]}  # a missing value is less than null
        return {"$eq": [value, constant(node.expression, self.now)]}

    def _like(self, node: exp.Expr) -> Expression:
        subject, pattern, options, is_negated = pattern_of(node, self.now)
        match = {"$regexMatch": {"input": self.translate(subject), "regex": pattern, "options": options}}
        return {"$not": [match]} if is_negated else match


def _is_condition(node: exp.Expr) -> bool:
    kinds = exp.And | exp.Or | exp.Not | exp.In | exp.Between | exp.Is
    return isinstance(node, kinds) or type(node) in COMPARISONS or is_like(node)


def literal(value: Any) -> Expression:
    """A constant as an expression: what could be read as a path or an operator is wrapped."""
    is_plain = value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and value[:1] != "$")
    return value if is_plain else {"$literal": value}


def field(path: str) -> Expression:
    """The value at a path; a number in the path is the index of an array element."""
    value: Expression = ""
    for segment in path.split("."):
        if segment.isdigit() and value:
            element = {"$arrayElemAt": [value, int(segment)]}
            value = {"$cond": [{"$isArray": [value]}, element, None]}
        elif isinstance(value, str):
            value = f"{value}.{segment}" if value else f"${segment}"
        else:
            value = {"$let": {"vars": {"element": value}, "in": f"$$element.{segment}"}}
    return value


def _unary(operator: str) -> Callable[[Expressions, exp.Expr], Expression]:
    return lambda expressions, node: {operator: expressions.translate(node.this)}


def _binary(operator: str) -> Callable[[Expressions, exp.Expr], Expression]:
    return lambda expressions, node: {
        operator: [expressions.translate(node.this), expressions.translate(node.expression)]
    }


def _part_of_date(operator: str) -> Callable[[Expressions, exp.Expr], Expression]:
    def translate(expressions: Expressions, node: exp.Expr) -> Expression:
        inner = node.this
        return {operator: expressions.translate(inner.this if isinstance(inner, exp.TsOrDsToDate) else inner)}

    return translate


def _divide(expressions: Expressions, node: exp.Expr) -> Expression:
    """NULL where the divisor is 0, as in SQL; MongoDB's own operators fail there."""
    operator = "$mod" if isinstance(node, exp.Mod) else "$divide"
    left, right = expressions.translate(node.this), expressions.translate(node.expression)
    quotient: Expression = {operator: [left, right]}
    if isinstance(node, exp.IntDiv):
        quotient = {"$trunc": [quotient, 0]}
    if isinstance(right, int | float) and right != 0:
        return quotient
    return {"$cond": [{"$eq": [right, 0]}, None, quotient]}


def _length(expressions: Expressions, node: exp.Expr) -> Expression:
    value = expressions.translate(node.this)
    return {"$cond": [{"$eq": [{"$type": value}, "string"]}, {"$strLenCP": value}, None]}


def _case_of(operator: str) -> Callable[[Expressions, exp.Expr], Expression]:
    """``upper`` and ``lower``: NULL stays NULL, where MongoDB's operators give an empty text."""

    def translate(expressions: Expressions, node: exp.Expr) -> Expression:
        value = expressions.translate(node.this)
        return {"$cond": [{"$gt": [value, None]}, {operator: value}, None]}

    return translate


def _round(expressions: Expressions, node: exp.Expr) -> Expression:
    places = node.args.get("decimals")
    return {"$round": [expressions.translate(node.this), constant(places, expressions.now) if places else 0]}


def _concat(expressions: Expressions, node: exp.Expr) -> Expression:
    return {"$concat": [{"$toString": expressions.translate(each)} for each in node.expressions]}


def _coalesce(expressions: Expressions, node: exp.Expr) -> Expression:
    return {"$ifNull": [expressions.translate(each) for each in (node.this, *node.expressions, *_null(node))]}


def _null(node: exp.Expr) -> list[exp.Expr]:
    return [] if node.expressions else [exp.Null()]


def _substring(expressions: Expressions, node: exp.Expr) -> Expression:
    start = node.args.get("start")
    first = constant(start, expressions.now) if start is not None else 1
    length = node.args.get("length")
    count = constant(length, expressions.now) if length is not None else 2**31 - 1
    if not all(isinstance(each, int) for each in (first, count)) or first < 1:
        raise SqlSyntaxError("substring(text, start, length) takes whole numbers, start from 1 on.")
    return {"$substrCP": [expressions.translate(node.this), first - 1, count]}


def _case(expressions: Expressions, node: exp.Expr) -> Expression:
    branches = []
    for each in node.args.get("ifs") or []:
        condition = each.this if node.this is None else exp.EQ(this=node.this.copy(), expression=each.this.copy())
        branches.append({"case": expressions.condition(condition), "then": expressions.translate(each.args["true"])})
    default = node.args.get("default")
    return {"$switch": {"branches": branches, "default": expressions.translate(default) if default else None}}


def _if(expressions: Expressions, node: exp.Expr) -> Expression:
    otherwise = node.args.get("false")
    return {
        "$cond": [
            expressions.condition(node.this),
            expressions.translate(node.args["true"]),
            expressions.translate(otherwise) if otherwise else None,
        ]
    }


def _null_if(expressions: Expressions, node: exp.Expr) -> Expression:
    left, right = expressions.translate(node.this), expressions.translate(node.expression)
    return {"$cond": [{"$eq": [left, right]}, None, left]}


def _extreme(operator: str) -> Callable[[Expressions, exp.Expr], Expression]:
    return lambda expressions, node: {
        operator: [expressions.translate(each) for each in (node.this, *node.expressions)]
    }


def _trim(expressions: Expressions, node: exp.Expr) -> Expression:
    trim: dict[str, Expression] = {"input": expressions.translate(node.this)}
    if node.expression:
        trim["chars"] = text_value(node.expression, expressions.now, "trim()")
    return {{"LEADING": "$ltrim", "TRAILING": "$rtrim"}.get(str(node.args.get("position")), "$trim"): trim}


_TRANSLATIONS: dict[type[exp.Expr], Callable[[Expressions, exp.Expr], Expression]] = {
    exp.Add: _binary("$add"),
    exp.Sub: _binary("$subtract"),
    exp.Mul: _binary("$multiply"),
    exp.Div: _divide,
    exp.IntDiv: _divide,
    exp.Mod: _divide,
    exp.Neg: lambda expressions, node: {"$multiply": [-1, expressions.translate(node.this)]},
    exp.Upper: _case_of("$toUpper"),
    exp.Lower: _case_of("$toLower"),
    exp.Length: _length,
    exp.Abs: _unary("$abs"),
    exp.Round: _round,
    exp.Floor: _unary("$floor"),
    exp.Ceil: _unary("$ceil"),
    exp.Sqrt: _unary("$sqrt"),
    exp.Pow: _binary("$pow"),
    exp.Exp: _unary("$exp"),
    exp.Ln: _unary("$ln"),
    exp.Concat: _concat,
    exp.Coalesce: _coalesce,
    exp.Nullif: _null_if,
    exp.Substring: _substring,
    exp.Trim: _trim,
    exp.Greatest: _extreme("$max"),
    exp.Least: _extreme("$min"),
    exp.Case: _case,
    exp.If: _if,
    exp.Year: _part_of_date("$year"),
    exp.Month: _part_of_date("$month"),
    exp.Day: _part_of_date("$dayOfMonth"),
    exp.DayOfWeek: _part_of_date("$dayOfWeek"),
    exp.DayOfYear: _part_of_date("$dayOfYear"),
    exp.Hour: _part_of_date("$hour"),
    exp.Minute: _part_of_date("$minute"),
    exp.Second: _part_of_date("$second"),
}
FUNCTION_NAMES = (
    *("abs", "ceil", "coalesce", "concat", "day", "dayofweek", "dayofyear", "exp", "floor", "greatest", "hour", "if"),
    *("ifnull", "least", "length", "ln", "lower", "minute", "mod", "month", "nullif", "pow", "round", "second"),
    *("sqrt", "substring", "trim", "upper", "year"),
)
