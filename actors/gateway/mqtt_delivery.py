"""Messages to clients, wherever they are: sent, waiting for room, waiting in the store for who is away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Iterable, Sequence
from typing import TYPE_CHECKING

from actors.gateway.mqtt_claims import Handover, OnItsWay
from actors.gateway.mqtt_store import StoredMessage, StoreWriter
from sib.mqtt.kp_topics import INDICATION, own_topic
from sib.mqtt.properties import Property, from_json, to_json
from sib.mqtt.session import Message, Session

if TYPE_CHECKING:
    from actors.gateway.mqtt import MqttEndpoint
    from actors.gateway.mqtt_connection import MqttConnection

log = logging.getLogger(__name__)

WARN_EVERY = 1000
"""Dropped messages between two warnings."""


class MqttDelivery:
    """Puts messages on their way. A message of QoS 1 or 2 for a persistent session is stored before it is sent."""

    def __init__(self, endpoint: MqttEndpoint, writer: StoreWriter | None) -> None:
        self._endpoint = endpoint
        self._limits = endpoint.limits
        self._stats = endpoint.stats
        self._writer = writer
        self._number = 0
        self.queue_bytes = 0
        """What waits for all clients together."""

    def indicate(self, indications: Iterable[tuple[str, bytes]]) -> asyncio.Future[None] | None:
        """Send INDICATIONs, (client id, payload) each. Returns what to wait for until they are durable; None = nothing."""
        durable: list[tuple[Session, Message]] = []
        elsewhere: list[Awaitable[None]] = []
        for client_id, payload in indications:
            session = self._endpoint.sessions.get(client_id)
            if session is None:
                peers = self._endpoint.peers
                passed_on = peers.indicate(client_id, payload) if peers is not None else None
                if passed_on is not None:
                    elsewhere.append(passed_on)
                else:
                    self._stats.dropped_offline += 1
                continue
            topic = own_topic(INDICATION, client_id)
            subscription = session.subscriptions.get(topic)
            connection: MqttConnection | None = session.connection
            if subscription is not None and subscription.qos and session.is_persistent:
                self._stats.indications_sent += 1
                durable.append((session, Message(topic, payload, subscription.qos)))
            elif connection is not None:
                connection.send_own(INDICATION, payload)
            else:
                self._stats.dropped_offline += 1
        stored = self.send_all(durable) if durable else None
        return all_of([*elsewhere, stored] if stored is not None else elsewhere)

    def send_all(self, deliveries: list[tuple[Session, Message]]) -> asyncio.Future[None] | None:
        """Send messages, after storing those that have to be. Returns what to wait for until they are; None = nothing."""
        writer = self._writer
        durable: list[tuple[Session, Message]] = []
        for session, message in deliveries:
            if writer is not None and message.qos and session.is_persistent:
                self._number += 1
                message.number = self._number
                durable.append((session, message))
            else:
                self.send(session, message)
        if writer is None or not durable:
            return None
        stored = writer.enqueue([self._to_store(session, message) for session, message in durable])

        def go_on(done: asyncio.Future[None]) -> None:
            if not done.cancelled() and done.exception() is None:
                for session, message in durable:
                    # Otherwise it has gone to another gateway, which finds the message in the store.
                    if self._endpoint.sessions.get(session.client_id) is session:
                        self.send(session, message)

        stored.add_done_callback(go_on)
        return stored

    def send(self, session: Session, message: Message) -> None:
        """Send a message now, or let it wait: for the client, for room in its window."""
        connection: MqttConnection | None = session.connection
        if not message.qos:
            if connection is not None:
                connection.send(message)
            else:
                self._stats.dropped_offline += 1
        elif connection is not None and connection.has_room and not session.queue_count:
            if not connection.send_numbered(message):
                self.forget(session, message)
        elif connection is not None or self._comes_back(session):
            self._queue(session, message)
        else:
            self._stats.dropped_offline += 1

    def _comes_back(self, session: Session) -> bool:
        return session.is_persistent and self._endpoint.sessions.get(session.client_id) is session

    def _queue(self, session: Session, message: Message) -> None:
        before = session.queue_bytes
        if self.queue_bytes + message.size_bytes > self._limits.queue_bytes_all_max:
            dropped = [message]
        else:
            dropped = session.enqueue(message, self._limits.queue)
        self.queue_bytes += session.queue_bytes - before
        for lost in dropped:
            if not self._stats.dropped_queue_full % WARN_EVERY:
                log.warning("mqtt queue full", extra={"client_id": session.client_id, "waiting": session.queue_count})
            self._stats.dropped_queue_full += 1
            self.forget(session, lost)

    def pump(self, session: Session) -> None:
        """Send what waits, as far as the window goes."""
        connection: MqttConnection | None = session.connection
        while connection is not None and session.queue_count and connection.has_room:
            before = session.queue_bytes
            message = session.dequeue()
            self.queue_bytes += session.queue_bytes - before
            if message is not None and not connection.send_numbered(message):
                self.forget(session, message)

    def finished(self, session: Session, packet_id: int) -> None:
        """The client has a message (PUBACK, PUBCOMP), or refused it."""
        message = session.finish(packet_id)
        if message is not None and message.number:
            self.forget(session, message)
        if session.queue_count:
            self.pump(session)

    def forget(self, session: Session, message: Message) -> None:
        """A message need not be stored any longer."""
        if message.number and self._writer is not None:
            self._writer.dequeue(session.client_id, message.number)
            message.number = 0

    def discard(self, session: Session) -> None:
        """The session has ended: what waited for it is no longer counted."""
        self.queue_bytes -= session.queue_bytes

    def _to_store(self, session: Session, message: Message) -> StoredMessage:
        expires_at_s = None
        if message.expires_at_s is not None:
            expires_at_s = time.time() + message.expires_at_s - self._endpoint.clock()
        ids = tuple((int(Property.SUBSCRIPTION_ID), identifier) for identifier in message.subscription_ids)
        return StoredMessage(
            session.client_id,
            message.number,
            message.topic,
            message.payload,
            message.qos,
            message.is_retain,
            to_json(message.properties + ids),
            expires_at_s,
        )

    def restore(self, stored: Iterable[StoredMessage]) -> None:
        """Let what the store kept wait again for its clients."""
        for entry in stored:
            session = self._endpoint.sessions.get(entry.client_id)
            message = self._from_store(entry)
            if session is not None:
                self._queue(session, message)

    def _from_store(self, entry: StoredMessage) -> Message:
        # A session may come back to where it was: its numbers go on growing wherever it is.
        self._number = max(self._number, entry.number)
        shift_s = self._endpoint.clock() - time.time()
        message = Message(
            entry.topic,
            entry.payload,
            entry.qos,
            is_retain=entry.is_retain,
            properties=from_json(entry.properties),
            expires_at_s=None if entry.expires_at_s is None else entry.expires_at_s + shift_s,
        )
        message.number = entry.number
        return message

    # To another gateway, and from it

    def hand_over(self, session: Session) -> tuple[list[OnItsWay], list[StoredMessage]]:
        """What a session that goes to another gateway has beside what is stored: on their way, and waiting."""
        on_their_way = []
        for packet_id, message in session.unfinished():
            if message is None:
                on_their_way.append(OnItsWay(packet_id))
            elif message.number:
                on_their_way.append(OnItsWay(packet_id, message.number))
            else:
                on_their_way.append(OnItsWay(packet_id, 0, self._to_store(session, message)))
        return on_their_way, [self._to_store(session, one) for one in session.waiting() if not one.number]

    def take_up(self, session: Session, given: Handover, stored: Sequence[StoredMessage]) -> list[StoredMessage]:
        """Go on with what was on its way; returns what waits."""
        by_number = {entry.number: entry for entry in stored}
        for packet_id, number, message in given.on_their_way:
            entry = message or by_number.pop(number, None)
            if entry is not None or not number:
                session.take_up(packet_id, None if entry is None else self._from_store(entry))
        return [*given.waiting, *by_number.values()]


def all_of(waits: Sequence[Awaitable[None]]) -> asyncio.Future[None] | None:
    """One future for several; it fails if one fails. None for none."""
    if len(waits) < 2:
        return asyncio.ensure_future(waits[0]) if waits else None
    done = asyncio.get_running_loop().create_future()

    def settle(all_done: asyncio.Future[list[BaseException | None]]) -> None:
        errors = [] if all_done.cancelled() else [one for one in all_done.result() if one is not None]
        if done.done():
            return
        if errors:
            done.set_exception(errors[0])
        else:
            done.set_result(None)

    done.add_done_callback(lambda future: future.cancelled() or future.exception())
    asyncio.gather(*waits, return_exceptions=True).add_done_callback(settle)
    return done
