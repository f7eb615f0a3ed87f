"""Rules that read what other rules write: their order, how long each waits, and how outputs become events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sib.cep.build import Builder
from sib.cep.compiled import CompiledRule, Consumer


def connect(rules: Sequence[CompiledRule], builder: Builder) -> None:
    """Link rules by their targets. The checker has refused cycles.

    A rule waits at least as long as every rule it reads from, else their outputs would be late for it.
    """
    writers: dict[str, list[CompiledRule]] = {}
    for rule in rules:
        writers.setdefault(rule.target.casefold(), []).append(rule)
    _order(rules, writers)
    for rule in sorted(rules, key=lambda rule: rule.order):
        for tag, stream in enumerate(rule.streams):
            for writer in writers.get(stream, ()):
                _wait_for(rule, writer)
                convert = builder.layout(stream).from_row(writer.names, is_star=writer.is_star)
                writer.consumers.append(Consumer(rule, tag, convert))
            for writer in rules:
                if writer.timing.late == "side" and writer.late_target.casefold() == stream:
                    convert = builder.layout(stream).from_row((), is_star=True)
                    writer.late_consumers.append(Consumer(rule, tag, convert))


def _wait_for(rule: CompiledRule, writer: CompiledRule) -> None:
    if writer.timing.delay_ms > rule.timing.delay_ms:
        rule.timing = replace(rule.timing, delay_ms=writer.timing.delay_ms)


def _order(rules: Sequence[CompiledRule], writers: dict[str, list[CompiledRule]]) -> None:
    """Number the rules so that each stands behind those it reads from; else in the order of the text."""
    depths: dict[int, int] = {}

    def depth(rule: CompiledRule) -> int:
        number = rule.rule.number
        if number not in depths:
            depths[number] = 0
            sources = [writer for stream in rule.streams for writer in writers.get(stream, ())]
            depths[number] = 1 + max(map(depth, sources), default=0)
        return depths[number]

    for order, rule in enumerate(sorted(rules, key=lambda rule: (depth(rule), rule.rule.number))):
        rule.order = order
