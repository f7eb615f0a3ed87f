"""Operators on objects, and the accumulators as expressions of arrays (``$sum``, ``$avg``, ``$max`` …)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sib.errors import QueryError, QuerySyntaxError
from sib.query.accumulators import ACCUMULATORS
from sib.query.expressions.arrays import array_argument
from sib.query.expressions.compiler import (
    Expression,
    Scope,
    Variables,
    constant,
    function,
    is_nullish,
    named_arguments,
    operator,
)
from sib.query.values import MISSING, type_name


@function("$mergeObjects", 0, None)
def _merge_objects(*values: Any) -> dict[str, Any]:
    given = values[0] if len(values) == 1 and isinstance(values[0], list) else values
    merged: dict[str, Any] = {}
    for value in given:
        if is_nullish(value):
            continue
        if not isinstance(value, dict):
            raise QueryError(f"$mergeObjects needs objects, not {type_name(value)}")
        merged.update(value)
    return merged


@function("$objectToArray", 1)
def _object_to_array(value: Any) -> Any:
    if is_nullish(value):
        return None
    if not isinstance(value, dict):
        raise QueryError(f"$objectToArray needs an object, not {type_name(value)}")
    return [{"k": name, "v": item} for name, item in value.items()]


@function("$arrayToObject", 1)
def _array_to_object(value: Any) -> Any:
    if is_nullish(value):
        return None
    made: dict[str, Any] = {}
    for item in array_argument("$arrayToObject", value):
        if isinstance(item, list) and len(item) == 2:
            name, member = item
        elif isinstance(item, dict) and set(item) == {"k", "v"}:
            name, member = item["k"], item["v"]
        else:
            raise QueryError("$arrayToObject needs [key, value] pairs or {k, v} objects")
        if type(name) is not str:
            raise QueryError(f"$arrayToObject needs strings as keys, not {type_name(name)}")
        made[name] = member
    return made


def _field_name(name: str, spec: Any, scope: Scope) -> Expression:
    field = scope.compile(spec)

    def evaluate(document: Any, variables: Variables) -> str:
        value = field(document, variables)
        if type(value) is not str:
            raise QueryError(f"{name} needs a string as its field")
        return value

    return evaluate


@operator("$getField")
def _get_field(argument: Any, scope: Scope) -> Expression:
    is_short = not (isinstance(argument, Mapping) and ("field" in argument or "input" in argument))
    named = {"field": argument} if is_short else named_arguments("$getField", argument, ("field",), ("input",))
    field = _field_name("$getField", named["field"], scope)
    source = scope.compile(named.get("input", "$$CURRENT"))

    def evaluate(document: Any, variables: Variables) -> Any:
        value = source(document, variables)
        if isinstance(value, dict):
            return value.get(field(document, variables), MISSING)
        return None if value is None else MISSING

    return evaluate


@operator("$setField")
def _set_field(argument: Any, scope: Scope) -> Expression:
    return _compile_set_field("$setField", named_arguments("$setField", argument, ("field", "input", "value")), scope)


@operator("$unsetField")
def _unset_field(argument: Any, scope: Scope) -> Expression:
    named = named_arguments("$unsetField", argument, ("field", "input"))
    return _compile_set_field("$unsetField", {**named, "value": "$$REMOVE"}, scope)


def _compile_set_field(name: str, named: Mapping[str, Any], scope: Scope) -> Expression:
    field = _field_name(name, named["field"], scope)
    source, made = scope.compile(named["input"]), scope.compile(named["value"])

    def evaluate(document: Any, variables: Variables) -> Any:
        value = source(document, variables)
        if is_nullish(value):
            return None
        if not isinstance(value, dict):
            raise QueryError(f"{name} needs an object, not {type_name(value)}")
        member, key = made(document, variables), field(document, variables)
        if member is MISSING:
            return {other: item for other, item in value.items() if other != key}
        return {**value, key: member}

    return evaluate


def _over_values(name: str) -> None:
    """Registers an accumulator as an expression: over one array, or over its arguments."""

    @operator(name)
    def compile_over(argument: Any, scope: Scope) -> Expression:
        is_list = isinstance(argument, (list, tuple)) and len(argument) != 1
        single = argument[0] if isinstance(argument, (list, tuple)) and len(argument) == 1 else argument
        parts = scope.compile_all(list(argument)) if is_list else [scope.compile(single)]
        make = ACCUMULATORS[name]
        budget = scope.context.budget

        def evaluate(document: Any, variables: Variables) -> Any:
            values = [part(document, variables) for part in parts]
            if len(values) == 1 and isinstance(values[0], list):
                values = values[0]
            budget.spend(len(values))
            accumulator = make()
            for value in values:
                accumulator.add(value)
            return accumulator.result()

        return evaluate


for _name in ("$sum", "$avg", "$max", "$min", "$stdDevPop", "$stdDevSamp"):
    _over_values(_name)


@operator("$const")
def _const(argument: Any, _scope: Scope) -> Expression:
    return constant(argument)


@operator("$binarySize")
def _binary_size(argument: Any, scope: Scope) -> Expression:
    source = scope.compile(argument)

    def evaluate(document: Any, variables: Variables) -> Any:
        value = source(document, variables)
        if is_nullish(value):
            return None
        if type(value) is str:
            return len(value.encode("utf-8", "surrogatepass"))
        if not isinstance(value, bytes):
            raise QuerySyntaxError("$binarySize needs a string or binary data")
        return len(value)

    return evaluate
