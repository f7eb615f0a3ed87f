"""BSON values: their types, their one order, equality and copies.

Source: MongoDB manual, "BSON Types" and "Comparison/Sort Order".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from types import NoneType
from typing import Any, Final, TypeAlias

from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.son import SON

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


class Missing:
    """The type of MISSING: what a path gives where there is no field. It is not null, though many operators treat it so."""

    _only: Missing | None = None

    def __new__(cls) -> Missing:
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> tuple[type[Missing], tuple[()]]:
        return Missing, ()


MISSING: Final = Missing()

# The order of types; the gaps leave room for NaN (below every number) and the empty array of a sort (below null).
MIN_KEY, NO_VALUE, EMPTY_ARRAY_IN_SORT, NULL, NAN, NUMBER, STRING, OBJECT, ARRAY = -1, 0, 3, 5, 9, 10, 15, 20, 25
BINARY, OBJECT_ID, BOOLEAN, DATE, TIMESTAMP, REGEX, DB_REF, CODE, MAX_KEY = 30, 35, 40, 45, 47, 50, 55, 60, 127

_ORDER_OF_TYPE: dict[type, int] = {
    Missing: NO_VALUE,
    NoneType: NULL,
    int: NUMBER,
    Int64: NUMBER,
    float: NUMBER,
    Decimal128: NUMBER,
    str: STRING,
    dict: OBJECT,
    SON: OBJECT,
    list: ARRAY,
    tuple: ARRAY,
    bytes: BINARY,
    Binary: BINARY,
    ObjectId: OBJECT_ID,
    bool: BOOLEAN,
    datetime: DATE,
    Timestamp: TIMESTAMP,
    Regex: REGEX,
    re.Pattern: REGEX,
    DBRef: DB_REF,
    Code: CODE,
    MinKey: MIN_KEY,
    MaxKey: MAX_KEY,
}
PLAIN_NUMBERS: Final = frozenset((int, float, Int64))
"""The Python types of numbers that compare natively (a bool is not a number here)."""


def type_order(value: object) -> int:
    """The place of the value's type in the BSON order. Values of one place are compared with each other."""
    order = _ORDER_OF_TYPE.get(type(value))
    return order if order is not None else _order_of_subclass(value)


def _order_of_subclass(value: object) -> int:
    for cls in type(value).__mro__[1:]:
        if cls in _ORDER_OF_TYPE:
            return _ORDER_OF_TYPE[cls]
    raise TypeError(f"not a BSON value: {type(value).__name__}")


SortKey: TypeAlias = tuple[Any, ...]


def _number_key(value: Any) -> SortKey:
    return (NUMBER, value) if value == value else (NAN,)


def _decimal_key(value: Any) -> SortKey:
    number = decimal_of(value)
    return (NAN,) if number.is_nan() else (NUMBER, number)


def decimal_of(value: Decimal128) -> Decimal:
    """The number; a signalling NaN becomes an ordinary one, so that nothing raises."""
    number: Decimal = value.to_decimal()
    return Decimal("NaN") if number.is_snan() else number


def _object_key(value: Any) -> SortKey:
    return (OBJECT, tuple((type_order(item), name, sort_key(item)) for name, item in value.items()))


def _array_key(value: Any) -> SortKey:
    return (ARRAY, tuple(map(sort_key, value)))


def _binary_key(value: Any) -> SortKey:
    return (BINARY, len(value), getattr(value, "subtype", 0), bytes(value))


def _date_key(value: Any) -> SortKey:
    return (DATE, naive_utc(value))


def _regex_key(value: Any) -> SortKey:
    return (REGEX, str(value.pattern), int(value.flags) & ~re.UNICODE)


_KEY_OF_ORDER: dict[int, Callable[[Any], SortKey]] = {
    MIN_KEY: lambda _: (MIN_KEY,),
    NO_VALUE: lambda _: (NO_VALUE,),
    NULL: lambda _: (NULL,),
    NUMBER: _number_key,
    STRING: lambda value: (STRING, value),
    OBJECT: _object_key,
    ARRAY: _array_key,
    BINARY: _binary_key,
    OBJECT_ID: lambda value: (OBJECT_ID, value.binary),
    BOOLEAN: lambda value: (BOOLEAN, value),
    DATE: _date_key,
    TIMESTAMP: lambda value: (TIMESTAMP, value.time, value.inc),
    REGEX: _regex_key,
    DB_REF: lambda value: (DB_REF, sort_key(dict(value.as_doc()))),
    CODE: lambda value: (CODE, str(value)),
    MAX_KEY: lambda _: (MAX_KEY,),
}
_KEY_OF_TYPE = {cls: _KEY_OF_ORDER[order] for cls, order in _ORDER_OF_TYPE.items()} | {Decimal128: _decimal_key}


def sort_key(value: Any) -> SortKey:
    """A hashable tuple that orders and equals exactly as the BSON order does: 1 and 1.0 are one, true is not 1."""
    make = _KEY_OF_TYPE.get(type(value))
    return make(value) if make is not None else _KEY_OF_ORDER[_order_of_subclass(value)](value)


hashable = sort_key
"""The identity of a value for grouping and sets: equal in the BSON order means the same key."""


def compare(left: Any, right: Any) -> int:
    """-1, 0 or 1 by the BSON order, over all types. MISSING is below null."""
    left_key, right_key = sort_key(left), sort_key(right)
    return (left_key > right_key) - (left_key < right_key)


def equal(left: Any, right: Any) -> bool:
    """Whether the two are the same place in the BSON order."""
    if type(left) is str and type(right) is str:
        return left == right
    return sort_key(left) == sort_key(right)


def identical(left: Any, right: Any) -> bool:
    """Whether two values are stored as the same bytes: same types (int64 is not double) and the same order of fields."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return len(left) == len(right) and all(
            name == other and identical(value, right[other])
            for (name, value), other in zip(left.items(), right, strict=True)
        )
    if isinstance(left, list):
        return len(left) == len(right) and all(map(identical, left, right))
    if isinstance(left, float):
        return left == right or (left != left and right != right)
    return bool(left == right)


def naive_utc(moment: datetime) -> datetime:
    """The moment as BSON decodes it: UTC, without a zone."""
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def is_number(value: object) -> bool:
    """Whether the value is a BSON number (a bool is not)."""
    return type(value) in PLAIN_NUMBERS or isinstance(value, Decimal128)


def is_int(value: object) -> bool:
    """Whether the value is a BSON int or long (a bool is not)."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_truthy(value: Any) -> bool:
    """Truth in expressions: everything except false, null, missing and zero."""
    if value is True:
        return True
    if value is None or value is MISSING or value is False:
        return False
    if isinstance(value, Decimal128):
        return decimal_of(value) != 0
    return not (isinstance(value, (int, float)) and value == 0)


def copy_value(value: Any) -> Any:
    """A copy whose objects and arrays are new; scalars are shared."""
    if isinstance(value, dict):
        return {name: copy_value(item) for name, item in value.items()}
    if isinstance(value, list):
        return [copy_value(item) for item in value]
    return value


_NAME_OF_TYPE: dict[type, str] = {
    Missing: "missing",
    NoneType: "null",
    float: "double",
    Int64: "long",
    Decimal128: "decimal",
    str: "string",
    dict: "object",
    SON: "object",
    list: "array",
    tuple: "array",
    bytes: "binData",
    Binary: "binData",
    ObjectId: "objectId",
    bool: "bool",
    datetime: "date",
    Timestamp: "timestamp",
    Regex: "regex",
    re.Pattern: "regex",
    DBRef: "dbPointer",
    Code: "javascript",
    MinKey: "minKey",
    MaxKey: "maxKey",
}


def type_name(value: object) -> str:
    """The BSON type name as ``$type`` gives it. A Python int is "int" when it fits 32 bits, else "long"."""
    if type(value) is int:
        return "int" if INT32_MIN <= value <= INT32_MAX else "long"
    for cls in type(value).__mro__:
        if cls in _NAME_OF_TYPE:
            return _NAME_OF_TYPE[cls]
        if cls is int:
            return "int"
    raise TypeError(f"not a BSON value: {type(value).__name__}")


TYPE_OF_NUMBER: Final = {
    -1: "minKey", 1: "double", 2: "string", 3: "object", 4: "array", 5: "binData", 6: "undefined", 7: "objectId",
    8: "bool", 9: "date", 10: "null", 11: "regex", 12: "dbPointer", 13: "javascript", 14: "symbol",
    15: "javascriptWithScope", 16: "int", 17: "timestamp", 18: "long", 19: "decimal", 127: "maxKey",
}  # fmt: skip
"""The numbers of BSON types, as ``$type`` takes them."""

NUMBER_TYPES: Final = frozenset(("int", "long", "double", "decimal"))
"""What the alias "number" stands for."""
