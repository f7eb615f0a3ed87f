"""A real HDFS for the tests that need one: ``scripts/services/hdfs`` starts it, with data and ports of its own.

``SOFIA2_TEST_HDFS_URLS`` (``hdfs://… webhdfs://…``) names one that is there anyway, for tests that leave it alone.
Where HDFS cannot be had, a skip with its reason; with ``CI=true`` a failure.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "services" / "hdfs"
PORTS = range(10_000, 32_000, 5)
"""Below those that systems give to connections."""
INSTALL_S, COMMAND_S = 600, 120


class Hdfs:
    """A NameNode and a DataNode that a test may kill and freeze. ``urls``: {"hdfs": …, "webhdfs": …}."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "HDFS_DATA": str(folder), "HDFS_PORT": str(_free_port())}
        self.urls: dict[str, str] = {}

    def __call__(self, *arguments: str, timeout_s: float = COMMAND_S) -> str:
        """Carry out a command of the script."""
        command = [SCRIPT, *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=timeout_s)
        assert done.returncode == 0, f"scripts/services/hdfs {' '.join(arguments)}: {done.stderr[-500:]}"
        return done.stdout

    def start(self) -> None:
        """Start it, or what is missing of it, and wait until files can be written. Idempotent."""
        self.urls = urls_of(self("start", timeout_s=INSTALL_S))

    @contextmanager
    def frozen(self, daemon: str) -> Iterator[None]:
        """``namenode`` or ``datanode`` does nothing meanwhile, with all its connections open."""
        self(f"freeze-{daemon}")
        try:
            yield
        finally:
            self(f"thaw-{daemon}")

    @contextmanager
    def killed(self, daemon: str) -> Iterator[None]:
        """``namenode`` or ``datanode`` is gone meanwhile."""
        self(f"kill-{daemon}")
        try:
            yield
        finally:
            self(f"start-{daemon}")

    @contextmanager
    def safe_mode(self) -> Iterator[None]:
        """The NameNode takes no changes meanwhile."""
        self("dfsadmin", "-safemode", "enter")
        try:
            yield
        finally:
            self("dfsadmin", "-safemode", "leave")


@contextmanager
def running_hdfs(folder: Path) -> Iterator[Hdfs]:
    """An HDFS of the test's own. It is stopped at the end."""
    if subprocess.run([SCRIPT, "installed"], capture_output=True).returncode:
        _missing("not installed: scripts/services/hdfs install")
    hdfs = Hdfs(folder)
    try:
        try:
            hdfs.start()
        except AssertionError as error:
            _missing(f"it does not start: {error}")
        yield hdfs
    finally:
        hdfs("stop")


@contextmanager
def hdfs_urls(folder: Path) -> Iterator[dict[str, str]]:
    """The addresses of an HDFS that the test leaves alone."""
    given = os.environ.get("SOFIA2_TEST_HDFS_URLS")
    if given:
        yield urls_of(given)
        return
    with running_hdfs(folder) as hdfs:
        yield hdfs.urls


def urls_of(text: str) -> dict[str, str]:
    """Addresses by their kind."""
    return {url.partition(":")[0]: url for url in text.split()}


def eventually(call, error, within_s=60.0):
    """The result of a call that may fail for a while: HDFS itself needs seconds until a DataNode counts again."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return call()
        except error:
            assert time.monotonic() < deadline
            time.sleep(0.5)


def _missing(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"hdfs: {reason}", pytrace=False)
    pytest.skip(f"hdfs: {reason}")


def _free_port() -> int:
    """The first of five ports that nobody has. Several of us may look at the same time: at random."""
    for first in random.SystemRandom().sample(PORTS, len(PORTS)):
        try:
            for port in range(first, first + 5):
                with closing(socket.socket()) as found:
                    found.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no five ports are free")
