"""Compaction: the many small files of a closed day become few, and rows that do not count are left out.

The new file is written under a name made of its inputs, so a repeated attempt finds it; then one transaction of the manifest
lets it stand for the old ones. These stay for ``RETIRED_KEPT_S``, for queries that read the manifest before, and are then
deleted. What a crash left behind is found by ``unknown.UnknownFiles``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from storage.bdc.history import HistoryManifest
from storage.bdc.records import HistoryFileRecord
from storage.bdh import layout, parts
from storage.bdh.files import HistoryFiles, PartExistsError, PartMissingError

MEMORY_BYTES_MAX = 256 << 20
"""Bytes in memory of the rows that become one file; about three times as much is in use while they are sorted and written."""
EXPANSION = 8
"""How much larger a file is in memory than its pages, at worst, if it does not say so itself (of an older version)."""
RETIRED_KEPT_S = 900.0
"""How long a replaced file stays: longer than a query may take, and than a Ray Dataset is usually read."""


@dataclass(slots=True)
class CompactionResult:
    """What one run did. ``failures``: why some days stayed as they are: a file is missing or damaged."""

    n_days: int = 0
    n_old: int = 0
    n_new: int = 0
    n_deleted: int = 0
    failures: list[str] = field(default_factory=list)


class Compaction:
    """Compacts the history of one ontology. Under the lock of its transfer, after ``Transfer.resume``."""

    def __init__(
        self,
        ontology: str,
        files: HistoryFiles,
        manifest: HistoryManifest,
        *,
        now: Callable[[], datetime],
        memory_bytes_max: int = MEMORY_BYTES_MAX,
    ) -> None:
        self._ontology = ontology
        self._files = files
        self._manifest = manifest
        self._now = now
        self._memory_bytes_max = memory_bytes_max

    def run(
        self, *, should_stop: Callable[[], bool] = lambda: False, progress: Callable[[date], None] = lambda _: None
    ) -> CompactionResult:
        """Compact all days before today (UTC), and delete files that were replaced long enough ago.

        Raises:
            StoreUnavailableError: a database or file system does not answer; run it again, nothing is lost.
        """
        result = CompactionResult()
        records = self._manifest.files(self._ontology, until=self._now().date() - timedelta(days=1))
        for day, group in groupby(records, key=lambda record: record.day):
            if should_stop():
                break
            is_changed = False
            try:
                for batch in self._batches(list(group)):
                    self._compact(day, batch, result)
                    is_changed = True
            except (PartMissingError, parts.LostPartError, parts.DamagedPartError) as error:
                result.failures.append(error.message)
            result.n_days += is_changed
            progress(day)
        result.n_deleted += self.delete_retired()
        return result

    def delete_retired(self) -> int:
        """Delete files that others have replaced long enough ago; returns how many."""
        retired = self._manifest.retired(self._ontology, self._now() - timedelta(seconds=RETIRED_KEPT_S))
        for record in retired:
            self._files.delete(layout.record_path(record))
        if retired:
            self._manifest.forget(retired)
        return len(retired)

    def _batches(self, records: Sequence[HistoryFileRecord]) -> Iterator[list[HistoryFileRecord]]:
        """Files of a day that become one: of the same columns, and small enough together."""
        ordered = sorted(records, key=lambda record: (record.layout, record.name))
        for _, group in groupby(ordered, key=lambda record: record.layout):
            members = list(group)
            if not _is_worth(members):
                continue
            batch: list[HistoryFileRecord] = []
            batch_bytes = 0
            for record in members:
                memory_bytes = self._memory_bytes(record)
                if batch_bytes + memory_bytes > self._memory_bytes_max:
                    if _is_worth(batch):
                        yield batch
                    batch, batch_bytes = [], 0
                if memory_bytes <= self._memory_bytes_max:  # a larger one stays as it is
                    batch.append(record)
                    batch_bytes += memory_bytes
            if _is_worth(batch):
                yield batch

    def _memory_bytes(self, record: HistoryFileRecord) -> int:
        info = parts.inspected(self._files, layout.record_path(record))
        return info.memory_bytes or EXPANSION * info.page_bytes

    def _compact(self, day: date, batch: list[HistoryFileRecord], result: CompactionResult) -> None:
        table = pa.concat_tables(
            [_counting(parts.read_table(self._files, layout.record_path(record)), record) for record in batch]
        )
        new: list[HistoryFileRecord] = []
        if table.num_rows:
            name = _name_of(batch)
            path = layout.path_of(self._ontology, day, name)
            ordered = _by_time(table)
            try:
                size_bytes = parts.write_table(self._files, self._ontology, day, name, ordered)
            except PartExistsError:
                info = parts.inspect(self._files, path)  # of an attempt that a crash ended
                if info is None or info.n_rows != table.num_rows:
                    self._files.delete(path)
                    size_bytes = parts.write_table(self._files, self._ontology, day, name, ordered)
                else:
                    size_bytes = info.size_bytes
            new = [_compacted(batch, name, table.num_rows, size_bytes)]
        self._manifest.replace(batch, new)
        result.n_old += len(batch)
        result.n_new += len(new)


def _is_worth(batch: Sequence[HistoryFileRecord]) -> bool:
    return len(batch) > 1 or any(record.stale_rows for record in batch)


def _counting(table: pa.Table, record: HistoryFileRecord) -> pa.Table:
    if not record.stale_rows:
        return table
    stale = set(record.stale_rows)
    return table.filter(pa.array([row not in stale for row in range(table.num_rows)]))


def _by_time(table: pa.Table) -> pa.Table:
    """In the order of time, so that row groups can be left out by their statistics."""
    order = pc.sort_indices(pa.table({"at": parts.times_of(table)}), sort_keys=[("at", "ascending")])
    return table.take(order)


def _name_of(batch: Sequence[HistoryFileRecord]) -> str:
    inputs = "\n".join(f"{record.name} {sorted(record.stale_rows)}" for record in batch)
    digest = hashlib.blake2b(inputs.encode(), digest_size=5).hexdigest()
    first = batch[0].name.removeprefix("part-").split("-")[0]
    last = max(record.name.removeprefix("part-").removesuffix(".parquet").split("-")[1] for record in batch)
    return layout.part_name(first, last, digest)


def _compacted(batch: Sequence[HistoryFileRecord], name: str, n_rows: int, size_bytes: int) -> HistoryFileRecord:
    firsts = [record.first_at for record in batch if record.first_at is not None]
    lasts = [record.last_at for record in batch if record.last_at is not None]
    is_complete = all(record.first_at is not None for record in batch)
    return replace(
        batch[0],
        name=name,
        n_rows=n_rows,
        size_bytes=size_bytes,
        first_at=min(firsts) if is_complete and firsts else None,
        last_at=max(lasts) if is_complete and lasts else None,
        stale_rows=(),
    )
