"""Instances that move to the history: found by their age, and taken out again if nobody changed them meanwhile.

Moving is no change of an instance: the feed does not tell of it, and nothing is added to the change log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import bson
from sqlalchemy import Connection, bindparam, delete, func, select

from storage.bdtr import schema
from storage.bdtr.catalogue import CollectionInfo
from storage.bdtr.hot import delete_entries
from storage.bdtr.keys import key_of
from storage.bdtr.maintenance import IndexWriter
from storage.bdtr.state import WriterState

CHUNK_DOCUMENTS = 5_000
BLOCKS_PER_STATEMENT = 2_000
DIGEST_BYTES = 8


Key: TypeAlias = int | bytes
"""How a store finds an instance again: by its number, or by ``{"_id": …}`` in BSON where it has none."""


class Aged(NamedTuple):
    """A stored instance: its key and its BSON."""

    seq: Key
    blob: bytes


def digest_of(blob: bytes) -> bytes:
    """What tells one version of an instance from another."""
    return hashlib.blake2b(blob, digest_size=DIGEST_BYTES).digest()


def aged_documents(
    connection: Connection, info: CollectionInfo, before_ms: int, after_seq: int, last_seq: int, limit: int
) -> list[Aged]:
    """Instances in the order of their numbers that were inserted before a moment or at an unknown time.

    None behind ``last_seq``. What an instance says of its own time has to be looked at still: an update may have changed it.
    """
    docs = info.documents.c
    found: list[Aged] = []
    for low, high in _ranges(connection, info.id, before_ms, after_seq, last_seq):
        rows = connection.execute(
            select(docs.seq, docs.doc)
            .where(docs.seq >= low, docs.seq <= high)
            .order_by(docs.seq)
            .limit(limit - len(found))
        )
        found += [Aged(seq, blob) for seq, blob in rows.tuples()]
        if len(found) >= limit:
            break
    return found


def _ranges(
    connection: Connection, collection_id: int, before_ms: int, after_seq: int, last_seq: int
) -> Iterator[tuple[int, int]]:
    """Where such instances are, as runs of numbers, neighbours joined."""
    block = schema.block.c
    pending: tuple[int, int] | None = None
    position = after_seq
    while True:
        rows = connection.execute(
            select(block.seq, block.n_docs)
            .where(
                block.collection_id == collection_id,
                block.ts_ms < before_ms,
                block.seq + block.n_docs > position + 1,
                block.seq <= last_seq,
            )
            .order_by(block.seq)
            .limit(BLOCKS_PER_STATEMENT)
        ).all()
        for seq, n_docs in rows:
            low, high = max(seq, after_seq + 1), min(seq + n_docs - 1, last_seq)
            if pending is not None and pending[1] + 1 == low:
                pending = pending[0], high
                continue
            if pending is not None:
                yield pending
            pending = low, high
        if len(rows) < BLOCKS_PER_STATEMENT:
            break
        position = rows[-1].seq + rows[-1].n_docs - 1
    if pending is not None:
        yield pending


class Moving:
    """Takes instances out of a collection inside a transaction."""

    def __init__(self, state: WriterState, indexes: IndexWriter, info: CollectionInfo) -> None:
        self._state = state
        self._connection = state.connection
        self._indexes = indexes
        self._info = info

    def changed(self, seqs: Sequence[int], digests: Sequence[bytes]) -> list[int]:
        """The positions of those that are gone or not in this version any more."""
        found: list[int] = []
        for start in range(0, len(seqs), CHUNK_DOCUMENTS):
            numbers = seqs[start : start + CHUNK_DOCUMENTS]
            blobs = self._blobs(numbers)
            for at, seq in enumerate(numbers, start):
                blob = blobs.get(seq)
                if blob is None or digest_of(blob) != digests[at]:
                    found.append(at)
        return found

    def take_out(self, seqs: Sequence[int]) -> None:
        """Deletes the instances with these numbers (all of them are there), with their index entries."""
        for start in range(0, len(seqs), CHUNK_DOCUMENTS):
            numbers = sorted(seqs[start : start + CHUNK_DOCUMENTS])
            is_whole = self._count_between(numbers[0], numbers[-1]) == len(numbers)
            if self._info.indexes or self._info.has_foreign_ids:
                blobs = self._blobs(numbers)
                self._drop_entries(numbers, [bson.decode(blobs[seq]) for seq in numbers], is_whole)
            self._delete(numbers, is_whole)
        self._drop_empty_blocks(sorted(seqs))

    def _blobs(self, seqs: Sequence[int]) -> dict[int, bytes]:
        docs = self._info.documents.c
        wanted = set(seqs)
        rows = self._connection.execute(
            select(docs.seq, docs.doc).where(docs.seq >= min(wanted), docs.seq <= max(wanted))
        )
        return {seq: blob for seq, blob in rows.tuples() if seq in wanted}

    def _count_between(self, low: int, high: int) -> int:
        documents = self._info.documents
        between = (documents.c.seq >= low, documents.c.seq <= high)
        return int(self._connection.execute(select(func.count()).select_from(documents).where(*between)).scalar_one())

    def _delete(self, numbers: Sequence[int], is_whole: bool) -> None:
        documents = self._info.documents
        seq = documents.c.seq
        if is_whole:
            self._connection.execute(delete(documents).where(seq >= numbers[0], seq <= numbers[-1]))
            return
        statement = delete(documents).where(seq == bindparam("seq_"))
        self._connection.execute(statement, [{"seq_": number} for number in numbers])

    def _drop_entries(self, numbers: Sequence[int], documents: list[dict[str, Any]], is_whole: bool) -> None:
        for index in self._info.indexes.values():
            if index.spec.is_geo:
                self._indexes.drop_boxes(index, list(zip(numbers, documents, strict=True)))
                continue
            rows, _ = self._state.extractor(index)(documents, 0)
            entries = [(k, numbers[at]) for at, k in rows]
            if is_whole:
                self._indexes.drop_between(index, entries, numbers[0], numbers[-1])
            else:
                self._indexes.drop(index, sorted(entries))
        if self._info.has_foreign_ids:
            foreign = [(key_of(document["_id"])[0], seq) for seq, document in zip(numbers, documents, strict=True)]
            delete_entries(self._connection, self._info.ids, foreign)

    def _drop_empty_blocks(self, numbers: Sequence[int]) -> None:
        """Rows of ``t_block`` none of whose instances is left."""
        block, docs = schema.block.c, self._info.documents.c
        first, last = numbers[0], numbers[-1]
        left = (
            select(docs.seq).where(docs.seq >= block.seq, docs.seq < block.seq + block.n_docs).correlate(schema.block)
        )
        self._connection.execute(
            delete(schema.block).where(
                block.collection_id == self._info.id,
                block.seq <= last,
                block.seq + block.n_docs > first,
                block.seq >= self._first_block(first),
                ~left.exists(),
            )
        )

    def _first_block(self, seq: int) -> int:
        block = schema.block.c
        row = self._connection.execute(
            select(block.seq).where(block.seq <= seq).order_by(block.seq.desc()).limit(1)
        ).scalar()
        return seq if row is None else int(row)
