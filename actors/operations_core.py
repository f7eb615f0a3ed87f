"""What whoever carries out operations holds; gateways, rules, CEP and KPs of the container alike."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from actors import logs
from actors.catalog import LiveCatalog
from actors.clients import PartitionClient
from actors.config import Limits, PlatformConfig
from actors.query_client import QueryClient
from sib.query.cache import PlanCache
from sib.ssap.envelope import Request
from storage.bdc.bdc import open_bdc, utc_now

log = logging.getLogger("sofia2.operations")


class OperationsCore:
    """What whoever carries out operations holds: the configuration, and the ways to partitions and query workers."""

    def __init__(self, name: str, config: PlatformConfig) -> None:
        logs.configure(config.data, name)
        self.name, self.config = name, config
        self.limits: Limits = config.limits
        self.bdc = open_bdc(config.bdc_url)
        self.catalog = LiveCatalog(self.bdc)
        self.plans = PlanCache(lookup=self.catalog.ontology, now=self.utc_now)
        self.queries = QueryClient(config)
        self.capped = 0
        self._partitions: dict[str, PartitionClient] = {}

    def connect(self, partitions: Mapping[str, PartitionClient]) -> None:
        """The ways to the partitions, made by whoever knows what they are to tell."""
        self._partitions.update(partitions)

    def partition_of(self, ontology: str) -> PartitionClient:
        return self._partitions[self.config.topology.partition_of(ontology)]

    def utc_now(self) -> datetime:
        return utc_now()

    @property
    def row_cap(self) -> int:
        return int(self.catalog.setting("query.row_cap", self.limits.query_row_cap))

    @property
    def query_time_limit_s(self) -> float:
        return float(self.catalog.setting("query.time_limit_s", self.limits.query_time_limit_s))

    def instance_text(self, ontology: str, instance: Any) -> str:
        """A planned instance back as JSON text, for the partition to validate."""
        return orjson.dumps(self.catalog.ontology(ontology).to_json(instance)).decode()

    def log_failure(self, request: Request, error: Exception) -> None:
        log.error("request %s on %s failed", request.message_type, request.ontology, exc_info=error)

    def count(self, operation: str, result: str, seconds: float) -> None:
        """Take note of an operation that has ended; gateways show it in their metrics."""
