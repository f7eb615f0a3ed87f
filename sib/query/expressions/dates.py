"""Date operators: parts, text, arithmetic. A date may also be an ObjectId or a timestamp.

Source: MongoDB manual, "Date Expression Operators".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from bson import Int64, ObjectId, Timestamp

from sib.errors import QueryError
from sib.query import calendar_units, numbers
from sib.query.date_formats import DEFAULT_FORMAT, LOCAL_FORMAT, format_date, parse_date
from sib.query.expressions.arrays import whole_argument
from sib.query.expressions.compiler import Expression, Scope, Variables, constant, is_nullish, named_arguments, operator
from sib.query.values import is_number, naive_utc, type_name


def date_argument(name: str, value: Any) -> datetime:
    """The argument as a moment.

    Raises:
        QueryError: it is no date.
    """
    if isinstance(value, datetime):
        return naive_utc(value)
    if isinstance(value, ObjectId):
        return naive_utc(value.generation_time)
    if isinstance(value, Timestamp):
        return naive_utc(value.as_datetime())
    raise QueryError(f"{name} needs a date, not {type_name(value)}")


def _zone(name: str, value: Any) -> tzinfo:
    if type(value) is not str:
        raise QueryError(f"{name} needs a time zone as a string, not {type_name(value)}")
    return calendar_units.find_zone(value)


def _compile_named(
    name: str,
    argument: Any,
    scope: Scope,
    required: tuple[str, ...],
    optional: tuple[str, ...],
    apply: Callable[[Callable[[str, Any], Any]], Any],
) -> Expression:
    """An operator of named arguments that is null when any argument given is null; ``apply`` reads them by name."""
    named = named_arguments(name, argument, required, optional)
    parts = {key: scope.compile(value) for key, value in named.items()}

    def evaluate(document: Any, variables: Variables) -> Any:
        values = {key: part(document, variables) for key, part in parts.items()}
        if any(map(is_nullish, values.values())):
            return None
        return apply(values.get)

    return evaluate


# Parts of a date


def _day_of_week(local: datetime) -> int:
    return local.isoweekday() % 7 + 1


def _week(local: datetime) -> int:
    return (local.timetuple().tm_yday + 6 - local.isoweekday() % 7) // 7


PARTS: dict[str, Callable[[datetime], Any]] = {
    "$year": lambda local: local.year,
    "$month": lambda local: local.month,
    "$dayOfMonth": lambda local: local.day,
    "$hour": lambda local: local.hour,
    "$minute": lambda local: local.minute,
    "$second": lambda local: local.second,
    "$millisecond": lambda local: local.microsecond // 1000,
    "$dayOfWeek": _day_of_week,
    "$dayOfYear": lambda local: local.timetuple().tm_yday,
    "$week": _week,
    "$isoWeek": lambda local: local.isocalendar().week,
    "$isoWeekYear": lambda local: Int64(local.isocalendar().year),
    "$isoDayOfWeek": lambda local: local.isoweekday(),
}


def _part(name: str, read: Callable[[datetime], Any]) -> None:
    @operator(name)
    def compile_part(argument: Any, scope: Scope) -> Expression:
        if isinstance(argument, list) and len(argument) == 1:
            argument = argument[0]
        is_named = isinstance(argument, Mapping) and "date" in argument
        named = named_arguments(name, argument, ("date",), ("timezone",)) if is_named else {"date": argument}
        date, zone = scope.compile(named["date"]), scope.compile(named.get("timezone", "UTC"))

        def evaluate(document: Any, variables: Variables) -> Any:
            value, where = date(document, variables), zone(document, variables)
            if is_nullish(value) or is_nullish(where):
                return None
            return read(calendar_units.to_local(date_argument(name, value), _zone(name, where)))

        return evaluate


for _name, _read in PARTS.items():
    _part(_name, _read)


@operator("$dateToParts")
def _date_to_parts(argument: Any, scope: Scope) -> Expression:
    def apply(get: Callable[[str, Any], Any]) -> dict[str, Any]:
        zone = _zone("$dateToParts", get("timezone", "UTC"))
        local = calendar_units.to_local(date_argument("$dateToParts", get("date", None)), zone)
        time = {
            "hour": local.hour,
            "minute": local.minute,
            "second": local.second,
            "millisecond": local.microsecond // 1000,
        }
        if get("iso8601", False) is True:
            year, week, day = local.isocalendar()
            return {"isoWeekYear": year, "isoWeek": week, "isoDayOfWeek": day, **time}
        return {"year": local.year, "month": local.month, "day": local.day, **time}

    return _compile_named("$dateToParts", argument, scope, ("date",), ("timezone", "iso8601"), apply)


@operator("$dateFromParts")
def _date_from_parts(argument: Any, scope: Scope) -> Expression:
    calendar_parts = ("year", "month", "day", "isoWeekYear", "isoWeek", "isoDayOfWeek")
    time_parts = ("hour", "minute", "second", "millisecond")

    def apply(get: Callable[[str, Any], Any]) -> datetime:
        numbers_of = {key: whole_argument("$dateFromParts", get(key, 0)) for key in time_parts}
        zone = _zone("$dateFromParts", get("timezone", "UTC"))
        try:
            if get("isoWeekYear", None) is not None:
                start = datetime.fromisocalendar(whole_argument("$dateFromParts", get("isoWeekYear", None)), 1, 1)
                weeks = whole_argument("$dateFromParts", get("isoWeek", 1)) - 1
                days = whole_argument("$dateFromParts", get("isoDayOfWeek", 1)) - 1
                start += timedelta(weeks=weeks, days=days)
            else:
                months = whole_argument("$dateFromParts", get("month", 1)) - 1
                years, month = divmod(months, 12)
                start = datetime(whole_argument("$dateFromParts", get("year", None)) + years, month + 1, 1)
                start += timedelta(days=whole_argument("$dateFromParts", get("day", 1)) - 1)
            start += timedelta(**{f"{key}s": value for key, value in numbers_of.items()})
        except (OverflowError, ValueError):
            raise calendar_units.out_of_range() from None
        return calendar_units.to_utc(start.replace(tzinfo=zone))

    required = ("isoWeekYear",) if isinstance(argument, Mapping) and "isoWeekYear" in argument else ("year",)
    optional = tuple(part for part in (*calendar_parts, *time_parts, "timezone") if part not in required)
    return _compile_named("$dateFromParts", argument, scope, required, optional, apply)


# Text


@operator("$dateToString")
def _date_to_string(argument: Any, scope: Scope) -> Expression:
    named = named_arguments("$dateToString", argument, ("date",), ("format", "timezone", "onNull"))
    date, zone = scope.compile(named["date"]), scope.compile(named.get("timezone", "UTC"))
    pattern = scope.compile(named["format"]) if "format" in named else None
    fallback = scope.compile(named["onNull"]) if "onNull" in named else constant(None)

    def evaluate(document: Any, variables: Variables) -> Any:
        value, where = date(document, variables), zone(document, variables)
        if is_nullish(value):
            return fallback(document, variables)
        if is_nullish(where):
            return None
        local = calendar_units.to_local(date_argument("$dateToString", value), _zone("$dateToString", where))
        if pattern is None:
            return format_date(local, DEFAULT_FORMAT if local.tzinfo is UTC else LOCAL_FORMAT)
        text = pattern(document, variables)
        if is_nullish(text):
            return None
        if type(text) is not str:
            raise QueryError("$dateToString needs a format that is a string")
        return format_date(local, text)

    return evaluate


@operator("$dateFromString")
def _date_from_string(argument: Any, scope: Scope) -> Expression:
    named = named_arguments("$dateFromString", argument, ("dateString",), ("format", "timezone", "onError", "onNull"))
    source = scope.compile(named["dateString"])
    zone, pattern = scope.compile(named.get("timezone")), scope.compile(named.get("format"))
    on_null = scope.compile(named.get("onNull"))
    on_error = scope.compile(named["onError"]) if "onError" in named else None

    def evaluate(document: Any, variables: Variables) -> Any:
        text = source(document, variables)
        if is_nullish(text):
            return on_null(document, variables)
        where, how = zone(document, variables), pattern(document, variables)
        try:
            if type(text) is not str:
                raise QueryError(f"$dateFromString needs a string, not {type_name(text)}")
            given_zone = None if is_nullish(where) else _zone("$dateFromString", where)
            return parse_date(text, None if is_nullish(how) else str(how), given_zone)
        except QueryError:
            if on_error is None:
                raise
            return on_error(document, variables)

    return evaluate


# Arithmetic


def _moving(name: str, sign: int) -> None:
    @operator(name)
    def compile_move(argument: Any, scope: Scope) -> Expression:
        def apply(get: Callable[[str, Any], Any]) -> datetime:
            return calendar_units.shift(
                date_argument(name, get("startDate", None)),
                calendar_units.check_unit(name, get("unit", None)),
                sign * whole_argument(name, get("amount", None)),
                _zone(name, get("timezone", "UTC")),
            )

        return _compile_named(name, argument, scope, ("startDate", "unit", "amount"), ("timezone",), apply)


_moving("$dateAdd", 1)
_moving("$dateSubtract", -1)


@operator("$dateDiff")
def _date_difference(argument: Any, scope: Scope) -> Expression:
    def apply(get: Callable[[str, Any], Any]) -> Int64:
        return Int64(
            calendar_units.difference(
                date_argument("$dateDiff", get("startDate", None)),
                date_argument("$dateDiff", get("endDate", None)),
                calendar_units.check_unit("$dateDiff", get("unit", None)),
                _zone("$dateDiff", get("timezone", "UTC")),
                calendar_units.check_weekday("$dateDiff", get("startOfWeek", "sunday")),
            )
        )

    required = ("startDate", "endDate", "unit")
    return _compile_named("$dateDiff", argument, scope, required, ("timezone", "startOfWeek"), apply)


@operator("$dateTrunc")
def _date_trunc(argument: Any, scope: Scope) -> Expression:
    def apply(get: Callable[[str, Any], Any]) -> datetime:
        size = get("binSize", 1)
        whole = numbers.as_whole(size) if is_number(size) else None
        if whole is None or not 1 <= whole <= calendar_units.MAX_AMOUNT:
            raise QueryError("$dateTrunc needs a positive whole binSize")
        return calendar_units.truncate(
            date_argument("$dateTrunc", get("date", None)),
            calendar_units.check_unit("$dateTrunc", get("unit", None)),
            whole,
            _zone("$dateTrunc", get("timezone", "UTC")),
            calendar_units.check_weekday("$dateTrunc", get("startOfWeek", "sunday")),
        )

    optional = ("binSize", "timezone", "startOfWeek")
    return _compile_named("$dateTrunc", argument, scope, ("date", "unit"), optional, apply)
