"""Reads ``{name: {$sum: expression}}`` of groups, buckets and windows into accumulators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sib.errors import QuerySyntaxError
from sib.query.accumulators import ACCUMULATORS, Accumulator, ExtremeN, FirstN, LastN, Single, TopN
from sib.query.budget import Context
from sib.query.expressions import Expression, compile_expression, evaluate_constant
from sib.query.expressions.compiler import REFUSED, constant, named_arguments
from sib.query.numbers import as_whole
from sib.query.sorting import read_sort, sort_key_function
from sib.query.values import is_number

MAX_N = 100_000
"""The greatest n of ``$firstN``, ``$topN`` and their like."""


@dataclass(frozen=True, slots=True)
class AccumulatorSpec:
    """An accumulator ready to be used: how to make one, and what it takes from each document."""

    make: Callable[[], Accumulator]
    read: Expression


def compile_accumulators(fields: Mapping[str, Any], context: Context, stage: str) -> list[tuple[str, AccumulatorSpec]]:
    """Compiles the output fields of a stage.

    Raises:
        QuerySyntaxError: a name with a dot, an unknown accumulator, or more than one in a field.
    """
    compiled: list[tuple[str, AccumulatorSpec]] = []
    for name, spec in fields.items():
        if not isinstance(name, str) or "." in name or name.startswith("$"):
            raise QuerySyntaxError(f"{stage}: the output field {name!r} must be a plain name")
        if not isinstance(spec, Mapping) or len(spec) != 1:
            raise QuerySyntaxError(f"{stage}: the field {name!r} needs one accumulator, such as {{$sum: 1}}")
        operator, argument = next(iter(spec.items()))
        compiled.append((name, compile_accumulator(operator, argument, context)))
    return compiled


def compile_accumulator(operator: str, argument: Any, context: Context) -> AccumulatorSpec:
    """Compiles one accumulator.

    Raises:
        QuerySyntaxError: unknown, refused, or a wrong argument.
    """
    if operator == "$count":
        if argument != {}:
            raise QuerySyntaxError("$count takes an empty object")
        return AccumulatorSpec(ACCUMULATORS["$count"], constant(None))
    if operator in ACCUMULATORS:
        make, read = ACCUMULATORS[operator], compile_expression(argument, context)
        return AccumulatorSpec(make, _holding(read, context) if operator in ("$push", "$addToSet") else read)
    if operator in ("$firstN", "$lastN", "$maxN", "$minN"):
        return _compile_n(operator, argument, context)
    if operator in ("$top", "$bottom", "$topN", "$bottomN"):
        return _compile_top(operator, argument, context)
    if operator in REFUSED:
        raise QuerySyntaxError(f"{operator} (server-side JavaScript) is refused")
    raise QuerySyntaxError(f"unknown accumulator {operator}")


def _holding(read: Expression, context: Context) -> Expression:
    """Counts objects and arrays that an accumulator keeps as documents held in memory."""

    def evaluate(document: Any, variables: Mapping[str, Any]) -> Any:
        value = read(document, variables)
        if isinstance(value, (dict, list)):
            context.budget.hold()
        return value

    return evaluate


def _count_of(operator: str, spec: Any, context: Context) -> int:
    value = evaluate_constant(spec, context)
    whole = as_whole(value) if is_number(value) else None
    if whole is None or not 1 <= whole <= MAX_N:
        raise QuerySyntaxError(f"{operator} needs a constant n from 1 to {MAX_N}")
    return whole


def _compile_n(operator: str, argument: Any, context: Context) -> AccumulatorSpec:
    named = named_arguments(operator, argument, ("input", "n"))
    most = _count_of(operator, named["n"], context)
    makers: dict[str, Callable[[], Accumulator]] = {
        "$firstN": lambda: FirstN(most),
        "$lastN": lambda: LastN(most),
        "$maxN": lambda: ExtremeN(most, is_greatest=True),
        "$minN": lambda: ExtremeN(most, is_greatest=False),
    }
    return AccumulatorSpec(makers[operator], compile_expression(named["input"], context))


def _compile_top(operator: str, argument: Any, context: Context) -> AccumulatorSpec:
    is_single = not operator.endswith("N")
    named = named_arguments(operator, argument, ("sortBy", "output") if is_single else ("sortBy", "output", "n"))
    if not isinstance(named["sortBy"], Mapping):
        raise QuerySyntaxError(f"{operator} needs an object as sortBy")
    key = sort_key_function(read_sort(named["sortBy"]))
    output = compile_expression(named["output"], context)
    most = 1 if is_single else _count_of(operator, named["n"], context)
    is_bottom = operator.startswith("$bottom")

    def make() -> Accumulator:
        return Single(TopN(most, is_bottom)) if is_single else TopN(most, is_bottom)

    return AccumulatorSpec(make, lambda document, variables: (key(document), output(document, variables)))
