"""What a script rule is.

Source: Sofia2 documentation, console of rules (types, blocks IF / THEN / ELSE / ERROR, mandatory time-out, active flag).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

BLOCKS = ("if", "then", "else", "error")
TIMEOUT_S = 5.0


class RuleType(StrEnum):
    """What makes a rule run."""

    ONTOLOGY = "ontology"
    """An instance that is inserted or modified in one of its ontologies."""
    TIMED = "timed"
    """Its schedule."""
    CEP = "cep"
    """An output of a CEP rule."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One script rule. ``version`` counts the changes of what it does."""

    name: str
    owner: str
    type: RuleType
    ontologies: tuple[str, ...] = ()
    children: bool = False
    """Also instances of the ontologies that have one of these as their parent, however far up."""
    cep: str = ""
    """The target (Insert Into) of a CEP rule."""
    schedule: str = ""
    when: str = ""
    """An expression of the CEP language in place of the block IF."""
    blocks: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = TIMEOUT_S
    active: bool = True
    version: int = field(default=1, compare=False)

    def definition(self) -> dict[str, Any]:
        """What is stored as one value: all but name, owner, type, active and version."""
        return {
            "ontologies": list(self.ontologies),
            "children": self.children,
            "cep": self.cep,
            "schedule": self.schedule,
            "when": self.when,
            "blocks": {name: self.blocks[name] for name in BLOCKS if self.blocks.get(name)},
            "timeout_s": self.timeout_s,
        }


def read_definition(definition: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a rule that ``definition`` gave."""
    return {**definition, "ontologies": tuple(definition["ontologies"])}
