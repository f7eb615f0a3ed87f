"""Moving instances from the real-time database to the history, each exactly once.

1. PLANNED: the journal, in the BDTR's own database, notes which versions of which instances go into which files.
2. The files are written and get their names; none that is there is replaced.
3. One transaction takes the instances out of the BDTR and marks the transfer DONE; from then on its files count.
4. PUBLISHED: the manifest has the files.

After a crash at any point the next run goes on where it ended. An instance that was changed or deleted meanwhile makes
step 3 do nothing: the files are removed and the batch is planned again; after ``ATTEMPTS`` such tries its row in the
file is marked as one that does not count, and the instance moves later. Steps 1, 3 and 4 are small and are carried out by
the writer of the BDTR (``TransferSteps``): the partition of a running platform, or this process when it is stopped.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Protocol

import bson

from sib.ontology import Ontology
from sib.query.extended import date_of_milliseconds, milliseconds_of
from storage.bdc.history import HistoryManifest
from storage.bdc.records import HistoryFileRecord
from storage.bdh import layout, parts
from storage.bdh.columns import Layout, fingerprint, layout_of
from storage.bdh.files import HistoryFiles, PartExistsError, PartMissingError
from storage.bdtr.moving import Aged, Key, digest_of
from storage.bdtr.transfers import Committed, Receipt, Snapshot, State, TransferRow

BATCH_DOCUMENTS = 50_000
"""Instances of one transfer: they are held in memory, and the BDTR's writer is busy with them for a moment."""
ATTEMPTS = 3
"""Times that a batch is planned before rows of instances that keep changing are marked instead."""
NAMES_TRIED = 100


class TransferSteps(Protocol):
    """What the one writer of the BDTR does for a transfer. See ``TransferJournal``."""

    def plan(self, collection: str, files: list[dict[str, Any]], receipt: bytes, now_ms: int) -> int: ...
    def commit(self, number: int, files: list[dict[str, Any]], *, accept_stale: bool) -> Committed: ...
    def abandon(self, number: int) -> None: ...
    def publish(self, numbers: Sequence[int], now_ms: int) -> None: ...


class TransferStore(Protocol):
    """What a transfer reads of the BDTR."""

    def snapshot(self) -> AbstractContextManager[Snapshot]: ...


@dataclass(slots=True)
class TransferResult:
    """What one run did. ``n_stale``: changes of instances while they were moved (they move again later)."""

    n_moved: int = 0
    n_files: int = 0
    n_batches: int = 0
    n_resumed: int = 0
    n_stale: int = 0
    size_bytes: int = 0


@dataclass(slots=True)
class _Day:
    """The instances of a batch that go into one file."""

    seqs: list[Key] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)
    moments: list[datetime] = field(default_factory=list)


@dataclass(slots=True)
class _Batch:
    """Instances of one transfer: by file, in the order of its rows."""

    files: list[dict[str, Any]] = field(default_factory=list)
    documents: list[list[dict[str, Any]]] = field(default_factory=list)
    seqs: list[Key] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)


class Transfer:
    """Moves instances of one ontology. Only one run at a time for each ontology (see ``lock``)."""

    def __init__(
        self,
        ontology: Ontology,
        store: TransferStore,
        steps: TransferSteps,
        files: HistoryFiles,
        manifest: HistoryManifest,
        *,
        now: Callable[[], datetime],
        prepare: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] | None = None,
        batch_documents: int = BATCH_DOCUMENTS,
    ) -> None:
        """Make it ready.

        Args:
            ontology: whose instances move.
            store: the BDTR, for reading.
            steps: its writer.
            files: where history lies.
            manifest: of the history.
            now: naive UTC.
            prepare: changes the documents on their way (the pre-processing hook): as many, in the same order, with the
                same ``_id``.
            batch_documents: instances of one transfer.
        """
        self._ontology = ontology
        self._name = ontology.name
        self._columns: Layout = layout_of(ontology)
        self._fingerprint = fingerprint(self._columns.arrow())
        self._store = store
        self._steps = steps
        self._files = files
        self._manifest = manifest
        self._now = now
        self._prepare = prepare
        self._batch_documents = batch_documents
        self._n_failed = 0

    def run(
        self,
        before: datetime,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        progress: Callable[[TransferResult], None] = lambda _: None,
    ) -> TransferResult:
        """Finish what an earlier run began, then move all instances that were inserted before a moment.

        Args:
            before: naive UTC.
            should_stop: asked between batches.
            progress: told after each batch.

        Raises:
            StoreUnavailableError: a database or file system does not answer; run it again, nothing is lost.
            StoreError: one of them refused.
        """
        result = TransferResult()
        self.resume(result)
        before_ms = milliseconds_of(before)
        after: Aged | None = None
        while not should_stop():
            with _collector_off():
                last, batch = self._collect(before_ms, after)
                if batch is None:
                    break
                if not batch.seqs or self._move(batch, result):
                    after = last
                del batch
            progress(result)
        return result

    def _move(self, batch: _Batch, result: TransferResult) -> bool:
        receipt = Receipt(batch.seqs, batch.digests)
        number = self._steps.plan(self._name, batch.files, receipt.to_bytes(), milliseconds_of(self._now()))
        row = TransferRow(number, self._name, State.PLANNED, batch.files, receipt)
        return self._finish(row, batch.documents, result)

    def resume(self, result: TransferResult | None = None) -> TransferResult:
        """Finish the transfers that a crash interrupted."""
        result = result if result is not None else TransferResult()
        with self._store.snapshot() as snapshot:
            rows = snapshot.transfers(self._name)
        for row in rows:
            if row.state is State.PLANNED:
                result.n_resumed += 1
                self._finish(row, None, result)
            elif row.state is State.DONE:
                result.n_resumed += 1
                self._publish(row.id, row.files)
        return result

    # ------------------------------------------------------------------ planning

    def _collect(self, before_ms: int, after: Aged | None) -> tuple[Aged | None, _Batch | None]:
        """The next instances that are old enough, by day; (the last one seen, None when there are no more)."""
        with self._store.snapshot() as snapshot:
            aged = snapshot.aged(self._name, before_ms, after, self._batch_documents)
        if not aged:
            return after, None
        before = date_of_milliseconds(before_ms)
        by_day: dict[date, _Day] = {}
        for seq, blob in aged:
            document = bson.decode(blob)
            moment = layout.moment_of(document)
            if moment is None or moment < before:
                day = layout.NO_DAY if moment is None else moment.date()
                found = by_day.get(day)
                if found is None:
                    found = by_day[day] = _Day()
                found.seqs.append(seq)
                found.digests.append(digest_of(blob))
                found.documents.append(document)
                if moment is not None:
                    found.moments.append(moment)
        batch = _Batch()
        for day in sorted(by_day):
            found = by_day[day]
            batch.files.append(self._planned_file(day, found))
            batch.documents.append(found.documents)
            batch.seqs += found.seqs
            batch.digests += found.digests
        return aged[-1], batch

    def _planned_file(self, day: date, found: _Day) -> dict[str, Any]:
        moments = found.moments
        return {
            "day": day.isoformat(),
            "name": self._free_name(day, _label(found.seqs[0]), _label(found.seqs[-1])),
            "n_rows": len(found.seqs),
            "layout": self._fingerprint,
            "first_ms": milliseconds_of(min(moments)) if moments else None,
            "last_ms": milliseconds_of(max(moments)) if moments else None,
        }

    def _free_name(self, day: date, first: int, last: int) -> str:
        """A name that no file has: another BDTR may have begun to count again beside the same history."""
        for attempt in range(NAMES_TRIED):
            name = layout.part_name(first, last, str(attempt + 1) if attempt else "")
            if not self._files.exists(layout.path_of(self._name, day, name)):
                return name
        raise PartExistsError(
            f"The day {day} of {self._name} has too many files called {name!r}: remove what is wrong."
        )

    # ------------------------------------------------------------------ carrying out

    def _finish(self, row: TransferRow, documents: list[list[dict[str, Any]]] | None, result: TransferResult) -> bool:
        """Write, commit and publish a planned transfer; False if it was given up because instances have changed."""
        files = self._write(row, documents)
        if files is None:
            self._give_up(row)
            return False
        committed = self._steps.commit(row.id, files, accept_stale=self._n_failed + 1 >= ATTEMPTS)
        if not committed.is_done:
            self._n_failed += 1
            result.n_stale += committed.n_stale
            self._give_up(row)
            return False
        self._n_failed = 0
        if committed.n_stale:
            files = self._files_of(row.id)
        self._publish(row.id, files)
        result.n_moved += committed.n_moved
        result.n_stale += committed.n_stale
        result.n_files += len(files)
        result.n_batches += 1
        result.size_bytes += sum(file["size_bytes"] for file in files)
        return True

    def _write(self, row: TransferRow, documents: list[list[dict[str, Any]]] | None) -> list[dict[str, Any]] | None:
        """Write the files that are not there yet; None if they cannot be written as planned any more."""
        assert row.receipt is not None
        written = []
        start = 0
        for at, file in enumerate(row.files):
            end = start + file["n_rows"]
            present = self._present(file)
            if present is None:
                if documents is not None:
                    members: list[dict[str, Any]] | None = documents[at]
                else:
                    members = self._read(row.receipt.seqs[start:end], row.receipt.digests[start:end])
                if members is None:
                    return None
                present = self._write_file(file, members)
            written.append({**file, **present})
            start = end
        return written

    def _present(self, file: dict[str, Any]) -> dict[str, Any] | None:
        path = self._path(file)
        try:
            if not self._files.exists(path):
                return None
            info = parts.inspect(self._files, path)
        except PartMissingError:
            return None
        if info is None or info.n_rows != file["n_rows"]:
            self._files.delete(path)  # cut short by what is below us: it was durable before it got its name
            return None
        return {"size_bytes": info.size_bytes, "layout": fingerprint(info.schema)}

    def _read(self, seqs: Sequence[Key], digests: Sequence[bytes]) -> list[dict[str, Any]] | None:
        with self._store.snapshot() as snapshot:
            blobs = snapshot.by_seq(self._name, seqs)
        found = []
        for seq, digest in zip(seqs, digests, strict=True):
            blob = blobs.get(seq)
            if blob is None or digest_of(blob) != digest:
                return None
            found.append(bson.decode(blob))
        return found

    def _write_file(self, file: dict[str, Any], documents: list[dict[str, Any]]) -> dict[str, Any]:
        if self._prepare is not None:
            documents = self._prepare(documents)
        day = date.fromisoformat(file["day"])
        size_bytes = parts.write_documents(self._files, self._name, day, file["name"], documents, self._columns)
        return {"size_bytes": size_bytes, "layout": self._fingerprint}

    def _give_up(self, row: TransferRow) -> None:
        for file in row.files:
            self._files.delete(self._path(file))
        self._steps.abandon(row.id)

    def _publish(self, number: int, files: list[dict[str, Any]]) -> None:
        self._manifest.add([record_of(self._name, file) for file in files])
        self._steps.publish([number], milliseconds_of(self._now()))

    def _files_of(self, number: int) -> list[dict[str, Any]]:
        with self._store.snapshot() as snapshot:
            return next(row.files for row in snapshot.transfers(self._name) if row.id == number)

    def _path(self, file: dict[str, Any]) -> str:
        return layout.path_of(self._name, date.fromisoformat(file["day"]), file["name"])


@contextmanager
def _collector_off() -> Iterator[None]:
    """Tens of thousands of documents without cycles are made: looking for cycles among them takes most of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def record_of(ontology: str, file: dict[str, Any]) -> HistoryFileRecord:
    """What the manifest keeps of a file in the journal."""
    return HistoryFileRecord(
        ontology=ontology,
        day=date.fromisoformat(file["day"]),
        name=file["name"],
        n_rows=file["n_rows"],
        size_bytes=file["size_bytes"],
        layout=file["layout"],
        first_at=None if file["first_ms"] is None else date_of_milliseconds(file["first_ms"]),
        last_at=None if file["last_ms"] is None else date_of_milliseconds(file["last_ms"]),
        stale_rows=tuple(file.get("stale_rows", ())),
    )


def _label(key: Key) -> int:
    """A key in the name of a file."""
    return key if isinstance(key, int) else int.from_bytes(digest_of(key), "big")
