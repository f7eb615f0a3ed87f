"""Which actors a configuration has, and how each is started. Light: whoever starts them loads none of their code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from actors.config import PLATFORM, PlatformConfig, Topology
from actors.runtime import Ref, spawn

QUERY_THREADS = 8
"""Queries at work in one worker; more wait."""


class Entry(NamedTuple):
    """One actor: its name, the plain class that it is, whether it is async, and the threads of a sync one."""

    name: str
    path: str
    is_async: bool = False
    threads: int = 1

    @property
    def kind(self) -> str:
        return self.path.partition(":")[2]


def roster(topology: Topology) -> Iterator[Entry]:
    """Every actor beside the platform's own."""
    for name in topology.session_shards:
        yield Entry(name, "actors.sessions:SessionShard")
    for name in topology.partitions:
        yield Entry(name, "actors.partition:OntologyPartition")
    for name in topology.query_workers + topology.long_query_workers:
        yield Entry(name, "actors.query:QueryWorker", threads=QUERY_THREADS)
    for name in topology.mqtt_gateways:
        yield Entry(name, "actors.gateway.nodes:MqttGateway", is_async=True)
    for name in topology.http_gateways:
        yield Entry(name, "actors.gateway.http_nodes:HttpGateway", is_async=True)
    for name in topology.serve_gateways:
        yield Entry(name, "actors.gateway.relay:GatewayRelay", is_async=True)
    for name in topology.cep_shards:
        yield Entry(name, "actors.cep:CepShard", is_async=True)
    for name in topology.rule_runners:
        yield Entry(name, "actors.rules:RuleRunner", is_async=True)
    for name in topology.process_runners:
        yield Entry(name, "actors.processes:ProcessRunner", is_async=True)


def spawn_all(config: PlatformConfig) -> Ref:
    """Start every actor at once, or find those that are there; returns the platform's."""
    platform = spawn("actors.platform:Platform", PLATFORM, PLATFORM, config, is_async=True)
    for name, path, is_async, threads in roster(config.topology):
        spawn(path, name, name, config, threads=threads, is_async=is_async)
    return platform
