"""What the platform sends to a client's own three topics: answers, INDICATIONs, commands, at the QoS that the client granted."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from actors.gateway.mqtt_options import NOT_SUBSCRIBED, ListenerOptions
from actors.gateway.mqtt_outgoing import MqttOutgoing
from sib.mqtt import codec, wire
from sib.mqtt.kp_topics import ANSWER, COMMAND, INDICATION, own_topic
from sib.mqtt.session import Message

if TYPE_CHECKING:
    from actors.gateway.mqtt import MqttEndpoint

NO_GRANTS = (NOT_SUBSCRIBED, NOT_SUBSCRIBED, NOT_SUBSCRIBED)


class MqttOwnTopics(MqttOutgoing):
    """The part of a connection that knows what the client subscribed of its own topics.

    What comes before that SUBSCRIBE waits for it, at most ``MqttLimits.answer_wait_s``.
    """

    __slots__ = ("_answer_qos", "_front", "_front_size", "_grants", "_held", "client_id")

    def __init__(self, endpoint: MqttEndpoint, options: ListenerOptions) -> None:
        super().__init__(endpoint, options)
        self.client_id = ""
        self._grants = NO_GRANTS
        self._answer_qos = NOT_SUBSCRIBED
        self._held: deque[tuple[int, bytes, float]] | None = None
        self._front = b""
        self._front_size = -1

    def answer(self, payload: bytes) -> None:
        """Send one SSAP answer at the QoS that the client granted itself with its SUBSCRIBE.

        Before that SUBSCRIBE it waits, at most ``MqttLimits.answer_wait_s``; then it goes out at QoS 0.
        On a closed connection it is dropped.
        """
        qos = self._answer_qos
        if qos and not self._is_plain_qos_1():
            self.send_own(ANSWER, payload)
            return
        # All answers of one length begin alike: INSERT's nearly always do.
        if len(payload) != self._front_size and not self._make_front(len(payload)):
            return
        self._endpoint.stats.answers_sent += 1
        out = self._out
        out.append(self._front)
        if qos:
            message = Message(own_topic(ANSWER, self.client_id), payload, qos)
            out.append(wire.encode_uint16(self.session.start(message)))  # type: ignore[union-attr]
        out.append(payload)
        if not self._is_dirty:
            self._is_dirty = True
            self._endpoint.flush_soon(self)

    def _is_plain_qos_1(self) -> bool:
        """Whether answers go at QoS 1 and the next may go at once, with nothing of MQTT 5 in it."""
        if self._answer_qos != 1 or self.version == codec.MQTT_5 or not self.is_open or not self.has_room:
            return False
        return not self.session.queue_count  # type: ignore[union-attr]

    def command(self, payload: bytes) -> None:
        """Send a command to the topic of commands."""
        self.send_own(COMMAND, payload)

    def grant(self, kind: int, qos: int) -> None:
        """The client subscribed to one of its topics (or, with ``NOT_SUBSCRIBED``, gave it up)."""
        grants = list(self._grants)
        grants[kind] = qos
        self._grants = (grants[0], grants[1], grants[2])
        if kind == ANSWER:
            self._answer_qos = qos
            self._front_size = -1

    def granted(self, kind: int) -> int:
        return self._grants[kind]

    def send_own(self, kind: int, payload: bytes) -> None:
        """Send to one of the client's own topics, or let it wait for the SUBSCRIBE."""
        if self.session is None or not self.is_open:
            return
        qos = self._grants[kind]
        if qos == NOT_SUBSCRIBED or (kind != ANSWER and self._held and any(entry[0] == ANSWER for entry in self._held)):
            self._hold(kind, payload)
        else:
            self._send_now(kind, payload, qos)

    def _hold(self, kind: int, payload: bytes) -> None:
        if self._held is None:
            self._held = deque()
        self._held.append((kind, payload, self._endpoint.clock()))
        if len(self._held) > self._endpoint.limits.answers_waiting_max:
            oldest, text, _ = self._held.popleft()
            self._send_now(oldest, text, max(self._grants[oldest], 0))

    def release_held(self, now: float) -> None:
        """Send what waited for a SUBSCRIBE that has come, or has waited too long. No indication overtakes an answer."""
        held, self._held = self._held, None
        is_answer_waiting = False
        for kind, payload, since_s in held or ():
            is_due = now - since_s >= self._endpoint.limits.answer_wait_s
            qos = self._grants[kind]
            if (qos == NOT_SUBSCRIBED and not is_due) or (kind != ANSWER and is_answer_waiting):
                is_answer_waiting = is_answer_waiting or kind == ANSWER
                if self._held is None:
                    self._held = deque()
                self._held.append((kind, payload, since_s))
            else:
                self._send_now(kind, payload, max(qos, 0))

    def _send_now(self, kind: int, payload: bytes, qos: int) -> None:
        stats = self._endpoint.stats
        if kind == ANSWER:
            stats.answers_sent += 1
        elif kind == INDICATION:
            stats.indications_sent += 1
        else:
            stats.commands_sent += 1
        self._endpoint.delivery.send(self.session, Message(own_topic(kind, self.client_id), payload, qos))  # type: ignore[arg-type]

    def _make_front(self, size: int) -> bool:
        """What stands before an answer, but for its packet id at QoS 1. False: the client takes none so long."""
        qos = max(self._answer_qos, 0)
        topic = wire.encode_string(own_topic(ANSWER, self.client_id)) + (b"\0" if self.version == codec.MQTT_5 else b"")
        length = len(topic) + (2 if qos else 0) + size
        front = bytes((0x30 | qos << 1,)) + wire.encode_varint(length) + topic
        if self.packet_bytes_max and len(front) - len(topic) + length > self.packet_bytes_max:
            self._endpoint.stats.dropped_too_large += 1
            return False
        self._front, self._front_size = front, size
        return True
