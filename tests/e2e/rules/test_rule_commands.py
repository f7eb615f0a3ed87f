"""``sofia2 rule`` as a user types it, on a real platform."""

import json
import time

import pytest

import sofia2
from tests.e2e.conftest import start_platform, stop_platform

pytestmark = pytest.mark.timeout(300)

WAIT_S = 60.0
TOKEN = "e5e8a005d0a248f1ad2cd60a821e6838"
BASE = """\
sofia2: 1
users:
  - {name: sofia, password: sofia-password, role: COLABORADOR}
ontologies:
  - {name: In, owner: sofia, schema: {type: object, properties: {n: {type: integer}}}}
  - {name: Out, owner: sofia, schema: {type: object, properties: {n: {type: integer}}}}
kps:
  - {name: KP, owner: sofia, ontologies: [In, Out], tokens: [e5e8a005d0a248f1ad2cd60a821e6838]}
"""
RULES = """\
sofia2: 1
rules:
  - name: copy
    owner: sofia
    type: ontology
    ontologies: [In]
    when: n > 0
    then: |
      print("copied", ontology["n"])
      sofia.insert("Out", {"n": ontology["n"]})
  - {name: nightly, owner: sofia, type: timed, schedule: "0 3 * * *", then: 'print("night")', active: false}
  - {name: hot, owner: sofia, type: cep, cep: Hot, then: 'sofia.insert("Out", {"n": cepData["inEvents"]["n"]})'}
  - {name: whence, owner: sofia, type: cep, cep: Warm, then: 'print(cepData["Ontology"], cepData["Subscription"])'}
cep_events:
  - {name: eIn, owner: sofia, ontology: In}
cep_rules:
  - {name: warm, owner: sofia, from: "eIn[IN__N > 3]", select: IN__N as n, insert_into: Warm}
"""
PICKY = """\
sofia2: 1
rules:
  - name: picky
    owner: sofia
    type: ontology
    ontologies: [In]
    when: n < 0
    then: |
      %s
      sofia.insert("Out", {"n": ontology["n"]})
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Writes a file as a user has it; gives its path."""
    folder = tmp_path_factory.mktemp("files")

    def write(name, text):
        path = folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="module")
def platform(tmp_path_factory, files):
    data = tmp_path_factory.mktemp("rules") / "data"
    running = start_platform(data, "--modules", "sib,script", "--apply", files("base.yaml", BASE))
    running.answer("apply", files("rules.yaml", RULES))
    yield running
    stop_platform(running)


async def insert(platform, *numbers):
    async with sofia2.KP(platform.endpoints["mqtt"], kp="KP:one", token=TOKEN) as device:
        for number in numbers:
            await device.insert("In", {"n": number})


def until(ask):
    """Ask again and again, within a bound, until the answer is true; gives it."""
    deadline = time.monotonic() + WAIT_S
    while True:
        answer = ask()
        if answer or time.monotonic() > deadline:
            assert answer, "it did not come about"
            return answer
        time.sleep(0.1)


def listed(platform, name):
    """One rule of ``sofia2 rule list``."""
    return next(rule for rule in platform.answer("rule", "list") if rule["name"] == name)


def numbers_out(platform):
    rows = platform.answer("query", "db.Out.find({})")
    return sorted(row["n"] for row in rows)


def test_list_says_how_each_rule_is_doing(platform):
    rules = {rule["name"]: rule for rule in platform.answer("rule", "list")}
    assert {"copy", "nightly", "hot"} <= rules.keys()
    assert (rules["copy"]["type"], rules["copy"]["of"], rules["copy"]["state"]) == ("ontology", ["In"], "running")
    assert (rules["nightly"]["type"], rules["nightly"]["of"], rules["nightly"]["state"]) == (
        "timed",
        "0 3 * * *",
        "paused",
    )
    assert (rules["hot"]["type"], rules["hot"]["of"]) == ("cep", "Hot")
    done = platform.command("rule", "list")
    assert done.returncode == 0
    for word in ("copy", "nightly", "0 3 * * *", "running", "paused", "dead letters"):
        assert word in done.stdout


def test_show_gives_what_can_be_applied_again(platform, files):
    done = platform.command("rule", "show", "copy")
    assert done.returncode == 0
    assert 'sofia.insert("Out"' in done.stdout
    shown = platform.answer("rule", "show", "copy")
    assert (shown["type"], shown["when"]) == ("ontology", "n > 0")
    again = json.dumps({"sofia2": 1, "rules": [shown]})
    outcome = platform.answer("apply", files("again.yaml", again))
    assert [each["outcome"] for each in outcome["objects"] if each["kind"] == "rule"] == ["unchanged"]


@pytest.mark.parametrize("subcommand", ["show", "test", "redrive", "pause", "resume", "remove"])
def test_a_rule_that_is_not_there(platform, subcommand):
    done = platform.command("rule", subcommand, "nothing")
    assert done.returncode == 1
    assert "nothing" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_test_run_has_no_effects(platform, files):
    before = numbers_out(platform)
    sample = files("sample.json", '{"n": 7}')
    done = platform.command("rule", "test", "copy", "--instance", sample)
    assert done.returncode == 0, done.stderr
    assert "ends in THEN" in done.stdout
    assert "would insert: ontology Out" in done.stdout
    assert "output: copied 7" in done.stdout
    answer = platform.answer("rule", "test", "copy", "--instance", "-", stdin='{"n": 7}')
    assert (answer["ok"], answer["branch"], answer["error"]) == (True, "then", None)
    (effect,) = answer["effects"]
    assert (effect["kind"], effect["ontology"], json.loads(effect["instance"])) == ("insert", "Out", {"n": 7})
    assert numbers_out(platform) == before
    assert platform.answer("rule", "log", "copy") == []


def test_a_test_run_whose_condition_is_not_fulfilled(platform, files):
    done = platform.command("rule", "test", "copy", "--instance", files("zero.json", '{"n": 0}'))
    assert done.returncode == 0
    assert "the condition is not fulfilled: nothing runs" in done.stdout


def test_a_sample_of_values_alone_gets_the_ontology_of_the_cep_rule(platform, files):
    sample = files("values.json", '{"n": 5}')
    answer = platform.answer("rule", "test", "whence", "--cep-data", sample)
    assert answer["output"].strip() == "In Warm"
    done = platform.command("rule", "test", "hot", "--cep-data", sample)
    assert "No active CEP rule puts out Hot" in done.stderr
    assert '{"Ontology": …, "Subscription": …, "inEvents": …}' in done.stderr


@pytest.mark.parametrize("sample", ['{"n": 5}', '{"Ontology": "In", "Subscription": "Hot", "inEvents": {"n": 5}}'])
def test_a_test_run_of_a_rule_for_cep(platform, files, sample):
    answer = platform.answer("rule", "test", "hot", "--cep-data", files("cep.json", sample))
    assert [json.loads(effect["instance"]) for effect in answer["effects"]] == [{"n": 5}]


def test_a_test_run_that_fails(platform, files):
    done = platform.command("rule", "test", "hot", "--cep-data", files("odd.json", '{"m": 5}'))
    assert done.returncode == 1
    assert "error: KeyError in THEN, line 1" in done.stdout


def test_a_sample_that_is_no_json(platform, files):
    file = files("broken.json", "{n: ")
    for option in ("--instance", "--cep-data"):
        done = platform.command("rule", "test", "hot", option, file)
        assert done.returncode in (1, 2)
        assert "no JSON" in done.stderr


async def test_log_shows_what_was_executed(platform):
    await insert(platform, 1, 2, 0)
    executions = until(lambda: len(found := platform.answer("rule", "log", "copy")) == 2 and found)
    assert {each["output"].strip() for each in executions} == {"copied 1", "copied 2"}
    assert {(each["rule"], each["result"], each["branch"]) for each in executions} == {("copy", "ok", "then")}
    assert len(platform.answer("rule", "log", "copy", "--lines", "1")) == 1
    done = platform.command("rule", "log")
    assert done.returncode == 0
    assert "copied 2" in done.stdout
    assert {1, 2} <= set(numbers_out(platform))
    assert listed(platform, "copy")["runs"] == 2


async def test_pause_and_resume(platform):
    done = platform.command("rule", "pause", "copy")
    assert (done.returncode, done.stdout.strip()) == (0, "rule copy: paused")
    assert listed(platform, "copy")["state"] == "paused"
    await insert(platform, 50)
    assert platform.answer("rule", "resume", "copy")["active"] is True
    assert listed(platform, "copy")["state"] == "running"
    await insert(platform, 51)
    until(lambda: 51 in numbers_out(platform))
    assert 50 not in numbers_out(platform), "what comes while a rule is paused is not kept for it"


async def test_dead_letters_and_redrive(platform, files):
    platform.answer("apply", files("picky.yaml", PICKY % 'raise ValueError("unlucky")'))
    await insert(platform, -1, -2)
    letters = until(lambda: len(found := platform.answer("rule", "dead-letters", "picky")) == 2 and found)
    assert {letter["rule"] for letter in letters} == {"picky"}
    assert all("unlucky" in letter["reason"] and letter["attempts"] == 3 for letter in letters)
    done = platform.command("rule", "dead-letters")
    assert done.returncode == 0
    assert "unlucky" in done.stdout
    assert platform.answer("rule", "dead-letters", "copy") == []
    assert listed(platform, "picky")["dead_letters"] == 2

    done = platform.command("rule", "redrive", "picky", "--id", letters[0]["id"])
    assert (done.returncode, done.stdout.strip()) == (1, "picky: 0 ended well, 1 failed again")

    platform.answer("apply", files("mended.yaml", PICKY % "pass"))
    remaining = platform.answer("rule", "dead-letters", "picky")
    answer = platform.answer("rule", "redrive", "picky", "--id", remaining[-1]["id"])
    assert answer == {"redriven": 1, "failed": 0}
    done = platform.command("rule", "redrive", "picky")
    assert done.returncode == 0
    assert "0 failed again" in done.stdout
    assert platform.answer("rule", "dead-letters", "picky") == []
    assert numbers_out(platform).count(-1) == numbers_out(platform).count(-2) == 1


def test_remove(platform, files):
    text = RULES.replace("name: hot", "name: doomed")
    platform.answer("apply", files("doomed.yaml", text))
    done = platform.command("rule", "remove", "doomed")
    assert (done.returncode, done.stdout.strip()) == (0, "rule doomed: removed")
    assert "doomed" not in {rule["name"] for rule in platform.answer("rule", "list")}
    assert platform.command("rule", "show", "doomed").returncode == 1


def test_without_a_command_and_with_help(platform):
    assert platform.command("rule", "list", "--nothing").returncode == 2
    done = platform.command("rule", "test", "--help")
    assert done.returncode == 0
    assert "without effects" in done.stdout
