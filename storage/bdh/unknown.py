"""Files of the history that the manifest does not know: what a crash left, or what an older BDC has forgotten.

A compaction that was killed leaves a file whose instances all lie in files that count: it may go. Any other file that can be
read may hold instances that are nowhere else, because the BDC was restored from a backup that is older than the file: such a
file is kept and counted until somebody adopts it. All under the lock of the ontology's transfer, after ``Transfer.resume``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from bson import json_util

from storage.bdc.history import HistoryManifest
from storage.bdc.records import HistoryFileRecord
from storage.bdh import intervals, layout, parts
from storage.bdh.columns import ID, RAW, Layout, Struct, fingerprint
from storage.bdh.files import Entry, HistoryFiles, PartExistsError
from storage.bdh.fitting import to_table
from storage.bdh.transfer import TransferStore
from storage.bdh.view import filter_of
from storage.bdtr.transfers import State

LEFT_AGE_S = 86_400.0
"""What nobody knows is deleted only when it is older."""
DOCUMENTS_AT_ONCE = 5_000
_ONLY_IDS = Layout(Struct(()), None)
_DAY = f"{layout.DAY_COLUMN}="


@dataclass(slots=True)
class SweepResult:
    """``n_unknown``: files that were kept because their instances are in no file that counts."""

    n_deleted: int = 0
    n_unknown: int = 0


@dataclass(slots=True)
class AdoptResult:
    """``missing``: paths of files that the manifest names and that are not there; ``n_forgotten`` of them it names no more.

    ``damaged``: paths of unknown files that cannot be decoded.
    ``n_double``: rows that were left out because their instances are in another file, or in the real-time database.
    """

    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    n_files: int = 0
    n_adopted: int = 0
    n_double: int = 0
    n_forgotten: int = 0


class UnknownFiles:
    """The files of one ontology that neither the manifest nor the journal of transfers knows."""

    def __init__(
        self,
        ontology: str,
        files: HistoryFiles,
        manifest: HistoryManifest,
        store: TransferStore | None,
        *,
        now: Callable[[], datetime],
    ) -> None:
        """``store`` is the ontology's BDTR, whose journal names the files of transfers under way; None if it has none."""
        self._ontology = ontology
        self._files = files
        self._manifest = manifest
        self._store = store
        self._now = now

    def sweep(self) -> SweepResult:
        """Delete what a crash left a day ago or earlier: half-written files, and those whose instances others have.

        Raises:
            StoreError: a file of the same day is missing or damaged, so that nobody can say who has what.
        """
        before = self._now() - timedelta(seconds=LEFT_AGE_S)
        result = SweepResult()
        tmp = f"{layout.folder_of(self._ontology)}/{layout.TMP}"
        for entry in self._files.entries(tmp):
            if entry.modified_at < before and not entry.is_folder:
                self._files.delete(f"{tmp}/{entry.name}")
                result.n_deleted += 1
        for day, entries in self._unknown():
            known: list[HistoryFileRecord] | None = None
            for entry in entries:
                if entry.modified_at >= before:
                    continue
                known = self._manifest.files(self._ontology, since=day, until=day) if known is None else known
                path = layout.path_of(self._ontology, day, entry.name)
                if self._is_needed(path, known):
                    result.n_unknown += 1
                else:
                    self._files.delete(path)
                    result.n_deleted += 1
        return result

    def adopt(self, *, forget_missing: bool = False) -> AdoptResult:
        """Enter unknown files that can be read into the manifest, each instance once. Idempotent.

        A file that has instances which others have too is written again without them. Nothing is deleted.

        Args:
            forget_missing: the manifest no longer names files that are not there: a compaction has put another file in
                their place, or they are lost.
        """
        records = self._manifest.files(self._ontology)
        lost = [record for record in records if not self._files.exists(layout.record_path(record))]
        result = AdoptResult([layout.record_path(record) for record in lost])
        gone = {record.key for record in lost}
        for day, entries in self._unknown():
            known = [record for record in records if record.day == day and record.key not in gone]
            found = [(entry.name, info) for entry in entries if (info := self._inspected(day, entry)) is not None]
            # What was compacted has more rows than what it stands for: it comes first, and the others are doubles then.
            for name, _ in sorted(found, key=lambda each: (-each[1].n_rows, each[0])):
                record = self._adopted(day, name, known, result)
                if record is not None:
                    self._manifest.add([record])
                    known.append(record)
        if forget_missing:
            self._manifest.forget(lost)
            result.n_forgotten = len(lost)
        return result

    def _is_needed(self, path: str, known: Iterable[HistoryFileRecord]) -> bool:
        """Whether a file has an instance that no known one has; one that was cut short has none."""
        if parts.inspect(self._files, path) is None:
            return False
        try:
            ids = _ids(self._files, path)
        except parts.DamagedPartError:  # a part of it may be rescued
            return True
        return bool(pc.any(self._own(ids, known)).as_py())

    def _inspected(self, day: date, entry: Entry) -> parts.PartInfo | None:
        return parts.inspect(self._files, layout.path_of(self._ontology, day, entry.name))

    def _unknown(self) -> Iterator[tuple[date, list[Entry]]]:
        """The unknown files of each day; other folders and files are not ours."""
        known = {layout.record_path(record) for record in self._manifest.files(self._ontology, with_retired=True)}
        known.update(self._in_journal())
        root = layout.folder_of(self._ontology)
        for folder in self._files.entries(root):
            if not folder.is_folder or not folder.name.startswith(_DAY):
                continue
            try:
                day = date.fromisoformat(folder.name.removeprefix(_DAY))
            except ValueError:
                continue
            entries = [
                entry
                for entry in self._files.entries(f"{root}/{folder.name}")
                if not entry.is_folder
                and layout.is_part_name(entry.name)
                and f"{root}/{folder.name}/{entry.name}" not in known
            ]
            if entries:
                yield day, entries

    def _in_journal(self) -> Iterator[str]:
        if self._store is None:
            return
        with self._store.snapshot() as snapshot:
            rows = snapshot.transfers(self._ontology)
        for row in rows:
            if row.state is not State.PUBLISHED:
                for file in row.files:
                    yield layout.path_of(self._ontology, date.fromisoformat(file["day"]), file["name"])

    def _own(self, ids: pa.ChunkedArray, known: Iterable[HistoryFileRecord]) -> pa.ChunkedArray:
        """Of each row, whether no known file has its instance."""
        is_own = pa.chunked_array([pa.repeat(True, len(ids))])
        for record in known:
            is_own = pc.and_(
                is_own,
                pc.invert(pc.is_in(ids, value_set=_counting(_ids(self._files, layout.record_path(record)), record))),
            )
            if not pc.any(is_own).as_py():
                break
        return is_own

    def _adopted(
        self, day: date, name: str, known: list[HistoryFileRecord], result: AdoptResult
    ) -> HistoryFileRecord | None:
        path = layout.path_of(self._ontology, day, name)
        try:
            table = parts.read_table(self._files, path)
        except parts.DamagedPartError:
            result.damaged.append(path)
            return None
        ids = ids_of(table)
        is_own = self._own(ids, known)
        for present in self._in_real_time(day):
            is_own = pc.and_(is_own, pc.invert(pc.is_in(ids, value_set=present)))
        own = table.filter(is_own)
        result.n_double += table.num_rows - own.num_rows
        if not own.num_rows:
            return None
        result.n_files += 1
        result.n_adopted += own.num_rows
        if own.num_rows < table.num_rows:
            name = self._written(day, name, own)
        return self._record(day, name, own)

    def _written(self, day: date, name: str, own: pa.Table) -> str:
        """What is own of a file in a file of its own; the old one is a double then."""
        digest = hashlib.blake2b("\n".join([name, *ids_of(own).to_pylist()]).encode(), digest_size=5).hexdigest()
        first, last = name.removeprefix("part-").removesuffix(".parquet").split("-")[:2]
        written = layout.part_name(first, last, f"o{digest}")
        try:
            parts.write_table(self._files, self._ontology, day, written, own)
        except PartExistsError:  # of an attempt that a crash ended
            self._files.delete(layout.path_of(self._ontology, day, written))
            parts.write_table(self._files, self._ontology, day, written, own)
        return written

    def _record(self, day: date, name: str, table: pa.Table) -> HistoryFileRecord:
        path = layout.path_of(self._ontology, day, name)
        times = parts.times_of(table)
        span = pc.min_max(times).as_py() if not times.null_count else {"min": None, "max": None}
        return HistoryFileRecord(
            ontology=self._ontology,
            day=day,
            name=name,
            n_rows=table.num_rows,
            size_bytes=self._files.size_bytes(path),
            layout=fingerprint(table.schema),
            first_at=span["min"],
            last_at=span["max"],
        )

    def _in_real_time(self, day: date) -> Iterator[pa.ChunkedArray]:
        """What tells the instances of a day that the BDTR has, some at a time."""
        if self._store is None:
            return
        needed = intervals.EVER if day == layout.NO_DAY else intervals.of_day(day)
        with self._store.snapshot() as snapshot:
            remaining = iter(snapshot.find(self._ontology, filter_of(snapshot, self._ontology, needed)))
            while batch := [{ID: document[ID]} for document in islice(remaining, DOCUMENTS_AT_ONCE)]:
                yield ids_of(to_table(batch, _ONLY_IDS))


def ids_of(table: pa.Table) -> pa.ChunkedArray:
    """What tells each instance from all others: the text of its ``_id``, with its type where that is not clear."""
    ids, raw = table.column(ID), table.column(RAW)
    is_special = pc.fill_null(pc.match_substring(raw, f'"{ID}":'), False)
    if not pc.any(is_special).as_py():
        return ids
    told = [_told(*each) for each in zip(ids.to_pylist(), raw.to_pylist(), is_special.to_pylist(), strict=True)]
    return pa.chunked_array([pa.array(told, pa.string())])


def _told(id_: str | None, raw: str | None, is_special: bool) -> str | None:
    if not is_special or raw is None:
        return id_
    inner: dict[str, Any] = json_util.loads(raw)
    return f"{id_} {json_util.dumps(inner[ID])}" if ID in inner else id_


def _ids(files: HistoryFiles, path: str) -> pa.ChunkedArray:
    return ids_of(parts.read_table(files, path, [ID, RAW]))


def _counting(ids: pa.ChunkedArray, record: HistoryFileRecord) -> pa.ChunkedArray:
    if not record.stale_rows:
        return ids
    stale = set(record.stale_rows)
    return ids.filter(pa.array([row not in stale for row in range(len(ids))]))
