"""``$out`` and ``$merge``: a pipeline's result becomes documents."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sib.errors import QueryError
from sib.query.paths import read_exact, split_path
from sib.query.pipeline import Output
from sib.query.values import MISSING
from storage.open import Writing

Document = dict[str, Any]


def write_output(transaction: Writing, output: Output, documents: Sequence[Document], now: datetime) -> None:
    """Writes all the documents, or none.

    Raises:
        QueryError: ``whenMatched`` or ``whenNotMatched`` is "fail" and it happened, or a field of ``on`` is missing.
        DuplicateKeyError: a unique index is broken.
    """
    if output.kind == "out":
        transaction.delete(output.target, {}, multi=True)
        transaction.insert_documents(output.target, documents)
        return
    for document in documents:
        _merge(transaction, output, document, now)


def _merge(transaction: Writing, output: Output, document: Document, now: datetime) -> None:
    criterion = {path: _value(document, path) for path in output.on}
    existing = next(transaction.find(output.target, criterion, limit=1), None)
    if existing is None:
        if output.when_not_matched == "fail":
            raise QueryError(f"$merge found no document in {output.target!r} for {criterion!r}.")
        if output.when_not_matched == "insert":
            transaction.insert_document(output.target, document)
        return
    if output.when_matched == "fail":
        raise QueryError(f"$merge found a document in {output.target!r} for {criterion!r} already.")
    if output.when_matched == "keepExisting":
        return
    combine = output.combine
    made = combine(existing, document) if combine is not None else {**document, "_id": existing["_id"]}
    transaction.update(
        output.target, {"_id": existing["_id"]}, made, multi=False, replacement=True, keep=("_id",), now=now
    )


def _value(document: Document, path: str) -> Any:
    value = read_exact(document, split_path(path))
    if value is MISSING:
        raise QueryError(f"$merge needs the field {path!r} in every document.")
    return value
