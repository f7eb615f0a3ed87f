"""Run inside a sandbox by the self-test: tries what must not be possible, and prints what came of it as JSON.

Gets one argument, JSON: the bait that the supervisor has laid out, and the limits. Uses the standard library only.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

bait: dict[str, Any] = {}
probes: dict[str, Callable[[], str | None]] = {}
libc = ctypes.CDLL(None, use_errno=True)
X86, ARM = {"x86_64": 0, "aarch64": 1}, os.uname().machine
PTRACE_SEIZE, NOBODY = 0x4206, 2**30  # never a process that exists: it would be stopped
SYSCALLS = {
    "ptrace": (101, 117),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "perf_event_open": (298, 241),
    "memfd_create": (319, 279),
    "unshare": (272, 97),
    "process_vm_readv": (310, 270),
    "userfaultfd": (323, 282),
    "open_by_handle_at": (304, 265),
}


def probe(function: Callable[[], str | None]) -> Callable[[], str | None]:
    """Register one. It gives what it could do, or None; an ``OSError`` is a refusal too."""
    probes[function.__name__] = function
    return function


def syscall(name: str, *arguments: int) -> str | None:
    """None when refused with EPERM or ENOSYS: any other error means that the call was looked at."""
    number = SYSCALLS[name][X86.get(ARM, 1)]
    if libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)) >= 0:
        return f"{name} works"
    return None if ctypes.get_errno() in (1, 38) else f"{name} reaches the kernel: {os.strerror(ctypes.get_errno())}"


@probe
def host_files() -> str | None:
    """Files that anybody on the host may read, and the supervisor's own."""
    for path in (bait["file"], "/etc/passwd", "/proc/1/root" + bait["file"], f"/proc/{bait['pid']}/environ"):
        try:
            with open(path, "rb") as file:  # noqa: PTH123
                return f"{path} can be read: {file.read(20)!r}"
        except OSError:
            continue
    return None


@probe
def symbolic_links() -> str | None:
    """A link in the writable area to a file of the host."""
    os.symlink(bait["file"], "link")  # noqa: PTH211
    with open("link", "rb") as file:  # noqa: PTH123
        return f"read through a link: {file.read(20)!r}"


@probe
def foreign_writes() -> str | None:
    """Outside of the writable area nothing can be written."""
    for folder in ("/", "/usr/lib", "/dev", "/dev/shm", os.path.dirname(os.__file__), bait["folder"]):  # noqa: PTH120, S108
        try:
            descriptor = os.open(f"{folder}/sandbox-selftest", os.O_CREAT | os.O_WRONLY)
        except OSError:
            continue
        os.close(descriptor)
        return f"{folder} can be written"
    return None


@probe
def descriptors() -> str | None:
    """Only the standard ones and the channel."""
    for number in range(4, 256):
        try:
            os.fstat(number)
        except OSError:
            continue
        return f"descriptor {number} is open"
    return None


@probe
def environment() -> str | None:
    """Nothing of the supervisor's environment."""
    return "the environment of the supervisor is visible" if bait["variable"] in os.environ else None


@probe
def processes() -> str | None:
    """The supervisor can be neither seen nor signalled."""
    os.kill(bait["pid"], 0)
    return "the supervisor can be signalled"


@probe
def network() -> str | None:
    """No socket of any family."""
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET, 40):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
            try:
                socket.socket(family, kind).close()
            except OSError:
                continue
            return f"a socket of family {family} can be made"
    return None


@probe
def datagram_pairs() -> str | None:
    """A pair of datagram sockets could send to any address."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        try:
            socket.socketpair(socket.AF_UNIX, kind)
        except OSError:
            continue
        return f"a pair of kind {kind} can be made"
    return None


@probe
def mounts() -> str | None:
    """Nothing can be mounted."""
    return "mount works" if libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0 else None


@probe
def users() -> str | None:
    """No other user, and no capability."""
    with open("/proc/self/status") if os.path.exists("/proc/self/status") else open(os.devnull) as file:  # noqa: PTH110, PTH123
        for line in file:
            if line.startswith(("CapEff", "CapPrm", "CapBnd")) and int(line.split()[1], 16) and line[:6] != "CapBnd":
                return f"capabilities are left: {line.strip()}"
    os.setresuid(0, 0, 0)
    return "setresuid works"


@probe
def system_calls() -> str | None:
    """What only attacks need."""
    found = [
        syscall("ptrace", PTRACE_SEIZE, NOBODY, 0, 0),
        syscall("keyctl", 0, -3, 1),
        syscall("bpf", 0, 0, 0),
        syscall("io_uring_setup", 1, 0),
        syscall("perf_event_open", 0, 0, -1, -1, 0),
        syscall("memfd_create", 0, 0),
        syscall("unshare", 0x10000000),
        syscall("process_vm_readv", NOBODY, 0, 0, 0, 0, 0),
        syscall("userfaultfd", 0),
        syscall("open_by_handle_at", -1, 0, 0),
    ]
    return "; ".join(text for text in found if text) or None


@probe
def forks() -> str | None:
    """Only where the memory of all processes together is bounded."""
    if bait["can_fork"]:
        return None
    if os.fork() == 0:
        os._exit(0)
    return "fork works"


@probe
def disk() -> str | None:
    """The writable area ends."""
    with open("large", "wb") as file:  # noqa: PTH123
        for _ in range(bait["disk_mb"] + 1):
            file.write(bytes(1024 * 1024))
    return "more can be written than allowed"


@probe
def inodes() -> str | None:
    """The number of files ends."""
    for number in range(bait["inodes"] + 1):
        with open(f"file{number}", "wb"):  # noqa: PTH123
            pass
    return "more files can be made than allowed"


@probe
def memory() -> str | None:
    """Memory ends."""
    try:
        bytes(bait["memory_mb"] * 1024 * 1024 * 2)
    except MemoryError:
        return None
    return "more memory can be had than allowed"


@probe
def threads() -> str | None:
    """The number of threads ends.

    Where programs run as the platform's user it is counted with that user's own threads, which come and go: not exactly.
    """
    end = threading.Event()
    threading.stack_size(64 * 1024)
    started = []
    try:
        for _ in range(bait["processes"] * 4):
            thread = threading.Thread(target=end.wait)
            thread.start()
            started.append(thread)
    except RuntimeError:
        return None
    finally:
        end.set()
        for thread in started:
            thread.join()
    return "more threads can be started than allowed"


def main() -> None:
    """Run them all."""
    bait.update(json.loads(sys.argv[1]))
    results: dict[str, str | None] = {}
    for name, function in probes.items():
        try:
            results[name] = function()
        except OSError:
            results[name] = None
    print(json.dumps(results), flush=True)
    while True:  # that it can be ended is the last attempt
        time.sleep(1)


if __name__ == "__main__":
    main()
