"""Messages from the platform to one client: their packets, their window, what the client can take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.gateway.mqtt_options import ListenerOptions
from actors.gateway.mqtt_stream import PEER_SLOW, MqttStream
from sib.mqtt import codec, wire
from sib.mqtt.properties import Property, encode_properties
from sib.mqtt.session import Message, Session

if TYPE_CHECKING:
    from actors.gateway.mqtt import MqttEndpoint


class MqttOutgoing(MqttStream):
    """The sending half of a connection. The session keeps what must be sent again; this only writes it."""

    __slots__ = ("alias_out_max", "aliases_out", "in_flight_max", "packet_bytes_max", "session")

    def __init__(self, endpoint: MqttEndpoint, options: ListenerOptions) -> None:
        super().__init__(endpoint, options)
        self.session: Session | None = None
        self.in_flight_max = endpoint.limits.in_flight_max
        """Messages of QoS 1 and 2 that may be on their way: the lesser of the client's and our own bound."""
        self.packet_bytes_max = 0
        """Longest packet that the client takes; 0 = any."""
        self.alias_out_max = 0
        self.aliases_out: dict[str, int] | None = None

    def send(self, message: Message) -> bool:
        """Send a message of QoS 0. False: it has expired, is too long for the client, or the client is too slow."""
        if self._pauses & PEER_SLOW and self.write_buffer_bytes > self._endpoint.limits.write_buffer_bytes_max:
            self._endpoint.stats.dropped_slow_reader += 1
            return False
        packet = self._encode(message, 0, is_dup=False)
        if packet is None:
            return False
        self.write(packet)
        return True

    def send_numbered(self, message: Message) -> bool:
        """Send a message of QoS 1 or 2 and keep it in the session until it is acknowledged."""
        session: Session = self.session  # type: ignore[assignment]
        packet_id = session.start(message)
        packet = self._encode(message, packet_id, is_dup=False)
        if packet is None:
            session.finish(packet_id)
            return False
        self.write(packet)
        return True

    def send_again(self) -> None:
        """On a new connection: everything that was on its way, in its old order."""
        session: Session = self.session  # type: ignore[assignment]
        for packet_id, message in session.unfinished():
            if message is None:
                self.write(codec.encode_acknowledgement(codec.PUBREL, packet_id, 0, self.version))
                continue
            packet = self._encode(message, packet_id, is_dup=True)
            if packet is None:
                session.finish(packet_id)
                self._endpoint.delivery.forget(session, message)
            else:
                self.write(packet)

    @property
    def has_room(self) -> bool:
        """Whether one more message of QoS 1 or 2 may be on its way."""
        session = self.session
        return session is not None and session.in_flight_count < self.in_flight_max and not self._pauses & PEER_SLOW

    def _encode(self, message: Message, packet_id: int, *, is_dup: bool, may_have_alias: bool = True) -> bytes | None:
        head = 0x30 | is_dup << 3 | message.qos << 1 | message.is_retain
        topic = wire.encode_string(message.topic)
        now = self._endpoint.clock() if message.expires_at_s is not None else 0.0
        if message.expires_at_s is not None and message.expires_at_s <= now:
            self._endpoint.stats.messages_expired += 1
            return None
        properties = b""
        alias, is_known = 0, False
        if self.version == codec.MQTT_5:
            pairs = list(message.properties)
            if message.expires_at_s is not None:
                pairs.append((Property.MESSAGE_EXPIRY, max(1, round(message.expires_at_s - now))))
            if self.alias_out_max and may_have_alias:
                alias, is_known = self._alias_of(message.topic)
                if alias:
                    pairs.append((Property.TOPIC_ALIAS, alias))
                    topic = b"\0\0" if is_known else topic
            pairs += [(Property.SUBSCRIPTION_ID, identifier) for identifier in message.subscription_ids]
            properties = encode_properties(pairs) if pairs else b"\0"
        number = wire.encode_uint16(packet_id) if message.qos else b""
        length = len(topic) + len(number) + len(properties) + len(message.payload)
        front = bytes((head,)) + wire.encode_varint(length)
        if self.packet_bytes_max and len(front) + length > self.packet_bytes_max:
            if alias:  # the client may take it without; a new alias it is not told now
                if not is_known:
                    del self.aliases_out[message.topic]  # type: ignore[union-attr]
                return self._encode(message, packet_id, is_dup=is_dup, may_have_alias=False)
            self._endpoint.stats.dropped_too_large += 1
            return None
        return b"".join((front, topic, number, properties, message.payload))

    def _alias_of(self, topic: str) -> tuple[int, bool]:
        """The alias of a topic for this client (0 = none left), and whether the client knows it already."""
        if self.aliases_out is None:
            self.aliases_out = {}
        alias = self.aliases_out.get(topic)
        if alias:
            return alias, True
        if len(self.aliases_out) >= self.alias_out_max:
            return 0, False
        self.aliases_out[topic] = len(self.aliases_out) + 1
        return self.aliases_out[topic], False
