"""The history as a QueryWorker reads it: SQL through DuckDB, every ontology of the statement checked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import orjson

from actors.catalog import LiveCatalog
from actors.config import PlatformConfig
from sib.access import Rights, authorize
from sib.errors import SqlSyntaxError
from sib.ontology import Ontology
from sib.query.parameters import Parameters
from storage.bdc.bdc import Bdc
from storage.open import Store

if TYPE_CHECKING:
    from storage.bdh.query import HistoryQueries
    from storage.bdh.transfer import TransferStore


class HistoryReads:
    """The history of a platform. Safe for threads; DuckDB is loaded by the first query, since most workers never need it."""

    def __init__(self, config: PlatformConfig, bdc: Bdc, store_of_partition: Callable[[str], Store]) -> None:
        """``store_of_partition`` gives a store that the calling thread may use."""
        self._config, self._bdc = config, bdc
        self._store_of_partition = store_of_partition
        self._lock = threading.Lock()
        self._catalog: LiveCatalog | None = None
        self._queries: HistoryQueries | None = None

    def run(
        self,
        text: str,
        rights: Mapping[str, Rights],
        row_cap: int,
        time_limit_s: float,
        parameters: Parameters | None = None,
    ) -> tuple[bytes, bool]:
        """Carry out a SELECT for somebody with these rights: (the clients' JSON, whether there were more rows).

        Raises:
            OntologyNotFoundError, AuthorizationError: an ontology of the statement may not be read.
            SibError: as ``HistoryQueries.run``.
        """
        from storage.bdh.answers import to_answer

        if not text:
            raise SqlSyntaxError("the statement is empty; write for example select * from ONTOLOGY limit 3")

        def lookup(name: str) -> Ontology:
            return self._readable(name, rights)

        result = self._opened().run(
            text, lookup=lookup, parameters=parameters, row_cap=row_cap, time_limit_s=time_limit_s
        )
        return orjson.dumps(to_answer(result), default=str), result.was_capped

    def refresh(self) -> None:
        """Take over the newest configuration."""
        with self._lock:
            if self._catalog is not None:
                self._catalog.refresh()

    def _readable(self, name: str, rights: Mapping[str, Rights]) -> Ontology:
        """An ontology that may be queried; whoever has rights on one that is not known here knows a newer configuration."""
        with self._lock:
            catalog = self._catalog = self._catalog or LiveCatalog(self._bdc)
            if name in rights and name not in catalog.ontologies:
                catalog.refresh()
            record = catalog.ontologies.get(name)
            authorize(
                "QUERY", name, rights, is_known=record is not None, is_active=record is not None and record.active
            )
            return catalog.ontology(name)

    def _opened(self) -> HistoryQueries:
        from storage.bdh.files import open_files
        from storage.bdh.query import HistoryQueries

        with self._lock:
            if self._queries is None:
                files = open_files(self._config.history_url)
                self._queries = HistoryQueries(
                    files, self._bdc.history, lambda name: self._readable(name, {}), self._store_of
                )
            return self._queries

    def _store_of(self, ontology: str) -> TransferStore:
        store = self._store_of_partition(self._config.topology.partition_of(ontology))
        return cast("TransferStore", store)  # those of other adapters have snapshots alike, of another class
