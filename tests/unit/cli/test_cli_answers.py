"""How commands answer: exit statuses, sentences and JSON. Nothing here needs a platform or Ray."""

import json
import os
import re
import sys
import tomllib

import pytest

from sofia2 import cli
from sofia2.console import output
from sofia2.settings import load_settings
from sofia2.settingtable import TABLE

THERMOSTAT = {"LecturaTermostato": {"temp": 21.5, "hum": 40}}
SCHEMA = {
    "$schema": "http://json-schema.org/draft-04/schema#",
    "type": "object",
    "required": ["LecturaTermostato"],
    "properties": {"LecturaTermostato": {"type": "string", "$ref": "#/datos"}},
    "datos": {
        "type": "object",
        "required": ["temp", "hum"],
        "properties": {"temp": {"type": "number"}, "hum": {"type": "integer"}},
    },
}


@pytest.fixture(autouse=True)
def _plain(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith("SOFIA2_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(output, "_consoles", {})


@pytest.fixture
def run(capsys):
    def call(*arguments):
        status = cli.run(list(map(str, arguments)))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_no_command_imports_ray(run):
    run("--help")
    run("version")
    assert "ray" not in sys.modules


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["start", "--mqttport", "1"], 2, "See 'sofia2 start --help'"),
        (["strat"], 2, "See 'sofia2 --help'"),
        (["start", "--mqtt-port", "x"], 2, "See 'sofia2 start --help'"),
        (["start", "--mqtt-port", "70000"], 2, "from 0 to 65535"),
        (["start", "--bdc", "mysql://u:p@h/d"], 2, "SOFIA2_BDC_FILE"),
        (["start", "--modules", "console"], 2, "not part of this version"),
        (["start", "--listener", "mqtt://h"], 2, "NAME=URL"),
        (["export"], 1, "no platform"),
        (["user", "list"], 1, "no platform"),
        (["query", "select 1"], 1, "no platform"),
        (["send", "{}"], 1, "no platform runs"),
        (["send", "{"], 2, "no JSON"),
        (["send", "[]"], 2, "JSON object"),
        (["demo"], 1, "no platform runs"),
        (["ontology", "add", "X"], 2, "--template"),
        (["validate", "x.json"], 2, "--template NAME"),
        (["validate", "--template", "None", "x.json"], 2, "There is no template"),
        (["ontology", "sample", "--template", "SensorPoint", "Another"], 2, "Name one"),
    ],
)
def test_errors_are_one_sentence_with_what_to_do(run, arguments, status, sentence):
    found, out, err = run(*arguments)
    assert found == status
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err
    assert out == ""


def test_with_json_an_error_is_a_value_too(run):
    status, out, err = run("export", "--json")
    assert status == 1
    assert json.loads(out)["status"] == 1
    assert "no platform" in err


def test_status_without_a_platform(run, tmp_path):
    status, out, _ = run("status", "--data", tmp_path / "none", "--json")
    assert status == 1
    answer = json.loads(out)
    assert (answer["ready"], answer["running"], answer["endpoints"]) == (False, False, {})
    assert not (tmp_path / "none").exists()


def test_stop_without_a_platform_is_done(run, tmp_path):
    status, out, _ = run("stop", "--data", tmp_path, "--json")
    assert (status, json.loads(out)["stopped"]) == (0, False)


@pytest.mark.parametrize(
    ("instances", "status"),
    [
        ([THERMOSTAT], 0),
        ([{**THERMOSTAT, "_id": 1, "contextData": {"user": "x"}}], 0),
        ([THERMOSTAT, {"LecturaTermostato": {"temp": "x", "hum": 1}}], 1),
        ([THERMOSTAT, "not JSON"], 2),
        ([{"LecturaTermostato": {}}, None], 2),
    ],
)
def test_validate_says_it_for_all_files(run, tmp_path, instances, status):
    schema = tmp_path / "LecturaTermostato.json"
    schema.write_text(json.dumps(SCHEMA))
    files = [tmp_path / f"{number}.json" for number, _ in enumerate(instances)]
    for file, instance in zip(files, instances, strict=True):
        if instance is not None:
            file.write_text(instance if isinstance(instance, str) else json.dumps(instance))
    found, out, _ = run("validate", "--schema", schema, *files, "--json")
    assert found == status
    assert [result["file"] for result in json.loads(out)] == list(map(str, files))


def test_validate_names_path_rule_and_value(run, tmp_path):
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "bad.json").write_text('{"LecturaTermostato": {"temp": "warm", "hum": 1}}')
    _, out, _ = run("validate", "--schema", "schema.json", "bad.json", "--json")
    (result,) = json.loads(out)
    assert (result["path"], result["rule"], result["value"]) == ("LecturaTermostato.temp", "type", "warm")
    _, out, _ = run("validate", "--schema", "schema.json", "bad.json")
    assert out.startswith("bad.json: invalid: LecturaTermostato.temp:")


def test_a_sample_of_every_template_is_valid(run, tmp_path):
    _, out, _ = run("ontology", "templates", "--json")
    names = [template["name"] for template in json.loads(out)]
    assert "SensorPoint" in names
    for name in names:
        status, sample, _ = run("ontology", "sample", "--template", name, "--json")
        assert status == 0
        (tmp_path / "sample.json").write_text(sample)
        assert run("validate", "--template", name, "sample.json")[0] == 0


def test_init_writes_files_that_change_nothing(run, tmp_path):
    assert run("init")[0] == 0
    assert tomllib.loads((tmp_path / "sofia2.toml").read_text()) == {}
    assert (tmp_path / "sofia2-apply.yaml").stat().st_mode & 0o077 == 0
    status, _, err = run("init")
    assert status == 2
    assert "--force" in err
    assert run("init", "--force")[0] == 0


def test_settings_show_where_values_come_from_and_no_password(run, monkeypatch):
    monkeypatch.setenv("SOFIA2_BDC", "mysql://user:hunter2@host/db")
    monkeypatch.setattr("sofia2.commands.about.configuration", _no_platform)
    status, out, _ = run("settings", "--changed", "--json")
    assert status == 0
    assert "hunter2" not in out
    (row,) = json.loads(out)
    assert (row["name"], row["origin"]) == ("bdc", "variable")


def _no_platform(_settings):
    raise cli.CliError(1, "none")


def test_our_own_fault_is_told_with_the_place_of_the_details(run, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("sofia2.commands.about.settings_of", lambda *_: 1 / 0)
    status, _, err = run("settings")
    assert status == 70
    (details,) = tmp_path.glob("sofia2-error-*.log")
    assert str(details) in err
    assert "ZeroDivisionError" in details.read_text()


def test_the_settings_that_init_shows_are_the_defaults(run, tmp_path):
    run("init")
    path = tmp_path / "sofia2.toml"
    lines = [line.removeprefix("# ") for line in path.read_text().splitlines()]
    shown = [
        line for line in lines if re.fullmatch(r"\[\w+\]|\w+ = .*", line) and not re.search('"(FILE|URL|TEXT)"', line)
    ]
    path.write_text("\n".join(shown[: shown.index("[listeners]")]))
    settings = load_settings({"data": str(tmp_path)}, environment={}, folder=tmp_path)
    assert len(settings.values) > 30
    assert {
        name: settings.get(name) for name in settings.values if name not in ("data", "mqtts_port", "https_port")
    } == {
        setting.name: setting.default
        for setting in TABLE
        if setting.name in settings.values and setting.name not in ("data", "mqtts_port", "https_port")
    }
