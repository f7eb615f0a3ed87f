"""Whether documents would break a unique index. Keys may be shared by different values, so the documents decide."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import bson
from sqlalchemy import Connection, select

from sib.query.paths import values_at
from sib.query.values import MISSING, SortKey, sort_key
from storage.bdtr.catalogue import CollectionInfo, IndexInfo
from storage.bdtr.identity import stored_ids
from storage.bdtr.indexes import keys_of
from storage.bdtr.model import IndexSpec
from storage.bdtr.state import WriterState

KEYS_PER_LOOKUP = 500


def batch_conflicts(
    connection: Connection,
    info: CollectionInfo,
    index: IndexInfo,
    documents: Sequence[dict[str, Any]],
    own_seqs: frozenset[int] = frozenset(),
) -> dict[int, str]:
    """The positions of documents that repeat a value of a stored one or of one before them, each with a sentence.

    ``own_seqs``: stored documents that do not count because these ones replace them.
    """
    keys = [sorted(keys_of(index.spec, document)[0]) for document in documents]
    stored = _stored(connection, info, index, {key for of_one in keys for key in of_one}, own_seqs)
    conflicts: dict[int, str] = {}
    for position, (document, of_one) in enumerate(zip(documents, keys, strict=True)):
        values = values_of(index.spec, document)
        if any(values & other for key in of_one for other in stored.get(key, ())):
            conflicts[position] = sentence(index.spec, document)
            continue
        for key in of_one:
            stored.setdefault(key, []).append(values)
    return conflicts


def _stored(
    connection: Connection, info: CollectionInfo, index: IndexInfo, keys: set[bytes], own_seqs: frozenset[int]
) -> dict[bytes, list[set[tuple[SortKey, ...]]]]:
    side, docs = index.side.c, info.documents.c
    found: dict[bytes, list[set[tuple[SortKey, ...]]]] = {}
    for chunk in _chunks(sorted(keys)):
        query = select(side.k, docs.seq, docs.doc).join(info.documents, docs.seq == side.seq).where(side.k.in_(chunk))
        for k, seq, blob in connection.execute(query):
            if seq not in own_seqs:
                found.setdefault(bytes(k), []).append(values_of(index.spec, bson.decode(blob)))
    return found


def _chunks(keys: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(keys), KEYS_PER_LOOKUP):
        yield keys[start : start + KEYS_PER_LOOKUP]


def values_of(spec: IndexSpec, document: dict[str, Any]) -> set[tuple[SortKey, ...]]:
    """What must differ: the combinations of values at the paths of the index, missing as null."""
    columns = [
        [sort_key(None if value is MISSING else value) for value in values_at(document, path) or [None]]
        for path in spec.paths
    ]
    return set(itertools.product(*columns))


def sentence(spec: IndexSpec, document: dict[str, Any]) -> str:
    """What to say of a document that breaks the index."""
    values = ", ".join(f"{path} = {shortened(values_at(document, path))}" for path in spec.paths)
    return f"Duplicate value of the unique index {spec.name!r}: {values}. Send a value that is not stored yet."


def shortened(values: list[Any]) -> str:
    """Values for a sentence, with a bound."""
    text = repr([None if value is MISSING else value for value in values])[1:-1]
    return text if len(text) <= 100 else text[:100] + "…"


def id_conflict(
    state: WriterState, info: CollectionInfo, documents: Sequence[dict[str, Any]], is_generated: Sequence[bool]
) -> dict[int, str]:
    """The positions of documents whose given ``_id`` is stored already or repeats one before."""
    conflicts: dict[int, str] = {}
    seen: set[SortKey] = set()
    given = [document["_id"] for document, generated in zip(documents, is_generated, strict=True) if not generated]
    stored = stored_ids(state.connection, info, given, state.machine)
    for position, (document, generated) in enumerate(zip(documents, is_generated, strict=True)):
        if generated:
            continue
        key = sort_key(document["_id"])
        if key in stored or key in seen:
            conflicts[position] = (
                f"Duplicate value of _id: {shortened([document['_id']])}. Send an _id that is not stored yet."
            )
        seen.add(key)
    return conflicts
