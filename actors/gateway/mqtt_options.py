"""What a listener is set to, what an MQTT endpoint may use at most, what it counts, and what it expects of its host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Protocol

from sib.mqtt.session import QueueBounds

if TYPE_CHECKING:
    from actors.gateway.mqtt_connection import MqttConnection


NOT_SUBSCRIBED = -1
"""In place of a granted QoS."""


@dataclass(frozen=True, slots=True)
class ListenerOptions:
    """Options of one listener, by the names that settings and ``--listener`` use."""

    ssap: bool = True
    """A PUBLISH is an SSAP request, whatever its topic."""
    pubsub: bool = False
    """Clients may publish to and subscribe to each other's topics."""
    auth: bool = False
    """CONNECT's user and password are checked; otherwise they are ignored."""
    connections_max: int = 20_000
    """At the bound a CONNECT is refused (server unavailable, MQTT 5: server busy)."""
    message_bytes_max: int = 1_900_000
    """Longer ones: SSAP answers with an error, others are disconnected (packet too large)."""
    receive_max: int = 1000
    """QoS 1 and 2 messages of a connection that may wait for their acknowledgement; at the bound it is not read."""
    server_keep_alive_s: int | None = None
    """MQTT 5: the longest keep-alive that a client may have; None = as it likes, also none."""
    topic_alias_max: int = 0
    session_expiry_s: int = 86_400
    """Longest life of a session without a connection; that of every persistent session before MQTT 5."""
    deny_subscribe: tuple[str, ...] = ()
    """Filters that are answered with 0x80."""


@dataclass(frozen=True, slots=True)
class MqttLimits:
    """Bounds of an endpoint that are the same for all its listeners. What happens at each is said beside it."""

    connect_s: float = 10
    """From the first byte of a connection to its CONNECT; then it is closed."""
    packet_s: float = 30
    """From the first to the last byte of a packet; then the connection is closed."""
    stalled_s: float = 30
    """How long a client may read nothing of what is sent to it; then the connection is closed."""
    closing_s: float = 5
    """How long a connection that is being closed may take; then it is cut."""
    answer_wait_s: float = 5
    """How long an answer waits for the SUBSCRIBE to its topic; then it goes out at QoS 0."""
    answers_waiting_max: int = 1000
    """Answers and indications of a connection that wait for a SUBSCRIBE; at the bound they go out at QoS 0."""
    in_flight_max: int = 1000
    """Messages on their way to a client at QoS 1 and 2; at the bound they wait in its queue."""
    queue: QueueBounds = field(default_factory=QueueBounds)
    """What waits for one client; at the bound the oldest go and are counted."""
    queue_bytes_all_max: int = 512 * 1024 * 1024
    """What waits for all clients together; at the bound the new ones go and are counted."""
    sessions_max: int = 100_000
    """At the bound a new session is refused (server unavailable)."""
    subscriptions_max: int = 10_000
    """Of one session; at the bound SUBACK says quota exceeded (0x80 before MQTT 5)."""
    retained_max: int = 100_000
    """At the bound a message to a new topic is passed on and not retained, and counted."""
    retained_bytes_max: int = 256 * 1024 * 1024
    partial_bytes_max: int = 256 * 1024 * 1024
    """Packets of all connections that have begun and not ended; at the bound a long one is refused (server busy)."""
    write_buffer_bytes_max: int = 4 * 1024 * 1024
    """What the socket has not taken yet; at the bound QoS 0 messages to it are dropped and counted."""
    client_id_bytes_max: int = 255
    """Longer ones are refused (client id not valid)."""


@dataclass(slots=True)
class MqttStats:
    """Counters since the endpoint began; gauges are read from the endpoint itself."""

    connections_accepted: int = 0
    connections_refused: int = 0
    protocol_errors: int = 0
    keep_alive_timeouts: int = 0
    slow_timeouts: int = 0
    take_overs: int = 0
    sessions_adopted: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    publishes_received: int = 0
    oversized_received: int = 0
    duplicates_received: int = 0
    retain_ignored: int = 0
    wills_ignored: int = 0
    answers_sent: int = 0
    indications_sent: int = 0
    commands_sent: int = 0
    messages_routed: int = 0
    messages_expired: int = 0
    dropped_offline: int = 0
    dropped_queue_full: int = 0
    dropped_slow_reader: int = 0
    dropped_too_large: int = 0
    retained_refused: int = 0
    peers_passed_on: int = 0
    dropped_peer_busy: int = 0
    store_failures: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


class SsapChannel(Protocol):
    """The SSAP side of one connection. Calls come on the event loop, in the order of the packets."""

    def receive(self, payload: bytes, token: object, *, clear: bool) -> None: ...
    def oversized(self, token: object, size: int, head: bytes) -> None: ...
    def closed(self) -> None: ...


class MqttHost(Protocol):
    """Who an endpoint works for."""

    def connected(self, connection: MqttConnection) -> SsapChannel:
        """A client of an ``ssap`` listener has been accepted; the channel is told of its requests and of its end."""
        ...

    async def authenticate(self, client_id: str, username: str | None, password: bytes | None, peer: str) -> bool:
        """Whether this client may connect. Asked on listeners with ``auth`` only; an exception refuses."""
        ...


Clock = Callable[[], float]
