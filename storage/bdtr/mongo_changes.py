"""What the log of a MongoDB's partition says of its changes: each in its order, and which of them somebody has still to hear of."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from bson.objectid import ObjectId
from pymongo.client_session import ClientSession
from pymongo.database import Database

from sib.query.values import hashable
from storage.bdtr.identity import object_id
from storage.bdtr.model import Cause, Change, ChangeKind, heard_by_all
from storage.bdtr.mongo_aged import key_of
from storage.bdtr.mongo_client import mongo_errors
from storage.bdtr.mongo_session import Documents
from storage.bdtr.moving import Key

KIND_UPDATE, KIND_DELETE = 1, 2
"""In the log, as in the relational store."""

Document = dict[str, Any]


class MongoChanges:
    """The log of one partition, and up to where its consumers have read it."""

    def __init__(self, database: Database, log: Documents, notes: Documents, machine: Callable[[], bytes]) -> None:
        self._database, self._log, self._notes, self._machine = database, log, notes, machine

    def after(self, seq: int, limit: int) -> list[Change]:
        """The changes of all collections after this number, in order, at most ``limit``.

        As in the relational store: an insert that was deleted since is missing, one that was updated comes as it is now.
        """
        found: list[Change] = []
        with mongo_errors():
            begun = list(self._log.find({"_id": {"$lte": seq}}).sort("_id", -1).limit(1))
            rows = itertools.chain(begun, self._log.find({"_id": {"$gt": seq}}).sort("_id", 1).limit(limit))
            for row in rows:
                found += self._changes_of(row, seq, limit - len(found))
                if len(found) >= limit:
                    break
        return found[:limit]

    def _changes_of(self, row: Document, after_seq: int, limit: int) -> list[Change]:
        seq, name = row["_id"], row["c"]
        if "k" in row:
            if seq <= after_seq:
                return []
            kind = ChangeKind.UPDATE if row["k"] == KIND_UPDATE else ChangeKind.DELETE
            document = row.get("d")
            if document is None and kind == ChangeKind.UPDATE:  # too large to be noted twice
                document = self._database[name].find_one({"_id": row["id"]})
            cause = Cause(int(row.get("t", 0)), row.get("by", ""))
            return [Change(seq, kind, name, document, row["id"], cause)]
        skipped = max(0, after_seq + 1 - seq)
        if skipped >= row["n"]:
            return []
        ids = _ids_of_run(row, self._machine())[skipped : skipped + limit]
        documents = self._database[name].find({"_id": {"$in": ids}})
        by_id = {_hashable(document["_id"]): document for document in documents}
        numbered = ((seq + skipped + at, by_id.get(_hashable(id_))) for at, id_ in enumerate(ids))
        return [
            Change(number, ChangeKind.INSERT, name, document, document["_id"])
            for number, document in numbered
            if document is not None
        ]

    def positions(self) -> dict[str, int]:
        """Up to where each consumer has read."""
        with mongo_errors():
            rows = self._notes.find({"_id": {"$gte": "consumer:", "$lt": "consumer;"}})
            return {row["name"]: row["seq"] for row in rows}

    def unheard(self, collection: str, seq: int, session: ClientSession | None) -> Unheard:
        """The instances of a collection that a consumer has still to hear of; ``seq``: the last committed change."""
        with mongo_errors():
            heard = heard_by_all(self.positions(), seq)
            begun = self._log.find_one({"_id": {"$lte": heard + 1}}, {"_id": 1}, sort=[("_id", -1)], session=session)
            first = heard + 1 if begun is None else begun["_id"]
            return Unheard(self._log, session, {"_id": {"$gte": first}, "c": collection}, heard, self._machine())


class Unheard:
    """Instances that were inserted behind a change.

    Numbers that the store gives grow with the changes, so one comparison is enough; other ids are looked up in the log.
    """

    def __init__(
        self, log: Documents, session: ClientSession | None, behind: Document, heard: int, machine: bytes
    ) -> None:
        self._log, self._session, self._behind, self._heard, self._machine = log, session, behind, heard, machine
        runs = log.find({**behind, "first": {"$exists": True}}, session=session).sort("_id", 1).limit(2)
        self._number = next((run["first"] + skip for run in runs if (skip := self._skip(run)) < run["n"]), None)
        self._has_ids = log.find_one({**behind, "ids": {"$exists": True}}, {"_id": 1}, session=session) is not None

    def among(self, ids: Sequence[Any]) -> set[Key]:
        """The keys of those of these ids that are unheard of."""
        keys = {key_of(id_, self._machine) for id_ in ids}
        found: set[Key] = set()
        if self._number is not None:
            found.update(key for key in keys if isinstance(key, int) and key >= self._number)
        if self._has_ids:
            for run in self._log.find({**self._behind, "ids": {"$in": list(ids)}}, session=self._session):
                untold = run["ids"][self._skip(run) :]
                found.update(keys.intersection(key_of(id_, self._machine) for id_ in untold))
        return found

    def _skip(self, run: Document) -> int:
        return max(0, self._heard + 1 - int(run["_id"]))


def _ids_of_run(row: Document, machine: bytes) -> list[Any]:
    """The ids of documents that were inserted together."""
    if "ids" in row:
        return list(row["ids"])
    return [object_id(number, machine) for number in range(row["first"], row["first"] + row["n"])]


def _hashable(id_: Any) -> Any:
    return id_ if isinstance(id_, ObjectId) else hashable(id_)
