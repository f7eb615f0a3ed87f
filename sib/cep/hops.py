"""How many rules were at work before an output: the guard against rules that feed each other through ontologies.

An output that an event makes counts one more than the events of that time that its rule reads. One that the passing of time
makes counts one more than any that its rule has read within a day. So whatever leads back to a rule counts further each time
it comes round, and other events are not counted with it. A circle that takes longer than a day to come round is not noticed.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence

from sib.cep.compiled import CompiledRule
from sib.cep.engine import IncomingEvent
from sib.cep.output import Output

SPANS_MAX = 64
"""Spans of event time with equal hops that are told apart for one stream; beyond it the oldest become one, with the most hops."""
REMEMBERED_MS = 86_400_000
"""What a rule has read counts so long for what time alone makes of it."""


class _Span:
    """Events of one stream that came one after the other and have equally many rules behind them."""

    __slots__ = ("first_ms", "hops", "last_ms")

    def __init__(self, first_ms: int, last_ms: int, hops: int) -> None:
        self.first_ms, self.last_ms, self.hops = first_ms, last_ms, hops


class Hops:
    """What the rules of a deployment have read. One for each deployment: with a change of rules counting begins anew."""

    def __init__(self, rules: Sequence[CompiledRule]) -> None:
        self._streams: dict[str, frozenset[str]] = {}
        self._waiting: set[str] = set()
        """Rules whose events others may have made by the passing of time."""
        for rule in rules:
            read = list(_readers(rule, rules))
            self._streams[str(rule.label)] = frozenset(name.casefold() for one in read for name in one.streams)
            if any(writer.waits for writer in read[1:]):
                self._waiting.add(str(rule.label))
        self._spans: dict[str, deque[_Span]] = {}
        self._newest: dict[tuple[str, int], int] = {}
        """By stream and hops: the newest time."""
        self._newest_ms = -(2**62)

    def note(self, events: Iterable[IncomingEvent], hops: int) -> None:
        """Events are about to be handed to the engine, all with equally many rules behind them."""
        times: dict[str, list[int]] = defaultdict(list)
        for stream, ts_ms, _ in events:
            times[stream].append(ts_ms)
        # One that comes late may be released together with the newest.
        self._newest_ms = max([self._newest_ms, *map(max, times.values())])
        for stream, all_ms in times.items():
            self._extend(stream.casefold(), min(all_ms), hops)

    def _extend(self, stream: str, first_ms: int, hops: int) -> None:
        newest = self._newest[stream, hops] = self._newest_ms
        spans = self._spans.setdefault(stream, deque())
        if spans and spans[-1].hops == hops:
            spans[-1].first_ms, spans[-1].last_ms = min(spans[-1].first_ms, first_ms), newest
            return
        spans.append(_Span(first_ms, newest, hops))
        if len(spans) > SPANS_MAX:
            oldest, other = spans.popleft(), spans[0]
            other.first_ms, other.hops = min(oldest.first_ms, other.first_ms), max(oldest.hops, other.hops)

    def of(self, output: Output) -> int:
        """How many rules were at work when this output was made, its own among them."""
        rule, ts_ms = str(output.rule), output.ts_ms
        streams = self._streams.get(rule, frozenset())
        found: list[int] = []
        if not output.is_timed and rule not in self._waiting:
            spans = (span for stream in streams for span in self._spans.get(stream, ()))
            found = [span.hops for span in spans if span.first_ms <= ts_ms <= span.last_ms]
        if not found:
            since_ms = ts_ms - REMEMBERED_MS
            found = [
                hops for (stream, hops), newest in self._newest.items() if stream in streams and newest >= since_ms
            ]
        return 1 + max(found, default=0)


def _readers(rule: CompiledRule, rules: Sequence[CompiledRule]) -> Iterator[CompiledRule]:
    """A rule, and then those whose outputs it reads, also through others. The checker has refused circles."""
    yield rule
    streams = {stream.casefold() for stream in rule.streams}
    for writer in rules:
        if writer is not rule and streams & {writer.target.casefold(), writer.late_target.casefold()}:
            yield from _readers(writer, rules)
