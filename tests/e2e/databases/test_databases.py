"""The platform on databases of servers: the KP tests unchanged, and what it does when a database is not there."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from sqlalchemy import create_engine

from benchmarks.servers import free_port
from tests.own_servers import folder_for_a_server, own_server

pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[3]
SSAP = ROOT / "tests" / "e2e" / "ssap"
CORE = ("devices", "queries", "subscriptions", "order", "rest", "client_frames")
"""The KP tests that use a platform as it is."""
ONTOLOGY, KP, TOKEN = "TestSensorTemperatura", "KPTestTemperatura", "e5e8a005d0a248f1ad2cd60a821e6838"
RECOVERY_S = 60
ANSWER_S = 100
"""An answer of a platform whose database is gone or frozen takes less."""


def database(url, name):
    """The URL of a new database beside the one of a MariaDB's URL."""
    engine = create_engine(url.replace("mysql:", "mysql+pymysql:"))
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
    engine.dispose()
    return f"{url.rpartition('/')[0]}/{name}"


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory):
    with own_server("mariadb", tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture(scope="module")
def started(command, tmp_path_factory):
    """Starts platforms; the URLs go by variables."""

    @contextmanager
    def begin(**urls):
        data = tmp_path_factory.mktemp("platform")
        environment = {f"SOFIA2_{name.upper()}": url for name, url in urls.items()}
        options = ("--detach", "--json", "--data", data, "--mqtt-port", 0, "--http-port", 0, "--ready-timeout", 180)
        done = command("start", *options, "--apply", ROOT / "tests/data/platform.yaml", environment=environment)
        assert done.returncode == 0, done.stderr
        try:
            yield SimpleNamespace(data=data, endpoints=json.loads(done.stdout)["endpoints"])
        finally:
            assert command("stop", "--data", data, timeout_s=60).returncode == 0

    return begin


@pytest.fixture(scope="module")
def on_mariadb(mariadb, started):
    """BDC and BDTR on one MariaDB, in databases of their own."""
    with started(bdc=database(mariadb.url, "sofia2_bdc"), bdtr=database(mariadb.url, "sofia2_bdtr")) as platform:
        yield platform


def run_kp_tests(platform, names=CORE):
    """The KP tests as they are, on this platform."""
    files = [str(SSAP / f"test_e2e_{name}.py") for name in names]
    environment = {**os.environ, "SOFIA2_TEST_DATA": str(platform.data)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        capture_output=True,
        text=True,
        timeout=800,
        cwd=ROOT,
        env=environment,
    )
    assert done.returncode == 0, done.stdout[-5000:]


def test_the_kp_tests_on_mariadb(on_mariadb):
    run_kp_tests(on_mariadb)


def test_the_kp_tests_on_mariadb_and_mongodb(mariadb, started, tmp_path):
    with (
        own_server("mongodb", tmp_path) as mongodb,
        started(bdc=database(mariadb.url, "sofia2_c2"), bdtr=mongodb.url) as platform,
    ):
        run_kp_tests(platform)


def test_the_kp_tests_on_postgresql(started):
    with (
        folder_for_a_server() as folder,
        own_server("postgresql", folder) as postgresql,
        started(bdtr=postgresql.url) as platform,
    ):
        run_kp_tests(platform, ("queries", "order"))


# ------------------------------------------------------------------------------- faults


class Device:
    """A KP over REST."""

    def __init__(self, platform):
        base = platform.endpoints["http"] + "/sib/services/api_ssap/v01/SSAPResource"
        self.base, self.client = base, httpx.Client(timeout=30, trust_env=False)
        self.key = None

    def join(self):
        value = {"join": True, "instanceKP": f"{KP}:fault", "token": TOKEN}
        self.key = self.client.post(self.base, json=value).raise_for_status().json()["sessionKey"]

    def insert(self, asset):
        sensor = {
            "geometry": {"coordinates": [40.5, -3.6], "type": "Point"},
            "assetId": asset,
            "measure": 1,
            "timestamp": {"$date": "2014-04-29T08:24:54.005Z"},
        }
        value = {"sessionKey": self.key, "ontology": ONTOLOGY, "data": {"Sensor": sensor}}
        return self.client.post(self.base, json=value)

    def query(self, asset):
        query = f"select * from {ONTOLOGY} where Sensor.assetId = '{asset}'"
        parameters = {"$sessionKey": self.key, "$query": query, "$queryType": "SQLLIKE", "$ontology": ONTOLOGY}
        return self.client.get(self.base, params=parameters)


def health(command, platform):
    done = command("status", "--data", platform.data, "--json", timeout_s=30)
    return json.loads(done.stdout)["databases"]


def eventually(check, within_s=RECOVERY_S):
    deadline = time.monotonic() + within_s
    while True:
        try:
            result = check()
        except httpx.HTTPError:
            result = None
        if result:
            return result
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.fixture(scope="module", params=["mariadb", "mongodb"])
def faulty(request, started, tmp_path_factory):
    """A platform with its server: MariaDB has both databases, MongoDB the BDTR."""
    if request.param == "mariadb":
        platform, server = request.getfixturevalue("on_mariadb"), request.getfixturevalue("mariadb")
        yield SimpleNamespace(platform=platform, server=server, databases={"bdc", "bdtr"})
        return
    with (
        own_server("mongodb", tmp_path_factory.mktemp("mongodb")) as server,
        started(bdtr=server.url) as platform,
    ):
        yield SimpleNamespace(platform=platform, server=server, databases={"bdtr"})


@pytest.fixture
def device(faulty):
    found = Device(faulty.platform)
    eventually(lambda: found.join() or found.insert("before").status_code == 200)
    yield found
    found.client.close()


def failed(health):
    return {name for name, each in health.items() if each["state"] == "failed"}


def test_a_database_that_goes_and_comes_back(command, faulty, device):
    with inserting(faulty.platform) as acknowledged:
        eventually(lambda: len(acknowledged) > 20)
        faulty.server("kill")
        try:
            began = time.monotonic()
            assert device.insert("while-gone").status_code >= 400
            read = device.query("before")
            assert read.status_code >= 400
            assert "database" in read.text.lower()
            assert time.monotonic() - began < ANSWER_S
            assert failed(health(command, faulty.platform)) == faulty.databases
            eventually(lambda: "cannot be reached" in health(command, faulty.platform)["bdtr"]["detail"])
            n_acknowledged = len(acknowledged)
        finally:
            faulty.server.start()
        eventually(lambda: len(acknowledged) > n_acknowledged + 20)
    assert [asset for asset in ("before", *acknowledged) if asset not in device.query(asset).text] == []
    eventually(lambda: not failed(health(command, faulty.platform)))


@contextmanager
def inserting(platform):
    """Another KP INSERTs meanwhile; gives the list of what was acknowledged."""
    device, acknowledged, is_over = Device(platform), [], threading.Event()
    mark = f"w{time.monotonic_ns()}"

    def work():
        for number in itertools.count():
            if is_over.is_set():
                return
            try:
                if device.key is None:
                    device.join()
                if device.insert(f"{mark}-{number}.").status_code == 200:
                    acknowledged.append(f"{mark}-{number}.")
            except httpx.HTTPError:
                device.key = None

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield acknowledged
    finally:
        is_over.set()
        thread.join()
        device.client.close()


def test_a_frozen_database_holds_up_nobody(command, faulty, device):
    pid = int((server_home(faulty.server) / "pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        found = health(command, faulty.platform)
        assert time.monotonic() - began < 20
        assert failed(found) == faulty.databases
        assert "has not answered" in found["bdtr"]["detail"]
        device.client.timeout = ANSWER_S
        assert device.insert("while-frozen").status_code >= 400
        assert device.query("before").status_code >= 400
    finally:
        os.kill(pid, signal.SIGCONT)
        device.client.timeout = 30
    eventually(lambda: device.insert("thawed").status_code == 200, within_s=120)
    assert "before" in device.query("before").text


@pytest.mark.parametrize("faulty", ["mariadb"], indirect=True)
def test_a_database_that_only_reads_takes_no_writes(mariadb, device):
    socket = server_home(mariadb) / "socket"
    root = create_engine(f"mysql+pymysql://root@localhost/?unix_socket={socket}")

    def set_read_only(value):
        with root.connect() as connection:
            connection.exec_driver_sql(f"SET GLOBAL read_only = {value}")

    set_read_only(1)
    try:
        refused = device.insert("read-only")
        assert refused.status_code >= 400
        assert device.query("before").status_code == 200
    finally:
        set_read_only(0)
        root.dispose()
    eventually(lambda: device.insert("writable").status_code == 200)


@pytest.fixture
def small_disk(tmp_path):
    """A folder that is a file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_refuses_writes_and_answers_queries_until_there_is_space(command, started, small_disk):
    with started(bdtr=f"sqlite:{small_disk}/bdtr") as platform:
        device = Device(platform)
        device.join()
        assert device.insert("before").status_code == 200
        ballast = small_disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        refused = device.insert("full" + "x" * 10_000)
        assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
        assert "the disk of the BDTR is full" in refused.text
        assert "send it again" in refused.text
        assert "before" in device.query("before").text
        found = health(command, platform)
        assert failed(found) == {"bdtr"}
        assert "the last write failed" in found["bdtr"]["detail"]
        assert "free some space" in found["bdtr"]["detail"]
        ballast.unlink()
        eventually(lambda: device.insert("after").status_code == 200)
        assert not failed(health(command, platform))
        assert [asset in device.query(asset).text for asset in ("before", "after")] == [True, True]
        device.client.close()


def test_a_full_disk_of_the_configuration_is_told_until_there_is_space(command, started, small_disk):
    with started(bdc=f"sqlite:///{small_disk}/bdc.db") as platform:
        device = Device(platform)
        ballast = small_disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass

        def join():
            return device.client.post(device.base, json={"join": True, "instanceKP": f"{KP}:full", "token": TOKEN})

        refused = eventually(lambda: (answer := join()).status_code == 503 and answer)
        assert "the disk of the BDC is full" in refused.text
        found = health(command, platform)
        assert failed(found) == {"bdc"}
        assert "the last write failed" in found["bdc"]["detail"]
        ballast.unlink()
        eventually(lambda: join().status_code == 200)
        eventually(lambda: not failed(health(command, platform)))
        device.client.close()


def server_home(server):
    return next(Path(server._environment["SOFIA2_SERVICES"]).glob(f"{server.name}*/pid")).parent


# ------------------------------------------------------------------------------- at the start


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("bdc", ("sofia2:sofia2@", "sofia2:hunter2@"), "refuses the user or the password"),
        ("bdtr", ("sofia2:sofia2@", "sofia2:hunter2@"), "refuses the user or the password"),
        ("bdc", ("/sofia2", "/sofia2_missing"), "has no such database"),
        ("bdc", None, "cannot be reached"),
        ("bdtr", None, "cannot be reached"),
    ],
)
def test_a_database_that_cannot_be_used_is_told_at_the_start(command, mariadb, tmp_path, name, change, sentence):
    if change is None:
        url = f"mysql://sofia2:hunter2@127.0.0.1:{free_port()}/sofia2"
    else:
        head, _, tail = mariadb.url.rpartition(change[0])
        url = head + change[1] + tail
    options = ("--detach", "--json", "--data", tmp_path / "data", "--mqtt-port", 0, "--http-port", 0)
    done = command("start", *options, environment={f"SOFIA2_{name.upper()}": url}, timeout_s=60)
    assert done.returncode == 70
    assert sentence in json.loads(done.stdout)["error"]
    assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["bdc", "bdtr"])
def test_a_database_of_a_newer_version_is_left_alone(command, mariadb, tmp_path, name):
    urls = {kind: database(mariadb.url, f"sofia2_newer_{name}_{kind}") for kind in ("bdc", "bdtr")}
    environment = {f"SOFIA2_{kind.upper()}": url for kind, url in urls.items()}
    assert command("db", "upgrade", "--data", tmp_path, environment=environment).returncode == 0
    engine = create_engine(urls[name].replace("mysql:", "mysql+pymysql:"))
    statement = {
        "bdc": "UPDATE alembic_version SET version_num = '9999'",
        "bdtr": "UPDATE t_meta SET num = num + 1000 WHERE name = 'format'",
    }[name]
    with engine.begin() as connection:
        assert connection.exec_driver_sql(statement).rowcount == 1
    engine.dispose()
    options = ("--detach", "--json", "--data", tmp_path, "--mqtt-port", 0, "--http-port", 0)
    done = command("start", *options, environment=environment, timeout_s=60)
    assert done.returncode == 2
    assert {"bdc": "newer version", "bdtr": "written in format"}[name] in done.stdout
    check = command("db", "check", "--json", "--data", tmp_path, environment=environment)
    assert check.returncode == 1
    assert [row["ok"] for row in json.loads(check.stdout)] == [name != "bdc", name != "bdtr", True]


def test_databases_move_between_backends(command, mariadb, tmp_path):
    """With passwords in a file and in a variable; a second copy finds everything there."""
    data = tmp_path / "data"
    assert command("apply", ROOT / "tests/data/platform.yaml", "--data", data).returncode == 0
    file = tmp_path / "url"
    file.write_text(database(mariadb.url, "sofia2_copied") + "\n")
    done = command("db", "copy", "bdc", f"@{file}", "--data", data, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["written"] > 10
    again = command(
        "db", "copy", "bdc", "env:TARGET", "--data", data, "--json", environment={"TARGET": file.read_text().strip()}
    )
    assert json.loads(again.stdout) == {"kind": "bdc", "written": 0}
    exported = [
        command("export", "--data", tmp_path / f"x{number}", environment=environment).stdout
        for number, environment in enumerate(
            [{"SOFIA2_BDC": f"sqlite:///{data}/bdc.db"}, {"SOFIA2_BDC_FILE": str(file)}]
        )
    ]
    assert KP in exported[0]
    assert exported[0] == exported[1]
    refused = command("db", "copy", "bdc", mariadb.url, "--data", data)
    assert refused.returncode == 2
    assert "@FILE" in refused.stderr
