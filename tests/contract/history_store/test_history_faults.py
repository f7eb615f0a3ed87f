"""HDFS that is down, frozen or in safe mode: a clear error in bounded time, and recovery by itself."""

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from sib.errors import StoreError, StoreUnavailableError
from storage.bdh.files import open_files
from tests.own_servers import eventually, own_server

ROOT = Path(__file__).parents[3]
BOUND_S = 40
"""A few times the limits of single calls: a transfer makes several."""
DATA = memoryview(os.urandom(3_000_000))
DAY_1, DAY_2 = datetime(2026, 1, 1, 10), datetime(2026, 1, 2)
FAULTS = {
    "namenode frozen": lambda cluster: cluster.frozen("namenode"),
    "datanode frozen": lambda cluster: cluster.frozen("datanode"),
    "namenode killed": lambda cluster: cluster.killed("namenode"),
    "datanode killed": lambda cluster: cluster.killed("datanode"),
    "safe mode": lambda cluster: cluster.safe_mode(),
}

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """An HDFS of this module alone: it is killed and frozen."""
    with own_server("hdfs", tmp_path_factory.mktemp("hdfs")) as hdfs:
        yield hdfs


@pytest.fixture(params=["hdfs", "webhdfs"])
def bdh_url(request, cluster):
    cluster.start()  # what the test before has killed
    return f"{cluster.urls()[request.param]}/{uuid.uuid4().hex}"


@pytest.fixture
def is_impatient(monkeypatch):
    """Time limits of tests that are not about their length."""
    for module in ("hdfs_rpc", "hdfs_web"):
        monkeypatch.setattr(f"storage.bdh.{module}.CALL_TIMEOUT_S", 2.0)
        monkeypatch.setattr(f"storage.bdh.{module}.DATA_TIMEOUT_S", 3.0)


@contextmanager
def bounded(error=StoreUnavailableError):
    began = time.monotonic()
    with pytest.raises(error) as caught:
        yield
    assert time.monotonic() - began < BOUND_S
    assert "HDFS" in str(caught.value)


def write(files, name):
    eventually(lambda: files.put(f"S/{name}", f"S/_tmp/{name}", DATA), StoreUnavailableError)


def reads(files, name):
    return eventually(lambda: files.read(f"S/{name}"), StoreUnavailableError) == DATA


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "safe mode"])
def test_files_while_a_daemon_is_away(cluster, files, fault):
    write(files, "before")
    with FAULTS[fault](cluster):
        with bounded():
            files.put("S/during", "S/_tmp/during", DATA)
        with bounded():
            files.read("S/before")
    write(files, "during")
    assert reads(files, "during")
    assert reads(files, "before")


def test_safe_mode_can_be_read_but_not_written(cluster, files):
    write(files, "before")
    with cluster.safe_mode():
        with bounded():
            files.put("S/during", "S/_tmp/during", DATA)
        assert files.read("S/before") == DATA
    write(files, "during")
    assert reads(files, "during")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.usefixtures("is_impatient")
def test_a_transfer_ends_with_an_error_and_goes_on_later(cluster, world, fault):
    """The fault begins when the files are about to be written, the worst moment: the plan is in the journal."""
    world.insert(range(500), DAY_1)
    away = FAULTS[fault](cluster)

    class Planned:
        def __getattr__(self, name):
            return getattr(world.journal, name)

        def plan(self, *arguments):
            number = world.journal.plan(*arguments)
            away.__enter__()
            return number

    try:
        with bounded():
            world.transfer(steps=Planned()).run(DAY_2)
    finally:
        away.__exit__(None, None, None)
    assert world.store.count("S") == 500
    result = eventually(lambda: world.transfer().run(DAY_2), StoreUnavailableError)
    assert world.history() == list(range(500))
    assert (result.n_resumed, result.n_moved, world.store.count("S")) == (1, 500, 0)


HALF_WRITER = """
import sys, time
from storage.bdh.files import open_files

files = open_files(sys.argv[1])
if sys.argv[1].startswith("hdfs:"):
    from hdfs_native import WriteOptions

    files._make_folder("S/_tmp/x")
    writer = files._call(lambda client: client.create(files._full("S/_tmp/x"), WriteOptions(overwrite=True)), "x")
    files._await(writer.write(bytes(5 << 20)), 10, "x")
else:
    def chunks():
        yield bytes(5 << 20)
        print("written", flush=True)
        time.sleep(600)

    files._client.makedirs(files._full("S/_tmp"))
    files._client.write(files._full("S/_tmp/x"), data=chunks(), overwrite=True)
print("written", flush=True)
time.sleep(600)
"""


def start(program, *arguments):
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )


def test_what_a_killed_writer_left_half_written_is_written_over(files, bdh_url):
    """HDFS keeps the file open for the writer that is gone: the next one takes it away from it."""
    writer = start(HALF_WRITER, bdh_url)
    try:
        assert writer.stdout.readline() == "written\n"
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    assert [entry.name for entry in files.entries("S/_tmp")] == ["x"]
    began = time.monotonic()
    files.put("S/whole", "S/_tmp/x", DATA)
    assert time.monotonic() - began < BOUND_S
    assert files.read("S/whole") == DATA
    assert files.entries("S/_tmp") == []


ENDING = """
import sys
from sib.errors import StoreUnavailableError
from storage.bdh.files import open_files
from storage.bdh import hdfs_rpc

hdfs_rpc.CALL_TIMEOUT_S = hdfs_rpc.DATA_TIMEOUT_S = 2.0
files = open_files(sys.argv[1])
assert files.read("S/before", 0, 5) is not None
print("ready", flush=True)
sys.stdin.readline()
for call in (lambda: files.read("S/before"), lambda: files.put("S/x", "S/_tmp/x", memoryview(b"x")), lambda: files.entries("S")):
    try:
        call()
    except StoreUnavailableError:
        pass
print("ending", flush=True)
"""


@pytest.mark.parametrize("daemon", ["namenode", "datanode"])
@pytest.mark.parametrize("bdh_url", ["hdfs"], indirect=True)
def test_a_process_ends_while_a_daemon_owes_it_answers(cluster, files, bdh_url, daemon):
    write(files, "before")
    command = [sys.executable, "-c", ENDING, bdh_url]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        with cluster.frozen(daemon):
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "ending\n"
            assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_folder_of_somebody_else(files, bdh_url, monkeypatch):
    write(files, "mine")
    monkeypatch.setenv("HADOOP_USER_NAME", "put back at the end")
    kind, _, rest = bdh_url.partition("://")
    other = open_files(f"{kind}://somebody-else@{rest}")
    try:
        with bounded(StoreError):
            other.put("S/theirs", "S/_tmp/theirs", DATA)
        assert other.read("S/mine") == DATA
        files.put("S/mine-too", "S/_tmp/mine-too", DATA)
    finally:
        other.close()
