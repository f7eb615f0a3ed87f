"""Ordinary publish/subscribe between clients: routing, retained messages, wills. Only on listeners with ``pubsub``.

What one gateway gets goes to the subscribers of all gateways; a ``$share`` group has its members at one gateway: at two it is
two groups.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from actors.gateway.mqtt_delivery import all_of
from actors.gateway.mqtt_retained import RetainedMessages
from actors.gateway.mqtt_store import StoredRetained, StoreWriter
from sib.mqtt.codec import Publish, Will
from sib.mqtt.properties import Property, number_in, without
from sib.mqtt.session import Message, Session
from sib.mqtt.topics import Match, Subscription, SubscriptionTree

if TYPE_CHECKING:
    from actors.gateway.mqtt import MqttEndpoint


class PubSub:
    """Who gets what. One per endpoint: its listeners share topics, retained messages and sessions."""

    def __init__(self, endpoint: MqttEndpoint, writer: StoreWriter | None) -> None:
        self._endpoint = endpoint
        self._tree: SubscriptionTree[Session] = SubscriptionTree()
        self._retained = RetainedMessages(endpoint, writer)
        self._stamp = 0

    @property
    def retained_count(self) -> int:
        return len(self._retained)

    def restore(self, stored: Iterable[StoredRetained]) -> None:
        self._retained.restore(stored)

    def subscribe(self, session: Session, pattern: str, subscription: Subscription, group: str | None) -> None:
        self._tree.add(session, pattern, subscription, group)

    def unsubscribe(self, session: Session, pattern: str, group: str | None) -> None:
        self._tree.remove(session, pattern, group)

    def takes(self, publish: Publish) -> bool:
        """Whether there is room for what is to be retained of this message, if anything; that there is none is counted."""
        if not publish.is_retain or self._retained.has_room(publish.topic, publish.payload):
            return True
        self._retained.refused()
        return False

    def _next_stamp(self) -> int:
        peers = self._endpoint.peers
        self._stamp = peers.claims.next_number() if peers is not None else max(time.time_ns(), self._stamp + 1)
        return self._stamp

    def publish(self, publish: Publish, publisher: Session | None) -> asyncio.Future[None] | None:
        """Pass a message on. Returns what to wait for before it may be acknowledged; None = nothing.

        The wait is for the store, here and at other gateways: a message for a persistent session at QoS 1 or 2 is durable
        first, and so is one that is retained.
        """
        properties, expires_at_s = publish.properties, None
        if properties:
            expiry_s = number_in(properties, Property.MESSAGE_EXPIRY)
            if expiry_s is not None:
                expires_at_s = self._endpoint.clock() + expiry_s
            properties = without(properties, Property.MESSAGE_EXPIRY, Property.TOPIC_ALIAS)
        message = Message(
            publish.topic,
            publish.payload,
            publish.qos,
            is_retain=publish.is_retain,
            properties=properties,
            expires_at_s=expires_at_s,
        )
        peers, stamp = self._endpoint.peers, self._next_stamp()
        waits = [self._retained.put(message, stamp)] if message.is_retain else []
        waits.append(self._route(message, publisher))
        if peers is not None:
            waits.append(peers.publish(message, stamp))
        return all_of([wait for wait in waits if wait is not None])

    def publish_will(self, will: Will, session: Session) -> None:
        """The will of a session whose connection ended without a DISCONNECT."""
        self.publish(Publish(will.topic, will.payload, will.qos, will.is_retain, properties=will.properties), session)

    def publish_from_peer(self, message: Message, stamp: int) -> asyncio.Future[None] | None:
        """A message that another gateway got. Returns what to wait for, as ``publish``."""
        if message.is_retain:
            self._retained.put(message, stamp, is_stored=True)
        return self._route(message, None)

    def _route(self, message: Message, publisher: Session | None) -> asyncio.Future[None] | None:
        self._endpoint.stats.messages_routed += 1
        subscribers, groups = self._tree.match(message.topic)
        if not subscribers and not groups:
            return None
        deliveries = [
            (session, _for_subscriber(message, match))
            for session, match in subscribers.items()
            if not (match.is_no_local and session is publisher)
        ]
        for group in groups:
            members = list(group.in_turn())
            if members:
                session, subscription = next(
                    (member for member in members if member[0].connection is not None), members[0]
                )
                deliveries.append((session, _for_subscriber(message, _match_of(subscription))))
        return self._endpoint.delivery.send_all(deliveries)

    def send_retained(self, session: Session, pattern: str, subscription: Subscription) -> None:
        """Send a new subscriber what is retained under its filter."""
        for message in self._retained.under(pattern):
            ids = (subscription.subscription_id,) if subscription.subscription_id else ()
            qos = min(subscription.qos, message.qos)
            self._endpoint.delivery.send(session, message.to_subscriber(qos, is_retain=True, subscription_ids=ids))


def _match_of(subscription: Subscription) -> Match:
    ids = (subscription.subscription_id,) if subscription.subscription_id else ()
    return Match(subscription.qos, False, subscription.is_retain_as_published, ids)


def _for_subscriber(message: Message, match: Match) -> Message:
    return message.to_subscriber(
        min(match.qos, message.qos),
        is_retain=message.is_retain and match.is_retain_as_published,
        subscription_ids=match.subscription_ids,
    )
