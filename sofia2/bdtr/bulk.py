"""The operations of ``bulk_write``. They are told by their class names: pymongo is not imported for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sib.errors import QuerySyntaxError
from sofia2.bdtr.results import BulkWriteResult, UpdateResult
from storage.open import Writing

if TYPE_CHECKING:
    from sofia2.bdtr.collection import Collection


def carry_out(
    collection: Collection, transaction: Writing, request: Any, position: int, result: BulkWriteResult
) -> None:
    """Carries out one operation and counts it."""
    kind = type(request).__name__
    if kind == "InsertOne":
        id_ = transaction.insert_document(collection.name, request._doc)
        request._doc.setdefault("_id", id_)
        result.inserted_count += 1
    elif kind in ("UpdateOne", "UpdateMany", "ReplaceOne"):
        updated = collection.update_in(
            transaction,
            request._filter,
            request._doc,
            multi=kind == "UpdateMany",
            upsert=bool(request._upsert),
            array_filters=getattr(request, "_array_filters", None),
        )
        _count(result, position, updated)
    elif kind in ("DeleteOne", "DeleteMany"):
        deleted = transaction.delete(collection.name, request._filter, multi=kind == "DeleteMany")
        result.deleted_count += len(deleted)
    else:
        raise QuerySyntaxError(
            f"bulk_write takes InsertOne, UpdateOne, UpdateMany, ReplaceOne, DeleteOne and DeleteMany, not {kind}."
        )


def _count(result: BulkWriteResult, position: int, updated: UpdateResult) -> None:
    result.matched_count += updated.matched_count
    result.modified_count += updated.modified_count
    if updated.upserted_id is not None:
        result.upserted_count += 1
        result.upserted_ids[position] = updated.upserted_id
