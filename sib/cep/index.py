"""Which rules does an event concern? An index over the equalities in their filters, so that many rules stay cheap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sib.cep.compiled import CompiledRule
from sib.cep.streams import Event

INDEX_RULES_MIN = 4
"""Rules with an equality on one attribute from which on an index pays."""


class StreamIndex:
    """The rules that read one stream and no other: those that see every event, and those found by a value."""

    def __init__(self, rules: Iterable[CompiledRule]) -> None:
        by_slot: dict[int, list[CompiledRule]] = {}
        self.always: list[CompiledRule] = []
        for rule in rules:
            equality = rule.built.equality
            if equality is None or len(equality[1]) != 1 or rule.operator.reads_all:
                self.always.append(rule)
            else:
                by_slot.setdefault(equality[0], []).append(rule)
        self._by_value: dict[int, dict[Any, list[CompiledRule]]] = {}
        for slot, found in by_slot.items():
            if len(found) < INDEX_RULES_MIN:
                self.always += found
                continue
            values = self._by_value[slot] = {}
            for rule in found:
                if rule.built.equality is not None:
                    values.setdefault(rule.built.equality[1][0], []).append(rule)

    def inputs(self, events: Sequence[Event]) -> Iterator[tuple[CompiledRule, Sequence[Event]]]:
        """Each rule that events concern, with these events in order."""
        for rule in self.always:
            yield rule, events
        for slot, values in self._by_value.items():
            buckets: dict[Any, list[Event]] = {}
            for event in events:
                value = event[slot]
                try:
                    if value in values:
                        buckets.setdefault(value, []).append(event)
                except TypeError:
                    continue
            for value, bucket in buckets.items():
                for rule in values[value]:
                    yield rule, bucket
