"""What a rule is, and what keeps a text from being one."""

import pytest

from sib.errors import ConfigurationError
from sib.rules.checks import BLOCK_CHARS_MAX, fault_of_block, problems_of
from sib.rules.condition import compile_condition
from sib.rules.rule import Rule, RuleType, read_definition


def rule(**changes):
    given = {"type": RuleType.ONTOLOGY, "ontologies": ("A",), "blocks": {"then": "pass"}} | changes
    return Rule("r", "o", **given)


def keys(rule_):
    return {key for key, _ in problems_of(rule_)}


def test_sound_rules():
    assert keys(rule()) == set()
    assert keys(rule(when="a.b > 1", children=True, blocks={"then": "return 1", "else": "", "error": "x = 1"})) == set()
    assert keys(rule(type=RuleType.TIMED, ontologies=(), schedule="*/5 * * * *")) == set()
    assert keys(rule(type=RuleType.CEP, ontologies=(), cep="Hot")) == set()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"ontologies": ()}, "ontologies"),
        ({"schedule": "10s"}, "schedule"),
        ({"cep": "Hot"}, "cep"),
        ({"blocks": {}}, "then"),
        ({"blocks": {"then": "return ("}}, "then"),
        ({"when": "a >"}, "when"),
        ({"when": "a > 1", "blocks": {"then": "pass", "if": "True"}}, "when"),
        ({"timeout_s": 0.001}, "timeout"),
        ({"type": RuleType.TIMED, "ontologies": (), "schedule": "61 * * * *"}, "schedule"),
        ({"type": RuleType.TIMED, "ontologies": (), "schedule": "1s", "when": "a > 1"}, "when"),
        ({"type": RuleType.TIMED, "ontologies": (), "schedule": "1s", "blocks": {"then": "1", "else": "1"}}, "else"),
        ({"type": RuleType.CEP, "ontologies": (), "cep": "H", "children": True}, "children"),
    ],
)
def test_what_is_wrong_is_named(changes, key):
    assert keys(rule(**changes)) == {key}


def test_a_definition_comes_back():
    before = rule(when="a > 1", children=True, timeout_s=3, blocks={"then": "pass", "error": "x"})
    assert Rule("r", "o", RuleType.ONTOLOGY, **read_definition(before.definition())) == before


def test_the_version_does_not_make_another_rule():
    assert rule(version=1) == rule(version=7)


def test_blocks_are_bodies_of_functions_and_are_not_executed():
    assert fault_of_block("return 1") == ""
    assert fault_of_block("# nothing") == ""
    assert fault_of_block("1/0\nwhile True: pass") == ""
    assert fault_of_block("x = 1\n  y = 2").startswith("line 2")
    assert fault_of_block("x" * (BLOCK_CHARS_MAX + 1)).startswith("it has more than")
    assert fault_of_block("(" * 2000)
    assert fault_of_block("break")


@pytest.mark.parametrize(
    ("text", "attributes", "expected"),
    [
        ("Sensor.measure > 30", {"Sensor": {"measure": 31}}, True),
        ("Sensor.measure > 30", {"Sensor": {"measure": "31"}}, False),
        ("Sensor.measure > 30", {"Sensor": None}, False),
        ("Sensor.measure > 30", {}, False),
        ("not (n = 1)", {"n": 2}, True),
        ("not (n = 1)", {}, False),
        ("name like 'S-%' and n in (1, 2)", {"name": "S-1", "n": 2}, True),
        ("ts >= 1000", {}, True),
        ("ts < 1000", {}, False),
    ],
)
def test_conditions(text, attributes, expected):
    assert compile_condition(text)(attributes, 1000) is expected


@pytest.mark.parametrize("text", ["", "a >", "a > 1] select x", "avg(n) > 3", "a in T", "a = 1; b", "-- x", "x" * 5000])
def test_what_is_no_condition(text):
    with pytest.raises(ConfigurationError):
        compile_condition(text)
