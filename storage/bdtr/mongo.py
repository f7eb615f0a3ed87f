"""The BDTR on MongoDB: collections named like the ontologies, beside a few of the partition's own.

The partition notes in ``sofia2.<partition>.state`` its counters, collections, outcomes and positions, and in
``sofia2.<partition>.log`` every change by its number, both in the transaction of the write itself. TTL indexes are plain
ones on the server: the partition removes what is too old, so that its consumers hear of it and nothing goes before it
has been moved to the BDH.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from bson.binary import Binary
from bson.int64 import Int64
from pymongo import DeleteMany

from sib.errors import ConfigurationError, StoreError
from storage.bdtr import mongo_checks as checks
from storage.bdtr.model import Change, ChangeKind, IndexSpec
from storage.bdtr.mongo_catalogue import MongoCatalogue, make
from storage.bdtr.mongo_client import Client, connect, mongo_errors
from storage.bdtr.mongo_notes import FORMAT, checked_format
from storage.bdtr.mongo_reader import MongoReader
from storage.bdtr.mongo_session import Documents, Turn
from storage.bdtr.mongo_transaction import MongoTransaction

INDEXES_MAX = 62
"""Declared indexes of one collection: MongoDB allows 64, and two are always there."""
EXPIRE_DOCUMENTS = 1_000
"""Expired documents that one transaction deletes."""
EXPIRE_CHUNKS = 20
"""Chunks of one call of ``expire``; the rest waits for the next call."""
TRIM_ROWS = 20_000
"""Rows of the log that one call of ``trim_changes`` deletes."""
WRITE_IDS_KEPT_S = 3_600.0
"""How long the outcome of a batch is remembered for a retry."""
MACHINE_BYTES = 5

_FOREIGN_KINDS = {
    "insert": ChangeKind.INSERT,
    "update": ChangeKind.UPDATE,
    "replace": ChangeKind.UPDATE,
    "delete": ChangeKind.DELETE,
}


class MongoStore(MongoReader):
    """One partition of a BDTR on MongoDB. Readers are safe for several threads; not to be used across a fork.

    All methods may raise StoreUnavailableError (try again) and StoreError.
    """

    def __init__(self, client: Client, database: str, partition: str, clock: Callable[[], float]) -> None:
        super().__init__(client, database, partition, clock)
        self._transaction: MongoTransaction | None = None
        self._turn: Turn | None = None
        self._seq = 0
        self._written: MongoCatalogue | None = None

    @classmethod
    def open(cls, url: str, *, writer: bool, clock: Callable[[], float] = time.time) -> Self:
        """Opens a store; a writer makes it if it is not there.

        Args:
            url: ``mongodb://HOST/DATABASE``; ``partition=NAME`` in its options names one of several.
            writer: whether this process writes. More than one writer is safe, but they wait for each other.
            clock: seconds since 1970.

        Raises:
            ConfigurationError: the URL is wrong, the server has no transactions, or the store has another format.
            StoreUnavailableError: the server cannot be reached or does not let us in.
        """
        client, database, partition = connect(url)
        store = cls(client, database, partition, clock)
        if writer:
            try:
                with mongo_errors():
                    store._set_up()
            except BaseException:
                client.close()
                raise
        return store

    def _set_up(self) -> None:
        self.check_transactions()
        for made in (self._notes, self._log, self.transfers):
            make(self._database, made.name)
        fields = {"format": FORMAT, "seq": Int64(0), "last_id": Int64(0), "catalogue": 0, "turns": 0}
        # The machine part of the ObjectIds: fixed for ever, so that ids of the store can be told from others.
        fields["machine"] = Binary(os.urandom(MACHINE_BYTES))
        self._notes.update_one({"_id": "state"}, {"$setOnInsert": fields}, upsert=True)
        self._seq = int(self._state()["seq"])
        self._turn = Turn(self._client, self._notes)
        self._written = MongoCatalogue(self._database, self._turn)

    def close(self) -> None:
        """Closes all connections. A transaction under way is lost."""
        if self._turn is not None:
            self._turn.close()
        super().close()

    @property
    def seq(self) -> int:
        """The number of the last committed change."""
        return self._seq if self._turn is not None else super().seq

    # ------------------------------------------------------------------ for the transaction

    @property
    def turn(self) -> Turn:
        if self._turn is None:
            raise StoreError("This BDTR was opened for reading only; open it with writer=True.")
        return self._turn

    @property
    def catalogue(self) -> MongoCatalogue:
        """The collections with their indexes, for writing."""
        assert self._written is not None
        return self._written

    @property
    def notes(self) -> Documents:
        return self._notes

    @property
    def log(self) -> Documents:
        return self._log

    def learn(self, state: Mapping[str, Any]) -> None:
        """Takes over what the partition has noted, at the begin of a transaction."""
        checked_format(dict(state))
        self._machine = bytes(state["machine"])
        self.catalogue.learn(state["catalogue"], self.load_catalogue)

    def committed(self, seq: int, last_id: int) -> None:
        self._seq = int(seq)
        self.catalogue.committed()

    # ------------------------------------------------------------------ writing

    @contextmanager
    def begin(self) -> Iterator[MongoTransaction]:
        """A transaction: durable on a normal exit, taken back when an exception leaves it.

        Raises:
            StoreError: the store was opened for reading, or a transaction is under way.
        """
        if self._transaction is not None:
            raise StoreError("A transaction of this store is under way already; end it first.")
        self._transaction = MongoTransaction(self, self._clock)
        try:
            with self._transaction as transaction:
                yield transaction
        finally:
            self._transaction = None

    @contextmanager
    def _transact(self) -> Iterator[MongoTransaction]:
        """In the transaction that is under way, or in one of its own."""
        if self._transaction is not None:
            yield self._transaction
            return
        with self.begin() as transaction:
            yield transaction

    def ensure_collection(self, name: str, indexes: Sequence[IndexSpec]) -> None:
        """Makes a collection if it is not there, and gives it exactly these indexes. Idempotent.

        Raises:
            DuplicateKeyError: a new index is unique and what is stored is not. The index is not there afterwards.
            ConfigurationError: too many indexes, or one that the server cannot have.
        """
        if len(indexes) > INDEXES_MAX:
            raise ConfigurationError(f"The collection {name!r} would have more than {INDEXES_MAX} indexes; drop some.")
        with self._transact() as transaction, mongo_errors():
            failure = self.catalogue.ensure(name, indexes, transaction)
        if failure is not None:
            raise failure

    def create_index(self, collection: str, spec: IndexSpec) -> None:
        """Adds one index; as ``ensure_collection`` otherwise. Nothing happens if the same one is there."""
        present = [index for index in self.indexes(collection) if index.name != spec.name]
        self.ensure_collection(collection, [*present, spec])

    def drop_index(self, collection: str, name: str) -> None:
        """Drops one index. Raises StoreError if there is none of this name."""
        declared = self.indexes(collection)
        if name not in [spec.name for spec in declared]:
            raise StoreError(f"The collection {collection!r} has no index {name!r}.")
        self.ensure_collection(collection, [spec for spec in declared if spec.name != name])

    # ------------------------------------------------------------------ foreign writers

    def foreign_changes(
        self, resume_after: Mapping[str, Any] | None = None, *, wait_s: float = 1.0
    ) -> Iterator[tuple[Change | None, Mapping[str, Any] | None]]:
        """What others write into the collections of this database, by a change stream: they give no change numbers.

        Yields (change, token), and (None, token) about every ``wait_s`` when nothing comes: keep the token with what was
        done about the change and give it to the next call. At least once: after a restart, what this partition wrote
        since the token comes too. Updates come as the documents are now. Needs a replica set.
        """
        pipeline = [{"$match": {"operationType": {"$in": list(_FOREIGN_KINDS)}}}]
        options: dict[str, Any] = {"full_document": "updateLookup", "max_await_time_ms": max(1, int(wait_s * 1000))}
        own = self.turn.session.session_id["id"]
        with mongo_errors(), self._database.watch(pipeline, resume_after=resume_after, **options) as stream:
            while stream.alive:
                event = stream.try_next()
                change = None if event is None else _foreign_change(event, own)
                yield change, stream.resume_token

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
        """What changes from now on has numbers beyond ``seq``. Idempotent; not inside a transaction."""
        with mongo_errors():
            self._notes.update_one({"_id": "state"}, {"$max": {"seq": Int64(seq)}})
        self._seq = max(self._seq, seq)

    def forget_consumers(self, names: Iterable[str]) -> None:
        """Removes the positions of consumers that are gone."""
        with mongo_errors():
            self._notes.delete_many({"_id": {"$in": [f"consumer:{name}" for name in names]}})

    def trim_changes(self, before_seq: int, bound: int) -> int:
        """Forgets updates and deletes with smaller numbers, and the oldest beyond ``bound`` rows.

        At most ``TRIM_ROWS`` a call; returns how many. Runs of inserts before them go too; documents are not touched.
        """
        is_change = {"k": {"$exists": True}}
        with mongo_errors():
            end = before_seq - 1
            if self._log.estimated_document_count() > bound:
                surplus = self._log.count_documents(is_change) - bound
                if surplus > 0:
                    last = (
                        self._log.find(is_change, {"_id": 1}).sort("_id", 1).skip(min(surplus, TRIM_ROWS) - 1).limit(1)
                    )
                    end = max(end, *(row["_id"] for row in last))
            first = self._log.find({"_id": {"$lte": end}}, {"_id": 1}).sort("_id", 1).limit(TRIM_ROWS)
            oldest = [row["_id"] for row in first]
            if not oldest:
                return 0
            until = {"$lte": oldest[-1]}
            done: int = self._log.delete_many({"_id": until, **is_change}).deleted_count
            # The last run before the end may reach beyond it.
            runs = {"_id": until, "n": {"$exists": True}, "$expr": {"$lt": [{"$add": ["$_id", "$n"]}, before_seq]}}
            self._log.delete_many(runs)
            return done

    def expire(self, now: float) -> int:
        """Deletes instances that are older than their TTL index allows; returns how many. Call it about once a second.

        At most ``EXPIRE_CHUNKS`` transactions of ``EXPIRE_DOCUMENTS`` each.
        """
        n_deleted = 0
        for name, specs in list(self._catalogue().items()):
            for spec in specs:
                if spec.expire_after_s is not None:
                    n_deleted += self._expire(name, spec, now - spec.expire_after_s)
        return n_deleted

    def _expire(self, name: str, spec: IndexSpec, before_s: float) -> int:
        moment = datetime.fromtimestamp(0, UTC).replace(tzinfo=None) + timedelta(milliseconds=int(before_s * 1000))
        filter_ = {spec.paths[0]: {"$lt": moment}}
        n_deleted = 0
        for _ in range(EXPIRE_CHUNKS):
            with mongo_errors():
                found = [row["_id"] for row in self._database[name].find(filter_, {"_id": 1}).limit(EXPIRE_DOCUMENTS)]
            if not found:
                break
            with self.begin() as transaction:
                n_deleted += len(transaction.delete_ids(name, found))
            if len(found) < EXPIRE_DOCUMENTS:
                break
        return n_deleted

    def checkpoint(self) -> None:
        """Forgets old write ids. Call it on a timer."""
        before_ms = int((self._clock() - WRITE_IDS_KEPT_S) * 1000)
        with mongo_errors():
            old = {"_id": {"$gte": "write:", "$lt": "write;"}, "ts_ms": {"$lt": before_ms}}
            self._notes.bulk_write([DeleteMany(old)])


def _foreign_change(event: Mapping[str, Any], own_session: Any) -> Change | None:
    """A change of somebody else; None for our own, which are transactions of our session and tell it."""
    session = event.get("lsid") or {}
    name = event["ns"]["coll"]
    if session.get("id") == own_session or name.startswith((checks.INTERNAL, "system.")):
        return None
    kind = _FOREIGN_KINDS[event["operationType"]]
    return Change(0, kind, name, event.get("fullDocument"), event["documentKey"]["_id"])
