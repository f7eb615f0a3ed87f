"""ProcessRunner: starts processes at their times, loads files, and says what became of them.

The work is done in threads of this process; the loop only looks at the clock. After a crash it goes on with what was under
way: every process may be run again, and what was missed meanwhile is run once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from actors import logs
from actors.config import PlatformConfig
from actors.inside import Inside
from actors.processes.definitions import LoadOptions, all_processes, format_of, load_options
from actors.processes.jobs import Jobs
from actors.processes.loads import Loads, as_json
from actors.processes.runs import BY_HAND, MISSED, RESUMED, SCHEDULED, ProcessRunningError, Run, Runs, locks_folder
from actors.processes.timetable import steps
from sib.errors import ConfigurationError, NotFoundError, OverloadedError, SibError
from storage.bdc.bdc import open_bdc, utc_now
from storage.bdc.processes import LoadRecord, LoadState, ProcessKind, ProcessRecord

log = logging.getLogger("sofia2.processes")

RUNS_AT_ONCE = 4
"""Processes at work together; more wait for their turn."""
RUNS_WAITING_MAX = 100
"""Processes at work and waiting; more by hand are refused, and those of schedules come with the next tick."""
LOADS_FOLDER = "loads"


class ProcessRunner:
    """An async actor, one per platform with the module ``process``."""

    def __init__(self, name: str, config: PlatformConfig, *, now: Callable[[], datetime] | None = None) -> None:
        logs.configure(config.data, name)
        self._config = config
        self._now = now or utc_now
        self._bdc = open_bdc(config.bdc_url)
        self._inside = Inside(name, config)
        locks = locks_folder(config.data)
        self._runs = Runs(self._bdc, locks, now=self._now)
        self._loads = Loads(self._bdc, self._inside, Path(config.data) / LOADS_FOLDER, locks, now=self._now)
        self._threads = ThreadPoolExecutor(RUNS_AT_ONCE, thread_name_prefix="process")
        self._loop = asyncio.get_event_loop()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._processes: dict[str, ProcessRecord] = {}
        self._version = -1
        self._has_resumed = False
        self._counts = {"process_runs": 0, "process_failures": 0, "process_busy_s": 0.0, "process_moved": 0}

    # ------------------------------------------------------------------ upkeep

    async def reload(self) -> int:
        """Take over the newest configuration; returns its version."""
        await self._inside.reload()
        self._version, self._processes = await asyncio.to_thread(self._read)
        return self._version

    def _read(self) -> tuple[int, dict[str, ProcessRecord]]:
        with self._bdc.read() as configuration:
            return configuration.version(), all_processes(configuration.processes.all())

    async def tick(self) -> None:
        """Start what is due, about once a second."""
        if self._version < 0:
            await self.reload()
        if not self._has_resumed:
            await self._resume()
            self._has_resumed = True
        progress = await asyncio.to_thread(self._bdc.processes.progress)
        for step in steps(self._processes, progress, self._now()):
            name = step.process.name
            if step.is_due and (name in self._tasks or len(self._tasks) >= RUNS_WAITING_MAX):
                continue
            if step.is_due:
                self._start(step.process, MISSED if step.is_missed else SCHEDULED, next_at=step.next_at)
            else:
                await asyncio.to_thread(self._bdc.processes.plan, name, step.process.schedule, step.next_at)

    async def _resume(self) -> None:
        """Go on with what was under way when this process, or a command, was killed."""
        for key in await asyncio.to_thread(self._runs.interrupted):
            name, _, ontology = key.partition(":")
            process = self._processes.get(name)
            if process is not None and process.kind is not ProcessKind.LOAD:
                self._start(process, RESUMED, ontology=ontology)
        for load in await asyncio.to_thread(lambda: self._bdc.processes.loads(state=LoadState.LOADING)):
            self._start_load(load, RESUMED)

    def stats(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "version": self._version,
            "running": sorted(self._tasks),
            "bdc_write": self._bdc.last_write,
            **self._counts,
        }

    # ------------------------------------------------------------------ by hand

    async def run(self, name: str, user: str = "") -> dict[str, Any]:
        """Start a process now; how far it is, ``progress`` tells.

        Raises:
            NotFoundError: there is no such process. ProcessRunningError: it is at work. OverloadedError: too many are.
        """
        await self.reload()
        process = self._processes.get(name)
        if process is None:
            raise NotFoundError(f"There is no process {name!r}: see what there is with 'sofia2 process list'.")
        if name in self._tasks:
            raise ProcessRunningError(f"The process {name!r} runs already: wait for it.")
        self._check_room()
        self._start(process, BY_HAND, user=user)
        return {"process": name, "state": "running"}

    async def load(
        self, file: str, ontology: str, user: str = "", format_: str | None = None, again: bool = False
    ) -> dict[str, Any]:
        """Begin to load a file of this machine; gives the load, whose ``state`` its number tells later.

        Raises:
            ConfigurationError: the file cannot be read or its format is not known.
            OntologyNotFoundError: there is no such ontology.
            OverloadedError: too many processes are at work.
        """
        if not Path(file).is_absolute():
            raise ConfigurationError("The file of a load is named by its whole path.")
        self._check_room()
        options = LoadOptions(file, format_of(file, format_), user)
        load, is_new = await self._loads.begin(options, ontology, again=again)
        if is_new and f"load:{load.id}" not in self._tasks:
            self._start_load(load, BY_HAND)
        return {**as_json(load), "was_loaded": not is_new}

    def _check_room(self) -> None:
        if len(self._tasks) >= RUNS_WAITING_MAX:
            raise OverloadedError("Too many processes are at work or waiting: try again later.")

    # ------------------------------------------------------------------ work

    def _start(
        self,
        process: ProcessRecord,
        trigger: str,
        *,
        next_at: datetime | None = None,
        ontology: str = "",
        user: str = "",
    ) -> None:
        def work() -> None:
            try:
                with self._runs.run(process.name, process.kind, trigger, ontology=ontology, user=user) as run:
                    self._plan(process, next_at)
                    self._carry_out(process, run, ontology)
                    self._counts["process_moved"] += run.counts.get("moved", 0)
            except ProcessRunningError:
                self._plan(process, next_at)  # somebody does it by hand just now
                raise

        self._begin(f"{process.name}:{ontology}" if ontology else process.name, work)

    def _plan(self, process: ProcessRecord, next_at: datetime | None) -> None:
        if next_at is not None:
            self._bdc.processes.plan(process.name, process.schedule, next_at)

    def _carry_out(self, process: ProcessRecord, run: Run, ontology: str) -> None:
        if process.kind is ProcessKind.LOAD:
            run.counts.update(self._carry_out_load(process))
        else:
            Jobs(self._config, self._bdc, now=self._now).run(process, run.counts, ontology=ontology)

    def _carry_out_load(self, process: ProcessRecord) -> dict[str, Any]:
        load, is_new = self._on_loop(self._loads.begin(load_options(process), process.ontology))
        if not is_new:
            return {"load": load.id, "stored": 0, "rejected": 0}
        done: LoadRecord = self._on_loop(self._loads.run(load))
        return {"load": done.id, "stored": done.n_stored, "rejected": done.n_rejected}

    def _start_load(self, load: LoadRecord, trigger: str) -> None:
        name = f"load:{load.id}"

        def work() -> None:
            with self._runs.run(
                name, ProcessKind.LOAD, trigger, user=load.user, ontology=load.ontology, has_state=False
            ) as run:
                done: LoadRecord = self._on_loop(self._loads.run(load))
                run.counts |= {"load": done.id, "stored": done.n_stored, "rejected": done.n_rejected}

        self._begin(name, work)

    def _on_loop(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _begin(self, name: str, work: Callable[[], None]) -> None:
        self._tasks[name] = self._loop.create_task(self._finish(name, work))

    async def _finish(self, name: str, work: Callable[[], None]) -> None:
        began = time.monotonic()
        self._counts["process_runs"] += 1
        try:
            await self._loop.run_in_executor(self._threads, work)
        except ProcessRunningError as error:
            log.info("%s", error.message)
        except SibError as error:
            self._counts["process_failures"] += 1
            log.warning("the process %s failed: %s", name, error.message)
        except Exception:
            self._counts["process_failures"] += 1
            log.exception("the process %s failed", name)
        finally:
            self._counts["process_busy_s"] += time.monotonic() - began
            del self._tasks[name]
