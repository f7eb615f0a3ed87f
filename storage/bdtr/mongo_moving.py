"""Instances of a MongoDB that move to the history: one moment of the store, and the journal of transfers beside it.

The key of an instance is its ``_id``: the number in a generated one, which is short, or else the ``_id`` in BSON. So also
what other programs have written moves, and what came from another partition or an older installation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import bson
from bson.binary import Binary
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteMany, InsertOne, ReplaceOne
from pymongo.client_session import ClientSession

from sib.errors import NotFoundError
from sib.query.budget import Budget
from storage.bdtr.identity import object_id
from storage.bdtr.mongo_aged import AgedPage, key_of, raw
from storage.bdtr.mongo_client import mongo_errors
from storage.bdtr.mongo_session import Documents
from storage.bdtr.moving import Aged, Key, digest_of
from storage.bdtr.planner import TIME_PATH
from storage.bdtr.transfers import PUBLISHED_KEPT_S, Committed, Receipt, State, TransferRow, with_stale

if TYPE_CHECKING:
    from storage.bdtr.mongo import MongoStore
    from storage.bdtr.mongo_reader import MongoReader
    from storage.bdtr.mongo_transaction import MongoTransaction

CHUNK_DOCUMENTS = 1_000

_EPOCH = datetime(1970, 1, 1)
OTHER_TYPES = ("double", "string", "object", "objectId", "bool", "int", "long", "decimal")
"""Of values that are no dates, at the place of one."""


def _id_of(key: Key, machine: bytes) -> Any:
    return object_id(key, machine) if isinstance(key, int) else bson.decode(key)["_id"]


def _by_key(
    documents: Documents, machine: bytes, keys: Sequence[Key], session: ClientSession | None
) -> dict[Key, bytes]:
    found: dict[Key, bytes] = {}
    for start in range(0, len(keys), CHUNK_DOCUMENTS):
        ids = [_id_of(key, machine) for key in keys[start : start + CHUNK_DOCUMENTS]]
        for document in raw(documents).find({"_id": {"$in": ids}}, session=session):
            found[key_of(document["_id"], machine)] = bytes(document.raw)
    return found


class MongoSnapshot:
    """A store at one moment: its instances and its journal of transfers fit together."""

    def __init__(self, store: MongoReader, transfers: Documents, session: ClientSession | None) -> None:
        self._store = store
        self._transfers = transfers
        self._session = session

    def transfers(self, collection: str) -> list[TransferRow]:
        """The journal of a collection, oldest first."""
        with mongo_errors():
            rows = self._transfers.find({"collection": collection}, session=self._session).sort("_id", 1)
            return [_transfer_row(row) for row in rows]

    def aged(self, collection: str, before_ms: int, after: Aged | None, limit: int) -> list[Aged]:
        """Instances behind another one that were inserted before a moment or at an unknown time; see ``mongo_aged``.

        None that a consumer has still to hear of. Fewer than ``limit`` if their ids are long; none only if there are no more.
        """
        moment = _EPOCH + timedelta(milliseconds=before_ms)
        with mongo_errors():
            unheard = self._store.unheard(collection, self._session)
            documents, machine = self._store.documents(collection), self._store.machine
            return AgedPage(documents, self._session, machine, limit, unheard.among).find(moment, after)

    def by_seq(self, collection: str, seqs: Sequence[Key]) -> dict[Key, bytes]:
        """The instances with these keys, as far as they are there."""
        with mongo_errors():
            return _by_key(self._store.documents(collection), self._store.machine, seqs, self._session)

    def inserted(self, collection: str, bounds: Mapping[str, Any]) -> Mapping[str, Any]:
        """The filter of the instances that were inserted between bounds (``$gte``, ``$lte``) or at an unknown time.

        Each part of it can be found by the index of the time.
        """
        return {"$or": [{TIME_PATH: bounds}, {TIME_PATH: None}, {TIME_PATH: {"$type": list(OTHER_TYPES)}}]}

    def find(
        self, collection: str, filter_: Mapping[str, Any], *, budget: Budget | None = None, now: datetime | None = None
    ) -> Iterator[dict[str, Any]]:
        """The instances that match."""
        return self._store.find(collection, filter_, budget=budget, now=now, session=self._session)


class MongoJournal:
    """The steps of a transfer; see ``TransferJournal``, whose meanings these are."""

    def __init__(self, store: MongoStore) -> None:
        self._store = store
        self._rows = store.transfers

    def plan(self, collection: str, files: list[dict[str, Any]], receipt: bytes, now_ms: int) -> int:
        """Note what will be moved; returns the number of the transfer."""
        with self._store.begin() as transaction, mongo_errors():
            last = next(self._rows.find({}, {"_id": 1}, session=transaction.session).sort("_id", -1).limit(1), None)
            number = 1 + (0 if last is None else int(last["_id"]))
            row = {
                "_id": Int64(number),
                "collection": collection,
                "state": int(State.PLANNED),
                "ts_ms": Int64(now_ms),
                "files": json.dumps(files),
                "receipt": Binary(receipt),
            }
            transaction.write(self._rows, [InsertOne(row)], [DeleteMany({"_id": number})])
        return number

    def commit(self, number: int, files: list[dict[str, Any]], *, accept_stale: bool) -> Committed:
        """Take the instances out and mark the transfer DONE, in one transaction.

        Raises:
            NotFoundError: there is no such transfer (it was abandoned).
        """
        with self._store.begin() as transaction, mongo_errors():
            stored = self._rows.find_one({"_id": number}, session=transaction.session)
            if stored is None:
                raise NotFoundError(f"There is no transfer {number}.")
            row = _transfer_row(stored)
            if row.state is not State.PLANNED or row.receipt is None:
                return Committed(True, 0, 0)
            seqs, digests = row.receipt.seqs, row.receipt.digests
            documents = self._store.documents(row.collection)
            blobs = _by_key(documents, self._store.machine, seqs, transaction.session)
            stale = [at for at, seq in enumerate(seqs) if seq not in blobs or digest_of(blobs[seq]) != digests[at]]
            if stale and not accept_stale:
                return Committed(False, 0, len(stale))
            gone = set(stale)
            _take_out(transaction, documents, [blobs[seq] for at, seq in enumerate(seqs) if at not in gone])
            done = {"state": int(State.DONE), "files": json.dumps(with_stale(files, stale)), "receipt": None}
            self._replace(transaction, stored, done)
        return Committed(True, len(seqs) - len(stale), len(stale))

    def abandon(self, number: int) -> None:
        """Forget a planned transfer. Its files must be gone before."""
        with self._store.begin() as transaction, mongo_errors():
            is_it = {"_id": number, "state": int(State.PLANNED)}
            stored = self._rows.find_one(is_it, session=transaction.session)
            if stored is not None:
                transaction.write(self._rows, [DeleteMany(is_it)], [InsertOne(stored)])

    def publish(self, numbers: Sequence[int], now_ms: int) -> None:
        """The manifest has the files of these transfers. Rows published long ago are deleted."""
        with self._store.begin() as transaction, mongo_errors():
            done = {"_id": {"$in": list(numbers)}, "state": int(State.DONE)}
            for stored in list(self._rows.find(done, session=transaction.session)):
                self._replace(transaction, stored, {"state": int(State.PUBLISHED), "ts_ms": Int64(now_ms)})
            before_ms = now_ms - int(PUBLISHED_KEPT_S * 1000)
            # The newest row stays: its number is where the next one begins.
            last = next(self._rows.find({}, {"_id": 1}, session=transaction.session).sort("_id", -1).limit(1), None)
            if last is not None:
                old = {"state": int(State.PUBLISHED), "ts_ms": {"$lt": before_ms}, "_id": {"$lt": last["_id"]}}
                rows = list(self._rows.find(old, session=transaction.session))
                if rows:
                    transaction.write(self._rows, [DeleteMany(old)], [InsertOne(row) for row in rows])

    def _replace(self, transaction: MongoTransaction, stored: dict[str, Any], values: dict[str, Any]) -> None:
        is_it = {"_id": stored["_id"]}
        transaction.write(self._rows, [ReplaceOne(is_it, {**stored, **values})], [ReplaceOne(is_it, stored)])


def _take_out(transaction: MongoTransaction, documents: Documents, blobs: Sequence[bytes]) -> None:
    for start in range(0, len(blobs), CHUNK_DOCUMENTS):
        chunk = [RawBSONDocument(blob) for blob in blobs[start : start + CHUNK_DOCUMENTS]]
        ids = [document["_id"] for document in chunk]
        transaction.write(documents, [DeleteMany({"_id": {"$in": ids}})], [InsertOne(document) for document in chunk])


def _transfer_row(row: Mapping[str, Any]) -> TransferRow:
    receipt = None if row["receipt"] is None else Receipt.from_bytes(bytes(row["receipt"]))
    return TransferRow(int(row["_id"]), row["collection"], State(row["state"]), json.loads(row["files"]), receipt)
