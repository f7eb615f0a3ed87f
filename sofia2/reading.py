"""Queries of a person on the data of a platform, running or not: read directly from the databases, without a row cap."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson

from actors.catalog import LiveCatalog
from actors.config import PlatformConfig
from actors.query import QueryWorker
from sib.errors import ConfigurationError, UnsupportedError
from sib.query import plan as plans
from sib.query.budget import Budget
from sib.query.explain import ExplainedStage, explain
from sib.query.joined import also_read
from sib.query.native import SQL_WORDS, plan_native
from sib.query.sqlplan import plan_sql
from storage.bdc.bdc import Bdc, utc_now
from storage.bdtr.reader import split_pipeline
from storage.open import Store, kind_of, open_bdtr

if TYPE_CHECKING:
    from sib.ontology import Ontology
    from storage.bdh.query import HistoryQueries
    from storage.bdh.transfer import TransferStore

NATIVE, SQL, BDC, BDH = "native", "sql", "bdc", "bdh"
TYPES = (NATIVE, SQL, BDH, BDC)
ROWS_MAX = 2**31


def type_of(text: str, told: str | None) -> str:
    """The language of a query: as told, else SQL for what begins like it.

    Raises:
        ConfigurationError: there is no such language.
    """
    if told is None:
        words = text.split(None, 1)
        return SQL if words and words[0].lower() in SQL_WORDS else NATIVE
    if told.lower() not in TYPES:
        raise ConfigurationError(f"The type of a query is {', '.join(TYPES[:-1])} or {TYPES[-1]}, not {told[:40]!r}.")
    return told.lower()


class Reader:
    """The databases of one platform, open for reading.

    ``authorize`` is told each ontology that a query names and raises AuthorizationError; by default as an ADMINISTRADOR may.
    """

    def __init__(
        self, config: PlatformConfig, bdc: Bdc, authorize: Callable[[str], None] = lambda _ontology: None
    ) -> None:
        self._config, self._bdc, self._authorize = config, bdc, authorize
        self._catalog = LiveCatalog(bdc)

    def run(self, text: str, type_: str, *, ontology: str | None, time_limit_s: float) -> Any:
        """The result: a list of documents or values, or a bare number.

        Raises:
            SibError: the query is refused, fails or takes too long.
        """
        if type_ == BDC:
            return self._run_bdc(text, time_limit_s)
        if type_ == BDH:
            with self._history() as queries:
                return queries.run(text, time_limit_s=time_limit_s).as_dicts()
        plan = self._plan(text, type_, ontology)
        if not isinstance(plan, plans.Read) or not plans.is_read(plan):
            raise UnsupportedError("'sofia2 query' only reads: send an INSERT, UPDATE or DELETE with 'sofia2 send'.")
        budget, now = Budget.lasting(time_limit_s, time.monotonic), utc_now()
        with self._store(plan.ontology) as store:
            return [] if store is None else _read(store, plan, budget, now)

    def explain(self, text: str, type_: str, *, ontology: str | None) -> list[ExplainedStage]:
        """Every stage from the text to what the database does.

        Raises:
            SibError: the query is refused.
        """
        if type_ == BDC:
            raise UnsupportedError("A query on the configuration has one stage only: it is run with 'sofia2 query'.")
        if type_ == BDH:
            with self._history() as queries:
                return [ExplainedStage(title, told) for title, told in queries.explain(text)]
        return explain(
            text,
            "NATIVE" if type_ == NATIVE else "SQLLIKE",
            lookup=self._ontology,
            ontology=ontology,
            now=utc_now,
            stores=[self._explain_store],
        )

    def _plan(self, text: str, type_: str, ontology: str | None) -> plans.Plan:
        if type_ == SQL:
            return plan_sql(text, lookup=self._ontology, now=utc_now)
        plan = plan_native(text, ontology=ontology, now=utc_now)
        self._ontology(plan.ontology)
        for joined in also_read(plan):
            self._authorize(joined)
        return plan

    def _ontology(self, name: str) -> Ontology:
        self._authorize(name)
        return self._catalog.ontology(name)

    def _run_bdc(self, text: str, time_limit_s: float) -> Any:
        worker = QueryWorker("sofia2 query", self._config)
        return orjson.loads(worker.run_bdc(text, "", True, True, ROWS_MAX, time_limit_s)[1] or b"null")

    @contextmanager
    def _history(self) -> Iterator[HistoryQueries]:
        from storage.bdh.files import open_files
        from storage.bdh.query import HistoryQueries

        with ExitStack() as opened:

            def store_of(ontology: str) -> TransferStore | None:
                return cast("TransferStore | None", opened.enter_context(self._store(ontology)))

            files = open_files(self._config.history_url)
            opened.callback(files.close)
            queries = HistoryQueries(files, self._bdc.history, self._ontology, store_of)
            opened.callback(queries.close)
            yield queries

    def _explain_store(self, plan: plans.Plan) -> Iterator[tuple[str, str]]:
        if not isinstance(plan, plans.Read):
            return
        filter_, order, limit = _narrowing(plan)
        with self._store(plan.ontology) as store:
            if store is None:
                yield "BDTR", f"nothing is stored in {plan.ontology} yet"
            else:
                partition = self._config.topology.partition_of(plan.ontology)
                steps = store.explain(plan.ontology, filter_, sort=order, limit=limit, now=utc_now())
                yield f"BDTR ({partition})", "\n".join(steps)

    @contextmanager
    def _store(self, ontology: str) -> Iterator[Store | None]:
        url = self._config.partition_url(self._config.topology.partition_of(ontology))
        if kind_of(url) == "sqlite" and not Path(url.removeprefix("sqlite:")).exists():
            yield None
            return
        store = open_bdtr(url, writer=False)
        try:
            yield store
        finally:
            store.close()


def _read(store: Store, plan: plans.Read, budget: Budget, now: datetime) -> Any:
    if isinstance(plan, plans.Count):
        return store.count(plan.ontology, plan.filter, skip=plan.skip, limit=plan.limit, budget=budget)
    if isinstance(plan, plans.Distinct):
        return store.distinct(plan.ontology, plan.field, plan.filter, budget=budget)
    if isinstance(plan, plans.Aggregate):
        return plans.shape(plan, list(store.aggregate(plan.ontology, plan.pipeline, budget=budget, now=now)))
    return list(
        store.find(
            plan.ontology,
            plan.filter,
            sort=plan.sort,
            skip=plan.skip,
            limit=plan.limit,
            projection=plan.projection,
            budget=budget,
            now=now,
        )
    )


def _narrowing(plan: plans.Read) -> tuple[Any, Any, int | None]:
    if isinstance(plan, plans.Aggregate):
        filter_, order, limit, _ = split_pipeline(plan.pipeline)
        return filter_, order, limit
    limit = getattr(plan, "limit", None)
    return plan.filter, getattr(plan, "sort", ()), None if limit is None else limit + getattr(plan, "skip", 0)
