"""Programs that take everything they can get: each is stopped at its limit, and nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import LIMITS

from actors.sandbox.child import Child
from actors.sandbox.confinement import USER_FIRST, USERS_COUNT
from actors.sandbox.exits import Reason
from actors.sandbox.program import Program
from actors.sandbox.sandbox import Level

ROOT = Path(__file__).parents[3]


def processes_of(pid: int) -> list[str]:
    """What runs as the user of this child (on a platform that is root), or else as its first program."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_its = folder.stat().st_uid == USER_FIRST + pid % USERS_COUNT
            if is_its or f"/sandbox/inside/first.py\0{pid}" in (folder / "cmdline").read_text():
                found.append(folder.name)
        except OSError:
            continue
    return found


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="processes are found by their own user, which needs root")
needs_cgroup = "this machine gives no cgroup: programs cannot fork, and processor time is not bounded"


async def test_fork_bomb(sandbox, runner):
    source = """
import os, time
count = 0
try:
    for _ in range(200):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        count += 1
except OSError as error:
    print(count, error.errno)
"""
    result = await runner(sandbox, source)
    count, code = map(int, result.output.split())
    assert count <= LIMITS.processes
    assert code == (11 if sandbox.can_fork(LIMITS) else 1)


async def test_thread_bomb(sandbox, runner):
    source = """
import threading
threading.stack_size(32768)
end, threads = threading.Event(), []
try:
    for _ in range(500):
        thread = threading.Thread(target=end.wait)
        thread.start()
        threads.append(thread)
except RuntimeError:
    pass
print(len(threads))
end.set()
"""
    result = await runner(sandbox, source)
    assert 0 < int(result.output) <= LIMITS.processes


async def test_private_memory_bomb(sandbox, runner):
    source = "kept = []\nwhile True:\n    kept.append(bytearray(4 << 20))\n"
    result = await runner(sandbox, source)
    assert "MemoryError" in result.errors or result.end.reason is Reason.MEMORY


SHARED = """
import mmap
kept = []
try:
    for number in range(100):
        block = mmap.mmap(-1, 4 << 20)
        for offset in range(0, 4 << 20, 4096):
            block[offset] = 1
        kept.append(block)
except OSError:
    pass
print(len(kept) * 4, flush=True)
"""


async def test_shared_memory_bomb(sandbox, runner):
    result = await runner(sandbox, SHARED)
    allowed_mb = LIMITS.memory_mb + LIMITS.disk_mb + 64  # without a cgroup: the address space, libraries included
    assert result.end.reason is Reason.MEMORY or int(result.output) <= allowed_mb


async def test_forked_memory_bomb(sandbox, runner):
    source = """
import os, time
held = []
for _ in range(8):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        kept = []
        try:
            for _ in range(10):
                kept.append(bytearray(b"x") * (4 << 20))
                os.write(writing, b"x")
        except MemoryError:
            pass
        time.sleep(60)
    os.close(writing)
    held.append(reading)
time.sleep(2)
print(sum(len(os.read(reading, 100)) for reading in held) * 4, flush=True)
"""
    result = await runner(sandbox, source, limits=replace(LIMITS, timeout_s=8.0))
    if not sandbox.can_fork(LIMITS):
        assert "PermissionError" in result.errors
    else:
        usage = result.end.usage.memory_peak_bytes
        assert usage is not None
        assert usage <= (LIMITS.memory_mb + LIMITS.disk_mb + 8) << 20
        assert usage >= LIMITS.memory_mb << 20, "the bomb was too small to prove anything"


async def test_disk_bomb(sandbox, runner):
    source = """
import os
for folder in (".", "/tmp", "/dev/shm", "/var/tmp"):
    for number in range(4):
        try:
            with open(f"{folder}/large{number}", "wb") as file:
                for _ in range(100):
                    file.write(bytes(1 << 20))
                    print("x", end="")
        except OSError:
            pass
"""
    result = await runner(sandbox, source)
    assert result.end.is_success
    assert len(result.output) <= LIMITS.disk_mb + 8  # buffered writes that failed are counted too
    if sandbox.level is Level.FULL:
        assert "x" in result.output


async def test_inode_bomb(sandbox, runner):
    source = """
count = 0
for folder in (".", "/tmp"):
    try:
        for number in range(10_000):
            open(f"{folder}/file{number}", "w").close()
            count += 1
    except OSError:
        pass
print(count)
"""
    result = await runner(sandbox, source)
    assert int(result.output) <= LIMITS.inodes
    assert (int(result.output) > 0) == (sandbox.level is Level.FULL)


async def test_sparse_file_is_as_large_as_it_says(full, runner):
    source = "import os\nos.truncate(os.open('f', os.O_CREAT | os.O_RDWR), 1 << 40)"
    result = await runner(full, source)
    assert "OSError" in result.errors or result.end.reason is Reason.SIGNAL


async def test_open_files(sandbox, runner):
    source = """
import os
count = 0
try:
    while True:
        os.open("/dev/null", os.O_RDONLY)
        count += 1
except OSError:
    print(count)
"""
    result = await runner(sandbox, source)
    assert int(result.output) <= LIMITS.open_files


WORK = """
import time
while time.process_time() < 0.6:
    pass
"""


@pytest.mark.parametrize(("cpu", "timeout_s", "is_done"), [(0.05, 2.0, False), (2.0, 20.0, True)])
async def test_processor_time_is_bounded(full, runner, cpu, timeout_s, is_done):
    """With little of a processor the work is not done in time; with enough it is, so the bound is what stops it."""
    if not full.cgroups:
        pytest.skip(needs_cgroup)
    result = await runner(full, WORK, limits=replace(LIMITS, cpu=cpu, timeout_s=timeout_s))
    assert result.end.reason is (Reason.EXITED if is_done else Reason.TIMEOUT)
    assert ((result.end.usage.cpu_s or 0) > 0.55) == is_done


async def test_processor_time_is_bounded_for_all_processes_together(full, runner):
    if not full.cgroups:
        pytest.skip(needs_cgroup)
    source = """
import os
for _ in range(5):
    if os.fork() == 0:
        break
while True:
    pass
"""
    result = await runner(full, source, limits=replace(LIMITS, cpu=0.1, timeout_s=2.0))
    assert result.end.reason is Reason.TIMEOUT
    assert (result.end.usage.cpu_s or 0) < 0.1 * 2.0 + 0.3


async def test_time_out_ends_a_program_that_ignores_signals(sandbox, runner):
    source = """
import signal, time
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
print("ready", flush=True)
while True:
    time.sleep(10)
"""
    begin = time.monotonic()
    result = await runner(sandbox, source, limits=replace(LIMITS, timeout_s=0.7))
    assert result.output == "ready\n"
    assert result.end.reason is Reason.TIMEOUT
    assert time.monotonic() - begin < 5


DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (0, 1, 2, 3):
            os.close(number)
        time.sleep(600)
    os._exit(0)
os.wait()
print("daemon", flush=True)
if len(sys.argv) > 1:
    time.sleep(600)
"""


@needs_root
@pytest.mark.parametrize("ending", ["exits", "is stopped", "time-out"])
async def test_double_forked_daemon_ends_with_its_program(full, ending):
    if not full.can_fork(LIMITS):
        pytest.skip(needs_cgroup)
    said = asyncio.Event()
    limits = replace(LIMITS, timeout_s=1.5 if ending == "time-out" else 20.0)
    async with await Child.start(full, limits) as child:
        arguments = () if ending == "exits" else ("stay",)
        child.run(Program("daemon.py", arguments, source=DAEMON.encode()), on_output=lambda stream, data: said.set())
        await said.wait()
        if ending != "exits":
            assert processes_of(child.pid), "the daemon cannot be found: the check below would prove nothing"
        if ending == "is stopped":
            child.kill()
        await child.wait()
        assert processes_of(child.pid) == []


async def test_fork_is_refused_where_a_daemon_would_survive(runner, sandbox):
    if sandbox.can_fork(LIMITS):
        pytest.skip("forks are possible, and end with their program")
    result = await runner(sandbox, DAEMON)
    assert "PermissionError" in result.errors


@needs_root
@pytest.mark.parametrize("level", [3, 2])
def test_nothing_survives_the_supervisor(level, tmp_path):
    """kill -9 of the supervisor ends the program."""
    file = tmp_path / "program.py"
    file.write_text("import os, time\nprint(os.getuid(), flush=True)\nwhile True: time.sleep(1)\n")
    command = [sys.executable, "-m", "sofia2.sandbox", "run", "--level", str(level), str(file)]
    supervisor = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    line = supervisor.stdout.readline()
    if not line:
        supervisor.wait()
        pytest.skip(f"level {level} is not possible on this machine")
    supervisor.send_signal(signal.SIGKILL)
    supervisor.wait()
    supervisor.stdout.close()
    deadline = time.monotonic() + 5
    while running(int(line)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert running(int(line)) == []


def running(uid: int) -> list[str]:
    """Processes whose real user it is, zombies left out."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            lines = (folder / "status").read_text().splitlines()
        except OSError:
            continue
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        if fields["Uid"].split()[0] == str(uid) and "Z" not in fields["State"]:
            found.append(folder.name)
    return found


async def test_output_flood(sandbox, runner):
    source = "import os\nwhile True:\n    os.write(1, b'x' * 65536)"
    result = await runner(sandbox, source)
    assert result.end.reason is Reason.OUTPUT
    assert len(result.output) == LIMITS.output_bytes


async def test_output_without_a_bound_is_slowed_down(full):
    """A flood reaches the supervisor at a bounded rate, and is not collected anywhere."""
    received = 0

    def count(stream: int, data: bytes) -> None:
        nonlocal received
        received += len(data)

    limits = replace(LIMITS, output_bytes=None, timeout_s=1.5)
    async with await Child.start(full, limits) as child:
        child.run(Program("flood.py", source=b"import os\nwhile True:\n    os.write(1, b'x' * 65536)"), on_output=count)
        await child.wait()
    assert 0 < received < 8 * 1024 * 1024 * 4
