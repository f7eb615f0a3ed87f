"""One transaction of the writer of a BDTR on MongoDB; the same methods and meanings as the relational one.

What the partition notes (runs of inserts, changes, outcomes, positions) is written at the end, in two commands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

import bson
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from bson.regex import Regex
from pymongo import DeleteMany, InsertOne
from pymongo.client_session import ClientSession

from sib.errors import StoreError
from sib.query.budget import Budget
from storage.bdtr.assembly import assemble, encode_document
from storage.bdtr.identity import COUNTER_BITS, number_of, object_id
from storage.bdtr.indexes import with_context
from storage.bdtr.model import UNKNOWN_CAUSE, IndexSpec, WriteResult
from storage.bdtr.mongo_changes import KIND_DELETE, KIND_UPDATE
from storage.bdtr.mongo_client import mongo_errors
from storage.bdtr.mongo_rewriting import MongoRewriting
from storage.bdtr.mongo_session import Documents, put
from storage.bdtr.mongo_unique import CHUNK_DOCUMENTS, refuse_duplicates
from storage.bdtr.rewriting import UpdateCommand
from storage.bdtr.transaction import WRITE_SLOTS

if TYPE_CHECKING:
    from storage.bdtr.mongo import MongoStore

LOGGED_BYTES_MAX = 12 * 1024 * 1024
"""A changed document that is larger is not written into the log a second time."""

Document = dict[str, Any]


class MongoTransaction:
    """A context manager: commits on a normal exit, and takes everything back when an exception leaves it.

    Not for several threads. Every method may raise StoreUnavailableError (nothing is known to be stored).
    """

    def __init__(self, store: MongoStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._turn = store.turn
        self._clock = clock
        self._log: list[Document] = []
        self._notes: list[Any] = []
        self.cause = UNKNOWN_CAUSE
        """Noted with the updates that follow."""
        self.seq = 0
        self.last_id = 0

    # ------------------------------------------------------------------ begin and end

    def __enter__(self) -> MongoTransaction:
        with mongo_errors():
            state = self._turn.begin()
            self._store.learn(state)
        self.seq, self.last_id = state["seq"], state["last_id"]
        self._start = self.seq, self.last_id
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with mongo_errors():
                if kind is None and self._has_written():
                    self._finish()
                    return
        except BaseException:
            self._take_back()
            raise
        self._take_back()

    def _has_written(self) -> bool:
        return bool(self._turn.n_done or self._log or self._notes)

    def _finish(self) -> None:
        store = self._store
        if self._log:
            self._turn.write(
                store.log, [InsertOne(row) for row in self._log], _deletes(row["_id"] for row in self._log)
            )
        state: Document = {"seq": Int64(self.seq), "last_id": Int64(self.last_id)}
        if store.catalogue.is_changed:
            state["catalogue"] = store.catalogue.version + 1
        before = {"seq": Int64(self._start[0]), "last_id": Int64(self._start[1])}
        self._turn.write(store.notes, [*self._notes, put("state", state)], [put("state", before)])
        self._turn.commit()
        store.committed(self.seq, self.last_id)

    def _take_back(self) -> None:
        with mongo_errors():
            try:
                self._turn.take_back()
            finally:
                self._store.catalogue.forget()

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Takes back what was done inside it when an exception leaves it, and only that."""
        n_done, n_logged, n_notes = self._turn.n_done, len(self._log), len(self._notes)
        seq, last_id = self.seq, self.last_id
        known = self._store.catalogue.known()
        try:
            yield
        except BaseException:
            with mongo_errors():
                self._turn.take_back_to(n_done)
                del self._log[n_logged:], self._notes[n_notes:]
                self.seq, self.last_id = seq, last_id
                self._store.catalogue.restore(known)
            raise

    def declare(self, collection: str, indexes: Sequence[str]) -> None:
        """Notes a collection and its indexes with this transaction."""
        self._notes.append(put(f"collection:{collection}", {"name": collection, "indexes": list(indexes)}))

    # ------------------------------------------------------------------ inserts

    def append(
        self,
        collection: str,
        bodies: Sequence[bytes],
        docs: Sequence[Document],
        heads: Sequence[bytes],
        now_ms: int,
    ) -> int:
        """Adds instances with generated ids: see ``Transaction.append``."""
        with mongo_errors():
            indexes = self._collection(collection)
            first = max(self.last_id + 1, now_ms // 1000 << COUNTER_BITS)
            if not bodies:
                return first
            if any(spec.unique or spec.is_geo for spec in indexes):
                whole = with_context(docs, heads, now_ms)
                refuse_duplicates(self._store.documents(collection), indexes, whole, (), self._turn.session)
                self._store.catalogue.drop_unfit(collection, whole)
            rows = assemble(bodies, heads, now_ms, first, self._store.machine, self.seq + 1)
            blobs = [blob for _, blob in rows]
            self._insert(collection, blobs, {"first": Int64(first)})
            self.last_id = first + len(blobs) - 1
        return first

    def _insert(self, collection: str, blobs: Sequence[bytes], ids: Document) -> None:
        """Writes documents and notes the run; ``ids``: how to find them again."""
        inserts = [InsertOne(RawBSONDocument(blob)) for blob in blobs]
        if "first" in ids:
            first, last = ids["first"], ids["first"] + len(blobs) - 1
            machine = self._store.machine
            between = {"$gte": object_id(first, machine), "$lte": object_id(last, machine)}
            opposites = [DeleteMany({"_id": between})]
        else:
            opposites = _deletes(ids["ids"])
        self._turn.write(self._store.documents(collection), inserts, opposites)
        self._log.append({"_id": Int64(self.seq + 1), "n": len(blobs), "c": collection, **ids})
        self.seq += len(blobs)

    def insert_document(self, collection: str, document: Document) -> Any:
        """Adds one document, with any ``_id`` or a generated one. Returns its id; raises DuplicateKeyError."""
        return self.insert_documents(collection, [document])[0]

    def insert_documents(self, collection: str, documents: Sequence[Document]) -> list[Any]:
        """Adds documents as they are; see ``Transaction.insert_documents``."""
        with mongo_errors():
            indexes = self._collection(collection)
            following = max(self.last_id + 1, int(self._clock()) << COUNTER_BITS)
            whole: list[Document] = []
            given: list[int] = []
            for document in documents:
                if "_id" in document:
                    if isinstance(document["_id"], (list, Regex, re.Pattern)):
                        raise StoreError("An _id cannot be an array or a regular expression.")
                    given.append(len(whole))
                    whole.append({"_id": document["_id"], **document})
                else:
                    whole.append({"_id": object_id(following, self._store.machine), **document})
                    following += 1
            encoded = [encode_document(document) for document in whole]
            whole = [bson.decode(blob) for blob in encoded]
            refuse_duplicates(self._store.documents(collection), indexes, whole, given, self._turn.session)
            self._store.catalogue.drop_unfit(collection, whole)
            ids = [document["_id"] for document in whole]
            for start in range(0, len(whole), CHUNK_DOCUMENTS):
                end = start + CHUNK_DOCUMENTS
                self._insert(collection, encoded[start:end], {"ids": ids[start:end]})
            self.last_id = max(self.last_id, following - 1, *(self._own_number(whole[at]["_id"]) for at in given), 0)
        return ids

    def _own_number(self, id_: Any) -> int:
        """An id of our own machine that came from outside (a restored copy) must not be given again."""
        return number_of(id_, self._store.machine) or 0

    def _collection(self, name: str) -> list[IndexSpec]:
        return self._store.catalogue.collection(name, self)

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
    ) -> Iterator[Document]:
        """The matching documents as this transaction has left them."""
        return self._store.find(
            collection, filter, sort=sort, limit=limit, now=now, budget=budget, session=self._turn.session
        )

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
        check: Callable[[Document], None] | None = None,
        now: datetime,
        budget: Budget | None = None,
        sort: Sequence[tuple[str, int]] = (),
        notes_unchanged: bool = False,
    ) -> WriteResult:
        """Changes the matching instances: see ``Transaction.update``."""
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
        with mongo_errors():
            indexes = self._collection(collection)
            return self._rewriting(collection).update(command, indexes, budget)

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
        with mongo_errors():
            rewriting = self._rewriting(collection)
            return rewriting.delete(rewriting.matching_ids(filter, multi, sort, None, budget))

    def delete_ids(self, collection: str, ids: Sequence[Any]) -> list[Any]:
        """Deletes the instances with these ids, as far as they are there. Returns the ids."""
        with mongo_errors():
            return self._rewriting(collection).delete(ids)

    def _rewriting(self, collection: str) -> MongoRewriting:
        return MongoRewriting(self, self._store, collection)

    def log_updates(self, collection: str, changes: Sequence[tuple[Any, bytes]]) -> None:
        """Gives numbers to updates: the id, and the new document in BSON."""
        for id_, blob in changes:
            self.seq += 1
            row: Document = {"_id": Int64(self.seq), "k": KIND_UPDATE, "c": collection, "id": id_}
            row |= {"t": Int64(self.cause.at_ms), "by": self.cause.by}
            if len(blob) <= LOGGED_BYTES_MAX:
                row["d"] = RawBSONDocument(blob)
            self._log.append(row)

    def log_deletes(self, collection: str, ids: Sequence[Any]) -> None:
        """Gives numbers to deletes."""
        for id_ in ids:
            self.seq += 1
            self._log.append({"_id": Int64(self.seq), "k": KIND_DELETE, "c": collection, "id": id_})

    @property
    def session(self) -> ClientSession:
        """The server's session of this transaction, for reads that must be in it."""
        return self._turn.session

    def write(self, collection: Documents, operations: Sequence[Any], opposites: Sequence[Any]) -> None:
        """Writes what is no instance, or moves instances without telling; see ``Turn.write``."""
        self._turn.write(collection, operations, opposites)

    # ------------------------------------------------------------------ write ids and positions

    def recall(self, gateway: str, number: int) -> bytes | None:
        """The outcome of a batch of this gateway that was committed before, or None."""
        with mongo_errors():
            row = self._store.notes.find_one({"_id": _slot(gateway, number)}, session=self._turn.session)
        return bytes(row["outcome"]) if row is not None and row["num"] == number else None

    def remember(self, gateway: str, number: int, outcome: bytes) -> None:
        """Keeps the outcome of a batch with its commit: the last ``WRITE_SLOTS`` of each gateway."""
        fields = {"num": Int64(number), "ts_ms": Int64(self._clock() * 1000), "outcome": outcome}
        self._notes.append(put(_slot(gateway, number), fields))

    def set_position(self, consumer: str, seq: int) -> None:
        """Remembers up to which change a consumer has read."""
        self._notes.append(put(f"consumer:{consumer}", {"name": consumer, "seq": Int64(seq)}))


def _slot(gateway: str, number: int) -> str:
    return f"write:{gateway}:{number % WRITE_SLOTS}"


def _deletes(ids: Any) -> list[Any]:
    return [DeleteMany({"_id": {"$in": list(ids)}})]
