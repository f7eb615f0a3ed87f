"""From stored documents to Arrow columns and back, exactly.

Values that a column cannot keep (another type, an undeclared field, an explicit null, a number out of range) go to
``_raw``: a JSON object in extended JSON that holds them at their own paths, lists as a whole. ``restore`` puts both
together again. Columns are built column by column: a batch whose values fit costs no Python per value but the lookup.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

import orjson
import pyarrow as pa
from bson import Int64, ObjectId, json_util

from storage.bdh.columns import (
    BOOLEAN,
    CONTEXT,
    CONTEXT_COLUMNS,
    DATE,
    ID,
    INTEGER,
    NUMBER,
    OBJECT_ID,
    RAW,
    STRING,
    Array,
    Column,
    Layout,
    Scalar,
    Struct,
)

_OPTIONS = json_util.JSONOptions(json_mode=json_util.JSONMode.RELAXED, tz_aware=False)
_NONE = type(None)
_PLAIN: dict[str, frozenset[type]] = {
    STRING: frozenset({str, _NONE}),
    INTEGER: frozenset({int, Int64, _NONE}),
    NUMBER: frozenset({float, _NONE}),
    BOOLEAN: frozenset({bool, _NONE}),
    DATE: frozenset({datetime, _NONE}),
    OBJECT_ID: frozenset(),
}
_EXACT_MAX = 2**53
_INT64 = range(-(2**63), 2**63)

Misfit = Callable[[int, tuple[str, ...], Any], None]
"""Takes (row, path, value) of what does not fit."""


def to_table(documents: Sequence[dict[str, Any]], layout: Layout) -> pa.Table:
    """A table of stored documents. Never fails because of their values."""
    raws: dict[int, dict[str, Any]] = {}

    def note(row: int, path: tuple[str, ...], value: Any) -> None:
        target = raws.setdefault(row, {})
        for name in path[:-1]:
            inner = target.setdefault(name, {})
            if not isinstance(inner, dict):  # a part of what is there as a whole already
                return
            target = inner
        target[path[-1]] = value

    whole = Struct(((CONTEXT, CONTEXT_COLUMNS), *layout.fields.fields))
    ids = pa.array([_id_text(document.get(ID), row, note) for row, document in enumerate(documents)], pa.string())
    fields = _children(list(documents), whole, (), note, besides=ID)
    raw = [_print(raws[row]) if row in raws else None for row in range(len(documents))] if raws else None
    arrays = [ids, *fields, pa.array(raw, pa.string()) if raws else pa.nulls(len(documents), pa.string())]
    return pa.Table.from_arrays(arrays, schema=layout.arrow())


def restore(rows: Iterator[dict[str, Any]], layout: Layout) -> Iterator[dict[str, Any]]:
    """The stored documents of rows (``Table.to_pylist``) of the same layout. The order of keys is the schema's."""
    for row in rows:
        raw = json_util.loads(row[RAW], json_options=_OPTIONS) if row.get(RAW) else {}
        document: dict[str, Any] = {ID: _restore_id(row[ID], raw)}
        for name, column in ((CONTEXT, CONTEXT_COLUMNS), *layout.fields.fields):
            value = _restore(row.get(name), column)
            if value is not None:
                document[name] = value
        yield _merge(document, raw)


# ---------------------------------------------------------------------- into columns


def _id_text(id_: Any, row: int, note: Misfit) -> str | None:
    if type(id_) is ObjectId:
        return str(id_)
    if type(id_) is str and not ObjectId.is_valid(id_):
        return id_
    note(row, (ID,), id_)
    return None if id_ is None else id_ if isinstance(id_, str) else _print(id_).strip('"')


def _build(values: list[Any], column: Column, path: tuple[str, ...], note: Misfit) -> pa.Array:
    if isinstance(column, Scalar):
        return _scalars(values, column.kind, path, note)
    if isinstance(column, Array):
        return _arrays(values, column, path, note)
    return _structs(values, column, path, note)


def _scalars(values: list[Any], kind: str, path: tuple[str, ...], note: Misfit) -> pa.Array:
    scalar = Scalar(kind)
    if _PLAIN[kind].issuperset(set(map(type, values))):
        try:
            return pa.array(values, scalar.arrow())
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
            pass  # a date with a zone, a broken string: value by value
    fitted = []
    for row, value in enumerate(values):
        fit, is_exact = _fit(value, kind)
        if not is_exact:
            note(row, path, value)
        fitted.append(fit)
    return pa.array(fitted, scalar.arrow())


def _fit(value: Any, kind: str) -> tuple[Any, bool]:
    """(what the column keeps, whether that is the value)."""
    if value is None:
        return None, True
    type_ = type(value)
    if kind == NUMBER and type_ in (int, Int64) and abs(value) <= _EXACT_MAX:
        return float(value), True
    if kind == NUMBER and type_ is float:
        return value, True
    if kind == INTEGER and type_ is float and value.is_integer() and abs(value) <= _EXACT_MAX:
        return int(value), True
    if kind == INTEGER and type_ in (int, Int64) and value in _INT64:
        return int(value), True
    if kind == OBJECT_ID and type_ is ObjectId:
        return str(value), True
    if kind == DATE and type_ is datetime and value.tzinfo is None and not value.microsecond % 1000:
        return value, True
    if kind in (STRING, BOOLEAN) and type_ in _PLAIN[kind]:
        return value, kind != STRING or value.isascii() or _is_text(value)
    return None, False


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _structs(values: list[Any], column: Struct, path: tuple[str, ...], note: Misfit) -> pa.Array:
    types = set(map(type, values))
    if types == {dict}:
        children = _children(values, column, path, note)
        return pa.StructArray.from_arrays(children, fields=list(column.arrow()))
    for row, value in enumerate(values):
        if value is not None and not isinstance(value, dict):
            note(row, path, value)
    absent = [not isinstance(value, dict) for value in values]
    dicts = [{} if is_absent else value for is_absent, value in zip(absent, values, strict=True)]
    children = _children(dicts, column, path, note)
    return pa.StructArray.from_arrays(children, fields=list(column.arrow()), mask=pa.array(absent, pa.bool_()))


def _children(
    dicts: list[dict[str, Any]], column: Struct, path: tuple[str, ...], note: Misfit, besides: str | None = None
) -> list[pa.Array]:
    """The columns of the fields; ``besides`` is a field that somebody else takes."""
    arrays = []
    n_found = 0 if besides is None else sum(besides in each for each in dicts)
    for name, child in column.fields:
        values = _values_of(dicts, name)
        n_found += len(values) - values.count(None)
        arrays.append(_build(values, child, (*path, name), note))
    if n_found != sum(map(len, dicts)):
        known = {name for name, _ in column.fields}
        for row, each in enumerate(dicts):
            for name, value in each.items():
                if (name not in known or value is None) and name != besides:
                    note(row, (*path, name), value)
    return arrays


def _values_of(dicts: list[dict[str, Any]], name: str) -> list[Any]:
    try:
        return list(map(itemgetter(name), dicts))  # no byte code for each value
    except KeyError:
        return [each.get(name) for each in dicts]


def _arrays(values: list[Any], column: Array, path: tuple[str, ...], note: Misfit) -> pa.Array:
    lists: list[list[Any] | None] = []
    for row, value in enumerate(values):
        is_list = isinstance(value, list)
        if value is not None and not is_list:
            note(row, path, value)
        lists.append(value if is_list else None)
    sizes = [len(each) if each is not None else 0 for each in lists]
    ends = list(itertools.accumulate(sizes, initial=0))
    owners: list[int] = []

    def note_element(at: int, _path: tuple[str, ...], _value: Any) -> None:
        if not owners:
            owners.extend(row for row, size in enumerate(sizes) for _ in range(size))
        note(owners[at], path, values[owners[at]])  # a list goes to _raw as a whole

    flat = [element for each in lists if each is not None for element in each]
    elements = _build(flat, column.element, (), note_element) if flat else pa.nulls(0, column.element.arrow())
    offsets: list[int | None] = [None if each is None else begin for each, begin in zip(lists, ends[:-1], strict=True)]
    return pa.ListArray.from_arrays(pa.array([*offsets, ends[-1]], pa.int32()), elements, type=column.arrow())


def _print(value: Any) -> str:
    try:
        return orjson.dumps(value, default=_refuse, option=orjson.OPT_PASSTHROUGH_DATETIME).decode()
    except (TypeError, orjson.JSONEncodeError):
        return str(json_util.dumps(value, json_options=_OPTIONS))


def _refuse(value: Any) -> Any:
    raise TypeError(type(value).__name__)


# ---------------------------------------------------------------------- back again


def _restore_id(text: str | None, raw: dict[str, Any]) -> Any:
    if ID in raw:
        return raw.pop(ID)
    return ObjectId(text) if text is not None and ObjectId.is_valid(text) else text


def _restore(value: Any, column: Column) -> Any:
    if value is None:
        return None
    if isinstance(column, Scalar):
        return ObjectId(value) if column.kind == OBJECT_ID else value
    if isinstance(column, Array):
        return [_restore(element, column.element) for element in value]
    found = ((name, _restore(value.get(name), child)) for name, child in column.fields)
    return {name: each for name, each in found if each is not None}


def _merge(document: dict[str, Any], raw: dict[str, Any]) -> dict[str, Any]:
    for name, value in raw.items():
        present = document.get(name)
        if isinstance(present, dict) and isinstance(value, dict):
            _merge(present, value)
        else:
            document[name] = value
    return document
