"""Comparison, boolean and conditional operators, ``$let`` and ``$literal``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sib.errors import QueryError, QuerySyntaxError
from sib.query.expressions.compiler import (
    Expression,
    Scope,
    Variables,
    argument_list,
    constant,
    function,
    is_nullish,
    named_arguments,
    operator,
)
from sib.query.values import equal, is_truthy, sort_key


@function("$eq", 2)
def _equal(left: Any, right: Any) -> bool:
    return equal(left, right)


@function("$ne", 2)
def _not_equal(left: Any, right: Any) -> bool:
    return not equal(left, right)


@function("$gt", 2)
def _greater(left: Any, right: Any) -> bool:
    return sort_key(left) > sort_key(right)


@function("$gte", 2)
def _greater_or_equal(left: Any, right: Any) -> bool:
    return sort_key(left) >= sort_key(right)


@function("$lt", 2)
def _less(left: Any, right: Any) -> bool:
    return sort_key(left) < sort_key(right)


@function("$lte", 2)
def _less_or_equal(left: Any, right: Any) -> bool:
    return sort_key(left) <= sort_key(right)


@function("$cmp", 2)
def _compare(left: Any, right: Any) -> int:
    left_key, right_key = sort_key(left), sort_key(right)
    return (left_key > right_key) - (left_key < right_key)


@operator("$and")
def _and(argument: Any, scope: Scope) -> Expression:
    parts = scope.compile_all(argument_list("$and", argument, 0, None))
    return lambda document, variables: all(is_truthy(part(document, variables)) for part in parts)


@operator("$or")
def _or(argument: Any, scope: Scope) -> Expression:
    parts = scope.compile_all(argument_list("$or", argument, 0, None))
    return lambda document, variables: any(is_truthy(part(document, variables)) for part in parts)


@function("$not", 1)
def _not(value: Any) -> bool:
    return not is_truthy(value)


@operator("$cond")
def _cond(argument: Any, scope: Scope) -> Expression:
    if isinstance(argument, Mapping):
        named = named_arguments("$cond", argument, ("if", "then", "else"))
        argument = [named["if"], named["then"], named["else"]]
    condition, then, otherwise = scope.compile_all(argument_list("$cond", argument, 3, 3))

    def evaluate(document: Any, variables: Variables) -> Any:
        chosen = then if is_truthy(condition(document, variables)) else otherwise
        return chosen(document, variables)

    return evaluate


@operator("$ifNull")
def _if_null(argument: Any, scope: Scope) -> Expression:
    *candidates, fallback = scope.compile_all(argument_list("$ifNull", argument, 2, None))

    def evaluate(document: Any, variables: Variables) -> Any:
        for candidate in candidates:
            value = candidate(document, variables)
            if not is_nullish(value):
                return value
        return fallback(document, variables)

    return evaluate


@operator("$switch")
def _switch(argument: Any, scope: Scope) -> Expression:
    named = named_arguments("$switch", argument, ("branches",), ("default",))
    if not isinstance(named["branches"], list) or not named["branches"]:
        raise QuerySyntaxError("$switch needs an array of branches")
    branches: list[tuple[Expression, Expression]] = []
    for branch in named["branches"]:
        parts = named_arguments("a branch of $switch", branch, ("case", "then"))
        branches.append((scope.compile(parts["case"]), scope.compile(parts["then"])))
    default = scope.compile(named["default"]) if "default" in named else None

    def evaluate(document: Any, variables: Variables) -> Any:
        for case, then in branches:
            if is_truthy(case(document, variables)):
                return then(document, variables)
        if default is None:
            raise QueryError("$switch: no branch matches and there is no default")
        return default(document, variables)

    return evaluate


@operator("$literal")
def _literal(argument: Any, _scope: Scope) -> Expression:
    return constant(argument)


@operator("$let")
def _let(argument: Any, scope: Scope) -> Expression:
    named = named_arguments("$let", argument, ("vars", "in"))
    if not isinstance(named["vars"], Mapping):
        raise QuerySyntaxError("$let needs an object of vars")
    made: list[tuple[str, Expression]] = [(name, scope.compile(value)) for name, value in named["vars"].items()]
    body = scope.with_names(*named["vars"]).compile(named["in"])

    def evaluate(document: Any, variables: Variables) -> Any:
        inner = {name: value(document, variables) for name, value in made}
        return body(document, {**variables, **inner})

    return evaluate


@operator("$rand")
def _rand(argument: Any, scope: Scope) -> Expression:
    if argument not in ({}, []):
        raise QuerySyntaxError("$rand takes no arguments")
    draw: Callable[[], float] = scope.context.random.random
    return lambda _document, _variables: draw()


@operator("$sampleRate")
def _sample_rate(argument: Any, scope: Scope) -> Expression:
    if not isinstance(argument, (int, float)) or isinstance(argument, bool) or not 0 <= argument <= 1:
        raise QuerySyntaxError("$sampleRate needs a number from 0 to 1")
    draw: Callable[[], float] = scope.context.random.random
    return lambda _document, _variables: draw() < argument
