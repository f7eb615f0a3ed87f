"""The SELECT that reads files of the history as one table, whatever columns each was written with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import pyarrow as pa

from storage.bdc.records import HistoryFileRecord
from storage.bdh import layout
from storage.bdh.columns import Layout, fingerprint
from storage.bdh.files import HistoryFiles

SchemaOf = Callable[[HistoryFileRecord], pa.Schema]
"""Gives the columns of a file; asked once for each set of columns that differs from the present one."""


def scan(records: Sequence[HistoryFileRecord], columns: Layout, files: HistoryFiles, schema_of: SchemaOf) -> str:
    """The SELECT of all rows that count, with the present columns of the ontology and ``fecha``."""
    wanted = columns.arrow()
    present = fingerprint(wanted)
    parts = list(_parts(records, wanted, present, files, schema_of))
    return " UNION ALL ".join(parts) if parts else nothing(wanted)


def nothing(wanted: pa.Schema) -> str:
    """A SELECT with these columns and no rows."""
    items = [f"CAST(NULL AS {duckdb_type(field.type)}) AS {quote(field.name)}" for field in wanted]
    return f"SELECT {', '.join(items)}, CAST(NULL AS DATE) AS {layout.DAY_COLUMN} WHERE false"


def _parts(
    records: Sequence[HistoryFileRecord], wanted: pa.Schema, present: str, files: HistoryFiles, schema_of: SchemaOf
) -> Iterator[str]:
    ordered = sorted(records, key=lambda record: (record.layout, bool(record.stale_rows)))
    for (name, has_stale), group in groupby(ordered, key=lambda record: (record.layout, bool(record.stale_rows))):
        members = sorted(group, key=lambda record: (record.day, record.name))
        select = _select(wanted, wanted if name == present else schema_of(members[0]))
        if not has_stale:
            yield f"SELECT {select} FROM {_read(members, files)}"
            continue
        for record in members:
            stale = ", ".join(map(str, record.stale_rows))
            yield f"SELECT {select} FROM {_read([record], files, True)} WHERE file_row_number NOT IN ({stale})"


def _read(records: Sequence[HistoryFileRecord], files: HistoryFiles, with_numbers: bool = False) -> str:
    paths = ", ".join(literal(files.duckdb_path(layout.record_path(record))) for record in records)
    numbers = ", file_row_number = true" if with_numbers else ""
    day = f"hive_types = {{'{layout.DAY_COLUMN}': DATE}}"
    return f"read_parquet([{paths}], hive_partitioning = true, {day}{numbers})"


def _select(wanted: pa.Schema, given: pa.Schema) -> str:
    items = []
    for field in wanted:
        at = given.get_field_index(field.name)
        if at < 0:
            items.append(f"CAST(NULL AS {duckdb_type(field.type)}) AS {quote(field.name)}")
            continue
        items.append(f"{_converted(quote(field.name), given.field(at).type, field.type)} AS {quote(field.name)}")
    return ", ".join([*items, layout.DAY_COLUMN])


def _converted(value: str, given: pa.DataType, wanted: pa.DataType) -> str:
    """A value of one version's type as the present type; what does not fit is NULL."""
    if given == wanted:
        return value
    if pa.types.is_struct(given) and pa.types.is_struct(wanted):
        inner = []
        for field in wanted:
            at = given.get_field_index(field.name)
            name = quote(field.name)
            if at < 0:
                inner.append(f"{name} := CAST(NULL AS {duckdb_type(field.type)})")
            else:
                inner.append(f"{name} := {_converted(f'{value}.{name}', given.field(at).type, field.type)}")
        return f"CASE WHEN {value} IS NULL THEN NULL ELSE struct_pack({', '.join(inner)}) END"
    if pa.types.is_struct(given) or pa.types.is_struct(wanted):
        return f"CAST(NULL AS {duckdb_type(wanted)})"
    return f"TRY_CAST({value} AS {duckdb_type(wanted)})"


def duckdb_type(type_: pa.DataType) -> str:
    """DuckDB's name of a type of our columns."""
    if pa.types.is_struct(type_):
        return "STRUCT(" + ", ".join(f"{quote(field.name)} {duckdb_type(field.type)}" for field in type_) + ")"
    if pa.types.is_list(type_):
        return f"{duckdb_type(type_.value_type)}[]"
    if pa.types.is_timestamp(type_):
        return "TIMESTAMP_MS"
    return {"string": "VARCHAR", "int64": "BIGINT", "double": "DOUBLE", "bool": "BOOLEAN"}[str(type_)]


def quote(name: str) -> str:
    """A name in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string in single quotes."""
    return "'" + text.replace("'", "''") + "'"
