"""The section ``rules`` of the applied file, and that an export of it can be applied again."""

import pytest
import yaml

from sib.rules.rule import RuleType
from sofia2.export import export
from storage.bdc.records import Outcome

BASE = """\
sofia2: 1
users:
  - {name: sofia, password: sofia-password, role: COLABORADOR}
ontologies:
  - {name: A, owner: sofia, schema: {type: object}}
  - {name: B, owner: sofia, schema: {type: object}, active: false}
"""
RULES = (
    BASE
    + """\
rules:
  - name: one
    owner: sofia
    type: ontology
    ontologies: [A]
    children: true
    when: n > 1
    then: |
      sofia.insert("A", ontology)
    else: pass
    error: print(error)
    timeout: 2s
  - {name: two, owner: sofia, type: timed, schedule: "*/5 * * * *", then_file: two.py, active: false}
  - {name: three, owner: sofia, type: cep, cep: Hot, then: pass, timeout: 0.5}
"""
)


@pytest.fixture
def script(tmp_path):
    (tmp_path / "two.py").write_text("x = 1\nreturn x\n")


def of_rules(report):
    return {item.name: item.outcome for item in report.objects if item.kind == "rule"}


@pytest.mark.usefixtures("script")
def test_rules_are_created_and_then_unchanged(bdc, apply):
    assert of_rules(apply(RULES)) == dict.fromkeys(("one", "two", "three"), Outcome.CREATED)
    with bdc.read() as configuration:
        one, two = (configuration.rules.get(name) for name in ("one", "two"))
    assert (one.type, one.ontologies, one.children, one.when) == (RuleType.ONTOLOGY, ("A",), True, "n > 1")
    assert (one.timeout_s, one.active, one.blocks["else"]) == (2.0, True, "pass")
    assert (two.blocks, two.active) == ({"then": "x = 1\nreturn x\n"}, False)
    assert of_rules(apply(RULES)) == dict.fromkeys(("one", "two", "three"), Outcome.UNCHANGED)


@pytest.mark.usefixtures("script")
def test_what_is_given_changes_and_the_rest_stays(bdc, apply):
    apply(RULES)
    changed = "sofia2: 1\nrules:\n  - {name: one, if: 'return True', timeout: 9s}\n  - {name: two, active: true}\n"
    assert of_rules(apply(changed)) == {"one": Outcome.CHANGED, "two": Outcome.CHANGED}
    with bdc.read() as configuration:
        one, two = (configuration.rules.get(name) for name in ("one", "two"))
    assert (one.when, one.blocks["if"], one.timeout_s, one.version) == ("", "return True", 9.0, 2)
    assert (two.active, two.schedule) == (True, "*/5 * * * *")


@pytest.mark.usefixtures("script")
def test_an_export_is_the_same_rules(bdc, apply):
    apply(RULES)
    exported = yaml.safe_load(export(bdc))["rules"]
    assert {rule["name"] for rule in exported} == {"one", "two", "three"}
    again = apply(yaml.safe_dump({"sofia2": 1, "rules": exported}))
    assert set(of_rules(again).values()) == {Outcome.UNCHANGED}


@pytest.mark.parametrize(
    ("rule", "line", "sentence"),
    [
        ("{name: r, owner: sofia, type: ontology, ontologies: [A]}", 8, "needs a block then"),
        ("{name: r, owner: sofia, then: pass}", 8, "needs a type"),
        ("{name: r, type: timed, schedule: 1s, then: pass}", 8, "needs an owner"),
        ("{name: r, owner: sofia, type: ontology, ontologies: [C], then: pass}", 8, "no ontology 'C'"),
        ("{name: r, owner: sofia, type: ontology, ontologies: [A], when: 'n >', then: pass}", 8, "cannot be read"),
        ("{name: r, owner: sofia, type: timed, schedule: 1x, then: pass}", 8, "cron line"),
        ("{name: r, owner: sofia, type: ontology, ontologies: [A], then: 'x = ('}", 8, "no Python: line 1"),
        ("{name: r, owner: sofia, type: timed, schedule: 1s, then: pass, then_file: x.py}", 8, "only one of then"),
        ("{name: r, owner: sofia, type: timed, schedule: 1s, then: pass, timeout: 1h}", 8, "a time-out is from"),
        ("{name: r, owner: sofia, type: sometimes, then: pass}", 8, "sometimes"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(bdc, apply, rule, line, sentence):
    report = apply(f"{BASE}rules:\n  - {rule}\n")
    assert [problem.line for problem in report.problems] == [line]
    assert sentence in report.problems[0].message
    with bdc.read() as configuration:
        assert configuration.rules.all() == []


def test_an_ontology_that_is_off_is_worth_a_warning(apply):
    report = apply(BASE + "rules:\n  - {name: r, owner: sofia, type: ontology, ontologies: [B], then: pass}\n")
    assert any("not active" in warning.message for warning in report.warnings)
