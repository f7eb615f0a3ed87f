"""Retained MQTT messages: one per topic, the newest by its stamp. How many there may be is the gateways' to bound."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select

from storage.bdc.engine import Database
from storage.bdc.identities import chunks
from storage.bdc.models import MqttRetained
from storage.bdc.records import MqttRetainedRecord


class RetainedStore:
    """The retained messages of all gateways. Every call is one transaction; safe for threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, now: datetime) -> list[MqttRetainedRecord]:
        """All that have not expired; those that have are removed."""
        with self._database.write() as connection:
            connection.execute(delete(MqttRetained).where(MqttRetained.expires_at <= now))
            return [
                MqttRetainedRecord(row.topic, row.payload, row.qos, row.properties, row.stamp, row.expires_at)
                for row in connection.execute(select(MqttRetained.__table__))
            ]

    def put(self, changes: Sequence[MqttRetainedRecord]) -> None:
        """Keep messages, or take them out (empty payload); one that is older than what is there changes nothing.

        Idempotent; durable when it returns.
        """
        latest: dict[str, MqttRetainedRecord] = {}
        for change in sorted(changes, key=lambda change: change.stamp):
            latest[_hash_of(change.topic)] = change
        with self._database.write() as connection:
            for chunk in chunks(list(latest)):
                known = select(MqttRetained.topic_hash, MqttRetained.stamp).where(MqttRetained.topic_hash.in_(chunk))
                for row in connection.execute(known.with_for_update()):
                    if row.stamp > latest[row.topic_hash].stamp:
                        del latest[row.topic_hash]
            for chunk in chunks(latest):
                connection.execute(delete(MqttRetained).where(MqttRetained.topic_hash.in_(chunk)))
            rows = [_row(topic_hash, change) for topic_hash, change in latest.items() if change.payload]
            if rows:
                connection.execute(insert(MqttRetained), rows)


def _hash_of(topic: str) -> str:
    return hashlib.sha256(topic.encode()).hexdigest()


def _row(topic_hash: str, change: MqttRetainedRecord) -> dict[str, Any]:
    return {
        "topic_hash": topic_hash,
        "topic": change.topic,
        "payload": change.payload,
        "qos": change.qos,
        "properties": change.properties,
        "stamp": change.stamp,
        "expires_at": change.expires_at,
    }
