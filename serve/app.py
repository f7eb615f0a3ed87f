"""The composition root of what runs on Ray Serve: here the SSAP paths; console and management mount beside them later.

Ray Serve starts only when a module needs it. Its replica is a gateway like any other: same app, same router; other actors reach
it through its relay.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.applications import Starlette

from actors.config import Listener, PlatformConfig
from actors.gateway.http import create_app
from actors.gateway.http_nodes import HttpCore, ServedGateway
from actors.runtime import Ref
from sib.errors import SibError

log = logging.getLogger("sofia2.serve")

APP_NAME = "sofia2"
RETRY_S = 0.2
REQUESTS_AT_ONCE_MAX = 1000
"""Requests and WebSockets of one replica at once; more wait in Serve's proxy."""


class SibIngress:
    """The Serve deployment: one replica per name in ``topology.serve_gateways``."""

    async def __init__(self, name: str, config: PlatformConfig) -> None:  # type: ignore[misc]  # Serve awaits it
        self._gateway = ServedGateway(name, config)
        await self._gateway.ready()
        self._relay = Ref(name)
        self._task = asyncio.get_running_loop().create_task(self._attend())

    def __serve_build_asgi_app__(self) -> Starlette:
        return build_app(self._gateway.core)

    async def _attend(self) -> None:
        """Carry out what other actors call on our relay, for ever."""
        while True:
            try:
                for number, method, arguments in await self._relay.call("take"):
                    result = await getattr(self._gateway, method)(*arguments)
                    if number is not None:
                        await self._relay.call("give", number, result)
            except SibError:
                await asyncio.sleep(RETRY_S)
            except Exception:
                log.exception("a call of another actor failed")
                await asyncio.sleep(RETRY_S)


def build_app(core: HttpCore) -> Starlette:
    """Everything that Serve serves, in one app."""
    return create_app(core)  # type: ignore[arg-type]  # its limits are frozen, the app only reads them


def start(config: PlatformConfig, listener: Listener) -> None:
    """Start Ray Serve on its listener and deploy; returns when it accepts. Blocks: call it from a thread.

    Raises:
        RuntimeError: the deployment did not become healthy.
    """
    import ray.serve

    ray.serve.start(proxy_location="HeadOnly", http_options={"host": listener.host, "port": listener.port})
    (name,) = config.topology.serve_gateways
    deployment: Any = ray.serve.deployment(ray.serve.ingress()(SibIngress)).options(
        name="SibIngress",
        num_replicas=1,
        max_ongoing_requests=REQUESTS_AT_ONCE_MAX,
        ray_actor_options={"num_cpus": 0},
    )
    ray.serve.run(deployment.bind(name, config), name=APP_NAME, route_prefix="/")
