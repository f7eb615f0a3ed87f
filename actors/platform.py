"""Platform: which actors run, the configuration's version pushed to them, their upkeep, status and metrics.

Everything is reconciled: what an actor has not taken over yet is pushed again, so a restart on either side heals by itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Any

from actors import logs
from actors.config import PlatformConfig
from actors.health import Databases, failure_of_last, with_failed_writes
from actors.kp.container import KpContainer
from actors.metrics import Samples, merge_samples
from actors.ray_metrics import RayMetrics
from actors.roster import roster, spawn_all
from actors.runtime import ActorGoneError, Ref
from sib.errors import SibError
from storage.bdc.bdc import open_bdc

log = logging.getLogger("sofia2.platform")

WATCH_S = 0.1
"""How often the configuration's version is looked at: a change is felt everywhere within a second."""
TICK_S = 1.0
CONTAIN_S = 5.0
"""How often the KPs that run are compared with those that shall, also without a change."""
PUBLISH_S = 10.0
STATUS_TIMEOUT_S = 2.0


class Platform:
    """An async actor, one per platform."""

    def __init__(self, name: str, config: PlatformConfig) -> None:
        logs.configure(config.data, name)
        self._config = config
        self._bdc = open_bdc(config.bdc_url)
        self._kinds = {entry.name: entry.kind for entry in roster(config.topology)}
        self._pids: dict[str, int] = {}
        self._restarts: dict[str, int] = {}
        self._databases = Databases(config, self._bdc)
        self._version = self._bdc.config_version()
        self._versions: dict[str, int] = {}
        self._container = KpContainer(config, self._bdc)
        self._contained = -1
        """The version of the configuration whose KPs run."""
        self._started = asyncio.get_event_loop().create_task(self._start())

    async def _start(self) -> None:
        config, topology = self._config, self._config.topology
        # Whoever started us has started them, too; after a crash of ours they are found.
        spawn_all(config)
        listening = topology.mqtt_gateways + topology.http_gateways
        others = [name for name in self._kinds if name not in topology.gateways]
        await asyncio.gather(*(_until_answered(name, "ready") for name in listening))
        await asyncio.gather(*(_until_answered(name, "stats") for name in others))
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._watch_version())]
        self._tasks += [loop.create_task(self._push(name)) for name in self._kinds]
        self._tasks += [loop.create_task(self._tick(name)) for name in others]
        self._tasks.append(loop.create_task(self._contain()))
        self._tasks.append(loop.create_task(self._publish_metrics()))
        log.info("the platform %s is ready", config.data)

    async def ready(self) -> None:
        """Returns when every actor works and every listener accepts.

        Raises:
            OSError: a port is taken. SibError: a database cannot be used.
        """
        await asyncio.shield(self._started)

    async def _watch_version(self) -> None:
        """Look at the configuration's version, in a thread: a database that does not answer stops nobody."""
        while True:
            try:
                self._version = await asyncio.to_thread(self._bdc.config_version)
            except SibError as error:
                log.warning("the configuration's version cannot be read: %s", error.message)
            await asyncio.sleep(WATCH_S)

    async def _push(self, name: str) -> None:
        """Push a new configuration to one actor until it has it."""
        while True:
            try:
                if self._versions.get(name) != self._version:
                    self._versions[name] = await Ref(name).call("reload")
            except SibError as error:
                self._versions.pop(name, None)
                log.debug("%s has not taken over the configuration: %s", name, error)
            await asyncio.sleep(WATCH_S)

    async def _contain(self) -> None:
        """Bring the KPs that the platform runs to the newest configuration, until they have it."""
        looked_at_s = 0.0
        while True:
            version = self._version
            if self._contained != version or time.monotonic() - looked_at_s > CONTAIN_S:
                looked_at_s = time.monotonic()
                try:
                    if await self._container.reconcile():
                        self._contained = version
                except Exception as error:
                    log.warning("the KPs of the platform are not as they shall be: %s", error)
            await asyncio.sleep(WATCH_S)

    async def kps(self) -> list[dict[str, Any]]:
        """Every deployed KP instance: name, instance, state and what is known of it."""
        return await self._container.kps()

    async def _tick(self, name: str) -> None:
        while True:
            try:
                await Ref(name).call("tick")
            except Exception as error:
                log.warning("upkeep of %s: %s", name, error)
            await asyncio.sleep(TICK_S)

    async def _publish_metrics(self) -> None:
        published = RayMetrics()
        while True:
            await asyncio.sleep(PUBLISH_S)
            published.publish(await self.samples())

    async def applied(self, version: int) -> bool:
        """Whether every actor has taken over this version of the configuration."""
        is_pushed = all(self._versions.get(name, -1) >= version for name in self._kinds)
        return is_pushed and self._contained >= version

    async def status(self) -> dict[str, Any]:
        """Readiness, database health, and every actor with name, kind, pid, node, state and restarts."""
        workers = dict.fromkeys(sorted(self._container.workers), "KpWorker")
        found, databases = await asyncio.gather(
            asyncio.gather(*(self._actor_status(*item) for item in {**self._kinds, **workers}.items())),
            self._databases.health(),
        )
        actors = found[: len(self._kinds)]
        failures = [actor.get("stats", {}).get("write_failure") for actor in actors]
        writes = [actor["stats"]["bdc_write"] for actor in found if "bdc_write" in actor.get("stats", {})]
        databases["bdc"] = with_failed_writes(databases["bdc"], [failure_of_last([self._bdc.last_write, *writes])])
        databases["bdtr"] = with_failed_writes(databases["bdtr"], failures)
        platform = {
            "name": "platform", "kind": "Platform", "pid": os.getpid(), "node": "head", "state": "running", "restarts": 0,
        }  # fmt: skip
        is_started = self._started.done() and self._started.exception() is None
        return {
            "ready": is_started and all(actor["state"] == "running" for actor in actors),
            "modules": list(self._config.modules),
            "databases": databases,
            "config_version": self._version,
            "actors": [platform, *found],
        }

    async def _actor_status(self, name: str, kind: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": name, "kind": kind, "node": "head"}
        try:
            stats = await asyncio.wait_for(Ref(name).call("stats"), STATUS_TIMEOUT_S)
        except (SibError, TimeoutError):
            return {
                **entry,
                "pid": self._pids.get(name),
                "state": "restarting",
                "restarts": self._restarts.get(name, 0),
            }
        pid = stats.pop("pid")
        if self._pids.setdefault(name, pid) != pid:
            self._pids[name] = pid
            self._restarts[name] = self._restarts.get(name, 0) + 1
        return {**entry, "pid": pid, "state": "running", "restarts": self._restarts.get(name, 0), "stats": stats}

    async def samples(self, without: str = "") -> Samples:
        """The metrics of all actors but one."""
        names = [name for name in self._config.topology.gateways if name != without]
        results = await asyncio.gather(*(Ref(name).call("samples") for name in names), return_exceptions=True)
        parts: list[Samples] = [result for result in results if isinstance(result, dict)]
        parts += [_actor_samples(actor) for actor in (await self.status())["actors"]]
        return merge_samples(parts)


async def _until_answered(name: str, method: str) -> None:
    """Call an actor that may be restarting just now; one that has ended for good is an error."""
    while True:
        try:
            await Ref(name).call(method)
            return
        except ActorGoneError as error:
            if error.is_final:
                raise
        await asyncio.sleep(WATCH_S)


_STATS = {
    "commits": "sofia2_partition_commits_total",
    "writes": "sofia2_partition_writes_total",
    "rejects": "sofia2_partition_rejects_total",
    "repeats": "sofia2_partition_repeats_total",
    "busy_s": "sofia2_partition_busy_seconds_total",
    "joins": "sofia2_joins_total",
    "join_failures": "sofia2_join_failures_total",
    "join_delays": "sofia2_joins_delayed_total",
    "queries": "sofia2_queries_total",
    "process_runs": "sofia2_process_runs_total",
    "process_failures": "sofia2_process_failures_total",
    "process_busy_s": "sofia2_process_busy_seconds_total",
    "process_moved": "sofia2_process_moved_instances_total",
}


def _actor_samples(actor: dict[str, Any]) -> Samples:
    labels = (("actor", actor["name"]),)
    samples: Samples = {("sofia2_actor_restarts_total", labels): actor["restarts"]}
    stats = actor.get("stats", {})
    for key, metric in _STATS.items():
        if key in stats:
            samples[metric, labels] = stats[key]
    if actor["kind"] == "SessionShard" and "sessions" in stats:
        samples["sofia2_sessions", labels] = stats["sessions"]
    return samples
