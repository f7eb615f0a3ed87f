"""The section ``processes``: declared, checked with its line, exported as it is read."""

import re

import pytest
import yaml

from sofia2.apply import apply_files
from sofia2.export import export
from storage.bdc.bdc import open_bdc
from storage.bdc.processes import ProcessKind, ProcessRecord

HEAD = """sofia2: 1
users:
  - {name: sofia, password: sofia-sofia, role: COLABORADOR}
ontologies:
  - {name: Measure, owner: sofia, template: SensorPoint, window: 30d}
  - {name: Other, owner: sofia, template: SensorPoint}
processes:
"""


@pytest.fixture
def bdc(tmp_path):
    bdc = open_bdc(f"sqlite:///{tmp_path}/bdc.db")
    bdc.upgrade()
    return bdc


@pytest.fixture
def apply(bdc, tmp_path):
    def apply_text(processes, head=HEAD):
        file = tmp_path / "a.yaml"
        file.write_text(head + processes)
        return apply_files(bdc, [str(file)])

    return apply_text


def all_of(bdc):
    with bdc.read() as configuration:
        return configuration.processes.all()


def test_a_transfer_with_everything(apply, bdc):
    report = apply(
        "  - {name: m, type: transfer, ontology: Measure, schedule: '@hourly', group: {every: 1h, by: [assetId],"
        " values: {measure: avg}}, prepare: [{$set: {Sensor.unit: C}}]}\n"
    )
    assert report.is_ok
    assert all_of(bdc) == [
        ProcessRecord(
            "m",
            ProcessKind.TRANSFER,
            "Measure",
            "@hourly",
            options={
                "group": {"every_s": 3600, "by": ["Sensor.assetId"], "values": {"Sensor.measure": "avg"}},
                "prepare": [{"$set": {"Sensor.unit": "C"}}],
            },
        )
    ]


def test_a_predefined_one_gets_another_time(apply, bdc):
    assert apply("  - {name: clean, schedule: 6h, keep_log: 10d}\n").is_ok
    (record,) = all_of(bdc)
    assert (record.kind, record.schedule, record.options) == (ProcessKind.CLEAN, "6h", {"keep_log_s": 864_000})


def test_what_is_exported_changes_nothing_when_it_is_applied(apply, bdc):
    assert apply(
        "  - {name: m, type: transfer, ontology: Measure, group: {every: 15m, values: {measure: max}}}\n"
        "  - {name: d, type: transfer, ontology: Other, action: delete, active: false}\n"
        "  - {name: l, type: load, ontology: Measure, file: /data/a.csv, format: csv, user: sofia, schedule: 0 3 * * *}\n"
        "  - {name: clean, keep_log: 10d, keep_audit: 100d}\n"
    ).is_ok
    version = bdc.config_version()
    text = yaml.safe_dump({"sofia2": 1, "processes": yaml.safe_load(export(bdc))["processes"]})
    report = apply(text, head="")
    assert report.is_ok
    assert bdc.config_version() == version


def test_an_option_is_kept_until_it_is_changed_or_cleared(apply, bdc):
    apply("  - {name: m, type: transfer, ontology: Measure, group: {every: 1h}}\n")
    apply("  - {name: m, schedule: 1h}\n")
    assert all_of(bdc)[0].options["group"]["every_s"] == 3600
    apply("  - {name: m, group: null}\n")
    assert all_of(bdc)[0].options == {}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{name: n}", "needs a type"),
        ("{name: n, type: transfer, ontology: Nobody}", "no ontology 'Nobody'"),
        ("{name: n, type: transfer, ontology: Measure, schedule: at noon}", "schedule|cron"),
        ("{name: n, type: transfer, ontology: Measure, group: {every: 7h}}", "divide a day"),
        ("{name: n, type: transfer, ontology: Measure, group: {every: 1h, values: {colour: avg}}}", "colour"),
        ("{name: n, type: transfer, ontology: Measure, group: {every: 1h, values: {measure: median}}}", "median"),
        ("{name: n, type: transfer, ontology: Measure, prepare: [{$match: {}}]}", "prepare"),
        ("{name: n, type: load, ontology: Measure, file: a.csv}", "whole path"),
        ("{name: n, type: load, ontology: Measure, file: /a.csv, user: nobody}", "no user 'nobody'"),
        ("{name: transfer, type: clean}", "predefined"),
        ("{name: n, type: dance}", "dance"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(apply, bdc, line, why):
    report = apply(f"  - {line}\n")
    assert not report.is_ok
    assert {problem.line for problem in report.problems} == {8}
    assert re.search(why, " ".join(problem.message for problem in report.problems))
    assert all_of(bdc) == []


def test_an_ontology_has_one_transfer(apply, bdc):
    assert apply("  - {name: m, type: transfer, ontology: Measure}\n").is_ok
    report = apply("  - {name: n, type: transfer, ontology: Measure}\n")
    assert not report.is_ok
    assert "'m' already" in report.problems[0].message


EXPIRING = "[{fields: [contextData.timestamp], expire_after: 7d}]"
TRANSFER = "  - {name: t, type: transfer, ontology: Measure, schedule: '@daily'%s}\n"


@pytest.mark.parametrize("window", ["7d", "30d"])
def test_an_index_that_expires_before_the_move_is_refused(apply, bdc, window):
    assert apply(TRANSFER % "").is_ok
    ontology = f"  - {{name: Measure, window: {window}, indexes: {EXPIRING}}}\n"
    (problem,) = apply(ontology, head="sofia2: 1\nontologies:\n").problems
    assert problem.line == 3
    assert re.search(f"expire 7d after contextData.timestamp, before .* age of {window}", problem.message)
    with bdc.read() as configuration:
        assert configuration.ontologies.get("Measure").indexes == ()
    assert apply(ontology.replace("7d}]", "60d}]"), head="sofia2: 1\nontologies:\n").is_ok


def test_a_transfer_that_moves_what_has_expired_is_refused(apply, bdc):
    head = HEAD.replace("window: 30d", f"window: 30d, indexes: {EXPIRING}")
    assert "expire 7d after" in apply("  []\n", head=head).problems[0].message  # the nightly transfer moves it
    assert apply(TRANSFER % ", action: delete", head=head).is_ok
    (problem,) = apply(TRANSFER % ", action: move", head="sofia2: 1\nprocesses:\n").problems
    assert (problem.line, "expire 7d after" in problem.message) == (3, True)
    assert [process.options for process in all_of(bdc)] == [{"action": "delete"}]


def test_what_an_older_version_took_is_a_warning(apply, bdc):
    head = HEAD.replace("window: 30d", f"window: 30d, indexes: {EXPIRING}")
    assert apply(TRANSFER % ", action: delete", head=head).is_ok
    with bdc.change() as configuration:
        configuration.processes.put(ProcessRecord("t", ProcessKind.TRANSFER, "Measure", "@daily"))
    report = apply("  - {name: Measure, description: as it was}\n", head="sofia2: 1\nontologies:\n")
    assert report.is_ok
    assert "expire 7d after" in report.warnings[-1].message
    assert not apply("  - {name: Measure, window: 31d}\n", head="sofia2: 1\nontologies:\n").is_ok
