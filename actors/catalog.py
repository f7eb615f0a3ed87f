"""The configuration as one process sees it: ontologies compiled once a version, refreshed when the version changes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from sib.errors import AuthorizationError, OntologyNotFoundError
from sib.ontology import Ontology, compile_ontology
from storage.bdc.bdc import Bdc
from storage.bdc.records import Catalog, DefinedQuery, OntologyRecord


class LiveCatalog:
    """A snapshot of the configuration with compiled ontologies. Not thread-safe: one per process and thread group."""

    def __init__(self, bdc: Bdc) -> None:
        self._bdc = bdc
        self._catalog: Catalog = bdc.catalog()
        self._compiled: dict[tuple[str, int], Ontology] = {}

    @property
    def version(self) -> int:
        return self._catalog.version

    @property
    def ontologies(self) -> Mapping[str, OntologyRecord]:
        return self._catalog.ontologies

    def refresh(self) -> bool:
        """Read the configuration again if its version changed; says whether it did."""
        return self._take(self._read())

    async def refresh_aside(self) -> bool:
        """As ``refresh``, with the database read in a thread: for event loops, which must not wait for it."""
        return self._take(await asyncio.to_thread(self._read))

    def _read(self) -> Catalog | None:
        return None if self._bdc.config_version() == self._catalog.version else self._bdc.catalog()

    def _take(self, catalog: Catalog | None) -> bool:
        if catalog is None:
            return False
        self._catalog = catalog
        alive = {(record.name, record.version) for record in self._catalog.ontologies.values()}
        self._compiled = {key: value for key, value in self._compiled.items() if key in alive}
        return True

    def ontology(self, name: str) -> Ontology:
        """The compiled ontology in its current version.

        Raises:
            OntologyNotFoundError: No ontology has this name.
            AuthorizationError: It is switched off.
        """
        record = self._catalog.ontologies.get(name)
        if record is None:
            raise OntologyNotFoundError(f"there is no ontology {name!r}; check its name or create it")
        if not record.active:
            raise AuthorizationError(f"the ontology {name!r} is not active; its owner can activate it")
        key = (name, record.version)
        found = self._compiled.get(key)
        if found is None:
            found = self._compiled[key] = compile_ontology(name, record.schema_text, version=record.version)
        return found

    def defined_query(self, name: str) -> DefinedQuery | None:
        return self._catalog.queries.get(name)

    def setting(self, name: str, default: Any) -> Any:
        """A setting that was applied, else the default: hot settings are read each time."""
        return self._catalog.settings.get(name, default)
