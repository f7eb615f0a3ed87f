"""One MQTT connection: PUBLISHes in, acknowledgements in order, answers and messages out.

On an ``ssap`` listener every PUBLISH is a request and goes to the connection's channel with a token; the channel calls
``acknowledge(token)`` when the request is decided. The token *is* the acknowledgement packet, so that this costs
next to nothing. ``MqttConnection`` is the ``Transport`` of the gateway's channels.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson

from actors.gateway import mqtt_control
from actors.gateway.mqtt_options import ListenerOptions, SsapChannel
from actors.gateway.mqtt_own_topics import MqttOwnTopics
from actors.gateway.mqtt_stream import HOST_BUSY, WINDOW_FULL
from sib.mqtt import codec, wire
from sib.mqtt.errors import MqttProtocolError, Reason, malformed
from sib.mqtt.framing import OversizedPublish
from sib.mqtt.kp_topics import CLEAR_TOPIC, REQUEST_TOPICS
from sib.mqtt.properties import Properties, Property, decode_properties, number_in
from sib.mqtt.session import Session
from sib.mqtt.topics import is_topic_name

if TYPE_CHECKING:
    from actors.gateway.mqtt import MqttEndpoint

_PUBACK, _PUBREC = b"\x40\x02", b"\x50\x02"


class MqttConnection(MqttOwnTopics):
    """One client's connection, from its CONNECT on together with its session."""

    __slots__ = (
        "_acks",
        "_is_clear",
        "_refusals",
        "_topic",
        "_undecided",
        "aliases_in",
        "channel",
        "is_surplus",
    )

    def __init__(self, endpoint: MqttEndpoint, options: ListenerOptions) -> None:
        super().__init__(endpoint, options)
        self.channel: SsapChannel | None = None
        self.is_surplus = False
        """Above ``connections_max``: its CONNECT is refused."""
        self.aliases_in: dict[int, str] | None = None
        self._topic: bytes | None = None
        self._is_clear = False
        self._undecided = 0
        self._acks: dict[bytes, bool] | None = None
        """Acknowledgements that wait for earlier ones, and whether each could go; None: the channel keeps the order."""
        self._refusals: dict[bytes, int] | None = None
        """Reasons why PUBLISHes are refused, by the acknowledgement that tells them; MQTT 5 only."""

    # A PUBLISH comes

    def _publish(self, head: int, data: bytes, start: int, end: int) -> None:
        self._endpoint.stats.publishes_received += 1
        if self.options.pubsub:
            self._publish_ordinary(head, data[start:end])
            return
        if end - start < 2:
            raise malformed("a PUBLISH without a topic")
        at = start + 2 + (data[start] << 8 | data[start + 1])
        topic = data[start + 2 : at]
        if topic != self._topic:
            self._check_request_topic(topic)
        token = None
        if head & 6:
            packet_id = data[at : at + 2]
            at += 2
            token = self._begin(head >> 1 & 3, packet_id)
            if token is None:
                return
        if self.version == codec.MQTT_5:
            at = self._skip_properties(data, at, end, topic)
        if at > end:
            raise malformed("a PUBLISH ends before its fields do")
        if head & 1:
            self._endpoint.stats.retain_ignored += 1
        self.channel.receive(data[at:end], token, clear=self._is_clear)  # type: ignore[union-attr]

    def _check_request_topic(self, topic: bytes) -> None:
        """Any topic carries a request, also the empty one, but it must be no filter."""
        if b"+" in topic or b"#" in topic:
            raise MqttProtocolError("a PUBLISH to a topic with wildcards", Reason.TOPIC_NAME_INVALID)
        self._topic = topic
        self._is_clear = topic == CLEAR_TOPIC

    def _skip_properties(self, data: bytes, at: int, end: int, topic: bytes) -> int:
        if at < end and not data[at]:
            return at + 1
        properties, size = decode_properties(data[at:end], 0, codec.PUBLISH)
        resolved = self._resolve_alias(wire.decode_text(topic), properties)
        self._is_clear = resolved.encode() == CLEAR_TOPIC
        self._topic = None
        return at + size

    def _publish_ordinary(self, head: int, body: bytes) -> None:
        """On a ``pubsub`` listener: to the subscribers of its topic, or, with ``ssap`` too, a request."""
        publish = codec.decode_publish(head & 15, body, self.version)
        topic = self._resolve_alias(publish.topic, publish.properties) if publish.properties else publish.topic
        publish.topic = topic
        is_request = self.options.ssap and (topic.encode() in REQUEST_TOPICS or _is_envelope(publish.payload))
        if not is_topic_name(topic) and not (is_request and not topic):
            raise MqttProtocolError("a PUBLISH to a topic that is none", Reason.TOPIC_NAME_INVALID)
        token = None
        if publish.qos:
            token = self._begin(publish.qos, wire.encode_uint16(publish.packet_id))
            if token is None:
                return
        if is_request:
            if token is not None:
                self._acks_in_order()[token] = False
            self.channel.receive(publish.payload, token, clear=topic.encode() == CLEAR_TOPIC)  # type: ignore[union-attr]
            return
        pubsub = self._endpoint.pubsub
        if token is not None and self.version == codec.MQTT_5 and not pubsub.takes(publish):
            self._refuse_publish(token, Reason.QUOTA_EXCEEDED)
            return
        waiting = pubsub.publish(publish, self.session)
        if token is None:
            return
        if waiting is None and not self._acks:
            self._release(token)
        else:
            self._acks_in_order()[token] = waiting is None
            if waiting is not None:
                waiting.add_done_callback(lambda done: self._stored(token, done))

    def _refuse_publish(self, token: bytes, reason: int) -> None:
        """Acknowledge with a reason: the message has been given to nobody."""
        if self._refusals is None:
            self._refusals = {}
        self._refusals[token] = reason
        self._acks_in_order()[token] = False
        self.acknowledge(token)

    def _stored(self, token: bytes, done: asyncio.Future[None]) -> None:
        if done.cancelled() or done.exception() is not None:
            self.forget(token)
            self.abort()
        else:
            self.acknowledge(token)

    def _resolve_alias(self, topic: str, properties: Properties) -> str:
        alias = number_in(properties, Property.TOPIC_ALIAS)
        if number_in(properties, Property.SUBSCRIPTION_ID) is not None:
            raise MqttProtocolError("a client's PUBLISH with a subscription identifier")
        if alias is None:
            return topic
        if alias > self.options.topic_alias_max:
            raise MqttProtocolError("a topic alias that was not allowed", Reason.TOPIC_ALIAS_INVALID)
        if self.aliases_in is None:
            self.aliases_in = {}
        if topic:
            self.aliases_in[alias] = topic
        elif alias not in self.aliases_in:
            raise MqttProtocolError("a topic alias that was never set", Reason.TOPIC_ALIAS_INVALID)
        return self.aliases_in[alias]

    def _publish_oversized(self, packet: OversizedPublish) -> None:
        self._endpoint.stats.oversized_received += 1
        self._check_request_topic(packet.topic())
        token = self._begin(packet.qos, packet.packet_id()) if packet.qos else None
        if packet.qos and token is None:
            return
        if token is not None and self._acks is not None:
            self._acks[token] = False
        head = packet.head(has_properties=self.version == codec.MQTT_5)
        self.channel.oversized(token, packet.length, head)  # type: ignore[union-attr]

    def _begin(self, qos: int, packet_id: bytes) -> bytes | None:
        """Count a PUBLISH of QoS 1 or 2. Returns the acknowledgement it will get; None: it came before, drop it."""
        if len(packet_id) < 2 or packet_id == b"\0\0":
            raise MqttProtocolError("a PUBLISH without a packet id")
        session: Session = self.session  # type: ignore[assignment]
        window = self.options.receive_max
        if qos == 2:
            number = packet_id[0] << 8 | packet_id[1]
            if not session.receive(number):
                self._endpoint.stats.duplicates_received += 1
                if session.is_decided(number):
                    self.write(_PUBREC + packet_id)
                return None
        elif qos == 3:
            raise malformed("a PUBLISH of QoS 3")
        if self.version == codec.MQTT_5:
            if self._undecided + session.decided_count >= window:
                raise MqttProtocolError("more messages than the receive maximum", Reason.RECEIVE_MAX_EXCEEDED)
        elif self._undecided >= window - 1:
            self.hold_reading(WINDOW_FULL)
        self._undecided += 1
        return (_PUBACK if qos == 1 else _PUBREC) + packet_id

    def _acks_in_order(self) -> dict[bytes, bool]:
        if self._acks is None:
            self._acks = {}
        return self._acks

    # Transport of the gateway's channels

    def acknowledge(self, token: object) -> None:
        """Send the PUBACK or PUBREC of a request that has been decided. Does nothing for a request of QoS 0.

        A PUBREC goes to the session's present connection, if the request's own one is gone.
        """
        if not token:
            return
        acks = self._acks
        if acks is None:
            self._release(token)  # type: ignore[arg-type]
            return
        acks[token] = True  # type: ignore[index]
        self._release_decided(acks)

    def forget(self, token: object) -> None:
        """A request of QoS 1 or 2 is not carried out: it gets no acknowledgement, and runs when it comes again."""
        assert isinstance(token, bytes)
        if token[0] == 0x50:
            self.session.forget(token[2] << 8 | token[3])  # type: ignore[union-attr]
        if self._acks:
            self._acks.pop(token, None)
            self._release_decided(self._acks)

    def _release_decided(self, acks: dict[bytes, bool]) -> None:
        while acks:
            first = next(iter(acks))
            if not acks[first]:
                return
            del acks[first]
            self._release(first)

    def _release(self, token: bytes) -> None:
        self._undecided -= 1
        reason = self._refusals.pop(token, None) if self._refusals else None
        if reason is not None:
            if token[0] == 0x50:
                self.session.complete(token[2] << 8 | token[3])  # type: ignore[union-attr]
            token = token[:1] + b"\x03" + token[2:] + bytes((reason,))
        elif token[0] == 0x50:
            session: Session = self.session  # type: ignore[assignment]
            is_decided = session.decide(token[2] << 8 | token[3])
            if session.connection is not self:
                if is_decided and session.connection is not None:
                    session.connection.write(token)
                return
        self._out.append(token)
        if not self._is_dirty:
            self._is_dirty = True
            self._endpoint.flush_soon(self)
        if self._pauses & WINDOW_FULL and self._undecided <= self.options.receive_max // 2:
            self.release_reading(WINDOW_FULL)

    def respond(self, token: object, payload: bytes) -> None:
        """``acknowledge`` and then ``answer``."""
        self.acknowledge(token)
        self.answer(payload)

    def indicate(self, payload: bytes) -> asyncio.Future[None] | None:
        """Send an INDICATION. Returns what to wait for until it is durable (persistent session); None = nothing."""
        return self._endpoint.indicate(self.client_id, payload)

    def abort(self, reason: int = Reason.UNSPECIFIED) -> None:
        """Close without acknowledging what is undecided. MQTT 5 gets ``reason``."""
        self.disconnect(reason)

    def pause(self) -> None:
        """Stop reading. What is in the buffer already waits there too."""
        self.hold_reading(HOST_BUSY)

    def resume(self) -> None:
        self.release_reading(HOST_BUSY)

    @property
    def undecided_count(self) -> int:
        """Requests of QoS 1 and 2 that have no acknowledgement yet."""
        return self._undecided

    # Control packets

    def _packet(self, kind: int, flags: int, body: bytes) -> None:
        if kind == codec.PUBACK and self.is_accepted and len(body) == 2 and not flags:
            self._endpoint.delivery.finished(self.session, body[0] << 8 | body[1])  # type: ignore[arg-type]
        else:
            mqtt_control.handle(self, self._endpoint, kind, flags, body)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.session is not None:
            self._endpoint.delivery.pump(self.session)

    # Once a second

    def check(self, now: float, *, is_punctual: bool) -> None:
        """Close the connection if one of its times is up. ``is_punctual``: the event loop did not stand still."""
        limits = self._endpoint.limits
        if self.closing_since_s:
            if now - self.closing_since_s > limits.closing_s:
                self.cut()
        elif self.stalled_since_s and now - self.stalled_since_s > limits.stalled_s:
            self._endpoint.stats.slow_timeouts += 1
            self.cut()
        elif not is_punctual or self._pauses:
            return
        elif self.packet_since_s and now - self.packet_since_s > (
            limits.packet_s if self.is_accepted else limits.connect_s
        ):
            self._endpoint.stats.slow_timeouts += 1
            self.fail(Reason.UNSPECIFIED, "a packet took too long")
        elif self.keep_alive_s and now - self.last_seen_s > self.keep_alive_s:
            self._endpoint.stats.keep_alive_timeouts += 1
            self.fail(Reason.KEEP_ALIVE_TIMEOUT, "nothing came within one and a half times the keep-alive")
        if self._held:
            self.release_held(now)


def _is_envelope(payload: bytes) -> bool:
    """Whether a payload on a listener with ``ssap`` and ``pubsub`` is an SSAP message."""
    if b'"messageType"' not in payload:
        return False
    try:
        message = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return False
    return isinstance(message, dict) and "messageType" in message
