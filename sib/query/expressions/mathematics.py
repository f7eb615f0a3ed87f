"""Arithmetic, rounding, trigonometry and bits. Null or missing in gives null out."""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from bson import Decimal128, Int64

from sib.errors import QueryError
from sib.query import numbers
from sib.query.expressions.compiler import function, is_nullish
from sib.query.values import is_int, is_number, type_name

MAX_WHOLE_EXPONENT = 64
"""Exponents up to which a power of whole numbers is computed exactly; greater ones leave 64 bits anyway."""


def number_error(name: str, value: Any) -> QueryError:
    """The refusal of something that is not a number."""
    return QueryError(f"{name} needs numbers, not {type_name(value)}")


def shift_date(name: str, moment: datetime, milliseconds: Any) -> datetime:
    """The moment moved by a number of milliseconds.

    Raises:
        QueryError: the result is outside the years 1 to 9999.
    """
    try:
        return moment + timedelta(milliseconds=round(numbers.as_float(milliseconds)))
    except (OverflowError, ValueError):
        raise QueryError(f"{name}: the date leaves the years 1 to 9999") from None


def milliseconds_between(start: datetime, end: datetime) -> Int64:
    """Whole milliseconds from start to end."""
    return Int64((end - start) // timedelta(milliseconds=1))


@function("$add", 0, None)
def _add(*values: Any) -> Any:
    total: Any = 0
    moment: datetime | None = None
    for value in values:
        if is_nullish(value):
            return None
        if isinstance(value, datetime):
            if moment is not None:
                raise QueryError("$add takes only one date")
            moment = value
        elif is_number(value):
            total = numbers.add(total, value)
        else:
            raise QueryError(f"$add needs numbers or a date, not {type_name(value)}")
    return total if moment is None else shift_date("$add", moment, total)


@function("$subtract", 2)
def _subtract(left: Any, right: Any) -> Any:
    if is_nullish(left) or is_nullish(right):
        return None
    if isinstance(left, datetime):
        if isinstance(right, datetime):
            return milliseconds_between(right, left)
        if is_number(right):
            return shift_date("$subtract", left, numbers.multiply(right, -1))
    elif is_number(left) and is_number(right):
        return numbers.subtract(left, right)
    raise QueryError(f"$subtract cannot take {type_name(right)} from {type_name(left)}")


@function("$multiply", 0, None)
def _multiply(*values: Any) -> Any:
    product: Any = 1
    for value in values:
        if is_nullish(value):
            return None
        if not is_number(value):
            raise number_error("$multiply", value)
        product = numbers.multiply(product, value)
    return product


@function("$divide", 2)
def _divide(left: Any, right: Any) -> Any:
    if is_nullish(left) or is_nullish(right):
        return None
    _check_numbers("$divide", left, right)
    if isinstance(left, Decimal128) or isinstance(right, Decimal128):
        divisor = numbers.to_decimal(right)
        if divisor == 0:
            raise QueryError("$divide by zero")
        return numbers.from_decimal(numbers.DECIMAL_CONTEXT.divide(numbers.to_decimal(left), divisor))
    if right == 0:
        raise QueryError("$divide by zero")
    return float(left) / float(right)


@function("$mod", 2)
def _mod(left: Any, right: Any) -> Any:
    if is_nullish(left) or is_nullish(right):
        return None
    _check_numbers("$mod", left, right)
    if numbers.as_float(right) == 0:
        raise QueryError("$mod by zero")
    return numbers.combine(
        left,
        right,
        lambda a, b: (abs(a) % abs(b)) * (-1 if a < 0 else 1),
        _float_mod,
        numbers.DECIMAL_CONTEXT.remainder,
    )


def _float_mod(left: float, right: float) -> float:
    return math.nan if math.isinf(left) else math.fmod(left, right)


def _check_numbers(name: str, *values: Any) -> None:
    for value in values:
        if not is_number(value):
            raise number_error(name, value)


@function("$abs", 1)
def _abs(value: Any) -> Any:
    if is_nullish(value):
        return None
    _check_numbers("$abs", value)
    return numbers.multiply(value, -1) if numbers.as_float(value) < 0 else value


def _rounding(name: str, whole: Callable[[float], float], mode: str) -> None:
    @function(name, 1)
    def round_one(value: Any) -> Any:
        if is_nullish(value):
            return None
        _check_numbers(name, value)
        if is_int(value):
            return value
        if isinstance(value, Decimal128):
            return numbers.from_decimal(numbers.to_decimal(value).to_integral_value(rounding=mode))
        return whole(value) if math.isfinite(value) else value


_rounding("$floor", lambda value: float(math.floor(value)), decimal.ROUND_FLOOR)
_rounding("$ceil", lambda value: float(math.ceil(value)), decimal.ROUND_CEILING)


def _to_places(name: str, mode: str) -> None:
    @function(name, 1, 2)
    def round_to_places(value: Any, places: Any = 0) -> Any:
        if is_nullish(value) or is_nullish(places):
            return None
        _check_numbers(name, value, places)
        digits = numbers.as_whole(places)
        if digits is None or not -20 <= digits <= 100:
            raise QueryError(f"{name} needs a whole number of places from -20 to 100")
        return _rounded(value, digits, mode)


def _rounded(value: Any, digits: int, mode: str) -> Any:
    if is_int(value):
        if digits >= 0:
            return value
        rounded = int(decimal.Decimal(int(value)).quantize(decimal.Decimal(1).scaleb(-digits), rounding=mode))
        return numbers.whole_result(rounded, value)
    exact = numbers.to_decimal(value) if isinstance(value, Decimal128) else decimal.Decimal(value)
    if not exact.is_finite() or exact.adjusted() + digits > 800:
        return value
    context = decimal.Context(prec=1000, Emax=999_999, Emin=-999_999)
    rounded_decimal = exact.quantize(decimal.Decimal(1).scaleb(-digits), rounding=mode, context=context)
    return numbers.from_decimal(rounded_decimal) if isinstance(value, Decimal128) else float(rounded_decimal)


_to_places("$round", decimal.ROUND_HALF_EVEN)
_to_places("$trunc", decimal.ROUND_DOWN)


@function("$pow", 2)
def _pow(base: Any, exponent: Any) -> Any:
    if is_nullish(base) or is_nullish(exponent):
        return None
    _check_numbers("$pow", base, exponent)
    if numbers.as_float(base) == 0 and numbers.as_float(exponent) < 0:
        raise QueryError("$pow cannot raise 0 to a negative exponent")
    if is_int(base) and is_int(exponent):
        return _whole_power(base, exponent)
    return numbers.combine(base, exponent, int.__pow__, _float_power, numbers.DECIMAL_CONTEXT.power)


def _whole_power(base: Any, exponent: Any) -> Any:
    is_small = 0 <= exponent <= MAX_WHOLE_EXPONENT or (exponent > 0 and base in (0, 1))
    if not is_small:
        return _float_power(float(base), float(exponent))
    return numbers.whole_result(
        int(base) ** int(exponent) if exponent <= MAX_WHOLE_EXPONENT else int(base), base, exponent
    )


def _float_power(base: float, exponent: float) -> float:
    try:
        result = base**exponent
    except (OverflowError, ZeroDivisionError):
        return math.inf
    return math.nan if isinstance(result, complex) else result


def _real_function(name: str, apply: Callable[[float], float], condition: Callable[[float], bool], needs: str) -> None:
    @function(name, 1)
    def evaluate(value: Any) -> Any:
        if is_nullish(value):
            return None
        _check_numbers(name, value)
        number = numbers.as_float(value)
        if number != number:
            return value
        if not condition(number):
            raise QueryError(f"{name} needs {needs}")
        try:
            result = apply(number)
        except OverflowError:
            result = math.inf
        except ValueError:
            result = math.nan
        return numbers.from_decimal(numbers.to_decimal(result)) if isinstance(value, Decimal128) else result


def _always(_: float) -> bool:
    return True


_real_function("$sqrt", math.sqrt, lambda x: x >= 0, "a number that is not negative")
_real_function("$exp", math.exp, _always, "a number")
_real_function("$ln", math.log, lambda x: x > 0, "a positive number")
_real_function("$log10", math.log10, lambda x: x > 0, "a positive number")
_real_function("$sin", math.sin, math.isfinite, "a finite number")
_real_function("$cos", math.cos, math.isfinite, "a finite number")
_real_function("$tan", math.tan, math.isfinite, "a finite number")
_real_function("$asin", math.asin, lambda x: -1 <= x <= 1, "a number from -1 to 1")
_real_function("$acos", math.acos, lambda x: -1 <= x <= 1, "a number from -1 to 1")
_real_function("$atan", math.atan, _always, "a number")
_real_function("$sinh", math.sinh, _always, "a number")
_real_function("$cosh", math.cosh, _always, "a number")
_real_function("$tanh", math.tanh, _always, "a number")
_real_function("$asinh", math.asinh, _always, "a number")
_real_function("$acosh", math.acosh, lambda x: x >= 1, "a number of at least 1")
_real_function("$atanh", math.atanh, lambda x: -1 <= x <= 1, "a number from -1 to 1")
_real_function("$degreesToRadians", math.radians, _always, "a number")
_real_function("$radiansToDegrees", math.degrees, _always, "a number")


@function("$atan2", 2)
def _atan2(y: Any, x: Any) -> Any:
    if is_nullish(y) or is_nullish(x):
        return None
    _check_numbers("$atan2", y, x)
    return math.atan2(numbers.as_float(y), numbers.as_float(x))


@function("$log", 2)
def _log(value: Any, base: Any) -> Any:
    if is_nullish(value) or is_nullish(base):
        return None
    _check_numbers("$log", value, base)
    if numbers.as_float(value) <= 0 or numbers.as_float(base) <= 0 or numbers.as_float(base) == 1:
        raise QueryError("$log needs a positive number and a positive base that is not 1")
    return math.log(numbers.as_float(value)) / math.log(numbers.as_float(base))


def _bits(name: str, start: int, combine: Callable[[int, int], int]) -> None:
    @function(name, 0, None)
    def evaluate(*values: Any) -> Any:
        result = start
        for value in values:
            if is_nullish(value):
                return None
            if not is_int(value):
                raise QueryError(f"{name} needs int or long, not {type_name(value)}")
            result = combine(result, int(value))
        return numbers.whole_result(result, *values)


_bits("$bitAnd", -1, int.__and__)
_bits("$bitOr", 0, int.__or__)
_bits("$bitXor", 0, int.__xor__)


@function("$bitNot", 1)
def _bit_not(value: Any) -> Any:
    if is_nullish(value):
        return None
    if not is_int(value):
        raise QueryError(f"$bitNot needs int or long, not {type_name(value)}")
    return numbers.whole_result(~int(value), value)
