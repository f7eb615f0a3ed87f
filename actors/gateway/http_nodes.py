"""HttpGateway, and the gateway of a Ray Serve replica: what speaks HTTP. The MQTT gateway need not load any of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial

from actors.config import PLATFORM, Listener, PlatformConfig
from actors.garbage import settle_memory
from actors.gateway.callback_post import CallbackPoster
from actors.gateway.callbacks import CallbackSender
from actors.gateway.http import RunningHttp, start_http
from actors.gateway.mqtt_websocket import WebSocketMqtt
from actors.gateway.nodes import (
    BIND_RETRY_S,
    BIND_TRIES,
    GARBAGE,
    GatewayActor,
    MqttCore,
    mqtt_options,
    tls_context,
)
from actors.metrics import Samples, format_metrics, merge_samples
from actors.outgoing import AddressPolicy
from actors.runtime import Ref
from sib.errors import SibError

METRICS_REFRESH_S = 2.0


class HttpCore(MqttCore):
    """The HTTP gateway's part: REST callbacks, the metrics page, MQTT over WebSocket."""

    def start_callbacks(self) -> None:
        self.servers: list[RunningHttp] = []
        self.callback_policy = AddressPolicy(self._callback_allow())
        self._poster = CallbackPoster(self.callback_policy)
        self._callbacks = CallbackSender(self._poster, on_dead=self.commands.remove)
        self._platform_samples: Samples = {}

    def _callback_allow(self) -> list[str]:
        hosts = [listener.host for listener in self.config.listeners]
        allow = self.catalog.setting("rest.callback_allow", self.limits.callback_allow)
        return list(allow or AddressPolicy.default_allow(hosts))

    async def reload(self) -> int:
        """As every gateway, and the networks that callbacks may go to."""
        version = await super().reload()
        self.callback_policy.permit(self._callback_allow())
        return version

    async def restore(self) -> None:
        """As every gateway, and who listens for commands with an endpoint."""
        await super().restore()
        await self.listeners.restore()

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


class HttpGateway(GatewayActor):
    """An async actor: SSAP over WebSocket and REST, and MQTT over WebSocket, of one node."""

    _core: HttpCore

    def __init__(self, name: str, config: PlatformConfig) -> None:
        self._core = HttpCore(name, "http", config)
        self._started = asyncio.get_event_loop().create_task(self._start())

    async def _start(self) -> None:
        core = self._core
        core.make_endpoint()
        core.start_callbacks()
        await core.restore()
        await core.start_endpoint()
        for listener in core.config.listeners:
            if listener.kind in ("http", "https"):
                await _bind_http(core, listener)
        core.spawn(core.run())
        core.spawn(self._refresh_metrics())
        settle_memory(*GARBAGE)

    async def _refresh_metrics(self) -> None:
        while True:
            await self._core.refresh_metrics()
            await asyncio.sleep(METRICS_REFRESH_S)


class ServedGateway(GatewayActor):
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
        core.make_endpoint()
        core.start_callbacks()
        await core.restore()
        await core.start_endpoint()
        core.spawn(core.run())


async def _bind_http(core: HttpCore, listener: Listener) -> None:
    options = mqtt_options(listener, core.limits)
    for attempt in range(BIND_TRIES):
        try:
            running, _ = await start_http(
                core,  # type: ignore[arg-type]  # its limits are frozen, the app only reads them
                listener.host,
                listener.port,
                ssl=tls_context(listener),
                connections_max=options.connections_max,
                is_shared=True,
                open_mqtt=partial(WebSocketMqtt, core.endpoint, options),
                message_bytes_max=options.message_bytes_max,
            )
            core.servers.append(running)
            return
        except OSError:
            if attempt == BIND_TRIES - 1:
                raise
            await asyncio.sleep(BIND_RETRY_S)
