"""The section ``rules`` of the applied file: script rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sib.errors import ConfigurationError
from sib.rules.checks import TIMEOUT_S_MAX, TIMEOUT_S_MIN, problems_of
from sib.rules.rule import BLOCKS, Rule, RuleType
from sofia2.applyfile import Declared, Section, read_name, read_ontology_name, read_user_name
from sofia2.applysections import Extension, Planning
from sofia2.filereaders import LocatedText, choice_reader, list_reader, read_flag, read_optional_text, read_text
from sofia2.yamlnodes import Node, problem_at, value_of

FILES = tuple(f"{block}_file" for block in BLOCKS)
_ONCE = ("ontologies", "children", "cep", "schedule", "when")


def read_timeout(node: Node) -> float:
    """Seconds: a number, or a period such as ``5s``."""
    from sib.cron import parse_period

    value = value_of(node)
    try:
        seconds = parse_period(value).seconds if isinstance(value, str) else float(value)
    except (ConfigurationError, TypeError, ValueError):
        seconds = 0.0
    if not TIMEOUT_S_MIN <= seconds <= TIMEOUT_S_MAX:
        raise problem_at(node.line, f"a time-out is from {TIMEOUT_S_MIN:g} s to {TIMEOUT_S_MAX:g} s, for example 5s.")
    return seconds


SECTION = Section(
    "rules",
    "rule",
    "name",
    {
        "name": read_name,
        "owner": read_user_name,
        "type": choice_reader(RuleType),
        "ontologies": list_reader(read_ontology_name),
        "children": read_flag,
        "cep": read_name,
        "schedule": read_name,
        "when": read_optional_text,
        **dict.fromkeys(BLOCKS, read_optional_text),
        **dict.fromkeys(FILES, read_text),
        "timeout": read_timeout,
        "active": read_flag,
    },
)


def plan_rule(planning: Planning, declared: Declared) -> Rule | None:
    """The rule that shall be; None after a refusal."""
    given = declared.given
    current = planning.configuration.rules.get(declared.name)
    changes: dict[str, Any] = dict(planning.known_owner(declared))
    for key in ("type", "children", "active"):
        if key in given:
            changes[key] = given[key]
    for key in ("cep", "schedule", "when"):
        if key in given:
            changes[key] = str(given[key])
    if (given.get("if") or given.get("if_file")) and "when" not in given:
        changes["when"] = ""
    if "timeout" in given:
        changes["timeout_s"] = given["timeout"]
    if "ontologies" in given:
        names = given["ontologies"]
        changes["ontologies"] = tuple(str(planning.known("ontologies", "ontology", name)) for name in names)
    blocks = _blocks(planning, declared, dict(current.blocks) if current else {})
    if current is None and not all([
        planning.require(declared, ("owner",), "a new rule needs an owner."),
        planning.require(declared, ("type",), f"a new rule needs a type: {', '.join(RuleType)}."),
    ]):  # fmt: skip
        return None
    if declared.is_faulty:
        return None
    if current is None:
        rule = Rule(declared.name, blocks=blocks, **changes)
    else:
        if changes.get("type", current.type) is not current.type:
            current = replace(current, ontologies=(), children=False, cep="", schedule="", when="")
        rule = replace(current, blocks=blocks, **changes)
    problems = problems_of(rule)
    for key, message in problems:
        planning.refuse(declared.line_of(key if key in declared.lines else f"{key}_file"), message)
    _warn(planning, declared, rule)
    return None if problems else rule


def _blocks(planning: Planning, declared: Declared, blocks: dict[str, str]) -> dict[str, str]:
    for block in BLOCKS:
        in_file: LocatedText | None = declared.given.get(f"{block}_file")
        if block in declared.given and in_file is not None:
            planning.refuse(declared.line_of(f"{block}_file"), f"give only one of {block} and {block}_file.")
        if block in declared.given:
            blocks[block] = str(declared.given[block])
        elif in_file is not None:
            blocks[block] = planning.file_text(in_file)
    if declared.given.get("when") and "if" not in declared.given:
        blocks.pop("if", None)
    return {block: text for block, text in blocks.items() if text}


def _warn(planning: Planning, declared: Declared, rule: Rule) -> None:
    for name in rule.ontologies:
        record = planning.ontology(name)
        if record is not None and not record.active:
            planning.warn(declared.line_of("ontologies"), f"the ontology {name!r} is not active: nothing triggers it.")


def export_rule(rule: Rule) -> dict[str, Any]:
    """A rule as the file has it."""
    value = {key: item for key, item in rule.definition().items() if key in _ONCE and item}
    return {
        "name": rule.name,
        "owner": rule.owner,
        "type": rule.type.value,
        **value,
        **rule.definition()["blocks"],
        "timeout": rule.timeout_s,
        "active": rule.active,
    }


def extension() -> Extension:
    """The section, for the registry."""
    return Extension(SECTION, "rules", plan_rule, export_rule)
