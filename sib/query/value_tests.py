"""Tests of one value by its type, remainder, length or bits: the plainer operators of filters.

Each takes a function that makes the error of a wrong argument from what the operator needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sib.errors import QuerySyntaxError
from sib.query.paths import Predicate
from sib.query.values import MISSING, NUMBER_TYPES, TYPE_OF_NUMBER, decimal_of, is_int, is_number, type_name

MakeError = Callable[[str], QuerySyntaxError]


def type_test(argument: Any, error: MakeError) -> Predicate:
    """``$type``: names, numbers, "number", or a list of them."""
    given = list(argument) if isinstance(argument, (list, tuple)) else [argument]
    if not given:
        raise error("at least one type")
    names: set[str] = set()
    for item in given:
        names |= _type_names(item, error)
    return lambda value: value is not MISSING and type_name(value) in names


def _type_names(item: Any, error: MakeError) -> frozenset[str]:
    if isinstance(item, str):
        if item == "number":
            return NUMBER_TYPES
        if item in TYPE_OF_NUMBER.values():
            return frozenset((item,))
    elif is_number(item) and isinstance(item, (int, float)) and item in TYPE_OF_NUMBER:
        return frozenset((TYPE_OF_NUMBER[int(item)],))
    raise error(f'a type name such as "string" or a type number, not {item!r}')


def mod_test(numbers: list[Any], error: MakeError) -> Predicate:
    """``$mod``: the remainder has the sign of the value, and fractions are cut off."""
    whole = [_truncated(number) if is_number(number) else None for number in numbers]
    if len(whole) != 2 or whole[0] is None or whole[1] is None or whole[0] == 0:
        raise error("[divisor, remainder], two finite numbers, the divisor not 0")
    divisor, remainder = abs(whole[0]), whole[1]

    def test(value: Any) -> bool:
        number = _truncated(value) if is_number(value) else None
        if number is None:
            return False
        rest = abs(number) % divisor
        return (-rest if number < 0 else rest) == remainder

    return test


def _truncated(number: Any) -> int | None:
    try:
        return int(number if isinstance(number, (int, float)) else decimal_of(number))
    except (ValueError, OverflowError):
        return None


def size_test(size: Any, error: MakeError) -> Predicate:
    """``$size``: the length of an array."""
    if not is_number(size) or not isinstance(size, (int, float)) or not size >= 0 or size % 1:
        raise error("a whole number that is not negative")
    return lambda value: isinstance(value, list) and len(value) == size


def bits_test(name: str, argument: Any, error: MakeError) -> Predicate:
    """``$bitsAllSet`` and its three relatives, on whole numbers."""
    mask = _bit_mask(argument, error)
    wants_all, wants_set = name.startswith("$bitsAll"), name.endswith("Set")

    def test(value: Any) -> bool:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not is_int(value):
            return False
        bits = (value if wants_set else ~value) & mask
        return bool(bits == mask) if wants_all else bits != 0

    return test


def _bit_mask(argument: Any, error: MakeError) -> int:
    if isinstance(argument, (list, tuple)):
        if not all(is_int(bit) and 0 <= bit < 64 for bit in argument):
            raise error("bit positions from 0 to 63")
        return sum({1 << bit for bit in argument})
    if is_int(argument) and argument >= 0:
        return int(argument)
    raise error("a bit mask that is not negative, or an array of bit positions")
