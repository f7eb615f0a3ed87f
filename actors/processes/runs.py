"""One run of a process: never two at once on a machine, and what became of it in the process log."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sib.errors import SibError
from storage.bdc.bdc import Bdc
from storage.bdc.processes import ProcessKind, RunState
from storage.bdc.records import LogRecord
from storage.filelock import file_lock

log = logging.getLogger("sofia2.processes")

LOG_KIND = "PROCESS"
SCHEDULED, MISSED, BY_HAND, RESUMED = "schedule", "missed", "hand", "resumed"
"""What starts a run."""
LOCKS_FOLDER = "run/locks"


class ProcessRunningError(SibError):
    """A run of this process is under way."""

    code, status, is_retryable = "process.running", 409, True


def locks_folder(data: str) -> Path:
    """Where the locks of a platform's processes are."""
    return Path(data) / LOCKS_FOLDER


@dataclass(slots=True)
class Run:
    """A run under way; ``counts`` is filled by what it does."""

    id: str
    process: str
    kind: ProcessKind
    trigger: str
    ontology: str
    user: str
    started_at: datetime
    has_state: bool
    counts: dict[str, Any] = field(default_factory=dict)

    def detail(self, **further: Any) -> dict[str, Any]:
        return {
            "run": self.id,
            "process": self.process,
            "type": self.kind.value,
            "ontology": self.ontology,
            "trigger": self.trigger,
            "user": self.user,
            "started_at": self.started_at.isoformat(),
            **further,
        }


class Runs:
    """Begins and ends runs. Used by the runner of the platform and by commands beside it."""

    def __init__(self, bdc: Bdc, locks: Path, *, now: Callable[[], datetime]) -> None:
        self._bdc = bdc
        self._locks = locks
        self._now = now

    @contextmanager
    def run(
        self,
        process: str,
        kind: ProcessKind,
        trigger: str,
        *,
        ontology: str = "",
        user: str = "",
        has_state: bool = True,
    ) -> Iterator[Run]:
        """A run, noted when it begins and when it ends, with its counts, duration and error.

        Its lock goes with this process. That a run before was killed is noted first. Without ``has_state`` (a load, which has
        a state of its own) only the process log tells of it.

        Raises:
            ProcessRunningError: it runs already, here or in another process.
            SibError: what the block raised.
        """
        key = f"{process}:{ontology}" if ontology else process
        with lock(self._locks, key):
            run = Run(uuid.uuid4().hex, process, kind, trigger, ontology, user, self._now(), has_state)
            if has_state:
                self._note_interrupted(key)
                self._bdc.processes.note_run(key, RunState.RUNNING, run.detail(pid=os.getpid()))
            began = time.monotonic()
            try:
                yield run
            except BaseException as error:
                text = error.message if isinstance(error, SibError) else f"{type(error).__name__}: {error}"
                with suppress(SibError):  # the database may be what has failed
                    self._end(key, run, RunState.FAILED, time.monotonic() - began, text)
                raise
            self._end(key, run, RunState.DONE, time.monotonic() - began, None)

    def interrupted(self) -> list[str]:
        """The processes whose last run was killed and that nobody has run since."""
        found = []
        for name, progress in self._bdc.processes.progress().items():
            if progress.run_state is RunState.RUNNING:
                with suppress(ProcessRunningError), lock(self._locks, name):
                    found.append(name)
        return found

    def _note_interrupted(self, key: str) -> None:
        progress = self._bdc.processes.progress().get(key)
        if progress is not None and progress.run_state is RunState.RUNNING:
            self._log(
                key, {**progress.detail, "state": RunState.INTERRUPTED.value, "counts": {}, "error": "it was killed"}
            )

    def _end(self, key: str, run: Run, state: RunState, duration_s: float, error: str | None) -> None:
        detail = run.detail(
            state=state.value,
            ended_at=self._now().isoformat(),
            duration_s=round(duration_s, 3),
            counts=run.counts,
            error=error,
        )
        if run.has_state:
            self._bdc.processes.note_run(key, state, detail)
        self._log(key, detail)

    def _log(self, key: str, detail: Mapping[str, Any]) -> None:
        counts = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in detail["counts"].items())
        summary = ": ".join(part for part in (f"{key} {detail['state']}", detail["error"] or counts) if part)
        log.info("%s", summary)
        self._bdc.log([LogRecord(LOG_KIND, self._now(), summary, user=detail["user"], details=dict(detail))])


@contextmanager
def lock(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock of a process's runs; after ``kill -9`` it is free at once.

    Raises:
        ProcessRunningError: somebody has it.
    """
    refusal = ProcessRunningError(f"The process {name!r} runs already: wait for it.")
    with file_lock(folder / f"process-{quote(name, safe=' ')[:200]}.lock", refusal):
        yield
