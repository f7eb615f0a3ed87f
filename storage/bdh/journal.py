"""The journal of transfers as queries on the history alone read it: a BDTR that does not answer does not hold them up.

The journal only adds what was moved a moment ago and is not in the manifest yet (or since a transfer was killed).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from sib.errors import StoreUnavailableError
from storage.bdh.transfer import TransferStore
from storage.bdtr.transfers import TransferRow

log = logging.getLogger("sofia2.history")

WAIT_S = 1.0
"""How long a query waits for a journal. While that answer is still to come, further queries do not wait at all."""
THREADS = 4
"""Journals that are read at once; as many that do not answer keep all others from being read."""

StoreOf = Callable[[str], TransferStore | None]
Rows = Future[list[TransferRow]]


class Journals:
    """Reads journals in threads of its own, which nobody waits for at the end. Safe for threads."""

    def __init__(self, store_of: StoreOf, wait_s: float = WAIT_S) -> None:
        self._store_of = store_of
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._late: dict[str, Rows] = {}
        self._asked: queue.SimpleQueue[tuple[str, Rows] | None] = queue.SimpleQueue()
        self._n_threads = 0

    def close(self) -> None:
        """End the threads, each when it has its answer."""
        for _ in range(self._n_threads):
            self._asked.put(None)

    def rows(self, ontology: str) -> list[TransferRow]:
        """The journal of an ontology, oldest first.

        Raises:
            StoreUnavailableError: the BDTR does not answer, or not in time.
        """
        late = StoreUnavailableError(f"The real-time database of {ontology!r} does not answer in time.")
        with self._lock:
            pending = self._late.get(ontology)
            if pending is not None and not pending.done():
                raise late
            self._late.pop(ontology, None)
            if self._n_threads < THREADS:
                self._n_threads += 1
                threading.Thread(target=self._read, name="history-journal", daemon=True).start()
        asked: Rows = Future()
        self._asked.put((ontology, asked))
        try:
            return asked.result(self._wait_s)
        except TimeoutError:
            with self._lock:
                self._late[ontology] = asked
            log.warning("%s What was moved just now may be missing in queries on its history.", late.message)
            raise late from None

    def _read(self) -> None:
        while (asked := self._asked.get()) is not None:
            ontology, answer = asked
            try:
                store = self._store_of(ontology)
                if store is None:
                    answer.set_result([])
                    continue
                with store.snapshot() as snapshot:
                    answer.set_result(snapshot.transfers(ontology))
            except BaseException as error:
                answer.set_exception(error)


class JournalOnly:
    """A BDTR of which a query reads nothing but the journal."""

    def __init__(self, journals: Journals) -> None:
        self._journals = journals

    @contextmanager
    def snapshot(self) -> Iterator[JournalOnly]:
        yield self

    def transfers(self, collection: str) -> list[TransferRow]:
        return self._journals.rows(collection)
