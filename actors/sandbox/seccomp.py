"""The system calls that a sandboxed program may make: an allow-list, everything else fails with EPERM.

Invariants: no socket but a connected pair of streams, so no family of the network and no address is ever reached; no new
namespace; no memory that is a file without a name (memfd); no signal and no limit for other processes by way of fcntl or prlimit.
A call by another architecture's table (32 bits) ends the program: it would bypass the arguments that are checked here.
"""

from __future__ import annotations

import errno
import os
from functools import cache

_FILES = """
read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 close close_range lseek fstat newfstatat stat lstat statx
access faccessat faccessat2 open openat openat2 creat readlink readlinkat getdents64 getcwd chdir fchdir mkdir mkdirat rmdir unlink
unlinkat rename renameat renameat2 symlink symlinkat link linkat ftruncate fallocate fsync fdatasync umask statfs fstatfs flock
copy_file_range sendfile fadvise64 sync_file_range pipe pipe2 dup dup2 dup3 poll ppoll select pselect6 epoll_create epoll_create1
epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2 timerfd_create timerfd_settime timerfd_gettime
"""
_MEMORY = "mmap munmap mremap mprotect madvise brk msync mincore mlock munlock membarrier"
_TIME_AND_SIGNALS = """
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause clock_gettime clock_getres
clock_nanosleep nanosleep gettimeofday time times getitimer setitimer alarm timer_create timer_settime timer_delete timer_gettime
timer_getoverrun
"""
_PROCESS = """
futex set_robust_list get_robust_list rseq set_tid_address arch_prctl sched_yield sched_getaffinity sched_getparam
sched_getscheduler sched_get_priority_max sched_get_priority_min getcpu getpid gettid getppid getuid geteuid getgid getegid
getresuid getresgid getgroups getpgrp getpgid getsid getpriority getrlimit getrusage sysinfo uname getrandom capget wait4 waitid
exit exit_group restart_syscall
"""
_PAIR = "sendmsg recvmsg recvfrom shutdown getsockname getpeername getsockopt"
_OWN_NAMESPACES_ONLY = """
execve kill tkill tgkill chmod fchmod fchmodat fchmodat2 utimensat utimes futimesat truncate setsid setpgid inotify_init
inotify_init1 inotify_add_watch inotify_rm_watch
"""
"""Without namespaces these would reach the platform's own processes and files: Landlock does not cover them."""

_CLONE_NEW_ANYTHING = 0x7E020080
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWTIME."""
_CLONE_THREAD = 0x10000
_AF_UNIX, _SOCK_STREAM, _SOCK_TYPE_MASK = 1, 1, 0xF
_IOCTLS = {
    0x5401: "TCGETS",
    0x5413: "TIOCGWINSZ",
    0x541B: "FIONREAD",
    0x5421: "FIONBIO",
    0x5450: "FIONCLEX",
    0x5451: "FIOCLEX",
}
_FCNTLS = {
    **{0: "F_DUPFD", 1: "F_GETFD", 2: "F_SETFD", 3: "F_GETFL", 4: "F_SETFL", 5: "F_GETLK", 6: "F_SETLK", 7: "F_SETLKW"},
    **{36: "F_OFD_GETLK", 37: "F_OFD_SETLK", 38: "F_OFD_SETLKW", 1030: "F_DUPFD_CLOEXEC", 1032: "F_GETPIPE_SZ"},
}
"""Not F_SETOWN and F_SETSIG (signals to others), not F_SETPIPE_SZ (memory of the kernel), not F_NOTIFY, not seals."""
_PRCTLS = {15: "PR_SET_NAME", 16: "PR_GET_NAME", 21: "PR_GET_SECCOMP", 23: "PR_CAPBSET_READ", 39: "PR_GET_NO_NEW_PRIVS"}
_PR_SET_NO_NEW_PRIVS, _PR_SET_VMA = 38, 0x53564D41


@cache
def build_filter(*, has_namespaces: bool, can_fork: bool) -> bytes:
    """The filter as the kernel wants it: an array of ``struct sock_filter``, for this machine's architecture.

    Raises:
        ImportError: pyseccomp or libseccomp2 is not installed.
    """
    import pyseccomp as seccomp  # type: ignore[import-untyped]

    rules = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    rules.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)

    def allow(name: str, *arguments: object) -> None:
        try:
            rules.add_rule(seccomp.ALLOW, name, *arguments)
        except (OSError, ValueError):  # not a call of this architecture, or newer than the library
            return

    names = f"{_FILES} {_MEMORY} {_TIME_AND_SIGNALS} {_PROCESS} {_PAIR}"
    if has_namespaces:
        names += _OWN_NAMESPACES_ONLY
    for name in names.split():
        allow(name)
    if can_fork:
        allow("fork")
        allow("vfork")
    threads_only = 0 if can_fork else _CLONE_THREAD
    allow("clone", seccomp.Arg(0, seccomp.MASKED_EQ, _CLONE_NEW_ANYTHING | threads_only, threads_only))
    # Its arguments are in memory, where a filter cannot look; on ENOSYS the C library takes clone.
    rules.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    allow(
        "socketpair",
        seccomp.Arg(0, seccomp.EQ, _AF_UNIX),
        seccomp.Arg(1, seccomp.MASKED_EQ, _SOCK_TYPE_MASK, _SOCK_STREAM),
    )
    allow("sendto", seccomp.Arg(4, seccomp.EQ, 0))  # no address
    for request in _IOCTLS:
        allow("ioctl", seccomp.Arg(1, seccomp.EQ, request))
    for command in _FCNTLS:
        allow("fcntl", seccomp.Arg(1, seccomp.EQ, command))
    for option in (*_PRCTLS, _PR_SET_NO_NEW_PRIVS, _PR_SET_VMA):
        allow("prctl", seccomp.Arg(0, seccomp.EQ, option))
    allow("prlimit64", seccomp.Arg(0, seccomp.EQ, 0), seccomp.Arg(2, seccomp.EQ, 0))  # one's own, reading
    return _export(rules)


def _export(rules: object) -> bytes:
    descriptor = os.memfd_create("filter", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "w+b") as file:
        rules.export_bpf(file)  # type: ignore[attr-defined]
        file.seek(0)
        return file.read()
