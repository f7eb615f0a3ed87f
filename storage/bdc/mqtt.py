"""Persistent MQTT sessions and the messages that wait for their clients. The bounds of a queue are the gateway's.

A client id has one session, which one gateway holds. A gateway that writes names itself as the ``owner``: what another one
holds by now it cannot change, however late it learns of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from sib.errors import LimitError, StoreError
from storage.bdc.engine import Database
from storage.bdc.identities import chunks
from storage.bdc.models import MqttMessage, MqttSession
from storage.bdc.records import MqttMessageRecord, MqttSessionRecord, QueueState

CLIENT_ID_CHARS_MAX = 255


class ForeignSessionsError(StoreError):
    """Another gateway holds these sessions; nothing of the call was written."""

    def __init__(self, client_ids: Sequence[str]) -> None:
        super().__init__(f"{len(client_ids)} MQTT sessions have gone to another gateway")
        self.client_ids = list(client_ids)


class MqttStore:
    """The MQTT sessions. Every call is one transaction; safe for threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, gateway: str | None = None) -> list[MqttSessionRecord]:
        """The sessions that one gateway saved last, or all."""
        statement = select(MqttSession.__table__)
        if gateway is not None:
            statement = statement.where(MqttSession.gateway == gateway)
        with self._database.read() as connection:
            return [_session_record(row) for row in connection.execute(statement)]

    def get(self, client_id: str) -> MqttSessionRecord | None:
        """The session of a client, whichever gateway saved it."""
        statement = select(MqttSession.__table__).where(MqttSession.client_id == client_id)
        with self._database.read() as connection:
            row = connection.execute(statement).first()
        return None if row is None else _session_record(row)

    def claim(self, client_ids: Sequence[str], gateway: str) -> list[MqttSessionRecord]:
        """Make a gateway the holder of these clients' sessions, whoever held them; gives those that exist."""
        found: list[MqttSessionRecord] = []
        with self._database.write() as connection:
            for chunk in chunks(client_ids):
                of_clients = MqttSession.client_id.in_(chunk)
                connection.execute(update(MqttSession).where(of_clients).values(gateway=gateway))
                found += map(_session_record, connection.execute(select(MqttSession.__table__).where(of_clients)))
        return found

    def adopt(self, gateway: str, among: Sequence[str]) -> int:
        """Make ``gateway`` the holder of the sessions whose gateway is none of ``among``: it is no more. Gives how many."""
        orphans = MqttSession.gateway.not_in(among) | MqttSession.gateway.is_(None)
        with self._database.write() as connection:
            return int(connection.execute(update(MqttSession).where(orphans).values(gateway=gateway)).rowcount)

    def save(self, *sessions: MqttSessionRecord, owner: str | None = None) -> None:
        """Write sessions, also ones that are there already. Idempotent; durable when it returns.

        Raises:
            LimitError: a client id has more than 255 characters; nothing was written.
            ForeignSessionsError: another gateway than ``owner`` holds some of them; nothing was written.
        """
        if not sessions:
            return
        latest = {session.client_id: session for session in sessions}
        if any(len(client_id) > CLIENT_ID_CHARS_MAX for client_id in latest):
            raise LimitError(f"The client id of a persistent session has at most {CLIENT_ID_CHARS_MAX} characters.")
        with self._database.write() as connection:
            _check_owner(connection, latest, owner)
            _delete_sessions(connection, latest)
            connection.execute(insert(MqttSession), [_session_row(session) for session in latest.values()])

    def delete(self, *client_ids: str, owner: str | None = None) -> None:
        """Remove sessions and what waits for them, but for those of another gateway than ``owner``. Idempotent."""
        if not client_ids:
            return
        with self._database.write() as connection:
            foreign = _foreign(connection, client_ids, owner)
            client_ids = tuple(client_id for client_id in client_ids if client_id not in foreign)
            _delete_messages(connection, client_ids)
            _delete_sessions(connection, client_ids)

    def delete_expired(self, now: datetime) -> list[str]:
        """Remove sessions disconnected for longer than their expiry, and messages past theirs; gives the client ids."""
        with self._database.write() as connection:
            rows = connection.execute(
                select(MqttSession.client_id, MqttSession.expiry_s, MqttSession.disconnected_at).where(
                    MqttSession.disconnected_at.is_not(None)
                )
            )
            expired = [row.client_id for row in rows if row.disconnected_at + timedelta(seconds=row.expiry_s) <= now]
            _delete_messages(connection, expired)
            _delete_sessions(connection, expired)
            connection.execute(delete(MqttMessage).where(MqttMessage.expires_at <= now))
        return expired

    def enqueue(self, messages: Sequence[MqttMessageRecord], *, owner: str | None = None) -> None:
        """Keep messages for their clients; durable when it returns.

        Raises:
            StoreError: a client's queue has a message of that number already; none was kept.
            ForeignSessionsError: another gateway than ``owner`` holds a client's session; none was kept.
        """
        if not messages:
            return
        with self._database.write() as connection:
            _check_owner(connection, {message.client_id for message in messages}, owner)
            connection.execute(insert(MqttMessage), [_message_row(message) for message in messages])

    def dequeue(self, delivered: Sequence[tuple[str, int]]) -> None:
        """Forget messages, given by client id and number. Idempotent."""
        if not delivered:
            return
        statement = delete(MqttMessage).where(
            MqttMessage.client_id == bindparam("client"), MqttMessage.seq_no == bindparam("seq")
        )
        with self._database.write() as connection:
            connection.execute(statement, [{"client": client_id, "seq": number} for client_id, number in delivered])

    def queue(self, client_id: str, limit: int, *, after: int = 0) -> list[MqttMessageRecord]:
        """The first ``limit`` messages with a number above ``after`` that wait for a client, in order."""
        statement = (
            select(MqttMessage.__table__)
            .where(MqttMessage.client_id == client_id, MqttMessage.seq_no > after)
            .order_by(MqttMessage.seq_no)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [_message_record(row) for row in connection.execute(statement)]

    def queue_state(self, client_id: str) -> QueueState:
        """How much waits for a client."""
        statement = select(func.count(), func.sum(MqttMessage.size_bytes), func.max(MqttMessage.seq_no)).where(
            MqttMessage.client_id == client_id
        )
        with self._database.read() as connection:
            messages, size_bytes, last_number = connection.execute(statement).one()
        return QueueState(messages, int(size_bytes or 0), int(last_number or 0))


def _foreign(connection: Connection, client_ids: Iterable[str], owner: str | None) -> set[str]:
    """Those that another gateway than ``owner`` holds; none without an owner. Locked until the transaction ends."""
    found: set[str] = set()
    for chunk in chunks(client_ids) if owner is not None else ():
        held = select(MqttSession.client_id, MqttSession.gateway).where(MqttSession.client_id.in_(chunk))
        found.update(row.client_id for row in connection.execute(held.with_for_update()) if row.gateway != owner)
    return found


def _check_owner(connection: Connection, client_ids: Iterable[str], owner: str | None) -> None:
    foreign = _foreign(connection, client_ids, owner)
    if foreign:
        raise ForeignSessionsError(sorted(foreign))


def _delete_sessions(connection: Connection, client_ids: Iterable[str]) -> None:
    for chunk in chunks(client_ids):
        connection.execute(delete(MqttSession).where(MqttSession.client_id.in_(chunk)))


def _delete_messages(connection: Connection, client_ids: Iterable[str]) -> None:
    for chunk in chunks(client_ids):
        connection.execute(delete(MqttMessage).where(MqttMessage.client_id.in_(chunk)))


def _session_row(session: MqttSessionRecord) -> dict[str, Any]:
    return {
        "client_id": session.client_id,
        "gateway": session.gateway,
        "subscriptions": session.subscriptions,
        "expiry_s": session.expiry_s,
        "disconnected_at": session.disconnected_at,
    }


def _session_record(row: Row[Any]) -> MqttSessionRecord:
    return MqttSessionRecord(
        client_id=row.client_id,
        gateway=row.gateway,
        subscriptions=row.subscriptions,
        expiry_s=row.expiry_s,
        disconnected_at=row.disconnected_at,
    )


def _message_row(message: MqttMessageRecord) -> dict[str, Any]:
    return {
        "client_id": message.client_id,
        "seq_no": message.number,
        "topic": message.topic,
        "payload": message.payload,
        "size_bytes": len(message.payload) + len(message.topic),
        "qos": message.qos,
        "is_retained": message.retain,
        "properties": message.properties,
        "expires_at": message.expires_at,
    }


def _message_record(row: Row[Any]) -> MqttMessageRecord:
    return MqttMessageRecord(
        client_id=row.client_id,
        number=row.seq_no,
        topic=row.topic,
        payload=row.payload,
        qos=row.qos,
        retain=row.is_retained,
        properties=row.properties,
        expires_at=row.expires_at,
    )
