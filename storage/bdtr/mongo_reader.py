"""Reading from a BDTR on MongoDB: queries run on the server after checking; what it cannot do runs here."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from typing import Any

from pymongo.client_session import ClientSession
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from sib.errors import LimitError
from sib.query.budget import Budget
from sib.query.geo_operators import find_near, sort_by_distance
from sib.query.pipeline import Write, run_pipeline
from sib.query.projection import compile_projection
from sib.query.sorting import read_sort, sort_documents
from storage.bdtr import mongo_checks as checks
from storage.bdtr.capabilities import MONGODB, Capability
from storage.bdtr.model import DISTINCT_MAX, Change
from storage.bdtr.mongo_changes import Unheard
from storage.bdtr.mongo_client import mongo_errors
from storage.bdtr.mongo_moving import MongoSnapshot
from storage.bdtr.mongo_notes import MongoNotes

BATCH_DOCUMENTS = 500
"""Documents that a cursor fetches at once."""

Document = dict[str, Any]


class MongoReader(MongoNotes):
    """Reads of one database. Each method sees every commit made before it was called. Safe for several threads."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this backend can that another may not."""
        return MONGODB

    # ------------------------------------------------------------------ queries

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
        session: ClientSession | None = None,
    ) -> Iterator[Document]:
        """The matching documents: in the order of ``sort``, nearest first with ``$near``, else as the server has them.

        Raises:
            QuerySyntaxError, QueryError, QueryTimeoutError, LimitError: as the query engine does, some of them late.
        """
        filter_ = dict(filter or {})
        order = list(sort.items() if isinstance(sort, Mapping) else sort or ())
        checks.check_filter(filter_, budget, now if now is not None else self._now())
        checks.check_name(collection)
        if order:
            read_sort(order)
        if projection:
            compile_projection(projection, filter_)
        if limit == 0:
            return iter(())
        if not checks.near_by_server(filter_, self._geo_on_server(collection) if find_near(filter_) else ()):
            return self._find_here(collection, filter_, order, skip, limit, projection, budget, now, session)
        return self._find_there(collection, filter_, order, skip, limit, projection, budget, session)

    def _find_there(
        self,
        collection: str,
        filter_: Document,
        order: Sequence[tuple[str, int]],
        skip: int,
        limit: int | None,
        projection: Any,
        budget: Budget | None,
        session: ClientSession | None,
    ) -> Iterator[Document]:
        budget = budget if budget is not None else Budget()
        with mongo_errors():
            cursor = self._database[collection].find(
                filter_,
                projection or None,
                sort=list(order) or None,
                skip=skip,
                limit=limit or 0,
                max_time_ms=_milliseconds(budget),
                batch_size=BATCH_DOCUMENTS,
                session=session,
            )
        return _taken(cursor, budget)

    def _find_here(
        self,
        collection: str,
        filter_: Document,
        order: Sequence[tuple[str, int]],
        skip: int,
        limit: int | None,
        projection: Any,
        budget: Budget | None,
        now: datetime | None,
        session: ClientSession | None,
    ) -> Iterator[Document]:
        """A ``$near`` without an index of the server: it finds what else must hold, distances are measured here."""
        budget = budget if budget is not None else Budget()
        matches = checks.check_filter(filter_, budget, now)
        near = find_near(filter_)
        assert near is not None
        documents = self._find_there(collection, checks.without_near(filter_), (), 0, None, None, budget, session)
        found = _held((document for document in documents if matches(document)), budget)
        end = None if limit is None else skip + limit
        ordered = sort_documents(found, order, end, budget) if order else sort_by_distance(found, near)
        project = compile_projection(projection, filter_) if projection else None
        for document in itertools.islice(ordered, skip, end):
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
        """How many documents match, after skip and limit."""
        if limit == 0:
            return 0
        filter_ = dict(filter or {})
        if find_near(filter_) is not None:
            found = self.find(collection, filter_, skip=skip, limit=limit, budget=budget, now=now)
            return sum(1 for _ in found)
        checks.check_filter(filter_, budget, now if now is not None else self._now())
        options: dict[str, Any] = {"skip": skip} if skip else {}
        if limit is not None:
            options["limit"] = limit
        time_ms = _milliseconds(budget)
        if time_ms is not None:
            options["maxTimeMS"] = time_ms
        with mongo_errors():
            return self._database[checks.check_name(collection)].count_documents(filter_, **options)

    def distinct(
        self,
        collection: str,
        field: str,
        filter: Mapping[str, Any] | None = None,
        *,
        budget: Budget | None = None,
        now: datetime | None = None,
    ) -> list[Any]:
        """The different values of a field, arrays unrolled, missing left out."""
        filter_ = dict(filter or {})
        checks.check_filter(filter_, budget, now if now is not None else self._now())
        time_ms = _milliseconds(budget)
        options: dict[str, Any] = {} if time_ms is None else {"maxTimeMS": time_ms}
        with mongo_errors():
            values = self._database[checks.check_name(collection)].distinct(field, filter_, **options)
        if len(values) > DISTINCT_MAX:
            raise LimitError(
                f"The field {field!r} has more than {DISTINCT_MAX} different values: narrow the condition."
            )
        return values

    def aggregate(
        self,
        collection: str,
        pipeline: Sequence[Mapping[str, Any]],
        *,
        budget: Budget | None = None,
        now: datetime | None = None,
        write: Write | None = None,
    ) -> Iterator[Document]:
        """The result of a pipeline; ``$out`` and ``$merge`` are carried out by ``write``, and refused without it."""
        moment = now if now is not None else self._now()
        budget = budget if budget is not None else Budget()
        checks.check_pipeline(pipeline, moment, write)
        checks.check_name(collection)
        stages = list(pipeline)
        near = stages[0].get("$geoNear") if stages else None
        if near is not None and not self._has_geo(collection, near):
            return self._run_here(collection, stages, self.find(collection, budget=budget), budget, moment, write)
        outputs = [stages.pop()] if checks.ends_in_output(stages) else []
        time_ms = _milliseconds(budget)
        options: dict[str, Any] = {} if time_ms is None else {"maxTimeMS": time_ms}
        with mongo_errors():
            cursor = self._database[collection].aggregate(
                stages, allowDiskUse=True, batchSize=BATCH_DOCUMENTS, **options
            )
        rows = _taken(cursor, budget)
        return self._run_here(collection, outputs, rows, budget, moment, write) if outputs else rows

    def _run_here(
        self,
        collection: str,
        stages: list[Any],
        documents: Iterable[Document],
        budget: Budget,
        now: datetime,
        write: Write | None,
    ) -> Iterator[Document]:
        geo_paths = [spec.paths[0] for spec in self.indexes(collection) if spec.is_geo]
        return run_pipeline(
            documents,
            stages,
            collection=lambda name: self.find(name, budget=budget),
            now=now,
            budget=budget,
            write=write,
            geo_path=geo_paths[0] if len(geo_paths) == 1 else None,
        )

    def _has_geo(self, collection: str, near: Mapping[str, Any]) -> bool:
        there = self._geo_on_server(collection)
        key = near.get("key")
        return any(key in (None, spec.paths[0]) for spec in there) and isinstance(near.get("near"), Mapping)

    def explain(
        self,
        collection: str,
        filter: Mapping[str, Any] | None = None,
        *,
        sort: Sequence[tuple[str, int]] | Mapping[str, int] | None = None,
        limit: int | None = None,
        now: datetime | None = None,
    ) -> list[str]:
        """How the server would carry out a find, one step a line, the last step first."""
        filter_ = dict(filter or {})
        checks.check_filter(filter_, None, now if now is not None else self._now())
        order = list(sort.items() if isinstance(sort, Mapping) else sort or ())
        lines: list[str] = []
        if not checks.near_by_server(filter_, self._geo_on_server(collection)):
            lines.append("measure distances here: the server has no geo index that can answer")
            filter_ = checks.without_near(filter_)
        with mongo_errors():
            plan = self._database[collection].find(filter_, sort=order or None, limit=limit or 0).explain()
        step = plan.get("queryPlanner", {}).get("winningPlan")
        while isinstance(step, Mapping):
            lines.append(" ".join(str(step[part]) for part in ("stage", "indexName", "direction") if part in step))
            step = step.get("inputStage") or step.get("queryPlan")
        return lines or ["the server does not say"]

    def stats(self) -> dict[str, Any]:
        """Sizes and counts, for people and metrics."""
        with mongo_errors():
            sizes = self._database.command("dbStats")
            return {
                "size_bytes": int(sizes.get("storageSize", 0)) + int(sizes.get("indexSize", 0)),
                "changes_logged": self._log.count_documents({"k": {"$exists": True}}),
                "collections": {
                    name: {
                        "documents": self._database[name].count_documents({}),
                        "indexes": [spec.name for spec in self.indexes(name)],
                    }
                    for name in self.collections()
                },
            }

    @contextmanager
    def snapshot(self) -> Iterator[MongoSnapshot]:
        """One moment of the store, for reads that must fit together; the server ends it after a minute."""
        with mongo_errors():
            self.check_transactions()
            with self._client.start_session() as session:
                session.start_transaction(read_concern=ReadConcern("snapshot"))
                try:
                    yield MongoSnapshot(self, self.transfers, session)
                finally:
                    with suppress(PyMongoError):
                        session.abort_transaction()

    # ------------------------------------------------------------------ changes

    def changes(self, after_seq: int, limit: int) -> list[Change]:
        """The changes of all collections after this number, in order, at most ``limit``; see ``MongoChanges.after``."""
        return self._changes.after(after_seq, limit)

    def positions(self) -> dict[str, int]:
        """Up to where each consumer has read."""
        return self._changes.positions()

    def unheard(self, collection: str, session: ClientSession | None) -> Unheard:
        """The instances of a collection that a consumer has still to hear of."""
        return self._changes.unheard(collection, self.seq, session)


def _milliseconds(budget: Budget | None) -> int | None:
    remaining_s = budget.remaining_s() if budget is not None else None
    return None if remaining_s is None else max(1, int(remaining_s * 1000))


def _taken(cursor: Any, budget: Budget) -> Iterator[Document]:
    with closing(cursor), mongo_errors():
        for document in cursor:
            budget.spend()
            yield document


def _held(documents: Iterable[Document], budget: Budget) -> Iterator[Document]:
    for document in documents:
        budget.hold()
        yield document
