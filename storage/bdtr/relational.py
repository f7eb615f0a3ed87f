"""The relational BDTR: a document store with MongoDB's semantics on a relational database. One writer, many readers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self

from sqlalchemy import delete, func, select

from sib.errors import StoreError
from storage.bdtr import changes, declare, schema
from storage.bdtr.catalogue import CollectionInfo
from storage.bdtr.dialects import Dialect, dialect_of
from storage.bdtr.expiry import expired_seqs
from storage.bdtr.failures import store_errors
from storage.bdtr.hot import count_rows
from storage.bdtr.model import IndexSpec
from storage.bdtr.reader import StoreReader
from storage.bdtr.state import WriterState
from storage.bdtr.transaction import Transaction

BUILD_DOCUMENTS = 20_000
"""Documents that one transaction adds to a new index."""
EXPIRE_DOCUMENTS = 5_000
"""Expired documents that one transaction deletes, so that readers and writers are not held up."""
EXPIRE_CHUNKS = 20
"""Chunks of one call of ``expire``; the rest waits for the next call."""
TRIM_ROWS = 20_000
"""Rows of the change log that one call of ``trim_changes`` deletes."""
WRITE_IDS_KEPT_S = 3_600.0
"""How long the outcome of a batch is remembered for a retry."""


class RelationalStore(StoreReader):
    """One database of instances. A writer has a connection of its own; readers open short reads from a pool.

    Of the methods that read, each sees every commit made before it was called. Not to be used across a fork.
    All methods may raise StoreUnavailableError (try again) and StoreError.
    """

    def __init__(self, dialect: Dialect, state: WriterState | None, clock: Callable[[], float]) -> None:
        super().__init__(dialect, clock)
        self._state = state
        self._transaction: Transaction | None = None
        self._count_at = (0, 0)
        if state is not None:
            self._machine = state.machine

    @classmethod
    def open(cls, url: str, *, writer: bool, clock: Callable[[], float] = time.time) -> Self:
        """Opens a store; a writer makes it if it is not there.

        Args:
            url: ``sqlite:PATH``.
            writer: whether this process writes. More than one writer is safe, but they wait for each other.
            clock: seconds since 1970.

        Raises:
            ConfigurationError: the URL is wrong, or the store has another format.
        """
        dialect = dialect_of(url)
        with store_errors():
            return cls(dialect, WriterState(dialect) if writer else None, clock)

    def close(self) -> None:
        """Closes all connections. A transaction under way is lost."""
        super().close()
        if self._state is not None:
            self._state.close()

    @property
    def seq(self) -> int:
        """The number of the last committed change."""
        if self._state is not None and self._transaction is None:
            return self._state.seq
        return super().seq

    # ------------------------------------------------------------------ writing

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """A transaction: durable on a normal exit, taken back when an exception leaves it.

        Raises:
            StoreError: the store was opened for reading, or a transaction is under way.
        """
        if self._state is None:
            raise StoreError("This BDTR was opened for reading only; open it with writer=True.")
        if self._transaction is not None:
            raise StoreError("A transaction of this store is under way already; end it first.")
        self._transaction = Transaction(self._state, self._clock)
        try:
            with self._transaction as transaction:
                yield transaction
        finally:
            self._transaction = None

    @contextmanager
    def _transact(self) -> Iterator[WriterState]:
        """In the transaction that is under way, or in one of its own."""
        if self._transaction is not None and self._state is not None:
            with store_errors():
                yield self._state
            return
        with self.begin():
            assert self._state is not None
            with store_errors():
                yield self._state

    def ensure_collection(self, name: str, indexes: Sequence[IndexSpec]) -> None:
        """Makes a collection if it is not there, and gives it exactly these indexes. Idempotent.

        New indexes are filled in chunks with a commit each (in one piece inside a transaction). If that is interrupted,
        the next call starts it again.

        Raises:
            DuplicateKeyError: a new index is unique and what is stored is not. The index is not there afterwards.
            ConfigurationError: too many indexes, or one that this database cannot have.
        """
        with self._transact() as state:
            info = state.collection(name)
            gone, new = declare.differing(info, indexes)
            for index_name in gone:
                declare.drop(state, info, index_name)
            for spec in new:
                declare.create(state, info, spec)
        for spec in new:
            self._build(name, spec.name)

    def create_index(self, collection: str, spec: IndexSpec) -> None:
        """Adds one index; as ``ensure_collection`` otherwise. Nothing happens if the same one is there."""
        with self._transact() as state:
            info = state.collection(collection)
            present = [index.spec for index in info.indexes.values() if index.spec.name != spec.name]
        self.ensure_collection(collection, [*present, spec])

    def drop_index(self, collection: str, name: str) -> None:
        """Drops one index. Raises StoreError if there is none of this name."""
        with self._transact() as state:
            info = state.collection(collection)
            if name not in info.indexes:
                raise StoreError(f"The collection {collection!r} has no index {name!r}.")
            declare.drop(state, info, name)

    def _build(self, collection: str, name: str) -> None:
        reached: int | None = 0
        try:
            while reached is not None:
                with self._transact() as state:
                    info = state.collection(collection)
                    reached = declare.fill(state, info, info.indexes[name], reached, BUILD_DOCUMENTS)
                    if reached is None:
                        declare.finish(state, info.indexes[name])
        except Exception:
            with self._transact() as state:
                info = state.collection(collection)
                if name in info.indexes:
                    declare.drop(state, info, name)
            raise

    # ------------------------------------------------------------------ upkeep

    def save_positions(self, positions: Mapping[str, int]) -> None:
        """Remembers positions in a transaction of its own, if they differ from those stored."""
        stored = self.positions()
        differing = {name: seq for name, seq in positions.items() if stored.get(name) != seq}
        if differing:
            with self.begin() as transaction:
                for name, seq in differing.items():
                    transaction.set_position(name, seq)

    def number_beyond(self, seq: int) -> None:
        """What changes from now on has numbers beyond ``seq``. Idempotent."""
        with self._transact() as state:
            state.seq = max(state.seq, seq)

    def forget_consumers(self, names: Iterable[str]) -> None:
        """Removes the positions of consumers that are gone."""
        with self._transact() as state:
            state.connection.execute(delete(schema.consumer).where(schema.consumer.c.name.in_(list(names))))

    def trim_changes(self, before_seq: int, bound: int) -> int:
        """Forgets updates and deletes with smaller numbers, and the oldest beyond ``bound`` rows.

        At most ``TRIM_ROWS`` a call; returns how many. Documents are not touched. Cheap when there is nothing to do;
        therefore a tenth more than the bound may stand for a while.
        """
        log = schema.change_log
        with self._session() as connection:
            first = connection.execute(select(func.min(log.c.seq))).scalar_one()
            if first is None:
                return 0
            # The log grows by at most one row a number, so it need not be counted before it can have reached its bound.
            last = self.seq
            n_oldest = 0
            if last - first >= bound and (last >= self._count_at[0] or self._count_at[1] != bound):
                n_oldest = max(0, count_rows(connection, log) - bound)
                self._count_at = (last + max(1, bound // 10), bound) if n_oldest == 0 else (0, bound)
            if first >= before_seq and not n_oldest:
                return 0
        with self._transact() as state:
            return changes.trim_changes(state.connection, before_seq, n_oldest, TRIM_ROWS)

    def expire(self, now: float) -> int:
        """Deletes instances that are older than their TTL index allows; returns how many. Call it about once a second.

        At most ``EXPIRE_CHUNKS`` transactions of ``EXPIRE_DOCUMENTS`` each.
        """
        if self._state is None:
            raise StoreError("This BDTR was opened for reading only; open it with writer=True.")
        n_deleted = 0
        for info, index_name in self._ttl_indexes(self._state.catalogue.values()):
            for _ in range(EXPIRE_CHUNKS):
                with self.begin() as transaction:
                    known = self._state.catalogue.get(info.name)
                    index = known.indexes.get(index_name) if known is not None else None
                    if known is None or index is None:
                        break
                    seqs = expired_seqs(self._state, index, now, EXPIRE_DOCUMENTS)
                    n_deleted += len(transaction.delete_seqs(known, seqs))
                if len(seqs) < EXPIRE_DOCUMENTS:
                    break
        return n_deleted

    @staticmethod
    def _ttl_indexes(infos: Iterable[CollectionInfo]) -> list[tuple[CollectionInfo, str]]:
        return [
            (info, name)
            for info in infos
            for name, index in info.indexes.items()
            if index.spec.expire_after_s is not None and index.is_ready
        ]

    def checkpoint(self) -> None:
        """Moves the write-ahead log into the database file and forgets old write ids. Call it on a timer."""
        before_ms = int((self._clock() - WRITE_IDS_KEPT_S) * 1000)
        with self._transact() as state:
            state.connection.execute(delete(schema.write_id).where(schema.write_id.c.ts_ms < before_ms))
        with store_errors():
            self._dialect.checkpoint(state.connection)
