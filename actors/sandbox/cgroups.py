"""Control groups, version 1 and 2: bounds over all processes of a sandbox together, and what they have used.

A sandbox's group is made before its first process and joined by that before anything else. Groups that a killed supervisor left
behind are removed by the next one (``sweep``); they are known by the process id in their name.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from actors.sandbox.limits import Limits

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "pids", "cpu")
ACCOUNTING_V1 = "cpuacct"
"""In version 1 the time used is counted by a controller of its own; without it the usage has no ``cpu_s``."""
PERIOD_US = 100_000
QUOTA_US_MIN = 1000
"""The kernel refuses less."""
HELPERS_MEMORY_BYTES = 8 * 1024 * 1024
REMOVE_TRIES, REMOVE_PAUSE_S = 400, 0.005
_PREFIX = "sofia2-sandbox-"
_NAME = re.compile(_PREFIX + r"(\d+)-\d+")
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Usage:
    """What all processes of a sandbox have used together; None: this machine does not tell."""

    cpu_s: float | None = None
    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    processes: int | None = None


class Cgroup(Protocol):
    """One sandbox's group."""

    def joins(self) -> list[Path]:
        """The files into which a process writes its id to join."""

    def usage(self) -> Usage:
        """What has been used so far."""

    def out_of_memory_count(self) -> int:
        """How many processes the kernel has killed for want of memory."""

    def kill(self) -> None:
        """Kill every process in it."""

    def remove(self) -> None:
        """Remove it with what is left in it, waiting shortly for that to be gone."""


class Cgroups(Protocol):
    """The place where groups are made."""

    version: int

    def create(self, limits: Limits, *, helpers: int = 0) -> Cgroup:
        """A new group with these limits; ``helpers`` processes in it are not the program's. OSError: refused."""


def find_cgroups(root: Path = ROOT, own: str | None = None) -> Cgroups | None:
    """Where this process may make groups with the three controllers, or None. Tries it: makes a group and removes it."""
    text = own if own is not None else _read(Path("/proc/self/cgroup"))
    paths = dict(_own_paths(text))
    candidates: Iterator[Cgroups] = itertools.chain(_candidates_v2(root, paths), _candidates_v1(root, paths))
    for candidate in candidates:
        with contextlib.suppress(OSError):
            candidate.create(Limits()).remove()
            return candidate
    return None


def _own_paths(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        number, names, path = line.split(":", 2)
        for name in names.split(",") if names else [""]:
            yield ("" if number == "0" else name), path


def _candidates_v2(root: Path, paths: dict[str, str]) -> Iterator[Cgroups]:
    if not (root / "cgroup.controllers").exists():
        return
    own = root / paths.get("", "/").lstrip("/")
    for base in dict.fromkeys((own, own.parent if own != root else own, root)):
        yield CgroupsV2(base)


def _candidates_v1(root: Path, paths: dict[str, str]) -> Iterator[Cgroups]:
    if all((root / name).is_dir() for name in CONTROLLERS):
        names = [*CONTROLLERS, ACCOUNTING_V1] if (root / ACCOUNTING_V1).is_dir() else [*CONTROLLERS]
        yield CgroupsV1({name: root / name / paths.get(name, "/").lstrip("/") for name in names})
        yield CgroupsV1({name: root / name for name in names})


def _new_name() -> str:
    return f"{_PREFIX}{os.getpid()}-{next(_numbers)}"


class CgroupsV2:
    """Groups below one folder of the unified tree."""

    version = 2

    def __init__(self, base: Path) -> None:
        self._base = base
        self._is_prepared = False

    def create(self, limits: Limits, *, helpers: int = 0) -> Cgroup:
        if not self._is_prepared:
            sweep(self._base)
            if not set(CONTROLLERS) <= set(_read(self._base / "cgroup.subtree_control").split()):
                _write(self._base / "cgroup.subtree_control", " ".join(f"+{name}" for name in CONTROLLERS))
            self._is_prepared = True
        folder = self._base / _new_name()
        folder.mkdir()
        try:
            _write(folder / "memory.max", str(memory_bytes(limits)))
            _write(folder / "pids.max", str(limits.processes + helpers))
            _write(folder / "cpu.max", f"{quota_us(limits)} {PERIOD_US}")
            for name, value in (
                ("memory.swap.max", "0"),
                ("memory.oom.group", "1"),
            ):  # absent without swap, and before 4.19
                with contextlib.suppress(OSError):
                    _write(folder / name, value)
        except OSError:
            folder.rmdir()
            raise
        return _CgroupV2(folder)


class _CgroupV2:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def joins(self) -> list[Path]:
        return [self._folder / "cgroup.procs"]

    def usage(self) -> Usage:
        cpu_us = _field(self._folder / "cpu.stat", "usage_usec")
        return Usage(
            cpu_s=None if cpu_us is None else cpu_us / 1e6,
            memory_bytes=_number(self._folder / "memory.current"),
            memory_peak_bytes=_number(self._folder / "memory.peak"),
            processes=_number(self._folder / "pids.current"),
        )

    def out_of_memory_count(self) -> int:
        return _field(self._folder / "memory.events", "oom_kill") or 0

    def kill(self) -> None:
        try:
            _write(self._folder / "cgroup.kill", "1")
        except OSError:  # before 5.14
            _kill_all(self._folder)

    def remove(self) -> None:
        _remove(self._folder)


class CgroupsV1:
    """Groups below one folder of each controller's tree."""

    version = 1

    def __init__(self, bases: dict[str, Path]) -> None:
        self._bases = bases
        self._is_prepared = False

    def create(self, limits: Limits, *, helpers: int = 0) -> Cgroup:
        if not self._is_prepared:
            for base in self._bases.values():
                sweep(base)
            self._is_prepared = True
        name = _new_name()
        folders = {controller: base / name for controller, base in self._bases.items()}
        group = _CgroupV1(folders)
        try:
            for folder in folders.values():
                folder.mkdir(exist_ok=True)  # two controllers may share one tree
            memory = str(memory_bytes(limits))
            _write(folders["memory"] / "memory.limit_in_bytes", memory)
            with contextlib.suppress(OSError):  # absent when swap is not accounted
                _write(folders["memory"] / "memory.memsw.limit_in_bytes", memory)
            _write(folders["pids"] / "pids.max", str(limits.processes + helpers))
            _write(folders["cpu"] / "cpu.cfs_period_us", str(PERIOD_US))
            _write(folders["cpu"] / "cpu.cfs_quota_us", str(quota_us(limits)))
        except OSError:
            group.remove()
            raise
        return group


class _CgroupV1:
    def __init__(self, folders: dict[str, Path]) -> None:
        self._folders = folders

    def joins(self) -> list[Path]:
        return [folder / "cgroup.procs" for folder in self._folders.values()]

    def usage(self) -> Usage:
        memory = self._folders["memory"]
        cpu_ns = _number(self._folders.get(ACCOUNTING_V1, memory) / "cpuacct.usage")
        return Usage(
            cpu_s=None if cpu_ns is None else cpu_ns / 1e9,
            memory_bytes=_number(memory / "memory.usage_in_bytes"),
            memory_peak_bytes=_number(memory / "memory.max_usage_in_bytes"),
            processes=_number(self._folders["pids"] / "pids.current"),
        )

    def out_of_memory_count(self) -> int:
        return _field(self._folders["memory"] / "memory.oom_control", "oom_kill") or 0

    def kill(self) -> None:
        _kill_all(self._folders["pids"])

    def remove(self) -> None:
        for folder in self._folders.values():
            _remove(folder)


def memory_bytes(limits: Limits) -> int:
    """The writable area is memory too, and so are bubblewrap and the frames that wait in the channel."""
    return limits.memory_bytes + limits.disk_bytes + HELPERS_MEMORY_BYTES


def quota_us(limits: Limits) -> int:
    """Of every period, over all processors."""
    return max(QUOTA_US_MIN, int(limits.cpu * PERIOD_US))


def sweep(base: Path) -> None:
    """Remove the groups of supervisors that are no more; what still runs in them is killed."""
    for folder in base.glob(_PREFIX + "*"):
        match = _NAME.fullmatch(folder.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            _kill_all(folder)
            _remove(folder)


def _kill_all(folder: Path) -> None:
    for pid in _read(folder / "cgroup.procs").split():
        with contextlib.suppress(OSError):
            os.kill(int(pid), 9)


def _remove(folder: Path) -> None:
    for _ in range(REMOVE_TRIES):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:  # something still ends in it, or was being started when the rest was killed
            _kill_all(folder)
            time.sleep(REMOVE_PAUSE_S)
        else:
            return


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _write(file: Path, text: str) -> None:
    file.write_text(text)


def _number(file: Path) -> int | None:
    text = _read(file).strip()
    return int(text) if text.isdecimal() else None


def _field(file: Path, name: str) -> int | None:
    for line in _read(file).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdecimal():
            return int(value)
    return None
