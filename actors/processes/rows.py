"""Rows of a file to load as instances of an ontology: CSV, JSON (an array, or an instance a line) and Excel."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from actors.processes.definitions import LoadFormat
from actors.processes.sheets import read_sheet
from sib.errors import InvalidInstanceError
from sib.ontology import Ontology
from storage.bdh.columns import BOOLEAN, DATE, INTEGER, NUMBER, STRING, Array, Column, Scalar, Struct, layout_of

JSON_BYTES_MAX = 256 << 20
"""An array is read as a whole; an instance a line has no bound."""
LINE_CHARS_MAX = 4 << 20
SAMPLE_CHARS = 64 << 10
DELIMITERS = ",;\t|"
_TRUE, _FALSE = ("true", "1", "yes", "sí", "si", "verdadero"), ("false", "0", "no", "falso")
_DATE_FORMATS = ("%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%Y")


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row: its number from 1, and the instance (or text) that it means. ``error``: it means none."""

    number: int
    instance: dict[str, Any] | str
    error: str = ""


def read_rows(path: Path, format_: LoadFormat, ontology: Ontology) -> Iterator[FileRow]:
    """The rows of a file. Tables begin with a row of names: columns as in SQL, ``measure`` or ``Sensor.measure``.

    Raises:
        UnknownFieldError: a column is no field of the ontology.
        InvalidInstanceError: the file cannot be read as this format.
        OSError: the file cannot be read.
    """
    if format_ is LoadFormat.JSON:
        yield from _json_rows(path)
    elif format_ is LoadFormat.CSV:
        yield from _table_rows(_csv_rows(path), ontology)
    else:
        yield from _table_rows(read_sheet(path), ontology)


# ---------------------------------------------------------------------- JSON


def _json_rows(path: Path) -> Iterator[FileRow]:
    with path.open(encoding="utf-8-sig", errors="strict") as file:
        try:
            begin = _first_character(file.read(SAMPLE_CHARS))
            file.seek(0)
            if begin == "[":
                yield from _array_rows(path)
                return
            number = 0
            while line := file.readline(LINE_CHARS_MAX):
                if len(line) >= LINE_CHARS_MAX:
                    raise InvalidInstanceError(f"A line has more than {LINE_CHARS_MAX} characters.")
                if line.strip():
                    number += 1
                    yield FileRow(number, line.strip())
        except UnicodeDecodeError as error:
            raise InvalidInstanceError(f"The file is no UTF-8 text (byte {error.start}): save it as UTF-8.") from None


def _array_rows(path: Path) -> Iterator[FileRow]:
    if path.stat().st_size > JSON_BYTES_MAX:
        raise InvalidInstanceError(
            f"An array of more than {JSON_BYTES_MAX >> 20} MiB is too large: write one instance a line."
        )
    try:
        items = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InvalidInstanceError(f"The file is no JSON: {error}.") from None
    for number, item in enumerate(items, 1):
        is_instance = isinstance(item, dict)
        yield FileRow(number, item if is_instance else json.dumps(item), "" if is_instance else "it is no JSON object")


def _first_character(text: str) -> str:
    return text.lstrip()[:1]


# ---------------------------------------------------------------------- tables


def _csv_rows(path: Path) -> Iterator[list[Any]]:
    encoding = "utf-8-sig" if _is_utf8(path) else "cp1252"  # what spreadsheets in Western Europe write
    with path.open(encoding=encoding, errors="replace", newline="") as file:
        delimiter = _delimiter_of(file.readline(SAMPLE_CHARS))
        file.seek(0)
        try:
            yield from csv.reader(file, delimiter=delimiter)
        except csv.Error as error:
            raise InvalidInstanceError(f"The file is no CSV that can be read: {error}.") from None


def _delimiter_of(header: str) -> str:
    return max(DELIMITERS, key=header.count)


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                decoder.decode(part)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _table_rows(rows: Iterator[list[Any]], ontology: Ontology) -> Iterator[FileRow]:
    header = next(rows, None)
    while header is not None and not any(_is_given(value) for value in header):
        header = next(rows, None)
    if header is None:
        raise InvalidInstanceError("The file is empty: its first row names the columns.")
    columns = _columns(header, ontology)
    number = 0
    for row in rows:
        if not any(_is_given(value) for value in row):
            continue
        number += 1
        error = "it has more values than there are columns" if any(map(_is_given, row[len(columns) :])) else ""
        yield FileRow(number, _instance(columns, row), error)


@dataclass(frozen=True, slots=True)
class _TableColumn:
    path: tuple[str, ...]
    read: Callable[[Any], Any]


def _columns(header: Sequence[Any], ontology: Ontology) -> list[_TableColumn | None]:
    """What each column means; one without a name is left out.

    Raises:
        UnknownFieldError: a name is no field. InvalidInstanceError: two mean the same.
    """
    fields: Column = layout_of(ontology).fields
    columns: list[_TableColumn | None] = []
    for name in header:
        if not _is_given(name):
            columns.append(None)
            continue
        path = tuple(ontology.resolve_column(str(name).strip()).split("."))
        path = path[:-1] if path[-1] == "$date" else path
        if any(column is not None and column.path == path for column in columns):
            raise InvalidInstanceError(f"The column {name!r} stands twice.")
        columns.append(_TableColumn(path, _reader(_column_at(fields, path))))
    return columns


def _column_at(column: Column | None, path: tuple[str, ...]) -> Column | None:
    for name in path:
        column = dict(column.fields).get(name) if isinstance(column, Struct) else None
    return column


def _instance(columns: Sequence[_TableColumn | None], row: Sequence[Any]) -> dict[str, Any]:
    instance: dict[str, Any] = {}
    for column, value in zip(columns, row, strict=False):
        if column is None or not _is_given(value):
            continue
        inner = instance
        for name in column.path[:-1]:
            found = inner.setdefault(name, {})
            if not isinstance(found, dict):
                found = inner[name] = {}
            inner = found
        inner[column.path[-1]] = column.read(value)
    return instance


def _is_given(value: Any) -> bool:
    return value is not None and (not isinstance(value, str) or bool(value.strip()))


def _reader(column: Column | None) -> Callable[[Any], Any]:
    """Reads a cell as what the schema says; what it is not stays as it is, and the ontology refuses it by its name."""
    if isinstance(column, Scalar):
        return {
            STRING: _read_text,
            INTEGER: _read_integer,
            NUMBER: _read_number,
            BOOLEAN: _read_flag,
            DATE: _read_date,
        }.get(column.kind, _read_any)
    return _read_json if isinstance(column, Array | Struct) else _read_any


def _read_text(value: Any) -> Any:
    if isinstance(value, datetime):
        return _iso(value)
    return value.strip() if isinstance(value, str) else json.dumps(value)


def _read_integer(value: Any) -> Any:
    try:
        return int(value.strip()) if isinstance(value, str) else value
    except ValueError:
        return value


def _read_number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    try:
        return float(text) if not text.lstrip("+-").isdecimal() else int(text)
    except ValueError:
        return value


def _read_flag(value: Any) -> Any:
    text = str(value).strip().lower()
    return True if text in _TRUE else False if text in _FALSE else value


def _read_date(value: Any) -> Any:
    if isinstance(value, datetime):
        return {"$date": _iso(value)}
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("{"):
        return _read_json(text)
    for format_ in _DATE_FORMATS:
        try:
            return {"$date": _iso(datetime.strptime(text, format_))}
        except ValueError:
            continue
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return value
    return {"$date": _iso(moment) if moment.tzinfo is None else moment.isoformat(timespec="milliseconds")}


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds") + "Z"


def _read_json(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _read_any(value: Any) -> Any:
    """A cell of a field whose type the schema leaves open: a number, a flag or JSON if it looks so, else a text."""
    if isinstance(value, datetime):
        return {"$date": _iso(value)}
    if not isinstance(value, str):
        return value
    text = value.strip()
    return _read_json(text) if text[:1] in "{[-0123456789tfn" else text
