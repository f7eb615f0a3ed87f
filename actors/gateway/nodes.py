"""MqttGateway, and what all gateway actors have in common. Each binds its listeners in its constructor: a restart heals it."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable
from typing import Any

from actors.config import Limits, Listener, PlatformConfig
from actors.feed import Announcement
from actors.garbage import settle_memory
from actors.gateway.channel import Channel
from actors.gateway.core import GatewayCore
from actors.gateway.mqtt import ListenerOptions, MqttConnection, MqttEndpoint, start_listener
from actors.gateway.mqtt_bdc import BdcSessionStore
from actors.gateway.mqtt_options import MqttLimits
from actors.gateway.mqtt_peers import MqttPeers
from actors.gateway.notifier import LocalSubscription
from actors.metrics import Samples
from actors.runtime import Ref
from sib.errors import AuthenticationError, NotFoundError
from sib.mqtt.session import QueueBounds

BIND_RETRY_S = 0.1
BIND_TRIES = 100
GARBAGE = 100_000, 50, 1000
"""Much comes and goes in a gateway at once: the collector looks still more seldom than elsewhere."""
"""The port of a process that has just been killed may be taken for a moment."""


class MqttCore(GatewayCore):
    """A gateway that speaks MQTT: INDICATIONs go by client id, also to persistent sessions that are away."""

    endpoint: MqttEndpoint

    peers: MqttPeers | None = None

    def make_endpoint(self) -> None:
        mqtt, gateways = self.config.mqtt, mqtt_gateways(self.config)
        limits = MqttLimits(**{**mqtt, "queue": QueueBounds(**mqtt.get("queue", {}))})
        self.endpoint = MqttEndpoint(self, store=BdcSessionStore(self.bdc, self.name, gateways), limits=limits)
        if self.name in gateways and len(gateways) > 1:
            self.peers = self.endpoint.peers = MqttPeers(
                self.endpoint,
                self.name,
                gateways,
                lambda gateway, method, *arguments: Ref(gateway).call("mqtt", method, *arguments),
                pubsub=pubsub_gateways(self.config),
                write_timeout_s=self.limits.write_timeout_s,
            )

    async def start_endpoint(self) -> None:
        """Bring back what is stored; then the other gateways are answered, and asked for the clients of our sessions."""
        await self.endpoint.start()
        if self.peers is not None:
            self.peers.begin()
            self.spawn(self.peers.locate(self.notifier.clients()))

    def connected(self, connection: MqttConnection) -> Channel:
        """A client of an SSAP listener is there (called by the endpoint)."""
        return self.open_channel(
            connection,
            kind="mqtt",
            peer=_address_of(connection.peer),
            client_id=connection.client_id,
            message_bytes_max=connection.options.message_bytes_max,
        )

    async def authenticate(self, client_id: str, username: str | None, password: bytes | None, peer: str) -> bool:
        """CONNECT's user and password on a listener with ``auth``: a user of the platform. Too many failures come late."""
        name, secret = username or "", password

        def look() -> None:
            if not name or secret is None:
                raise AuthenticationError("this listener needs a user and a password")
            self.bdc.log_in(name, secret.decode("utf-8", "replace"))

        try:
            await self.logins.check(_address_of(peer), name, look)
        except AuthenticationError:
            return False
        return True

    async def stop(self) -> None:
        """Close the listeners."""
        await self.endpoint.stop()

    def _deliver_offline(
        self, subscription: LocalSubscription, channel: Channel | None, payload: bytes
    ) -> Awaitable[None] | None:
        client_id = channel.client_id if channel is not None else subscription.client
        if client_id:
            return self.endpoint.indicate(client_id, payload)
        return super()._deliver_offline(subscription, channel, payload)

    def samples(self) -> Samples:
        samples = super().samples()
        for event, count in self.endpoint.stats.as_dict().items():
            samples["sofia2_mqtt_events_total", (("event", event), ("gateway", self.metrics.kind))] = count
        return samples


class GatewayActor:
    """What every gateway actor answers to."""

    _core: MqttCore
    _started: asyncio.Task[None]

    async def ready(self) -> None:
        """Returns when every listener accepts.

        Raises:
            OSError: a port is taken.
        """
        await asyncio.shield(self._started)

    async def indicate(self, partition: str, announcement: Announcement) -> None:
        self._core.put_announcement(partition, announcement)

    async def cep_outputs(self, outputs: list[dict[str, Any]]) -> None:
        await asyncio.shield(self._started)  # until then it knows of no subscription
        self._core.put_outputs(outputs)

    async def forget(self, session_keys: list[str]) -> None:
        self._core.forget(session_keys)

    async def end_subscription(self, subscription_id: str) -> None:
        self._core.end_subscription(subscription_id)

    async def moved(self, session_keys: list[str]) -> None:
        self._core.moved(session_keys)

    async def command(
        self, kp: str | None, instance: str | None, command_type: str | None, args: dict[str, Any]
    ) -> None:
        await asyncio.shield(self._started)  # until then it does not know who listens
        self._core.commands.send(kp, instance, command_type, args)

    async def mqtt(self, method: str, *arguments: Any) -> Any:
        """What another gateway says to our MQTT endpoint: a method of ``MqttPeers`` that begins with ``mqtt_``."""
        if self._core.peers is None or not method.startswith("mqtt_"):
            raise NotFoundError(f"this gateway has no {method}")
        return await getattr(self._core.peers, method)(*arguments)

    async def reload(self) -> int:
        return await self._core.reload()

    async def samples(self) -> Samples:
        return self._core.samples()

    async def stats(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "version": self._core.catalog.version,
            "connections": self._core.channels,
            "sessions": len(self._core.leases),
            "subscriptions": len(self._core.notifier),
            "bdc_write": self._core.bdc.last_write,
            "is_ready": self._started.done() and self._started.exception() is None,
        }

    async def stop(self) -> None:
        await self._core.stop()


class MqttGateway(GatewayActor):
    """An async actor: the MQTT listeners of one node."""

    def __init__(self, name: str, config: PlatformConfig) -> None:
        self._core = MqttCore(name, "mqtt", config)
        self._started = asyncio.get_event_loop().create_task(self._start())

    async def _start(self) -> None:
        core = self._core
        core.make_endpoint()
        await core.restore()
        await core.start_endpoint()
        for listener in core.config.listeners:
            if listener.kind in ("mqtt", "mqtts"):
                await _bind_mqtt(core, listener)
        core.spawn(core.run())
        settle_memory(*GARBAGE)


def mqtt_gateways(config: PlatformConfig) -> tuple[str, ...]:
    """The gateways among which the MQTT clients of the platform are: those with ``/mqtt`` too."""
    return config.topology.mqtt_gateways + config.topology.http_gateways


def pubsub_gateways(config: PlatformConfig) -> tuple[str, ...]:
    """Those with a listener on which clients publish and subscribe to ordinary topics."""
    kinds = {listener.kind[:4] for listener in config.listeners if listener.options.get("pubsub")}
    topology = config.topology
    return ("mqtt" in kinds) * topology.mqtt_gateways + ("http" in kinds) * topology.http_gateways


def _address_of(peer: str) -> str:
    """Without the port: failures are counted by address, whatever the connection."""
    return peer.rpartition(":")[0]


async def _bind_mqtt(core: MqttCore, listener: Listener) -> None:
    options = mqtt_options(listener, core.limits)
    for attempt in range(BIND_TRIES):
        try:
            await start_listener(
                core.endpoint, listener.host, listener.port, tls_context(listener), reuse_port=True, options=options
            )
            return
        except OSError:
            if attempt == BIND_TRIES - 1:
                raise
            await asyncio.sleep(BIND_RETRY_S)


def mqtt_options(listener: Listener, limits: Limits) -> ListenerOptions:
    """What MQTT is set to on a listener, be it of its own or over WebSocket; what it does not say, the settings do."""
    defaults = {"message_bytes_max": limits.message_bytes_max, "session_expiry_s": limits.mqtt_session_expiry_s}
    return ListenerOptions(**{**defaults, **listener.options})


def tls_context(listener: Listener) -> ssl.SSLContext | None:
    """The TLS side of a listener, None for a clear one."""
    if listener.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(listener.certificate, listener.key)
    return context
