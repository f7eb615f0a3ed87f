"""What every operator is: state, and a step from a batch of events (in order of event time) to outputs.

An output of an operator is a tuple (ts, cause, began, row, key): cause 0 = time passed, 1 = an event came; ``began``
orders outputs of one ts by when their match or group began.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from sib.cep.aggregates import hashable
from sib.cep.language import ast
from sib.cep.limits import Limits
from sib.cep.scope import Scope
from sib.cep.streams import Event

Out: TypeAlias = tuple[int, int, int, tuple[Any, ...], Any]

BY_TIME, BY_EVENT = 0, 1


class Operator:
    """Base of the operators. ``state`` is all that a snapshot keeps: plain containers, see :mod:`sib.cep.codec`."""

    is_tagged: bool = False
    """Whether :meth:`feed` takes pairs (number of the stream, event) instead of events."""

    has_timers: bool = False
    """Whether time alone can make outputs, or only events."""

    is_sorted: bool = True
    """Whether outputs come ordered already; else :meth:`feed` need not care."""

    takes_late: bool = False
    """Whether a late event may still enter (``late='accept'``)."""

    tells_edges: bool = False
    """Whether the operator itself does ``output on change`` for rules with having."""

    reads_all: bool = False
    """Whether events that fail the filter matter (sequences), so that no index may keep them away."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.limits: Limits = scope.limits
        self.state: dict[str, Any] = {}

    def feed(self, events: Sequence[Any], watermark: int) -> list[Out]:
        """Take events in order, then let time pass to the watermark. No event is older than an earlier watermark."""
        raise NotImplementedError

    def feed_late(self, event: Event, watermark: int) -> list[Out] | None:
        """Take an event that is older than the watermark; None = no window is open for it."""
        return None

    def start(self, ts: int) -> None:
        """The engine's first event has this time. Called once, before it."""

    def load(self, state: dict[str, Any]) -> None:
        """Take over the state of a snapshot."""
        self.state.update(state)

    def held(self) -> int:
        """About how many events the state holds."""
        return 0


def frozen_key(key: Any) -> Any:
    """A key that can be one, where an attribute of it is a list or an object."""
    return tuple(map(hashable, key)) if isinstance(key, tuple) else hashable(key)


def is_null_key(key: Any, parts: int) -> bool:
    """Whether a partition key (of so many attributes) has a null in it; such an event belongs to no partition."""
    return key is None if parts == 1 else parts > 1 and any(part is None for part in key)


def plain_source(rule: ast.Rule) -> ast.Source | None:
    """The source of a rule that has just one stream: no pattern, no join, no absence."""
    if not isinstance(rule.input, ast.PatternInput):
        return None
    steps = rule.input.chain.steps
    atom = steps[0].atoms[0]
    if len(steps) > 1 or len(steps[0].atoms) > 1 or not isinstance(atom, ast.EventAtom):
        return None
    return atom.source if (atom.count_min, atom.count_max) == (1, 1) else None
