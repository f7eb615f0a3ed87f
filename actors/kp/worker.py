"""KpWorker: supervises one KP instance that the platform runs: starts it, answers its calls, keeps its log, starts it again.

The program is a sandboxed child that ends with this process; the worker is its only way out, so its token never leaves the BDC.
What shall run stands in the BDC: a worker that was killed begins again from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from datetime import UTC, datetime
from typing import Any

from actors import logs
from actors.config import PlatformConfig
from actors.feed import Announcement
from actors.inside import Inside, Principal
from actors.kp import process
from actors.kp.bundle import lay_out
from actors.kp.calls import KpCalls
from actors.kp.grants import check_may_deploy, ontologies_of
from actors.kp.layers import install
from actors.kp.log import KpLog, log_path
from actors.kp.manifest import Manifest
from actors.kp.places import STARTS, bundles_folder, layers_folder, wheelhouse_of
from actors.kp.restarts import FAILURES_MAX, Restarts
from actors.kp.watch import Watch
from actors.sandbox.child import Child
from actors.sandbox.errors import SandboxStartError
from actors.sandbox.exits import Exit, Reason
from sib.cron import Cron, Schedule
from sib.errors import SibError
from storage.bdc.bdc import Bdc, open_bdc, utc_now
from storage.bdc.deployments import Deployment, RunState
from storage.bdc.records import LogRecord

log = logging.getLogger("sofia2.kp")

AGAIN_S = 1.0
"""Until a BDC that did not answer is asked again."""


class HinderedError(SibError):
    """The platform cannot start a program now, through no fault of the program."""

    code, status, is_retryable = "kp.hindered", 503, True


class KpWorker:
    """An async actor, one per KP instance that shall run."""

    def __init__(self, name: str, config: PlatformConfig, kp: str, instance: str, level: int) -> None:
        logs.configure(config.data, name)
        self._name, self._config, self._kp, self._instance, self._level = name, config, kp, instance, level
        self._bdc: Bdc = open_bdc(config.bdc_url)
        self._log = KpLog(log_path(config.data, name))
        self._inside: Inside | None = None
        self._present: Deployment | None = None
        self._changed = asyncio.Event()
        self._child: Child | None = None
        self._watch: Watch | None = None
        self._calls: KpCalls | None = None
        self._state, self._detail = "running", STARTS
        self._runs = self._failures = 0
        self._restarts = Restarts()
        self._since_s = time.time()
        self._supervising = asyncio.get_event_loop().create_task(self._supervise())

    # ------------------------------------------------------------------ calls of other actors

    async def events(self, partition: str, announcement: Announcement) -> None:
        """What a partition announces to a watcher."""
        if self._watch is not None:
            self._watch.put(partition, announcement)

    async def reload(self) -> int:
        """Take over the newest configuration: rights at once; another release, or a new start, after the end of the present."""
        version = await asyncio.to_thread(self._bdc.config_version)
        if self._inside is not None:
            version = await self._inside.reload()
        wanted = await asyncio.to_thread(self._read)
        if self._present is not None and _differ(self._present, wanted):
            self._changed.set()
            if self._child is not None:
                self._child.kill(Reason.STOPPED)
        elif self._calls is not None:
            await self._calls.check_subscriptions()
        return version

    async def stop(self) -> None:
        """End the program and everything of it; returns when its processes have ended."""
        self._supervising.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._supervising
        self._log.close()

    async def tick(self) -> None:
        """Nothing to do: the program is watched all the time."""

    async def stats(self) -> dict[str, Any]:
        """Of the actor and of the KP."""
        child = self._child
        usage = child.usage() if child is not None else None
        present = self._present
        return {
            "pid": os.getpid(),
            "kp": self._kp,
            "instance": self._instance,
            "kp_state": self._state,
            "detail": self._detail,
            "since": datetime.fromtimestamp(self._since_s, UTC).isoformat(timespec="seconds"),
            "release": present.release if present else None,
            "starts": present.starts if present else None,
            "runs": self._runs,
            "failures": self._failures,
            "bdc_write": self._bdc.last_write,
            "level": self._level,
            "child_pid": child.pid if child is not None else None,
            "calls": self._calls.count if self._calls is not None else 0,
            "subscriptions": len(self._watch) if self._watch is not None else 0,
            "memory_bytes": usage.memory_bytes if usage else None,
            "memory_peak_bytes": usage.memory_peak_bytes if usage else None,
            "cpu_s": usage.cpu_s if usage else None,
            "processes": usage.processes if usage else None,
        }

    # ------------------------------------------------------------------ the life of the KP

    async def _supervise(self) -> None:
        while True:
            try:
                self._changed.clear()
                self._present, before = await asyncio.to_thread(self._read), self._present
                if before is None or self._present is None or before.starts != self._present.starts:
                    self._restarts = Restarts()
                if self._inside is None:
                    self._inside = Inside(self._name, self._config)
            except Exception as error:
                log.warning("the configuration cannot be read", exc_info=error)
                self._become("failed", f"the configuration cannot be read: {getattr(error, 'message', error)}")
                await asyncio.sleep(AGAIN_S)
                continue
            if self._present is None or self._present.state is not RunState.RUNNING:
                self._become("stopped" if self._present is None else self._present.state.value)
                await self._changed.wait()  # until the platform ends this actor
                continue
            try:
                await self._run(self._present, Manifest.from_json(self._present.manifest))
            except Exception as error:
                log.exception("%s:%s cannot be supervised", self._kp, self._instance)
                await self._wait_hindered(f"our own fault: {type(error).__name__}; see the log")
                continue
            if not self._changed.is_set():
                await self._changed.wait()

    async def _run(self, deployment: Deployment, manifest: Manifest) -> None:
        """Run a release as it wants to be run, until something else shall run, it is finished, or it has failed too often."""
        self._become("running", STARTS)
        restarts = self._restarts
        times = manifest.times
        due_s = time.time()
        if isinstance(times, Cron):
            due_s = _next_s(times, due_s)
            self._become("running", f"waits for its next time ({manifest.schedule})")
        while not self._changed.is_set():
            if time.time() < due_s:
                await self._until(due_s)
                continue
            began = time.monotonic()
            try:
                failure = await self._run_once(deployment, manifest)
            except HinderedError as error:
                await self._wait_hindered(error.message)
                continue
            if self._changed.is_set():
                self._log.remark("it was stopped")
                return
            if failure is None:
                restarts.succeeded()
                if times is None:
                    await self._finish(deployment, RunState.STOPPED, "it has ended with status 0")
                    return
                self._become("running", f"waits for its next time ({manifest.schedule})")
                due_s = _next_s(times, due_s)
                continue
            self._failures += 1
            pause_s = restarts.failed(time.monotonic() - began)
            if pause_s is None:
                await self._pause(deployment, failure)
                return
            due_s = time.time() + pause_s if times is None else max(_next_s(times, due_s), time.time() + pause_s)
            self._become("failed", failure)
            self._log.remark(f"{failure}; it is started again in {max(0.0, due_s - time.time()):.0f} s")

    async def _run_once(self, deployment: Deployment, manifest: Manifest) -> str | None:
        """One run of the program; why it failed, or None.

        Raises:
            HinderedError: the platform cannot start it now.
        """
        assert self._inside is not None
        try:
            files = await asyncio.to_thread(self._prepare, deployment, manifest)
            sandbox = await asyncio.to_thread(process.open_sandbox, self._level)
            child = await process.start(
                sandbox, manifest, files, on_output=self._log.take, calls=lambda child: self._handler(child, deployment)
            )
        except (SandboxStartError, OSError) as error:
            raise HinderedError(str(getattr(error, "message", error))) from error
        except SibError as error:
            if error.is_retryable:
                raise HinderedError(error.message) from error
            return f"it cannot be started: {error.message}"
        self._child = child
        self._restarts.started()
        self._runs += 1
        self._become("running")
        if manifest.times is None or self._runs == 1:
            self._log.remark(f"release {deployment.release} is started")
        try:
            if self._changed.is_set():
                child.kill()
            end = await child.wait()
        finally:
            await asyncio.shield(self._clear(child))
        self._log.finish()
        return self._outcome(end)

    def _handler(self, child: Child, deployment: Deployment) -> KpCalls:
        assert self._inside is not None
        manifest = Manifest.from_json(deployment.manifest)
        who = Principal(
            deployment.owner, self._kp, self._instance, f"kp:{self._kp}:{self._instance}", ontologies_of(manifest)
        )
        self._watch = Watch(self._name, self._config, child.notify)
        self._calls = KpCalls(self._inside, who, self._watch)
        return self._calls

    async def _clear(self, child: Child) -> None:
        await child.close()
        watch, self._watch, self._calls, self._child = self._watch, None, None, None
        if watch is not None:
            await watch.close()

    @staticmethod
    def _outcome(end: Exit) -> str | None:
        """Why a run failed, or None."""
        return None if end.is_success or end.reason is Reason.STOPPED else end.describe()

    def _prepare(self, deployment: Deployment, manifest: Manifest) -> process.Files:
        """The files of a release on this machine, if its owner may have it run. In a thread.

        Raises:
            SibError: he may not, or they cannot be had.
        """
        data, limits = self._config.data, self._config.limits
        with self._bdc.read() as configuration:
            deployers = configuration.settings.all().get("kp.deployers", limits.kp_deployers)
            check_may_deploy(configuration.users.get(deployment.owner), deployers)
            content = configuration.deployments.bundle(deployment.bundle)
        bundle = lay_out(content, bundles_folder(data))
        layer = install(
            manifest.layer, manifest.dependencies, wheelhouse_of(data, limits.kp_wheelhouse), layers_folder(data)
        )
        return process.Files(bundle, layer)

    async def _wait_hindered(self, why: str) -> None:
        pause_s = self._restarts.hindered()
        self._become("failed", f"the platform cannot start it now: {why}")
        self._log.remark(f"the platform cannot start it now: {why}; it is tried again in {pause_s:.0f} s")
        await self._until(time.time() + pause_s)

    async def _until(self, moment_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, moment_s - time.time())):
                await self._changed.wait()

    # ------------------------------------------------------------------ its state

    def _become(self, state: str, detail: str = "") -> None:
        self._state, self._detail, self._since_s = state, detail, time.time()

    async def _pause(self, deployment: Deployment, failure: str) -> None:
        sentence = f"{failure}; it has failed {FAILURES_MAX} times in a row and is not started again by itself"
        log.error("%s:%s: %s", self._kp, self._instance, sentence)
        alarm = LogRecord(
            "PROCESS",
            utc_now(),
            f"The KP {self._kp}:{self._instance} is paused: {failure}",
            user=deployment.owner,
            kp=self._kp,
            instance=self._instance,
        )
        try:
            await asyncio.to_thread(self._bdc.log, [alarm])
        except SibError as error:
            log.warning("the alarm is not in the process log: %s", error.message)
        await self._finish(deployment, RunState.PAUSED, sentence)

    async def _finish(self, deployment: Deployment, state: RunState, detail: str) -> None:
        """It does not run any more, by itself: noted in the BDC, unless somebody has started it meanwhile."""
        self._become(state.value, detail)
        self._log.remark(detail)

        def note() -> None:
            with self._bdc.change() as configuration:
                configuration.deployments.set_state(self._kp, self._instance, state, detail, starts=deployment.starts)

        while not self._changed.is_set():
            try:
                await asyncio.to_thread(note)
                return
            except SibError as error:
                log.warning("the end of %s:%s is not noted yet: %s", self._kp, self._instance, error.message)
                await asyncio.sleep(AGAIN_S)

    def _read(self) -> Deployment | None:
        with self._bdc.read() as configuration:
            return configuration.deployments.get(self._kp, self._instance)


def _differ(present: Deployment, wanted: Deployment | None) -> bool:
    """Whether what runs is not what shall run."""
    if wanted is None or wanted.state is not RunState.RUNNING:
        return present.state is RunState.RUNNING
    return (present.starts, present.owner) != (wanted.starts, wanted.owner) or present.state is not RunState.RUNNING


def _next_s(times: Schedule, after_s: float) -> float:
    """The next moment after one that is over; what was missed meanwhile is left out."""
    now = datetime.fromtimestamp(time.time(), UTC).replace(tzinfo=None)
    after = datetime.fromtimestamp(after_s, UTC).replace(tzinfo=None)
    following = times.next_after(after)
    if following <= now:
        following = times.next_after(now) if isinstance(times, Cron) else now
    return following.replace(tzinfo=UTC).timestamp()
