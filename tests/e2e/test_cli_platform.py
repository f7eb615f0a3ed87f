"""A platform as a person handles it: start, look, change, stop."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
START_S = 180
KINDS = ["HttpGateway", "MqttGateway", "OntologyPartition", "Platform", "QueryWorker", "QueryWorker", "SessionShard"]

pytestmark = pytest.mark.timeout(300)


def processes_of(data) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SOFIA2_DATA_RUN") == str(data) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def is_open(address) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(address) == 0


def descendants(pid) -> set[int]:
    return {child.pid for child in psutil.Process(pid).children(recursive=True)}


def test_status_names_endpoints_databases_and_actors(platform):
    answer = platform.answer("status")
    assert (answer["ready"], answer["pid"], answer["endpoints"]) == (True, platform.pid, platform.endpoints)
    assert answer["modules"] == ["sib"]
    assert {name: health["state"] for name, health in answer["databases"].items()} == {
        "bdc": "ok",
        "bdtr": "ok",
        "bdh": "ok",
    }
    assert sorted(actor["kind"] for actor in answer["actors"]) == KINDS
    assert {actor["state"] for actor in answer["actors"]} == {"running"}
    # The platform's process is the ancestor of all of them.
    assert {actor["pid"] for actor in answer["actors"]} <= descendants(platform.pid)


def test_every_listener_accepts(platform):
    assert all(is_open(platform.address(name)) for name in ("mqtt", "http"))


def test_applying_the_same_file_again_changes_nothing(platform):
    before = platform.answer("status")["config_version"]
    report = platform.answer("apply", platform.apply_file)
    assert {item["outcome"] for item in report["objects"]} == {"unchanged"}
    assert platform.answer("status")["config_version"] == before


def test_what_is_exported_with_secrets_applies_unchanged(platform, tmp_path):
    done = platform.command("export", "--with-secrets")
    (tmp_path / "export.yaml").write_text(done.stdout)
    report = platform.answer("apply", tmp_path / "export.yaml")
    assert {item["outcome"] for item in report["objects"]} == {"unchanged"}


def test_an_export_shows_no_secrets(platform):
    text = platform.command("export").stdout
    assert platform.kp in text
    assert not any(secret in text for secret in (platform.token, platform.cipher_key, "$argon2"))


def test_a_wrong_file_changes_nothing_and_says_every_line(platform, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(
        "sofia2: 1\nusers:\n  - {name: eve, password: long-enough, rol: USUARIO}\nsettings:\n  query.row_cup: 1\n"
    )
    done = platform.command("apply", path)
    assert done.returncode == 2
    assert f"{path}:3:" in done.stderr
    assert f"{path}:5:" in done.stderr
    assert "eve" not in {user["name"] for user in platform.answer("user", "list")}


def insert(platform, kp, data, ontology="Anything"):
    message = {"messageType": "INSERT", "ontology": ontology, "body": {"data": data}}
    return platform.command("send", "--kp", kp, "--json", json.dumps(message))


def test_objects_made_by_commands_are_in_force_at_once(platform, tmp_path):
    (tmp_path / "password").write_text("another-password\n")
    platform.answer("user", "add", "olga", "--role", "COLABORADOR", "--password-file", tmp_path / "password")
    platform.answer("ontology", "add", "ByCommand", "--owner", "olga", "--template", "Empty")
    made = platform.answer("kp", "add", "KPByCommand", "--owner", "olga", "--ontology", "ByCommand")
    assert len(made["token"]) == 32
    done = insert(platform, "KPByCommand", {"a": 1}, "ByCommand")
    assert (done.returncode, json.loads(done.stdout)["body"]["ok"]) == (0, True)
    assert platform.answer("query", "select count(*) from ByCommand") == 1

    platform.answer("token", "set", "KPByCommand", made["token"][:6], "--inactive")
    assert (
        insert(platform, "KPByCommand", {"a": 2}, "ByCommand").returncode == 1
    )  # no active token is left to join with

    platform.answer("kp", "remove", "KPByCommand")
    assert platform.command("kp", "show", "KPByCommand").returncode == 1


@pytest.mark.parametrize("via", ["mqtt", "websocket"])
def test_send_and_query(platform, via):
    instance = {"LecturaTermostato": {"temp": 21.5, "hum": 40}}
    message = {"messageType": "INSERT", "ontology": "LecturaTermostato", "body": {"data": instance}}
    done = platform.command("send", "--via", via, "--kp", f"{platform.kp}:{via}", "--json", json.dumps(message))
    assert done.returncode == 0, done.stderr
    (row,) = platform.answer("query", f"{{'contextData.kp_instancia': '{via}'}}", "--ontology", "LecturaTermostato")
    assert row["LecturaTermostato"] == instance["LecturaTermostato"]


def test_send_says_no_with_its_status(platform):
    done = insert(platform, platform.kp, {"temp": 1}, "LecturaTermostato")
    assert (done.returncode, json.loads(done.stdout)["body"]["errorCode"]) == (1, "PERSISTENCE")
    message = {
        "messageType": "QUERY",
        "sessionKey": "none",
        "ontology": "Anything",
        "body": {"query": "{}", "queryType": "NATIVE"},
    }
    assert platform.command("send", json.dumps(message)).returncode == 5


def test_query_has_no_row_cap(platform):
    items = [
        {"type": "INSERT", "ontology": "Anything", "body": json.dumps({"data": json.dumps({"many": n})})}
        for n in range(150)
    ]
    done = platform.command(
        "send", "--kp", platform.kp, "--json", json.dumps({"messageType": "BULK", "body": {"items": items}})
    )
    assert done.returncode == 0, done.stdout
    assert len(platform.answer("query", "db.Anything.find({many: {$exists: true}})")) == 150


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["select * from Nothing"], 1),
        (["select * frm Anything"], 2),
        (["delete from Anything where a = 1"], 2),
        (["select * from Asset", "--type", "bdc"], 0),
        (["db.Anything.find({})", "--type", "cobol"], 2),
    ],
)
def test_query_statuses(platform, arguments, status):
    assert platform.command("query", *arguments).returncode == status


def test_explain_shows_every_stage(platform):
    stages = platform.answer("explain", "select * from TestSensorTemperatura where assetId = 'x'")
    assert [stage["stage"] for stage in stages][:3] == ["normalised text", "syntax tree", "plan"]
    assert '"Sensor.assetId": "x"' in stages[2]["text"]


def test_validate_takes_an_ontology_of_the_platform(platform, tmp_path):
    sample = platform.command("ontology", "sample", "TestSensorTemperatura").stdout
    (tmp_path / "sample.json").write_text(sample)
    assert platform.command("validate", "--ontology", "TestSensorTemperatura", tmp_path / "sample.json").returncode == 0


def test_the_demo_shows_readings_and_notifications(platform):
    done = platform.command("demo", "--count", 4, "--interval", 0.2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("stored ") == 4
    assert "NOTIFIED" in done.stdout


def test_a_load_test_reports_what_was_stored(platform):
    result = platform.answer("load", "--clients", 3, "--in-flight", 5, "--seconds", 1)
    assert result["stored"] > 0
    assert (result["refused"], result["lost"]) == (0, 0)
    assert platform.answer("query", "select count(*) from LoadTest") >= result["stored"]


def test_a_second_start_on_the_same_data_is_refused(platform, command):
    done = command("start", "--detach", "--json", "--data", platform.data, "--mqtt-port", 0, "--http-port", 0)
    assert done.returncode == 3
    assert f"sofia2 stop --data {platform.data}" in done.stderr
    assert json.loads(done.stdout)["status"] == 3
    assert platform.answer("status")["pid"] == platform.pid


def test_a_port_that_is_taken_is_named(platform, command, tmp_path):
    port = platform.mqtt[1]
    done = command("start", "--detach", "--data", tmp_path / "data", "--mqtt-port", port, "--http-port", 0)
    assert done.returncode == 3
    assert str(port) in done.stderr
    assert "--mqtt-port" in done.stderr
    assert processes_of(tmp_path / "data") == []


def test_a_wrong_file_starts_nothing(command, tmp_path):
    (tmp_path / "wrong.yaml").write_text("sofia2: 2\n")
    done = command(
        "start", "--detach", "--data", tmp_path / "data", "--apply", tmp_path / "wrong.yaml", "--mqtt-port", 0
    )
    assert done.returncode == 2
    assert "wrong.yaml:1" in done.stderr
    assert processes_of(tmp_path / "data") == []


def test_too_little_time_leaves_nothing_behind(command, tmp_path):
    data = tmp_path / "data"
    done = command("start", "--detach", "--data", data, "--mqtt-port", 0, "--http-port", 0, "--ready-timeout", 1)
    assert done.returncode == 4
    assert processes_of(data) == []
    assert command("status", "--data", data).returncode == 1


def test_stop_ends_every_process_and_the_data_stay(start, command, tmp_path, platform):
    data = tmp_path / "data"
    running = start(data, "--apply", platform.apply_file, "--listener", "own=mqtt://127.0.0.1:0?pubsub=true")
    assert is_open(running.address("own"))
    insert(running, running.kp, {"kept": 1})
    ours = descendants(running.pid) | {running.pid}
    assert command("stop", "--data", data, timeout_s=60).returncode == 0
    assert processes_of(data) == []
    assert not [pid for pid in ours if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    assert not is_open(running.mqtt)
    assert running.answer("query", "select count(*) from Anything") == 1
    assert running.answer("kp", "show", running.kp)["owner"] == "sofia"
    # Whatever ran beside it still does.
    assert platform.answer("status")["ready"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_it_runs_until_it_is_told_to_end(tmp_path, number, command):
    data = tmp_path / "data"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SOFIA2_", "RAY_"))}
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "sofia2",
            "start",
            "--json",
            "--data",
            str(data),
            "--mqtt-port",
            "0",
            "--http-port",
            "0",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment,
        text=True,
    )
    try:
        ready = json.loads(process.stdout.readline())
        address = ("127.0.0.1", int(ready["endpoints"]["mqtt"].rpartition(":")[2]))
        assert is_open(address)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(60) == 0
        assert process.stdout.read() == ""
        assert not is_open(address)
        assert processes_of(data) == []
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        command("stop", "--data", data)


def test_a_start_that_is_interrupted_leaves_nothing_behind(tmp_path, command):
    data = tmp_path / "data"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "sofia2",
            "start",
            "--detach",
            "--data",
            str(data),
            "--mqtt-port",
            "0",
            "--http-port",
            "0",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )
    with process:
        deadline = time.monotonic() + START_S
        while not processes_of(data) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
    assert processes_of(data) == []


def test_a_foreground_that_is_killed_takes_its_platform_with_it(tmp_path, command):
    data = tmp_path / "data"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "sofia2",
            "start",
            "--json",
            "--data",
            str(data),
            "--mqtt-port",
            "0",
            "--http-port",
            "0",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        text=True,
    )
    with process:
        json.loads(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 60
    while processes_of(data) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_of(data) == []
    assert command("status", "--data", data).returncode == 1


def test_a_module_that_needs_ray_serve_brings_the_same_paths(start, tmp_path, platform):
    running = start(tmp_path / "data", "--apply", platform.apply_file, "--modules", "sib,api", "--serve-port", 0)
    assert set(running.endpoints) == {"mqtt", "http", "serve"}
    message = json.dumps({"messageType": "INSERT", "ontology": "Anything", "body": {"data": {"by": "serve"}}})
    done = running.command("send", "--via", "websocket", "--listener", "serve", "--kp", running.kp, message)
    assert done.returncode == 0, done.stderr
    assert running.answer("query", "select count(*) from Anything") == 1
