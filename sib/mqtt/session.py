"""The state of an MQTT session: subscriptions, what is on its way to the client, what waits, what came at QoS 2.

It outlives its connection. Nothing here writes to a socket: the caller sends what the methods return.
Containers are made when they are first needed, because most sessions of a gateway are idle.
Source: MQTT 5, sections 4.1, 4.3, 4.4 and 4.9.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sib.mqtt.codec import Will
from sib.mqtt.properties import NO_PROPERTIES, Properties
from sib.mqtt.topics import Subscription

PACKET_ID_MAX = 65_535
MESSAGE_OVERHEAD_BYTES = 200
"""What a waiting message costs beside its payload: counted against the bounds of queues."""

_STATE_FORMAT = 1


class Message:
    """An application message on its way to one subscriber, at the QoS it is sent with.

    ``expires_at_s`` is on the endpoint's clock, None = never.
    ``number`` is its place in the stored queue, 0 = not stored.
    """

    __slots__ = ("expires_at_s", "is_retain", "number", "payload", "properties", "qos", "subscription_ids", "topic")

    def __init__(
        self,
        topic: str,
        payload: bytes,
        qos: int = 0,
        *,
        is_retain: bool = False,
        properties: Properties = NO_PROPERTIES,
        expires_at_s: float | None = None,
        subscription_ids: tuple[int, ...] = (),
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.is_retain = is_retain
        self.properties = properties
        self.expires_at_s = expires_at_s
        self.subscription_ids = subscription_ids
        self.number = 0

    @property
    def size_bytes(self) -> int:
        return len(self.payload) + MESSAGE_OVERHEAD_BYTES

    def to_subscriber(self, qos: int, *, is_retain: bool, subscription_ids: tuple[int, ...] = ()) -> Message:
        """The same message for one subscriber; the payload is shared."""
        return Message(
            self.topic,
            self.payload,
            qos,
            is_retain=is_retain,
            properties=self.properties,
            expires_at_s=self.expires_at_s,
            subscription_ids=subscription_ids,
        )


@dataclass(slots=True, frozen=True)
class QueueBounds:
    """How much may wait for one client."""

    messages_max: int = 10_000
    bytes_max: int = 16 * 1024 * 1024


class Session:
    """One client's session. ``connection`` is whatever the caller keeps there; None while the client is away."""

    __slots__ = (
        "_packet_id",
        "_queue",
        "claimed_at",
        "client_id",
        "connection",
        "decided",
        "expiry_s",
        "in_flight",
        "is_stored",
        "left_at_s",
        "queue_bytes",
        "subscriptions",
        "undecided",
        "will",
    )

    def __init__(self, client_id: str, *, expiry_s: int = 0, packet_id: int = 0) -> None:
        self.client_id = client_id
        self.expiry_s = expiry_s
        """Seconds that the session outlives its connection; 0 = not at all."""
        self.connection: Any = None
        self.claimed_at = 0
        """Which CONNECT it serves, where several gateways share the clients: a later one has a higher number."""
        self.is_stored = False
        """Whether the store knows of it."""
        self.left_at_s = 0.0
        self.will: Will | None = None
        self.subscriptions: dict[str, Subscription] = {}
        """By the filter as it was sent, ``$share/`` included."""
        self.in_flight: dict[int, Message | None] | None = None
        """Sent at QoS 1 or 2 and not finished, by packet id, oldest first. None: PUBREC came, PUBREL was sent."""
        self.undecided: set[int] | None = None
        """Packet ids of QoS 2 requests that run; they go on when their connection ends."""
        self.decided: set[int] | None = None
        """Packet ids of QoS 2 requests that have their PUBREC and wait for their PUBREL."""
        self._queue: deque[Message] | None = None
        self.queue_bytes = 0
        self._packet_id = packet_id

    @property
    def is_persistent(self) -> bool:
        return self.expiry_s > 0

    @property
    def is_blank(self) -> bool:
        """Whether it holds nothing that a new session would not."""
        return not (self.subscriptions or self.decided or self.undecided)

    # What goes to the client

    def start(self, message: Message) -> int:
        """Give a message of QoS 1 or 2 a packet id and keep it until it is acknowledged.

        At most ``PACKET_ID_MAX`` can be on their way: the caller's window is smaller.
        """
        in_flight = self.in_flight
        if in_flight is None:
            in_flight = self.in_flight = {}
        packet_id = self._packet_id
        while True:
            packet_id = packet_id % PACKET_ID_MAX + 1
            if packet_id not in in_flight:
                break
        self._packet_id = packet_id
        in_flight[packet_id] = message
        return packet_id

    def finish(self, packet_id: int) -> Message | None:
        """A PUBACK or PUBCOMP (or a refusing PUBREC) came. Returns the message, None when nothing was known of it."""
        return self.in_flight.pop(packet_id, None) if self.in_flight else None

    def release(self, packet_id: int) -> tuple[bool, Message | None]:
        """A PUBREC came: (whether the packet id is on its way, the message that the client now has)."""
        if not self.in_flight or packet_id not in self.in_flight:
            return False, None
        message = self.in_flight[packet_id]
        self.in_flight[packet_id] = None
        return True, message

    @property
    def in_flight_count(self) -> int:
        return len(self.in_flight) if self.in_flight else 0

    def enqueue(self, message: Message, bounds: QueueBounds) -> list[Message]:
        """Let a message wait. Returns what had to give way: the oldest ones, or the message itself if it is too large.

        The newest state of a thing is worth more than an old one, so the oldest messages go.
        """
        if message.size_bytes > bounds.bytes_max or not bounds.messages_max:
            return [message]
        queue = self._queue
        if queue is None:
            queue = self._queue = deque()
        dropped: list[Message] = []
        while queue and (len(queue) >= bounds.messages_max or self.queue_bytes + message.size_bytes > bounds.bytes_max):
            dropped.append(self._take(queue))
        queue.append(message)
        self.queue_bytes += message.size_bytes
        return dropped

    def dequeue(self) -> Message | None:
        """The oldest waiting message, None when none waits."""
        return self._take(self._queue) if self._queue else None

    def _take(self, queue: deque[Message]) -> Message:
        message = queue.popleft()
        self.queue_bytes -= message.size_bytes
        return message

    @property
    def queue_count(self) -> int:
        return len(self._queue) if self._queue else 0

    def take_up(self, packet_id: int, message: Message | None) -> None:
        """What another gateway had on its way to the client is on its way here, with the packet id that the client knows."""
        if self.in_flight is None:
            self.in_flight = {}
        self.in_flight[packet_id] = message

    def waiting(self) -> Iterator[Message]:
        """What waits, oldest first; it goes on waiting."""
        return iter(self._queue or ())

    def unfinished(self) -> Iterator[tuple[int, Message | None]]:
        """What is sent again on a new connection, in the order of its first sending."""
        return iter(list(self.in_flight.items()) if self.in_flight else [])

    # What came from the client at QoS 2

    def receive(self, packet_id: int) -> bool:
        """A PUBLISH of QoS 2 came. False: it came before and must not run again."""
        if (self.undecided and packet_id in self.undecided) or (self.decided and packet_id in self.decided):
            return False
        if self.undecided is None:
            self.undecided = set()
        self.undecided.add(packet_id)
        return True

    def decide(self, packet_id: int) -> bool:
        """The request of this PUBLISH is done: its PUBREC may go. Returns whether it was under way."""
        if not self.undecided or packet_id not in self.undecided:
            return False
        self.undecided.remove(packet_id)
        if self.decided is None:
            self.decided = set()
        self.decided.add(packet_id)
        return True

    def is_decided(self, packet_id: int) -> bool:
        return self.decided is not None and packet_id in self.decided

    def forget(self, packet_id: int) -> None:
        """The request of this PUBLISH could not be decided: it runs when it comes again."""
        if self.undecided:
            self.undecided.discard(packet_id)

    def complete(self, packet_id: int) -> bool:
        """A PUBREL came. Returns whether its packet id was known."""
        if self.decided and packet_id in self.decided:
            self.decided.remove(packet_id)
            return True
        if self.undecided and packet_id in self.undecided:
            self.undecided.remove(packet_id)
            return True
        return False

    @property
    def decided_count(self) -> int:
        return len(self.decided) if self.decided else 0

    # What is stored

    def to_state(self) -> dict[str, Any]:
        """What is stored of a persistent session beside its expiry, as plain JSON. The queue is stored by message."""
        return {
            "format": _STATE_FORMAT,
            "subscriptions": {
                pattern: [s.qos, s.is_no_local, s.is_retain_as_published, s.retain_handling, s.subscription_id]
                for pattern, s in self.subscriptions.items()
            },
            "decided": sorted(self.decided or ()),
        }

    @classmethod
    def from_state(cls, client_id: str, state: dict[str, Any], *, expiry_s: int, packet_id: int = 0) -> Session:
        """A session as it was stored.

        Packet ids go on from ``packet_id``: a random one, since the client may remember ids from before.
        """
        session = cls(client_id, expiry_s=expiry_s, packet_id=packet_id)
        session.subscriptions = {pattern: Subscription(*fields) for pattern, fields in state["subscriptions"].items()}
        session.decided = set(state["decided"]) or None
        return session
