"""Types and conversions: ``$convert``, ``$toInt`` …, ``$type``, ``$isNumber``.

Source: MongoDB manual, "$convert".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from bson import Decimal128, Int64, ObjectId, Timestamp
from bson.errors import InvalidId

from sib.errors import QueryError, QuerySyntaxError
from sib.query import numbers
from sib.query.calendar_units import EPOCH, out_of_range
from sib.query.date_formats import DEFAULT_FORMAT, format_date, parse_date
from sib.query.expressions.compiler import Expression, Scope, Variables, function, is_nullish, named_arguments, operator
from sib.query.expressions.mathematics import milliseconds_between
from sib.query.values import (
    INT32_MAX,
    INT32_MIN,
    INT64_MAX,
    INT64_MIN,
    TYPE_OF_NUMBER,
    is_number,
    is_truthy,
    naive_utc,
    type_name,
)

MAX_NUMBER_TEXT = 400
"""Characters of a text that is read as a number."""

_WHOLE = re.compile(r"[+-]?\d+")
_FLOATING = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)|nan", re.IGNORECASE)


def number_text(number: Any) -> str:
    """The text of a number: doubles in their shortest form, without a needless ``.0``."""
    if not isinstance(number, float):
        return str(number)
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    text = repr(number)
    return text.removesuffix(".0") if "e" not in text else text


def _impossible(value: Any, wanted: str) -> QueryError:
    return QueryError(f"cannot convert {type_name(value)} to {wanted}")


def to_text(value: Any) -> str:
    """The value as a string."""
    if type(value) is str:
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if is_number(value):
        return number_text(value)
    if isinstance(value, datetime):
        return format_date(naive_utc(value), DEFAULT_FORMAT)
    if isinstance(value, ObjectId):
        return str(value)
    raise _impossible(value, "string")


def _whole_of_text(text: str, wanted: str) -> int:
    if len(text) > MAX_NUMBER_TEXT or not text.isascii() or not _WHOLE.fullmatch(text):
        raise QueryError(f"cannot read {text[:60]!r} as {wanted}")
    return int(text)


def _to_whole(value: Any, wanted: str, least: int, most: int) -> int:
    if isinstance(value, bool):
        return int(value)
    if type(value) is str:
        whole = _whole_of_text(value, wanted)
    elif is_number(value):
        number = numbers.to_decimal(value) if isinstance(value, Decimal128) else value
        try:
            whole = int(number)
        except (ValueError, OverflowError):
            raise QueryError(f"cannot convert {value} to {wanted}") from None
    else:
        raise _impossible(value, wanted)
    if not least <= whole <= most:
        raise QueryError(f"{value} does not fit into {wanted}")
    return whole


def _to_int(value: Any) -> int:
    return _to_whole(value, "int", INT32_MIN, INT32_MAX)


def _to_long(value: Any) -> Int64:
    if isinstance(value, datetime):
        return milliseconds_between(EPOCH, naive_utc(value))
    return Int64(_to_whole(value, "long", INT64_MIN, INT64_MAX))


def _to_double(value: Any) -> float:
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, datetime):
        return float(milliseconds_between(EPOCH, naive_utc(value)))
    if type(value) is str:
        if len(value) > MAX_NUMBER_TEXT or not value.isascii() or not _FLOATING.fullmatch(value):
            raise QueryError(f"cannot read {value[:60]!r} as double")
        return float(value)
    if is_number(value):
        return numbers.as_float(value)
    raise _impossible(value, "double")


def _to_decimal(value: Any) -> Decimal128:
    if isinstance(value, bool):
        return Decimal128(str(int(value)))
    if isinstance(value, datetime):
        return Decimal128(str(int(milliseconds_between(EPOCH, naive_utc(value)))))
    if type(value) is str:
        try:
            if len(value) > MAX_NUMBER_TEXT:
                raise InvalidOperation
            return numbers.from_decimal(Decimal(value))
        except InvalidOperation:
            raise QueryError(f"cannot read {value[:60]!r} as decimal") from None
    if is_number(value):
        return numbers.from_decimal(numbers.to_decimal(value))
    raise _impossible(value, "decimal")


def _to_bool(value: Any) -> bool:
    return is_truthy(value)


def _to_date(value: Any) -> datetime:
    if isinstance(value, datetime):
        return naive_utc(value)
    if type(value) is str:
        return parse_date(value)
    if isinstance(value, ObjectId):
        return naive_utc(value.generation_time)
    if isinstance(value, Timestamp):
        return naive_utc(value.as_datetime())
    if is_number(value):
        try:
            return EPOCH + timedelta(milliseconds=_to_whole(value, "date", INT64_MIN, INT64_MAX))
        except OverflowError:
            raise out_of_range() from None
    raise _impossible(value, "date")


def _to_object_id(value: Any) -> ObjectId:
    if isinstance(value, ObjectId):
        return value
    if type(value) is str:
        try:
            return ObjectId(value)
        except InvalidId:
            raise QueryError(f"{value[:60]!r} is no ObjectId of 24 hexadecimal digits") from None
    raise _impossible(value, "objectId")


CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "string": to_text,
    "int": _to_int,
    "long": _to_long,
    "double": _to_double,
    "decimal": _to_decimal,
    "bool": _to_bool,
    "date": _to_date,
    "objectId": _to_object_id,
}


def _convert(value: Any) -> Callable[[Any], Any]:
    target = value.get("type") if isinstance(value, Mapping) else value
    if is_number(target) and isinstance(target, (int, float)):
        target = TYPE_OF_NUMBER.get(int(target)) if target == target and abs(target) < 256 else None
    if type(target) is not str or target not in CONVERSIONS:
        raise QueryError(f"$convert cannot convert to {value!r}")
    return CONVERSIONS[target]


@operator("$convert")
def _compile_convert(argument: Any, scope: Scope) -> Expression:
    named = named_arguments("$convert", argument, ("input", "to"), ("onError", "onNull", "format"))
    source, target = scope.compile(named["input"]), scope.compile(named["to"])
    on_null = scope.compile(named.get("onNull"))
    on_error = scope.compile(named["onError"]) if "onError" in named else None
    if type(named["to"]) is str and not named["to"].startswith("$") and named["to"] not in CONVERSIONS:
        raise QuerySyntaxError(f"$convert cannot convert to {named['to']!r}")

    def evaluate(document: Any, variables: Variables) -> Any:
        value, wanted = source(document, variables), target(document, variables)
        if is_nullish(value):
            return on_null(document, variables)
        if is_nullish(wanted):
            return None
        convert = _convert(wanted)
        try:
            return convert(value)
        except QueryError:
            if on_error is None:
                raise
            return on_error(document, variables)

    return evaluate


def _conversion(name: str, convert: Callable[[Any], Any]) -> None:
    @function(name, 1)
    def evaluate(value: Any) -> Any:
        return None if is_nullish(value) else convert(value)


for _type, _apply in CONVERSIONS.items():
    _conversion("$to" + _type[0].upper() + _type[1:], _apply)


@function("$type", 1)
def _type_of(value: Any) -> str:
    return type_name(value)


@function("$isNumber", 1)
def _is_number(value: Any) -> bool:
    return is_number(value)
