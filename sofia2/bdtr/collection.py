"""One collection with pymongo's methods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sib.errors import DuplicateKeyError, QueryError, QuerySyntaxError
from sib.query.pipeline import Output
from sib.query.projection import compile_projection
from sib.query.updater import is_operator_update
from sofia2.bdtr.cursor import Cursor, Document, Keys, Order, order, pairs
from sofia2.bdtr.results import (
    BulkWriteError,
    BulkWriteResult,
    DeleteResult,
    InsertManyResult,
    InsertOneResult,
    UpdateResult,
)
from storage.bdtr.model import GEO, ID_INDEX, DuplicatesInBatchError, IndexSpec
from storage.open import Writing

if TYPE_CHECKING:
    from sofia2.bdtr.database import Database

BEFORE, AFTER = False, True
"""``return_document`` of ``find_one_and_update``, as pymongo's ReturnDocument."""


class Collection:
    """One collection. Names, arguments and results are pymongo's; a collection is made by the first write to it."""

    def __init__(self, database: Database, name: str) -> None:
        self.database = database
        self.name = name

    # ------------------------------------------------------------------ reads

    def find(
        self,
        filter: Mapping[str, Any] | None = None,
        projection: Any = None,
        skip: int = 0,
        limit: int = 0,
        sort: Keys | None = None,
    ) -> Cursor:
        store, filter_ = self.database.store, filter or {}
        cursor = Cursor(
            lambda order, skip, limit: self._read(filter_, projection, order, skip, limit),
            lambda order, limit: store.explain(self.name, filter_, sort=order, limit=limit),
        )
        return cursor.sort(sort or []).skip(skip).limit(limit)

    def find_one(self, filter: Any = None, projection: Any = None, **options: Any) -> Document | None:
        if filter is not None and not isinstance(filter, Mapping):
            filter = {"_id": filter}
        return next(self.find(filter, projection, limit=1, **options), None)

    def _read(
        self, filter_: Mapping[str, Any], projection: Any, sort: Order, skip: int, limit: int | None
    ) -> Iterator[Document]:
        self.database.expire()
        return self.database.store.find(
            self.name, filter_, projection=projection, sort=sort, skip=skip, limit=limit, now=self.database.now()
        )

    def count_documents(self, filter: Mapping[str, Any], skip: int = 0, limit: int = 0) -> int:
        self.database.expire()
        return self.database.store.count(self.name, filter, skip=skip, limit=limit or None, now=self.database.now())

    def estimated_document_count(self) -> int:
        return self.count_documents({})

    def distinct(self, key: str, filter: Mapping[str, Any] | None = None) -> list[Any]:
        self.database.expire()
        return self.database.store.distinct(self.name, key, filter, now=self.database.now())

    def aggregate(self, pipeline: Sequence[Mapping[str, Any]]) -> Iterator[Document]:
        """The result of a pipeline; ``$out`` and ``$merge`` write into this database."""
        self.database.expire()
        return self.database.store.aggregate(self.name, pipeline, now=self.database.now(), write=self._write_output)

    def _write_output(self, output: Output, documents: Iterator[Document]) -> None:
        from sofia2.bdtr.output import write_output

        rows = list(documents)
        with self.database.begin() as transaction:
            write_output(transaction, output, rows, self.database.now())

    # ------------------------------------------------------------------ inserts

    def insert_one(self, document: Document) -> InsertOneResult:
        with self.database.begin() as transaction:
            id_ = transaction.insert_document(self.name, document)
        document.setdefault("_id", id_)
        return InsertOneResult(id_)

    def insert_many(self, documents: Iterable[Document], ordered: bool = True) -> InsertManyResult:
        """Inserts documents; of duplicates those before the first (``ordered``) or all others are stored.

        Raises:
            DuplicatesInBatchError: after that.
        """
        given = list(documents)
        failure: DuplicatesInBatchError | None = None
        with self.database.begin() as transaction:
            try:
                ids = transaction.insert_documents(self.name, given)
            except DuplicatesInBatchError as error:
                failure = error
                last = min(error.positions) if ordered else len(given)
                given = [document for at, document in enumerate(given[:last]) if at not in error.positions]
                ids = transaction.insert_documents(self.name, given)
        for document, id_ in zip(given, ids, strict=True):
            document.setdefault("_id", id_)
        if failure is not None:
            raise failure
        return InsertManyResult(ids)

    # ------------------------------------------------------------------ updates and deletes

    def update_one(
        self,
        filter: Mapping[str, Any],
        update: Any,
        upsert: bool = False,
        array_filters: Sequence[Mapping[str, Any]] | None = None,
    ) -> UpdateResult:
        return self._update(filter, _operators(update), multi=False, upsert=upsert, array_filters=array_filters)

    def update_many(
        self,
        filter: Mapping[str, Any],
        update: Any,
        upsert: bool = False,
        array_filters: Sequence[Mapping[str, Any]] | None = None,
    ) -> UpdateResult:
        return self._update(filter, _operators(update), multi=True, upsert=upsert, array_filters=array_filters)

    def replace_one(self, filter: Mapping[str, Any], replacement: Document, upsert: bool = False) -> UpdateResult:
        return self._update(filter, _whole(replacement), multi=False, upsert=upsert)

    def _update(
        self,
        filter_: Mapping[str, Any],
        update: Any,
        *,
        multi: bool,
        upsert: bool,
        array_filters: Sequence[Mapping[str, Any]] | None = None,
    ) -> UpdateResult:
        with self.database.begin() as transaction:
            return self.update_in(transaction, filter_, update, multi, upsert, array_filters)

    def update_in(
        self,
        transaction: Writing,
        filter_: Mapping[str, Any],
        update: Any,
        multi: bool,
        upsert: bool,
        array_filters: Sequence[Mapping[str, Any]] | None = None,
    ) -> UpdateResult:
        """An update inside a transaction."""
        result = transaction.update(
            self.name,
            filter_,
            update,
            multi=multi,
            upsert=upsert,
            array_filters=tuple(array_filters or ()),
            replacement=not is_operator_update(update),
            keep=(),
            now=self.database.now(),
        )
        return UpdateResult(result.matched, result.modified, result.upserted_id)

    def delete_one(self, filter: Mapping[str, Any]) -> DeleteResult:
        with self.database.begin() as transaction:
            return DeleteResult(len(transaction.delete(self.name, filter, multi=False)))

    def delete_many(self, filter: Mapping[str, Any]) -> DeleteResult:
        with self.database.begin() as transaction:
            return DeleteResult(len(transaction.delete(self.name, filter, multi=True)))

    def find_one_and_update(
        self,
        filter: Mapping[str, Any],
        update: Any,
        projection: Any = None,
        sort: Keys | None = None,
        upsert: bool = False,
        return_document: bool = BEFORE,
        array_filters: Sequence[Mapping[str, Any]] | None = None,
    ) -> Document | None:
        return self._find_and_change(
            filter, _operators(update), projection, sort, upsert, return_document, array_filters
        )

    def find_one_and_replace(
        self,
        filter: Mapping[str, Any],
        replacement: Document,
        projection: Any = None,
        sort: Keys | None = None,
        upsert: bool = False,
        return_document: bool = BEFORE,
    ) -> Document | None:
        return self._find_and_change(filter, _whole(replacement), projection, sort, upsert, return_document, None)

    def find_one_and_delete(
        self, filter: Mapping[str, Any], projection: Any = None, sort: Keys | None = None
    ) -> Document | None:
        with self.database.begin() as transaction:
            found = self._first(transaction, filter, sort)
            if found is not None:
                transaction.delete(self.name, {"_id": found["_id"]}, multi=False)
        return _projected(found, projection, filter)

    def _find_and_change(
        self,
        filter_: Mapping[str, Any],
        update: Any,
        projection: Any,
        sort: Keys | None,
        upsert: bool,
        return_document: bool,
        array_filters: Sequence[Mapping[str, Any]] | None,
    ) -> Document | None:
        with self.database.begin() as transaction:
            found = self._first(transaction, filter_, sort)
            if found is None and not upsert:
                return None
            # The filter stays in the update: the positional $ reads it.
            chosen = filter_ if found is None else {"$and": [{"_id": found["_id"]}, *([filter_] if filter_ else [])]}
            result = self.update_in(transaction, chosen, update, False, upsert, array_filters)
            if return_document:
                id_ = found["_id"] if found is not None else result.upserted_id
                found = next(transaction.find(self.name, {"_id": id_}, limit=1), None)
        return _projected(found, projection, filter_)

    def _first(self, transaction: Writing, filter_: Mapping[str, Any], sort: Keys | None) -> Document | None:
        found = transaction.find(self.name, filter_, sort=order(sort), limit=1, now=self.database.now())
        return next(found, None)

    def bulk_write(self, requests: Sequence[Any], ordered: bool = True) -> BulkWriteResult:
        """Carries out pymongo's InsertOne, UpdateOne, UpdateMany, ReplaceOne, DeleteOne and DeleteMany in one transaction.

        Raises:
            BulkWriteError: one failed (``ordered``: the following were not tried). What succeeded is stored.
        """
        from sofia2.bdtr.bulk import carry_out

        errors: dict[int, str] = {}
        result = BulkWriteResult()
        with self.database.begin() as transaction:
            for position, request in enumerate(requests):
                try:
                    with transaction.savepoint():
                        carry_out(self, transaction, request, position, result)
                except (DuplicateKeyError, QueryError, QuerySyntaxError) as error:
                    errors[position] = str(error)
                    if ordered:
                        break
        if errors:
            raise BulkWriteError(f"A bulk write failed in part: {errors[min(errors)]}", errors, result)
        return result

    def drop(self) -> None:
        """Deletes all documents and indexes."""
        self.delete_many({})
        self.drop_indexes()

    # ------------------------------------------------------------------ indexes

    def create_index(
        self,
        keys: Keys,
        *,
        unique: bool = False,
        sparse: bool = False,
        name: str = "",
        expireAfterSeconds: float | None = None,
    ) -> str:
        """Declares an index (1, -1, "2dsphere" or "2d") and fills it; nothing happens if the same one is there."""
        given = pairs(keys)
        if given == [("_id", 1)]:
            return ID_INDEX
        fields = tuple((path, GEO if kind in ("2d", GEO) else kind) for path, kind in given)
        spec = IndexSpec(fields, unique=unique, sparse=sparse, expire_after_s=expireAfterSeconds, name=name)
        with self.database.locked() as store:
            store.create_index(self.name, spec)
        return spec.name

    def index_information(self) -> dict[str, dict[str, Any]]:
        information: dict[str, dict[str, Any]] = {ID_INDEX: {"key": [("_id", 1)]}}
        for spec in self.database.store.indexes(self.name):
            entry: dict[str, Any] = {"key": list(spec.fields)}
            if spec.unique:
                entry["unique"] = True
            if spec.sparse:
                entry["sparse"] = True
            if spec.expire_after_s is not None:
                entry["expireAfterSeconds"] = spec.expire_after_s
            information[spec.name] = entry
        return information

    def list_indexes(self) -> Iterator[dict[str, Any]]:
        for name, entry in self.index_information().items():
            yield {"name": name, **entry, "key": dict(entry["key"])}

    def drop_index(self, index_or_name: Keys) -> None:
        name = index_or_name if isinstance(index_or_name, str) else IndexSpec(tuple(pairs(index_or_name))).name
        with self.database.locked() as store:
            store.drop_index(self.name, name)

    def drop_indexes(self) -> None:
        with self.database.locked() as store:
            store.ensure_collection(self.name, [])

    # ------------------------------------------------------------------ SQL

    def sql(self, text: str) -> Any:
        """Carries out one SQL-like statement, which may name any collection of this database.

        Returns:
            A list of dicts for a select (the bare number for ``select count(*)`` without alias), the number of documents
            for insert, update and delete.
        """
        from sofia2.bdtr.sql import run_sql

        return run_sql(self.database, text)


def _operators(update: Any) -> Any:
    if not is_operator_update(update):
        raise QuerySyntaxError(
            "update_one and update_many take update operators ($set …); use replace_one for a document."
        )
    return update


def _whole(replacement: Document) -> Document:
    if any(str(name).startswith("$") for name in replacement):
        raise QuerySyntaxError("replace_one takes a whole document; use update_one for update operators.")
    return replacement


def _projected(document: Document | None, projection: Any, filter_: Mapping[str, Any]) -> Document | None:
    if document is None or not projection:
        return document
    return compile_projection(projection, filter_)(document)
