# ruff: noqa: PTH102 -- pathlib costs 5 ms
"""What the first program does to itself: mounts, limits, user, capabilities, Landlock, descriptors, seccomp, in this order.

Invariant: when ``enter`` returns, the process has no privilege and no descriptor but 0, 1, 2 and the channel, and can gain none;
when any step fails, ``enter`` raises and nothing of the user's ever runs.
"""

from __future__ import annotations

import os
import resource

from . import kernel, landlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

CHANNEL = 3
"""The descriptor of the channel, in every sandbox."""
DESCRIPTORS_MAX = 1 << 20
"""Linux gives no higher numbers (fs.nr_open)."""
_STAGING = "/mnt"
_INODES_OF_OUR_OWN = 3


def enter(order: Mapping[str, Any], channel: int) -> None:
    """Confine this process as the supervisor orders (see ``actors.sandbox.confinement``).

    Raises:
        OSError: the kernel refused a step; the process must end.
    """
    if channel != CHANNEL:
        os.dup2(channel, CHANNEL, inheritable=False)
    if order["work"]:
        _mount_work(order["work"], order["uid"])
    if order["has_proc"]:
        _mount_proc()
    _set_limits(order["limits"])
    if order["nice"]:
        os.nice(order["nice"])
    _drop_privileges(order["uid"], has_own_user=order["has_own_user"])
    if order["readable"]:
        landlock.restrict(readable=order["readable"], writable=order["writable"], listable=order["listable"])
    os.chdir(order["folder"])
    os.closerange(CHANNEL + 1, DESCRIPTORS_MAX)
    kernel.install_filter(order["filter"])


def _mount_work(work: Mapping[str, int], uid: int | None) -> None:
    """One tmpfs with a size and a number of inodes, seen as ``/work`` and ``/tmp``; nothing on it can be executed."""
    options = f"size={work['bytes']},nr_inodes={work['inodes'] + _INODES_OF_OUR_OWN},mode=755"
    kernel.mount("tmpfs", _STAGING, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, options)
    for name in ("work", "tmp"):
        folder = f"{_STAGING}/{name}"
        os.mkdir(folder, 0o700)
        if uid is not None:
            os.chown(folder, uid, uid)
        kernel.mount(folder, f"/{name}", None, kernel.MS_BIND)
    kernel.detach(_STAGING)


def _mount_proc() -> None:
    """Over the proc of this namespace one that shows processes only, and only one's own; where refused, none at all."""
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC | kernel.MS_RDONLY
    try:
        kernel.mount("proc", "/proc", "proc", flags, "hidepid=2,subset=pid")
    except OSError:
        kernel.detach("/proc")


def _set_limits(limits: Mapping[str, int]) -> None:
    for name, value in limits.items():
        number = getattr(resource, name)
        _, hard = resource.getrlimit(number)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (bound, bound))


def _drop_privileges(uid: int | None, *, has_own_user: bool) -> None:
    """Become user ``uid`` (None: stay who we are), without groups and capabilities.

    Without ``has_own_user`` only the real user changes: the interpreter lies where only root can read it, and the number of
    processes is counted by the real user.
    """
    kernel.empty_bounding_set()
    if uid is not None:
        os.setgroups([])
        if has_own_user:
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        else:
            os.setresuid(uid, -1, -1)
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1 if has_own_user else 0)
    # A change of user clears it. It comes too late if the supervisor died before: then the channel is closed, and we end.
    kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
