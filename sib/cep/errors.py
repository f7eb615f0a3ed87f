"""Refusals of the CEP module."""

from __future__ import annotations

from collections.abc import Sequence

from sib.cep.language.ast import Problem
from sib.errors import SibError


class CepSyntaxError(SibError):
    """The rules cannot be read or make no sense; ``problems`` holds each with its line and column."""

    code, status = "cep.syntax", 400

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[CepSyntaxError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


class CepRuleError(SibError):
    """A rule failed over what it was given, which is a fault of the engine; the state of the engine is not to be used any more."""

    code = "cep.rule_failed"

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(f"the CEP rule {rule} failed: {reason}")
        self.rule, self.reason = rule, reason

    def __reduce__(self) -> tuple[type[CepRuleError], tuple[str, str]]:
        return type(self), (self.rule, self.reason)


class CepSnapshotError(SibError):
    """The snapshot is of another version, or not one."""

    code, status = "cep.snapshot", 400


class CepEventError(SibError):
    """The event cannot be taken: no such stream, or an impossible time."""

    code, status = "cep.event", 400
