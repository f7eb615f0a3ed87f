"""Persistent MQTT sessions in the BDC: the store port of the MQTT endpoint over the synchronous repository."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from actors.gateway.mqtt_store import StoredMessage, StoredSession
from storage.bdc.bdc import Bdc
from storage.bdc.records import MqttMessageRecord, MqttSessionRecord

QUEUE_LOADED_MAX = 1_000_000
"""Messages of one client that are read at a start; its queue is bounded far below."""


class BdcSessionStore:
    """The sessions of one gateway; calls run in threads, each durable when it returns."""

    def __init__(self, bdc: Bdc, gateway: str) -> None:
        self._mqtt, self._gateway = bdc.mqtt, gateway

    async def load_all(self) -> tuple[list[StoredSession], list[StoredMessage]]:
        return await asyncio.to_thread(self._load_all)

    def _load_all(self) -> tuple[list[StoredSession], list[StoredMessage]]:
        records = self._mqtt.load(self._gateway)
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
            for record in records
            for message in self._mqtt.queue(record.client_id, QUEUE_LOADED_MAX)
        ]
        return sessions, sorted(messages, key=lambda message: message.number)

    async def save(self, sessions: Sequence[StoredSession]) -> None:
        records = [
            MqttSessionRecord(
                session.client_id, self._gateway, session.state, session.expiry_s, _moment(session.left_at_s)
            )
            for session in sessions
        ]
        await asyncio.to_thread(self._mqtt.save, *records)

    async def delete(self, client_ids: Sequence[str]) -> None:
        await asyncio.to_thread(self._mqtt.delete, *client_ids)

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
        await asyncio.to_thread(self._mqtt.enqueue, records)

    async def dequeue(self, keys: Sequence[tuple[str, int]]) -> None:
        await asyncio.to_thread(self._mqtt.dequeue, list(keys))


def _moment(epoch_s: float | None) -> datetime | None:
    return None if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC).replace(tzinfo=None)


def _epoch_s(moment: datetime | None) -> float | None:
    return None if moment is None else moment.replace(tzinfo=UTC).timestamp()
