"""Arithmetic on BSON numbers: int, long, double and decimal keep apart and are promoted as MongoDB does.

int and long overflow into long; a long that overflows becomes a double in expressions and an error in updates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Context, Decimal, InvalidOperation
from typing import Any

from bson import Decimal128, Int64

from sib.query.values import INT64_MAX, INT64_MIN, decimal_of, is_int

DECIMAL_CONTEXT = Context(prec=34, Emax=6144, Emin=-6143, traps=[])


def to_decimal(number: Any) -> Decimal:
    """The number as a Decimal; a double keeps 15 digits, as MongoDB converts it."""
    if isinstance(number, Decimal128):
        return decimal_of(number)
    if isinstance(number, float):
        return Decimal(f"{number:.15g}") if math.isfinite(number) else Decimal(str(number))
    return Decimal(int(number))


def from_decimal(number: Decimal) -> Decimal128:
    """The Decimal rounded to the 34 digits that BSON has."""
    try:
        return Decimal128(DECIMAL_CONTEXT.plus(number))
    except InvalidOperation:
        return Decimal128("NaN")


def combine(
    left: Any,
    right: Any,
    whole: Callable[[int, int], int],
    floating: Callable[[float, float], float],
    decimal: Callable[[Decimal, Decimal], Decimal],
) -> Any:
    """Applies one of three functions, by the wider type of the two numbers."""
    if isinstance(left, Decimal128) or isinstance(right, Decimal128):
        return from_decimal(decimal(to_decimal(left), to_decimal(right)))
    if isinstance(left, float) or isinstance(right, float):
        try:
            return floating(float(left), float(right))
        except OverflowError:
            return math.inf
    return whole_result(whole(int(left), int(right)), left, right)


def whole_result(result: int, *operands: Any) -> Any:
    """A whole result with the type of its operands: long if any is long; a double beyond 64 bits."""
    if not INT64_MIN <= result <= INT64_MAX:
        return float(result)
    return Int64(result) if any(type(operand) is Int64 for operand in operands) else result


def add(left: Any, right: Any) -> Any:
    """The sum of two BSON numbers."""
    return combine(left, right, int.__add__, float.__add__, DECIMAL_CONTEXT.add)


def subtract(left: Any, right: Any) -> Any:
    """The difference of two BSON numbers."""
    return combine(left, right, int.__sub__, float.__sub__, DECIMAL_CONTEXT.subtract)


def multiply(left: Any, right: Any) -> Any:
    """The product of two BSON numbers."""
    return combine(left, right, int.__mul__, float.__mul__, DECIMAL_CONTEXT.multiply)


def as_float(number: Any) -> float:
    """The number as a double."""
    try:
        return float(decimal_of(number) if isinstance(number, Decimal128) else number)
    except OverflowError:
        return math.inf


def as_whole(number: Any) -> int | None:
    """The number as an int when it has no fraction, else None."""
    if is_int(number):
        return int(number)
    if isinstance(number, float) and number.is_integer():
        return int(number)
    if isinstance(number, Decimal128):
        decimal = decimal_of(number)
        if decimal.is_finite() and decimal == decimal.to_integral_value():
            return int(decimal)
    return None
