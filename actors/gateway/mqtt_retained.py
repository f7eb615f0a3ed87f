"""Retained messages: all of them in memory for who subscribes, and in the store for the next process.

Every gateway with a ``pubsub`` listener has all of them; the one that gets a message stores it and tells the others. Of two
changes of one topic the one with the higher stamp counts, here and in the store.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from actors.gateway.mqtt_store import StoredRetained, StoreWriter
from sib.mqtt.properties import from_json, to_json
from sib.mqtt.session import Message
from sib.mqtt.topics import matches

if TYPE_CHECKING:
    from actors.gateway.mqtt import MqttEndpoint

log = logging.getLogger(__name__)

WARN_EVERY = 1000
"""Refused messages between two warnings."""
SWEEP_S = 1.0
"""At the bound, how often those that have expired are looked for."""


class RetainedMessages:
    """The last message of each topic that was published with RETAIN. Bounds: ``MqttLimits.retained_max`` and its bytes."""

    def __init__(self, endpoint: MqttEndpoint, writer: StoreWriter | None) -> None:
        self._endpoint = endpoint
        self._writer = writer
        self._messages: dict[str, tuple[int, Message]] = {}
        self._bytes = 0
        self._swept_at_s = 0.0

    def __len__(self) -> int:
        return len(self._messages)

    def has_room(self, topic: str, payload: bytes) -> bool:
        """Whether a message can be retained; one that takes another out, or takes its place, nearly always can."""
        if not payload or self._fits(topic, payload):
            return True
        now = self._endpoint.clock()
        if now - self._swept_at_s >= SWEEP_S:
            self._swept_at_s = now
            self._without_expired([message for _, message in self._messages.values()])
        return self._fits(topic, payload)

    def _fits(self, topic: str, payload: bytes) -> bool:
        known = self._messages.get(topic)
        limits = self._endpoint.limits
        size_bytes = self._bytes - (known[1].size_bytes if known else 0) + Message(topic, payload).size_bytes
        count = len(self._messages) + (known is None)
        return count <= limits.retained_max and size_bytes <= limits.retained_bytes_max

    def refused(self) -> None:
        """Note that a message could not be retained."""
        stats = self._endpoint.stats
        if not stats.retained_refused % WARN_EVERY:
            log.warning("no room for further retained messages", extra={"retained": len(self._messages)})
        stats.retained_refused += 1

    def put(self, message: Message, stamp: int, *, is_stored: bool = False) -> asyncio.Future[None] | None:
        """Retain a message, or with an empty payload forget its topic's; returns what to wait for until that is durable.

        One for which there is no room leaves its topic without any. ``is_stored``: another gateway stores it.
        """
        stamp_known, known = self._messages.get(message.topic, (0, None))
        if stamp_known > stamp:
            return None
        is_kept = bool(message.payload) and self.has_room(message.topic, message.payload)
        if message.payload and not is_kept:
            self.refused()
        if known is not None:
            self._remove(known)
        if is_kept:
            self._messages[message.topic] = stamp, message
            self._bytes += message.size_bytes
        if self._writer is None or is_stored or not (known or is_kept):
            return None
        return self._writer.retain(self._to_store(message, stamp, is_kept=is_kept))

    def _remove(self, message: Message) -> None:
        if self._messages.pop(message.topic, None) is not None:
            self._bytes -= message.size_bytes

    def _to_store(self, message: Message, stamp: int, *, is_kept: bool) -> StoredRetained:
        expires_at_s = message.expires_at_s
        if expires_at_s is not None:
            expires_at_s += time.time() - self._endpoint.clock()
        payload = message.payload if is_kept else b""
        return StoredRetained(message.topic, payload, message.qos, to_json(message.properties), expires_at_s, stamp)

    def restore(self, stored: Iterable[StoredRetained]) -> None:
        """What was retained when the process ended, or what other gateways retain."""
        shift_s = self._endpoint.clock() - time.time()
        for entry in stored:
            expires_at_s = None if entry.expires_at_s is None else entry.expires_at_s + shift_s
            message = Message(
                entry.topic,
                entry.payload,
                entry.qos,
                is_retain=True,
                properties=from_json(entry.properties),
                expires_at_s=expires_at_s,
            )
            self.put(message, entry.stamp, is_stored=True)

    def under(self, pattern: str) -> list[Message]:
        """What is retained under a filter and has not expired."""
        if "+" in pattern or "#" in pattern:
            found = [message for topic, (_, message) in self._messages.items() if matches(pattern, topic)]
        else:
            found = [self._messages[pattern][1]] if pattern in self._messages else []
        return self._without_expired(found)

    def _without_expired(self, messages: list[Message]) -> list[Message]:
        now = self._endpoint.clock()
        fresh = []
        for message in messages:
            if message.expires_at_s is None or message.expires_at_s > now:
                fresh.append(message)
                continue
            stamp, _ = self._messages[message.topic]
            self._remove(message)
            if self._writer is not None:
                self._writer.retain(self._to_store(message, stamp, is_kept=False))
        return fresh
