"""Which files and instances a query sees: each instance exactly once, also while a transfer or a compaction goes on.

A file counts from the moment at which its instances leave the BDTR. That moment is in the BDTR's journal; the manifest
learns of it a little later. So the manifest is read first and then, in one snapshot of the BDTR, the journal and the
instances: what the journal has and the manifest had not yet is added. What the journal called published before the
manifest was read is in the manifest, or a compaction has replaced it: it must not come back through the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime
from itertools import islice
from typing import Any

from sib.errors import LimitError, StoreUnavailableError
from sib.query.budget import Budget
from storage.bdc.history import HistoryManifest
from storage.bdc.records import HistoryFileRecord
from storage.bdh import intervals
from storage.bdh.intervals import Intervals
from storage.bdh.transfer import TransferStore, record_of
from storage.bdtr.transfers import Snapshot, State

DOCUMENTS_MAX = 1_000_000
"""Instances of the real-time database that a joined query reads into memory."""
DOCUMENTS_AT_ONCE = 5_000

Take = Callable[[list[dict[str, Any]]], None]
"""Is given the instances of the BDTR, some at a time."""


def open_view(
    ontology: str,
    manifest: HistoryManifest,
    store: TransferStore | None,
    needed: Intervals,
    *,
    with_files: bool = True,
    take: Take | None = None,
    budget: Budget | None = None,
) -> list[HistoryFileRecord]:
    """The files that have instances of the times needed; ``take`` is given those of the BDTR that belong to them.

    Args:
        ontology: its name.
        manifest: of the history.
        store: its BDTR; None if there is none (yet).
        needed: times; instances beside them may come too.
        with_files: whether history is wanted.
        take: gets the instances of the BDTR; None if they are not wanted.
        budget: time for reading them.

    Raises:
        LimitError: more than ``DOCUMENTS_MAX`` instances of the BDTR.
    """
    first, last = _first_day(needed), _last_day(needed)
    published = _published(ontology, store) if with_files and store is not None else None
    known = manifest.files(ontology, since=first, until=last, with_retired=True) if with_files else []
    if store is None:
        return _selected(known, needed)
    try:
        with store.snapshot() as snapshot:
            if with_files:
                keys = {record.key for record in known}
                done = (
                    row
                    for row in snapshot.transfers(ontology)
                    if row.state is State.DONE
                    or (published is not None and row.state is State.PUBLISHED and row.id not in published)
                )
                records = (record_of(ontology, file) for row in done for file in row.files)
                known += [record for record in records if record.key not in keys]
            if take is not None:
                for documents in _batches(
                    snapshot.find(ontology, filter_of(snapshot, ontology, needed), budget=budget)
                ):
                    take(documents)
    except StoreUnavailableError:
        if take is not None:
            raise
    return _selected(known, needed)


def _batches(documents: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    n_documents = 0
    remaining = iter(documents)
    while batch := list(islice(remaining, DOCUMENTS_AT_ONCE)):
        n_documents += len(batch)
        if n_documents > DOCUMENTS_MAX:
            raise LimitError(
                f"The query would read more than {DOCUMENTS_MAX} instances of the real-time database: "
                "give it a condition on contextData.timestamp."
            )
        yield batch


def _published(ontology: str, store: TransferStore) -> set[int] | None:
    try:
        with store.snapshot() as snapshot:
            return {row.id for row in snapshot.transfers(ontology) if row.state is State.PUBLISHED}
    except StoreUnavailableError:
        return None


def _selected(records: list[HistoryFileRecord], needed: Intervals) -> list[HistoryFileRecord]:
    return [
        record
        for record in records
        if record.retired_at is None
        and intervals.touches_day(needed, record.day)
        and (record.first_at is None or intervals.touches(needed, record.first_at, record.last_at or record.first_at))
    ]


def _first_day(needed: Intervals) -> date | None:
    return needed[0][0].date() if needed and needed[0][0] > datetime.min else None


def _last_day(needed: Intervals) -> date | None:
    return needed[-1][1].date() if needed and needed[-1][1] < datetime.max else None


def filter_of(snapshot: Snapshot, ontology: str, needed: Intervals) -> Mapping[str, Any]:
    """A filter for the BDTR that keeps at least what is needed.

    An instance without ``contextData.timestamp`` may be of any day (see ``layout.day_of``), so it is kept, too.
    """
    if not needed:
        return {"_id": {"$in": []}}
    start, end = needed[0][0], needed[-1][1]
    bounds: dict[str, Any] = {}
    if start > datetime.min:
        bounds["$gte"] = start
    if end < datetime.max:
        bounds["$lte"] = end
    return snapshot.inserted(ontology, bounds) if bounds else {}
