"""``sofia2 cep list``, ``pause``, ``resume`` and ``remove`` on a stopped platform."""

import json

import pytest

from sib.access import Role
from sib.cep.definitions import CepEvent, CepRule
from sofia2 import cli
from sofia2.console import output
from sofia2.settings import load_settings
from storage.bdc.bdc import open_bdc
from storage.bdc.records import OntologyRecord, UserRecord


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(output, "_consoles", {})
    bdc = open_bdc(load_settings({"data": str(tmp_path)}).to_platform_config().bdc_url)
    bdc.upgrade()
    with bdc.change() as configuration:
        configuration.users.put(UserRecord("sofia", Role.COLABORADOR))
        configuration.ontologies.put(OntologyRecord("Lectura", "sofia", '{"properties": {"temp": {"type": "number"}}}'))
        configuration.cep_events.put(CepEvent("Lectura", "sofia", "Lectura"))
        configuration.cep_rules.put(CepRule("Calor", "sofia", "LECTURA[LECTURA__TEMP > 40]", "*", "Caliente"))
    bdc.close()

    def command(*arguments, status=0):
        assert cli.run(["cep", *arguments, "--data", str(tmp_path), "--json"]) == status
        captured = capsys.readouterr()
        return json.loads(captured.out) if status == 0 else captured.err

    return command


def test_a_rule_is_turned_off_and_on(run):
    assert run("pause", "Calor") == {"kind": "CEP rule", "name": "Calor", "outcome": "changed", "active": False}
    assert run("pause", "Calor")["outcome"] == "unchanged"
    assert [(rule["active"], rule["state"]) for rule in run("list")] == [(False, "off")]
    run("resume", "Calor")
    assert [(rule["active"], rule["state"]) for rule in run("list")] == [(True, "stopped")]


def test_a_rule_is_removed_and_then_its_event(run):
    assert "Calor" in run("remove", "Lectura", "--event", status=2)
    assert run("remove", "Calor") == {"kind": "CEP rule", "name": "Calor", "outcome": "removed"}
    assert run("remove", "Lectura", "--event") == {"kind": "CEP event", "name": "Lectura", "outcome": "removed"}
    assert run("list") == []


@pytest.mark.parametrize(
    "arguments", [("pause", "calor"), ("resume", "x"), ("remove", "x"), ("remove", "x", "--event")]
)
def test_what_is_not_there(run, arguments):
    assert "there is no CEP" in run(*arguments, status=1)
