"""Reading a relational BDTR: finds, counts, pipelines, the change feed. Needs no writer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from sqlalchemy import Connection, inspect, select

from sib.errors import LimitError, QuerySyntaxError, StoreUnavailableError
from sib.query.budget import Budget
from sib.query.paths import values_at
from sib.query.pipeline import Write, run_pipeline
from sib.query.projection import compile_projection
from sib.query.values import MISSING, hashable
from storage.bdtr import catalogue, changes, schema
from storage.bdtr.capabilities import RELATIONAL, RELATIONAL_SERVER, Capability
from storage.bdtr.catalogue import Catalogue
from storage.bdtr.dialects import Dialect
from storage.bdtr.failures import store_errors
from storage.bdtr.hot import count_rows
from storage.bdtr.model import DISTINCT_MAX, Change, IndexSpec
from storage.bdtr.search import Searcher
from storage.bdtr.transfers import Snapshot


class StoreReader:
    """The reading half of a store. Each read opens a connection of a pool for as short as it can.

    Every read sees every commit made before it was called. Safe for several threads, not across a fork.
    """

    def __init__(self, dialect: Dialect, clock: Callable[[], float] = time.time) -> None:
        self._dialect = dialect
        self._clock = clock
        self._readers = dialect.reader_engine()
        self._catalogue: Catalogue = {}
        self._catalogue_version = -1
        self._machine = b""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this backend can that another may not."""
        return RELATIONAL if self._dialect.name == "sqlite" else RELATIONAL_SERVER

    def close(self) -> None:
        """Closes all connections."""
        self._readers.dispose()

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
        row = schema.meta.c
        with self._session() as connection:
            seq: int = connection.execute(select(row.num).where(row.name == "seq")).scalar_one()
        return seq

    def check(self) -> None:
        """Refuses a store of another version.

        Raises:
            ConfigurationError: it was written in another format.
        """
        row = schema.meta.c
        with self._session() as connection:
            found = connection.execute(select(row.num).where(row.name == "format")).scalar_one_or_none()
        schema.refuse_other_format(found)

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
        """The different values of a field, arrays unrolled, missing left out: by first appearance or in an index's order."""
        searcher = self._searcher(collection, budget, now)
        if searcher is None:
            return []
        documents = searcher.of_different_keys(field) if not filter else None
        if documents is None:
            documents = (document for _, document in searcher.matches(filter or {}))
        found: dict[Any, Any] = {}
        for document in documents:
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
                "size_bytes": self._dialect.size_bytes(connection),
                "changes_logged": count_rows(connection, schema.change_log),
                "collections": {
                    name: {"documents": counts.get(name, 0), "indexes": [*info.indexes]} for name, info in found.items()
                },
            }

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """One moment of the store, for reads that must fit together. A transaction under way is not in it.

        On SQLite the log cannot be emptied meanwhile, so it should be short.
        """
        with self._session() as connection:
            yield Snapshot(connection, self._dialect, self._refresh(connection), self._machine)

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
