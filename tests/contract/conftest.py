"""Database servers for the contract tests: ``scripts/services/NAME`` starts them, and each is stopped after its tests.

Workers that run beside each other (``-n 2``) have servers of their own: a test may kill its server.
A server that is not installed is a skip with its reason; where CI=true, a failure for those that every run must have.
``SOFIA2_TEST_MONGODB_URL`` and ``SOFIA2_TEST_ORACLE_URL`` name servers that are there anyway.
"""

import itertools
import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from benchmarks.servers import PrivateServer
from tests.contract.portability import _every_statement_is_portable  # noqa: F401 - a fixture for all tests of this folder
from tests.own_servers import folder_for_a_server, own_server


def pytest_configure(config):
    config.addinivalue_line("markers", "adapters(*names): the databases that a test is about, if it is not about all")


SERVICES = Path(__file__).parents[2] / "scripts" / "services"
REQUIRED = {"mariadb", "mongodb"}
START_S = 120


def _missing(name: str, reason: str):
    if os.environ.get("CI") == "true" and name in REQUIRED:
        pytest.fail(f"{name}: {reason}", pytrace=False)
    pytest.skip(f"{name}: {reason}")


def _service(name: str, command: str) -> subprocess.CompletedProcess:
    return subprocess.run([SERVICES / name, command], capture_output=True, text=True, timeout=START_S, check=False)


def _start(name: str) -> tuple[str, bool]:
    """(URL, whether we started it)."""
    given = os.environ.get(f"SOFIA2_TEST_{name.upper()}_URL")
    if given:
        return given, False
    if not (SERVICES / name).exists():
        _missing(name, f"no such server on our machines; name one by SOFIA2_TEST_{name.upper()}_URL")
    if _service(name, "installed").returncode:
        _missing(name, f"not installed: scripts/services/{name} install")
    was_running = _service(name, "status").returncode == 0
    started = _service(name, "start")
    if started.returncode:
        _missing(name, f"it does not start: {started.stderr.strip()}")
    return started.stdout.strip(), not was_running


class Server:
    """A running server; ``place`` gives the URL of an empty place in it with every call."""

    _numbers = itertools.count(1)

    def __init__(self, name: str, url: str, own: PrivateServer | None = None):
        self.name, self.url, self._own = name, url, own

    def place(self) -> str:
        """A partition of its own, which the tests leave behind; the next run of the server makes it anew."""
        if self.name == "mongodb":  # partitions share the collections of instances
            parts = urlsplit(self.url)
            return urlunsplit(parts._replace(path=f"{parts.path or '/sofia2'}_{self._next()}"))
        return f"{self.url}{'&' if '?' in self.url else '?'}partition={self._next()}"

    def database(self) -> str:
        """The URL of a database of its own, for what knows no partitions."""
        from sqlalchemy import create_engine

        name = f"sofia2_{self._next()}"
        engine = create_engine(self.url.replace("mysql:", "mysql+pymysql:"))
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
        engine.dispose()
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(path=f"/{name}"))

    def _next(self) -> str:
        return f"t{os.getpid()}_{next(self._numbers)}"

    def control(self, command: str) -> None:
        """``stop``, ``kill`` or ``start`` the server."""
        if self._own is not None:
            self._own(command)
            return
        done = _service(self.name, command)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def server(request):
    """The server that the parameter names; None for SQLite."""
    name = getattr(request, "param", "sqlite")
    if name == "sqlite":
        yield None
        return
    if "PYTEST_XDIST_WORKER" in os.environ and f"SOFIA2_TEST_{name.upper()}_URL" not in os.environ and name != "oracle":
        with folder_for_a_server() as folder, own_server(name, folder) as own:
            yield Server(name, own.url, own)
        return
    url, is_ours = _start(name)
    found = Server(name, url)
    try:
        yield found
        _clean(found)
    finally:
        if is_ours:
            _service(name, "stop")


def _clean(server: Server) -> None:
    """Drops what the tests of this process left."""
    mark = f"t{os.getpid()}_"
    if server.name == "mariadb":
        from sqlalchemy import create_engine

        engine = create_engine(server.url.replace("mysql:", "mysql+pymysql:"))
        with engine.connect() as connection:
            names = connection.exec_driver_sql("SHOW DATABASES").scalars().all()
            for name in names:
                if mark in name:
                    connection.exec_driver_sql(f"DROP DATABASE `{name}`")
        engine.dispose()
    elif server.name == "postgresql":
        from sqlalchemy import create_engine

        engine = create_engine(server.url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as connection:
            names = connection.exec_driver_sql("SELECT nspname FROM pg_namespace").scalars().all()
        for name in names:
            if name.startswith(mark):
                with engine.begin() as connection:
                    connection.exec_driver_sql(f'DROP SCHEMA "{name}" CASCADE')
        engine.dispose()
    elif server.name == "mongodb":
        from pymongo import MongoClient

        with MongoClient(server.url) as client:
            for name in client.list_database_names():
                if mark in name:
                    client.drop_database(name)
