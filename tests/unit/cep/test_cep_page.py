"""The page about CEP shows the rules that the tests run."""

from pathlib import Path

from sib.cep import parse_rules

PAGE = Path(__file__).parents[3] / "docs" / "cep.md"


def test_the_page_has_the_examples(example_rules):
    rules = parse_rules(example_rules)
    assert len(rules) == 16
    text = PAGE.read_text()
    assert [rule.number for rule in rules if rule.text.strip() not in text] == []
