"""Keeping the side tables in step with the documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, delete

from storage.bdtr import geo_index
from storage.bdtr.catalogue import CollectionInfo, IndexInfo
from storage.bdtr.hot import delete_entries
from storage.bdtr.indexes import keys_of, with_context
from storage.bdtr.state import WriterState


class IndexWriter:
    """Adds and removes index entries inside a transaction, and remembers which hot tables it touched."""

    def __init__(self, state: WriterState) -> None:
        self._state = state
        self.touched: set[tuple[int, int]] = set()

    def whole(
        self, info: CollectionInfo, docs: Sequence[dict[str, Any]], heads: Sequence[bytes], now_ms: int
    ) -> list[dict[str, Any]]:
        """The documents as indexes see them: with contextData if an index reads it."""
        needs_context = any(
            path.startswith("contextData") for index in info.indexes.values() for path in index.spec.paths
        )
        return with_context(docs, heads, now_ms) if needs_context else list(docs)

    def append(
        self, info: CollectionInfo, docs: Sequence[dict[str, Any]], heads: Sequence[bytes], now_ms: int, seq: int
    ) -> None:
        """Entries of new instances of a batch."""
        if info.indexes:
            self.append_whole(info, self.whole(info, docs, heads, now_ms), seq)

    def append_whole(self, info: CollectionInfo, documents: Sequence[dict[str, Any]], seq: int) -> None:
        """Entries of new documents; their numbers follow each other from ``seq`` on."""
        for index in info.indexes.values():
            if index.spec.is_geo:
                entries = [(number, document) for number, document in enumerate(documents, seq)]
                self._add_boxes(index, entries)
                continue
            rows, flags = self._state.extractor(index)(documents, seq)
            if flags & ~index.flags:
                self._state.raise_flags(index, flags)
            if self._state.dialect.has_hot_tables and not index.spec.unique:
                self._touch(index)
                self._state.hot(index).append(self._state.connection, rows)
            else:
                self.add(index, [(k, number) for number, k in rows])

    def add(self, index: IndexInfo, entries: list[tuple[bytes, int]]) -> None:
        """Puts entries straight into their place."""
        self._state.dialect.insert_new(self._state.connection, index.side, sorted(entries))

    def replace(
        self, info: CollectionInfo, changes: Sequence[tuple[int, dict[str, Any], dict[str, Any] | None]]
    ) -> None:
        """Entries of changed or (new document None) deleted ones: (seq, old document, new document)."""
        for index in info.indexes.values():
            if index.spec.is_geo:
                self.drop_boxes(index, [(seq, old) for seq, old, _ in changes])
                self._add_boxes(index, [(seq, new) for seq, _, new in changes if new is not None])
                continue
            gone: list[tuple[bytes, int]] = []
            come: list[tuple[bytes, int]] = []
            for seq, old, new in changes:
                old_keys, _ = keys_of(index.spec, old)
                new_keys, flags = keys_of(index.spec, new) if new is not None else (set(), 0)
                self._state.raise_flags(index, flags)
                gone += [(k, seq) for k in old_keys - new_keys]
                come += [(k, seq) for k in new_keys - old_keys]
            self.drop(index, gone)
            self.add(index, come)

    def drop(self, index: IndexInfo, entries: list[tuple[bytes, int]]) -> None:
        """Takes entries out."""
        if not entries:
            return
        if self._state.dialect.has_hot_tables and not index.spec.unique:
            self._touch(index)
            self._state.hot(index).drop(self._state.connection, entries)
        else:
            delete_entries(self._state.connection, index.side, entries)

    def drop_between(self, index: IndexInfo, entries: list[tuple[bytes, int]], low: int, high: int) -> None:
        """Takes out the entries of all instances from one number to another."""
        if not entries:
            return
        if self._state.dialect.has_hot_tables and not index.spec.unique:
            self._touch(index)
            self._state.hot(index).drop_between(self._state.connection, entries, low, high)
        else:
            delete_entries(self._state.connection, index.side, sorted(entries))

    def _touch(self, index: IndexInfo) -> None:
        self.touched.add((index.collection_id, index.slot))

    def _add_boxes(self, index: IndexInfo, documents: list[tuple[int, dict[str, Any]]]) -> None:
        path = index.spec.fields[0][0]
        rows = [row for seq, document in documents for row in geo_index.rows(seq, document, path)]
        if rows:
            self._state.dialect.insert(self._state.connection, index.boxes, rows)

    def drop_boxes(self, index: IndexInfo, documents: list[tuple[int, dict[str, Any]]]) -> None:
        """Takes the boxes of (seq, document) out of a geo index."""
        path = index.spec.fields[0][0]
        numbers = [{"n_": row[0]} for seq, document in documents for row in geo_index.rows(seq, document, path)]
        if numbers:
            statement = delete(index.boxes).where(index.boxes.c.n == bindparam("n_"))
            self._state.connection.execute(statement, numbers)
