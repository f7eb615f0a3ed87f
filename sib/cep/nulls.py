"""The values of the language at run time: three-valued logic, where null is Python's None, and the functions.

Everything here takes any value and never raises: what has no meaning (a missing or ill-typed value, a division by zero)
is null. Generated code uses Python's own operators while they agree with these, and these when those raise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sib.query import geo

FAILURES = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError)
"""What Python's operators raise where the language says null."""

WHOLE_MAX = 2**63 - 1
"""Greatest whole number that a product may be."""

TEXT_CHARACTERS_MAX = 65_536
"""Longest text that ``concat`` makes; more is null."""


def is_number(value: Any) -> bool:
    """Whether a value is a number of the language: no boolean."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def numeric(value: Any) -> Any:
    """The value if one can calculate with it, else null; true is 1."""
    return +value if isinstance(value, (int, float)) else None


def _comparison(operation: Callable[..., Any]) -> Callable[..., Any]:
    """The comparison of two values that are not null; null where they cannot be compared."""

    def guarded(a: Any, b: Any) -> Any:
        if a is None or b is None:
            return None
        try:
            return operation(a, b)
        except FAILURES:
            return None

    return guarded


def _numeric(operation: Callable[..., Any]) -> Callable[..., Any]:
    """The operation on numbers; null for anything else and where it fails."""

    def guarded(*arguments: Any) -> Any:
        if not all(isinstance(argument, (int, float)) for argument in arguments):
            return None
        try:
            return operation(*arguments)
        except FAILURES:
            return None

    return guarded


add = _numeric(lambda a, b: a + b)
subtract = _numeric(lambda a, b: a - b)
multiply = _numeric(lambda a, b: times(a, b))
divide = _numeric(lambda a, b: a / b)
modulo = _numeric(lambda a, b: a % b)
negate = _numeric(lambda a: -a)


def times(a: Any, b: Any) -> Any:
    """The product of two numbers; a whole one beyond 64 bits becomes a float, so that numbers cannot grow without bound."""
    product = a * b
    return product if -WHOLE_MAX <= product <= WHOLE_MAX or isinstance(product, float) else float(product)


def plain(value: Any) -> Any:
    """A value of JSON in the one form that equal values have: a whole number has no fraction, whatever the store made of it."""
    if type(value) is float and value.is_integer() and abs(value) <= WHOLE_MAX:
        return int(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in sorted(value.items(), key=lambda item: str(item[0]))}
    return value


def to_float(value: int) -> float | None:
    """A whole number as a float; null if it is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return None


def equal(a: Any, b: Any) -> bool | None:
    """``a == b``; null if either is null. Values of different types are not equal."""
    return None if a is None or b is None else bool(a == b)


def unequal(a: Any, b: Any) -> bool | None:
    """``a != b``; null if either is null."""
    return None if a is None or b is None else bool(a != b)


less = _comparison(lambda a, b: a < b)
less_equal = _comparison(lambda a, b: a <= b)
greater = _comparison(lambda a, b: a > b)
greater_equal = _comparison(lambda a, b: a >= b)


def truth(value: Any) -> bool | None:
    """The value as a condition: only true and false are one, all else is null."""
    return value if value is True or value is False else None


def both(a: Any, b: Any) -> bool | None:
    """Three-valued ``and``."""
    a, b = truth(a), truth(b)
    if a is False or b is False:
        return False
    return None if a is None or b is None else True


def either(a: Any, b: Any) -> bool | None:
    """Three-valued ``or``."""
    a, b = truth(a), truth(b)
    if a is True or b is True:
        return True
    return None if a is None or b is None else False


def negation(value: Any) -> bool | None:
    """Three-valued ``not``: of null it is null."""
    value = truth(value)
    return None if value is None else not value


def contains(value: Any, values: Any) -> bool | None:
    """Whether a value is one of ``values``; null for null, false for what cannot be in it (a list)."""
    if value is None:
        return None
    try:
        return value in values
    except TypeError:
        return False


def like_matcher(pattern: str) -> Callable[[Any], bool | None]:
    """A matcher of ``%`` and ``_`` that never takes longer than text times pattern; null for what is no text."""
    pieces = pattern.split("%")

    def matches_at(text: str, start: int, piece: str) -> bool:
        return all(character in ("_", text[start + offset]) for offset, character in enumerate(piece))

    def find(text: str, start: int, end: int, piece: str) -> int:
        if "_" not in piece:
            return text.find(piece, start, end)
        last = end - len(piece)
        return next((place for place in range(start, last + 1) if matches_at(text, place, piece)), -1)

    def like(text: Any) -> bool | None:
        if not isinstance(text, str):
            return None
        head, tail = pieces[0], pieces[-1]
        if len(pieces) == 1:
            return len(text) == len(head) and matches_at(text, 0, head)
        if len(text) < len(head) + len(tail) or not matches_at(text, 0, head):
            return False
        end = len(text) - len(tail)
        if not matches_at(text, end, tail):
            return False
        place = len(head)
        for piece in pieces[1:-1]:
            found = find(text, place, end, piece)
            if found < 0:
                return False
            place = found + len(piece)
        return True

    return like


def nth(captured: Any, index: int, slot: int) -> Any:
    """Slot of the index-th event of a captured list; null if there are not so many."""
    try:
        return captured[index][slot]
    except (LookupError, TypeError):
        return None


def slot_of(captured: Any, slot: int) -> Any:
    """Slot of a captured event; null if it was not captured."""
    return None if captured is None else captured[slot]


def dig(attributes: Any, path: tuple[str | int, ...]) -> Any:
    """The value at a path of names and indexes; null where it ends early."""
    value = attributes
    for part in path:
        try:
            value = value[part]
        except (LookupError, TypeError):
            return None
    return value


# Functions


def coalesce(*values: Any) -> Any:
    """The first value that is not null."""
    return next((value for value in values if value is not None), None)


def if_then_else(condition: Any, yes: Any, no: Any) -> Any:
    """``yes`` where the condition is true, else ``no`` (also where it is null)."""
    return yes if condition is True else no


def round_half_up(value: Any, digits: Any = 0) -> Any:
    """Rounded, halves away from zero, to a whole number or to ``digits`` decimals."""
    if not is_number(value) or not isinstance(digits, int) or not 0 <= digits <= 15 or not math.isfinite(value):
        return None
    scale = 10**digits
    try:
        rounded = math.floor(abs(value) * scale + 0.5)
    except OverflowError:
        return value
    rounded = rounded if value >= 0 else -rounded
    return rounded / scale if digits else rounded


def concat(*values: Any) -> str | None:
    """The texts of all values together; null values are skipped."""
    text = "".join(to_string(value) or "" for value in values)
    return text if len(text) <= TEXT_CHARACTERS_MAX else None


def substring(text: Any, start: Any, length: Any = None) -> str | None:
    """Part of a text from an offset (0 is the first character), at most ``length`` characters."""
    if not isinstance(text, str) or not isinstance(start, int) or start < 0:
        return None
    if length is None:
        return text[start:]
    return text[start : start + length] if isinstance(length, int) and length >= 0 else None


def to_number(value: Any) -> Any:
    """A number, or a text that is one; true is 1; null for all else."""
    if isinstance(value, bool):
        return int(value)
    if is_number(value):
        return value
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        return int(value)
    except ValueError:
        pass
    try:
        result = float(value)
    except ValueError:
        return None
    return result if math.isfinite(result) else None


def to_string(value: Any) -> str | None:
    """Text as it is; true and false in lower case; whole floats keep their ``.0``."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _position(arguments: tuple[Any, ...]) -> tuple[geo.Position | None, tuple[Any, ...]]:
    """A position from one GeoJSON point (or pair), or from two numbers latitude, longitude; and what is left."""
    if len(arguments) >= 2 and is_number(arguments[0]) and is_number(arguments[1]):
        return (float(arguments[1]), float(arguments[0])), arguments[2:]
    return (geo.read_point(arguments[0]) if arguments else None), arguments[1:]


def geo_distance(*arguments: Any) -> float | None:
    """Metres between two places; each a GeoJSON point, or latitude and longitude in degrees."""
    first, rest = _position(arguments)
    second, rest = _position(rest)
    if first is None or second is None or rest or not (geo.is_on_earth(first) and geo.is_on_earth(second)):
        return None
    return geo.distance_m(first, second)


def geo_within(*arguments: Any) -> bool | None:
    """Whether a place lies in a region: a GeoJSON polygon, or latitude, longitude and radius in metres."""
    place, rest = _position(arguments)
    if place is None or not rest:
        return None
    if len(rest) == 3:
        centre, radius = _position(rest)
        return None if centre is None or not is_number(radius[0]) else geo.distance_m(place, centre) <= radius[0]
    if len(rest) >= 8 and len(rest) % 2 == 0 and all(map(is_number, rest)):
        ring = [(float(rest[i + 1]), float(rest[i])) for i in range(0, len(rest), 2)]
        return geo.in_flat_polygon(place, ring)
    shape = geo.read_shape(rest[0])
    point = geo.read_shape({"type": "Point", "coordinates": list(place)})
    return None if shape is None or point is None or not shape.polygons else geo.is_within(point, shape)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "coalesce": coalesce,
    "ifthenelse": if_then_else,
    "abs": _numeric(abs),
    "round": round_half_up,
    "floor": _numeric(math.floor),
    "ceil": _numeric(math.ceil),
    "upper": lambda text: text.upper() if isinstance(text, str) else None,
    "lower": lambda text: text.lower() if isinstance(text, str) else None,
    "length": lambda value: len(value) if isinstance(value, (str, list)) else None,
    "concat": concat,
    "substring": substring,
    "tonumber": to_number,
    "tostring": to_string,
    "geodistance": geo_distance,
    "geowithin": geo_within,
}
