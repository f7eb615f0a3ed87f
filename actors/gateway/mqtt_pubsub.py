"""Ordinary publish/subscribe between clients: routing, retained messages, wills. Only on listeners with ``pubsub``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sib.mqtt.codec import Publish, Will
from sib.mqtt.properties import Property, number_in, without
from sib.mqtt.session import Message, Session
from sib.mqtt.topics import Match, Subscription, SubscriptionTree, matches

if TYPE_CHECKING:
    from actors.gateway.mqtt import MqttEndpoint


class PubSub:
    """Who gets what. One per endpoint: its listeners share topics, retained messages and sessions."""

    def __init__(self, endpoint: MqttEndpoint) -> None:
        self._endpoint = endpoint
        self._tree: SubscriptionTree[Session] = SubscriptionTree()
        self._retained: dict[str, Message] = {}
        self._retained_bytes = 0

    @property
    def retained_count(self) -> int:
        return len(self._retained)

    def subscribe(self, session: Session, pattern: str, subscription: Subscription, group: str | None) -> None:
        self._tree.add(session, pattern, subscription, group)

    def unsubscribe(self, session: Session, pattern: str, group: str | None) -> None:
        self._tree.remove(session, pattern, group)

    def publish(self, publish: Publish, publisher: Session | None) -> asyncio.Future[None] | None:
        """Pass a message on. Returns what to wait for before it may be acknowledged; None = nothing.

        The wait is for the store: a message for a persistent session at QoS 1 or 2 is durable first.
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
        return self._route(message, publisher)

    def publish_will(self, will: Will, session: Session) -> None:
        """The will of a session whose connection ended without a DISCONNECT."""
        self.publish(Publish(will.topic, will.payload, will.qos, will.is_retain, properties=will.properties), session)

    def _route(self, message: Message, publisher: Session | None) -> asyncio.Future[None] | None:
        self._endpoint.stats.messages_routed += 1
        if message.is_retain:
            self._retain(message)
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

    def _retain(self, message: Message) -> None:
        limits = self._endpoint.limits
        earlier = self._retained.pop(message.topic, None)
        if earlier is not None:
            self._retained_bytes -= earlier.size_bytes
        if not message.payload:
            return
        if (
            len(self._retained) >= limits.retained_max
            or self._retained_bytes + message.size_bytes > limits.retained_bytes_max
        ):
            self._endpoint.stats.retained_refused += 1
            return
        self._retained[message.topic] = message
        self._retained_bytes += message.size_bytes

    def send_retained(self, session: Session, pattern: str, subscription: Subscription) -> None:
        """Send a new subscriber what is retained under its filter."""
        if "+" in pattern or "#" in pattern:
            found = [message for topic, message in self._retained.items() if matches(pattern, topic)]
        else:
            found = [self._retained[pattern]] if pattern in self._retained else []
        now = self._endpoint.clock()
        for message in found:
            if message.expires_at_s is not None and message.expires_at_s <= now:
                self._retained_bytes -= self._retained.pop(message.topic).size_bytes
                continue
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
