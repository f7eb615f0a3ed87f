"""Attempts to break out, as a program: run inside a sandbox every one must fail, run outside (as root) every one must succeed.

``python attempts.py BAIT`` with BAIT a JSON object (see ``bait.py``) prints a JSON object: name to what was possible, or null.
An attempt gives text when it got somewhere, None or an ``OSError`` when it was refused. Nothing here does harm outside.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import platform
import resource
import signal
import socket
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
bait = {}
ATTEMPTS = {}
IS_X86 = platform.machine() == "x86_64"
# (x86_64, aarch64)
NUMBERS = {
    "ptrace": (101, 117),
    "syslog": (103, 116),
    "mknod": (133, -1),
    "personality": (135, 92),
    "pivot_root": (155, 41),
    "adjtimex": (159, 171),
    "chroot": (161, 51),
    "mount": (165, 40),
    "umount2": (166, 39),
    "swapon": (167, 224),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "init_module": (175, 105),
    "quotactl": (179, 60),
    "setxattr": (188, 5),
    "tgkill": (234, 131),
    "kexec_load": (246, 104),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "perf_event_open": (298, 241),
    "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "setns": (308, 268),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "finit_module": (313, 273),
    "memfd_create": (319, 279),
    "bpf": (321, 280),
    "execveat": (322, 281),
    "userfaultfd": (323, 282),
    "pidfd_send_signal": (424, 424),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "pidfd_open": (434, 434),
    "clone3": (435, 435),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "mount_setattr": (442, 442),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "semget": (64, 190),
    "msgget": (68, 186),
    "iopl": (172, -1),
    "modify_ldt": (154, -1),
    "vhangup": (153, 58),
    "capset": (126, 91),
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setgroups": (116, 159),
    "setresuid": (117, 147),
    "sched_setaffinity": (203, 122),
    "migrate_pages": (256, 238),
    "mq_open": (240, 180),
    "lookup_dcookie": (212, 18),
    "clock_settime": (227, 112),
}
REFUSALS = (errno.EPERM, errno.ENOSYS, errno.EACCES)


def attempt(function):
    ATTEMPTS[function.__name__] = function
    return function


def call(name, *arguments):
    """None when the call is refused as such; text when the kernel carries it out or looks at its arguments."""
    number = NUMBERS[name][0 if IS_X86 else 1]
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = libc.syscall(ctypes.c_long(number), *values)
    code = ctypes.get_errno()
    if result >= 0:
        return f"{name} gives {result}"
    if code == errno.ENOSYS and bait.get("outside"):
        return f"{name} is not in this kernel"
    return None if code in REFUSALS else f"{name} reaches the kernel: {os.strerror(code)}"


def syscall_attempt(name, *arguments):
    ATTEMPTS[f"syscall_{name}"] = lambda: call(name, *arguments)


def read(path, size=64):
    with open(path, "rb", buffering=0) as file:
        data = file.read(size)
    return f"{path}: {data!r}" if data else None


def first_possible(*functions):
    for function in functions:
        with contextlib.suppress(OSError):
            found = function()
            if found:
                return found
    return None


# Files


@attempt
def host_file():
    return read(bait["secret"])


@attempt
def data_of_another_kp():
    return first_possible(lambda: read(bait["other_kp"]), lambda: str(os.listdir(os.path.dirname(bait["other_kp"]))))


@attempt
def well_known_files():
    paths = (
        "/etc/passwd",
        "/etc/shadow",
        "/etc/hostname",
        "/etc/machine-id",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/root/.bashrc",
    )
    return first_possible(*(lambda path=path: read(path) for path in paths))


@attempt
def listing_of_folders():
    paths = (
        "/",
        "/etc",
        "/root",
        "/home",
        "/var",
        "/run",
        "/opt",
        "/usr",
        "/usr/bin",
        "/sys",
        "/mnt",
        os.path.dirname(bait["secret"]),
    )
    return first_possible(
        *(lambda path=path: f"{path}: {os.listdir(path)}" if os.listdir(path) else None for path in paths)
    )


@attempt
def root_of_process_1():
    return first_possible(
        *(lambda pid=pid: read(f"/proc/{pid}/root{bait['secret']}") for pid in (1, bait["supervisor"], "self"))
    )


@attempt
def working_folder_of_others():
    return first_possible(
        *(lambda pid=pid: str(os.listdir(f"/proc/{pid}/cwd/")) or None for pid in (1, bait["victim"]))
    )


@attempt
def symbolic_link():
    os.symlink(bait["secret"], bait["own"] + "/link")
    try:
        return read(bait["own"] + "/link")
    finally:
        os.unlink(bait["own"] + "/link")


@attempt
def hard_link():
    os.link(bait["secret"], bait["beside"] if bait["outside"] else bait["own"] + "/hard")
    return "a hard link was made"


@attempt
def dots():
    return read("../" * 20 + bait["secret"].lstrip("/"))


@attempt
def write_to_host():
    with open(bait["writable"], "w") as file:
        file.write("x")
    return "a file of the host was written"


@attempt
def make_file_on_host():
    return first_possible(
        *(
            lambda folder=folder: make(folder)
            for folder in (os.path.dirname(bait["writable"]), "/", "/etc", "/usr", "/opt", "/root")
        )
    )


def make(folder):
    path = f"{folder}/sandbox-attempt"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    os.unlink(path)
    return f"{path} was made"


@attempt
def truncate_host_file():
    return first_possible(
        lambda: os.truncate(bait["writable"], 0) or "truncate",
        lambda: os.close(os.open(bait["writable"], os.O_TRUNC)) or "O_TRUNC",
    )


@attempt
def attributes_of_host_file():
    return first_possible(
        lambda: os.chmod(bait["writable"], 0o666) or "chmod",
        lambda: os.chown(bait["writable"], -1, -1) or "chown",
        lambda: os.utime(bait["writable"]) or "utime",
        lambda: os.setxattr(bait["writable"], "user.a", b"b") or "setxattr",
    )


@attempt
def rename_host_file():
    os.rename(bait["writable"], bait["writable"])
    return "rename"


@attempt
def standard_library_is_writable():
    return make(os.path.dirname(os.__file__))


@attempt
def host_packages():
    sys.path.append(bait["packages"])
    try:
        import orjson
    except ImportError:
        return None
    finally:
        sys.path.pop()
    return orjson.__file__


@attempt
def packages_beside_the_interpreter():
    for folder, _, files in os.walk(os.path.dirname(os.__file__) + "/site-packages"):
        for name in files:
            with contextlib.suppress(OSError):
                return read(f"{folder}/{name}")
    return None


@attempt
def watch_host_folder():
    descriptor = libc.inotify_init1(0)
    if descriptor < 0:
        return None
    is_watched = libc.inotify_add_watch(descriptor, os.path.dirname(bait["secret"]).encode(), 0xFFF) >= 0
    os.close(descriptor)
    return "changes in a folder of the host can be watched" if is_watched else None


@attempt
def devices():
    names = (
        "mem",
        "kmem",
        "port",
        "kmsg",
        "tty",
        "ptmx",
        "vda",
        "sda",
        "fuse",
        "kvm",
        "net/tun",
        "vsock",
        "shm",
        "mqueue",
        "pts",
        "console",
    )
    return first_possible(
        *(lambda name=name: os.close(os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK)) or name for name in names)
    )


@attempt
def make_device():
    path = bait["own"] + "/device"
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 1))
    os.unlink(path)
    return "a device was made"


@attempt
def sys_files():
    return first_possible(
        *(lambda path=path: str(os.listdir(path)) for path in ("/sys", "/sys/fs/cgroup", "/sys/kernel"))
    )


@attempt
def kernel_files():
    paths = (
        "/proc/kallsyms",
        "/proc/cmdline",
        "/proc/sys/kernel/hostname",
        "/proc/version",
        "/proc/meminfo",
        "/proc/keys",
        "/proc/modules",
    )
    return first_possible(*(lambda path=path: read(path) for path in paths))


@attempt
def kernel_settings():
    path = "/proc/sys/kernel/hostname"
    name = socket.gethostname()
    with open(path, "w") as file:
        file.write(name)
    return f"{path} was written"


# Processes


@attempt
def environment_of_others():
    return first_possible(
        *(lambda pid=pid: read(f"/proc/{pid}/environ") for pid in (bait["victim"], bait["supervisor"], 1))
    )


@attempt
def command_line_of_others():
    return first_possible(
        *(lambda pid=pid: read(f"/proc/{pid}/cmdline") for pid in (bait["victim"], bait["supervisor"]))
    )


@attempt
def memory_of_others():
    return first_possible(
        *(
            lambda pid=pid, name=name: os.close(os.open(f"/proc/{pid}/{name}", os.O_RDONLY)) or f"{name} of {pid}"
            for pid in (bait["victim"], 1)
            for name in ("mem", "maps")
        )
    )


@attempt
def list_of_processes():
    own = {os.getpid()}
    others = [name for name in os.listdir("/proc") if name.isdecimal() and int(name) not in own]
    return f"processes {others[:5]}" if others else None


@attempt
def descriptors_of_others():
    return first_possible(
        *(lambda pid=pid: str(os.listdir(f"/proc/{pid}/fd")) for pid in (bait["victim"], bait["supervisor"], 1))
    )


def signalled(function):
    function()
    return "a signal was sent"


@attempt
def signal_victim():
    return signalled(lambda: os.kill(bait["victim"], signal.SIGCONT))


@attempt
def signal_supervisor():
    return signalled(lambda: os.kill(bait["supervisor"], 0))


@attempt
def signal_parent():
    return signalled(lambda: os.kill(os.getppid() or bait["supervisor"], 0))


@attempt
def signal_by_tgkill():
    return call("tgkill", bait["victim"], bait["victim"], signal.SIGCONT) if not reaches_nobody() else None


def reaches_nobody():
    """Inside, the victim's number means nobody, and ESRCH is as good as a refusal."""
    try:
        os.kill(bait["victim"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


@attempt
def signal_by_descriptor_owner():
    """SIGIO to anybody: F_SETOWN with O_ASYNC."""
    reading, writing = os.pipe()
    try:
        fcntl.fcntl(reading, fcntl.F_SETOWN, bait["victim"])
        return "F_SETOWN works"
    finally:
        os.close(reading)
        os.close(writing)


@attempt
def limits_of_others():
    resource.prlimit(bait["victim"], resource.RLIMIT_NOFILE)
    return "prlimit works on others"


@attempt
def raise_own_limits():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return "setrlimit works"


@attempt
def priority_of_others():
    os.setpriority(os.PRIO_PROCESS, bait["victim"], 0)
    return "setpriority works"


@attempt
def affinity_of_others():
    os.sched_setaffinity(bait["victim"], os.sched_getaffinity(0))
    return "sched_setaffinity works"


@attempt
def death_signal_is_kept():
    """Without it a program could outlive its supervisor."""
    return "PR_SET_PDEATHSIG works" if libc.prctl(1, 0, 0, 0, 0) == 0 else None


# Network


def connect(family, kind, address):
    with socket.socket(family, kind) as client:
        client.settimeout(1)
        client.connect(address)
        client.send(b"x")
    return f"connected to {address}"


@attempt
def tcp():
    return connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", bait["tcp"]))


@attempt
def udp():
    return connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", bait["udp"]))


@attempt
def tcp6():
    socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    return "an IPv6 socket"


@attempt
def listen():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
    return "a listening socket"


@attempt
def unix_by_path():
    return connect(socket.AF_UNIX, socket.SOCK_STREAM, bait["unix"])


@attempt
def unix_abstract():
    return connect(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + bait["abstract"])


@attempt
def unix_datagram_by_path():
    return connect(socket.AF_UNIX, socket.SOCK_DGRAM, bait["unix_datagram"])


@attempt
def datagram_pair_to_an_address():
    """A connected pair of datagram sockets still sends to any path or abstract name."""
    ours, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.sendto(b"x", bait["unix_datagram"])
    return "sent"


@attempt
def seqpacket_pair():
    socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return "a pair of SEQPACKET"


@attempt
def netlink():
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()
    return "a netlink socket"


@attempt
def vsock():
    socket.socket(40, socket.SOCK_STREAM).close()
    return "a vsock socket"


@attempt
def raw():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    return "a raw socket"


@attempt
def packet():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    return "a packet socket"


@attempt
def other_families():
    found = []
    for family in range(46):
        with contextlib.suppress(OSError):
            socket.socket(family, socket.SOCK_DGRAM).close()
            found.append(family)
    return f"families {found}" if found else None


@attempt
def interfaces():
    return str(socket.if_nameindex())


@attempt
def socket_filter():
    """SO_ATTACH_FILTER: a program in the kernel."""
    ours, _ = socket.socketpair()
    code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xFFFF))
    ours.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HxxxxxxQ", 1, ctypes.addressof(code)))
    return "a filter was attached"


# What is left over


@attempt
def environment():
    return os.environ.get(bait["variable"])


@attempt
def inherited_descriptors():
    found = []
    for number in range(4, 1024):
        with contextlib.suppress(OSError):
            os.fstat(number)
            found.append(number)
    return f"descriptors {found}" if found else None


@attempt
def shared_memory_files():
    return first_possible(lambda: read(f"/dev/shm/{bait['shm']}"), lambda: str(os.listdir("/dev/shm")))


@attempt
def shared_memory_segments():
    libc.shmat.restype = ctypes.c_long
    return "attached" if libc.shmat(bait["sysv"], None, 0o10000) != -1 else None


@attempt
def terminal():
    with open("/dev/tty", "rb") if not bait["outside"] else open(os.devnull, "rb") as file:
        if bait["outside"]:
            return "not tried outside"
        fcntl.ioctl(file, 0x5412, b"x")
    return "TIOCSTI works"


# Kernel


@attempt
def new_user_namespace():
    """With a fork, so that outside this process is not changed."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if libc.unshare(0x10000000) == 0 else 1)
    return "a user namespace" if os.waitpid(pid, 0)[1] == 0 else None


@attempt
def clone_into_namespaces():
    for flag in (0x20000, 0x10000000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000):
        pid = libc.syscall(ctypes.c_long(56 if IS_X86 else 220), ctypes.c_ulong(flag | 17), 0, 0, 0, 0)
        if pid == 0:
            os._exit(0)
        if pid > 0:
            os.waitpid(pid, 0)
            return f"clone with flag {flag:#x}"
    return None


@attempt
def mount():
    folder = bait["own"] + "/m"
    os.mkdir(folder)
    try:
        if libc.mount(b"none", folder.encode(), b"tmpfs", 0, None) < 0:
            return None
        libc.umount2(folder.encode(), 2)
    finally:
        os.rmdir(folder)
    return "mount works"


@attempt
def remount_root():
    if bait["outside"]:
        return "not tried outside"
    return "remount works" if libc.mount(None, b"/", None, 32, None) == 0 else None


@attempt
def capabilities():
    header, data = struct.pack("<Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    libc.capget(header, data)
    effective, permitted, _ = struct.unpack("<3I", data.raw[:12])
    return f"capabilities {permitted:#x}" if effective or permitted else None


@attempt
def execute_own_file():
    """A program of one's own making, from the writable area."""
    path = bait["own"] + "/program"
    with open(path, "wb") as file:
        file.write(b"#!/nonexistent\n")
    os.chmod(path, 0o700)
    pid = os.fork()
    if pid == 0:
        try:
            os.execve(path, [path], {})
        except FileNotFoundError:  # it was allowed: the interpreter does not exist
            os._exit(0)
        except OSError:
            os._exit(1)
    return "executed" if os.waitpid(pid, 0)[1] == 0 else None


@attempt
def map_own_file_executable():
    path = bait["own"] + "/code"
    with open(path, "w+b") as file:
        file.write(b"\xc3" * 4096)
        file.flush()
        mmap.mmap(file.fileno(), 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
    return "mapped"


@attempt
def setuid_programs():
    for path in ("/bin/su", "/usr/bin/passwd", "/usr/bin/mount", "/bin/true"):
        pid = os.fork()
        if pid == 0:
            try:
                os.execve(path, [path, "--help"], {})
            except OSError:
                os._exit(77)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 77:
            return f"{path} was executed"
    return None


@attempt
def pipe_size():
    reading, writing = os.pipe()
    try:
        fcntl.fcntl(writing, 1031, 1024 * 1024)
        return "F_SETPIPE_SZ works"
    finally:
        os.close(reading)
        os.close(writing)


NULL = ctypes.c_void_p(None)
syscall_attempt("ptrace", 0x4206, 2**30, 0, 0)
syscall_attempt("process_vm_readv", 2**30, NULL, 0, NULL, 0, 0)
syscall_attempt("process_vm_writev", 2**30, NULL, 0, NULL, 0, 0)
syscall_attempt("pidfd_open", 1, 0xFFFF)
syscall_attempt("pidfd_getfd", -1, 0, 0)
syscall_attempt("pidfd_send_signal", -1, 0, NULL, 0)
syscall_attempt("process_madvise", -1, NULL, 0, 0, 0)
syscall_attempt("pivot_root", NULL, NULL)
syscall_attempt("umount2", NULL, 0)
syscall_attempt("open_tree", -1, NULL, 0)
syscall_attempt("fsopen", NULL, 0)
syscall_attempt("mount_setattr", -1, NULL, 0, NULL, 0)
syscall_attempt("chroot", NULL)
syscall_attempt("setns", -1, 0)
syscall_attempt("unshare", 0x10)
syscall_attempt("setresuid", os.getuid(), os.getuid(), os.getuid())
syscall_attempt("setgroups", -1, NULL)
syscall_attempt("capset", NULL, NULL)
syscall_attempt("keyctl", 0, -3, 0)
syscall_attempt("add_key", NULL, NULL, NULL, 0, 0)
syscall_attempt("request_key", NULL, NULL, NULL, 0)
syscall_attempt("bpf", 999, NULL, 0)
syscall_attempt("io_uring_setup", 1, NULL)
syscall_attempt("perf_event_open", NULL, 0, -1, -1, 0)
syscall_attempt("userfaultfd", 0xFFFF)
syscall_attempt("memfd_create", b"x", 0)
syscall_attempt("execveat", -1, b"", NULL, NULL, 0x1000)
syscall_attempt("open_by_handle_at", -1, NULL, 0)
syscall_attempt("name_to_handle_at", -1, NULL, NULL, NULL, 0)
syscall_attempt("fanotify_init", 0xFFFFFF, 0)
syscall_attempt("kcmp", os.getpid(), os.getpid(), 99, 0, 0)
syscall_attempt("syslog", 10, NULL, 0)
syscall_attempt("personality", 0xFFFFFFFF)
syscall_attempt("adjtimex", NULL)
syscall_attempt("clock_settime", 99, NULL)
syscall_attempt("sethostname", NULL, -1)
syscall_attempt("swapon", NULL, 0)
syscall_attempt("reboot", 0, 0, 0, NULL)
syscall_attempt("init_module", NULL, 0, NULL)
syscall_attempt("shmget", 0x1234, 4096, 0o1600)
syscall_attempt("semget", 0x1234, 1, 0o1600)
syscall_attempt("msgget", 0x1234, 0o1600)
syscall_attempt("mq_open", NULL, 0, 0, NULL)
if IS_X86:
    syscall_attempt("iopl", 99)
    syscall_attempt("modify_ldt", 0, NULL, 0)


def main():
    bait.update(json.loads(sys.argv[1]))
    results = {}
    for name, function in ATTEMPTS.items():
        try:
            results[name] = function()
        except (OSError, ValueError) as error:
            results[name] = None
            print(name, error, file=sys.stderr)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
