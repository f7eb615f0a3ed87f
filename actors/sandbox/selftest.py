"""The start-up self-test: programs that try to break out, at each level; the best level where none could is the one reached."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from actors.sandbox.child import Child
from actors.sandbox.errors import SandboxStartError, SandboxUnavailableError
from actors.sandbox.exits import Reason
from actors.sandbox.limits import Limits
from actors.sandbox.program import Program
from actors.sandbox.sandbox import Level, Sandbox, find_sandbox

LEVEL_MIN = Level.CONFINED
"""Below it no program of a user is run."""
LIMITS = Limits(memory_mb=64, cpu=1.0, disk_mb=4, inodes=64, processes=24, timeout_s=5.0, output_bytes=64 * 1024)
VARIABLE = "SOFIA2_SANDBOX_SELFTEST"
_SOURCE = Path(__file__).parent / "selftest_program.py"


@dataclass(slots=True)
class Report:
    """What the self-test found."""

    level: Level
    sandbox: Sandbox | None
    failures: dict[Level, list[str]] = field(default_factory=dict)
    """Why better levels were not reached."""
    passed: list[str] = field(default_factory=list)

    @property
    def is_enough(self) -> bool:
        return self.level >= LEVEL_MIN

    def lines(self) -> list[str]:
        """For people."""
        found = [f"level {self.level.value} ({_TITLES[self.level]})"]
        if self.sandbox:
            found += _facts(self.sandbox)
            found.append(f"self-test: {len(self.passed)} of {len(self.passed)} attempts were stopped")
        for level, reasons in self.failures.items():
            found += [f"level {level.value} was not reached: {reason}" for reason in reasons]
        if not self.is_enough:
            found.append("KPs and script rules are refused on this machine")
        return found

    def to_json(self) -> dict[str, object]:
        """For programs."""
        sandbox = self.sandbox
        return {
            "level": self.level.value,
            "enough": self.is_enough,
            "namespaces": self.level is Level.FULL,
            "own_users": bool(sandbox and sandbox.has_own_users),
            "cgroup": sandbox.cgroups.version if sandbox and sandbox.cgroups else None,
            "landlock": sandbox.landlock_abi if sandbox else None,
            "passed": self.passed,
            "failures": {str(level.value): reasons for level, reasons in self.failures.items()},
        }


_TITLES = {
    Level.FULL: "own namespaces and root, seccomp, limits",
    Level.CONFINED: "Landlock, seccomp without fork, limits; nothing is writable",
    Level.NONE: "no isolation",
}


def _facts(sandbox: Sandbox) -> list[str]:
    group = f"cgroup version {sandbox.cgroups.version}" if sandbox.cgroups else "no cgroup can be made"
    bounded = "" if sandbox.cgroups else ": programs cannot fork, and only a low priority bounds their processor time"
    landlock = f"Landlock version {sandbox.landlock_abi}" if sandbox.landlock_abi else "no Landlock"
    user = "a user of its own" if sandbox.has_own_users else "the platform's user"
    return [f"each program runs as {user}", f"{group}{bounded}", landlock]


async def check(level: Level | None = None) -> Report:
    """Find the best level that holds; or see whether one holds. Takes below a second."""
    failures: dict[Level, list[str]] = {}
    for candidate in (Level.FULL, Level.CONFINED) if level is None else (level,):
        try:
            sandbox = find_sandbox(candidate)
            passed = await _attempt(sandbox)
        except (SandboxUnavailableError, SandboxStartError) as error:
            failures[candidate] = [error.message]
        except _EscapeError as error:
            failures[candidate] = error.found
        else:
            return Report(candidate, sandbox, failures, passed)
    return Report(Level.NONE, None, failures)


class _EscapeError(Exception):
    def __init__(self, found: list[str]) -> None:
        super().__init__(found)
        self.found = found


async def _attempt(sandbox: Sandbox) -> list[str]:
    """The names of the attempts, all of them stopped."""
    with tempfile.TemporaryDirectory() as folder:
        return await _run(sandbox, _lay_bait(Path(folder), sandbox))


def _lay_bait(folder: Path, sandbox: Sandbox) -> dict[str, object]:
    folder.chmod(0o755)
    file = folder / "bait"
    file.write_text("bait")
    return {
        "file": str(file),
        "folder": str(folder),
        "pid": os.getpid(),
        "variable": VARIABLE,
        "can_fork": sandbox.can_fork(LIMITS),
        "memory_mb": LIMITS.memory_mb,
        "disk_mb": LIMITS.disk_mb,
        "inodes": LIMITS.inodes,
        "processes": LIMITS.processes,
    }


async def _run(sandbox: Sandbox, bait: dict[str, object]) -> list[str]:
    output = bytearray()
    os.environ[VARIABLE] = "bait"
    try:
        child = await Child.start(sandbox, LIMITS)
    finally:
        del os.environ[VARIABLE]
    async with child:
        program = Program("selftest", (json.dumps(bait),), source=_SOURCE.read_bytes())
        child.run(program, on_output=lambda stream, data: _collect(child, output, data))
        end = await child.wait()
    try:
        results = json.loads(output.splitlines()[0])
    except (ValueError, IndexError):
        said = output.decode(errors="replace").strip()[-500:]
        raise _EscapeError([f"the self-test did not come to its end ({end.describe()}): {said}"]) from None
    found = [f"{name}: {what}" for name, what in results.items() if what]
    if end.reason is not Reason.STOPPED:
        found.append(f"kill: {end.describe()}")
    if found:
        raise _EscapeError(found)
    return [*results, "kill"]


def _collect(child: Child, output: bytearray, data: bytes) -> None:
    """The program goes on for ever when it has told its results: that it can be ended is the last attempt."""
    output += data
    if output.startswith(b"{") and output.endswith(b"\n"):
        child.kill()
