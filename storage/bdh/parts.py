"""One Parquet file of the history: written whole, read by its footer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.bdh import layout
from storage.bdh.adapter import RangeFile
from storage.bdh.columns import Layout
from storage.bdh.files import HistoryFiles
from storage.bdh.fitting import to_table

ROW_GROUP_ROWS = 131_072
COMPRESSION, COMPRESSION_LEVEL = "zstd", 3


@dataclass(frozen=True, slots=True)
class PartInfo:
    """What the footer of a file says."""

    n_rows: int
    size_bytes: int
    schema: pa.Schema


def encode(table: pa.Table) -> memoryview:
    """A table as the bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, compression=COMPRESSION, compression_level=COMPRESSION_LEVEL, row_group_size=ROW_GROUP_ROWS
    )
    return memoryview(sink.getvalue())


def write_documents(
    files: HistoryFiles, ontology: str, day: date, name: str, documents: Sequence[dict[str, Any]], columns: Layout
) -> int:
    """Write stored documents as one file; returns its size in bytes.

    Raises:
        PartExistsError: there is a file of this name; it is as it was.
    """
    return write_table(files, ontology, day, name, to_table(documents, columns))


def write_table(files: HistoryFiles, ontology: str, day: date, name: str, table: pa.Table) -> int:
    """As ``write_documents`` for a table."""
    data = encode(table)
    files.put(layout.path_of(ontology, day, name), layout.tmp_path_of(ontology, day, name), data)
    return len(data)


def read_table(files: HistoryFiles, path: str) -> pa.Table:
    """The rows of a file. Raises PartMissingError."""
    return pq.read_table(pa.BufferReader(files.read(path)))


def inspect(files: HistoryFiles, path: str) -> PartInfo | None:
    """What a file is; None if it is no whole Parquet file. Raises PartMissingError."""
    with io.BufferedReader(RangeFile(files, path)) as file:
        try:
            metadata = pq.read_metadata(file)
        except (pa.ArrowInvalid, pa.ArrowException):
            return None
        return PartInfo(metadata.num_rows, file.raw.size, metadata.schema.to_arrow_schema())
