"""The relational BDTR: a document store with MongoDB's semantics on a relational database. One writer, many readers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Self

from sqlalchemy import Connection, delete, func, inspect, select

from sib.errors import LimitError, QuerySyntaxError, StoreError, StoreUnavailableError
from sib.query.budget import Budget
from sib.query.paths import values_at
from sib.query.pipeline import Write, run_pipeline
from sib.query.projection import compile_projection
from sib.query.values import MISSING, hashable
from storage.bdtr import catalogue, changes, declare, schema
from storage.bdtr.catalogue import Catalogue, CollectionInfo
from storage.bdtr.dialects import Dialect, dialect_of, store_errors
from storage.bdtr.expiry import expired_seqs
from storage.bdtr.hot import count_rows
from storage.bdtr.model import (
    Change,
    ChangeKind,
    DuplicatesInBatchError,
    IndexSpec,
    WriteResult,
    context_head,
)
from storage.bdtr.search import Searcher
from storage.bdtr.state import WriterState
from storage.bdtr.transaction import Transaction

__all__ = [
    "Change",
    "ChangeKind",
    "DuplicatesInBatchError",
    "IndexSpec",
    "RelationalStore",
    "Transaction",
    "WriteResult",
    "context_head",
]

BUILD_DOCUMENTS = 20_000
"""Documents that one transaction adds to a new index."""
EXPIRE_DOCUMENTS = 5_000
"""Expired documents that one transaction deletes, so that readers and writers are not held up."""
EXPIRE_CHUNKS = 20
"""Chunks of one call of ``expire``; the rest waits for the next call."""
TRIM_ROWS = 20_000
"""Rows of the change log that one call of ``trim_changes`` deletes."""
WRITE_IDS_KEPT_S = 3_600.0
"""How long the outcome of a batch is remembered for a retry."""
DISTINCT_MAX = 100_000
"""Different values that ``distinct`` collects."""


class RelationalStore:
    """One database of instances. A writer has a connection of its own; readers open short reads from a pool.

    Of the methods that read, each sees every commit made before it was called. Not to be used across a fork.
    All methods may raise StoreUnavailableError (try again) and StoreError.
    """

    def __init__(self, dialect: Dialect, state: WriterState | None, clock: Callable[[], float]) -> None:
        self._dialect = dialect
        self._state = state
        self._clock = clock
        self._transaction: Transaction | None = None
        self._readers = dialect.reader_engine()
        self._catalogue: Catalogue = {}
        self._catalogue_version = -1
        self._machine = state.machine if state is not None else b""

    @classmethod
    def open(cls, url: str, *, writer: bool, clock: Callable[[], float] = time.time) -> Self:
        """Opens a store; a writer makes it if it is not there.

        Args:
            url: ``sqlite:PATH``.
            writer: whether this process writes. More than one writer is safe, but they wait for each other.
            clock: seconds since 1970.

        Raises:
            ConfigurationError: the URL is wrong, or the store has another format.
        """
        dialect = dialect_of(url)
        with store_errors():
            return cls(dialect, WriterState(dialect) if writer else None, clock)

    def close(self) -> None:
        """Closes all connections. A transaction under way is lost."""
        self._readers.dispose()
        if self._state is not None:
            self._state.close()

    @property
    def machine(self) -> bytes:
        """The five bytes in the middle of all ObjectIds that this store gives."""
        if not self._machine:
            with self._session() as connection:
                self._refresh(connection)
        return self._machine

    @property
    def seq(self) -> int:
        """The number of the last committed change."""
        if self._state is not None and self._transaction is None:
            return self._state.seq
        with self._session() as connection:
            row = schema.meta.c
            seq: int = connection.execute(select(row.num).where(row.name == "seq")).scalar_one()
            return seq

    # ------------------------------------------------------------------ writing

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """A transaction: durable on a normal exit, taken back when an exception leaves it.

        Raises:
            StoreError: the store was opened for reading, or a transaction is under way.
        """
        if self._state is None:
            raise StoreError("This BDTR was opened for reading only; open it with writer=True.")
        if self._transaction is not None:
            raise StoreError("A transaction of this store is under way already; end it first.")
        self._transaction = Transaction(self._state, self._clock)
        try:
            with self._transaction as transaction:
                yield transaction
        finally:
            self._transaction = None

    @contextmanager
    def _transact(self) -> Iterator[WriterState]:
        """In the transaction that is under way, or in one of its own."""
        if self._transaction is not None and self._state is not None:
            with store_errors():
                yield self._state
            return
        with self.begin():
            assert self._state is not None
            with store_errors():
                yield self._state

    def ensure_collection(self, name: str, indexes: Sequence[IndexSpec]) -> None:
        """Makes a collection if it is not there, and gives it exactly these indexes. Idempotent.

        New indexes are filled in chunks with a commit each (in one piece inside a transaction). If that is interrupted,
        the next call starts it again.

        Raises:
            DuplicateKeyError: a new index is unique and what is stored is not. The index is not there afterwards.
            ConfigurationError: too many indexes, or one that this database cannot have.
        """
        with self._transact() as state:
            info = state.collection(name)
            gone, new = declare.differing(info, indexes)
            for index_name in gone:
                declare.drop(state, info, index_name)
            for spec in new:
                declare.create(state, info, spec)
        for spec in new:
            self._build(name, spec.name)

    def create_index(self, collection: str, spec: IndexSpec) -> None:
        """Adds one index; as ``ensure_collection`` otherwise. Nothing happens if the same one is there."""
        with self._transact() as state:
            info = state.collection(collection)
            present = [index.spec for index in info.indexes.values() if index.spec.name != spec.name]
        self.ensure_collection(collection, [*present, spec])

    def drop_index(self, collection: str, name: str) -> None:
        """Drops one index. Raises StoreError if there is none of this name."""
        with self._transact() as state:
            info = state.collection(collection)
            if name not in info.indexes:
                raise StoreError(f"The collection {collection!r} has no index {name!r}.")
            declare.drop(state, info, name)

    def _build(self, collection: str, name: str) -> None:
        reached: int | None = 0
        try:
            while reached is not None:
                with self._transact() as state:
                    info = state.collection(collection)
                    reached = declare.fill(state, info, info.indexes[name], reached, BUILD_DOCUMENTS)
                    if reached is None:
                        declare.finish(state, info.indexes[name])
        except Exception:
            with self._transact() as state:
                info = state.collection(collection)
                if name in info.indexes:
                    declare.drop(state, info, name)
            raise

    # ------------------------------------------------------------------ reading

    @contextmanager
    def _session(self) -> Iterator[Connection]:
        with store_errors(), self._readers.connect() as connection, connection.begin():
            yield connection

    def _refresh(self, connection: Connection) -> Catalogue:
        if self._catalogue_version < 0 and not inspect(connection).has_table(schema.meta.name):
            raise StoreUnavailableError("The BDTR has not been set up yet; start the platform, or wait for it.")
        row = schema.meta.c
        version = connection.execute(select(row.num).where(row.name == "catalogue")).scalar_one()
        if version != self._catalogue_version:
            self._catalogue = catalogue.load(connection)
            self._catalogue_version = version
            self._machine = bytes(connection.execute(select(row.raw).where(row.name == "machine")).scalar_one())
        return self._catalogue

    def _searcher(self, collection: str, budget: Budget | None, now: datetime | None) -> Searcher | None:
        with self._session() as connection:
            info = self._refresh(connection).get(collection)
        if info is None:
            return None
        moment = now if now is not None else self._now()
        return Searcher(self._session, self._dialect, info, self._machine, budget=budget, now=moment)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC).replace(tzinfo=None)

    def find(
        self,
        collection: str,
        filter: Mapping[str, Any] | None = None,
        *,
        sort: Sequence[tuple[str, int]] | Mapping[str, int] | None = None,
        skip: int = 0,
        limit: int | None = None,
        projection: Any = None,
        budget: Budget | None = None,
        now: datetime | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The matching documents: in the order of ``sort``, nearest first with ``$near``, else oldest first.

        Raises:
            QuerySyntaxError, QueryError, QueryTimeoutError, LimitError: as the query engine does, some of them late.
        """
        project = compile_projection(projection, filter or {}) if projection else None
        searcher = self._searcher(collection, budget, now)
        if searcher is None:
            return
        order = list(sort.items() if isinstance(sort, Mapping) else sort or ())
        end = None if limit is None else skip + limit
        for _, document in islice(searcher.matches(filter or {}, sort=order, limit=end), skip, end):
            yield document if project is None else project(document)

    def count(
        self,
        collection: str,
        filter: Mapping[str, Any] | None = None,
        *,
        skip: int = 0,
        limit: int | None = None,
        budget: Budget | None = None,
        now: datetime | None = None,
    ) -> int:
        """How many documents match, after skip and limit. Without a filter this is a number that the store keeps."""
        if not filter:
            total = self._n_docs(collection)
        else:
            searcher = self._searcher(collection, budget, now)
            if searcher is None:
                return 0
            total = sum(1 for _ in searcher.matches(filter, limit=None if limit is None else skip + limit))
        total = max(0, total - skip)
        return total if limit is None else min(total, limit)

    def _n_docs(self, collection: str) -> int:
        row = schema.collection.c
        with self._session() as connection:
            self._refresh(connection)
            found = connection.execute(select(row.n_docs).where(row.name == collection)).scalar_one_or_none()
        return found or 0

    def distinct(
        self,
        collection: str,
        field: str,
        filter: Mapping[str, Any] | None = None,
        *,
        budget: Budget | None = None,
        now: datetime | None = None,
    ) -> list[Any]:
        """The different values of a field, arrays unrolled, missing left out, in the order of first appearance."""
        searcher = self._searcher(collection, budget, now)
        found: dict[Any, Any] = {}
        for _, document in searcher.matches(filter or {}) if searcher is not None else ():
            for value in values_at(document, field, expand=False):
                for element in value if isinstance(value, list) else (value,):
                    if element is not MISSING:
                        found.setdefault(hashable(element), element)
            if len(found) > DISTINCT_MAX:
                raise LimitError(
                    f"The field {field!r} has more than {DISTINCT_MAX} different values: narrow the condition."
                )
        return list(found.values())

    def aggregate(
        self,
        collection: str,
        pipeline: Sequence[Mapping[str, Any]],
        *,
        budget: Budget | None = None,
        now: datetime | None = None,
        write: Write | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The result of a pipeline. Its leading ``$match``, ``$sort`` and ``$limit`` use the indexes.

        Args:
            collection: where its documents come from.
            pipeline: MongoDB's.
            budget: time and memory it may use.
            now: ``$$NOW``.
            write: carries out ``$out`` and ``$merge``; without it they are refused.
        """
        filter_, order, limit, rest = split_pipeline(pipeline)
        budget = budget if budget is not None else Budget()
        moment = now if now is not None else self._now()
        geo_paths = [spec.paths[0] for spec in self.indexes(collection) if spec.is_geo]
        return run_pipeline(
            self.find(collection, filter_, sort=order, limit=limit, budget=budget, now=moment),
            rest,
            collection=lambda name: self.find(name, budget=budget, now=moment),
            now=moment,
            budget=budget,
            write=write,
            geo_path=geo_paths[0] if len(geo_paths) == 1 else None,
        )

    def explain(
        self,
        collection: str,
        filter: Mapping[str, Any] | None = None,
        *,
        sort: Sequence[tuple[str, int]] | Mapping[str, int] | None = None,
        limit: int | None = None,
        now: datetime | None = None,
    ) -> list[str]:
        """How a find would be carried out, one step a line."""
        searcher = self._searcher(collection, None, now)
        if searcher is None:
            return [f"the collection {collection!r} is empty"]
        order = list(sort.items() if isinstance(sort, Mapping) else sort or ())
        return searcher.explain(filter or {}, sort=order, limit=limit)

    def collections(self) -> list[str]:
        """The names of all collections."""
        with self._session() as connection:
            return sorted(self._refresh(connection))

    def indexes(self, collection: str) -> list[IndexSpec]:
        """The declared indexes of a collection (without those on ``_id`` and ``contextData.timestamp``)."""
        with self._session() as connection:
            info = self._refresh(connection).get(collection)
        return [] if info is None else [index.spec for index in info.indexes.values()]

    def stats(self) -> dict[str, Any]:
        """Sizes and counts, for people and metrics."""
        with self._session() as connection:
            found = self._refresh(connection)
            counts = dict(
                connection.execute(select(schema.collection.c.name, schema.collection.c.n_docs)).tuples().all()
            )
            return {
                "size_bytes": self._dialect.size_bytes(),
                "changes_logged": count_rows(connection, schema.change_log),
                "collections": {
                    name: {"documents": counts.get(name, 0), "indexes": [*info.indexes]} for name, info in found.items()
                },
            }

    # ------------------------------------------------------------------ changes

    def changes(self, after_seq: int, limit: int) -> list[Change]:
        """The changes of all collections after this number, in order, at most ``limit``."""
        with self._session() as connection:
            return changes.read_changes(connection, after_seq, limit)

    def positions(self) -> dict[str, int]:
        """Up to where each consumer has read."""
        row = schema.consumer.c
        with self._session() as connection:
            return dict(connection.execute(select(row.name, row.seq)).tuples().all())

    def save_positions(self, positions: Mapping[str, int]) -> None:
        """Remembers positions in a transaction of its own, if they differ from those stored."""
        stored = self.positions()
        differing = {name: seq for name, seq in positions.items() if stored.get(name) != seq}
        if differing:
            with self.begin() as transaction:
                for name, seq in differing.items():
                    transaction.set_position(name, seq)

    def forget_consumers(self, names: Iterable[str]) -> None:
        """Removes the positions of consumers that are gone."""
        with self._transact() as state:
            state.connection.execute(delete(schema.consumer).where(schema.consumer.c.name.in_(list(names))))

    def trim_changes(self, before_seq: int, bound: int) -> int:
        """Forgets updates and deletes with smaller numbers, and the oldest beyond ``bound`` rows.

        At most ``TRIM_ROWS`` a call; returns how many. Documents are not touched.
        """
        log = schema.change_log.c
        with self._session() as connection:
            if connection.execute(select(func.min(log.seq))).scalar_one() is None:
                return 0
        with self._transact() as state:
            return changes.trim_changes(state.connection, before_seq, bound, TRIM_ROWS)

    # ------------------------------------------------------------------ upkeep

    def expire(self, now: float) -> int:
        """Deletes instances that are older than their TTL index allows; returns how many. Call it about once a second.

        At most ``EXPIRE_CHUNKS`` transactions of ``EXPIRE_DOCUMENTS`` each.
        """
        if self._state is None:
            raise StoreError("This BDTR was opened for reading only; open it with writer=True.")
        n_deleted = 0
        for info, index_name in self._ttl_indexes(self._state.catalogue.values()):
            for _ in range(EXPIRE_CHUNKS):
                with self.begin() as transaction:
                    info = self._state.collection(info.name)
                    index = info.indexes.get(index_name)
                    if index is None:
                        break
                    seqs = expired_seqs(self._state, index, now, EXPIRE_DOCUMENTS)
                    n_deleted += len(transaction.delete_seqs(info, seqs))
                if len(seqs) < EXPIRE_DOCUMENTS:
                    break
        return n_deleted

    @staticmethod
    def _ttl_indexes(infos: Iterable[CollectionInfo]) -> list[tuple[CollectionInfo, str]]:
        return [
            (info, name)
            for info in infos
            for name, index in info.indexes.items()
            if index.spec.expire_after_s is not None and index.is_ready
        ]

    def checkpoint(self) -> None:
        """Moves the write-ahead log into the database file and forgets old write ids. Call it on a timer."""
        before_ms = int((self._clock() - WRITE_IDS_KEPT_S) * 1000)
        with self._transact() as state:
            state.connection.execute(delete(schema.write_id).where(schema.write_id.c.ts_ms < before_ms))
        with store_errors():
            self._dialect.checkpoint(state.connection)


def split_pipeline(
    pipeline: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, Any], list[tuple[str, int]], int | None, list[Mapping[str, Any]]]:
    """What of a pipeline a find can do, and the rest: (filter, sort, limit, remaining stages)."""
    if not isinstance(pipeline, (list, tuple)) or not all(isinstance(stage, Mapping) for stage in pipeline):
        raise QuerySyntaxError("A pipeline is an array of stages, each an object.")
    rest = list(pipeline)
    filters: list[dict[str, Any]] = []
    while rest and list(rest[0]) == ["$match"] and isinstance(rest[0]["$match"], Mapping):
        filters.append(dict(rest.pop(0)["$match"]))
    order: list[tuple[str, int]] = []
    limit = None
    has_sort = len(rest) > 1 and list(rest[0]) == ["$sort"] and list(rest[1]) == ["$limit"]
    if has_sort and _is_plain_sort(rest[0]["$sort"]) and _is_limit(rest[1]["$limit"]):
        order = [(path, int(direction)) for path, direction in rest.pop(0)["$sort"].items()]
        limit = int(rest.pop(0)["$limit"])
    elif rest and list(rest[0]) == ["$limit"] and _is_limit(rest[0]["$limit"]):
        limit = int(rest.pop(0)["$limit"])
    filter_ = {"$and": filters} if len(filters) > 1 else filters[0] if filters else {}
    return filter_, order, limit, rest


def _is_plain_sort(sort: Any) -> bool:
    return isinstance(sort, Mapping) and bool(sort) and all(direction in (1, -1) for direction in sort.values())


def _is_limit(limit: Any) -> bool:
    return isinstance(limit, int) and not isinstance(limit, bool) and limit > 0
