"""Carrying out a plan: candidates by index, then their documents, then the exact matcher."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import bson
from sqlalchemy import Connection, select

from sib.query.budget import Budget, Context
from sib.query.geo_operators import find_near, sort_by_distance
from sib.query.matcher import compile_filter
from sib.query.paths import Predicate
from sib.query.sorting import read_sort, sort_documents
from storage.bdtr.candidates import Bounds, Candidates
from storage.bdtr.catalogue import INEXACT, MULTIKEY, TIME_OFF, TIME_UNORDERED, WILD, CollectionInfo, IndexInfo
from storage.bdtr.dialects import Dialect
from storage.bdtr.keys import NULL_KEY
from storage.bdtr.planner import TIME_PATH, Access, KeyLookup, KeyRange, Plan, describe, plan_filter

CHUNK_DOCUMENTS = 500
"""Documents read by one statement; between two of them nothing is held open."""

STREAM_OVER = 5_000
"""With a sort and a limit: more candidates than this are not sorted, the order is read from an index instead."""

Session = Callable[[], AbstractContextManager[Connection]]
Match = tuple[int, dict[str, Any]]


class Searcher:
    """Finds documents of one collection.

    Args:
        session: opens a short read (or gives the writer's connection): each is left before a document is handed out.
        dialect: of the database.
        info: the collection as the catalogue has it at the moment of the first read.
        machine: of the store, to know generated ids.
        budget: time the search may take; None is no limit.
        now: the time of ``$$NOW``.
    """

    def __init__(
        self,
        session: Session,
        dialect: Dialect,
        info: CollectionInfo,
        machine: bytes,
        *,
        budget: Budget | None = None,
        now: datetime | None = None,
    ) -> None:
        self._session = session
        self._dialect = dialect
        self._info = info
        self._machine = machine
        self._budget = budget if budget is not None else Budget()
        self._context = Context(budget=self._budget, now=now)

    def matches(
        self, filter_spec: Mapping[str, Any], *, sort: Sequence[tuple[str, int]] = (), limit: int | None = None
    ) -> Iterator[Match]:
        """The matching documents with their numbers: by ``sort``, else nearest first with ``$near``, else oldest first.

        ``limit`` counts from the first one and includes what the caller skips.
        """
        predicate = compile_filter(filter_spec, self._context)
        if limit == 0:
            return iter(())
        order = read_sort(sort) if sort else []
        with self._session() as connection:
            candidates = self._candidates(connection, plan_filter(filter_spec, self._info))
            direction = self._direction_of_seq(order)
            near = find_near(filter_spec) if not order else None
            if direction and near is None:
                found = self._in_order_of_seq(candidates, predicate, direction)
                return itertools.islice(found, limit)
            if order and limit is not None and near is None:
                streamed = self._in_order_of_index(connection, candidates, predicate, order, limit)
                if streamed is not None:
                    return iter(streamed)
            found = self._in_order_of_seq(candidates, predicate, 1)
        return self._sorted(found, order, limit, filter_spec) if order or near else found

    def _candidates(self, connection: Connection, plan: Plan) -> Candidates:
        return Candidates(connection, self._dialect, self._info, self._machine, plan)

    def explain(
        self, filter_spec: Mapping[str, Any], *, sort: Sequence[tuple[str, int]] = (), limit: int | None = None
    ) -> list[str]:
        """What ``matches`` would do, one step a line."""
        compile_filter(filter_spec, self._context)
        order = read_sort(sort) if sort else []
        lines: list[str] = []
        with self._session() as connection:
            plan = plan_filter(filter_spec, self._info)
            candidates = self._candidates(connection, plan)
            best = candidates.best()
            index = self._index_of_order(order) if limit is not None and not self._direction_of_seq(order) else None
            if index is not None and self._is_worth_streaming(candidates, best, index[0]):
                lines.append(f"read the index {index[0].spec.name} in its order until {limit} documents match")
            else:
                lines.append(describe(best) if best is not None else f"read all of {self._info.name!r}")
        if plan.time_ms is not None:
            lines.append("narrow by the automatic index on contextData.timestamp")
        if plan.id_numbers is not None:
            lines.append("narrow by the time in _id")
        if filter_spec:
            lines.append("check each document exactly")
        if order and self._direction_of_seq(order):
            lines.append("the order of insertion is the order asked for")
        elif order and index is None:
            lines.append("sort by " + ", ".join(f"{path} {way}" for path, way in order))
        return lines

    def of_different_keys(self, path: str) -> Iterator[dict[str, Any]] | None:
        """Documents that have all different values of a path between them, found by an index that skips equal keys.

        None if there is no such index, or one that cannot tell (arrays, long values).
        """
        for index in self._info.indexes.values():
            if index.is_ready and index.spec.paths == (path,) and not index.spec.is_geo and _tells_values(index):
                return self._of_different_keys(index)
        return None

    def _of_different_keys(self, index: IndexInfo) -> Iterator[dict[str, Any]]:
        key: bytes | None = b""
        while key is not None:
            with self._session() as connection:
                candidates = self._candidates(connection, Plan())
                key = candidates.key_after(index, key)
                first = candidates.first_seq(index, key) if key is not None else []
                blobs: Iterable[bytes] = self._documents(connection, first).values() if first else ()
                if key == NULL_KEY:
                    # Here are also the documents that lack the field: only looking tells.
                    seqs = sorted(candidates.seqs(KeyLookup(index, (key,))))
                    blobs = (blob for _, blob in self._fetch(seqs))
            for blob in blobs:
                self._budget.spend()
                yield bson.decode(blob)

    # ------------------------------------------------------------------ documents

    def _in_order_of_seq(self, candidates: Candidates, predicate: Predicate, direction: int) -> Iterator[Match]:
        """All matches, oldest or newest first. The candidates are read now, the documents when they are asked for."""
        best = candidates.best()
        if best is None:
            return self._checked(self._scan(candidates.bounds, direction), predicate)
        seqs = sorted(candidates.seqs(best), reverse=direction < 0)
        return self._checked(self._fetch(seqs), predicate)

    def _checked(self, rows: Iterable[tuple[int, bytes]], predicate: Predicate) -> Iterator[Match]:
        spend = self._budget.spend
        for seq, blob in rows:
            spend()
            document = bson.decode(blob)
            if predicate(document):
                yield seq, document

    def _scan(self, bounds: Bounds, direction: int) -> Iterator[tuple[int, bytes]]:
        docs = self._info.documents.c
        low, high = bounds
        n_documents = 50
        while low <= high:
            statement = select(docs.seq, docs.doc).where(docs.seq >= low, docs.seq <= high).limit(n_documents)
            with self._session() as connection:
                rows = connection.execute(statement.order_by(docs.seq if direction > 0 else docs.seq.desc())).all()
            yield from rows
            if len(rows) < n_documents:
                return
            if direction > 0:
                low = rows[-1].seq + 1
            else:
                high = rows[-1].seq - 1
            n_documents = CHUNK_DOCUMENTS

    def _fetch(self, seqs: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        start, n_documents = 0, 50
        while start < len(seqs):
            chunk = seqs[start : start + n_documents]
            with self._session() as connection:
                found = self._documents(connection, chunk)
            yield from ((seq, found[seq]) for seq in chunk if seq in found)
            start += n_documents
            n_documents = CHUNK_DOCUMENTS

    def _documents(self, connection: Connection, seqs: Sequence[int]) -> dict[int, bytes]:
        docs = self._info.documents.c
        if len(seqs) == 1:
            statement = select(docs.seq, docs.doc).where(docs.seq == seqs[0])
        else:
            statement = select(docs.seq, docs.doc).where(docs.seq.in_(seqs))
        return dict(connection.execute(statement).tuples().all())

    # ------------------------------------------------------------------ order

    def _direction_of_seq(self, order: Sequence[tuple[str, int]]) -> int:
        """1 or -1 if the order asked for is that of the change numbers, or its opposite; else 0."""
        if len(order) != 1:
            return 0
        path, direction = order[0]
        is_insertion = (path == TIME_PATH and not self._info.flags & (TIME_OFF | TIME_UNORDERED)) or (
            path == "_id" and not self._info.has_foreign_ids
        )
        return direction if is_insertion else 0

    def _index_of_order(self, order: Sequence[tuple[str, int]]) -> tuple[IndexInfo, int] | None:
        """An index whose order is the one asked for, and the direction to read it in."""
        for index in self._info.indexes.values():
            if not index.is_ready or index.spec.sparse or index.spec.is_geo or not _tells_values(index):
                continue
            if len(index.spec.fields) == 1:
                # A single key is stored ascending whatever the declaration says.
                if len(order) == 1 and order[0][0] == index.spec.fields[0][0]:
                    return index, order[0][1]
            elif tuple(order) == index.spec.fields:
                return index, 1
            elif tuple(order) == tuple((path, -int(kind)) for path, kind in index.spec.fields):
                return index, -1
        return None

    @staticmethod
    def _is_worth_streaming(candidates: Candidates, best: Access | None, index: IndexInfo) -> bool:
        if best is None or (isinstance(best, KeyRange) and best.index is index):
            return True
        return candidates.estimate(best, STREAM_OVER) >= STREAM_OVER

    def _in_order_of_index(
        self,
        connection: Connection,
        candidates: Candidates,
        predicate: Predicate,
        order: Sequence[tuple[str, int]],
        limit: int,
    ) -> list[Match] | None:
        """The first matches in the order of an index, read until there are enough; None if that is no good way."""
        found = self._index_of_order(order)
        if found is None:
            return None
        index, direction = found
        best = candidates.best()
        if not self._is_worth_streaming(candidates, best, index):
            return None
        access = best if isinstance(best, KeyRange) and best.index is index else None
        matches: list[Match] = []
        entries = candidates.ordered(index, access, direction)
        n_documents = max(20, min(limit, CHUNK_DOCUMENTS))
        while len(matches) < limit:
            seqs = list(itertools.islice(entries, n_documents))
            if not seqs:
                break
            blobs = self._documents(connection, seqs)
            matches += self._checked(((seq, blobs[seq]) for seq in seqs if seq in blobs), predicate)
            n_documents = CHUNK_DOCUMENTS
        return matches[:limit]

    def _sorted(
        self,
        found: Iterable[Match],
        order: Sequence[tuple[str, int]],
        limit: int | None,
        filter_spec: Mapping[str, Any],
    ) -> Iterator[Match]:
        numbered = (_Numbered(seq, document) for seq, document in found)
        if order:
            ordered = sort_documents(numbered, order, limit, self._budget)
        else:
            near = find_near(filter_spec)
            assert near is not None
            ordered = sort_by_distance(self._held(numbered), near)[:limit]
        return ((document.seq, dict(document)) for document in ordered if isinstance(document, _Numbered))

    def _held(self, documents: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for document in documents:
            self._budget.hold()
            yield document


def _tells_values(index: IndexInfo) -> bool:
    """Whether each document has one entry, and equal entries mean equal values."""
    return not index.flags & (MULTIKEY | INEXACT | WILD)


class _Numbered(dict[str, Any]):
    """A document that remembers its number while it is sorted."""

    __slots__ = ("seq",)

    def __init__(self, seq: int, document: dict[str, Any]) -> None:
        super().__init__(document)
        self.seq = seq
