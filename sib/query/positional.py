"""The positional operator ``$``: which element of an array the filter matched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sib.errors import QuerySyntaxError
from sib.query.budget import Context
from sib.query.matcher import compile_element, compile_path, has_operators
from sib.query.paths import Predicate, array_index, read_exact, split_path

NEGATIVE_OPERATORS = frozenset(("$ne", "$nin", "$not", "$exists"))
"""Operators that hold without any one element, so that they give no position."""


def compile_position(
    filter_spec: Mapping[str, Any] | None, array_path: str, context: Context
) -> Callable[[Any], int | None]:
    """Compiles to a function that gives the index of the matched element of the array at the path.

    Of several conditions on the array, the first element that meets all of them counts; else the first that meets one.

    Raises:
        QuerySyntaxError: the filter has no condition on the array.
    """
    tests = [test for clause in _clauses(filter_spec) for test in _element_tests(clause, array_path, context)]
    if not tests:
        raise QuerySyntaxError(
            f"the positional operator $ on {array_path!r} needs a condition on that array in the filter"
        )
    parts = split_path(array_path)

    def position(document: Any) -> int | None:
        array = read_exact(document, parts)
        if not isinstance(array, list):
            return None
        for index, element in enumerate(array):
            if all(test(index, element) for test in tests):
                return index
        for test in tests:
            for index, element in enumerate(array):
                if test(index, element):
                    return index
        return None

    return position


def _clauses(filter_spec: Mapping[str, Any] | None) -> Iterator[tuple[str, Any]]:
    for name, argument in (filter_spec or {}).items():
        if name in ("$and", "$or") and isinstance(argument, list):
            for clause in argument:
                yield from _clauses(clause)
        elif not name.startswith("$"):
            yield name, argument


def _element_tests(clause: tuple[str, Any], array_path: str, context: Context) -> Iterator[Callable[[int, Any], bool]]:
    path, argument = clause
    if path != array_path and not path.startswith(array_path + "."):
        return
    rest = path[len(array_path) + 1 :]
    index = array_index(rest.partition(".")[0]) if rest else None
    if index is not None:
        yield lambda position, _: position == index
        return
    test = _element_test(rest, argument, context)
    if test is not None:
        yield lambda _, element: test(element)


def _element_test(rest: str, argument: Any, context: Context) -> Predicate | None:
    if has_operators(argument):
        positive = {name: value for name, value in argument.items() if name not in NEGATIVE_OPERATORS}
        if not positive:
            return None
        if not rest and "$elemMatch" in positive:
            return compile_element(positive["$elemMatch"], context)
        if not rest and "$all" in positive:
            return _any_of_all(positive["$all"], context)
        argument = positive
    matches = compile_path(f"element.{rest}" if rest else "element", argument, context)
    return lambda element: matches({"element": element})


def _any_of_all(items: list[Any], context: Context) -> Predicate:
    tests = [test for item in items if (test := _element_test("", item, context)) is not None]
    return lambda element: any(test(element) for test in tests)
