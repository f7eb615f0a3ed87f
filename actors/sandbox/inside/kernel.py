"""The system calls that Python does not offer: thin, and an ``OSError`` when the kernel refuses."""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND = 1, 2, 4, 8, 4096
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = (
    1,
    4,
    22,
    24,
    38,
    47,
)
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
_CAPABILITIES_MAX = 64
_SOCK_FILTER_BYTES = 8
_SYSCALL_NUMBERS = {"landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446}
"""The same on every architecture: newer than the common table of system calls."""


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Mount a file system, or bind a folder."""
    arguments = (
        source.encode(),
        target.encode(),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        options.encode(),
    )
    _checked(_libc.mount(*arguments), f"mount {kind or source} on {target}")


def detach(target: str) -> None:
    """umount2(2), lazily: what is bound elsewhere stays."""
    _checked(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def prctl(option: int, value: int = 0) -> None:
    """Set one property of this process."""
    zero = ctypes.c_ulong(0)
    _checked(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero), f"prctl {option}")


def empty_bounding_set() -> None:
    """No program executed from now on gets a capability. Before a change of user, which loses the right to do this."""
    for capability in range(_CAPABILITIES_MAX):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # beyond the last capability, or without CAP_SETPCAP: then no_new_privs alone has to do
            break


def drop_capabilities() -> None:
    """Empty the ambient, effective, permitted and inheritable sets. For good, together with no_new_privs."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    _checked(_libc.capset(header, struct.pack("<6I", *[0] * 6)), "capset")


def install_filter(program: bytes) -> None:
    """Put a seccomp filter (an array of ``struct sock_filter``) over this process and all that come from it."""
    instructions = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("<H6xQ", len(program) // _SOCK_FILTER_BYTES, ctypes.addressof(instructions))
    arguments = (ctypes.c_int(PR_SET_SECCOMP), ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.c_char_p(header))
    _checked(_libc.prctl(*arguments, ctypes.c_ulong(0), ctypes.c_ulong(0)), "seccomp")


def syscall(name: str, *arguments: object) -> int:
    """One of the Landlock calls, for which the C library has no function."""
    return _checked(_libc.syscall(ctypes.c_long(_SYSCALL_NUMBERS[name]), *arguments), name)
