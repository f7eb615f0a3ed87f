"""The KP container: the workers that run are those of the KPs that shall run, as the BDC says."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from pathlib import Path
from typing import Any

from actors.config import PlatformConfig
from actors.kp.manifest import Manifest
from actors.kp.places import PREFIX, RESTARTS, STARTS, bundles_folder, layers_folder, worker_name
from actors.runtime import Ref, actor_names, kill, spawn
from storage.bdc.bdc import Bdc
from storage.bdc.deployments import Deployment, RunState

log = logging.getLogger("sofia2.kp")

WORKER = "actors.kp.worker:KpWorker"
STOP_S = 10.0
RELOAD_S = 10.0
UNUSED_S = 3600.0
"""Files of KPs that nobody has used for so long are removed; they come back from the BDC when needed."""
LEVEL_MIN = 2


class KpContainer:
    """Part of the Platform actor. ``reconcile`` after every change of the configuration."""

    def __init__(self, config: PlatformConfig, bdc: Bdc) -> None:
        self._config, self._bdc = config, bdc
        self._deployments: dict[str, Deployment] = {}
        self._running: set[str] = set()
        self._seen: set[str] = set()
        """Workers that have answered once."""
        self.level = 0
        """Of the sandbox; 0: not tested yet."""
        self.failure = ""
        """Why none is run at all."""

    @property
    def is_on(self) -> bool:
        return "kp" in self._config.modules

    @property
    def workers(self) -> frozenset[str]:
        """The names of the actors that run."""
        return frozenset(self._running)

    async def reconcile(self) -> bool:
        """Start and end workers; what shall not run has ended then. Says whether all have the newest configuration.

        Raises:
            SibError: the BDC cannot be read.
        """
        found = await asyncio.to_thread(self._read)
        self._deployments = {worker_name(each.kp, each.instance): each for each in found}
        if not self.is_on:
            return True
        wanted = {name for name, each in self._deployments.items() if each.state is RunState.RUNNING}
        if wanted and not self.level:
            await self._test()
        if self.level < LEVEL_MIN:
            wanted = set()
        # Asked each time: this actor may be a new one, and a worker may be left from the one before.
        present = set(await asyncio.to_thread(actor_names, PREFIX))
        await asyncio.gather(*(self._end(name) for name in present - wanted))
        for name in sorted(wanted - present):
            deployment = self._deployments[name]
            spawn(WORKER, name, name, self._config, deployment.kp, deployment.instance, self.level, is_async=True)
        self._running = wanted
        has_taken_over = await asyncio.gather(*(_reload(name) for name in sorted(wanted)))
        await asyncio.to_thread(self._tidy)
        return all(has_taken_over)

    async def kps(self) -> list[dict[str, Any]]:
        """What ``sofia2 kp ps`` shows: every deployed KP instance."""
        return list(await asyncio.gather(*(self._kp(name, each) for name, each in self._deployments.items())))

    async def _kp(self, name: str, deployment: Deployment) -> dict[str, Any]:
        entry = stored_kp(deployment)
        if name in self._running:
            entry |= await self._live(name)
        elif deployment.state is RunState.RUNNING:
            entry |= self._not_running()
        return entry

    def _not_running(self) -> dict[str, Any]:
        """Of a KP that shall run and has no worker."""
        if self.failure:
            return {"state": "failed", "detail": self.failure}
        return {"state": "running", "detail": STARTS} if self.is_on else {"state": "stopped"}

    async def _live(self, name: str) -> dict[str, Any]:
        try:
            stats = await asyncio.wait_for(Ref(name).call("stats"), 2.0)
        except Exception:
            was_there = name in self._seen
            return {
                "state": "failed" if was_there else "running",
                "detail": RESTARTS if was_there else STARTS,
                "pid": None,
            }
        self._seen.add(name)
        keys = ("pid", "child_pid", "detail", "since", "runs", "failures", "memory_bytes", "cpu_s", "starts", "release")
        return {"state": stats["kp_state"], **{key: stats[key] for key in keys}}

    async def _test(self) -> None:
        from actors.sandbox import selftest

        report = await selftest.check(None)
        self.level = report.level.value
        for line in report.lines():
            log.info("sandbox: %s", line)
        if not report.is_enough:
            self.failure = "programs cannot be isolated on this machine: see 'sofia2 sandbox check'"
            log.error("no KP is run: %s", self.failure)

    async def _end(self, name: str) -> None:
        try:
            await asyncio.wait_for(Ref(name).call("stop"), STOP_S)
        except Exception as error:
            log.warning("%s is ended without having stopped: %s", name, error)
        await asyncio.to_thread(kill, Ref(name))
        self._seen.discard(name)

    def _read(self) -> list[Deployment]:
        with self._bdc.read() as configuration:
            return configuration.deployments.all()

    def _tidy(self) -> None:
        """Remove files of KPs that are not deployed any more."""
        used = {each.bundle[:32] for each in self._deployments.values()}
        used |= {Manifest.from_json(each.manifest).layer for each in self._deployments.values()}
        for folder in (bundles_folder(self._config.data), layers_folder(self._config.data)):
            for path in folder.glob("*") if folder.is_dir() else ():
                if path.name not in used and _age_s(path) > UNUSED_S:
                    shutil.rmtree(path, ignore_errors=True)


def stored_kp(deployment: Deployment) -> dict[str, Any]:
    """What is known of a deployed KP instance without its worker."""
    return {
        "name": deployment.kp,
        "instance": deployment.instance,
        "state": deployment.state.value,
        "detail": deployment.detail,
        "release": deployment.release,
        "owner": deployment.owner,
        "deployed_at": deployment.deployed_at.isoformat(timespec="seconds"),
        "pid": None,
        "starts": deployment.starts,
    }


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


async def _reload(name: str) -> bool:
    try:
        await asyncio.wait_for(Ref(name).call("reload"), RELOAD_S)
    except Exception as error:
        log.debug("%s has not taken over the configuration: %s", name, error)
        return False
    return True
