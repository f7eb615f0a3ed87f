"""What every gateway process holds, whatever its transports: leases, ways to the other actors, subscriptions, counters."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from typing import Any

import orjson

from actors.clients import PartitionClient, SessionClient
from actors.config import PlatformConfig
from actors.feed import subscriber_of
from actors.gateway.channel import Channel
from actors.gateway.command_listeners import CommandListeners
from actors.gateway.logins import Logins
from actors.gateway.notifier import CEP, LocalSubscription, Notifier
from actors.inbox import Inbox
from actors.metrics import GatewayMetrics, Samples
from actors.operations_core import OperationsCore
from actors.router import Router
from actors.runtime import ActorGoneError, Ref
from actors.sessions import Lease
from sib.access import Identity, Rights, may_hear
from sib.errors import AuthenticationError, NotFoundError, SibError, StoreUnavailableError
from sib.sessions import touch_lag_s
from sib.ssap.answers import InsertAnswerTemplate
from sib.ssap.envelope import Request
from sib.ssap.messages import Dialect, QueryType
from sib.ssap.operations import Join
from storage.bdc.records import SubscriptionRecord

log = logging.getLogger("sofia2.gateway")

HEARTBEAT_S = 1.0
RENEW_RETRY_S = 0.5
"""Until whoever knows the sessions is asked again what one of them may still hear."""
PROOFS_AT_ONCE_MAX = 2
"""Passwords being checked; each takes 64 MiB and a thread. More wait."""
LEASES_MAX = 200_000
"""Sessions remembered; beyond it the ones used longest ago are asked again."""


class HeldLease:
    """A lease in use: what the session may do, where it last spoke, and its prepared answers."""

    __slots__ = (
        "channel", "cipher_key", "context", "dialect", "expiry_s", "insertable", "is_administrator", "is_cipher_only", "is_here",
        "key", "kp", "rights", "templates", "used_at_s", "user",
    )  # fmt: skip

    def __init__(self, lease: Lease, active: Mapping[str, Any], now_s: float) -> None:
        self.key, self.kp, self.user = lease.key, lease.kp, lease.user
        self.is_administrator, self.cipher_key = lease.is_administrator, lease.cipher_key
        self.is_cipher_only = lease.is_cipher_only
        self.dialect = Dialect(lease.dialect)
        self.rights = {name: Rights(value) for name, value in lease.rights.items()}
        self.insertable = frozenset(
            name
            for name, rights in self.rights.items()
            if Rights.INSERT in rights and name in active and active[name].active and not lease.is_cipher_only
        )
        self.context = lease.context
        self.expiry_s = lease.expiry_s
        self.channel: Channel | None = None
        self.is_here = True
        """Whether the session speaks over a connection of this gateway; False: it came over REST only."""
        self.templates: dict[tuple[str | None, Dialect], tuple[bytes, bytes]] = {}
        self.used_at_s = now_s

    def is_expired(self, now_s: float) -> bool:
        """Whether this gateway has not heard of the session for so long that it has to ask whether it is alive."""
        return now_s - self.used_at_s > self.expiry_s

    def template(self, request: Request) -> tuple[bytes, bytes]:
        """Head and tail of the answer to an accepted INSERT: the id goes between them."""
        key = (request.ontology, request.dialect)
        found = self.templates.get(key)
        if found is None:
            template = InsertAnswerTemplate.for_session(self.key, request.ontology, request.dialect)
            found = self.templates[key] = (template.head, template.tail)
        return found


class GatewayCore(OperationsCore):
    """The common part of the gateways of one process; lives on its event loop."""

    def __init__(self, name: str, kind: str, config: PlatformConfig) -> None:
        super().__init__(name, config)
        self.epoch = os.urandom(6).hex()
        self.metrics = GatewayMetrics(kind)
        self.leases: dict[str, HeldLease] = {}
        self._cipher_keys = self.bdc.cipher_keys()
        self.has_cep = "script" in config.modules
        self._cep_outputs = self.bdc.cep_outputs() if self.has_cep else {}
        self.paused: set[Channel] = set()
        self.channels = 0
        self.sessions = SessionClient(name, config)
        self.notifier = Notifier(self._deliver)
        self.listeners = CommandListeners(
            name,
            self.bdc,
            config.topology,
            send_callback=self._send_callback,
            stop_callback=self._stop_callback,
            spawn=self.spawn,
        )
        self.commands = self.listeners.commands
        self.router = Router(self)
        self._loop = asyncio.get_running_loop()
        self.proving = asyncio.Semaphore(PROOFS_AT_ONCE_MAX)
        limits = config.limits
        self.logins = Logins(self.proving, limits.join_failures_per_minute, limits.join_failure_delay_s_max)
        self._applied_version = self.catalog.version
        self._take_login_limits()
        self._dirty: list[Channel] = []
        self._is_drain_due = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._inboxes: dict[str, Inbox] = {}
        self.connect({partition: self._client_of(partition) for partition in config.topology.partitions})
        self._touched_at_s = 0.0

    def _client_of(self, partition: str) -> PartitionClient:
        inbox = self._inboxes[partition] = Inbox(self.notifier.apply)
        return PartitionClient(
            partition,
            self.name,
            self.epoch,
            self.config,
            acked=lambda: inbox.acked,
            received=lambda: inbox.received,
            announced=inbox.put,
            settled=self.drain,
            drained=self._ease,
            took=self.metrics.observe,
        )

    # ------------------------------------------------------------------ for transports

    def open_channel(
        self,
        transport: Any,
        *,
        kind: str,
        peer: str,
        client_id: str | None = None,
        message_bytes_max: int | None = None,
    ) -> Channel:
        """The SSAP side of a new connection. ``message_bytes_max``: its listener's; None = as by default."""
        self.channels += 1
        return Channel(self, transport, kind=kind, peer=peer, client_id=client_id, message_bytes_max=message_bytes_max)

    def channel_closed(self, channel: Channel) -> None:
        self.channels -= 1
        self.commands.remove_channel(channel)

    async def tokens(self, kp: str, user: str, password: str, address: str) -> list[tuple[str, bool]]:
        """The tokens of a KP for its owner or an ADMINISTRADOR. The failures of one user and address are slowed down.

        Raises:
            AuthenticationError: wrong user or password, or the KP is another user's or unknown.
        """

        def read() -> list[tuple[str, bool]]:
            self.bdc.identify_user(kp, user, password)
            return self.bdc.tokens(kp)

        return await self.logins.check(address, user, read)

    async def prove(self, join: Join) -> Identity | AuthenticationError | None:
        """Who user and password of a JOIN are, or why nobody; None when they are not there."""
        if not join.kp or not join.user or join.password is None:
            return None
        async with self.proving:
            try:
                return await asyncio.to_thread(self.bdc.identify_user, join.kp, join.user, join.password)
            except AuthenticationError as error:
                return error

    def cipher_key_of(self, kp: str) -> str | None:
        """The cipher key of a KP, None if there is no such KP."""
        return self._cipher_keys.get(kp)

    # ------------------------------------------------------------------ for the router

    def hold(self, lease: Lease, channel: Channel | None) -> HeldLease:
        """Keep a lease and take over the session's subscriptions.

        The session speaks on ``channel``, unless that has ended; with None (REST) it goes on speaking where it did.
        """
        held = HeldLease(lease, self.catalog.ontologies, time.time())
        known = self.leases.get(lease.key)
        is_speaking = channel is not None and channel.is_open
        held.channel = channel if is_speaking or known is None else known.channel
        held.is_here = channel is not None or (known is not None and known.is_here)
        if not held.is_here:
            held.insertable = frozenset()  # its next request over a connection asks first
        if len(self.leases) >= LEASES_MAX:
            self._forget_oldest()
        self.leases[lease.key] = held
        client = (channel.client_id if channel is not None else None) or ""
        for record in lease.subscriptions if held.is_here else ():
            if not record.gateway:
                self.notifier.add(self.local_subscription(record, lease.cipher_key, client=client))
        return held

    def _forget_oldest(self) -> None:
        by_use = sorted(self.leases.values(), key=lambda lease: lease.used_at_s)
        for lease in by_use[: LEASES_MAX // 10]:
            del self.leases[lease.key]

    def local_subscription(
        self, record: SubscriptionRecord, cipher_key: str, *, client: str = "", is_announced: bool = True
    ) -> LocalSubscription:
        return LocalSubscription(
            record.subscription_id,
            record.session_key,
            record.ontology,
            Dialect(record.dialect),
            record.ms_refresh,
            cipher_key=cipher_key if record.ciphered else None,
            endpoint=record.endpoint or None,
            output=record.query_text if record.query_type == QueryType.CEP else None,
            client=client,
            is_announced=is_announced,
        )

    async def register(self, record: SubscriptionRecord, condition: dict[str, Any]) -> None:
        """Tell the subscription's partition; from the next commit on it is matched.

        A partition that is restarting finds the subscription in the BDC, where it is already.
        """
        subscriber = subscriber_of(record, self.name)._replace(condition=condition)
        ref = Ref(self.config.topology.partition_of(record.ontology))
        began = self._loop.time()
        while True:
            try:
                await ref.call("subscribe", [subscriber])
                return
            except ActorGoneError as error:
                if self._loop.time() - began > self.limits.write_timeout_s:
                    raise StoreUnavailableError("the partition is not there now; SUBSCRIBE again") from error
                await asyncio.sleep(0.05)

    def withdraw(self, session_key: str, subscription_id: str) -> None:
        """A SUBSCRIBE was refused after all, or its client went before it heard of it: nothing of it may stay anywhere."""
        self.end_subscription(subscription_id)
        self.spawn(self._withdraw(session_key, subscription_id))

    async def _withdraw(self, session_key: str, subscription_id: str) -> None:
        try:
            await self.sessions.request(session_key, "unsubscribe", session_key, subscription_id)
        except SibError as error:
            log.warning("a subscription that nobody knows of may be left in its session: %s", error)

    def end_session(self, session_key: str) -> None:
        """The session is over: no lease, no INDICATION any more."""
        self.leases.pop(session_key, None)
        for subscription in self.notifier.remove_session(session_key):
            self._stop_callback(subscription.id)

    def end_subscription(self, subscription_id: str) -> None:
        self.notifier.remove(subscription_id)
        self._stop_callback(subscription_id)

    def may_hear(self, output: str, user: str, rights: Mapping[str, Rights]) -> bool:
        """Whether a user may be told what CEP rules put out under this name (in lower case)."""
        makers = self._cep_outputs.get(output, ())
        return may_hear(makers, user, lambda name: Rights.QUERY in rights.get(name, Rights.NONE))

    def has_output(self, output: str) -> bool:
        """Whether an active CEP rule puts out something under this name (in lower case)."""
        return output in self._cep_outputs

    def put_outputs(self, outputs: Sequence[Mapping[str, Any]]) -> None:
        """What CEP rules have put out, for the subscriptions of this gateway."""
        rows: dict[str, list[bytes]] = {}
        for output in outputs:
            rows.setdefault(f"{CEP}{output['stream'].casefold()}", []).append(orjson.dumps(output["data"]))
        for name, data in rows.items():
            self.notifier.tell(name, data)

    async def kp_owner(self, kp: str) -> str | None:
        """The owner of a KP, None if there is no such KP."""
        try:
            return await asyncio.to_thread(self.bdc.owner_of, kp)
        except NotFoundError:
            return None

    def count(self, operation: str, result: str, seconds: float) -> None:
        self.metrics.count(operation, result, seconds)

    # ------------------------------------------------------------------ the end of a batch

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def mark(self, channel: Channel) -> None:
        self._dirty.append(channel)
        if not self._is_drain_due:
            self._is_drain_due = True
            self._loop.call_soon(self.drain)

    def drain(self) -> None:
        """Write what is ready, connection by connection."""
        self._is_drain_due = False
        dirty, self._dirty = self._dirty, []
        for channel in dirty:
            channel.drain()

    def is_congested(self) -> bool:
        limit = self.limits.requests_waiting_max
        for client in self._partitions.values():  # noqa: SIM110 - asked for each message, and any() takes three times as long
            if client.window.depth > limit:
                return True
        return False

    def _ease(self) -> None:
        if self.paused and not self.is_congested():
            for channel in list(self.paused):
                channel.ease()

    # ------------------------------------------------------------------ INDICATIONs

    def _deliver(self, subscription: LocalSubscription, payload: bytes) -> Awaitable[None] | None:
        if subscription.endpoint is not None:
            return self._send_callback(subscription.id, subscription.endpoint, payload)
        lease = self.leases.get(subscription.session_key)
        channel = lease.channel if lease is not None else None
        if channel is not None and channel.is_open:
            return channel.indicate(payload)
        return self._deliver_offline(subscription, channel, payload)

    def _deliver_offline(
        self, subscription: LocalSubscription, channel: Channel | None, payload: bytes
    ) -> Awaitable[None] | None:
        """The session is not connected here: dropped and counted, unless a transport keeps it for the client."""
        self.metrics.dropped += 1
        return None

    def _send_callback(self, id_: str, endpoint: str, payload: bytes) -> Awaitable[None] | None:
        self.metrics.dropped += 1
        return None

    def _stop_callback(self, id_: str) -> None:
        """Overridden where there are REST callbacks."""

    # ------------------------------------------------------------------ calls of other actors

    def put_announcement(self, partition: str, announcement: Any) -> None:
        self._inboxes[partition].put(announcement)

    def forget(self, session_keys: list[str]) -> None:
        """These sessions ended, or have to be asked again."""
        for session_key in session_keys:
            self.end_session(session_key)

    def moved(self, session_keys: list[str]) -> None:
        """These sessions speak through another gateway now."""
        for session_key in session_keys:
            self.leases.pop(session_key, None)
            self.notifier.leave_session(session_key)

    async def reload(self) -> int:
        """Take over the newest configuration; every session is asked again at its next request."""
        await self.catalog.refresh_aside()
        version = self.catalog.version
        if version != self._applied_version:  # a reload that failed halfway is repeated as a whole
            self._cipher_keys = await asyncio.to_thread(self.bdc.cipher_keys)
            if self.has_cep:
                self._cep_outputs = await asyncio.to_thread(self.bdc.cep_outputs)
            self._take_login_limits()
            self._renew_leases()
            await self.listeners.recheck()
            self._applied_version = version
        return self.catalog.version

    def _take_login_limits(self) -> None:
        setting, limits, limiter = self.catalog.setting, self.limits, self.logins.limiter
        limiter.failures_per_minute = int(setting("limits.join_failures_per_minute", limits.join_failures_per_minute))
        limiter.delay_s_max = float(setting("limits.join_failure_delay_s_max", limits.join_failure_delay_s_max))

    def _renew_leases(self) -> None:
        """Rights may have changed: forget them, but not where sessions with subscriptions speak."""
        for lease in self.leases.values():
            lease.insertable = frozenset()
        self.leases = {key: lease for key, lease in self.leases.items() if self.notifier.has_session(key)}
        for key in self.notifier.sessions():
            self.spawn(self._renew(key))

    async def _renew(self, session_key: str) -> None:
        """Ask again what a session with subscriptions may do: it need not send anything to be told things."""
        while True:
            try:
                renewed = await self.sessions.request(session_key, "renew", session_key)
                break
            except AuthenticationError:
                self.end_session(session_key)
                return
            except StoreUnavailableError:
                await asyncio.sleep(RENEW_RETRY_S)
                if not self.notifier.has_session(session_key):
                    return
        lease = self.leases.get(session_key)
        if lease is not None:
            self.hold(renewed, lease.channel).used_at_s = lease.used_at_s  # it was not the session that asked
        rights = {name: Rights(value) for name, value in renewed.rights.items()}
        active = {name for name, record in self.catalog.ontologies.items() if record.active}
        readable = {name for name, right in rights.items() if Rights.QUERY in right and name in active}
        heard = {f"{CEP}{output}" for output in self._cep_outputs if self.may_hear(output, renewed.user, rights)}
        self.notifier.mute_except(session_key, readable | heard)

    async def restore(self) -> None:
        """After a start: the subscriptions of the sessions that last spoke here."""
        gateways = {s.session_key: s for s in await asyncio.to_thread(self.bdc.sessions.load)}
        for record in await asyncio.to_thread(self.bdc.subscriptions.load):
            session = gateways.get(record.session_key)
            if session is not None and self.config.topology.home_of(record.gateway, session.gateway) == self.name:
                key = self._cipher_keys.get(session.kp, "") if record.ciphered else ""
                self.notifier.add(self.local_subscription(record, key, client=session.client_ref))
        for key in self.notifier.sessions():
            self.spawn(self._renew(key))

    async def run(self) -> None:
        """Heartbeats to the partitions and, apart from them, touches to the session shards, for ever."""
        self.spawn(self._keep_touching())
        while True:
            for client in self._partitions.values():
                try:
                    while await client.heartbeat():
                        pass
                except Exception as error:
                    log.debug("no heartbeat: %s", error)
            await asyncio.sleep(HEARTBEAT_S)

    async def _keep_touching(self) -> None:
        while True:
            expiry_s = float(self.catalog.setting("sessions.expiry_s", self.limits.sessions_expiry_s))
            await asyncio.sleep(touch_lag_s(expiry_s) / 2)
            await self._touch()

    async def _touch(self) -> None:
        now_s = time.time()
        since, self._touched_at_s = self._touched_at_s, now_s
        used: dict[str, dict[str, float]] = {}
        for lease in list(self.leases.values()):
            if lease.used_at_s >= since:
                used.setdefault(self.config.topology.shard_of(lease.key), {})[lease.key] = lease.used_at_s
            elif lease.is_expired(now_s):
                del self.leases[lease.key]
        for keys in used.values():
            try:
                self.forget(await self.sessions.request(next(iter(keys)), "touch", keys))
            except Exception as error:
                log.warning("the sessions could not be touched: %s", error)

    def samples(self) -> Samples:
        """What this gateway counts, for ``/metrics``."""
        gateway = (("gateway", self.metrics.kind),)
        samples = self.metrics.samples()
        samples["sofia2_connections", gateway] = self.channels
        samples["sofia2_leases", gateway] = len(self.leases)
        samples["sofia2_subscriptions", gateway] = len(self.notifier)
        samples["sofia2_indications_total", gateway] = self.notifier.indications
        samples["sofia2_indications_dropped_total", gateway] = self.metrics.dropped + self.notifier.stale
        samples["sofia2_queries_capped_total", gateway] = self.capped
        samples["sofia2_login_failures_total", gateway] = self.logins.failures
        samples["sofia2_logins_delayed_total", gateway] = self.logins.delays
        for name, client in self._partitions.items():
            labels = (*gateway, ("partition", name))
            samples["sofia2_queue_depth", labels] = client.window.depth
            samples["sofia2_write_retries_total", labels] = client.window.retries
        return samples
