"""Servers that a test has for itself, so that it may kill and freeze them (``benchmarks/servers.py``).

A server that cannot be had is a skip with its reason; with ``CI=true`` a failure.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pytest

from benchmarks.servers import PrivateServer, ServerMissingError, private_server, urls_of

Result = TypeVar("Result")


@contextmanager
def own_server(name: str, folder: Path) -> Iterator[PrivateServer]:
    """``mariadb``, ``postgresql``, ``mongodb`` or ``hdfs`` with its data in a folder. It is stopped at the end."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(private_server(name, folder))
        except ServerMissingError as error:
            if os.environ.get("CI") == "true":
                pytest.fail(str(error), pytrace=False)
            pytest.skip(str(error))
        yield server


@contextmanager
def folder_for_a_server() -> Iterator[Path]:
    """A folder where also PostgreSQL may go, which runs as another user: those of pytest are closed to him."""
    with TemporaryDirectory(dir="/var/tmp", prefix="sofia2-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def hdfs_urls(folder: Path) -> Iterator[dict[str, str]]:
    """{"hdfs": URL, "webhdfs": URL} of an HDFS that the test leaves alone: ``SOFIA2_TEST_HDFS_URLS`` or one of its own."""
    given = os.environ.get("SOFIA2_TEST_HDFS_URLS")
    if given:
        yield urls_of(given)
        return
    with own_server("hdfs", folder) as hdfs:
        yield hdfs.urls()


def eventually(call: Callable[[], Result], error: type[Exception], within_s: float = 60.0) -> Result:
    """The result of a call that may fail for a while: HDFS itself needs seconds until a DataNode counts again."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return call()
        except error:
            assert time.monotonic() < deadline
            time.sleep(0.5)
