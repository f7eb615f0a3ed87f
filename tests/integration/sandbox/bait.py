"""What a program inside must not reach: files, processes, sockets, shared memory, laid out on the host."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "SOFIA2_TEST_PASSWORD"


@contextlib.contextmanager
def laid(folder: Path) -> Iterator[dict[str, object]]:
    """The bait, as the attempts get it."""
    folder.chmod(0o755)
    secret = folder / "secret"
    secret.write_text("the secret")
    other = folder / "kps" / "other" / "data"
    other.parent.mkdir(parents=True)
    other.write_text("another KP's data")
    writable = folder / "open" / "writable"
    writable.parent.mkdir(mode=0o777)
    writable.parent.chmod(0o777)
    writable.write_text("x")
    writable.chmod(0o666)
    name = f"sofia2-test-{uuid.uuid4().hex}"
    shared = Path("/dev/shm") / name
    shared.write_text("shared")
    shared.chmod(0o666)
    libc = ctypes.CDLL(None, use_errno=True)
    segment = libc.shmget(0, 4096, 0o1666)
    victim = subprocess.Popen(["sleep", "600"], env={"DB_PASSWORD": "secret"})
    inherited = os.open(secret, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    os.environ[VARIABLE] = "secret"
    with contextlib.ExitStack() as stack:
        stack.callback(os.environ.pop, VARIABLE)
        stack.callback(os.close, inherited)
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        stack.callback(shared.unlink)
        stack.callback(libc.shmctl, segment, 0, None)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        path = stack.enter_context(socket.socket(socket.AF_UNIX))
        path.bind(str(folder / "raylet"))
        path.listen()
        (folder / "raylet").chmod(0o777)
        datagram = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        datagram.bind(str(folder / "log"))
        (folder / "log").chmod(0o777)
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind("\0" + name)
        abstract.listen()
        yield {
            "secret": str(secret),
            "other_kp": str(other),
            "writable": str(writable),
            "beside": str(folder / "open" / "hard"),
            "own": str(folder),
            "packages": str(Path(sys.modules["orjson"].__file__ or "").parent.parent),
            "supervisor": os.getpid(),
            "victim": victim.pid,
            "variable": VARIABLE,
            "shm": name,
            "sysv": segment,
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "unix": str(folder / "raylet"),
            "unix_datagram": str(folder / "log"),
            "abstract": name,
            "outside": True,
        }
