"""The gateway actors: MqttGateway and HttpGateway. Each binds its listeners in its constructor, so that a restart heals it."""

from __future__ import annotations

import asyncio
import gc
import os
import ssl
from collections.abc import Awaitable
from functools import partial
from typing import Any

from actors.config import PLATFORM, Listener, PlatformConfig
from actors.feed import Announcement
from actors.gateway.callback_post import AddressPolicy, CallbackPoster
from actors.gateway.callbacks import CallbackSender
from actors.gateway.channel import Channel
from actors.gateway.core import GatewayCore
from actors.gateway.http import RunningHttp, start_http
from actors.gateway.mqtt import ListenerOptions, MqttConnection, MqttEndpoint, start_listener
from actors.gateway.mqtt_bdc import BdcSessionStore
from actors.gateway.mqtt_websocket import WebSocketMqtt
from actors.gateway.notifier import LocalSubscription
from actors.metrics import Samples, format_metrics, merge_samples
from actors.runtime import Ref
from sib.errors import AuthenticationError, SibError

BIND_RETRY_S = 0.1
BIND_TRIES = 100
"""The port of a process that has just been killed may be taken for a moment."""


class MqttCore(GatewayCore):
    """A gateway that speaks MQTT: INDICATIONs go by client id, also to persistent sessions that are away."""

    endpoint: MqttEndpoint

    def start_endpoint(self) -> None:
        self.endpoint = MqttEndpoint(self, store=BdcSessionStore(self.bdc, self.name))

    def connected(self, connection: MqttConnection) -> Channel:
        """A client of an SSAP listener is there (called by the endpoint)."""
        return self.open_channel(connection, kind="mqtt", peer=connection.peer, client_id=connection.client_id)

    async def authenticate(self, client_id: str, username: str | None, password: bytes | None, peer: str) -> bool:
        """CONNECT's user and password on a listener with ``auth``: a user of the platform."""
        if not username or password is None:
            return False
        try:
            await asyncio.to_thread(self.bdc.log_in, username, password.decode("utf-8", "replace"))
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


class HttpCore(MqttCore):
    """The HTTP gateway's part: REST callbacks, the metrics page, MQTT over WebSocket."""

    def start_callbacks(self) -> None:
        self.servers: list[RunningHttp] = []
        hosts = [listener.host for listener in self.config.listeners]
        allow = self.catalog.setting("rest.callback_allow", list(self.limits.callback_allow))
        self.callback_policy = AddressPolicy(allow or AddressPolicy.default_allow(hosts))
        self._poster = CallbackPoster(self.callback_policy)
        self._callbacks = CallbackSender(self._poster, on_dead=self.commands.remove)
        self._platform_samples: Samples = {}

    def is_ready(self) -> bool:
        return True

    async def stop(self) -> None:
        """Close the listeners and what is under way to callbacks."""
        await asyncio.gather(*(server.stop() for server in self.servers))
        await self._callbacks.close()
        await self._poster.close()
        await super().stop()

    def metrics_text(self) -> str:
        return format_metrics(merge_samples([self._platform_samples, self.samples()]))

    async def refresh_metrics(self) -> None:
        """Fetch what the other actors count."""
        try:
            self._platform_samples = await Ref(PLATFORM).call("samples", self.name)
        except SibError:
            return

    def _send_callback(self, id_: str, endpoint: str, payload: bytes) -> Awaitable[None] | None:
        return self._callbacks.deliver(id_, endpoint, payload)  # type: ignore[return-value]

    def _stop_callback(self, id_: str) -> None:
        self._callbacks.stop(id_)

    def samples(self) -> Samples:
        samples = super().samples()
        counts = self._callbacks.counts
        samples["sofia2_callbacks_delivered_total", ()] = counts.delivered
        samples["sofia2_callbacks_given_up_total", ()] = counts.given_up + counts.dropped_full
        samples["sofia2_callbacks_waiting", ()] = counts.waiting
        return samples


class _GatewayActor:
    """What both gateway actors answer to."""

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

    async def forget(self, session_keys: list[str]) -> None:
        self._core.forget(session_keys)

    async def command(
        self, kp: str | None, instance: str | None, command_type: str | None, args: dict[str, Any]
    ) -> None:
        self._core.commands.send(kp, instance, command_type, args)

    async def reload(self) -> int:
        return self._core.reload()

    async def samples(self) -> Samples:
        return self._core.samples()

    async def stats(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "version": self._core.catalog.version,
            "connections": self._core.channels,
            "sessions": len(self._core.leases),
            "subscriptions": len(self._core.notifier),
            "is_ready": self._started.done() and self._started.exception() is None,
        }

    async def stop(self) -> None:
        await self._core.stop()


class MqttGateway(_GatewayActor):
    """An async actor: the MQTT listeners of one node."""

    def __init__(self, name: str, config: PlatformConfig) -> None:
        self._core = MqttCore(name, "mqtt", config)
        self._started = asyncio.get_event_loop().create_task(self._start())

    async def _start(self) -> None:
        core = self._core
        core.start_endpoint()
        await core.restore()
        await core.endpoint.start()
        for listener in core.config.listeners:
            if listener.kind in ("mqtt", "mqtts"):
                await _bind_mqtt(core, listener)
        core.spawn(core.run())
        _settle_memory()


class HttpGateway(_GatewayActor):
    """An async actor: SSAP over WebSocket and REST, and MQTT over WebSocket, of one node."""

    _core: HttpCore

    def __init__(self, name: str, config: PlatformConfig) -> None:
        self._core = HttpCore(name, "http", config)
        self._started = asyncio.get_event_loop().create_task(self._start())

    async def _start(self) -> None:
        core = self._core
        core.start_endpoint()
        core.start_callbacks()
        await core.restore()
        await core.endpoint.start()
        for listener in core.config.listeners:
            if listener.kind in ("http", "https"):
                await _bind_http(core, listener)
        core.spawn(core.run())
        core.spawn(self._refresh_metrics())
        _settle_memory()

    async def _refresh_metrics(self) -> None:
        while True:
            await self._core.refresh_metrics()
            await asyncio.sleep(2)


class ServedGateway(_GatewayActor):
    """An HTTP gateway whose server is somebody else's: Ray Serve. It binds nothing."""

    _core: HttpCore

    def __init__(self, name: str, config: PlatformConfig) -> None:
        self._core = HttpCore(name, "serve", config)
        self._started = asyncio.get_running_loop().create_task(self._start())

    @property
    def core(self) -> HttpCore:
        return self._core

    async def _start(self) -> None:
        core = self._core
        core.start_endpoint()
        core.start_callbacks()
        await core.restore()
        await core.endpoint.start()
        core.spawn(core.run())


async def _bind_mqtt(core: MqttCore, listener: Listener) -> None:
    options = ListenerOptions(**listener.options)
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


async def _bind_http(core: HttpCore, listener: Listener) -> None:
    for attempt in range(BIND_TRIES):
        try:
            running, _ = await start_http(
                core,  # type: ignore[arg-type]  # its limits are frozen, the app only reads them
                listener.host,
                listener.port,
                ssl=tls_context(listener),
                connections_max=int(listener.options.get("connections_max", 20_000)),
                is_shared=True,
                open_mqtt=partial(
                    WebSocketMqtt, core.endpoint, ListenerOptions(message_bytes_max=core.limits.message_bytes_max)
                ),
            )
            core.servers.append(running)
            return
        except OSError:
            if attempt == BIND_TRIES - 1:
                raise
            await asyncio.sleep(BIND_RETRY_S)


def tls_context(listener: Listener) -> ssl.SSLContext | None:
    """The TLS side of a listener, None for a clear one."""
    if listener.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(listener.certificate, listener.key)
    return context


def _settle_memory() -> None:
    """What exists after the start stays: the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
