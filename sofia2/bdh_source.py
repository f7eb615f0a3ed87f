"""History as a source of Ray Data: each task reads some files through DuckDB, with the filters inside the files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from storage.bdc.records import HistoryFileRecord
from storage.bdh.intervals import EVER
from storage.bdh.layout import path_of
from storage.bdh.reader import FileReader

TASK_BYTES = 64 << 20
"""Parquet bytes of one task; a larger file is a task of its own."""
EXPANSION = 5
"""How much larger rows are in memory than in a file, about."""


class HistorySource(Datasource):  # type: ignore[misc]
    """The given files of one ontology."""

    def __init__(self, reader: FileReader, files: Sequence[HistoryFileRecord], schema: pa.Schema) -> None:
        super().__init__()
        self._reader = reader
        self._files = list(files)
        self._schema = schema

    def get_name(self) -> str:
        return f"History({self._reader.ontology.name})"

    def estimate_inmemory_data_size(self) -> int | None:
        return EXPANSION * sum(file.size_bytes for file in self._files)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        total_bytes = sum(file.size_bytes for file in self._files)
        task_bytes = min(TASK_BYTES, total_bytes // max(1, parallelism) + 1)
        return [self._task(group, per_task_row_limit) for group in _groups(self._files, task_bytes)]

    def _task(self, files: list[HistoryFileRecord], row_limit: int | None) -> ReadTask:
        reader = self._reader

        def read() -> Iterable[pa.Table]:
            yield reader.read(files)

        is_filtered = reader.where is not None or reader.needed != EVER or any(file.stale_rows for file in files)
        metadata = BlockMetadata(
            num_rows=None if is_filtered else sum(file.n_rows for file in files),
            size_bytes=EXPANSION * sum(file.size_bytes for file in files),
            exec_stats=None,
            input_files=tuple(path_of(file.ontology, file.day, file.name) for file in files),
        )
        return ReadTask(read, metadata, schema=self._schema, per_task_row_limit=row_limit)


def _groups(files: Sequence[HistoryFileRecord], task_bytes: int) -> Iterable[list[HistoryFileRecord]]:
    group: list[HistoryFileRecord] = []
    size_bytes = 0
    for file in files:
        if group and size_bytes + file.size_bytes > task_bytes:
            yield group
            group, size_bytes = [], 0
        group.append(file)
        size_bytes += file.size_bytes
    if group:
        yield group
