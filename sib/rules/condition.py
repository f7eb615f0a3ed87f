"""A rule's condition as an expression of the CEP language: decided here, without any script.

Paths are those of the instance (``Sensor.measure > 30 and Sensor.assetId like 'S-%'``), or the names that a CEP rule selects;
``ts`` is the time of the instance. What is missing is null, and null is not true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sib.cep import CepSyntaxError, check, parse_rules
from sib.cep.build import Builder
from sib.cep.language.parser import parse_expression
from sib.cep.limits import Limits
from sib.cep.operators.filters import Prefilter
from sib.cep.scope import Bound, Scope
from sib.errors import ConfigurationError

CONDITION_CHARS_MAX = 4000
_STREAM = "instance__"

Condition = Callable[[Mapping[str, Any], int], bool]
"""Whether the attributes at this time (ms) fulfil it; never raises."""


def compile_condition(text: str) -> Condition:
    """The condition that a text is.

    Raises:
        ConfigurationError: it is none; the message says where and why.
    """
    if len(text) > CONDITION_CHARS_MAX:
        raise ConfigurationError(f"a condition has at most {CONDITION_CHARS_MAX} characters.")
    try:
        parse_expression(text)
        rules = parse_rules(f"from {_STREAM}[{text}\n] select ts insert into decided__")
    except CepSyntaxError as error:
        raise ConfigurationError(f"the condition {text[:80]!r} cannot be read: {error}") from None
    problems = check(rules, None, {})
    if problems:
        found = "; ".join(problem.message for problem in problems)
        raise ConfigurationError(f"the condition {text[:80]!r} cannot be used: {found}")
    layout = Builder.of(None, None).layout(_STREAM)
    bound = Bound("e", layout)
    scope = Scope(rules[0], Limits(), lambda _: None, current=bound)
    scope.times.update(eventtime="e[0]", lasteventtime="e[0]")
    passes = Prefilter(scope, [parse_expression(text)])
    project = layout.projector()

    def decide(attributes: Mapping[str, Any], ts_ms: int) -> bool:
        return bool(passes((project(ts_ms, attributes),)))

    return decide
