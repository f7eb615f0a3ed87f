"""Starting and stopping the process of a platform, from the process that a person called."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from actors.config import PlatformConfig
from sofia2 import control
from sofia2.daemon import (
    EXIT_FAULT,
    EXIT_TIMEOUT,
    RunFolder,
    StartError,
    claim_ports,
    config_to_json,
    end_processes,
    is_alive,
    write_private,
)
from sofia2.settings import Settings, check_setting
from storage.bdc.bdc import open_bdc
from storage.open import kind_of, open_bdtr

if TYPE_CHECKING:
    from sofia2.apply import Report

STOP_S = 30.0
KILL_S = 25.0
LOG_BYTES_MAX = 10 << 20
"""A longer log is put aside as ``platform.log.1`` when the platform starts."""
POLL_S = 0.05

Progress = Callable[[str], None]


class NotAppliedError(Exception):
    """The files to apply are wrong: nothing was changed and nothing started."""

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.report = report


class Launch:
    """The start of one platform. Use as a context: at its end a platform that is not ready is stopped again.

    Holds the lock of the data folder until the platform's own process has it.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = RunFolder(settings.data)
        self.reports: list[Report] = []
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = False

    def __enter__(self) -> Launch:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()
        if self._process is not None and not self._is_ready:
            self.stop()

    def prepare(self, files: Sequence[str], progress: Progress) -> PlatformConfig:
        """Take the data folder, bring its configuration up to date, apply the files and choose the ports.

        Raises:
            StartError: the folder or a port is taken. NotAppliedError: a file is wrong. SibError: a setting or database is.
        """
        self.folder.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.path.mkdir(exist_ok=True, mode=0o700)
        self._lock = self.folder.lock()
        if self.folder.state.exists():
            progress("ending what an unclean stop has left")
            end_processes(str(self.folder.data))
            self.folder.state.unlink(missing_ok=True)
        progress("checking the settings")
        self.settings.to_platform_config()
        progress("opening the configuration database")
        bdc = open_bdc(self.settings.url("bdc"))
        try:
            bdc.upgrade()
            self._apply(bdc, files, progress)
            self.settings.add_applied(bdc.catalog().settings)
        finally:
            bdc.close()
        config = self.settings.to_platform_config(claim_ports(self.settings.listeners()))
        _check_bdtr(config, progress)
        for folder in ("bdtr", "bdh"):
            (self.folder.data / folder).mkdir(exist_ok=True, mode=0o700)
        write_private(self.folder.config, config_to_json(config))
        return config

    def _apply(self, bdc: Any, files: Sequence[str], progress: Progress) -> None:
        if not files:
            return
        from sofia2.apply import apply_files

        progress("applying files")
        report = apply_files(bdc, files, check_setting=check_setting)
        self.reports.append(report)
        if not report.is_ok:
            raise NotAppliedError(report)

    def run(self, progress: Progress, *, timeout_s: float, is_detached: bool) -> dict[str, Any]:
        """Start the platform's process and wait until every listener accepts: its pid, data folder and endpoints.

        Raises:
            StartError: it did not start, or not in time. What had started has ended again.
        """
        assert self._lock is not None
        number = self._lock.fileno()
        command = [sys.executable, "-m", "sofia2.daemon", str(self.folder.data), "--lock-fd", str(number)]
        with _open_log(self.folder.log) as log:
            self._process = subprocess.Popen(  # noqa: S603
                command if is_detached else [*command, "--with-parent"],
                stdin=subprocess.DEVNULL if is_detached else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(number,),
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": _python_path(), "SOFIA2_DATA": str(self.folder.data)},
                cwd=self.folder.data,
            )
        self._lock.close()
        self._lock = None
        ready = self._await_ready(progress, time.monotonic() + timeout_s, timeout_s)
        self._is_ready = True
        return {key: ready[key] for key in ("pid", "data", "endpoints")}

    def _await_ready(self, progress: Progress, deadline: float, timeout_s: float) -> Mapping[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        lines = _Lines(self._process.stdout)
        while True:
            line = lines.next(deadline - time.monotonic())
            if line is None:
                raise StartError(
                    EXIT_TIMEOUT,
                    f"the platform was not ready in {timeout_s:g} s: see {self.folder.log}, or give it more with --ready-timeout",
                )
            if not line:
                raise StartError(EXIT_FAULT, f"the platform ended while it started: see {self.folder.log}")
            event = json.loads(line)
            if event["event"] == "ready":
                return dict(event)
            if event["event"] == "failed":
                raise StartError(event["status"], f"{event['text']} (log: {self.folder.log})")
            progress(event["text"])

    def wait(self) -> int:
        """Wait until the platform ends; its exit status."""
        assert self._process is not None
        return self._process.wait()

    def stop(self) -> None:
        """End the platform that this process started."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(KILL_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            end_processes(str(self.folder.data))


def _check_bdtr(config: PlatformConfig, progress: Progress) -> None:
    """Open a BDTR on a server once, as the partitions will: here a wrong password or URL can be told at once."""
    if kind_of(config.bdtr_url) == "sqlite":
        return
    progress("opening the real-time database")
    for partition in config.topology.partitions:
        open_bdtr(config.partition_url(partition), writer=True).close()


def stop_platform(folder: RunFolder) -> bool:
    """End the platform on a data folder and every process of it; False when there was none.

    Raises:
        StartError: it did not end within ``STOP_S``.
    """
    pid = folder.holder()
    if pid is None:
        return _end_leftovers(folder)
    if control.ask(folder, "stop") is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    began = time.monotonic()
    while is_alive(pid):
        waited = time.monotonic() - began
        if waited > STOP_S:
            raise StartError(EXIT_TIMEOUT, f"the platform (process {pid}) has not ended within {STOP_S:g} s")
        if waited > KILL_S:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)
    _end_leftovers(folder)
    return True


def _end_leftovers(folder: RunFolder) -> bool:
    """End what a platform has left that did not end by itself but was killed; False when it left nothing."""
    if not folder.state.exists():
        return False
    end_processes(str(folder.data))
    folder.state.unlink(missing_ok=True)
    return True


class _Lines:
    """Lines of a pipe, with a time limit for each."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._selector = selectors.DefaultSelector()
        self._selector.register(pipe, selectors.EVENT_READ)
        self._rest = b""

    def next(self, timeout_s: float) -> bytes | None:
        """The next line; b"" at the end, None when the time is over."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._rest:
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                return None
            part = os.read(self._pipe.fileno(), 1 << 16)
            if not part:
                return b""
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def _open_log(path: Path) -> IO[bytes]:
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_name(path.name + ".1"))
    file = path.open("ab")
    path.chmod(0o600)
    return file


def _python_path() -> str:
    # The process runs in the data folder, so the checkout must be named to it.
    root = str(Path(__file__).parent.parent)
    return os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
