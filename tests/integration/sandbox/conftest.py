"""Children at both levels, and what they print."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from actors.sandbox.child import Child, refuse_calls
from actors.sandbox.errors import SandboxStartError, SandboxUnavailableError
from actors.sandbox.exits import Exit
from actors.sandbox.limits import Limits
from actors.sandbox.program import Program
from actors.sandbox.sandbox import Level, Sandbox, find_sandbox

LIMITS = Limits(memory_mb=64, cpu=1.0, disk_mb=4, inodes=64, processes=16, timeout_s=20.0, output_bytes=256 * 1024)


@dataclass
class Result:
    end: Exit
    output: str
    errors: str


def sandbox_of(level: int, **options: bool) -> Sandbox:
    try:
        return find_sandbox(Level(level), **options)
    except SandboxUnavailableError as error:
        pytest.skip(f"level {level} is not possible on this machine: {error.message}")


@pytest.fixture(params=[3, 2], ids=["full", "fallback"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return sandbox_of(request.param)


@pytest.fixture
def full() -> Sandbox:
    return sandbox_of(3)


async def run(
    sandbox: Sandbox, source: str | bytes, *arguments: str, limits: Limits = LIMITS, on_call=refuse_calls, views=()
) -> Result:
    outputs = {1: bytearray(), 2: bytearray()}
    text = source.encode() if isinstance(source, str) else source
    try:
        child = await Child.start(sandbox, limits, views=views)
    except SandboxStartError as error:
        pytest.skip(f"level {sandbox.level} does not start on this machine: {error.message}")
    async with child:
        program = Program("program.py", arguments, source=text)
        child.run(program, on_call=on_call, on_output=lambda stream, data: outputs[stream].extend(data))
        end = await child.wait()
    return Result(end, outputs[1].decode(), outputs[2].decode())


@pytest.fixture
def runner():
    return run
