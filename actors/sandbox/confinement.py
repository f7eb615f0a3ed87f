"""From a sandbox, limits and views to what is started and what the first program is ordered to do to itself."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from actors.sandbox import interpreter
from actors.sandbox.limits import MEBIBYTE, Limits
from actors.sandbox.program import View
from actors.sandbox.sandbox import Level, Sandbox
from actors.sandbox.seccomp import build_filter

INSIDE = Path(__file__).parent / "inside"
WORK, TEMPORARY = "/work", "/tmp"  # noqa: S108 - the sandbox's own
USER_FIRST = 0x70000000
"""Users of sandboxes on a platform that runs as root: a range that no system gives to anyone, plus the process id."""
USERS_COUNT = 0x0F000000
NICE = 10
"""For programs whose processor time nothing else bounds."""
STACK_BYTES = 4 * MEBIBYTE
"""Of each thread: 32 of the usual 8 MiB would be all of the default memory."""
ADDRESS_SPACE_EXTRA_BYTES = 64 * MEBIBYTE
"""What an interpreter maps without using it: libraries, guard pages."""
SIGNALS_PENDING_MAX = 256
CPU_EXTRA_S = 2
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_CAPABILITIES = ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_CHOWN")
"""For the first program alone, until it has mounted the writable area."""
_JOIN = 'for f; do echo $$ >"$f" || exit 125; done; exec '
"""Join the groups, then become the program: so nothing ever runs outside of them."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A process to start."""

    argv: tuple[str, ...]
    environment: dict[str, str]


def environment() -> dict[str, str]:
    """All that a sandboxed program has in its environment."""
    return {
        "HOME": WORK,
        "LANG": "C.UTF-8",
        "PATH": f"{interpreter.FOLDER}/bin",
        "TMPDIR": TEMPORARY,
        "MALLOC_ARENA_MAX": "2",  # each thread's own would take 64 MiB of the address space
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def helpers(sandbox: Sandbox) -> int:
    """Processes beside the program: bubblewrap outside, and as process 1 of the namespace."""
    return 2 if sandbox.level is Level.FULL else 0


def launch(sandbox: Sandbox, *, channel: int, arguments: int, joins: Sequence[Path]) -> Launch:
    """The command that makes a child. ``channel`` and ``arguments``: descriptors that it inherits."""
    if sandbox.level is Level.FULL:
        python = (f"{interpreter.FOLDER}/bin/python3", *interpreter.OPTIONS, "/sandbox/inside/first.py", str(channel))
        command = [str(sandbox.bwrap), "--args", str(arguments), "--", *python]
        variables: dict[str, str] = {}
    else:
        command = [str(interpreter.executable()), *interpreter.OPTIONS, str(INSIDE / "first.py"), str(channel)]
        variables = environment()
    if joins:
        command = ["/bin/sh", "-c", _JOIN + shlex.join(command), "sh", *map(str, joins)]
    return Launch(tuple(command), variables)


def bwrap_arguments(sandbox: Sandbox, views: Sequence[View], *, information: int) -> bytes:
    """What bubblewrap reads from its ``--args`` descriptor."""
    return "".join(f"{part}\0" for part in _bwrap_parts(sandbox, views, information)).encode()


def _bwrap_parts(sandbox: Sandbox, views: Sequence[View], information: int) -> Iterator[str]:
    yield from ("--die-with-parent", "--new-session", "--info-fd", str(information))
    yield from ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")
    if sandbox.has_own_users:
        yield from ("--cap-drop", "ALL")
        for capability in _CAPABILITIES:
            yield from ("--cap-add", capability)
    else:
        # User 0 inside is this user outside. Any other would need a second namespace, in which mount(2) is refused.
        yield from ("--unshare-user", "--uid", "0", "--gid", "0")
        yield from ("--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_SETPCAP")
    yield from ("--hostname", "sandbox", "--clearenv")
    for name, value in {**environment(), "LD_LIBRARY_PATH": f"{interpreter.FOLDER}/lib"}.items():
        yield from ("--setenv", name, value)
    visible = (*interpreter.system_views(), *interpreter.views(), View(INSIDE, "/sandbox/inside"), *views)
    for folder in _parents(visible):
        yield from ("--perms", "0755", "--dir", folder)
    for view in visible:
        yield from ("--ro-bind", str(view.host), view.inside)
    for target, path in interpreter.system_links():
        yield from ("--symlink", target, path)
    if (interpreter.library() / "site-packages").is_dir():
        yield from ("--perms", "0755", "--tmpfs", interpreter.PACKAGES, "--remount-ro", interpreter.PACKAGES)
    for device in _DEVICES:
        yield from ("--dev-bind", device, device)
    for folder in ("/mnt", WORK, TEMPORARY):
        yield from ("--dir", folder)
    yield from ("--proc", "/proc", "--remount-ro", "/", "--chdir", "/")


def _parents(views: Sequence[View]) -> list[str]:
    """The folders in which the views are, outermost first. bubblewrap would make them for its own user only."""
    found = {str(parent) for view in views for parent in PurePosixPath(view.inside).parents}
    return sorted((found | {"/dev"}) - {"/"})


def order(
    sandbox: Sandbox, limits: Limits, views: Sequence[View], *, pid: int, imports: Sequence[str] = ()
) -> dict[str, Any]:
    """What the first program is told. ``pid``: the launched process. ``imports``: modules to import before it is ready."""
    is_full = sandbox.level is Level.FULL
    uid = USER_FIRST + pid % USERS_COUNT if sandbox.has_own_users else None
    program = build_filter(has_namespaces=is_full, can_fork=sandbox.can_fork(limits))
    return {
        "work": {"bytes": limits.disk_bytes, "inodes": limits.inodes} if is_full else None,
        "has_proc": is_full,
        "uid": uid,
        "has_own_user": is_full or (uid is not None and _is_public(views)),
        "limits": _resource_limits(sandbox, limits),
        "nice": 0 if sandbox.cgroups else NICE,
        "readable": _readable_full(views) if is_full else _readable(views),
        "writable": [WORK, TEMPORARY, "/dev/null"] if is_full else ["/dev/null"],
        "listable": [] if is_full else [str(interpreter.library())],
        "folder": WORK if is_full else "/",
        "imports": list(imports),
        "filter": program,
    }


def _resource_limits(sandbox: Sandbox, limits: Limits) -> dict[str, int]:
    found = {
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_FSIZE": limits.disk_bytes,
        "RLIMIT_NPROC": limits.processes + _processes_of_this_user(sandbox),
        "RLIMIT_STACK": STACK_BYTES,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_SIGPENDING": SIGNALS_PENDING_MAX,
    }
    if sandbox.cgroups:
        found["RLIMIT_DATA"] = limits.memory_bytes
    else:
        found["RLIMIT_AS"] = limits.memory_bytes + ADDRESS_SPACE_EXTRA_BYTES
    if limits.timeout_s is not None:
        found["RLIMIT_CPU"] = math.ceil(limits.timeout_s * max(1.0, limits.cpu)) + CPU_EXTRA_S
    return found


def _processes_of_this_user(sandbox: Sandbox) -> int:
    """Tasks that count as the child's: none when its user is its own, bubblewrap's in a user namespace, else all of ours."""
    if sandbox.has_own_users:
        return 0
    if sandbox.level is Level.FULL:
        return helpers(sandbox)
    count, user = 0, os.getuid()
    for folder in Path("/proc").glob("[0-9]*/task"):
        try:
            status = folder.stat()
        except OSError:
            continue
        if status.st_uid == user:
            count += status.st_nlink - 2
    return count


def _readable_full(views: Sequence[View]) -> list[str]:
    own = [*interpreter.system_views(), *interpreter.views(), *views]
    return [*(view.inside for view in own), "/sandbox", "/proc", *_DEVICES]


def _readable(views: Sequence[View]) -> list[str]:
    own = [*interpreter.system_views(), *interpreter.views(), View(INSIDE, ""), *views]
    hosts = [view.host for view in own if view.host != interpreter.library()]
    return [*map(str, (*hosts, *interpreter.library_parts())), "/etc/ld.so.cache", *_DEVICES]


def _is_public(views: Sequence[View]) -> bool:
    """Whether a user without any rights can read the interpreter, our own first program and what else it is to see."""
    return all(_is_readable_by_all(view.host) for view in (*interpreter.views(), View(INSIDE, ""), *views))


def _is_readable_by_all(path: Path) -> bool:
    folders = [path, *path.parents] if path.is_dir() else list(path.parents)
    return path.stat().st_mode & 0o004 != 0 and all(folder.stat().st_mode & 0o001 for folder in folders)
