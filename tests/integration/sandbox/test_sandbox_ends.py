"""Exit statuses and reasons, views of the host, the pool, the command, and machines that offer less."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import LIMITS, sandbox_of

from actors.sandbox import selftest
from actors.sandbox.child import Child
from actors.sandbox.errors import SandboxStartError, SandboxUnavailableError
from actors.sandbox.exits import Reason
from actors.sandbox.pool import WarmPool
from actors.sandbox.program import Command, Program, View
from actors.sandbox.sandbox import Level, Sandbox

ROOT = Path(__file__).parents[3]


def cli(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sofia2.sandbox", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, **options)


@pytest.mark.parametrize(
    ("source", "status", "reason"),
    [
        ("pass", 0, Reason.EXITED),
        ("import sys; sys.exit(7)", 7, Reason.EXITED),
        ("import sys; sys.exit('sorry')", 1, Reason.EXITED),
        ("1 / 0", 1, Reason.EXITED),
        ("def", 1, Reason.EXITED),
        ("import os; os._exit(3)", 3, Reason.EXITED),
        ("import signal, time; signal.raise_signal(9); time.sleep(9)", 137, Reason.SIGNAL),
        ("import ctypes; ctypes.string_at(0)", 139, Reason.SIGNAL),
    ],
)
async def test_status_and_reason(full, runner, source, status, reason):
    result = await runner(full, source)
    assert (result.end.status, result.end.reason) == (status, reason)


async def test_a_crash_at_the_fallback_level(runner):
    result = await runner(sandbox_of(2), "import ctypes; ctypes.string_at(0)")
    assert (result.end.status, result.end.reason) == (139, Reason.SIGNAL)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the table of 32-bit calls is x86's")
async def test_a_call_by_the_table_of_32_bits_ends_the_program(sandbox, runner):
    """``int 0x80`` would bypass a filter that looks at numbers only. getpid there is 20."""
    source = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")
function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
print(function(), flush=True)
"""
    result = await runner(sandbox, source)
    assert result.end.reason is Reason.SECCOMP
    assert result.output == ""


async def test_a_traceback_shows_the_program_only(sandbox, runner):
    result = await runner(sandbox, "def f():\n    1 / 0\nf()")
    assert result.errors.splitlines()[1].strip().startswith('File "program.py", line 3')
    assert "bootstrap" not in result.errors


async def test_what_programs_need_works(full, runner):
    source = """
import asyncio, sqlite3, ssl, json, tempfile, threading, uuid, zoneinfo, os, sys
async def main():
    return await asyncio.to_thread(lambda: 5)
assert asyncio.run(main()) == 5
with tempfile.NamedTemporaryFile("w+") as file:
    file.write("x")
database = sqlite3.connect("data.db")
database.execute("create table t (a)")
database.execute("insert into t values (1)")
database.commit()
zoneinfo.ZoneInfo("Europe/Madrid")
assert os.getcwd() == os.environ["HOME"] == "/work"
assert sys.argv == ["program.py", "a", "--b"]
assert __name__ == "__main__"
print("done")
"""
    result = await runner(full, source, "a", "--b", limits=replace(LIMITS, memory_mb=128))
    assert (result.output, result.errors) == ("done\n", "")


async def test_no_privilege_is_left(full, runner):
    """The bounding set too, where it may be emptied."""
    result = await runner(full, "print(open('/proc/self/status').read())")
    status = dict(line.split(":\t") for line in result.output.splitlines() if ":\t" in line)
    names = ["CapInh", "CapPrm", "CapEff", "CapAmb"] + (["CapBnd"] if full.has_own_users else [])
    assert {name: int(status[name], 16) for name in names} == dict.fromkeys(names, 0)
    assert (status["NoNewPrivs"], status["Seccomp"], status["Groups"].strip()) == ("1", "2", "")
    if full.has_own_users:
        assert "0" not in status["Uid"].split() + status["Gid"].split()


async def test_a_view_is_seen_and_read_only(sandbox, runner, tmp_path):
    folder = tmp_path / "kp"
    folder.mkdir()
    (folder / "module.py").write_text("value = 42")
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    place = sandbox.locate(folder, "/kp")
    source = f"""
import sys
sys.path.insert(0, {place!r})
import module
print(module.value)
try:
    open({place!r} + "/new", "w")
except OSError:
    print("read-only")
"""
    result = await runner(sandbox, source, views=(View(folder, "/kp"),))
    assert result.output == "42\nread-only\n", result.errors


async def test_a_view_that_does_not_exist_is_an_error_at_the_start(full):
    with pytest.raises(SandboxStartError, match="nowhere"):
        await Child.start(full, LIMITS, views=(View(Path("/nowhere"), "/kp"),))


async def test_another_program_can_be_executed(full):
    output = bytearray()
    async with await Child.start(full, LIMITS) as child:
        command = Command(("/python/bin/python3", "-I", "-S", "-c", "print(5)"))
        child.run(command, on_output=lambda stream, data: output.extend(data))
        assert (await child.wait()).is_success
    assert output == b"5\n"


async def test_other_languages_need_the_full_level():
    async with await Child.start(sandbox_of(2), LIMITS) as child:
        with pytest.raises(SandboxUnavailableError, match="level 3"):
            child.run(Command(("/bin/true",)))


@pytest.mark.skipif(not os.path.exists("/usr/bin/node"), reason="Node is not installed")
async def test_node_runs_inside_and_has_the_channel(full):
    source = """
const net = require("net"), fs = require("fs");
try { fs.readFileSync("/etc/passwd"); console.log("read"); } catch (error) { console.log(error.code); }
require("http").get("http://127.0.0.1:80").on("error", error => {
    console.log(error.code);
    const channel = new net.Socket({fd: 3, readable: true, writable: true});
    const body = Buffer.from('{"id":1,"call":"ask","with":7}'), head = Buffer.alloc(4);
    head.writeUInt32BE(body.length);
    channel.write(Buffer.concat([head, body]));
    channel.on("data", data => { console.log(data.subarray(4).toString()); process.exit(5); });
});
"""
    output = bytearray()
    limits = replace(LIMITS, memory_mb=1024, processes=32)
    async with await Child.start(full, limits, views=(View(Path("/usr/bin/node"), "/usr/bin/node"),)) as child:
        child.run(
            Command(("/usr/bin/node", "-e", source)),
            on_call=lambda method, payload: payload * 2,
            on_output=lambda stream, data: output.extend(data),
        )
        end = await child.wait()
    assert output.decode().split() == ["ENOENT", "EPERM", '{"id":1,"result":14}']
    assert end.status == 5


async def test_usage_is_told_while_it_runs(full):
    if not full.cgroups:
        pytest.skip("no cgroup on this machine")
    async with await Child.start(full, LIMITS) as child:
        usage = child.usage()
        assert usage.memory_bytes
        assert usage.memory_bytes > 0
        assert usage.processes


async def test_pool_gives_each_child_once(full):
    pool = WarmPool(full, LIMITS, size=2)
    try:
        await pool.fill()
        begin = time.perf_counter()
        first, second = await pool.take(), await pool.take()
        taken_s = time.perf_counter() - begin
        third = await pool.take()
        assert len({first.pid, second.pid, third.pid}) == 3
        assert taken_s < 0.02
        for child in (first, second, third):
            async with child:
                child.run(Program("program.py", source=b"import sandbox_channel as c\nc.serve({'a': lambda p: p})"))
                assert await child.call("a", 1, timeout_s=10) == 1
    finally:
        await pool.close()


async def test_pool_replaces_what_died(full):
    pool = WarmPool(full, LIMITS, size=1)
    try:
        await pool.fill()
        pool._waiting[0].kill()
        async with await pool.take() as child:
            assert child.is_alive
    finally:
        await pool.close()


async def test_nothing_is_left_behind(full, runner):
    """Descriptors, and groups."""
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        await runner(full, "pass")
    assert set(os.listdir("/proc/self/fd")) <= before
    deadline = time.monotonic() + 10
    while groups() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert groups() == []


@pytest.mark.parametrize("after_s", [0, 0.001, 0.005, 0.02, 0.05])
async def test_a_start_that_is_given_up_leaves_nothing(full, after_s):
    starting = asyncio.create_task(Child.start(full, LIMITS))
    await asyncio.sleep(after_s)
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await (await starting).close()
    deadline = time.monotonic() + 30
    while (groups() or children()) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert (groups(), children()) == ([], [])


async def test_a_start_that_takes_too_long_is_given_up(full, monkeypatch):
    monkeypatch.setattr("actors.sandbox.child.START_S_MAX", 0.001)
    with pytest.raises(SandboxStartError, match="not ready"):
        await Child.start(full, LIMITS)


async def test_many_at_once(sandbox, runner):
    results = await asyncio.gather(*(runner(sandbox, f"print({number})") for number in range(12)))
    assert [int(result.output) for result in results] == list(range(12))


def children() -> list[str]:
    """Processes of bubblewrap that this one started."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            with contextlib.suppress(OSError):
                found += [pid] if "bwrap" in Path(f"/proc/{pid}/cmdline").read_text() else []
    return found


def groups() -> list[str]:
    """Groups of this process's children; walking ignores what vanishes meanwhile."""
    name = f"sofia2-sandbox-{os.getpid()}-"
    return [
        f"{folder}/{found}"
        for folder, names, _ in os.walk("/sys/fs/cgroup")
        for found in names
        if found.startswith(name)
    ]


async def test_self_test_finds_the_level():
    report = await selftest.check()
    assert report.is_enough, report.lines()
    assert len(report.passed) >= 17


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user is refused some of it outside too")
def test_self_test_can_fail(tmp_path):
    """Outside of a sandbox its attempts succeed. Those for limits are left out: they would fill the machine."""
    (tmp_path / "bait").write_text("bait")
    program = f"""
import json, os, sys
sys.path.insert(0, {str(ROOT / "actors/sandbox")!r})
os.chdir({str(tmp_path)!r})
import selftest_program as program
program.bait.update(json.loads(sys.argv[1]))
for name in ("disk", "inodes", "memory", "threads", "mounts"):
    del program.probes[name]
os.open(os.devnull, os.O_RDONLY)
results = {{}}
for name, function in program.probes.items():
    try:
        results[name] = function()
    except OSError as error:
        results[name] = None
print(json.dumps(results))
"""
    bait = {
        "file": str(tmp_path / "bait"),
        "folder": str(tmp_path),
        "pid": os.getpid(),
        "variable": "BAIT",
        "can_fork": False,
    }
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(bait)],
        capture_output=True,
        text=True,
        check=True,
        env={"BAIT": "1"},
        pass_fds=(1, 2, 4) if os.path.exists("/proc/self/fd/4") else (),
    )
    results = json.loads(done.stdout)
    assert [name for name, found in results.items() if not found] == []


async def test_without_cgroup_programs_cannot_fork(runner):
    sandbox = sandbox_of(3, cgroups=False)
    result = await runner(sandbox, "import os\nos.fork()")
    assert "PermissionError" in result.errors
    shared = "import mmap\nkept = [mmap.mmap(-1, 8 << 20) for _ in range(100)]"
    result = await runner(sandbox, shared)
    assert "OSError" in result.errors or "MemoryError" in result.errors


async def test_a_bubblewrap_that_is_refused_is_reported(tmp_path):
    """As in a container without namespaces."""
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: Creating new namespace failed' >&2\nexit 1\n")
    fake.chmod(0o755)
    with pytest.raises(SandboxStartError, match="Creating new namespace failed"):
        await Child.start(Sandbox(Level.FULL, bwrap=fake, has_own_users=os.geteuid() == 0), LIMITS)


def test_the_command_is_carried_out_without_its_tree(tmp_path):
    file = tmp_path / "program.py"
    file.write_text("import sys\nprint(sys.argv[1:])\nsys.exit(9)")
    program = "import sys; sys.argv[:1] = ['sofia2', 'sandbox']; from sofia2.main import main; main()"
    command = [sys.executable, "-c", program, "run", "--timeout", "20", str(file), "a", "--level", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("['a', '--level', '7']\n", 9), done.stderr


def test_run_passes_arguments_output_and_status(tmp_path):
    file = tmp_path / "program.py"
    file.write_text("import sys\nprint(sys.argv[1:])\nprint('e', file=sys.stderr)\nsys.exit(9)")
    for level in ("3", "2"):
        done = cli("run", "--level", level, str(file), "a", "--timeout", "x")
        assert (done.stdout, done.stderr, done.returncode) == ("['a', '--timeout', 'x']\n", "e\n", 9)


def test_run_after_its_time(tmp_path):
    file = tmp_path / "program.py"
    file.write_text("while True: pass")
    done = cli("run", "--timeout", "0.5", str(file))
    assert done.returncode == 4
    assert "its time was over" in done.stderr


def test_run_of_what_is_no_file(tmp_path):
    assert cli("run", str(tmp_path / "none.py")).returncode == 2
    assert cli("run", "--level", "1", str(Path(__file__))).returncode == 2


def test_run_of_a_kp_that_is_not_deployed(tmp_path):
    assert cli("run", "--env-of", "nobody", "--data", str(tmp_path / "none"), __file__).returncode == 1


def test_check_tells_the_level():
    done = cli("check", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["level"] in (2, 3)
    assert cli("check").stdout.startswith("level ")


def test_run_and_check_import_no_ray(tmp_path):
    program = "import sys; from sofia2.sandbox import main; main(['check']); assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("level", ["3", "2"])
def test_the_client_of_kps_is_there_and_says_that_nobody_answers(tmp_path, level):
    file = tmp_path / "program.py"
    file.write_text(
        "import asyncio, sofia2\n"
        "async def main():\n"
        "    try:\n"
        "        async with sofia2.KP() as kp:\n"
        "            pass\n"
        "    except sofia2.RefusedError as error:\n"
        "        print(error.code)\n"
        "asyncio.run(main())\n"
    )
    done = cli("run", "--level", level, str(file))
    assert (done.stdout, done.returncode) == ("sandbox.program_error\n", 0), done.stderr


@pytest.mark.skipif(not os.path.exists("/usr/bin/node"), reason="Node is not installed")
def test_a_javascript_file_runs_as_a_kp_runs(tmp_path):
    file = tmp_path / "program.mjs"
    file.write_text(
        'import { createRequire } from "module";\n'
        'const { KP } = createRequire("/kp/")("sofia2");\n'
        "console.log(typeof KP, process.cwd(), ...process.argv.slice(2));\n"
        "process.exit(7);\n"
    )
    done = cli("run", str(file), "one", "two")
    assert (done.stdout, done.returncode) == ("function /work one two\n", 7), done.stderr
    refused = cli("run", "--level", "2", str(file))
    assert (refused.returncode, "level 3 only" in refused.stderr) == (2, True)
