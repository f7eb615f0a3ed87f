"""The MQTT endpoint of a gateway: its listeners, sessions and connections. MQTT 3.1, 3.1.1 and 5, in this process.

Start reading here: ``MqttEndpoint`` holds what connections share, ``mqtt_connection`` is one of them, ``mqtt_control``
what each packet does, ``mqtt_pubsub`` the ordinary publish/subscribe, ``mqtt_store`` what outlives the process,
``mqtt_claims`` how a client goes from one gateway to another and ``mqtt_peers`` what gateways tell each other.
Invariant: no PUBACK or PUBREC before the host says that the request is decided (or, between devices, before the message
is stored for those who are away), and acknowledgements leave in the order in which the PUBLISHes came.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Protocol

from actors.gateway.mqtt_claims import Claims, Handover
from actors.gateway.mqtt_connection import MqttConnection
from actors.gateway.mqtt_delivery import MqttDelivery
from actors.gateway.mqtt_options import ListenerOptions, MqttHost, MqttLimits, MqttStats, SsapChannel
from actors.gateway.mqtt_pubsub import PubSub
from actors.gateway.mqtt_store import (
    MemorySessionStore,
    MqttSessionStore,
    StoredMessage,
    StoredSession,
    StoreWriter,
)
from actors.gateway.mqtt_stream import MqttStream
from sib.mqtt.errors import Reason
from sib.mqtt.kp_topics import OWN_TOPICS, own_topic, own_topic_kind
from sib.mqtt.session import PACKET_ID_MAX, Message, Session
from sib.mqtt.topics import split_share

__all__ = [
    "ListenerOptions",
    "MemorySessionStore",
    "MqttConnection",
    "MqttEndpoint",
    "MqttHost",
    "MqttLimits",
    "MqttSessionStore",
    "MqttStats",
    "SsapChannel",
    "StoredMessage",
    "StoredSession",
    "start_listener",
]

log = logging.getLogger(__name__)

SWEEP_S = 1.0
LATE_SWEEP_S = 3.0
"""A sweep that comes later than this says that the event loop stood still: nobody is closed for being silent."""
BACKLOG = 2048
TLS_HANDSHAKE_S = 10.0
BLANKS_SOUGHT_MAX = 1000
"""Sessions looked at for one that may give way."""
STORE_STOP_S = 10.0
"""How long stopping waits for the store."""
BLANK_EXPIRY_S = 60
"""Of a session that another gateway had, and that held nothing, until its CONNECT says how long it lives."""


class Peers(Protocol):
    """The other gateways of the platform, which hold the sessions of other clients."""

    claims: Claims

    def indicate(self, client_id: str, payload: bytes) -> Awaitable[None] | None:
        """Pass on an INDICATION for a client that is not here; None: it is nowhere."""
        ...

    def publish(self, message: Message, stamp: int) -> asyncio.Future[None] | None:
        """Pass an ordinary message on to the subscribers of other gateways."""
        ...


class MqttEndpoint:
    """What the connections of a gateway share. Lives on one event loop; nothing here is thread-safe.

    With ``store``, persistent sessions and what waits for them outlive the process.
    """

    def __init__(
        self, host: MqttHost, *, store: MqttSessionStore | None = None, limits: MqttLimits | None = None
    ) -> None:
        self.host = host
        self.limits = limits or MqttLimits()
        self.stats = MqttStats()
        self.loop = asyncio.get_running_loop()
        self.clock: Callable[[], float] = self.loop.time
        self.connections: set[MqttConnection] = set()
        self.sessions: dict[str, Session] = {}
        self.partial_bytes = 0
        self.peers: Peers | None = None
        """Set before the first listener starts, if there are other gateways."""
        self._store = store
        self._writer = StoreWriter(store, self.stats, self._have_moved) if store is not None else None
        self.delivery = MqttDelivery(self, self._writer)
        self.pubsub = PubSub(self, self._writer)
        self._away: dict[str, Session] = {}
        """Sessions without a connection."""
        self._counts: dict[int, int] = {}
        """Connections by listener (the identity of its options)."""
        self._dirty: list[MqttStream] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._swept_at_s = self.clock()
        self._sweep_handle: asyncio.TimerHandle | None = None
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        """Bring back the stored sessions and begin to watch times. Call it before the first listener starts."""
        if self._store is not None:
            self._restore(*await self._store.load_all())
            self.pubsub.restore(await self._store.load_retained())
        self._swept_at_s = self.clock()
        self._sweep_handle = self.loop.call_later(SWEEP_S, self._sweep)

    async def stop(self) -> None:
        """Close the listeners and all connections (MQTT 5: server shutting down) and write what is to be stored."""
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.disconnect(Reason.SERVER_SHUTTING_DOWN)
            self.detach(connection)
        for task in list(self._tasks):
            task.cancel()
        if self._writer is not None:
            try:
                await asyncio.wait_for(self._writer.drain(), STORE_STOP_S)
            except TimeoutError:
                log.error("mqtt sessions could not be stored before stopping")
        await asyncio.sleep(0)
        for connection in list(self.connections):
            if connection.write_buffer_bytes == 0:
                connection.cut()

    def listens(self, server: asyncio.Server) -> None:
        self._servers.append(server)

    # Connections

    def opened(self, connection: MqttStream) -> None:
        """A socket has been accepted: too many ones are cut, a few more are kept to be refused politely."""
        assert isinstance(connection, MqttConnection)
        key = id(connection.options)
        count = self._counts[key] = self._counts.get(key, 0) + 1
        self.connections.add(connection)
        self.stats.connections_accepted += 1
        connections_max = connection.options.connections_max
        connection.is_surplus = count > connections_max
        if count > connections_max + max(16, connections_max // 20):
            self.stats.connections_refused += 1
            connection.cut()

    def ended(self, connection: MqttStream) -> None:
        """The socket is gone."""
        assert isinstance(connection, MqttConnection)
        if connection in self.connections:
            self.connections.discard(connection)
            self._counts[id(connection.options)] -= 1
            self.detach(connection)

    def flush_soon(self, connection: MqttStream) -> None:
        """All that this connection writes in this tick leaves in one call of the transport."""
        if not self._dirty:
            self.loop.call_soon(self._flush)
        self._dirty.append(connection)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.flush()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that belongs to a connection."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Sessions

    def take_over(self, client_id: str) -> None:
        """Close the connection that this client id has, if any. For a client that has gone to another gateway too."""
        session = self.sessions.get(client_id)
        if session is not None and session.connection is not None:
            self.stats.take_overs += 1
            old: MqttConnection = session.connection
            old.disconnect(Reason.SESSION_TAKEN_OVER)
            self.detach(old)

    def resume(self, client_id: str, *, is_clean: bool) -> Session | None:
        """The session that a CONNECT goes on with; with ``is_clean`` the old one ends."""
        session = self.sessions.get(client_id)
        if session is None:
            return None
        if is_clean:
            self._fire_will(session)
            self._end(session)
            return None
        self._away.pop(client_id, None)
        return session

    def create_session(self, client_id: str) -> Session | None:
        """A new session; None when there are too many. One that is away and holds nothing gives way."""
        if len(self.sessions) >= self.limits.sessions_max and not self._end_a_blank_one():
            return None
        session = self.sessions[client_id] = Session(client_id)
        return session

    def _end_a_blank_one(self) -> bool:
        longest_away = itertools.islice(self._away.values(), BLANKS_SOUGHT_MAX)
        blank = next((session for session in longest_away if session.is_blank and not session.in_flight_count), None)
        if blank is not None:
            self._end(blank)
        return blank is not None

    def attach(self, session: Session, connection: MqttConnection) -> None:
        """The client is there: from now on its messages go to this connection."""
        session.connection = connection
        connection.session = session
        for kind in range(len(OWN_TOPICS) if connection.options.ssap else 0):
            subscription = session.subscriptions.get(own_topic(kind, connection.client_id))
            if subscription is not None:
                connection.grant(kind, subscription.qos)
        self.save(session)
        if connection.options.ssap:
            connection.channel = self.host.connected(connection)
        connection.send_again()
        self.delivery.pump(session)

    def detach(self, connection: MqttConnection) -> None:
        """The client is gone. Its session goes on if it is persistent. Does nothing the second time."""
        session = connection.session
        channel, connection.channel = connection.channel, None
        if channel is not None:
            channel.closed()
        if session is None or session.connection is not connection:
            return
        session.connection = None
        session.left_at_s = self.clock()
        if session.will is not None:
            delay_s = min(session.will.delay_s, session.expiry_s)
            if delay_s:
                self.loop.call_later(delay_s, self._fire_will_if_away, session, session.will)
            else:
                self._fire_will(session)
        if session.is_persistent:
            self._away[session.client_id] = session
            self.save(session)
        else:
            self._end(session)

    def _fire_will(self, session: Session) -> None:
        will, session.will = session.will, None
        if will is not None:
            self.pubsub.publish_will(will, session)

    def _fire_will_if_away(self, session: Session, will: object) -> None:
        if session.will is will and session.connection is None:
            self._fire_will(session)

    def _end(self, session: Session) -> None:
        if self._forget(session) and self._writer is not None and session.is_stored:
            self._writer.delete(session.client_id)

    def _forget(self, session: Session) -> bool:
        """The session is no more, or no more here. False: it was not here. It keeps what is still to be stored of it."""
        for pattern in session.subscriptions:
            group, plain = split_share(pattern) or (None, pattern)
            self.pubsub.unsubscribe(session, plain, group)
        self.delivery.discard(session)
        self._away.pop(session.client_id, None)
        return self.sessions.get(session.client_id) is session and bool(self.sessions.pop(session.client_id))

    # Clients that come from other gateways, and go to them

    async def let_go(self, session: Session, *, is_clean: bool) -> Handover:
        """The client has connected to another gateway: close its connection here; its session goes on there.

        With ``is_clean`` it ends. When this returns, the store has what is to be stored.
        """
        self.take_over(session.client_id)
        if is_clean:
            self._fire_will(session)
            self._end(session)
        session.will = None
        handover = Handover()
        if self._forget(session):
            on_their_way, waiting = self.delivery.hand_over(session)
            handover = Handover(is_present=True, on_their_way=on_their_way, waiting=waiting)
        if self._writer is not None:
            await self._writer.settle()
        return handover

    async def adopt(self, client_id: str, given: Handover | None) -> None:
        """Hold a client's session from now on: what the store has of it, and what the gateway that held it gave.

        Raises:
            StoreUnavailableError: Retryable. The session stays in the store.
        """
        stored, messages = (None, []) if self._writer is None else await self._writer.claim(client_id)
        if stored is not None:
            session = self._bring_back(stored)
        elif given is not None:
            session = Session(client_id, expiry_s=BLANK_EXPIRY_S)
            session.left_at_s = self.clock()
            self.sessions[client_id] = self._away[client_id] = session
        else:
            return
        self.stats.sessions_adopted += 1
        if given is not None:
            messages = self.delivery.take_up(session, given, messages)
        self.delivery.restore(messages)

    def _have_moved(self, client_ids: Sequence[str]) -> None:
        """The store says that another gateway holds these clients: we were taken for dead, and have not heard of it yet."""
        for client_id in client_ids:
            session = self.sessions.get(client_id)
            if session is not None:
                self.take_over(client_id)
                self._forget(session)

    def save(self, session: Session) -> asyncio.Future[None] | None:
        """Store a persistent session. Returns what to wait for until it is durable; None = nothing."""
        if self._writer is None:
            return None
        if not session.is_persistent:
            if session.is_stored:
                session.is_stored = False
                self._writer.delete(session.client_id)
            return None
        if not session.is_stored and session.is_blank:
            return None
        session.is_stored = True
        return self._writer.save(session.client_id, lambda: self._snapshot(session))

    def _snapshot(self, session: Session) -> StoredSession:
        left_at_s = None if session.connection is not None else time.time() - (self.clock() - session.left_at_s)
        return StoredSession(session.client_id, session.to_state(), session.expiry_s, left_at_s)

    def _restore(self, sessions: Iterable[StoredSession], messages: Iterable[StoredMessage]) -> None:
        for stored in sessions:
            self._bring_back(stored)
        self.delivery.restore(messages)

    def _bring_back(self, stored: StoredSession) -> Session:
        session = Session.from_state(
            stored.client_id, stored.state, expiry_s=stored.expiry_s, packet_id=secrets.randbelow(PACKET_ID_MAX)
        )
        session.is_stored = True
        # One that was connected when its gateway's process died has left now.
        away_s = max(0.0, time.time() - stored.left_at_s) if stored.left_at_s is not None else 0.0
        session.left_at_s = self.clock() - away_s
        self.sessions[stored.client_id] = self._away[stored.client_id] = session
        for pattern, subscription in session.subscriptions.items():
            group, plain = split_share(pattern) or (None, pattern)
            if own_topic_kind(pattern, stored.client_id) is None:
                self.pubsub.subscribe(session, plain, subscription, group)
        return session

    # Messages to clients

    def indicate(self, client_id: str, payload: bytes) -> asyncio.Future[None] | None:
        """Send one INDICATION to a client's topic of indications; see ``deliver_indications``."""
        return self.delivery.indicate([(client_id, payload)])

    async def deliver_indications(self, indications: Iterable[tuple[str, bytes]]) -> None:
        """Send INDICATIONs, in order per client. When this returns, those for persistent sessions are durable.

        A client that subscribed at QoS 1 or 2 in a persistent session gets them also when it is away now. Others get
        them only while they are connected: else they are dropped and counted (``dropped_offline``).

        Raises:
            StoreUnavailableError: Retryable. Those for persistent sessions were not sent; the others were.
        """
        waiting = self.delivery.indicate(indications)
        if waiting is not None:
            await waiting

    # Once a second

    def _sweep(self) -> None:
        now = self.clock()
        is_punctual = now - self._swept_at_s < LATE_SWEEP_S
        self._swept_at_s = now
        self.check_times(is_punctual=is_punctual)
        self._sweep_handle = self.loop.call_later(SWEEP_S, self._sweep)

    def check_times(self, *, is_punctual: bool = True) -> None:
        """Close what is over its time, send what waited long enough, end sessions that are too old.

        With ``is_punctual`` False nobody is closed for having been silent: it was this process that stood still.
        """
        now = self.clock()
        for connection in list(self.connections):
            connection.check(now, is_punctual=is_punctual)
        for session in [one for one in self._away.values() if now - one.left_at_s >= one.expiry_s]:
            self._fire_will(session)
            self._end(session)


async def start_listener(
    endpoint: MqttEndpoint,
    host: str,
    port: int,
    ssl_context: ssl.SSLContext | None = None,
    reuse_port: bool = False,
    *,
    options: ListenerOptions | None = None,
) -> tuple[asyncio.Server, int]:
    """Accept MQTT connections on an address; returns the server and its port (``port`` 0 = any free one).

    Raises:
        OSError: The port is taken or not allowed.
    """
    chosen = options or ListenerOptions()
    server = await endpoint.loop.create_server(
        lambda: MqttConnection(endpoint, chosen),
        host,
        port,
        ssl=ssl_context,
        backlog=BACKLOG,
        reuse_port=reuse_port or None,
        ssl_handshake_timeout=TLS_HANDSHAKE_S if ssl_context is not None else None,
    )
    endpoint.listens(server)
    return server, int(server.sockets[0].getsockname()[1])
