"""What one sandboxed program may use. At each bound the program is refused or ended; the machine is not."""

from __future__ import annotations

from dataclasses import dataclass, fields

from sib.errors import ConfigurationError

MEBIBYTE = 1024 * 1024
_BOUNDS: dict[str, tuple[float, float]] = {
    "memory_mb": (32, 1024 * 1024),
    "cpu": (0.01, 1024),
    "disk_mb": (1, 1024 * 1024),
    "inodes": (16, 10_000_000),
    "processes": (1, 100_000),
    "open_files": (16, 1_000_000),
    "timeout_s": (0.05, 10 * 365 * 86_400),
    "output_bytes": (1024, 2**50),
    "calls_per_s": (0.1, 1e9),
}
"""Smallest and largest value; below the smallest an interpreter does not even start."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one sandbox. The defaults are those of a KP whose ``kp.toml`` says nothing.

    Raises:
        ConfigurationError: a value is out of its bounds.
    """

    memory_mb: int = 256
    """Mebibytes of memory, of all its processes together. More: ``MemoryError``, or the end (reason ``memory``)."""
    cpu: float = 0.5
    """Processors' worth of time, of all its processes together; beyond it they are slowed down. Needs a cgroup: without one
    the program only runs at a lower priority."""
    disk_mb: int = 32
    """Mebibytes in the writable area, which is in memory and ends with the program. More: ENOSPC."""
    inodes: int = 4096
    """Files and folders in the writable area. More: ENOSPC."""
    processes: int = 32
    """Processes and threads together. More: EAGAIN. Not exact at the fallback level of a platform that is not root."""
    can_fork: bool = True
    """False: threads only. Always so where no cgroup bounds the memory of several processes together."""
    open_files: int = 64
    """Descriptors of one process. More: EMFILE."""
    timeout_s: float | None = None
    """Seconds from the start of the program to its end (reason ``timeout``); None: no limit."""
    output_bytes: int | None = None
    """Bytes on standard output and error together to its end (reason ``output``); None: no limit, but always a limited rate."""
    calls_per_s: float = 5000
    """Calls and notices over the channel, on average; a second's worth may come at once. Faster: they wait."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in _BOUNDS or value is None:
                continue
            least, most = _BOUNDS[field.name]
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise ConfigurationError(
                    f"{field.name} of a sandbox is a number from {least:g} to {most:g}, not {value!r}"
                )

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_mb * MEBIBYTE)

    @property
    def disk_bytes(self) -> int:
        return int(self.disk_mb * MEBIBYTE)
