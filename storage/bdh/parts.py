"""One Parquet file of the history: written whole, read by its footer."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sib.errors import StoreError
from storage.bdh import layout
from storage.bdh.adapter import RangeFile
from storage.bdh.columns import CONTEXT, Layout
from storage.bdh.files import HistoryFiles, PartMissingError
from storage.bdh.fitting import to_table

ROW_GROUP_ROWS = 131_072
MEMORY_BYTES = b"sofia2.memory_bytes"
"""Where a footer says how large its rows are in memory: strings that come again are one in the file, and many there."""
COMPRESSION, COMPRESSION_LEVEL = "zstd", 3


class DamagedPartError(StoreError):
    """A file is no whole Parquet file (any more)."""

    code = "history.damaged"

    def __init__(self, path: str) -> None:
        super().__init__(f"The file {path!r} of the history is damaged: restore it from a backup.")


class LostPartError(StoreError):
    """The manifest names a file that is not there."""

    code = "history.lost"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"The history lacks the file {path!r}, which its manifest names: restore it from a backup, or see "
            "'sofia2 process adopt'."
        )


@dataclass(frozen=True, slots=True)
class PartInfo:
    """What the footer of a file says.

    ``page_bytes``: its pages before compression. ``memory_bytes``: its rows as a table; 0 if it does not say.
    """

    n_rows: int
    size_bytes: int
    schema: pa.Schema
    page_bytes: int = 0
    memory_bytes: int = 0


def encode(table: pa.Table) -> memoryview:
    """A table as the bytes of a Parquet file."""
    table = table.replace_schema_metadata({MEMORY_BYTES: str(table.nbytes)})
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


def read_table(files: HistoryFiles, path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a file, with all of its columns or some.

    Raises:
        PartMissingError: there is no such file. DamagedPartError: it cannot be decoded.
    """
    data = files.read(path)
    with _decoding(path):
        return pq.read_table(pa.BufferReader(data), columns=None if columns is None else list(columns))


def inspect(files: HistoryFiles, path: str) -> PartInfo | None:
    """What a file is; None if it is no whole Parquet file. Raises PartMissingError."""
    with io.BufferedReader(RangeFile(files, path)) as file:
        try:
            with _decoding(path):
                metadata = pq.read_metadata(file)
                pages = (metadata.row_group(at).total_byte_size for at in range(metadata.num_row_groups))
                schema = metadata.schema.to_arrow_schema()
                memory_bytes = int((schema.metadata or {}).get(MEMORY_BYTES, 0))
                return PartInfo(metadata.num_rows, file.raw.size, schema, sum(pages), memory_bytes)
        except DamagedPartError:
            return None


def check(files: HistoryFiles, paths: Iterable[str]) -> None:
    """Look for the file that kept a query from being carried out.

    Raises:
        LostPartError, DamagedPartError: it is not there, or its footer cannot be read.
    """
    for path in paths:
        inspected(files, path)


def inspected(files: HistoryFiles, path: str) -> PartInfo:
    """What a file is that the manifest names. Raises LostPartError, DamagedPartError."""
    try:
        info = inspect(files, path)
    except PartMissingError:
        raise LostPartError(path) from None
    if info is None:
        raise DamagedPartError(path)
    return info


def times_of(table: pa.Table) -> pa.ChunkedArray:
    """When its instances were inserted; null where ``contextData.timestamp`` is."""
    return pc.struct_field(table.column(CONTEXT), "timestamp")


@contextmanager
def _decoding(path: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:  # pyarrow says OSError of broken pages
        raise DamagedPartError(path) from error
