"""A platform of a benchmark's own: started as a person would, on free ports, in a data folder of its own; killed by pid only."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks.report import ROOT, say
from sofia2.control import ask
from sofia2.daemon import RunFolder

KP, TOKEN, ONTOLOGY = "KPBenchmark", "b0b1b2b3b4b5b6b7b8b9babbbcbdbebf", "TestSensorTemperatura"
READY_TIMEOUT_S = 180
APPLY = f"""
sofia2: 1
users:
  - {{name: benchmark, password: benchmark-password, role: COLABORADOR}}
ontologies:
  - {{name: {ONTOLOGY}, owner: benchmark, template: SensorPoint, indexes: [Sensor.assetId]}}
kps:
  - {{name: {KP}, owner: benchmark, ontologies: [{ONTOLOGY}], tokens: [{TOKEN}]}}
"""
"""One declared index beside the automatic one on the time."""


class PlatformUnderTest:
    """One platform and its processes."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.pid = 0
        self.endpoints: dict[str, str] = {}

    def start(self, *options: str) -> float:
        """Start it and wait until every listener accepts; the seconds that took. Again on the same ports after the first time."""
        file = self.data.with_suffix(".yaml")
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(APPLY)
        ports = [f"--{name}-port={self.port(name) if self.endpoints else 0}" for name in ("mqtt", "http")]
        command = ["start", "--detach", f"--apply={file}", *ports, f"--ready-timeout={READY_TIMEOUT_S}", *options]
        began = time.perf_counter()
        ready = self.command(*command)
        self.pid, self.endpoints = ready["pid"], ready["endpoints"]
        return time.perf_counter() - began

    def stop(self) -> None:
        self.command("stop")

    def command(self, *arguments: str) -> Any:
        """``sofia2 ... --data DATA --json``: its answer.

        Raises:
            RuntimeError: it failed; with what it wrote on standard error.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SOFIA2_", "RAY_"))}
        done = subprocess.run(
            [sys.executable, "-m", "sofia2", *arguments, f"--data={self.data}", "--json"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**kept, "PYTHONPATH": str(ROOT)},
        )
        if done.returncode not in (0, 1) or not done.stdout:
            raise RuntimeError(f"sofia2 {arguments[0]} failed with {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def port(self, listener: str) -> int:
        return urlsplit(self.endpoints[listener]).port or 0

    def status(self) -> dict[str, Any]:
        """What ``sofia2 status --json`` tells, without the time that the command takes.

        Raises:
            SibError: the platform cannot tell at the moment.
        """
        answer = ask(RunFolder(self.data), "status")
        if answer is None:
            raise RuntimeError("no platform answers")
        return answer

    def pids(self, kind: str) -> list[int]:
        """The processes of the actors of one kind."""
        actors: Sequence[dict[str, Any]] = self.status()["actors"]
        return [actor["pid"] for actor in actors if actor["kind"] == kind and actor["state"] == "running"]

    def kill(self, kind: str) -> list[int]:
        """``kill -9`` of the actors of one kind; the pids that were killed."""
        killed = []
        for pid in self.pids(kind):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
        return killed

    def processes(self) -> list[psutil.Process]:
        """The platform's own process and everything below it."""
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]

    def kill_all(self) -> None:
        """``kill -9`` of every process of the platform at once, as when the machine loses power."""
        for process in self.processes():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue

    def pss_bytes(self) -> dict[str, int]:
        """Proportional set size of each process."""
        sizes = {}
        for process in self.processes():
            try:
                name = process.cmdline()[0] if process.cmdline()[0].startswith("ray::") else _program(process)
                sizes[f"{name} {process.pid}"] = process.memory_full_info().pss
            except psutil.NoSuchProcess:
                continue
        return sizes

    def cpu_of_s(self, kind: str) -> float:
        """Processor time of the actors of one kind so far."""
        times = [psutil.Process(pid).cpu_times() for pid in self.pids(kind)]
        return float(sum(time.user + time.system for time in times))

    def cpu_s(self) -> float:
        """Processor time of all its processes so far."""
        total = 0.0
        for process in self.processes():
            try:
                times = process.cpu_times()
                total += times.user + times.system
            except psutil.NoSuchProcess:
                continue
        return total


def _program(process: psutil.Process) -> str:
    words = process.cmdline()
    if "-m" in words:
        return words[words.index("-m") + 1]
    return Path(words[0]).name


@contextmanager
def data_folder() -> Iterator[Path]:
    """A data folder for one run, below ``SOFIA2_BENCHMARK_DIR`` or the system's temporary folder; it is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="sofia2-bench-", dir=os.environ.get("SOFIA2_BENCHMARK_DIR")) as folder:
        yield Path(folder) / "data"


@contextmanager
def running_platform(*options: str) -> Iterator[PlatformUnderTest]:
    """A platform that runs for the length of the block."""
    with data_folder() as data:
        under_test = PlatformUnderTest(data)
        say(f"the platform is up after {under_test.start(*options):.1f} s, in {data}")
        try:
            yield under_test
        finally:
            under_test.stop()
            shutil.rmtree(data, ignore_errors=True)
