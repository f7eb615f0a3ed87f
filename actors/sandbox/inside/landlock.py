# ruff: noqa: PTH112 -- pathlib costs 5 ms
"""Landlock: which files this process and its descendants may still touch. Needs no privilege.

Source: linux Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import ctypes
import os
import struct

from . import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

ABI_MIN = 3
"""Before it (Linux 6.2) a file could be truncated in spite of the rules."""

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK = 1 << 6, 1 << 9, 1 << 10, 1 << 11
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_RIGHTS_COUNT = {1: 13, 2: 14, 3: 15, 4: 15}
_RIGHTS_COUNT_NEWEST = 16
_ALL_TCP, _ALL_SCOPES = 3, 3
_RULE_PATH_BENEATH = 1
_CREATE_RULESET_VERSION = 1


def abi() -> int:
    """The version that the kernel offers; 0 without Landlock."""
    try:
        return kernel.syscall(
            "landlock_create_ruleset", None, ctypes.c_size_t(0), ctypes.c_uint(_CREATE_RULESET_VERSION)
        )
    except OSError:
        return 0


def restrict(*, readable: Iterable[str], writable: Iterable[str], listable: Iterable[str] = ()) -> None:
    """From now on only these files and folders (with what is in them) can be opened. Paths that do not exist are left out.

    ``listable``: of these only the names in them. ``writable``: also written, but nothing there can be executed, and no
    device, socket or fifo made. From version 4 no TCP; from version 6 no signal and no abstract socket across the border.
    Needs no_new_privs; does nothing without Landlock.
    """
    version = abi()
    if not version:
        return
    handled = (1 << _RIGHTS_COUNT.get(version, _RIGHTS_COUNT_NEWEST)) - 1
    attributes = struct.pack("<Q", handled)
    if version >= 4:
        attributes += struct.pack("<Q", _ALL_TCP)
    if version >= 6:
        attributes += struct.pack("<Q", _ALL_SCOPES)
    ruleset = kernel.syscall("landlock_create_ruleset", attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    write = handled & ~(_EXECUTE | _MAKE_CHAR | _MAKE_SOCK | _MAKE_FIFO | _MAKE_BLOCK | _IOCTL_DEV)
    for path in readable:
        _allow(ruleset, path, _READ & handled)
    for path in listable:
        _allow(ruleset, path, _READ_DIR)
    for path in writable:
        _allow(ruleset, path, write)
    kernel.syscall("landlock_restrict_self", ctypes.c_int(ruleset), ctypes.c_uint(0))
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _FILE_RIGHTS
        rule = struct.pack("<Qi", rights, descriptor)
        kernel.syscall(
            "landlock_add_rule", ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), rule, ctypes.c_uint(0)
        )
    finally:
        os.close(descriptor)
