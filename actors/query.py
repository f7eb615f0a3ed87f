"""QueryWorker: reads of the real-time, the configuration and the history database, several at once in threads.

Invariant: a read sees every commit that was answered before it came; it is stopped at its time limit. Threads share the
interpreter, so a worker is for short queries or for long ones (``query_client``).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import orjson

from actors import logs
from actors.config import PlatformConfig
from actors.history import HistoryReads
from sib.access import Rights
from sib.errors import AuthorizationError
from sib.query import plan as plans
from sib.query.budget import Budget, Context
from sib.query.matcher import compile_filter
from sib.query.parameters import Parameters
from sib.query.sorting import sort_documents
from sib.query.sqlbdc import plan_bdc
from sib.ssap.printing import print_legacy, print_one, print_rows_legacy, print_rows_one
from storage.bdc.bdc import open_bdc, utc_now
from storage.open import Store, open_bdtr

Printed = tuple[str | None, bytes | None]

LONG_NICENESS = 10
"""Workers for long queries give way to everything else: devices and short queries wait for a processor less."""


class QueryWorker:
    """One worker; a sync actor with a pool of threads, each with its own connection."""

    def __init__(self, name: str, config: PlatformConfig) -> None:
        logs.configure(config.data, name)
        if name in config.topology.long_query_workers:
            os.nice(LONG_NICENESS)
        self._name, self._config = name, config
        self._bdc = open_bdc(config.bdc_url)
        self._threads = threading.local()
        self._lock = threading.Lock()
        self._counts = {"queries": 0, "query_busy_s": 0.0}
        self._history = HistoryReads(config, self._bdc, self._store)

    def run(
        self, plan: plans.Read, is_one: bool, row_cap: int, time_limit_s: float
    ) -> tuple[str | None, bytes | None, bool]:
        """Carry out a read and print it: (LEGACY text or None, ONE JSON or None, whether the row cap cut its limit).

        Raises:
            QueryTimeoutError: over ``time_limit_s``; QueryError and others: what the query met.
        """
        with self._counted():
            result, was_capped = self._read(plan, row_cap, time_limit_s)
            return *_printed(result, is_one), was_capped

    def run_bdh(
        self,
        text: str,
        parameters: Parameters | None,
        rights: Mapping[str, Rights],
        row_cap: int,
        time_limit_s: float,
    ) -> tuple[str | None, bytes | None, bool]:
        """Carry out a SELECT on the history, as ``run`` does; its JSON is that of the clients in every dialect.

        Args:
            text: the statement.
            parameters: values for ``{$name}`` of a predefined query.
            rights: what whoever asks may do, by ontology: each one that the statement names is checked.
            row_cap: rows of the answer.
            time_limit_s: after that it is stopped.

        Raises:
            OntologyNotFoundError, AuthorizationError: an ontology of the statement may not be read.
            SibError: as ``HistoryQueries.run``.
        """
        with self._counted():
            answer, was_capped = self._history.run(text, rights, row_cap, time_limit_s, parameters)
            return answer.decode(), answer, was_capped

    @contextmanager
    def _counted(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._counts["queries"] += 1
                self._counts["query_busy_s"] += time.perf_counter() - began

    def _read(self, plan: plans.Read, row_cap: int, time_limit_s: float) -> tuple[Any, bool]:
        now = utc_now()
        # Opening it is nothing that the query takes long for.
        store = self._store(self._config.topology.partition_of(plan.ontology))
        budget = Budget.lasting(time_limit_s, time.monotonic)
        if isinstance(plan, plans.Count):
            limit = plan.limit
            return store.count(plan.ontology, plan.filter, skip=plan.skip, limit=limit, budget=budget), False
        if isinstance(plan, plans.Distinct):
            values = list(store.distinct(plan.ontology, plan.field, plan.filter, budget=budget))
            return values[:row_cap], len(values) > row_cap
        if isinstance(plan, plans.Aggregate):
            pipeline = [*plan.pipeline, {"$limit": row_cap}]
            rows = list(store.aggregate(plan.ontology, pipeline, budget=budget, now=now))
            return plans.shape(plan, rows), False
        was_capped = plan.limit is not None and plan.limit > row_cap
        limit = row_cap if plan.limit is None else min(plan.limit, row_cap)
        return (
            list(
                store.find(
                    plan.ontology,
                    plan.filter,
                    sort=plan.sort,
                    skip=plan.skip,
                    limit=limit,
                    projection=plan.projection,
                    budget=budget,
                    now=now,
                )
            ),
            was_capped,
        )

    def run_bdc(
        self, text: str, user: str, is_administrator: bool, is_one: bool, row_cap: int, time_limit_s: float
    ) -> Printed:
        """A query on the configuration: everybody his own assets, an ADMINISTRADOR all tables; never a secret.

        Raises:
            AuthorizationError: another table than Asset, and the user is not ADMINISTRADOR.
            QueryTimeoutError: over ``time_limit_s``.
        """
        budget = Budget.lasting(time_limit_s, time.monotonic)
        plan = plan_bdc(text)
        if plan.table == "asset":
            rows = self._bdc.assets(None if is_administrator else user)
        elif is_administrator:
            rows = self._bdc.table(plan.table)
        else:
            raise AuthorizationError(
                f"the configuration table {plan.table!r} is for an ADMINISTRADOR; Asset is for everybody"
            )
        found = list(_matching(rows, plan.filter, budget))
        if plan.order:
            found = sort_documents(found, list(plan.order), budget=budget)
        limit = row_cap if plan.limit is None else min(plan.limit, row_cap)
        if plan.is_count:
            return _printed(len(found), is_one)
        found = found[plan.skip : plan.skip + limit]
        if plan.columns is not None:
            found = [{column: row.get(column) for column in plan.columns} for row in found]
        return _printed(found, is_one)

    def _store(self, partition: str) -> Store:
        stores: dict[str, Store] = self._threads.__dict__.setdefault("stores", {})
        if partition not in stores:
            stores[partition] = open_bdtr(self._config.partition_url(partition), writer=False)
        return stores[partition]

    def reload(self) -> int:
        """Only queries on the history keep something of the configuration: the ontologies."""
        self._history.refresh()
        return self._bdc.config_version()

    def tick(self) -> None:
        """Nothing to keep up."""

    def stats(self) -> dict[str, Any]:
        with self._lock:
            return {"pid": os.getpid(), **self._counts}


def _matching(rows: Iterable[dict[str, Any]], filter_: Mapping[str, Any], budget: Budget) -> Iterator[dict[str, Any]]:
    matches = compile_filter(filter_, Context(budget))
    for row in rows:
        budget.spend()
        if matches(row):
            yield row


def _printed(result: Any, is_one: bool) -> Printed:
    if isinstance(result, Sequence) and all(isinstance(row, dict) for row in result):
        return (None, print_rows_one(result)) if is_one else (print_rows_legacy(result), None)
    if isinstance(result, int | float) and not isinstance(result, bool):
        text = orjson.dumps(result)
        return (None, text) if is_one else (text.decode(), None)
    return (None, print_one(result)) if is_one else (print_legacy(result), None)
