"""Values of unique indexes on MongoDB, looked at before a write: a duplicate that the server finds ends its transaction."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from bson.regex import Regex
from pymongo.client_session import ClientSession

from sib.errors import DuplicateKeyError
from sib.query.paths import values_at
from sib.query.values import MISSING, hashable
from storage.bdtr.indexes import keys_of
from storage.bdtr.model import DuplicatesInBatchError, IndexSpec
from storage.bdtr.mongo_session import Documents
from storage.bdtr.unique import sentence, shortened, values_of

CHUNK_DOCUMENTS = 500
"""Documents that one question to the server is about."""

Document = dict[str, Any]


def refuse_duplicates(
    stored: Documents,
    indexes: Sequence[IndexSpec],
    documents: Sequence[Document],
    given: Sequence[int],
    session: ClientSession | None,
) -> None:
    """Looks at documents that are to be inserted.

    Args:
        stored: the collection.
        indexes: all that are declared.
        documents: the new ones.
        given: positions of those whose ``_id`` came from outside.
        session: of the transaction.

    Raises:
        DuplicatesInBatchError: which of them, and why.
    """
    conflicts = _id_conflicts(stored, documents, given, session) if given else {}
    for spec in indexes:
        if spec.unique:
            conflicts = {**_conflicts(stored, spec, documents, frozenset(), session), **conflicts}
    if conflicts:
        raise DuplicatesInBatchError(conflicts[min(conflicts)], conflicts)


def refuse_changes(
    stored: Documents,
    indexes: Sequence[IndexSpec],
    documents: Sequence[Document],
    own: frozenset[Any],
    session: ClientSession | None,
) -> None:
    """Looks at what stored documents are to become; ``own``: their ids, hashable. Raises DuplicateKeyError."""
    for spec in indexes:
        conflicts = _conflicts(stored, spec, documents, own, session) if spec.unique else {}
        if conflicts:
            raise DuplicateKeyError(conflicts[min(conflicts)])


def _id_conflicts(
    stored: Documents, documents: Sequence[Document], given: Sequence[int], session: ClientSession | None
) -> dict[int, str]:
    conflicts: dict[int, str] = {}
    seen = set()
    for chunk in chunks([documents[at]["_id"] for at in given]):
        found = stored.find({"_id": {"$in": chunk}}, {"_id": 1}, session=session)
        seen |= {hashable(row["_id"]) for row in found}
    for at in given:
        key = hashable(documents[at]["_id"])
        if key in seen:
            conflicts[at] = (
                f"Duplicate value of _id: {shortened([documents[at]['_id']])}. Send an _id that is not stored yet."
            )
        seen.add(key)
    return conflicts


def _conflicts(
    stored: Documents,
    spec: IndexSpec,
    documents: Sequence[Document],
    own: frozenset[Any],
    session: ClientSession | None,
) -> dict[int, str]:
    conflicts: dict[int, str] = {}
    seen: set[Any] = set()
    wanted = [values_of(spec, document) for document in documents]
    for chunk in chunks(list(documents)):
        for document in stored.find(_same_values(spec, chunk), session=session):
            if hashable(document["_id"]) not in own and not _is_left_out(spec, document):
                seen |= values_of(spec, document)
    for at, (document, values) in enumerate(zip(documents, wanted, strict=True)):
        if _is_left_out(spec, document):
            continue
        if values & seen:
            conflicts[at] = sentence(spec, document)
        else:
            seen |= values
    return conflicts


def chunks(values: Sequence[Any], size: int = CHUNK_DOCUMENTS) -> Iterator[Any]:
    """Values in pieces."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _same_values(spec: IndexSpec, documents: Sequence[Document]) -> Document:
    """A filter for stored documents that may have the values of one of these in an index."""
    clauses = []
    for document in documents:
        clause = {}
        for path in spec.paths:
            values = [None if value is MISSING else value for value in values_at(document, path) or [None]]
            clause[path] = {"$in": [value for value in values if not isinstance(value, (Regex, re.Pattern))]}
        clauses.append(clause)
    if len(spec.paths) == 1:
        (path,) = spec.paths
        return {path: {"$in": [value for clause in clauses for value in clause[path]["$in"]]}}
    return {"$or": clauses}


def _is_left_out(spec: IndexSpec, document: Document) -> bool:
    """Whether a sparse index does not hold the document."""
    return spec.sparse and not keys_of(spec, document)[0]
