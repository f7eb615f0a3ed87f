"""Back-tests over what a stopped platform has stored: the command, its scores, and that nothing is done."""

import json

import pytest

from sib.access import Role
from sib.cep.definitions import CepEvent, CepRule
from sofia2 import cli
from sofia2.console import output
from sofia2.settings import load_settings
from storage.bdc.bdc import open_bdc
from storage.bdc.passwords import hash_password
from storage.bdc.records import OntologyRecord, UserRecord
from tests.backtesting import BEGIN_MS, backtests, store_readings

MINUTE_MS = 60_000
SCHEMA = {
    "type": "object",
    "properties": {
        "Lectura": {
            "type": "object",
            "properties": {"sensor": {"type": "string"}, "temp": {"type": "number"}},
        }
    },
}
HOT = CepRule(
    "Calor", "sofia", "LECTURA[LECTURA__TEMP > 40]", "LECTURA__SENSOR as sensor, LECTURA__TEMP as temp", "Caliente"
)
SILENT = "from not LECTURA for 30 min partition by LECTURA__SENSOR select LECTURA__SENSOR as s insert into Mudo"
TWICE = (
    "from every a=Caliente -> b=Caliente within 1 hour partition by sensor select sensor, b.temp as t insert into Dos"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two hours of a reading a minute over midnight; every tenth is hot, of sensor s1 until 23:59 and then of s2."""
    folder = tmp_path_factory.mktemp("backtest")
    config = load_settings({"data": str(folder)}).to_platform_config()
    bdc = open_bdc(config.bdc_url)
    bdc.upgrade()
    with bdc.change() as configuration:
        configuration.users.put(UserRecord("sofia", Role.COLABORADOR))
        configuration.users.put(UserRecord("eva", Role.USUARIO, password_hash=hash_password("eva-password")))
        configuration.ontologies.put(OntologyRecord("Lectura", "sofia", json.dumps(SCHEMA)))
        configuration.cep_events.put(CepEvent("Lectura", "sofia", "Lectura", ("Lectura.sensor", "Lectura.temp")))
        configuration.cep_rules.put(HOT)
    bdc.close()
    store_readings(
        folder, config, lambda n: {"Lectura": {"sensor": "s1" if n < 60 else "s2", "temp": 41.5 if n % 10 == 0 else 20}}
    )
    return folder


@pytest.fixture
def backtest(data, capsys, monkeypatch):
    return backtests("cep", "2026-03-02T02:00", data, capsys, monkeypatch)


def test_a_deployed_rule(backtest):
    found = backtest("Calor")
    assert (found["events"], found["count"]) == (120, 12)
    assert [alarm["ts"] for alarm in found["alarms"]] == [BEGIN_MS + n * 10 * MINUTE_MS for n in range(12)]
    assert found["alarms"][6] == {
        "id": found["alarms"][6]["id"],
        "rule": "Calor",
        "stream": "Caliente",
        "ts": BEGIN_MS + 60 * MINUTE_MS,
        "data": {"sensor": "s2", "temp": 41.5},
    }
    assert len({alarm["id"] for alarm in found["alarms"]}) == 12


def test_a_changed_rule_of_an_applied_file(backtest, tmp_path):
    file = tmp_path / "platform.yaml"
    file.write_text('sofia2: 1\ncep_rules: [{name: Calor, from: "LECTURA[LECTURA__TEMP < 40]"}]\n')
    assert backtest("Calor", "--file", str(file))["count"] == 108
    assert backtest("Calor")["count"] == 12
    assert "declares no" in backtest("Otra", "--file", str(file), status=1)


def test_ids_are_the_same_each_time(backtest):
    assert backtest("Calor")["alarms"] == backtest("Calor")["alarms"]


def test_absence_goes_on_to_the_end(backtest, tmp_path):
    file = tmp_path / "silent.cep"
    file.write_text(SILENT)
    assert [(alarm["ts"], alarm["data"]) for alarm in backtest(str(file))["alarms"]] == [
        (BEGIN_MS + 89 * MINUTE_MS, {"LECTURA__SENSOR": "s1", "s": "s1"}),
        (BEGIN_MS + 149 * MINUTE_MS, {"LECTURA__SENSOR": "s2", "s": "s2"}),
    ]


def test_a_rule_of_a_file_may_read_a_deployed_one(backtest, tmp_path):
    file = tmp_path / "twice.cep"
    file.write_text(TWICE)
    found = backtest(str(file))
    assert {alarm["stream"] for alarm in found["alarms"]} == {"Dos"}
    assert len(found["alarms"]) == 10  # five pairs of each sensor


def test_precision_and_recall(backtest, tmp_path):
    labels = tmp_path / "labels.jsonl"
    wanted = [
        {"ts": BEGIN_MS, "data": {"sensor": "s1"}},
        {"ts": BEGIN_MS + 10 * MINUTE_MS, "data": {"sensor": "s2"}},
        {"since": "2026-03-02T00:00:00", "until": "2026-03-02T00:25:00Z"},
    ]
    labels.write_text("\n".join(map(json.dumps, wanted)))
    found = backtest("Calor", "--labels", str(labels), "--tolerance", "2 min")
    assert (found["right"], found["wrong"], found["found"]) == (4, 8, 2)
    assert found["precision"] == pytest.approx(4 / 12)
    assert found["recall"] == pytest.approx(2 / 3)
    assert [label["data"] for label in found["missed"]] == [{"sensor": "s2"}]


@pytest.mark.parametrize(
    ("label", "said"), [("{}", "has a time"), ("[]", "JSON object"), ('{"since":2,"until":1}', "before")]
)
def test_a_label_that_is_none(backtest, tmp_path, label, said):
    file = tmp_path / "labels.jsonl"
    file.write_text(f"\n{label}\n")
    message = backtest("Calor", "--labels", str(file), status=2)
    assert ":2:" in message
    assert said in message


def test_a_rule_that_is_not_there(backtest):
    assert "no CEP rule" in backtest("Nada", status=1)


def test_a_rule_that_cannot_run(backtest, tmp_path):
    file = tmp_path / "wrong.cep"
    file.write_text("from Nadie select x insert into Y")
    assert "nadie" in backtest(str(file), status=2)


def test_rights(backtest, monkeypatch):
    monkeypatch.setenv("SOFIA2_USER", "sofia")
    monkeypatch.setenv("SOFIA2_PASSWORD", "wrong")
    backtest("Calor", status=5)
    monkeypatch.setenv("SOFIA2_USER", "eva")
    monkeypatch.setenv("SOFIA2_PASSWORD", "eva-password")
    assert "QUERY" in backtest("Calor", status=5)


def test_list(data, capsys, monkeypatch):
    monkeypatch.setattr(output, "_consoles", {})
    assert cli.run(["cep", "list", "--data", str(data), "--json"]) == 0
    (rule,) = json.loads(capsys.readouterr().out)
    assert rule == {
        "name": "Calor",
        "owner": "sofia",
        "active": True,
        "version": 1,
        "into": "Caliente",
        "problem": "",
        "state": "stopped",
    }
