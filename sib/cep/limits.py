"""The bounds of one rule, and what was dropped at them.

At ``keys`` a new key is not taken; at ``partials`` (of one key) and ``events`` (of the rule's windows) the oldest goes.
Everything dropped is counted by name in :attr:`Limits.dropped`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from sib.cep.language import ast

KEYS_MAX = 100_000
"""Keys (partitions, groups) that one rule follows."""

PARTIALS_PER_KEY_MAX = 1_000
"""Matches that one key may have begun and not ended."""

WINDOW_EVENTS_MAX = 1_000_000
"""Events that the windows of one rule hold."""

CAPTURES_MAX = 10_000
"""Events in one step of one match (``a+``); further ones are dropped."""

EVENT_BYTES = 250
"""What one held event is taken to need, to turn ``@max(memory=...)`` into a number of events."""

_UNITS = {"": 1, "b": 1, "kb": 1_000, "mb": 1_000_000, "gb": 1_000_000_000, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclass
class Limits:
    """Bounds of one rule; ``@max(keys=…, partials=…, events=…, memory='64 MB')`` lowers or raises them."""

    keys: int = KEYS_MAX
    partials: int = PARTIALS_PER_KEY_MAX
    events: int = WINDOW_EVENTS_MAX
    dropped: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, rule: ast.Rule) -> Limits:
        """The bounds that the rule's annotations ask for."""
        limits = cls()
        for annotation in rule.annotations:
            if annotation.name != "max":
                continue
            for name, value in annotation.named:
                if name == "memory":
                    limits.events = max(1, parse_bytes(value) // EVENT_BYTES)
                else:
                    setattr(limits, name, int(value))
        return limits


def parse_bytes(value: object) -> int:
    """A size such as ``64 MB``, or a plain number of bytes.

    Raises:
        ValueError: Not a size.
    """
    text = str(value).strip().lower()
    digits = text.rstrip("kmgib ")
    unit = text[len(digits) :].strip()
    if not digits.replace(".", "", 1).isdigit() or unit not in _UNITS:
        raise ValueError(f"{value!r} is not a size: write for example '64 MB'")
    return int(float(digits) * _UNITS[unit])
