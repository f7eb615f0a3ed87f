"""Persistent MQTT sessions in the BDC: the store port of the MQTT endpoint over the synchronous repository."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from actors.gateway.mqtt_store import SessionsMovedError, StoredMessage, StoredRetained, StoredSession
from storage.bdc.bdc import Bdc, utc_now
from storage.bdc.mqtt import ForeignSessionsError
from storage.bdc.records import MqttMessageRecord, MqttRetainedRecord, MqttSessionRecord

QUEUE_LOADED_MAX = 1_000_000
"""Messages of one client that are read at a start; its queue is bounded far below."""


class BdcSessionStore:
    """The sessions that one gateway holds; calls run in threads, each durable when it returns."""

    def __init__(self, bdc: Bdc, gateway: str, gateways: Sequence[str] = ()) -> None:
        """``gateways``: all that may hold sessions; the first of them takes over those of gateways that are no more."""
        self._mqtt, self._retained, self._gateway = bdc.mqtt, bdc.retained, gateway
        self._gateways = gateways or (gateway,)

    async def load_all(self) -> tuple[list[StoredSession], list[StoredMessage]]:
        return await asyncio.to_thread(self._load_all)

    def _load_all(self) -> tuple[list[StoredSession], list[StoredMessage]]:
        if self._gateway == self._gateways[0]:
            self._mqtt.adopt(self._gateway, self._gateways)
        return self._with_messages(self._mqtt.load(self._gateway))

    async def claim(self, client_ids: Sequence[str]) -> tuple[list[StoredSession], list[StoredMessage]]:
        return await asyncio.to_thread(lambda: self._with_messages(self._mqtt.claim(client_ids, self._gateway)))

    def _with_messages(self, records: Iterable[MqttSessionRecord]) -> tuple[list[StoredSession], list[StoredMessage]]:
        sessions = [
            StoredSession(record.client_id, record.subscriptions, record.expiry_s, _epoch_s(record.disconnected_at))
            for record in records
        ]
        messages = [
            StoredMessage(
                message.client_id,
                message.number,
                message.topic,
                message.payload,
                message.qos,
                message.retain,
                message.properties or [],
                _epoch_s(message.expires_at),
            )
            for session in sessions
            for message in self._mqtt.queue(session.client_id, QUEUE_LOADED_MAX)
        ]
        return sessions, sorted(messages, key=lambda message: message.number)

    async def save(self, sessions: Sequence[StoredSession]) -> None:
        records = [
            MqttSessionRecord(
                session.client_id, self._gateway, session.state, session.expiry_s, _moment(session.left_at_s)
            )
            for session in sessions
        ]
        try:
            await asyncio.to_thread(lambda: self._mqtt.save(*records, owner=self._gateway))
        except ForeignSessionsError as error:
            raise SessionsMovedError(error.client_ids) from None

    async def delete(self, client_ids: Sequence[str]) -> None:
        await asyncio.to_thread(lambda: self._mqtt.delete(*client_ids, owner=self._gateway))

    async def enqueue(self, messages: Sequence[StoredMessage]) -> None:
        records = [
            MqttMessageRecord(
                message.client_id,
                message.number,
                message.topic,
                message.payload,
                message.qos,
                message.is_retain,
                message.properties,
                _moment(message.expires_at_s),
            )
            for message in messages
        ]
        try:
            await asyncio.to_thread(lambda: self._mqtt.enqueue(records, owner=self._gateway))
        except ForeignSessionsError as error:
            raise SessionsMovedError(error.client_ids) from None

    async def dequeue(self, keys: Sequence[tuple[str, int]]) -> None:
        await asyncio.to_thread(self._mqtt.dequeue, list(keys))

    async def load_retained(self) -> list[StoredRetained]:
        now = utc_now()
        return [
            StoredRetained(
                record.topic, record.payload, record.qos, record.properties, _epoch_s(record.expires_at), record.stamp
            )
            for record in await asyncio.to_thread(self._retained.load, now)
        ]

    async def retain(self, changes: Sequence[StoredRetained]) -> None:
        records = [
            MqttRetainedRecord(
                change.topic, change.payload, change.qos, change.properties, change.stamp, _moment(change.expires_at_s)
            )
            for change in changes
        ]
        await asyncio.to_thread(self._retained.put, records)


def _moment(epoch_s: float | None) -> datetime | None:
    return None if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC).replace(tzinfo=None)


def _epoch_s(moment: datetime | None) -> float | None:
    return None if moment is None else moment.replace(tzinfo=UTC).timestamp()
