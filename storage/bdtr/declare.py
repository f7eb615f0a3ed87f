"""Declaring indexes: making, filling and dropping their side tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bson
from sqlalchemy import Table, delete, insert, select, text

from sib.errors import ConfigurationError, DuplicateKeyError
from storage.bdtr import geo_index, schema
from storage.bdtr.catalogue import BUILDING, CollectionInfo, IndexInfo, spec_to_json
from storage.bdtr.indexes import keys_of
from storage.bdtr.maintenance import IndexWriter
from storage.bdtr.model import IndexSpec
from storage.bdtr.state import WriterState
from storage.bdtr.unique import batch_conflicts

INDEXES_MAX = 64
"""Declared indexes of one collection, as MongoDB has it."""


def differing(info: CollectionInfo, wanted: Sequence[IndexSpec]) -> tuple[list[str], list[IndexSpec]]:
    """The names of indexes to drop and the indexes to make so that the collection has the wanted ones."""
    if len(wanted) > INDEXES_MAX:
        raise ConfigurationError(f"The collection {info.name!r} would have more than {INDEXES_MAX} indexes; drop some.")
    by_name = {spec.name: spec for spec in wanted}
    same = {name for name, index in info.indexes.items() if by_name.get(name) == index.spec and index.is_ready}
    return [name for name in info.indexes if name not in same], [spec for spec in wanted if spec.name not in same]


def create(state: WriterState, info: CollectionInfo, spec: IndexSpec) -> IndexInfo:
    """Makes the tables of an index. From now on writers maintain it; queries wait until it is filled."""
    # A number never comes again: a reader that still knows a dropped index must not read another one in its place.
    first = state.catalogue_version * INDEXES_MAX
    slot = 1 + max((index.slot for index in info.indexes.values()), default=first)
    slot = max(slot, first + 1)
    index = IndexInfo(info.id, slot, spec, BUILDING)
    connection = state.connection
    if spec.is_geo and state.dialect.has_rtree:
        connection.execute(text(geo_index.create_statement(index)))
    else:
        for table in _tables(state, index):
            state.create_table(table)
    connection.execute(
        insert(schema.side_index).values(
            collection_id=info.id, slot=slot, name=spec.name, spec=spec_to_json(spec), flags=BUILDING
        )
    )
    info.indexes[spec.name] = index
    state.is_catalogue_changed = True
    return index


def drop(state: WriterState, info: CollectionInfo, name: str) -> None:
    """Drops an index and its tables."""
    index = info.indexes.pop(name)
    connection = state.connection
    for table in _tables(state, index):
        state.drop_table(table)
    row = schema.side_index.c
    connection.execute(delete(schema.side_index).where(row.collection_id == info.id, row.slot == index.slot))
    state.forget_index(index)
    state.is_catalogue_changed = True


def _tables(state: WriterState, index: IndexInfo) -> list[Table]:
    if index.spec.is_geo:
        return [index.boxes]
    return [index.side, index.hot] if state.dialect.has_hot_tables else [index.side]


def fill(state: WriterState, info: CollectionInfo, index: IndexInfo, after_seq: int, n_documents: int) -> int | None:
    """Adds the entries of some older documents. Returns the number reached, or None when there are no more.

    Raises:
        DuplicateKeyError: the index is unique and the documents are not; drop it.
    """
    docs = info.documents.c
    rows = state.connection.execute(
        select(docs.seq, docs.doc).where(docs.seq > after_seq).order_by(docs.seq).limit(n_documents)
    ).all()
    documents = [(seq, bson.decode(blob)) for seq, blob in rows]
    if index.spec.unique:
        _refuse_duplicates(state, info, index, documents)
    if index.spec.is_geo:
        path = index.spec.fields[0][0]
        boxes = [row for seq, document in documents for row in geo_index.rows(seq, document, path)]
        if boxes:
            state.dialect.insert_new(state.connection, index.boxes, boxes)
    else:
        entries = []
        for seq, document in documents:
            keys, flags = keys_of(index.spec, document)
            state.raise_flags(index, flags)
            entries += [(key, seq) for key in keys]
        IndexWriter(state).add(index, entries)
    return rows[-1].seq if len(rows) == n_documents else None


def _refuse_duplicates(
    state: WriterState, info: CollectionInfo, index: IndexInfo, documents: list[tuple[int, dict[str, Any]]]
) -> None:
    own = frozenset(seq for seq, _ in documents)
    conflicts = batch_conflicts(state.connection, info, index, [document for _, document in documents], own)
    if conflicts:
        raise DuplicateKeyError(f"The index {index.spec.name!r} was not made: {conflicts[min(conflicts)]}")


def finish(state: WriterState, index: IndexInfo) -> None:
    """From now on queries use the index."""
    index.flags &= ~BUILDING
    state.save_index_flags(index)
