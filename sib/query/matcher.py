"""Filters: compiled once to a predicate that says exactly whether a document matches.

Every operator compiles to a test of one value; a condition on a path holds when the test holds for any value that the path
reaches (arrays are seen element by element), and a negation holds when it does not.

Source: MongoDB manual, "Query and Projection Operators".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sib.errors import QuerySyntaxError
from sib.query.budget import Context, check_nesting
from sib.query.comparisons import equality_test, in_test, range_test
from sib.query.geo_operators import compile_intersects, compile_near, compile_within, near_test
from sib.query.paths import Predicate, any_at, any_raw_at
from sib.query.regex import compile_search, is_regex
from sib.query.value_tests import bits_test, mod_test, size_test, type_test
from sib.query.values import MISSING, is_truthy

MAX_CLAUSES = 10_000
"""Clauses of one ``$and``, ``$or``, ``$in`` or ``$all``."""

REFUSED_TOP_LEVEL = {
    "$where": "$where (server-side JavaScript) is refused: use $expr or ordinary operators",
    "$text": "$text is not supported: use $regex",
}


@dataclass(frozen=True, slots=True)
class ValueTest:
    """A test that holds for a path when it holds for any value there; ``raw``: arrays are tested as a whole only."""

    test: Predicate
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Negation:
    """Holds when the conditions do not all hold."""

    conditions: list[Condition]


Condition = ValueTest | Negation


def compile_filter(filter_spec: Mapping[str, Any] | None, context: Context | None = None) -> Predicate:
    """Compiles a filter to a predicate on documents.

    Args:
        filter_spec: the filter as BSON values; None and {} match everything.
        context: what ``$expr`` reads (``$$NOW``, variables, budget).

    Raises:
        QuerySyntaxError: an unknown or refused operator, a wrong argument, or nesting beyond MAX_NESTING.
    """
    if filter_spec is None:
        return lambda _: True
    if not isinstance(filter_spec, Mapping):
        raise QuerySyntaxError(f"a filter must be an object, not {type(filter_spec).__name__}")
    check_nesting(filter_spec, "filter")
    return _compile_document(filter_spec, context if context is not None else Context())


def conjunction(predicates: list[Predicate]) -> Predicate:
    """The predicate that holds when all hold."""
    if not predicates:
        return lambda _: True
    if len(predicates) == 1:
        return predicates[0]
    if len(predicates) == 2:
        first, second = predicates
        return lambda value: first(value) and second(value)

    def matches(value: Any) -> bool:
        for predicate in predicates:  # noqa: SIM110 - a generator costs more than the loop
            if not predicate(value):
                return False
        return True

    return matches


def _compile_document(spec: Mapping[str, Any], context: Context) -> Predicate:
    predicates: list[Predicate] = []
    for name, argument in spec.items():
        if not isinstance(name, str):
            raise QuerySyntaxError("the fields of a filter must be strings")
        if name.startswith("$"):
            predicates.extend(_compile_top_level(name, argument, context))
        else:
            predicates.append(compile_path(name, argument, context))
    return conjunction(predicates)


def _compile_top_level(name: str, argument: Any, context: Context) -> list[Predicate]:
    if name in _LOGICAL:
        return [_LOGICAL[name](_compile_clauses(name, argument, context))]
    if name == "$expr":
        return [_compile_expr(argument, context)]
    if name == "$jsonSchema":
        from sib.query.json_schema import compile_json_schema

        return [compile_json_schema(argument)]
    if name == "$comment":
        return []
    if name in REFUSED_TOP_LEVEL:
        raise QuerySyntaxError(REFUSED_TOP_LEVEL[name])
    raise QuerySyntaxError(f"unknown operator {name} at the top of a filter")


def _compile_clauses(name: str, argument: Any, context: Context) -> list[Predicate]:
    if not isinstance(argument, (list, tuple)) or not argument or len(argument) > MAX_CLAUSES:
        raise QuerySyntaxError(f"{name} needs an array of 1 to {MAX_CLAUSES} filters")
    if not all(isinstance(clause, Mapping) for clause in argument):
        raise QuerySyntaxError(f"{name} needs filters (objects) in its array")
    return [_compile_document(clause, context) for clause in argument]


def _any_of(predicates: list[Predicate]) -> Predicate:
    def matches(document: Any) -> bool:
        for predicate in predicates:  # noqa: SIM110 - a generator costs more than the loop
            if predicate(document):
                return True
        return False

    return matches


def _none_of(predicates: list[Predicate]) -> Predicate:
    holds = _any_of(predicates)
    return lambda document: not holds(document)


_LOGICAL: dict[str, Callable[[list[Predicate]], Predicate]] = {
    "$and": conjunction,
    "$or": _any_of,
    "$nor": _none_of,
}


def _compile_expr(argument: Any, context: Context) -> Predicate:
    from sib.query.expressions import compile_expression

    evaluate = compile_expression(argument, context)
    return lambda document: is_truthy(evaluate(document, context.variables))


# Conditions on a path


def compile_path(path: str, argument: Any, context: Context) -> Predicate:
    """The predicate of one ``path: value`` or ``path: {operators}`` of a filter."""
    return conjunction([_at_path(path, condition) for condition in compile_condition(path, argument, context)])


def _at_path(path: str, condition: Condition) -> Predicate:
    if isinstance(condition, ValueTest):
        return any_raw_at(path, condition.test) if condition.raw else any_at(path, condition.test)
    holds = conjunction([_at_path(path, inner) for inner in condition.conditions])
    return lambda document: not holds(document)


def at_value(conditions: list[Condition]) -> Predicate:
    """The predicate on one value that is taken as it is: an element under ``$elemMatch`` or ``$pull``."""
    return conjunction([_at_value(condition) for condition in conditions])


def _at_value(condition: Condition) -> Predicate:
    if isinstance(condition, ValueTest):
        return condition.test
    holds = at_value(condition.conditions)
    return lambda value: not holds(value)


def has_operators(argument: Any) -> bool:
    """Whether the right side of a path is operators and not a literal."""
    if not isinstance(argument, Mapping) or not argument:
        return False
    first = next(iter(argument))
    return isinstance(first, str) and first.startswith("$") and first not in ("$ref", "$id", "$db")


def compile_condition(path: str, argument: Any, context: Context) -> list[Condition]:
    """The conditions of the right side of a path: operators, a regular expression, or a literal to equal."""
    if has_operators(argument):
        return _compile_operators(path, argument, context)
    return [ValueTest(_literal_test(argument))]


def _literal_test(argument: Any) -> Predicate:
    if not is_regex(argument):
        return equality_test(argument)
    search, equals = compile_search(argument), equality_test(argument)
    return lambda value: search(value) if isinstance(value, str) else equals(value)


def _compile_operators(path: str, spec: Mapping[str, Any], context: Context) -> list[Condition]:
    conditions: list[Condition] = []
    for operator, argument in spec.items():
        compile_operator = _OPERATORS.get(operator)
        if compile_operator is None:
            raise QuerySyntaxError(f"unknown operator {operator} on the field {path!r}")
        conditions.extend(compile_operator(_Operator(path, operator, argument, spec, context)))
    return conditions


@dataclass(frozen=True, slots=True)
class _Operator:
    """One operator of a path with what stands beside it (``$options`` beside ``$regex``)."""

    path: str
    name: str
    argument: Any
    siblings: Mapping[str, Any]
    context: Context

    def error(self, needs: str) -> QuerySyntaxError:
        return QuerySyntaxError(f"{self.name} on the field {self.path!r} needs {needs}")

    def array(self) -> list[Any]:
        if not isinstance(self.argument, (list, tuple)):
            raise self.error("an array")
        if len(self.argument) > MAX_CLAUSES:
            raise self.error(f"an array of at most {MAX_CLAUSES} elements")
        return list(self.argument)


def _equal(operator: _Operator) -> list[Condition]:
    return [ValueTest(equality_test(operator.argument))]


def _not_equal(operator: _Operator) -> list[Condition]:
    if is_regex(operator.argument):
        raise operator.error("a value that is not a regular expression: use $not")
    return [Negation([ValueTest(equality_test(operator.argument))])]


def _range(operator: _Operator) -> list[Condition]:
    if is_regex(operator.argument):
        raise operator.error("a value that is not a regular expression")
    return [ValueTest(range_test(operator.name, operator.argument))]


def _in(operator: _Operator) -> list[Condition]:
    values = operator.array()
    if any(has_operators(value) for value in values):
        raise operator.error("plain values, without operators, in its array")
    return [ValueTest(in_test(values))]


def _not_in(operator: _Operator) -> list[Condition]:
    return [Negation(_in(operator))]


def _not(operator: _Operator) -> list[Condition]:
    argument = operator.argument
    if is_regex(argument):
        return [Negation([ValueTest(_literal_test(argument))])]
    if not has_operators(argument):
        raise operator.error("an object of operators or a regular expression")
    return [Negation(_compile_operators(operator.path, argument, operator.context))]


def _exists(operator: _Operator) -> list[Condition]:
    exists = ValueTest(lambda value: value is not MISSING, raw=True)
    return [exists] if is_truthy(operator.argument) else [Negation([exists])]


def _type(operator: _Operator) -> list[Condition]:
    return [ValueTest(type_test(operator.argument, operator.error))]


def _mod(operator: _Operator) -> list[Condition]:
    return [ValueTest(mod_test(operator.array(), operator.error))]


def _size(operator: _Operator) -> list[Condition]:
    return [ValueTest(size_test(operator.argument, operator.error), raw=True)]


def _bits(operator: _Operator) -> list[Condition]:
    return [ValueTest(bits_test(operator.name, operator.argument, operator.error))]


def _regex(operator: _Operator) -> list[Condition]:
    search = compile_search(operator.argument, operator.siblings.get("$options", ""))
    return [ValueTest(lambda value: isinstance(value, str) and search(value))]


def _options(operator: _Operator) -> list[Condition]:
    if "$regex" not in operator.siblings:
        raise operator.error("a $regex beside it")
    return []


def _all(operator: _Operator) -> list[Condition]:
    items = operator.array()
    conditions: list[Condition] = []
    for item in items:
        if isinstance(item, Mapping) and "$elemMatch" in item:
            conditions.extend(_compile_operators(operator.path, item, operator.context))
        elif has_operators(item):
            raise operator.error("plain values or $elemMatch in its array")
        else:
            conditions.append(ValueTest(_literal_test(item)))
    return conditions or [ValueTest(lambda _: False)]


def _elem_match(operator: _Operator) -> list[Condition]:
    if not isinstance(operator.argument, Mapping):
        raise operator.error("an object")
    test = compile_element(operator.argument, operator.context)
    return [ValueTest(lambda value: isinstance(value, list) and any(map(test, value)), raw=True)]


def compile_element(spec: Mapping[str, Any], context: Context) -> Predicate:
    """The test of one array element under ``$elemMatch``: operators on the element, or a filter on an object element."""
    if has_operators(spec) and next(iter(spec)) not in _LOGICAL and next(iter(spec)) != "$expr":
        return at_value(_compile_operators("$elemMatch", spec, context))
    matches = _compile_document(spec, context)

    def test(element: Any) -> bool:
        if isinstance(element, list):
            element = {str(index): item for index, item in enumerate(element)}
        return isinstance(element, dict) and matches(element)

    return test


def _near(operator: _Operator) -> list[Condition]:
    return [ValueTest(near_test(compile_near(operator.path, operator.name, operator.siblings)), raw=True)]


def _near_bound(operator: _Operator) -> list[Condition]:
    if "$near" not in operator.siblings and "$nearSphere" not in operator.siblings:
        raise operator.error("a $near or $nearSphere beside it")
    return []


def _within(operator: _Operator) -> list[Condition]:
    return [ValueTest(compile_within(operator.argument, operator.name), raw=True)]


def _intersects(operator: _Operator) -> list[Condition]:
    return [ValueTest(compile_intersects(operator.argument, operator.name), raw=True)]


def _no_condition(_: _Operator) -> list[Condition]:
    return []


_OPERATORS: dict[str, Callable[[_Operator], list[Condition]]] = {
    "$eq": _equal,
    "$ne": _not_equal,
    "$gt": _range,
    "$gte": _range,
    "$lt": _range,
    "$lte": _range,
    "$in": _in,
    "$nin": _not_in,
    "$not": _not,
    "$exists": _exists,
    "$type": _type,
    "$regex": _regex,
    "$options": _options,
    "$mod": _mod,
    "$size": _size,
    "$all": _all,
    "$elemMatch": _elem_match,
    "$near": _near,
    "$nearSphere": _near,
    "$maxDistance": _near_bound,
    "$minDistance": _near_bound,
    "$geoWithin": _within,
    "$within": _within,
    "$geoIntersects": _intersects,
    "$bitsAllSet": _bits,
    "$bitsAllClear": _bits,
    "$bitsAnySet": _bits,
    "$bitsAnyClear": _bits,
    "$comment": _no_condition,
}
