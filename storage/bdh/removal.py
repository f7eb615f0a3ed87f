"""Taking old instances out of the real-time database for good, without the history: a transfer that has no files.

The journal of transfers carries it out, so it works on every BDTR, is resumed after a crash by ``Transfer.resume``, and what
was changed meanwhile stays until it is old enough and at rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import bson

from sib.query.extended import milliseconds_of
from storage.bdh import layout
from storage.bdh.transfer import TransferSteps, TransferStore
from storage.bdtr.moving import Aged, digest_of
from storage.bdtr.transfers import Receipt

BATCH_DOCUMENTS = 10_000
"""Instances of one transaction: the BDTR's writer waits for it."""


@dataclass(slots=True)
class RemovalResult:
    """What one run did. ``n_stale`` instances were changed while they were to be removed."""

    n_removed: int = 0
    n_batches: int = 0
    n_stale: int = 0


class Removal:
    """Removes instances of one ontology. Under the lock of its transfer, after ``Transfer.resume``."""

    def __init__(
        self,
        ontology: str,
        store: TransferStore,
        steps: TransferSteps,
        *,
        now: Callable[[], datetime],
        batch_documents: int = BATCH_DOCUMENTS,
    ) -> None:
        self._ontology = ontology
        self._store = store
        self._steps = steps
        self._now = now
        self._batch_documents = batch_documents

    def run(
        self,
        before: datetime,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        progress: Callable[[RemovalResult], None] = lambda _: None,
    ) -> RemovalResult:
        """Remove all instances that were inserted before a moment (naive UTC).

        Raises:
            StoreUnavailableError: the database does not answer; run it again.
        """
        result = RemovalResult()
        after: Aged | None = None
        while not should_stop():
            with self._store.snapshot() as snapshot:
                aged = snapshot.aged(self._ontology, milliseconds_of(before), after, self._batch_documents)
            if not aged:
                break
            after = aged[-1]
            old = [each for each in aged if _is_before(each.blob, before)]
            if old:
                receipt = Receipt([each.seq for each in old], [digest_of(each.blob) for each in old])
                number = self._steps.plan(self._ontology, [], receipt.to_bytes(), milliseconds_of(self._now()))
                committed = self._steps.commit(number, [], accept_stale=True)
                self._steps.publish([number], milliseconds_of(self._now()))
                result.n_removed += committed.n_moved
                result.n_stale += committed.n_stale
                result.n_batches += 1
                progress(result)
        return result


def _is_before(blob: bytes, before: datetime) -> bool:
    moment = layout.moment_of(bson.decode(blob))
    return moment is None or moment < before
