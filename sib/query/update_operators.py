"""The operators of updates: each changes one path of a document that is a copy already.

Source: MongoDB manual, "Update Operators".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from bson import Int64, Timestamp

from sib.errors import LimitError, QueryError, QuerySyntaxError
from sib.query.budget import Context
from sib.query.matcher import at_value, compile_condition, compile_filter, has_operators
from sib.query.numbers import add, multiply
from sib.query.paths import Parts, array_index, checked_parts, read_exact
from sib.query.regex import is_regex
from sib.query.sorting import read_sort, sort_key_function
from sib.query.values import MISSING, copy_value, equal, is_int, is_number, sort_key, type_name

MAX_PADDED_INDEX = 100_000
"""The greatest index that an update may set in an array (what is before it is filled with null)."""

MAX_ARRAY_ELEMENTS = 1_000_000
"""Elements of an array after an update."""


@dataclass(slots=True)
class Target:
    """A path of names and indexes in a document that may be changed."""

    document: dict[str, Any]
    parts: Parts

    @property
    def path(self) -> str:
        return ".".join(self.parts)

    def get(self) -> Any:
        """The value, or MISSING."""
        return read_exact(self.document, self.parts)

    def set(self, value: Any) -> None:
        """Sets the value; makes the objects on the way, and fills arrays with null.

        Raises:
            QueryError: a scalar is on the way, or an array gets a name.
            LimitError: the index is too large.
        """
        container: Any = self.document
        for part, following in zip(self.parts[:-1], self.parts[1:], strict=True):
            inner = _child(container, part)
            if inner is MISSING:
                inner = {}
                _put(container, part, inner, self)
            elif not isinstance(inner, (dict, list)):
                raise QueryError(
                    f"cannot make the field {following!r} of {self.path!r}: {part!r} is {type_name(inner)}, not an object"
                )
            container = inner
        _put(container, self.parts[-1], value, self)

    def unset(self) -> None:
        """Removes the field; an element of an array becomes null."""
        container = read_exact(self.document, self.parts[:-1])
        part = self.parts[-1]
        if isinstance(container, dict):
            container.pop(part, None)
        elif isinstance(container, list):
            index = array_index(part)
            if index is not None and index < len(container):
                container[index] = None

    def get_array(self, operator: str) -> list[Any] | None:
        """The array at the path, to be changed in place; None when nothing is there.

        Raises:
            QueryError: something else is there.
        """
        value = self.get()
        if value is MISSING:
            return None
        if not isinstance(value, list):
            raise QueryError(f"{operator} needs an array at {self.path!r}, which is {type_name(value)}")
        return value


def _child(container: Any, part: str) -> Any:
    return read_exact(container, (part,))


def _put(container: Any, part: str, value: Any, target: Target) -> None:
    if isinstance(container, dict):
        container[part] = value
        return
    index = array_index(part)
    if index is None:
        raise QueryError(f"cannot make the field {part!r} of {target.path!r} in an array: use an index")
    if index > MAX_PADDED_INDEX:
        raise LimitError(f"the index {index} in {target.path!r} is above {MAX_PADDED_INDEX}")
    container.extend([None] * (index + 1 - len(container)))
    container[index] = value


FieldUpdate: TypeAlias = Callable[[Target, datetime], None]
Compiler: TypeAlias = Callable[[str, Any, Context], FieldUpdate]


def compile_field_update(operator: str, path: str, argument: Any, context: Context) -> FieldUpdate:
    """Compiles one operator for one path.

    Raises:
        QuerySyntaxError: the argument is wrong.
    """
    return FIELD_OPERATORS[operator](path, argument, context)


def _set(_path: str, argument: Any, _context: Context) -> FieldUpdate:
    return lambda target, _now: target.set(copy_value(argument))


def _unset(_path: str, _argument: Any, _context: Context) -> FieldUpdate:
    return lambda target, _now: target.unset()


def _arithmetic(operator: str, combine: Callable[[Any, Any], Any]) -> Compiler:
    def compile_it(path: str, argument: Any, _context: Context) -> FieldUpdate:
        if not is_number(argument):
            raise QuerySyntaxError(f"{operator} of {path!r} needs a number, not {type_name(argument)}")

        def apply(target: Target, _now: datetime) -> None:
            value = target.get()
            if value is MISSING:
                target.set(argument if operator == "$inc" else multiply(argument, 0))
                return
            if not is_number(value):
                raise QueryError(f"{operator} needs a number at {target.path!r}, which is {type_name(value)}")
            result = combine(value, argument)
            if isinstance(result, float) and is_int(value) and is_int(argument):
                raise QueryError(f"{operator} of {target.path!r} leaves the 64 bits of a whole number")
            target.set(result)

        return apply

    return compile_it


def _bound(is_better: Callable[[Any, Any], bool]) -> Compiler:
    def compile_it(_path: str, argument: Any, _context: Context) -> FieldUpdate:
        key = sort_key(argument)

        def apply(target: Target, _now: datetime) -> None:
            value = target.get()
            if value is MISSING or is_better(key, sort_key(value)):
                target.set(copy_value(argument))

        return apply

    return compile_it


def _rename(path: str, argument: Any, _context: Context) -> FieldUpdate:
    new_parts = checked_parts(argument, "$rename")
    if any(part.startswith("$") for part in (*path.split("."), *new_parts)):
        raise QuerySyntaxError("$rename cannot use positional operators")

    def apply(target: Target, _now: datetime) -> None:
        value = target.get()
        for parts in (target.parts, new_parts):
            if any(isinstance(read_exact(target.document, parts[:length]), list) for length in range(1, len(parts))):
                raise QueryError(f"$rename cannot reach into the array on the way to {'.'.join(parts)!r}")
        if value is not MISSING:
            target.unset()
            Target(target.document, new_parts).set(value)

    return apply


def _current_date(path: str, argument: Any, _context: Context) -> FieldUpdate:
    kind = argument.get("$type") if isinstance(argument, Mapping) else "date" if isinstance(argument, bool) else None
    if kind == "date":
        return lambda target, now: target.set(now.replace(microsecond=now.microsecond // 1000 * 1000))
    if kind == "timestamp":
        return lambda target, now: target.set(Timestamp(now, 1))
    raise QuerySyntaxError(f"$currentDate of {path!r} needs true, {{$type: 'date'}} or {{$type: 'timestamp'}}")


def _bit(path: str, argument: Any, _context: Context) -> FieldUpdate:
    operations: dict[str, Callable[[int, int], int]] = {"and": int.__and__, "or": int.__or__, "xor": int.__xor__}
    if not isinstance(argument, Mapping) or not argument:
        raise QuerySyntaxError(f"$bit of {path!r} needs and, or or xor")
    for name, number in argument.items():
        if name not in operations or not is_int(number):
            raise QuerySyntaxError(f"$bit of {path!r} needs and, or or xor with a whole number, not {name!r}")

    def apply(target: Target, _now: datetime) -> None:
        value = target.get()
        result = 0 if value is MISSING else value
        if not is_int(result):
            raise QueryError(f"$bit needs a whole number at {target.path!r}, which is {type_name(value)}")
        is_long = isinstance(result, Int64)
        for name, number in argument.items():
            is_long = is_long or isinstance(number, Int64)
            result = operations[name](int(result), int(number))
        target.set(Int64(result) if is_long else result)

    return apply


# Arrays


def _push(path: str, argument: Any, _context: Context) -> FieldUpdate:
    items, modifiers = _read_each(path, argument, "$push", ("$position", "$sort", "$slice"))
    position = _whole(modifiers.get("$position"), "$position")
    slice_to = _whole(modifiers.get("$slice"), "$slice")
    arrange = _compile_sort(path, modifiers["$sort"]) if "$sort" in modifiers else None

    def apply(target: Target, _now: datetime) -> None:
        array = target.get_array("$push")
        if array is None:
            array = []
            target.set(array)
        at = len(array) if position is None else position
        array[at:at] = copy_value(items)
        if arrange is not None:
            arrange(array)
        if slice_to is not None:
            array[:] = array[slice_to:] if slice_to < 0 else array[:slice_to]
        if len(array) > MAX_ARRAY_ELEMENTS:
            raise LimitError(f"the array {target.path!r} would have more than {MAX_ARRAY_ELEMENTS} elements")

    return apply


def _read_each(
    path: str, argument: Any, operator: str, allowed: tuple[str, ...]
) -> tuple[list[Any], Mapping[str, Any]]:
    if not isinstance(argument, Mapping) or "$each" not in argument:
        return [argument], {}
    if not isinstance(argument["$each"], list):
        raise QuerySyntaxError(f"$each of {operator} on {path!r} needs an array")
    for name in argument:
        if name != "$each" and name not in allowed:
            raise QuerySyntaxError(f"{operator} on {path!r} does not know {name!r}")
    return argument["$each"], argument


def _whole(number: Any, name: str) -> int | None:
    if number is None:
        return None
    if not is_int(number) and not (isinstance(number, float) and number.is_integer()):
        raise QuerySyntaxError(f"{name} needs a whole number")
    return int(number)


def _compile_sort(path: str, spec: Any) -> Callable[[list[Any]], None]:
    if isinstance(spec, Mapping):
        key = sort_key_function(read_sort(spec))
        return lambda array: array.sort(key=lambda item: key(item if isinstance(item, dict) else {}))
    if is_number(spec) and spec in (1, -1):
        return lambda array: array.sort(key=sort_key, reverse=spec == -1)
    raise QuerySyntaxError(f"$sort of $push on {path!r} needs 1, -1 or an object of fields")


def _add_to_set(path: str, argument: Any, _context: Context) -> FieldUpdate:
    items, _ = _read_each(path, argument, "$addToSet", ())

    def apply(target: Target, _now: datetime) -> None:
        array = target.get_array("$addToSet")
        if array is None:
            array = []
            target.set(array)
        known = {sort_key(element) for element in array}
        for item in items:
            key = sort_key(item)
            if key not in known:
                known.add(key)
                array.append(copy_value(item))

    return apply


def _pull(_path: str, argument: Any, context: Context) -> FieldUpdate:
    if isinstance(argument, Mapping) and not has_operators(argument):
        matches_object = compile_filter(argument, context)
        return _removing("$pull", lambda element: isinstance(element, dict) and matches_object(element))
    if isinstance(argument, Mapping) or is_regex(argument):
        return _removing("$pull", at_value(compile_condition("$pull", argument, context)))
    return _removing("$pull", lambda element: equal(element, argument))


def _pull_all(path: str, argument: Any, _context: Context) -> FieldUpdate:
    if not isinstance(argument, list):
        raise QuerySyntaxError(f"$pullAll of {path!r} needs an array")
    keys = frozenset(map(sort_key, argument))
    return _removing("$pullAll", lambda element: sort_key(element) in keys)


def _removing(operator: str, is_removed: Callable[[Any], bool]) -> FieldUpdate:
    def apply(target: Target, _now: datetime) -> None:
        array = target.get_array(operator)
        if array is not None:
            array[:] = [element for element in array if not is_removed(element)]

    return apply


def _pop(path: str, argument: Any, _context: Context) -> FieldUpdate:
    if not is_number(argument) or argument not in (1, -1):
        raise QuerySyntaxError(f"$pop of {path!r} needs 1 (last) or -1 (first)")

    def apply(target: Target, _now: datetime) -> None:
        array = target.get_array("$pop")
        if array:
            array.pop(-1 if argument == 1 else 0)

    return apply


FIELD_OPERATORS: dict[str, Compiler] = {
    "$set": _set,
    "$setOnInsert": _set,
    "$unset": _unset,
    "$inc": _arithmetic("$inc", add),
    "$mul": _arithmetic("$mul", multiply),
    "$min": _bound(lambda new, old: new < old),
    "$max": _bound(lambda new, old: new > old),
    "$rename": _rename,
    "$currentDate": _current_date,
    "$bit": _bit,
    "$push": _push,
    "$addToSet": _add_to_set,
    "$pull": _pull,
    "$pullAll": _pull_all,
    "$pop": _pop,
}
