"""Which rules of a lane an event concerns, and how events are cut so that batches do not show in the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from sib.cep.compiled import CompiledRule
from sib.cep.index import StreamIndex
from sib.cep.lanes import Lane, Raw
from sib.cep.streams import Event

HANDED = "\x00"
"""Begins the name of a stream that carries one rule's outputs to another rule of a lane that waits longer."""


@dataclass(eq=False)
class LaneRules:
    """A lane and its rules in the order to run them, with ways to find those that an event concerns."""

    lane: Lane
    rules: list[CompiledRule] = field(default_factory=list)

    def prepare(self, derived: set[str]) -> None:
        """Index the rules; ``derived`` are the streams that rules write to."""
        self.rules.sort(key=lambda rule: rule.order)
        single: dict[str, list[CompiledRule]] = {}
        self.several: list[CompiledRule] = []
        for rule in self.rules:
            if rule.operator.is_tagged:
                self.several.append(rule)
            else:
                single.setdefault(rule.streams[0], []).append(rule)
        self.indexes = {stream: StreamIndex(rules) for stream, rules in single.items()}
        self.mixes = any(len(rule.streams) > 1 and derived.intersection(rule.streams) for rule in self.rules)
        self.waiting = [rule for rule in self.rules if rule.waits]
        self.unstarted = list(self.rules)


def by_stream_of(part: Sequence[Raw]) -> dict[str, list[Event]]:
    """Events by stream, with names in lower case, as a stream may come under several spellings."""
    names = {raw[1] for raw in part}
    if len(names) == 1:
        return {names.pop().casefold(): [raw[2] for raw in part]}
    folded = {name: name.casefold() for name in names}
    by_stream: dict[str, list[Event]] = {name: [] for name in folded.values()}
    for _, stream, event in part:
        by_stream[folded[stream]].append(event)
    return by_stream


def runs_in_order(raws: Sequence[Raw]) -> list[Sequence[Raw]]:
    """Cuts the events where one is older than the one before, so that late ones meet the state of their arrival."""
    cuts = [0, *(index for index in range(1, len(raws)) if raws[index][0] < raws[index - 1][0]), len(raws)]
    return [raws[first:last] for first, last in pairwise(cuts)]


def segments(events: Sequence[Raw]) -> list[tuple[int, int]]:
    """Cuts the events so that in each part all times differ; at least one part."""
    cuts = [0, *(index for index in range(1, len(events)) if events[index][0] == events[index - 1][0]), len(events)]
    return list(pairwise(cuts))
