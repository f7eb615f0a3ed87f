"""A real platform for the end-to-end tests: started once as a person would, in a data folder of its own, on free ports."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
APPLY_FILE = ROOT / "tests" / "data" / "platform.yaml"
START_S = 180
"""Generous: many things may share the machine. A start alone takes a few seconds."""


def clean_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SOFIA2_", "RAY_"))}
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}


def sofia2(*arguments, timeout_s=START_S, stdin=None, cwd=None, environment=None):
    """Run the command; a completed process with text."""
    return subprocess.run(
        [sys.executable, "-m", "sofia2", *map(str, arguments)],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=cwd or ROOT,
        env={**clean_environment(), **(environment or {})},
    )


@dataclass(frozen=True)
class RunningPlatform:
    """Where a platform of the tests is, and the credentials of ``tests/data/platform.yaml``."""

    data: Path
    pid: int
    endpoints: dict[str, str]
    kp: str = "KPTestTemperatura"
    instance: str = "KPTestTemperatura01"
    token: str = "e5e8a005d0a248f1ad2cd60a821e6838"
    inactive_token: str = "3f8d3638215a4d59ad5cffad19c81379"
    cipher_key: str = "key0key1key2key3"
    ontology: str = "TestSensorTemperatura"
    apply_file: Path = field(default=APPLY_FILE)

    @property
    def http(self) -> str:
        return self.endpoints["http"]

    @property
    def mqtt(self) -> tuple[str, int]:
        return self.address("mqtt")

    def address(self, listener) -> tuple[str, int]:
        parts = urlsplit(self.endpoints[listener])
        return parts.hostname, parts.port

    def command(self, *arguments, **keywords):
        """``sofia2 … --data DATA``."""
        return sofia2(*arguments, "--data", self.data, **keywords)

    def answer(self, *arguments, **keywords) -> Any:
        """The JSON answer of a command that must succeed."""
        done = self.command(*arguments, "--json", **keywords)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def start_platform(data, *options) -> RunningPlatform:
    """Start a platform on free ports; whoever calls stops it."""
    done = sofia2(
        "start",
        "--detach",
        "--json",
        "--data",
        data,
        "--mqtt-port",
        0,
        "--http-port",
        0,
        "--ready-timeout",
        START_S,
        *options,
    )
    assert done.returncode == 0, done.stderr
    ready = json.loads(done.stdout)
    return RunningPlatform(Path(ready["data"]), ready["pid"], ready["endpoints"])


def stop_platform(running: RunningPlatform) -> None:
    done = running.command("stop", timeout_s=60)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def command():
    """Runs ``sofia2`` with arguments: a completed process with text."""
    return sofia2


@pytest.fixture
def start():
    """Starts platforms of a test's own, on free ports; they are stopped at its end."""
    running = []

    def begin(data, *options) -> RunningPlatform:
        running.append(start_platform(data, *options))
        return running[-1]

    yield begin
    for each in running:
        stop_platform(each)


@pytest.fixture(scope="session")
def platform(tmp_path_factory):
    """One platform for all end-to-end tests that do not stop or break it, with tests/data/platform.yaml in force."""
    running = start_platform(tmp_path_factory.mktemp("platform"), "--apply", APPLY_FILE)
    yield running
    stop_platform(running)
