"""What the BDC gives and takes: plain values, by names, without keys of the database. Times are naive UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from sib.access import Permission, Rights, Role, rights_of


class Outcome(StrEnum):
    """What a ``put`` did."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class UserRecord:
    """A user. Only argon2 hashes of passwords are kept; "" means that he cannot log in with a password."""

    name: str
    role: Role
    email: str = ""
    active: bool = True
    password_hash: str = field(default="", repr=False)
    api_key: str = field(default="", repr=False)
    created_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class TemplateRecord:
    """A template beside the built-in catalogue."""

    name: str
    version: int
    category: str
    description: str
    schema_text: str


@dataclass(frozen=True, slots=True)
class IndexDeclaration:
    """An index that an ontology declares; ``contextData.timestamp`` is indexed without being declared."""

    fields: tuple[str, ...]
    type: str = "ordered"  # or "2dsphere"
    unique: bool = False
    sparse: bool = False
    expire_after_s: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "fields": list(self.fields),
            "type": self.type,
            "unique": self.unique,
            "sparse": self.sparse,
            "expire_after_s": self.expire_after_s,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> IndexDeclaration:
        return cls(**{**value, "fields": tuple(value["fields"])})


@dataclass(frozen=True, slots=True)
class OntologyRecord:
    """An ontology with the schema in force. ``version`` is counted by the BDC: a changed text makes a new one."""

    name: str
    owner: str
    schema_text: str = field(repr=False)
    version: int = field(default=1, compare=False)
    active: bool = True
    public: bool = False
    parent: str | None = None
    indexes: tuple[IndexDeclaration, ...] = ()
    window_s: int | None = None
    description: str = ""
    template: str = ""  # name@version of the template it was made from
    permissions: Mapping[str, Permission] = field(default_factory=dict)
    created_at: datetime | None = field(default=None, compare=False)

    def rights(self, user: str, role: Role) -> Rights:
        """What a user of this role may do with the ontology, whether it is active or not."""
        permission = self.permissions.get(user)
        return rights_of(user, role, owner=self.owner, is_public=self.public, permission=permission)


@dataclass(frozen=True, slots=True)
class KpRecord:
    """A KP. An empty ``cipher_key`` makes ``put`` keep the present one or generate one."""

    name: str
    owner: str
    ontologies: frozenset[str] = frozenset()
    description: str = ""
    cipher_key: str = field(default="", repr=False)
    cipher_only: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)
    created_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token of a KP."""

    token: str = field(repr=False)
    kp: str
    active: bool = True
    created_at: datetime | None = field(default=None, compare=False)
    used_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """A KP instance. ``last_address`` is the MQTT client id or the IP address it last spoke from."""

    kp: str
    name: str
    static: bool
    last_address: str = field(default="", compare=False)
    last_seen_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class DefinedQuery:
    """A predefined (SIB_DEFINED) query; ``params`` maps a parameter's name to its type."""

    name: str
    ontology: str
    type: str
    text: str
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AssetRecord:
    """An asset of the inventory."""

    identificacion: str
    owner: str
    descripcion: str = ""
    tipo: str = ""
    kp: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything that partitions and query workers need, of one configuration version."""

    version: int
    ontologies: Mapping[str, OntologyRecord]
    queries: Mapping[str, DefinedQuery]
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """An SSAP session. ``credential`` is that of the Identity it was opened with."""

    session_key: str
    kp: str
    instance: str
    user: str
    credential: str
    gateway: str
    client_ref: str
    dialect: int
    created_at: datetime
    used_at: datetime
    expires_at: datetime
    ciphered: bool = False


@dataclass(frozen=True, slots=True)
class SubscriptionRecord:
    """A subscription. ``filter_text`` is the compiled condition as extended JSON, kept as the caller wrote it.

    ``gateway`` is where a subscription with an ``endpoint`` is at home; "": others are where their session speaks.
    """

    subscription_id: str
    session_key: str
    ontology: str
    query_text: str
    query_type: str
    filter_text: str
    ms_refresh: int
    dialect: int
    created_at: datetime
    params: Mapping[str, str] | None = None
    ciphered: bool = False
    endpoint: str = ""
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class CommandListenerRecord:
    """A SUBSCRIBECOMMAND with a REST endpoint; user and ``credential`` are those of the Identity that asked for it."""

    listener_id: str
    kp: str
    instance: str
    command_type: str
    user: str
    credential: str
    gateway: str
    dialect: int
    endpoint: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line of the process log: LOG, ERROR, STATUS, LOCATION of a device, or AUDIT and PROCESS of the platform."""

    kind: str
    at: datetime
    summary: str
    user: str = ""
    kp: str = ""
    instance: str = ""
    details: Any = None


@dataclass(frozen=True, slots=True)
class MqttSessionRecord:
    """A persistent MQTT session; ``disconnected_at`` is None while its client is connected."""

    client_id: str
    gateway: str
    subscriptions: Any
    expiry_s: int
    disconnected_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class MqttMessageRecord:
    """A message that waits for a client; ``number`` orders the queue of one client."""

    client_id: str
    number: int
    topic: str
    payload: bytes = field(repr=False)
    qos: int
    retain: bool = False
    properties: Any = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class MqttRetainedRecord:
    """A retained message; ``stamp`` grows with each change of a topic, and an empty payload takes the message out."""

    topic: str
    payload: bytes = field(repr=False)
    qos: int
    properties: Any
    stamp: int
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class QueueState:
    """How much waits for one client. ``last_number`` is 0 for an empty queue."""

    messages: int
    size_bytes: int
    last_number: int


@dataclass(frozen=True, slots=True)
class HistoryFileRecord:
    """A Parquet file of the history.

    ``first_at`` and ``last_at`` bound the times of its instances (None if they have none). ``layout`` names the
    columns it was written with. ``stale_rows`` are the positions of rows that do not count: their instances
    changed while they were moved. A retired file was replaced by another one and is deleted after a while.
    """

    ontology: str
    day: date
    name: str
    n_rows: int
    size_bytes: int
    layout: str
    first_at: datetime | None = None
    last_at: datetime | None = None
    stale_rows: tuple[int, ...] = ()
    created_at: datetime | None = field(default=None, compare=False)
    retired_at: datetime | None = field(default=None, compare=False)

    @property
    def key(self) -> tuple[str, date, str]:
        return self.ontology, self.day, self.name
