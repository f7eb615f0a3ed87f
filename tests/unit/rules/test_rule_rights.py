"""A script rule runs only on what its owner may read."""

import pytest

from actors.rules.rights import Judge
from sib.access import Permission, Role
from sib.rules.rule import Rule, RuleType
from storage.bdc.records import OntologyRecord, UserRecord

USERS = {
    "ann": UserRecord("ann", Role.COLABORADOR),
    "bob": UserRecord("bob", Role.COLABORADOR),
    "eve": UserRecord("eve", Role.COLABORADOR, active=False),
    "root": UserRecord("root", Role.ADMINISTRADOR),
}
ONTOLOGIES = {
    "OfAnn": OntologyRecord("OfAnn", "ann", "{}"),
    "Shared": OntologyRecord("Shared", "ann", "{}", permissions={"bob": Permission.QUERY}),
}
OUTPUTS = {
    "alarm": [("ann", frozenset({"OfAnn"}))],
    "open": [("ann", frozenset({"OfAnn"})), ("ann", frozenset({"Shared"}))],
}
JUDGE = Judge(USERS, ONTOLOGIES, OUTPUTS)


def rule(owner, **fields):
    return Rule("r", owner, blocks={"then": "pass"}, **fields)


@pytest.mark.parametrize(
    ("owner", "fields", "word"),
    [
        ("ann", {"type": RuleType.ONTOLOGY, "ontologies": ("OfAnn",)}, None),
        ("root", {"type": RuleType.ONTOLOGY, "ontologies": ("OfAnn",)}, None),
        ("bob", {"type": RuleType.ONTOLOGY, "ontologies": ("Shared",)}, None),
        ("bob", {"type": RuleType.ONTOLOGY, "ontologies": ("Shared", "OfAnn")}, "QUERY"),
        ("eve", {"type": RuleType.TIMED, "schedule": "every 10s"}, "not active"),
        ("nobody", {"type": RuleType.TIMED, "schedule": "every 10s"}, "not active"),
        ("ann", {"type": RuleType.CEP, "cep": "Alarm"}, None),
        ("bob", {"type": RuleType.CEP, "cep": "Alarm"}, "QUERY"),
        ("bob", {"type": RuleType.CEP, "cep": "Open"}, None),
        ("bob", {"type": RuleType.CEP, "cep": "not there yet"}, None),
    ],
)
def test_the_owner_needs_the_right_to_read_what_triggers(owner, fields, word):
    refusal = JUDGE.refusal(rule(owner, **fields))
    assert refusal is None if word is None else word in refusal


def test_heirs_that_the_owner_may_not_read_do_not_trigger():
    assert JUDGE.may_read("bob", "Shared")
    assert not JUDGE.may_read("bob", "OfAnn")
    assert not JUDGE.may_read("bob", "nowhere")
