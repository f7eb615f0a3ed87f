"""``sofia2 rule backtest`` on a stopped platform: a rule, also a changed one of a file, over what was stored, without effects."""

import json

import pytest

import sofia2.bdtr
from actors.sandbox.errors import SandboxUnavailableError
from actors.sandbox.sandbox import find_sandbox
from sib.access import Role
from sib.cep.definitions import CepEvent, CepRule
from sib.errors import AuthorizationError
from sib.rules.rule import Rule, RuleType
from sofia2.bdh import History
from sofia2.settings import load_settings
from storage.bdc.bdc import open_bdc
from storage.bdc.records import OntologyRecord, UserRecord
from tests.backtesting import BEGIN_MS, backtests, store_readings

SCHEMA = '{"type": "object", "properties": {"sensor": {"type": "string"}, "temp": {"type": "number"}}}'
WARM = {"then": "sofia.insert('Alarma', {'sensor': ontology['sensor']})"}
COUNTED = "n = sofia.kv.get('n', 0) + 1\nsofia.kv.put('n', n)\nif n == 3: raise ValueError('three')\nprint(n)"
ASKED = "print(len(sofia.query('select * from Lectura where temp > 100')))\nsofia.query('select * from Secreta')"
JOINED = """
sofia.query('db.Lectura.aggregate([{$lookup:{from:"Secreta",localField:"sensor",foreignField:"sensor",as:"x"}}])')
"""
CHANGED = """
sofia2: 1
rules:
  - {name: warm, when: temp > 115}
  - {name: wrong, type: cep}
"""


def find():
    try:
        return find_sandbox()
    except SandboxUnavailableError as error:
        return pytest.skip(error.message)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two hours of a reading a minute, from 0 to 119 degrees, over midnight."""
    find()
    folder = tmp_path_factory.mktemp("rules")
    config = load_settings({"data": str(folder)}).to_platform_config()
    bdc = open_bdc(config.bdc_url)
    bdc.upgrade()
    with bdc.change() as configuration:
        configuration.users.put(UserRecord("sofia", Role.COLABORADOR))
        configuration.users.put(UserRecord("eva", Role.COLABORADOR))
        for name, owner in (("Lectura", "sofia"), ("Alarma", "sofia"), ("Secreta", "eva")):
            configuration.ontologies.put(OntologyRecord(name, owner, SCHEMA))
        configuration.cep_events.put(CepEvent("Lectura", "sofia", "Lectura"))
        configuration.cep_rules.put(CepRule("Calor", "sofia", "LECTURA[LECTURA__TEMP >= 118]", "*", "Caliente"))
        for name, given in {
            "warm": {"when": "temp > 110", "blocks": WARM},
            "counted": {"when": "temp >= 115", "blocks": {"then": COUNTED}},
            "asked": {"when": "temp = 7", "blocks": {"then": ASKED}},
            "joined": {"when": "temp = 7", "blocks": {"then": JOINED}},
            "forbidden": {"ontologies": ("Secreta",), "blocks": {"then": "1"}},
        }.items():
            configuration.rules.put(Rule(name, "sofia", RuleType.ONTOLOGY, **{"ontologies": ("Lectura",), **given}))
        configuration.users.put(UserRecord("root", Role.ADMINISTRADOR))
        everywhere = {"ontologies": ("Lectura",), "when": "temp = 7", "blocks": {"then": ASKED}}
        configuration.rules.put(Rule("everywhere", "root", RuleType.ONTOLOGY, **everywhere))
        told = {"then": "print(cepData['Ontology'], cepData['inEvents']['LECTURA__TEMP'])"}
        configuration.rules.put(Rule("told", "sofia", RuleType.CEP, cep="Caliente", active=False, blocks=told))
        configuration.rules.put(Rule("timed", "sofia", RuleType.TIMED, schedule="1h", blocks={"then": "1"}))
    bdc.close()
    store_readings(folder, config, lambda n: {"sensor": f"s{n}", "temp": n})
    return folder


@pytest.fixture
def backtest(data, capsys, monkeypatch):
    return backtests("rule", "2026-03-03", data, capsys, monkeypatch)


def test_what_a_rule_would_have_done(backtest, data):
    found = backtest("warm")
    assert (found["events"], found["count"], found["failed"]) == (120, 9, 0)
    assert (found["branches"], found["effects"]) == ({"then": 9}, {"insert": 9})
    first = found["runs"][0]
    assert first["ts"] == BEGIN_MS + 111 * 60_000
    assert first["effects"] == [{"kind": "insert", "ontology": "Alarma", "instance": '{"sensor": "s111"}'}]
    config = load_settings({"data": str(data)}).to_platform_config()
    with sofia2.bdtr.open(config.partition_url(config.topology.partition_of("Alarma"))) as database:
        assert database["Alarma"].count_documents({}) == 0


def test_a_changed_rule_of_a_file_that_is_not_applied(backtest, tmp_path):
    file = tmp_path / "changed.yaml"
    file.write_text(CHANGED.rpartition("  - ")[0])
    assert backtest("warm", "--file", str(file))["count"] == 4
    assert backtest("warm")["count"] == 9
    assert "declares no 'counted'" in backtest("counted", "--file", str(file), status=1)
    file.write_text(CHANGED)
    assert ":5: a new rule needs an owner" in backtest("warm", "--file", str(file), status=2)


def test_values_go_from_run_to_run_and_failures_keep_none(backtest):
    found = backtest("counted")
    assert (found["count"], found["failed"]) == (5, 3)
    assert [run["output"] for run in found["runs"]][:2] == ["1\n", "2\n"]
    assert {run["error"]["type"] for run in found["runs"][2:]} == {"ValueError"}


def test_queries_have_the_rights_of_the_owner(backtest):
    (run,) = backtest("asked")["runs"]
    assert run["output"].strip() == "19"
    assert "Secreta" in run["error"]["message"]


def test_what_a_query_joins_needs_its_right_too(backtest):
    report = backtest("joined")
    assert "may not QUERY the ontology 'Secreta'" in json.dumps(report)


def test_who_asks_has_to_have_the_rights_too(backtest, monkeypatch):
    (run,) = backtest("everywhere")["runs"]
    assert run["error"] is None
    ontology = History.ontology

    def refuses(history, name):
        if name == "Secreta":
            raise AuthorizationError("not for who asks")
        return ontology(history, name)

    monkeypatch.setattr(History, "ontology", refuses)
    (run,) = backtest("everywhere")["runs"]
    assert "not for who asks" in run["error"]["message"]


def test_outputs_of_a_cep_rule(backtest):
    found = backtest("told")
    assert [run["output"] for run in found["runs"]] == ["Lectura 118\n", "Lectura 119\n"]


@pytest.mark.parametrize(
    ("rule", "status", "said"), [("timed", 2, "timed"), ("forbidden", 2, "Secreta"), ("Nada", 1, "no rule")]
)
def test_what_cannot_be_tried(backtest, rule, status, said):
    assert said in backtest(rule, status=status)
