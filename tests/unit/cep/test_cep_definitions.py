"""What is deployed together: rules that cannot run do not stop the others, and nobody reads or writes through another."""

import pytest

from sib.cep.definitions import CepEvent, CepRule, deploy
from sib.cep.events import AHEAD_MS_MAX, EventDefinition
from sib.errors import OntologyNotFoundError
from sib.ontology import compile_ontology

SCHEMA = '{"type": "object", "properties": {"id": {"type": "string"}, "v": {"type": "number"}}}'
ONTOLOGIES = {name: compile_ontology(name, SCHEMA) for name in ("Mine", "Secret", "Act")}
EVENTS = [CepEvent("e", "ann", "Secret"), CepEvent("f", "bob", "Mine")]
OWN = {"ann": {"Secret", "Act"}, "bob": {"Mine"}}


def ontology(name):
    if name not in ONTOLOGIES:
        raise OntologyNotFoundError(name)
    return ONTOLOGIES[name]


def refuse(rule, read, written):
    missing = (set(read) | set(written)) - OWN[rule.owner]
    return f"{rule.owner} may not use {', '.join(sorted(missing))}" if missing else None


def deployed(*rules):
    return deploy(rules, EVENTS, ontology=ontology, ontologies=ONTOLOGIES, refuse=refuse)


def rule(name, owner, from_, into, select="*"):
    return CepRule(name, owner, from_, select, into)


ALARM = rule("alarm", "ann", "E[SECRET__V > 1]", "alarm")


def test_events_go_through_rules_and_their_outputs():
    deployment = deployed(ALARM, rule("next", "ann", "alarm", "after"))
    assert deployment.broken == {}
    definition = deployment.events["Secret"][0]
    outputs = deployment.engine.send_batch([definition.event({"id": "a", "v": 2}, 1000)])
    assert [(output.rule, output.stream) for output in outputs] == [("alarm", "alarm"), ("next", "after")]


@pytest.mark.parametrize(
    "bad",
    [
        rule("bad", "bob", "alarm", "out"),  # reads through the rule of another
        rule("bad", "bob", "alarm__late", "out"),
        rule("bad", "bob", "F", "e"),  # stands in for the event of another
        rule("bad", "bob", "F", "Act"),  # writes what another reads as a table
        rule("bad", "bob", "F[MINE__ID in Act.id]", "out"),
        rule("bad", "bob", "nowhere", "out"),
        rule("bad", "bob", "F[", "out"),
        rule("bad", "bob", "F[MINE__W > 1]", "out"),
        rule("bad", "bob", "F[MINE__ID > 1]", "out"),
    ],
    ids=lambda bad: f"{bad.from_box} into {bad.insert_box}",
)
def test_a_rule_that_may_not_run_leaves_the_others_alone(bad):
    deployment = deployed(ALARM, bad)
    assert list(deployment.rules) == ["alarm"]
    assert list(deployment.broken) == ["bad"]


def test_a_rule_says_what_is_wrong_with_its_event():
    gone = [CepEvent("e", "ann", "Secret", ("v", "gone"))]
    deployment = deploy([ALARM], gone, ontology=ontology, ontologies=ONTOLOGIES, refuse=refuse)
    assert "the event e cannot be used" in deployment.broken["alarm"]
    assert "gone" in deployment.broken["alarm"]


def test_a_late_stream_is_one_that_rules_may_read():
    assert deployed(ALARM, rule("late", "ann", "alarm__late", "out")).broken == {}


def test_a_circle_stops_its_own_rules_only():
    deployment = deployed(ALARM, rule("a", "ann", "p", "q"), rule("b", "ann", "q", "p"))
    assert "alarm" in deployment.rules
    assert deployment.broken


def test_no_rule_at_all_is_an_engine_too():
    assert deployed().engine.send_batch([("E", 1, {})]) == []


def test_an_event_time_far_ahead_is_not_believed():
    event = EventDefinition("e", "Secret", {"v": "number"}, "v")
    assert event.event({"v": 1000 + AHEAD_MS_MAX}, 1000)[1] == 1000 + AHEAD_MS_MAX
    assert event.event({"v": 1001 + AHEAD_MS_MAX}, 1000)[1] == 1000
