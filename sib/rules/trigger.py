"""What makes a rule run once, and the names that this run has for ever.

An execution's key comes from what triggered it, never from a clock or chance: a repetition after a crash has the same key, and
so the same ids for what it inserts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from bson import ObjectId

HOPS_MAX = 8
"""Rules that trigger one another, one after the other; the next one is not run and the process log says so."""

_MADE_BY = re.compile(r"(?:rule|cep):(?P<name>.*):(?P<hops>\d{1,3})")


def made_by(rule: str, hops: int, kind: str = "rule") -> str:
    """The ``session_key`` in the contextData of what a rule inserts; it carries how many rules have been at work.

    ``kind``: ``rule`` or ``cep``.
    """
    return f"{kind}:{rule}:{hops}"


def hops_of(session_key: object) -> int:
    """How many rules were at work before an instance with this ``session_key`` was stored; 0 for those of KPs."""
    found = _MADE_BY.fullmatch(session_key) if isinstance(session_key, str) else None
    return int(found["hops"]) if found else 0


class Trigger(NamedTuple):
    """One run of one rule: what the script gets, and where it comes from."""

    rule: str
    source: str
    """Names the event; unique within the rule."""
    moment_s: int
    """When it was, in seconds since 1970: the beginning of the ids of what the run inserts."""
    content: Mapping[str, Any] = MappingProxyType({})
    """``ontology`` or ``cepData`` (JSON text), ``data`` (a value): the names in the script."""
    lane: str = ""
    """The KP instance; runs of one are in order."""
    hops: int = 0
    order: int = 0
    """Its place among those of the same second, so that ids are in order."""
    branch: str = "if"
    """Where it begins: ``if``, or ``then`` or ``else`` when the condition has been decided already."""

    @property
    def key(self) -> str:
        """The execution's key: 64 hexadecimal digits."""
        return hashlib.sha256(f"{self.rule}\n{self.source}".encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        return {
            "rule": self.rule,
            "source": self.source,
            "moment_s": self.moment_s,
            "content": dict(self.content),
            "lane": self.lane,
            "hops": self.hops,
            "order": self.order,
            "branch": self.branch,
        }


def read_trigger(value: Mapping[str, Any]) -> Trigger:
    """The inverse of ``to_json``."""
    return Trigger(**value)


def effect_id(trigger: Trigger, number: int) -> ObjectId:
    """The ``_id`` of what the effect of this number inserts: time, order, and 48 bits that tell it from all others of them."""
    digest = hashlib.sha256(f"{trigger.key}:{number}".encode()).digest()
    moment, order = trigger.moment_s & 0xFFFFFFFF, trigger.order & 0xFFFF
    return ObjectId(moment.to_bytes(4, "big") + order.to_bytes(2, "big") + digest[:6])


def effect_key(key: str, number: int) -> str:
    """The key of the execution that an effect asks for."""
    return hashlib.sha256(f"{key}:{number}:run".encode()).hexdigest()
