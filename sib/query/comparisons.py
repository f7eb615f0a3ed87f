"""Tests of one value against a constant: equality, membership and ranges, bracketed by type.

A filter's range compares only values of the argument's type: ``{$gt: 18}`` never holds for a string.
These tests run for every document, so common types of the constant get a test of their own.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from datetime import datetime
from typing import Any

from bson import Decimal128

from sib.query.paths import Predicate
from sib.query.regex import compile_search, is_regex
from sib.query.values import (
    MAX_KEY,
    MIN_KEY,
    MISSING,
    NAN,
    NULL,
    PLAIN_NUMBERS,
    sort_key,
    type_order,
)

_OPERATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def equality_test(argument: Any) -> Predicate:
    """Whether a value equals the constant; null also equals a missing field."""
    if argument is None or argument is MISSING:
        return lambda value: value is None or value is MISSING
    if type(argument) is str:
        return lambda value: value == argument
    if isinstance(argument, bool):
        return lambda value: value is argument
    key = sort_key(argument)
    if type(argument) in PLAIN_NUMBERS and argument == argument:

        def equals_number(value: Any) -> bool:
            kind = type(value)
            if kind in PLAIN_NUMBERS:
                return bool(value == argument)
            return kind is Decimal128 and sort_key(value) == key

        return equals_number
    kind = type_order(argument)
    return lambda value: type_order(value) == kind and sort_key(value) == key


def in_test(arguments: list[Any]) -> Predicate:
    """Whether a value equals one of the constants, or one of the regular expressions among them finds it."""
    searches = [compile_search(argument) for argument in arguments if is_regex(argument)]
    keys = frozenset(sort_key(argument) for argument in arguments)
    texts = frozenset(argument for argument in arguments if type(argument) is str)
    takes_missing = any(argument is None for argument in arguments)

    def is_member(value: Any) -> bool:
        if type(value) is str:
            return value in texts or any(search(value) for search in searches)
        if value is MISSING:
            return takes_missing
        return sort_key(value) in keys

    return is_member


def range_test(name: str, argument: Any) -> Predicate:
    """Whether a value of the constant's type is in the order that ``$gt``, ``$gte``, ``$lt`` or ``$lte`` wants."""
    compares = _OPERATIONS[name]
    takes_equal = name in ("$gte", "$lte")
    order = type_order(argument)
    if order == NULL:
        return lambda value: takes_equal and (value is None or value is MISSING)
    key = sort_key(argument)
    if order in (MIN_KEY, MAX_KEY):
        return lambda value: compares(sort_key(value), key)
    if key[0] == NAN:
        return lambda value: takes_equal and value is not MISSING and sort_key(value) == key
    if type(argument) in PLAIN_NUMBERS:
        return _number_range(compares, argument, key)
    if type(argument) is str:
        return lambda value: type(value) is str and compares(value, argument)
    if type(argument) is datetime and argument.tzinfo is None:
        return _date_range(compares, argument, key)

    def in_order(value: Any) -> bool:
        if type_order(value) != order:
            return False
        value_key = sort_key(value)
        return value_key[0] != NAN and compares(value_key, key)

    return in_order


def _number_range(compares: Callable[[Any, Any], bool], argument: Any, key: Any) -> Predicate:
    def in_order(value: Any) -> bool:
        kind = type(value)
        if kind in PLAIN_NUMBERS:
            return compares(value, argument)
        if kind is not Decimal128:
            return False
        value_key = sort_key(value)
        return value_key[0] != NAN and compares(value_key, key)

    return in_order


def _date_range(compares: Callable[[Any, Any], bool], argument: datetime, key: Any) -> Predicate:
    def in_order(value: Any) -> bool:
        if type(value) is not datetime:
            return False
        return compares(value, argument) if value.tzinfo is None else compares(sort_key(value), key)

    return in_order
