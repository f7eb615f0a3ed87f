"""Servers of a test's or benchmark's own: started by ``scripts/services``, with data and ports that nobody shares."""

from __future__ import annotations

import os
import random
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from sqlalchemy import create_engine

from benchmarks.report import ROOT

SCRIPTS = ROOT / "scripts" / "services"
PROGRAMS = Path(os.environ.get("SOFIA2_SERVICES", ROOT / ".services"))
PORTS = range(10_000, 32_000, 5)
"""Below those that systems give to connections."""
START_S, COMMAND_S = 600, 120


class ServerMissingError(Exception):
    """A server that is not installed or does not start."""


class PrivateServer:
    """A running server. ``url`` is what its script prints: for HDFS two, ``hdfs://…`` and ``webhdfs://…``."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.url = ""
        port = str(free_port())
        if name == "hdfs":
            self._environment = {**os.environ, "HDFS_DATA": str(folder), "HDFS_PORT": port}
        else:
            self._environment = {**os.environ, "SOFIA2_SERVICES": str(folder), f"SOFIA2_{name.upper()}_PORT": port}
            _lend_programs(folder)

    def __call__(self, *arguments: str, timeout_s: float = COMMAND_S) -> str:
        """Carry out a command of its script. Raises RuntimeError."""
        command = [str(SCRIPTS / self.name), *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=timeout_s)
        if done.returncode:
            raise RuntimeError(f"scripts/services/{self.name} {' '.join(arguments)}: {done.stderr[-500:]}")
        return str(done.stdout)

    def start(self) -> None:
        """Start it, or what is missing of it, and wait until it can be used. Idempotent."""
        self.url = self("start", timeout_s=START_S).strip()

    @contextmanager
    def frozen(self, daemon: str) -> Iterator[None]:
        """HDFS: ``namenode`` or ``datanode`` does nothing meanwhile, with all its connections open."""
        self(f"freeze-{daemon}")
        try:
            yield
        finally:
            self(f"thaw-{daemon}")

    @contextmanager
    def killed(self, daemon: str) -> Iterator[None]:
        """HDFS: ``namenode`` or ``datanode`` is gone meanwhile."""
        self(f"kill-{daemon}")
        try:
            yield
        finally:
            self(f"start-{daemon}")

    @contextmanager
    def safe_mode(self) -> Iterator[None]:
        """HDFS: the NameNode takes no changes meanwhile."""
        self("dfsadmin", "-safemode", "enter")
        try:
            yield
        finally:
            self("dfsadmin", "-safemode", "leave")

    def urls(self) -> dict[str, str]:
        """Its addresses by their kind."""
        return urls_of(self.url)


def urls_of(text: str) -> dict[str, str]:
    """Addresses by their kind."""
    return {url.partition(":")[0]: url for url in text.split()}


@contextmanager
def private_server(name: str, folder: Path) -> Iterator[PrivateServer]:
    """Start a server (``mariadb``, ``mongodb``, ``hdfs``) with its data in a folder; it is stopped at the end.

    Raises:
        ServerMissingError: it is not installed or does not start.
    """
    if subprocess.run([SCRIPTS / name, "installed"], capture_output=True).returncode:
        raise ServerMissingError(f"{name} is not installed: scripts/services/{name} install")
    server = PrivateServer(name, folder)
    with ExitStack() as stack:
        stack.callback(server, "stop")
        try:
            server.start()
        except RuntimeError as error:
            raise ServerMissingError(f"{name} does not start: {error}") from None
        yield server


def free_port() -> int:
    """The first of five ports that nobody has. Several of us may look at the same time: at random."""
    for first in random.SystemRandom().sample(PORTS, len(PORTS)):
        try:
            for port in range(first, first + 5):
                with closing(socket.socket()) as found:
                    found.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise ServerMissingError("No five ports of this machine are free.")


def _lend_programs(folder: Path) -> None:
    """What is installed below the common folder is found below this one."""
    for program in PROGRAMS.glob("mongodb-*/venv-*"):
        link = folder / program.parent.name / program.name
        if not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(program)


def another_database(url: str, name: str) -> str:
    """Make a further database on a MariaDB; its URL."""
    engine = create_engine(url.replace("mysql:", "mysql+pymysql:", 1))
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    engine.dispose()
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
