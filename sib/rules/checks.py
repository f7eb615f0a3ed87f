"""Whether a rule can be one: types and what each needs, Python that compiles, conditions and schedules that can be read."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from sib.cron import parse_schedule
from sib.errors import SibError
from sib.rules.condition import compile_condition
from sib.rules.rule import Rule, RuleType

BLOCK_CHARS_MAX = 64 * 1024
"""One block; more is refused. All of them together have to fit into one message to the sandbox."""
TIMEOUT_S_MIN, TIMEOUT_S_MAX = 0.05, 300.0


def problems_of(rule: Rule) -> list[tuple[str, str]]:
    """What keeps it from being a rule: the key at fault, and a sentence."""
    found = list(_problems_of_type(rule))
    if not rule.blocks.get("then"):
        found.append(("then", "a rule needs a block then: what it does."))
    if rule.when and rule.blocks.get("if"):
        found.append(("when", "give only one of if and when."))
    if not TIMEOUT_S_MIN <= rule.timeout_s <= TIMEOUT_S_MAX:
        found.append(("timeout", f"the time-out is from {TIMEOUT_S_MIN:g} s to {TIMEOUT_S_MAX:g} s."))
    for name, text in rule.blocks.items():
        fault = fault_of_block(text)
        if fault:
            found.append((name, f"the block {name} is no Python: {fault}"))
    for key, text, check in (("when", rule.when, compile_condition), ("schedule", rule.schedule, parse_schedule)):
        fault = text and _fault(check, text)
        if fault:
            found.append((key, fault))
    return found


def _problems_of_type(rule: Rule) -> list[tuple[str, str]]:
    needed = {RuleType.ONTOLOGY: "ontologies", RuleType.TIMED: "schedule", RuleType.CEP: "cep"}
    of_key: dict[str, Any] = {"ontologies": rule.ontologies, "schedule": rule.schedule, "cep": rule.cep}
    found = []
    for kind, key in needed.items():
        if kind is rule.type and not of_key[key]:
            found.append((key, f"a rule of the type {rule.type} needs the key {key}."))
        if kind is not rule.type and of_key[key]:
            found.append((key, f"a rule of the type {rule.type} has no {key}."))
    if rule.children and rule.type is not RuleType.ONTOLOGY:
        found.append(("children", f"a rule of the type {rule.type} has no children."))
    if rule.type is RuleType.TIMED:
        found += [
            (key, f"a timed rule has only the block then (and error), not {key}.")
            for key, text in (("if", rule.blocks.get("if")), ("else", rule.blocks.get("else")), ("when", rule.when))
            if text
        ]
    return found


def fault_of_block(text: str) -> str:
    """Why a block is not the body of a Python function; "" if it is one. Nothing of it is executed."""
    if len(text) > BLOCK_CHARS_MAX:
        return f"it has more than {BLOCK_CHARS_MAX} characters."
    try:
        body = ast.parse(text).body
        wrapped = ast.parse("def block(): pass")
        function = wrapped.body[0]
        assert isinstance(function, ast.FunctionDef)
        function.body = body or function.body
        compile(wrapped, "block", "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}."
    except (ValueError, RecursionError, MemoryError) as error:
        return f"it cannot be read ({type(error).__name__})."
    return ""


def _fault(check: Callable[[str], Any], text: str) -> str:
    try:
        check(text)
    except SibError as error:
        return error.message
    return ""
