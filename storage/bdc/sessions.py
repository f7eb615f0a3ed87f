"""SSAP sessions and their subscriptions: what a session shard needs to come back after ``kill -9``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from storage.bdc.engine import Database
from storage.bdc.identities import chunks
from storage.bdc.models import Session, Subscription
from storage.bdc.records import SessionRecord, SubscriptionRecord


class SessionStore:
    """The sessions. Every call is one transaction; safe for threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, sessions: Sequence[SessionRecord]) -> None:
        """Write sessions, also ones that are there already. Idempotent; durable when it returns."""
        if not sessions:
            return
        with self._database.write() as connection:
            _delete_by(connection, Session, "session_key", [session.session_key for session in sessions])
            connection.execute(insert(Session), [_session_row(session) for session in sessions])

    def load(self) -> list[SessionRecord]:
        """All sessions, expired ones too."""
        with self._database.read() as connection:
            return [_session_record(row) for row in connection.execute(select(Session.__table__))]

    def touch(self, used: Sequence[tuple[str, datetime]], *, expiry_s: float) -> None:
        """Note when sessions were last used and let each expire ``expiry_s`` later. Unknown keys are ignored."""
        if not used:
            return
        rows = [{"key": key, "used": at, "expires": at + timedelta(seconds=expiry_s)} for key, at in used]
        statement = (
            update(Session)
            .where(Session.session_key == bindparam("key"))
            .values(used_at=bindparam("used"), expires_at=bindparam("expires"))
        )
        with self._database.write() as connection:
            connection.execute(statement, rows)

    def delete(self, keys: Sequence[str]) -> None:
        """End sessions and their subscriptions. Idempotent."""
        if not keys:
            return
        with self._database.write() as connection:
            _delete_sessions(connection, keys)

    def delete_expired(self, now: datetime) -> list[str]:
        """End every session whose time is over, with its subscriptions; gives their keys."""
        with self._database.write() as connection:
            keys = list(connection.execute(select(Session.session_key).where(Session.expires_at <= now)).scalars())
            _delete_sessions(connection, keys)
        return keys


class SubscriptionStore:
    """The subscriptions. Every call is one transaction; safe for threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, subscriptions: Sequence[SubscriptionRecord]) -> None:
        """Write subscriptions, also ones that are there already. Idempotent; durable when it returns."""
        if not subscriptions:
            return
        with self._database.write() as connection:
            ids = [subscription.subscription_id for subscription in subscriptions]
            _delete_by(connection, Subscription, "subscription_id", ids)
            connection.execute(insert(Subscription), [_subscription_row(item) for item in subscriptions])

    def load(self) -> list[SubscriptionRecord]:
        """All subscriptions in the order they were made, as far as the clock tells."""
        statement = select(Subscription.__table__).order_by(Subscription.created_at, Subscription.subscription_id)
        with self._database.read() as connection:
            return [_subscription_record(row) for row in connection.execute(statement)]

    def delete(self, ids: Sequence[str]) -> None:
        """Remove subscriptions. Idempotent."""
        if not ids:
            return
        with self._database.write() as connection:
            _delete_by(connection, Subscription, "subscription_id", ids)

    def delete_of_session(self, keys: Sequence[str]) -> None:
        """Remove all subscriptions of these sessions. Idempotent."""
        if not keys:
            return
        with self._database.write() as connection:
            _delete_by(connection, Subscription, "session_key", keys)


def _delete_sessions(connection: Connection, keys: Sequence[str]) -> None:
    _delete_by(connection, Subscription, "session_key", keys)
    _delete_by(connection, Session, "session_key", keys)


def _delete_by(
    connection: Connection, table: type[Session] | type[Subscription], column: str, keys: Iterable[str]
) -> None:
    for chunk in chunks(keys):
        connection.execute(delete(table).where(getattr(table, column).in_(chunk)))


def _session_row(session: SessionRecord) -> dict[str, Any]:
    return {
        "session_key": session.session_key,
        "kp": session.kp,
        "instance": session.instance,
        "user_name": session.user,
        "credential": session.credential,
        "gateway": session.gateway,
        "client_ref": session.client_ref,
        "dialect": int(session.dialect),
        "is_ciphered": session.ciphered,
        "created_at": session.created_at,
        "used_at": session.used_at,
        "expires_at": session.expires_at,
    }


def _session_record(row: Row[Any]) -> SessionRecord:
    return SessionRecord(
        session_key=row.session_key,
        kp=row.kp,
        instance=row.instance,
        user=row.user_name,
        credential=row.credential,
        gateway=row.gateway,
        client_ref=row.client_ref,
        dialect=row.dialect,
        ciphered=row.is_ciphered,
        created_at=row.created_at,
        used_at=row.used_at,
        expires_at=row.expires_at,
    )


def _subscription_row(subscription: SubscriptionRecord) -> dict[str, Any]:
    return {
        "subscription_id": subscription.subscription_id,
        "session_key": subscription.session_key,
        "ontology": subscription.ontology,
        "query_text": subscription.query_text,
        "query_type": str(subscription.query_type),
        "params": None if subscription.params is None else dict(subscription.params),
        "filter_text": subscription.filter_text,
        "ms_refresh": subscription.ms_refresh,
        "dialect": int(subscription.dialect),
        "is_ciphered": subscription.ciphered,
        "endpoint": subscription.endpoint,
        "gateway": subscription.gateway,
        "created_at": subscription.created_at,
    }


def _subscription_record(row: Row[Any]) -> SubscriptionRecord:
    return SubscriptionRecord(
        subscription_id=row.subscription_id,
        session_key=row.session_key,
        ontology=row.ontology,
        query_text=row.query_text,
        query_type=row.query_type,
        params=row.params,
        filter_text=row.filter_text,
        ms_refresh=row.ms_refresh,
        dialect=row.dialect,
        ciphered=row.is_ciphered,
        endpoint=row.endpoint,
        gateway=row.gateway,
        created_at=row.created_at,
    )
