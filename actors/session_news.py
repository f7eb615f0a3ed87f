"""Who is told when sessions end or move: the gateways that have a lease of them, the partitions that have their subscriptions."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

from actors.config import Topology
from actors.runtime import Ref
from sib.errors import SibError
from sib.sessions import Session, Sessions
from storage.bdc.records import SubscriptionRecord

log = logging.getLogger("sofia2.sessions")

CONFIRM_S = 1.0
"""How long a shard waits for a partition to confirm; it serves nobody meanwhile, and asks again a second later."""


class SessionNews:
    """What the sessions of one shard have others to tell. Calls come after what they tell of is stored."""

    def __init__(self, topology: Topology, sessions: Sessions) -> None:
        self._topology, self._sessions = topology, sessions
        self._leased: dict[str, set[str]] = {}
        self._ended_subscriptions: dict[str, set[str]] = {}
        self._moved_sessions: dict[str, set[str]] = {}

    def leased(self, session_key: str, gateway: str) -> None:
        """A gateway knows the session from now on."""
        self._leased.setdefault(session_key, set()).add(gateway)

    def leased_alone(self, session_key: str, gateway: str) -> None:
        """Only this gateway may serve the session without asking; unlike all else here, this comes before the commit."""
        for other in self._leased.get(session_key, set()) - {gateway}:
            if other in self._topology.gateways:
                Ref(other).tell("moved", [session_key])
        self._leased[session_key] = {gateway}

    def ended(self, session: Session) -> None:
        """A session has ended, and its subscriptions with it."""
        callbacks = {self._home_of(record) for record in session.subscriptions.values() if record.gateway}
        for gateway in self._leased.pop(session.key, set()) | callbacks | {session.gateway}:
            if gateway in self._topology.gateways:
                Ref(gateway).tell("forget", [session.key])
        self.unsubscribed(session.subscriptions.values())

    def unsubscribed(self, records: Iterable[SubscriptionRecord]) -> None:
        """Subscriptions have ended."""
        ids_by_partition: dict[str, list[str]] = {}
        for record in records:
            if record.gateway and self._home_of(record) in self._topology.gateways:
                Ref(self._home_of(record)).tell("end_subscription", record.subscription_id)
            partition = self._topology.partition_of(record.ontology)
            ids_by_partition.setdefault(partition, []).append(record.subscription_id)
        for partition, ids in ids_by_partition.items():
            Ref(partition).tell("unsubscribe", ids)
            self._ended_subscriptions.setdefault(partition, set()).update(ids)

    def _home_of(self, record: SubscriptionRecord) -> str:
        return self._topology.home_of(record.gateway, "")

    def moved(self, session: Session, previous: str) -> None:
        """A session speaks through another gateway than before: its INDICATIONs go there."""
        if previous == session.gateway or not session.subscriptions:
            return
        if previous in self._topology.gateways:
            self._leased.get(session.key, set()).discard(previous)
            Ref(previous).tell("moved", [session.key])
        for partition in {self._topology.partition_of(r.ontology) for r in session.subscriptions.values()}:
            Ref(partition).tell("move_sessions", {session.key: session.gateway})
            self._moved_sessions.setdefault(partition, set()).add(session.key)

    def confirm(self) -> None:
        """Tell the partitions again, and be sure that they heard: one that was just starting may have missed it."""
        for partition, ids in list(self._ended_subscriptions.items()):
            if _heard(partition, "unsubscribe", sorted(ids)):
                del self._ended_subscriptions[partition]
        for partition, keys in list(self._moved_sessions.items()):
            sessions = filter(None, (self._sessions.get(key, time.time()) for key in keys))
            if _heard(partition, "move_sessions", {session.key: session.gateway for session in sessions}):
                del self._moved_sessions[partition]


def _heard(partition: str, method: str, argument: Any) -> bool:
    try:
        Ref(partition).ask(method, argument, timeout_s=CONFIRM_S)
    except SibError as error:
        log.debug("%s did not hear of ended or moved sessions: %s", partition, error)
        return False
    return True
