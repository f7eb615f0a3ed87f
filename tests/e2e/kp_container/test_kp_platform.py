"""KPs that a real platform runs: deployed, at work, refused, ended, killed."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from actors.kp.log import LogReader, log_path
from actors.kp.places import worker_name
from sofia2 import control
from sofia2.daemon import RunFolder, is_alive
from sofia2.kp import KP
from tests.e2e.conftest import ROOT, clean_environment, start_platform, stop_platform

pytestmark = pytest.mark.timeout(300)  # a deployment takes two seconds, and ten on a machine that does much else

AGAIN_S = 10.0
"""A killed worker runs again within this."""
WAIT_S = 40.0

APPLY = """
sofia2: 1
users:
  - {name: sofia, password: sofia-sofia, role: ADMINISTRADOR}
  - {name: ana, password: ana-ana-ana, role: COLABORADOR}
  - {name: eva, password: eva-eva-eva, role: USUARIO}
ontologies:
  - {name: Measure, owner: sofia, schema: {type: object, properties: {n: {type: number}}, required: [n]}}
  - {name: Seen, owner: sofia, schema: {type: object}}
  - {name: Secret, owner: sofia, schema: {type: object}}
  - {name: OfAna, owner: ana, schema: {type: object}}
kps:
  - {name: KPInside, owner: sofia, ontologies: [Measure, Seen, OfAna]}
  - {name: KPAna, owner: ana, ontologies: [OfAna]}
  - {name: KPEva, owner: eva, ontologies: []}
"""
ALWAYS = "import time\nprint('up', flush=True)\nwhile True: time.sleep(1)\n"


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kps")
    (folder / "apply.yaml").write_text(APPLY)
    (folder / "apply.yaml").chmod(0o600)
    running = start_platform(folder / "data", "--modules", "sib,kp", "--apply", folder / "apply.yaml")
    yield running
    stop_platform(running)


@pytest.fixture
def deploy(platform, tmp_path):
    """Deploys a program under an instance's name; it is undeployed at the end of the test."""
    deployed = []

    def make(
        instance, program, *, name="KPInside", more="", entry="main.py", options=(), ontologies='"Measure", "Seen"'
    ):
        folder = tmp_path / instance
        folder.mkdir(exist_ok=True)
        (folder / entry).write_text(program)
        (folder / "kp.toml").write_text(
            f'name = "{name}"\ninstance = "{instance}"\nentry = "{entry}"\nontologies = [{ontologies}]\n{more}'
        )
        done = platform.command("kp", "deploy", folder, "--json", *options)
        if done.returncode == 0:
            deployed.append(f"{name}:{instance}")
        return done

    yield make
    for which in dict.fromkeys(deployed):
        platform.command("kp", "undeploy", which)


def states(platform):
    """What ``kp ps`` tells, without a process for each look."""
    return control.call(RunFolder(platform.data), "platform", "kps")


def state(platform, instance, name="KPInside"):
    found = [each for each in states(platform) if (each["name"], each["instance"]) == (name, instance)]
    return found[0] if found else None


def until(check, timeout_s=WAIT_S):
    deadline = time.monotonic() + timeout_s
    while not (found := check()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return found


def log(platform, instance):
    return "\n".join(LogReader(log_path(platform.data, worker_name("KPInside", instance))).tail())


def test_it_works_over_the_channel_with_the_rights_of_its_owner(platform, deploy):
    program = """
import asyncio, datetime, os, sofia2
async def main():
    async with sofia2.KP() as kp:
        print("joined", kp.name, kp.instance)
        id_ = await kp.insert("Measure", {"n": 41})
        print("inserted", id_)
        print("found", await kp.query("select n from Measure where n = 41"))
        print("updated", await kp.update("Measure", "{n: 41}", {"n": 42}) == [id_])
        print("count", await kp.query("select count(*) from Measure where n = 42"))
        await kp.insert("Seen", {"at": datetime.datetime(2026, 1, 2, 3, 4, 5)})
        for attempt in (
            kp.insert("Secret", {}), kp.query("select * from Secret"), kp.query("{}", "Secret"),
            kp.insert("OfAna", {}), kp.insert("Nowhere", {}), kp.insert("Measure", {"n": "text"}),
        ):
            try:
                await attempt
                print("NOT REFUSED")
            except sofia2.RefusedError as error:
                print("refused", error.code)
        print("all", len(await asyncio.gather(*(kp.insert("Seen", {"i": i}) for i in range(200)))))
        try:
            await kp.insert("Seen", {"long": "x" * 1_100_000})
        except sofia2.RefusedError as error:
            print("refused", error.code)
        print("deleted", len(await kp.delete("Measure", "{n: 42}")))
        print("environment", sorted(set(os.environ) & {"SOFIA2_DATA", "SOFIA2_PASSWORD", "RAY_AUTH_TOKEN_PATH"}))
asyncio.run(main())
"""
    assert deploy("works", program).returncode == 0
    until(lambda: state(platform, "works")["state"] == "stopped")
    said = [line.split(" ", 2)[2] for line in log(platform, "works").splitlines() if " out " in line]
    assert said[0] == "joined KPInside works"
    assert said[2:5] == ["found [{'n': 41}]", "updated True", "count 1"] or "'n': 41" in said[2], said
    assert "NOT REFUSED" not in said
    assert len([line for line in said if line.startswith("refused")]) == 7
    assert "all 200" in said
    assert "refused kp.too_long" in said
    assert said[-2:] == ["deleted 1", "environment []"]
    assert platform.answer("query", "select count(*) from Seen") in (201, [201])


def test_a_subscription_tells_it_what_others_store(platform, deploy):
    program = """
import asyncio, sofia2
async def main():
    async with sofia2.KP() as kp, kp.subscribe("Measure", "{n: {$gt: 100}}") as hot:
        print("listening", flush=True)
        async for instance in hot:
            print("told", instance["n"], flush=True)
asyncio.run(main())
"""
    writer = """
import asyncio, sofia2
async def main():
    async with sofia2.KP() as kp:
        for n in (99, 101, 102):
            await kp.insert("Measure", {"n": n})
asyncio.run(main())
"""
    deploy("listener", program)
    until(lambda: "listening" in log(platform, "listener"))
    deploy("writer", writer)
    until(lambda: "told 102" in log(platform, "listener"))
    assert "told 99" not in log(platform, "listener")
    (partition,) = [each for each in platform.answer("status")["actors"] if each["kind"] == "OntologyPartition"]
    os.kill(partition["pid"], signal.SIGKILL)
    until(lambda: platform.command("status").returncode == 0)
    platform.command("kp", "start", "KPInside:writer")
    until(lambda: log(platform, "listener").count("told 102") == 2)


def test_a_new_release_replaces_and_stop_ends_its_processes(platform, deploy):
    first = json.loads(deploy("always", ALWAYS).stdout)
    assert (first["state"], first["release"]) == ("running", 1)
    second = json.loads(deploy("always", ALWAYS.replace("'up'", "'two'")).stdout)
    assert (second["state"], second["release"]) == ("running", 2)
    until(lambda: "out two" in log(platform, "always"))
    assert not is_alive(first["child_pid"])
    done = platform.command("kp", "stop", "KPInside:always")
    assert done.returncode == 0
    assert not is_alive(second["child_pid"])
    assert not is_alive(second["pid"])
    assert state(platform, "always")["state"] == "stopped"
    again = platform.answer("kp", "start", "KPInside:always", "--release", "1")
    assert (again["state"], again["release"]) == ("running", 1)


def test_a_killed_worker_runs_again_and_leaves_nothing(platform, deploy):
    before = json.loads(deploy("killed", ALWAYS).stdout)
    (worker,) = [each for each in platform.answer("status")["actors"] if each.get("pid") == before["pid"]]
    assert worker["kind"] == "KpWorker"
    began = time.monotonic()
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: (found := state(platform, "killed"))["child_pid" if "child_pid" in found else "pid"]
          and found["pid"] != before["pid"] and found["state"] == "running", AGAIN_S)  # fmt: skip
    assert time.monotonic() - began < AGAIN_S
    assert not is_alive(before["child_pid"])


FAILING = {
    "heap": ("x = []\nwhile True: x.append(bytearray(10_000_000))", "status 1"),
    "shared": (
        "import mmap\nm = mmap.mmap(-1, 400_000_000)\nfor i in range(0, 400_000_000, 4096): m[i] = 1",
        "more memory than it may",
    ),
    "forged": ("import os\nos.write(3, b'\\xff\\xff\\xff\\xff')\nimport time\ntime.sleep(60)", "no message"),
}


def test_what_fails_is_told_started_again_and_in_the_end_paused(platform, deploy):
    for instance, (program, _) in FAILING.items():
        deploy(instance, program, more="[resources]\nmemory_mb = 64\n")
    for instance, (_, reason) in FAILING.items():
        found = until(lambda which=instance: (now := state(platform, which))["state"] in ("failed", "paused") and now)
        assert reason in found["detail"]
        until(lambda which=instance: "it is started again in 1 s" in log(platform, which))
    platform.command("kp", "stop", "KPInside")
    assert {each["state"] for each in states(platform)} == {"stopped"}


def test_one_that_always_fails_is_paused_until_it_is_started(platform, deploy):
    deploy("loop", "raise SystemExit(1)")
    found = until(lambda: (now := state(platform, "loop"))["state"] == "paused" and now, 90)
    assert "5 times" in found["detail"]
    until(lambda: state(platform, "loop")["pid"] is None)
    deploy("loop", ALWAYS)
    assert state(platform, "loop")["state"] == "running"


def test_a_schedule_runs_it_again_and_again(platform, deploy):
    deploy("ticks", "print('tick')", more='schedule = "every 1s"\n')
    until(lambda: log(platform, "ticks").count("out tick") >= 3)
    assert state(platform, "ticks")["state"] == "running"


def test_logs_can_be_followed(platform, deploy):
    deploy("talks", "import time\nfor i in range(10_000):\n  print('line', i, flush=True)\n  time.sleep(0.2)\n")
    command = [sys.executable, "-m", "sofia2", "kp", "logs", "KPInside:talks", "--follow", "--data", str(platform.data)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=clean_environment(), bufsize=1
    ) as following:
        seen = [following.stdout.readline() for _ in range(12)]
        following.terminate()
    numbers = [int(line.split()[-1]) for line in seen if " line " in line]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len(numbers) >= 10


def test_dependencies_come_from_the_wheelhouse(platform, deploy):
    from tests.integration.kp_container.test_kp_layers import make_wheel

    wheelhouse = platform.data / "wheelhouse"
    wheelhouse.mkdir(exist_ok=True)
    make_wheel(wheelhouse, "usefulpart")
    program = "import usefulpart\nprint('value', usefulpart.VALUE)"
    assert deploy("needs", program, more='dependencies = ["usefulpart==1.0"]\n').returncode == 0
    until(lambda: "value 7" in log(platform, "needs"))
    refused = deploy("needs", program, more='dependencies = ["otherpart"]\n')
    assert refused.returncode == 2
    assert "otherpart" in refused.stderr


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_javascript(platform, deploy):
    program = """
const { KP } = require("sofia2");
(async () => {
  const kp = await new KP().join();
  await kp.insert("Seen", { by: "node" });
  console.log("count", await kp.query("select count(*) from Seen where by = 'node'"));
  await kp.insert("Secret", {}).catch((error) => console.log("refused", error.code));
  await kp.leave();
})();
"""
    assert deploy("script", program, entry="main.js", more="[resources]\nmemory_mb = 512\n").returncode == 0
    until(lambda: "refused access.denied" in log(platform, "script"))
    assert "count 1" in log(platform, "script")
    until(lambda: state(platform, "script")["state"] == "stopped")


@pytest.mark.parametrize(
    ("keywords", "status", "word"),
    [
        ({"name": "Nobody"}, 1, "no KP"),
        ({"name": "KPAna", "ontologies": '"OfAna"'}, 5, "kp.deployers"),
        ({"name": "KPEva", "ontologies": ""}, 5, "USUARIO"),
        ({"options": ("--user", "ana")}, 5, "belong"),
        ({"ontologies": '"Secret"'}, 2, "Secret"),
        ({"more": "memory_mb = 64\n"}, 2, "line 5"),
        ({"more": "schedule = 7\n"}, 2, "line 5"),
        ({"program": "def broken(:\n"}, 2, "line 1"),
        ({"entry": "main.txt"}, 2, "line 3"),
    ],
)
def test_what_cannot_be_deployed_is_refused_with_the_reason(deploy, keywords, status, word):
    done = deploy("bad", **{"program": "print(1)", **keywords})
    assert done.returncode == status, done.stderr
    assert word in done.stderr
    assert set(json.loads(done.stdout)) >= {"error", "status"}


def test_a_collaborator_may_deploy_when_he_is_told_so(platform, deploy):
    settings = "sofia2: 1\nsettings: {kp.deployers: [ana]}\n"
    assert platform.command("apply", "-", stdin=settings).returncode == 0
    assert deploy("hers", ALWAYS, name="KPAna", ontologies='"OfAna"', options=("--user", "ana")).returncode == 0
    assert state(platform, "hers", "KPAna")["state"] == "running"


def test_a_secret_reaches_the_program_and_nobody_else(platform, deploy):
    assert platform.command("kp", "secret", "set", "KPInside", "mail", "--file", "-", stdin="s3cret\n").returncode == 0
    program = """
import asyncio, sofia2
async def main():
    async with sofia2.KP() as kp:
        print("right", await kp.secret("mail") == "s3cret")
        try:
            await kp.secret("other")
        except sofia2.RefusedError as error:
            print("refused", error.code)
asyncio.run(main())
"""
    deploy("secretive", program)
    until(lambda: "refused" in log(platform, "secretive"))
    assert "right True" in log(platform, "secretive")
    assert platform.answer("kp", "secret", "list", "KPInside") == ["mail"]
    assert platform.command("kp", "secret", "remove", "KPInside", "mail").returncode == 0
    assert not any("s3cret" in path.read_text() for path in (platform.data / "logs").rglob("*.log*"))


def test_the_example_of_the_docs(platform):
    example = ROOT / "docs" / "examples" / "kp-thermostat"
    assert platform.command("apply", example / "apply.yaml").returncode == 0
    assert platform.command("kp", "deploy", example, "--user", "thermo").returncode == 0
    try:
        shown = LogReader(log_path(platform.data, worker_name("KPAvisos", "house")))
        until(lambda: any("watching" in line for line in shown.tail()))
        (token,) = platform.answer("token", "list", "KPAvisos", "--with-secrets")
        asyncio.run(_send(platform.endpoints["mqtt"], token["token"], [("attic", 24), ("attic", 30), ("hall", 20)]))
        until(lambda: platform.answer("query", "select count(*) from AvisoTermostato") in (1, [1]))
        (row,) = platform.answer("query", "select * from AvisoTermostato")
        assert (row["room"], row["average"], row["readings"]) == ("attic", 27, 2)
        assert (row["contextData"]["kp"], row["contextData"]["kp_instancia"]) == ("KPAvisos", "house")
    finally:
        platform.command("kp", "undeploy", "KPAvisos")


async def _send(url, token, readings):
    async with KP(url, kp="KPAvisos:device", token=token) as device:
        for room, celsius in readings:
            await device.insert("Termostato", {"room": room, "celsius": celsius})


def test_what_is_not_deployed(platform, tmp_path):
    for command in ("stop", "start", "logs", "undeploy"):
        assert platform.command("kp", command, "KPInside:nothing").returncode == 1
    assert platform.command("kp", "deploy", tmp_path / "nowhere").returncode == 2


def test_all_end_with_the_platform_and_come_back_with_it(platform, deploy):
    child = json.loads(deploy("stays", ALWAYS).stdout)["child_pid"]
    stop_platform(platform)
    assert not is_alive(child)
    assert {each["state"] for each in platform.answer("kp", "ps")} <= {"stopped", "paused"}
    start_platform(platform.data, "--modules", "sib,kp")
    until(lambda: state(platform, "stays")["state"] == "running" and state(platform, "stays")["child_pid"])
