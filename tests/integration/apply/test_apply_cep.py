"""The sections ``cep_events`` and ``cep_rules`` of the applied file, and that an export of them can be applied again."""

import pytest
import yaml

from sofia2.export import export
from storage.bdc.records import Outcome

BASE = """\
sofia2: 1
users:
  - {name: sofia, password: sofia-password, role: COLABORADOR}
ontologies:
  - {name: A, owner: sofia, schema: {properties: {n: {type: number}, at: {type: number}}, additionalProperties: false}}
"""
CEP = (
    BASE
    + """\
cep_events:
  - {name: readings, owner: sofia, ontology: A, attributes: [n], time: at}
cep_rules:
  - {name: hot, owner: sofia, from: "READINGS[A__N > 1]", select: A__N as n, insert_into: Alarm}
  - {name: off, owner: sofia, from: Alarm, select: "*", insert_into: more, active: false}
"""
)


def of_cep(report):
    return {item.name: item.outcome for item in report.objects if item.kind.startswith("CEP")}


def test_they_are_created_and_then_unchanged(bdc, apply):
    assert of_cep(apply(CEP)) == dict.fromkeys(("readings", "hot", "off"), Outcome.CREATED)
    with bdc.read() as configuration:
        event, hot, off = configuration.cep_events.get("readings"), *configuration.cep_rules.all()
    assert (event.ontology, event.attributes, event.time_path) == ("A", ("n",), "at")
    assert (hot.from_box, hot.insert_box, hot.active, hot.version) == ("READINGS[A__N > 1]", "Alarm", True, 1)
    assert not off.active
    assert of_cep(apply(CEP)) == dict.fromkeys(("readings", "hot", "off"), Outcome.UNCHANGED)


def test_what_is_given_changes_and_the_rest_stays(bdc, apply):
    apply(CEP)
    changed = "sofia2: 1\ncep_rules:\n  - {name: hot, select: '*'}\n  - {name: off, active: true}\n"
    assert of_cep(apply(changed)) == {"hot": Outcome.CHANGED, "off": Outcome.CHANGED}
    with bdc.read() as configuration:
        hot, off = configuration.cep_rules.all()
    assert (hot.from_box, hot.select_box, hot.version) == ("READINGS[A__N > 1]", "*", 2)
    assert off.active


def test_an_export_is_the_same(bdc, apply):
    apply(CEP)
    exported = yaml.safe_load(export(bdc))
    again = apply(yaml.safe_dump({key: exported[key] for key in ("sofia2", "cep_events", "cep_rules")}))
    assert set(of_cep(again).values()) == {Outcome.UNCHANGED}


@pytest.mark.parametrize(
    ("section", "wrong", "sentence"),
    [
        ("cep_events", "{name: e, owner: sofia}", "needs an ontology"),
        ("cep_events", "{name: e, ontology: A}", "needs an owner"),
        ("cep_events", "{name: e, owner: sofia, ontology: B}", "no ontology 'B'"),
        ("cep_events", "{name: e, owner: sofia, ontology: A, attributes: [nothing]}", "nothing"),
        ("cep_events", "{name: e, owner: nobody, ontology: A}", "no user 'nobody'"),
        ("cep_rules", "{name: r, owner: sofia, from: 'S[', select: '*', insert_into: x}", "'r'"),
        ("cep_rules", "{name: r, owner: sofia, from: S, select: '*'}", "needs the key insert_into"),
        ("cep_rules", "{name: r, owner: sofia, from: 'S select * insert into x; from S', select: '*', insert_into: y}", "one rule"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_line(bdc, apply, section, wrong, sentence):
    report = apply(f"{BASE}{section}:\n  - {wrong}\n")
    assert [problem.line for problem in report.problems] == [7]
    assert sentence in report.problems[0].message
    with bdc.read() as configuration:
        assert configuration.cep_events.all() == configuration.cep_rules.all() == []


def test_two_events_of_one_stream_are_refused(apply):
    apply(CEP)
    again = apply(f"{BASE}cep_events:\n  - {{name: Readings, owner: sofia, ontology: A}}\n")
    assert "only in case" in again.problems[0].message


def rules(*texts, head=BASE):
    lines = [
        f"  - {{name: {name}, owner: sofia, from: {source}, select: '*', insert_into: {target}, active: {active}}}"
        for name, source, target, active in texts
    ]
    return head + "\n".join(["cep_rules:", *lines])


def said(report):
    return [problem.message for problem in report.problems]


def test_rules_that_would_feed_themselves_are_refused_with_the_circle(bdc, apply):
    report = apply(rules(("a", "P", "Q", "true"), ("b", "'q#time(1 min)'", "R", "true"), ("c", "R", "p", "true")))
    assert said(report)[0] == "these CEP rules feed themselves: a -> b -> c -> a."
    assert [problem.line for problem in report.problems] == [7, 8, 9]
    with bdc.read() as configuration:
        assert configuration.cep_rules.all() == []
    assert "feed themselves" in said(apply(rules(("a", "a__late", "Q", "true"))))[0]


def test_a_circle_of_rules_that_there_were_and_new_ones(apply):
    assert not apply(rules(("a", "P", "Q", "true"), ("off", "Q", "P", "false"))).problems
    assert said(apply(rules(("b", "Q", "P", "true")))) == ["these CEP rules feed themselves: b -> a -> b."]
    activated = apply("sofia2: 1\ncep_rules: [{name: off, active: true}]")
    assert said(activated) == ["these CEP rules feed themselves: off -> a -> off."]
    assert not apply(rules(("b", "Q", "P", "true"), ("a", "X", "Q", "true"))).problems


def test_a_rule_that_reads_what_its_event_does_not_have_is_refused(apply):
    wrong = CEP.replace("READINGS[A__N > 1]", "READINGS[A__M > 1]")
    assert said(apply(wrong)) == ["the rule 'hot': 1:15: no attribute is called A__M"]
    assert (
        "works on a"
        in said(apply(CEP.replace("A__N > 1", "-A__N > 1").replace("type: number}, at", "type: string}, at")))[0]
    )
