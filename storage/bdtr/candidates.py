"""The entries of indexes that a plan points at: how many there are, and which documents they mean."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, func, select, union_all

from storage.bdtr import schema
from storage.bdtr.catalogue import WILD, CollectionInfo, IndexInfo
from storage.bdtr.dialects import Dialect
from storage.bdtr.identity import candidate_seqs
from storage.bdtr.keys import ANY_KEY
from storage.bdtr.planner import Access, GeoBoxes, IdLookup, KeyLookup, KeyRange, Plan, Union, rank

KEYS_PER_STATEMENT = 500

ESTIMATE_MAX = 2_000
"""Entries looked at to choose between two indexes."""

SEQ_MAX = 2**62

Bounds = tuple[int, int]


class Candidates:
    """The candidates of one plan, seen through one connection. ``bounds``: first and last change number that can match."""

    def __init__(
        self, connection: Connection, dialect: Dialect, info: CollectionInfo, machine: bytes, plan: Plan
    ) -> None:
        self._connection = connection
        self._dialect = dialect
        self._info = info
        self._machine = machine
        self._plan = plan
        self.bounds = self._bounds_of(plan)

    def _bounds_of(self, plan: Plan) -> Bounds:
        """The first and last change number that can match, from the ranges of time and ids."""
        low, high = 0, SEQ_MAX
        block = schema.block.c
        if plan.time_ms is not None:
            first, last = self._connection.execute(
                select(func.min(block.seq), func.max(block.seq + block.n_docs)).where(
                    block.collection_id == self._info.id, block.ts_ms >= plan.time_ms[0], block.ts_ms <= plan.time_ms[1]
                )
            ).one()
            if first is None:
                return 1, 0
            low, high = first, last - 1
        if plan.id_numbers is not None:
            lowest, highest = plan.id_numbers
            before = self._connection.execute(
                select(block.seq).where(block.first_id <= lowest).order_by(block.first_id.desc()).limit(1)
            ).scalar_one_or_none()
            after = self._connection.execute(
                select(block.seq).where(block.first_id > highest).order_by(block.first_id).limit(1)
            ).scalar_one_or_none()
            low = max(low, before or 0)
            high = min(high, after - 1 if after is not None else high)
        return low, high

    def best(self) -> Access | None:
        if not self._plan.accesses:
            return None
        ranked = sorted(self._plan.accesses, key=rank)
        if len(ranked) == 1 or rank(ranked[0]) <= 1:
            return ranked[0]
        estimates = [self.estimate(access) for access in ranked]
        return ranked[estimates.index(min(estimates))]

    def estimate(self, access: Access, at_most: int = ESTIMATE_MAX) -> int:
        """How many entries an access has, counted up to a limit."""
        if isinstance(access, IdLookup):
            return len(access.ids)
        if isinstance(access, Union):
            return sum(self.estimate(part, at_most) for part in access.parts)
        if isinstance(access, GeoBoxes):
            return sum(1 for _ in itertools.islice(self._geo_seqs(access), at_most))
        if isinstance(access, KeyLookup):
            access = KeyLookup(access.index, access.keys[:KEYS_PER_STATEMENT])
        statement = self._entries(access.index, lambda table: self._condition(access, table), at_most)
        n_entries: int = self._connection.execute(select(func.count()).select_from(statement.subquery())).scalar_one()
        return n_entries

    def seqs(self, access: Access) -> set[int]:
        """The numbers of the candidates."""
        found: set[int] = set()
        match access:
            case IdLookup(ids):
                found = candidate_seqs(self._connection, self._info, ids, self._machine)
            case Union(parts):
                for part in parts:
                    found |= self.seqs(part)
            case GeoBoxes():
                found.update(self._geo_seqs(access))
            case KeyLookup(index, keys):
                for start in range(0, len(keys), KEYS_PER_STATEMENT):
                    part = KeyLookup(index, keys[start : start + KEYS_PER_STATEMENT])
                    found |= self._entry_seqs(part)
            case KeyRange():
                found = self._entry_seqs(access)
        return {seq for seq in found if self.bounds[0] <= seq <= self.bounds[1]}

    def _entry_seqs(self, access: KeyLookup | KeyRange) -> set[int]:
        statement = self._entries(access.index, lambda table: self._condition(access, table))
        return set(self._connection.execute(statement).scalars())

    def _geo_seqs(self, access: GeoBoxes) -> Iterator[int]:
        box = access.index.boxes.c
        for west, east, south, north in access.boxes:
            statement = select(box.seq).where(box.x2 >= west, box.x1 <= east, box.y2 >= south, box.y1 <= north)
            yield from self._connection.execute(statement).scalars()

    def _entries(
        self, index: IndexInfo, condition: Callable[[Table], ColumnElement[bool]], limit: int | None = None
    ) -> Select[Any]:
        """The numbers in an index, merged or not."""
        parts = [select(table.c.seq).where(condition(table)) for table in self._tables(index)]
        limited = [part.limit(limit) for part in parts] if limit is not None else parts
        if len(limited) == 1:
            return limited[0]
        return select(union_all(*(select(part.subquery()) for part in limited)).subquery().c.seq)

    def _condition(self, access: KeyLookup | KeyRange, table: Table) -> ColumnElement[bool]:
        k = table.c.k
        if isinstance(access, KeyLookup):
            condition = k == access.keys[0] if len(access.keys) == 1 else k.in_(access.keys)
        else:
            condition = (k >= access.low) & (k <= access.high)
        if access.index.flags & WILD:
            condition = condition | (k == ANY_KEY)
        if self.bounds[0] > 0:
            condition = condition & (table.c.seq >= self.bounds[0])
        if self.bounds[1] < SEQ_MAX:
            condition = condition & (table.c.seq <= self.bounds[1])
        return condition

    def ordered(self, index: IndexInfo, access: KeyRange | None, direction: int) -> Iterator[int]:
        """The numbers in the order of an index, all of it or a range of it, read as they are asked for."""
        everything = access or KeyRange(index, b"", b"\xff" * 8)
        streams = []
        for table in self._tables(index):
            statement = select(table.c.k, table.c.seq).where(self._condition(everything, table))
            ends = [table.c.k, table.c.seq] if direction > 0 else [table.c.k.desc(), table.c.seq.desc()]
            streams.append(self._connection.execute(statement.order_by(*ends)))
        last: tuple[Any, ...] | None = None
        for row in heapq.merge(*streams, key=tuple, reverse=direction < 0):
            entry = tuple(row)
            if entry != last:  # being merged, an entry is in both tables
                yield entry[1]
            last = entry

    def key_after(self, index: IndexInfo, key: bytes) -> bytes | None:
        """The next greater key of an index, or None."""
        found = [
            self._connection.execute(
                # Not min(): PostgreSQL has none for bytes.
                select(table.c.k).where(table.c.k > key).order_by(table.c.k).limit(1)
            ).scalar_one_or_none()
            for table in self._tables(index)
        ]
        return min((bytes(least) for least in found if least is not None), default=None)

    def first_seq(self, index: IndexInfo, key: bytes) -> list[int]:
        """The oldest document under a key."""
        found = [
            self._connection.execute(select(func.min(table.c.seq)).where(table.c.k == key)).scalar_one()
            for table in self._tables(index)
        ]
        return sorted(seq for seq in found if seq is not None)[:1]

    def _tables(self, index: IndexInfo) -> list[Table]:
        has_hot = self._dialect.has_hot_tables and not index.spec.unique
        return [index.side, index.hot] if has_hot else [index.side]
