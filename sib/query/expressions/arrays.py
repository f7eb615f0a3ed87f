"""Array and set operators. Every loop over elements spends from the budget, and results are bounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sib.errors import QueryError, QuerySyntaxError
from sib.query import numbers
from sib.query.budget import check_array_length, check_made_value
from sib.query.expressions.compiler import Expression, Scope, Variables, function, is_nullish, named_arguments, operator
from sib.query.sorting import read_sort, sort_key_function
from sib.query.values import MISSING, is_number, is_truthy, sort_key, type_name

MAX_RANGE = 1_000_000
"""Elements of a ``$range``."""


def array_argument(name: str, value: Any) -> list[Any]:
    """The argument as an array.

    Raises:
        QueryError: it is none.
    """
    if not isinstance(value, list):
        raise QueryError(f"{name} needs an array, not {type_name(value)}")
    return value


def whole_argument(name: str, value: Any) -> int:
    """The argument as a whole number.

    Raises:
        QueryError: it is none.
    """
    whole = numbers.as_whole(value) if is_number(value) else None
    if whole is None:
        raise QueryError(f"{name} needs a whole number, not {value!r}")
    return whole


@function("$size", 1)
def _size(value: Any) -> int:
    return len(array_argument("$size", value))


@function("$isArray", 1)
def _is_array(value: Any) -> bool:
    return isinstance(value, list)


@function("$arrayElemAt", 2)
def _element_at(array: Any, index: Any) -> Any:
    if is_nullish(array) or is_nullish(index):
        return None
    items, at = array_argument("$arrayElemAt", array), whole_argument("$arrayElemAt", index)
    return items[at] if -len(items) <= at < len(items) else MISSING


@function("$first", 1)
def _first(array: Any) -> Any:
    if is_nullish(array):
        return None
    items = array_argument("$first", array)
    return items[0] if items else MISSING


@function("$last", 1)
def _last(array: Any) -> Any:
    if is_nullish(array):
        return None
    items = array_argument("$last", array)
    return items[-1] if items else MISSING


@function("$slice", 2, 3)
def _slice(array: Any, position: Any, count: Any = None) -> Any:
    if is_nullish(array) or is_nullish(position):
        return None
    items, start = array_argument("$slice", array), whole_argument("$slice", position)
    if count is None:
        return items[start:] if start < 0 else items[:start]
    length = whole_argument("$slice", count)
    if length <= 0:
        raise QueryError("$slice needs a positive number of elements after the position")
    start = max(len(items) + start, 0) if start < 0 else start
    return items[start : start + length]


@function("$concatArrays", 0, None)
def _concat_arrays(*arrays: Any) -> Any:
    if any(is_nullish(array) for array in arrays):
        return None
    check_array_length(sum(len(array_argument("$concatArrays", array)) for array in arrays))
    return [item for array in arrays for item in array]


@function("$in", 2)
def _in(value: Any, array: Any) -> bool:
    key = sort_key(value)
    return any(sort_key(item) == key for item in array_argument("$in", array))


@function("$indexOfArray", 2, 4)
def _index_of(array: Any, wanted: Any, start: Any = 0, end: Any = None) -> Any:
    if is_nullish(array):
        return None
    items, key = array_argument("$indexOfArray", array), sort_key(wanted)
    first = whole_argument("$indexOfArray", start)
    last = len(items) if end is None else whole_argument("$indexOfArray", end)
    if first < 0 or last < 0:
        raise QueryError("$indexOfArray needs bounds that are not negative")
    return next((at for at in range(first, min(last, len(items))) if sort_key(items[at]) == key), -1)


@function("$reverseArray", 1)
def _reverse(array: Any) -> Any:
    return None if is_nullish(array) else array_argument("$reverseArray", array)[::-1]


@function("$range", 2, 3)
def _range(start: Any, end: Any, step: Any = 1) -> list[int]:
    first, last, width = (whole_argument("$range", value) for value in (start, end, step))
    if width == 0:
        raise QueryError("$range needs a step that is not 0")
    items = range(first, last, width)
    if abs(first) > 2**31 or abs(last) > 2**31 or len(items) > MAX_RANGE:
        raise QueryError(f"$range makes more than {MAX_RANGE} elements or leaves 32 bits")
    return list(items)


@operator("$zip")
def _zip(argument: Any, scope: Scope) -> Expression:
    named = named_arguments("$zip", argument, ("inputs",), ("useLongestLength", "defaults"))
    inputs = scope.compile(named["inputs"])
    is_longest = named.get("useLongestLength", False) is True
    defaults = scope.compile(named.get("defaults", None))
    if "defaults" in named and not is_longest:
        raise QuerySyntaxError("$zip takes defaults only with useLongestLength: true")

    def evaluate(document: Any, variables: Variables) -> Any:
        arrays = array_argument("$zip", inputs(document, variables))
        if not arrays:
            raise QueryError("$zip needs at least one array")
        if any(is_nullish(array) for array in arrays):
            return None
        lengths = [len(array_argument("$zip", array)) for array in arrays]
        filled = defaults(document, variables)
        fill = [None] * len(arrays) if is_nullish(filled) else array_argument("$zip", filled)
        if len(fill) != len(arrays):
            raise QueryError("$zip needs as many defaults as inputs")
        length = max(lengths) if is_longest else min(lengths)
        check_array_length(length * len(arrays))
        return [
            [array[at] if at < len(array) else default for array, default in zip(arrays, fill, strict=True)]
            for at in range(length)
        ]

    return evaluate


# With a variable for the element


@operator("$map")
def _map(argument: Any, scope: Scope) -> Expression:
    named = named_arguments("$map", argument, ("input", "in"), ("as",))
    name = named.get("as", "this")
    source, body = scope.compile(named["input"]), scope.with_names(name).compile(named["in"])
    budget = scope.context.budget

    def evaluate(document: Any, variables: Variables) -> Any:
        array = source(document, variables)
        if is_nullish(array):
            return None
        inner = dict(variables)
        made: list[Any] = []
        for element in array_argument("$map", array):
            budget.spend()
            inner[name] = element
            value = body(document, inner)
            made.append(None if value is MISSING else value)
        return made

    return evaluate


@operator("$filter")
def _filter(argument: Any, scope: Scope) -> Expression:
    named = named_arguments("$filter", argument, ("input", "cond"), ("as", "limit"))
    name = named.get("as", "this")
    source, condition = scope.compile(named["input"]), scope.with_names(name).compile(named["cond"])
    limit = scope.compile(named.get("limit"))
    budget = scope.context.budget

    def evaluate(document: Any, variables: Variables) -> Any:
        array = source(document, variables)
        if is_nullish(array):
            return None
        given = limit(document, variables)
        most = None if is_nullish(given) else whole_argument("$filter", given)
        if most is not None and most < 1:
            raise QueryError("$filter needs a positive limit")
        inner = dict(variables)
        kept: list[Any] = []
        for element in array_argument("$filter", array):
            budget.spend()
            inner[name] = element
            if is_truthy(condition(document, inner)):
                kept.append(element)
                if most is not None and len(kept) >= most:
                    break
        return kept

    return evaluate


@operator("$reduce")
def _reduce(argument: Any, scope: Scope) -> Expression:
    named = named_arguments("$reduce", argument, ("input", "initialValue", "in"))
    source, start = scope.compile(named["input"]), scope.compile(named["initialValue"])
    body = scope.with_names("this", "value").compile(named["in"])
    budget = scope.context.budget

    def evaluate(document: Any, variables: Variables) -> Any:
        array = source(document, variables)
        if is_nullish(array):
            return None
        value = start(document, variables)
        inner = dict(variables)
        for element in array_argument("$reduce", array):
            budget.spend()
            inner["this"], inner["value"] = element, value
            value = body(document, inner)
            check_made_value(value, budget)
        return value

    return evaluate


@operator("$sortArray")
def _sort_array(argument: Any, scope: Scope) -> Expression:
    named = named_arguments("$sortArray", argument, ("input", "sortBy"))
    source, order = scope.compile(named["input"]), named["sortBy"]
    if isinstance(order, Mapping):
        by_fields = sort_key_function(read_sort(order))
        key = lambda item: by_fields(item if isinstance(item, dict) else {})  # noqa: E731
        is_reverse = False
    elif is_number(order) and order in (1, -1):
        key, is_reverse = sort_key, order == -1
    else:
        raise QuerySyntaxError("$sortArray needs sortBy: 1, -1 or an object of fields")
    budget = scope.context.budget

    def evaluate(document: Any, variables: Variables) -> Any:
        array = source(document, variables)
        if is_nullish(array):
            return None
        items = array_argument("$sortArray", array)
        budget.spend(len(items))
        return sorted(items, key=key, reverse=is_reverse)

    return evaluate


# First and last n


def _some(name: str, is_first: bool) -> None:
    @operator(name)
    def compile_some(argument: Any, scope: Scope) -> Expression:
        named = named_arguments(name, argument, ("input", "n"))
        source, count = scope.compile(named["input"]), scope.compile(named["n"])

        def evaluate(document: Any, variables: Variables) -> Any:
            items = array_argument(name, source(document, variables))
            most = whole_argument(name, count(document, variables))
            if most < 1:
                raise QueryError(f"{name} needs a positive n")
            return items[:most] if is_first else items[-most:]

        return evaluate


def _extremes(name: str, is_greatest: bool) -> None:
    @operator(name)
    def compile_extremes(argument: Any, scope: Scope) -> Expression:
        named = named_arguments(name, argument, ("input", "n"))
        source, count = scope.compile(named["input"]), scope.compile(named["n"])

        def evaluate(document: Any, variables: Variables) -> Any:
            items = [item for item in array_argument(name, source(document, variables)) if not is_nullish(item)]
            most = whole_argument(name, count(document, variables))
            if most < 1:
                raise QueryError(f"{name} needs a positive n")
            return sorted(items, key=sort_key, reverse=is_greatest)[:most]

        return evaluate


# Sets


def _distinct(items: list[Any]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for item in items:
        found.setdefault(sort_key(item), item)
    return found


@function("$setUnion", 0, None)
def _union(*sets: Any) -> Any:
    if any(is_nullish(items) for items in sets):
        return None
    found: dict[Any, Any] = {}
    for items in sets:
        found = {**_distinct(array_argument("$setUnion", items)), **found}
    check_array_length(len(found))
    return [found[key] for key in sorted(found)]


@function("$setIntersection", 0, None)
def _intersection(*sets: Any) -> Any:
    if any(is_nullish(items) for items in sets):
        return None
    if not sets:
        return []
    first, *others = [_distinct(array_argument("$setIntersection", items)) for items in sets]
    return [first[key] for key in sorted(first) if all(key in other for other in others)]


@function("$setDifference", 2)
def _difference(left: Any, right: Any) -> Any:
    if is_nullish(left) or is_nullish(right):
        return None
    taken = _distinct(array_argument("$setDifference", right))
    kept = _distinct(array_argument("$setDifference", left))
    return [item for key, item in kept.items() if key not in taken]


@function("$setEquals", 2, None)
def _set_equals(*sets: Any) -> bool:
    first, *others = [_distinct(array_argument("$setEquals", items)).keys() for items in sets]
    return all(first == other for other in others)


@function("$setIsSubset", 2)
def _is_subset(left: Any, right: Any) -> bool:
    return (
        _distinct(array_argument("$setIsSubset", left)).keys()
        <= _distinct(array_argument("$setIsSubset", right)).keys()
    )


@function("$anyElementTrue", 1)
def _any_true(array: Any) -> bool:
    return any(map(is_truthy, array_argument("$anyElementTrue", array)))


@function("$allElementsTrue", 1)
def _all_true(array: Any) -> bool:
    return all(map(is_truthy, array_argument("$allElementsTrue", array)))


_some("$firstN", is_first=True)
_some("$lastN", is_first=False)
_extremes("$maxN", is_greatest=True)
_extremes("$minN", is_greatest=False)
