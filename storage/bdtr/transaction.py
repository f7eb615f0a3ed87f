"""One transaction of the writer: everything in it is durable together, or nothing of it has happened."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any

import bson
from sqlalchemy import Connection, RootTransaction, Table, bindparam, insert, inspect, select, update

from sib.query.budget import Budget
from storage.bdtr import schema
from storage.bdtr.assembly import assemble
from storage.bdtr.catalogue import CollectionInfo
from storage.bdtr.failures import store_errors
from storage.bdtr.identity import COUNTER_BITS
from storage.bdtr.inserting import Insertion, refuse_duplicates
from storage.bdtr.maintenance import IndexWriter
from storage.bdtr.model import UNKNOWN_CAUSE, WriteResult
from storage.bdtr.moving import Moving
from storage.bdtr.rewriting import Deletion, Rewriting, UpdateCommand
from storage.bdtr.search import Searcher
from storage.bdtr.state import WriterState

WRITE_SLOTS = 8
"""Write ids remembered for each gateway; a gateway has fewer calls than this under way."""


@dataclass(slots=True)
class _Progress:
    """What a transaction has reached; copied at a savepoint."""

    seq: int
    last_id: int
    counts: dict[str, int] = field(default_factory=dict)
    n_doomed: int = 0


class Transaction:
    """A context manager: commits on a normal exit, and takes everything back when an exception leaves it.

    Not for several threads. Every method may raise StoreUnavailableError (nothing is known to be stored).
    """

    def __init__(self, state: WriterState, clock: Callable[[], float]) -> None:
        self._state = state
        self._clock = clock
        self._connection = state.connection
        self._began: RootTransaction | None = None
        self._start = state.seq, state.last_id
        self._counts: dict[str, int] = {}
        self._indexes = IndexWriter(state)
        self.cause = UNKNOWN_CAUSE
        """Noted with the updates that follow."""

    # ------------------------------------------------------------------ begin and end

    def __enter__(self) -> Transaction:
        with store_errors():
            self._began = self._state.begin()
        self._start = self._state.seq, self._state.last_id
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._began is None:
            return
        began, self._began = self._began, None
        try:
            with store_errors():
                if kind is None:
                    self._state.save(self._counts)
                    began.commit()
                    self._state.is_catalogue_changed = False
                    self._state.drop_doomed()
                    return
        except BaseException:
            self._take_back(began)
            raise
        self._take_back(began)

    def _take_back(self, began: RootTransaction) -> None:
        try:
            with store_errors():
                has_failed_to_commit = not began.is_active
                began.rollback()
                # SQLAlchemy takes a COMMIT that failed for the end of the transaction; the database may have it open still.
                if has_failed_to_commit and not self._connection.invalidated:
                    self._connection.connection.rollback()
        finally:
            self._state.take_back(*self._start)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Takes back what was done inside it when an exception leaves it, and only that."""
        state = self._state
        progress = _Progress(state.seq, state.last_id, copy(self._counts), state.n_doomed)
        catalogue_changed, state.is_catalogue_changed = state.is_catalogue_changed, False
        touched, self._indexes.touched = self._indexes.touched, set()
        try:
            with self._connection.begin_nested():
                yield
        except BaseException:
            with store_errors():
                state.seq, state.last_id, self._counts = progress.seq, progress.last_id, progress.counts
                state.spare(progress.n_doomed)
                state.forget_hot(self._indexes.touched)
                if state.is_catalogue_changed:
                    state.reload_catalogue()
            raise
        finally:
            self._indexes.touched |= touched
            state.is_catalogue_changed |= catalogue_changed

    @property
    def seq(self) -> int:
        """The number of the last change so far, committed or not."""
        return self._state.seq

    # ------------------------------------------------------------------ inserts

    def append(
        self,
        collection: str,
        bodies: Sequence[bytes],
        docs: Sequence[dict[str, Any]],
        heads: Sequence[bytes],
        now_ms: int,
    ) -> int:
        """Adds instances with generated ids: the fast way in.

        Args:
            collection: its name; it is made if it is not there.
            bodies: BSON of the instances, without ``_id`` and ``contextData``.
            docs: the same instances decoded, for the indexes.
            heads: the encoded ``contextData`` element of each one's session (``context_head``).
            now_ms: the ``contextData.timestamp`` of all of them, milliseconds since 1970.

        Returns:
            The number of the first id. The ids (and change numbers) follow each other in steps of one: seconds << 24 | counter,
            one number that only grows. The ObjectId has the store's ``machine`` between the two.

        Raises:
            DuplicatesInBatchError: some break a unique index; nothing was written.
        """
        state = self._state
        with store_errors():
            info = state.collection(collection)
            first = max(state.last_id + 1, now_ms // 1000 << COUNTER_BITS)
            if not bodies:
                return first
            if any(index.spec.unique for index in info.indexes.values()):
                refuse_duplicates(state, info, self._indexes.whole(info, docs, heads, now_ms))
            rows = assemble(bodies, heads, now_ms, first, state.machine, state.seq + 1)
            state.dialect.insert(self._connection, info.documents, rows)
            self._indexes.append(info, docs, heads, now_ms, state.seq + 1)
            self.advance(info, first, len(rows), now_ms)
            state.last_id = first + len(rows) - 1
        return first

    def insert_document(self, collection: str, document: dict[str, Any]) -> Any:
        """Adds one document, with any ``_id`` or a generated one. Returns its id; raises DuplicateKeyError."""
        return self.insert_documents(collection, [document])[0]

    def insert_documents(self, collection: str, documents: Sequence[dict[str, Any]]) -> list[Any]:
        """Adds documents as they are; those without ``_id`` get one, in front. Returns the ids.

        Raises:
            DuplicatesInBatchError: some break a unique index or repeat an ``_id``; nothing was written.
        """
        with store_errors():
            insertion = Insertion(self, self._state, self._indexes, self._state.collection(collection))
            return insertion.run(documents, int(self._clock()))

    def advance(self, info: CollectionInfo, first_id: int | None, n_documents: int, ts_ms: int) -> None:
        """Notes a run of inserts; ``first_id``: their ids are generated, from this number on."""
        state = self._state
        state.note_time(info, ts_ms)
        state.dialect.insert(self._connection, schema.block, [(state.seq + 1, first_id, n_documents, ts_ms, info.id)])
        state.seq += n_documents
        self._counts[info.name] = self._counts.get(info.name, 0) + n_documents

    # ------------------------------------------------------------------ reads, updates and deletes

    def find(
        self,
        collection: str,
        filter: Mapping[str, Any],
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int | None = None,
        now: datetime | None = None,
        budget: Budget | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The matching documents as this transaction has left them."""
        state = self._state
        info = state.catalogue.get(collection)
        if info is None:
            return
        searcher = Searcher(self._session, state.dialect, info, state.machine, budget=budget, now=now)
        for _, document in itertools.islice(searcher.matches(filter, sort=sort, limit=limit), limit):
            yield document

    @contextmanager
    def _session(self) -> Iterator[Connection]:
        with store_errors():
            yield self._connection

    def update(
        self,
        collection: str,
        filter: Mapping[str, Any],
        update: Any,
        *,
        multi: bool,
        upsert: bool = False,
        array_filters: Sequence[Mapping[str, Any]] = (),
        replacement: bool = False,
        keep: Sequence[str] = ("_id", "contextData"),
        check: Callable[[dict[str, Any]], None] | None = None,
        now: datetime,
        budget: Budget | None = None,
        sort: Sequence[tuple[str, int]] = (),
        notes_unchanged: bool = False,
    ) -> WriteResult:
        """Changes the matching instances (the first one without ``multi``; by ``sort`` if given).

        Args:
            collection: its name; it is made if it is not there.
            filter: MongoDB's.
            update: operators, a pipeline (list), or the new instance with ``replacement``.
            multi: all matches, not only the first.
            upsert: insert one if nothing matches.
            array_filters: for ``$[name]`` in the update.
            replacement: ``update`` replaces everything but the fields in ``keep``.
            keep: top-level fields that stay as they were, whatever the update says.
            check: raises an error for an instance that may not be stored; then nothing is changed.
            now: the time of ``$currentDate`` and ``$$NOW``, naive UTC.
            budget: time that finding the instances may take.
            sort: which match is the first.
            notes_unchanged: also what the update leaves as it is counts as a change: in the feed and in the result's
                ``documents``, not in ``modified``.

        Raises:
            QueryError, QuerySyntaxError: the filter or the update is wrong, or does not fit an instance.
            DuplicateKeyError: it would break a unique index.
            LimitError: more instances than one transaction may change.
        """
        command = UpdateCommand(
            filter,
            update,
            multi,
            upsert,
            tuple(array_filters),
            replacement,
            tuple(keep),
            check,
            now,
            tuple(sort),
            notes_unchanged,
        )
        with store_errors():
            info = self._state.collection(collection)
            return Rewriting(self, self._state, self._indexes, info, budget).run(command)

    def delete(
        self,
        collection: str,
        filter: Mapping[str, Any],
        multi: bool = True,
        *,
        budget: Budget | None = None,
        sort: Sequence[tuple[str, int]] = (),
    ) -> list[Any]:
        """Deletes the matching instances (the first one without ``multi``). Returns their ids."""
        with store_errors():
            info = self._state.catalogue.get(collection)
            if info is None:
                return []
            deletion = Deletion(self, self._state, self._indexes, info)
            return deletion.run(filter, multi=multi, budget=budget, sort=tuple(sort))

    def delete_seqs(self, info: CollectionInfo, seqs: Sequence[int]) -> list[Any]:
        """Deletes the instances with these change numbers. Returns their ids."""
        with store_errors():
            return Deletion(self, self._state, self._indexes, info).delete(seqs)

    def make_table(self, table: Table) -> None:
        """Makes a table if it is not there, without ending this transaction."""
        with store_errors():
            if not inspect(self._connection).has_table(table.name):
                self._state.create_table(table)

    def changed_since(self, collection: str, seqs: Sequence[int], digests: Sequence[bytes]) -> list[int]:
        """The positions of those instances that are gone or not in this version (``digest_of``) any more."""
        with store_errors():
            info = self._state.catalogue.get(collection)
            return (
                [*range(len(seqs))] if info is None else Moving(self._state, self._indexes, info).changed(seqs, digests)
            )

    def take_out(self, collection: str, seqs: Sequence[int]) -> None:
        """Takes out instances that are in the history now. All of them must be there; the change feed does not tell."""
        info = self._state.catalogue.get(collection)
        if info is None or not seqs:
            return
        with store_errors():
            Moving(self._state, self._indexes, info).take_out(seqs)
        self.count_deleted(info, len(seqs))

    @property
    def connection(self) -> Connection:
        """For tables of others in the same database, inside this transaction."""
        return self._connection

    def log_changes(self, info: CollectionInfo, kind: int, changes: Sequence[tuple[Any, bytes | None]]) -> None:
        """Gives numbers to updates or deletes: (id, encoded document or None)."""
        state, cause = self._state, {"t": self.cause.at_ms, "by": self.cause.by}
        rows = []
        for id_, blob in changes:
            state.seq += 1
            rows.append((state.seq, kind, info.id, bson.encode({"": id_, **cause}), blob))
        state.dialect.insert(self._connection, schema.change_log, rows)

    def count_deleted(self, info: CollectionInfo, n_documents: int) -> None:
        self._counts[info.name] = self._counts.get(info.name, 0) - n_documents

    # ------------------------------------------------------------------ write ids and positions

    def recall(self, gateway: str, number: int) -> bytes | None:
        """The outcome of a batch of this gateway that was committed before, or None."""
        values = {"gateway_": gateway, "slot_": number % WRITE_SLOTS, "num_": number}
        with store_errors():
            outcome = self._connection.execute(_RECALL, values).scalar_one_or_none()
        return None if outcome is None else bytes(outcome)

    def remember(self, gateway: str, number: int, outcome: bytes) -> None:
        """Keeps the outcome of a batch with its commit: the last ``WRITE_SLOTS`` of each gateway."""
        values = {"num": number, "ts_ms": int(self._clock() * 1000), "outcome": outcome}
        where = {"gateway_": gateway, "slot_": number % WRITE_SLOTS}
        with store_errors():
            if not self._connection.execute(_REMEMBER_AGAIN, {**values, **where}).rowcount:
                first = {**values, "gateway": gateway, "slot": where["slot_"]}
                self._connection.execute(_REMEMBER, first)

    def set_position(self, consumer: str, seq: int) -> None:
        """Remembers up to which change a consumer has read."""
        values = {"name_": consumer, "seq_": seq}
        with store_errors():
            if not self._connection.execute(_MOVE_POSITION, values).rowcount:
                self._connection.execute(_FIRST_POSITION, {"name": consumer, "seq": seq})


_WRITE = schema.write_id.c
_SLOT = (_WRITE.gateway == bindparam("gateway_"), _WRITE.slot == bindparam("slot_"))
_RECALL = select(_WRITE.outcome).where(*_SLOT, _WRITE.num == bindparam("num_"))
_REMEMBER = insert(schema.write_id)
_REMEMBER_AGAIN = update(schema.write_id).where(*_SLOT)
_MOVE_POSITION = (
    update(schema.consumer).where(schema.consumer.c.name == bindparam("name_")).values(seq=bindparam("seq_"))
)
_FIRST_POSITION = insert(schema.consumer)
