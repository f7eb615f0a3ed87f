"""The body of a request, typed: what a client wants, whatever the dialect and the gateway it came through.

Texts of queries and instances are normalised (``sib.ssap.text``), not parsed: the owner of the data parses them once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sib.errors import SibError
from sib.ssap.messages import MessageType, QueryType


def without_kp(instance: str | None, kp: str | None) -> str | None:
    """The instance alone: devices send ``KP:instance`` or the instance, and both mean the same."""
    return instance.removeprefix(f"{kp}:") if instance is not None and kp else instance


@dataclass(frozen=True, slots=True)
class Join:
    """Opens a session, or renews the one whose key is in the envelope. ``instance`` is ``KP:anything``."""

    instance: str
    token: str | None = field(default=None, repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def kp(self) -> str:
        return self.instance.partition(":")[0]

    @property
    def instance_name(self) -> str:
        """What follows the first colon; empty if there is none."""
        return self.instance.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Leave:
    """Ends the session in the envelope."""


@dataclass(slots=True)  # not frozen: one per message on the hot path, and frozen costs three times as much to make
class Insert:
    """Stores an instance (``data``: its JSON text as sent), or runs an inserting statement (``query``).

    Exactly one of the two is None. When the request had neither, ``data`` is "", or ``query`` if the type is SQL.
    """

    data: bytes | str | None
    query: str | None
    query_type: QueryType


@dataclass(frozen=True, slots=True)
class Update:
    """Replaces the instances that match ``query`` by ``data``, or runs the statement ``query`` (then ``data`` is None).

    The statement may be a removal: arduino-api sends its removals as UPDATE, with ``data`` "" (``is_removal``) whatever the
    query is. Source: Sofia2 arduino-api SSAPMessageGenerator.cpp:139-145.
    """

    data: str | None
    query: str
    query_type: QueryType
    is_removal: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """Deletes what ``query`` selects. An empty query (also ``{}``, ``null``) is "" here and must be refused."""

    query: str
    query_type: QueryType


@dataclass(frozen=True, slots=True)
class Query:
    """Reads. ``query`` "" is everything when NATIVE; for SIB_DEFINED it is the name of the stored query."""

    query: str
    query_type: QueryType
    params: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Asks for INDICATIONs of what matches. ``ms_refresh`` is the least time between two of them, in milliseconds."""

    query: str
    query_type: QueryType
    ms_refresh: int = 0
    params: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Ends a subscription; "" when the request named none."""

    subscription_id: str


@dataclass(frozen=True, slots=True)
class BulkItem:
    """One item of a BULK: either an operation or the error that it alone gets.

    ``request_body`` is the item's body as JSON text, for the error entry of the answer.
    """

    type: MessageType | str
    ontology: str | None
    operation: Insert | Update | Delete | None
    error: SibError | None
    request_body: str


@dataclass(frozen=True, slots=True)
class Bulk:
    """Writes, to be run in order, each on its own."""

    items: tuple[BulkItem, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """Asks for the configuration of a KP instance; needs no session."""

    kp: str | None
    instance: str | None
    token: str | None = field(repr=False)
    asset_service: str | None
    asset_service_params: dict[str, Any]

    @property
    def instance_name(self) -> str | None:
        return without_kp(self.instance, self.kp)


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """A LOG, ERROR, STATUS or LOCATION of a device; needs no session.

    ``fields`` holds what is particular to the kind (level, code, message, timestamp, status, lat, ...) as sent.
    """

    kind: MessageType
    kp: str | None
    instance: str | None
    token: str | None = field(repr=False)
    owner: str | None
    fields: dict[str, Any]

    @property
    def instance_name(self) -> str | None:
        return without_kp(self.instance, self.kp)


@dataclass(frozen=True, slots=True)
class SubscribeCommand:
    """Asks for the COMMANDs of one type that are sent to a KP instance; needs no session."""

    kp: str | None
    instance: str | None
    token: str | None = field(repr=False)
    command_type: str | None

    @property
    def instance_name(self) -> str | None:
        return without_kp(self.instance, self.kp)


@dataclass(frozen=True, slots=True)
class Command:
    """A command for a KP instance; reaches nobody if ``command_type`` is None."""

    kp: str | None
    instance: str | None
    command_type: str | None
    args: dict[str, Any]

    @property
    def instance_name(self) -> str | None:
        return without_kp(self.instance, self.kp)


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A message type that no client sends to a SIB (CREATE, GETINDEXES, INDICATION, ...): answer OTHER."""

    message_type: MessageType


Operation: TypeAlias = (
    Join
    | Leave
    | Insert
    | Update
    | Delete
    | Query
    | Subscribe
    | Unsubscribe
    | Bulk
    | Config
    | DeviceReport
    | SubscribeCommand
    | Command
    | Unsupported
)
