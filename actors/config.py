"""What every actor is told when it is made: plain values only, since a crash makes it again from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sib.placement import place
from storage.open import partition_url

PLATFORM = "platform"


@dataclass(frozen=True)
class Topology:
    """The names of the actors of one configuration version."""

    mqtt_gateways: tuple[str, ...]
    http_gateways: tuple[str, ...]
    session_shards: tuple[str, ...]
    partitions: tuple[str, ...]
    query_workers: tuple[str, ...]
    """Where every query begins."""
    serve_gateways: tuple[str, ...] = ()
    cep_shards: tuple[str, ...] = ()
    rule_runners: tuple[str, ...] = ()
    process_runners: tuple[str, ...] = ()
    long_query_workers: tuple[str, ...] = ()
    """Where queries go that take long; without any they stay among the others."""

    @property
    def gateways(self) -> tuple[str, ...]:
        return self.mqtt_gateways + self.http_gateways + self.serve_gateways

    @property
    def consumers(self) -> frozenset[str]:
        """Who hears of changes, besides the KPs that run inside."""
        return frozenset(self.gateways + self.cep_shards + self.rule_runners)

    def partition_of(self, ontology: str) -> str:
        return place(ontology, self.partitions)

    def home_of(self, gateway: str, session_gateway: str) -> str:
        """Where a subscription is: where its session speaks, or at the HTTP gateway that it names (the first, if that is gone)."""
        if not gateway:
            return session_gateway
        return gateway if gateway in self.gateways else next(iter(self.http_gateways + self.serve_gateways), gateway)

    def shard_of(self, session_key: str) -> str:
        return place(session_key, self.session_shards)


@dataclass(frozen=True)
class Limits:
    """Bounds of one platform; the names are those of the settings."""

    sessions_expiry_s: float = 7200
    sessions_max: int = 200_000
    join_failures_per_minute: int = 30
    join_failure_delay_s_max: float = 5
    write_timeout_s: float = 10
    message_bytes_max: int = 1_900_000
    mqtt_session_expiry_s: int = 86_400
    websocket_idle_s: float = 0
    requests_waiting_max: int = 20_000
    requests_per_connection_max: int = 1000
    subscriptions_per_session_max: int = 10_000
    commands_per_connection_max: int = 16
    query_row_cap: int = 100
    query_time_limit_s: float = 30
    queries_at_once_max: int = 64
    callback_allow: tuple[str, ...] = ()
    kp_deployers: tuple[str, ...] = ()
    kp_wheelhouse: str | None = None
    rules_http_allow: tuple[str, ...] = ()
    rules_memory_mb: int = 128
    rules_writes_per_minute: int = 600_000
    rules_queries_per_minute: int = 60_000
    rules_http_per_minute: int = 600
    rules_mails_per_minute: int = 60
    mail_host: str | None = None
    mail_port: int = 587
    mail_security: str = "starttls"
    mail_user: str | None = None
    mail_password_file: str | None = None
    mail_sender: str | None = None


@dataclass(frozen=True)
class Listener:
    """One listening socket. ``kind``: mqtt, mqtts, http, https, or serve (Ray Serve's own); ``options`` as in its URL."""

    name: str
    kind: str
    host: str
    port: int
    options: dict[str, Any] = field(default_factory=dict)
    certificate: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class PlatformConfig:
    """Everything an actor needs to find its databases and its neighbours."""

    data: str
    bdc_url: str = field(repr=False)
    """It may hold a password, as ``bdtr_url`` and ``bdh_url`` may: none is ever shown."""
    bdtr_url: str = field(repr=False)
    topology: Topology
    listeners: tuple[Listener, ...]
    modules: tuple[str, ...] = ("sib",)
    limits: Limits = Limits()
    mqtt: dict[str, Any] = field(default_factory=dict)
    """Fields of ``MqttLimits``, with those of its ``queue`` as a map; what is not there is as by default."""
    is_loopback: bool = True
    bdh_url: str = field(default="", repr=False)

    @property
    def history_url(self) -> str:
        """Where the history is: as set, or below the data folder."""
        return self.bdh_url or f"file:{self.data}/bdh"

    def partition_url(self, partition: str) -> str:
        """The database of one partition: on SQLite a file of its own below the BDTR folder."""
        return partition_url(self.bdtr_url, partition)
