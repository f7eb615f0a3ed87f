"""Updates and deletes on MongoDB: the server finds, we compute what an instance becomes, and whole documents are written.

So an update means the same on every backend, ``contextData`` stays, and an instance is checked before it is stored.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import bson
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteMany, InsertOne, ReplaceOne

from sib.errors import LimitError
from sib.query.budget import Budget
from sib.query.updater import upsert_seed
from sib.query.values import hashable
from storage.bdtr.assembly import encode_document
from storage.bdtr.model import DOCUMENTS_KEPT_MAX, IndexSpec, WriteResult
from storage.bdtr.mongo_unique import CHUNK_DOCUMENTS, chunks, refuse_changes
from storage.bdtr.rewriting import WRITES_MAX, UpdateCommand, Updater

if TYPE_CHECKING:
    from storage.bdtr.mongo import MongoStore
    from storage.bdtr.mongo_transaction import MongoTransaction

Document = dict[str, Any]


class MongoRewriting:
    """One update or delete of instances of a collection, inside a transaction."""

    def __init__(self, transaction: MongoTransaction, store: MongoStore, collection: str) -> None:
        self._transaction, self._store, self._collection = transaction, store, collection
        self._documents = store.documents(collection)
        self._result = WriteResult()

    def update(self, command: UpdateCommand, indexes: Sequence[IndexSpec], budget: Budget | None) -> WriteResult:
        """Changes the matching instances; see ``Transaction.update``."""
        apply = command.updater(budget)
        ids = self.matching_ids(command.filter, command.multi, command.sort, command.now, budget)
        if not ids and command.upsert:
            self._upsert(command, apply)
        # With a unique index each document must see what the ones before it have become.
        size = 1 if any(spec.unique for spec in indexes) else CHUNK_DOCUMENTS
        for chunk in self._stored(ids, size):
            self._rewrite(indexes, command, [(old, command.changed(apply, old)) for old in chunk])
            if budget is not None:
                budget.spend(len(chunk))
        return self._result

    def delete(self, ids: Sequence[Any]) -> list[Any]:
        """Deletes the instances with these ids, as far as they are there. Returns the ids."""
        gone: list[Any] = []
        for chunk in self._stored(ids, CHUNK_DOCUMENTS):
            of_chunk = [document["_id"] for document in chunk]
            opposites = [InsertOne(document) for document in chunk]
            self._transaction.write(self._documents, [DeleteMany({"_id": {"$in": of_chunk}})], opposites)
            self._transaction.log_deletes(self._collection, of_chunk)
            gone += of_chunk
        return gone

    def matching_ids(
        self,
        filter_: Mapping[str, Any],
        multi: bool,
        sort: Sequence[tuple[str, int]],
        now: datetime | None,
        budget: Budget | None,
    ) -> list[Any]:
        """The ids of the matching instances, or of the first one.

        Raises:
            LimitError: more than one write may change.
        """
        found = self._store.find(
            self._collection,
            filter_,
            sort=sort,
            limit=None if multi else 1,
            projection={"_id": 1},
            now=now,
            budget=budget,
            session=self._transaction.session,
        )
        ids = [document["_id"] for document in itertools.islice(found, WRITES_MAX + 1)]
        if len(ids) > WRITES_MAX:
            raise LimitError(f"The write would change more than {WRITES_MAX} instances at once: narrow its condition.")
        return ids

    def _stored(self, ids: Sequence[Any], n_documents: int) -> Iterator[list[Document]]:
        """The documents with these ids in chunks."""
        for chunk in chunks(ids, n_documents):
            found = self._documents.find({"_id": {"$in": chunk}}, session=self._transaction.session)
            by_id = {hashable(document["_id"]): document for document in found}
            present = [by_id[key] for key in map(hashable, chunk) if key in by_id]
            if present:
                yield present

    def _rewrite(
        self, indexes: Sequence[IndexSpec], command: UpdateCommand, chunk: list[tuple[Document, Document]]
    ) -> None:
        encoded = [(old, encode_document(old), encode_document(new)) for old, new in chunk]
        self._result.matched += len(encoded)
        self._result.ids += [old["_id"] for old, _, _ in encoded]
        changed = [(old, before, after, bson.decode(after)) for old, before, after in encoded if after != before]
        if changed:
            news = [new for _, _, _, new in changed]
            own = frozenset(hashable(old["_id"]) for old, _, _, _ in changed)
            refuse_changes(self._documents, indexes, news, own, self._transaction.session)
            self._store.catalogue.drop_unfit(self._collection, news)
            self._transaction.write(
                self._documents,
                [ReplaceOne({"_id": old["_id"]}, RawBSONDocument(after)) for old, _, after, _ in changed],
                [ReplaceOne({"_id": old["_id"]}, RawBSONDocument(before)) for old, before, _, _ in changed],
            )
            self._transaction.log_updates(self._collection, [(new["_id"], after) for _, _, after, new in changed])
            self._result.modified += len(changed)
            self._report([old for old, _, _, _ in changed], news)
        unchanged = [(old, before) for old, before, after in encoded if after == before]
        if command.notes_unchanged and unchanged:
            self._transaction.log_updates(self._collection, [(old["_id"], before) for old, before in unchanged])
            documents = [old for old, _ in unchanged]
            self._report(documents, documents)

    def _upsert(self, command: UpdateCommand, apply: Updater) -> None:
        seed = upsert_seed(command.filter, is_replacement=command.replacement)
        new = apply(seed, command.now, True)
        if command.check is not None:
            command.check(new)
        result, id_ = self._result, self._transaction.insert_document(self._collection, new)
        result.upserted_id = id_
        result.ids.append(id_)
        if result.documents is not None:
            rest = {name: value for name, value in new.items() if name != "_id"}
            result.documents.append({"_id": id_, **rest})

    def _report(self, before: list[Document], after: list[Document]) -> None:
        result = self._result
        kept = result.documents, result.before
        if kept[0] is None or kept[1] is None or len(kept[0]) + len(after) > DOCUMENTS_KEPT_MAX:
            result.documents = result.before = None
            return
        kept[0].extend(after)
        kept[1].extend(before)
