"""The engine: events in, outputs out, for all rules of a set. Pure: it has no clock and does nothing but answer.

Order of work: a lane (:mod:`.lanes`) puts events in order of time; then each rule, behind all rules it reads from, takes
what concerns it and lets time pass to the watermark. The answers do not depend on how events were cut into batches, as
long as events of one time come in one batch or rules do not mix raw events with outputs of other rules.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from sib.cep import persistence
from sib.cep.compiled import CompiledRule, Consumer
from sib.cep.errors import CepEventError, CepRuleError
from sib.cep.lanes import BEGINNING, Lane, Raw, Release, Timing
from sib.cep.operators.absence import Absence
from sib.cep.output import Output
from sib.cep.rates import Told
from sib.cep.routing import HANDED, LaneRules, by_stream_of, runs_in_order, segments
from sib.cep.streams import EVERYTHING, Event, Layout
from sib.cep.tables import Row, Table
from sib.errors import LimitError

TS_MAX_MS = 2**53
"""Event times beyond this are refused."""

Result: TypeAlias = tuple[int, CompiledRule, Any]
"""When, by which rule, and the operator's tuple (or a finished Output)."""

IncomingEvent: TypeAlias = tuple[str, int, Mapping[str, Any]]
"""(stream, ts in ms, attributes)"""


class Engine:
    """Runs compiled rules. Not safe for threads. Make it with :func:`sib.cep.compile_rules`."""

    def __init__(
        self,
        rules: Sequence[CompiledRule],
        layouts: Mapping[str, Layout],
        tables: Mapping[str, Table],
        timing: Timing,
    ) -> None:
        self.rules = list(rules)
        self.tables = tables
        self.layouts = layouts
        self.projectors = {name: layout.projector() for name, layout in layouts.items()}
        """By stream the function (ts, attributes) to the tuple that rules read."""
        self.lanes = self._make_lanes(timing)
        self._accepts = any(rule.timing.late == "accept" for rule in self.rules)
        self.started: int | None = None
        self.unknown_events = 0
        """Events of streams that no rule reads."""

    def _make_lanes(self, timing: Timing) -> list[LaneRules]:
        lanes: dict[int, LaneRules] = {}
        for rule in sorted(self.rules, key=lambda rule: rule.order):
            delay_ms = rule.timing.delay_ms
            if delay_ms not in lanes:
                lanes[delay_ms] = LaneRules(Lane(Timing(delay_ms, rule.timing.late, rule.timing.idle_ms)))
            elif rule.timing.idle_ms is not None:
                idle_ms = min(rule.timing.idle_ms, lanes[delay_ms].lane.timing.idle_ms or rule.timing.idle_ms)
                lanes[delay_ms].lane.timing = Timing(delay_ms, rule.timing.late, idle_ms)
            lanes[delay_ms].rules.append(rule)
        derived = {rule.target.casefold() for rule in self.rules}
        result = [lanes[delay_ms] for delay_ms in sorted(lanes)] or [LaneRules(Lane(timing))]
        for lane in result:
            lane.prepare(derived)
        return result

    # Events in

    def send(
        self, stream: str, ts_ms: int, attributes: Mapping[str, Any], *, source: Any = None, now_ms: int | None = None
    ) -> list[Output]:
        """Take one event; see :meth:`send_batch`."""
        return self.send_batch([(stream, ts_ms, attributes)], source=source, now_ms=now_ms)

    def send_batch(
        self, events: Iterable[IncomingEvent], *, source: Any = None, now_ms: int | None = None
    ) -> list[Output]:
        """Take events of one input in the order they came.

        Args:
            events: (stream, event time in ms, attributes). A stream that no rule reads still moves the time.
            source: The input (partition) they come from. The watermark waits for every input that is expected or was heard.
            now_ms: A clock that only goes forward, for the silence of inputs; leave it out during a replay.

        Returns:
            The outputs in order of time.

        Raises:
            CepEventError: An event time is no whole number within bounds; nothing of the batch was taken.
        """
        return self._finish(self.run_batch(self._project(events), source=source, now_ms=now_ms))

    def _project(self, events: Iterable[IncomingEvent]) -> list[Raw]:
        projectors = self.projectors
        raws: list[Raw] = []
        for stream, ts, attributes in events:
            if type(ts) is not int or not -TS_MAX_MS < ts < TS_MAX_MS:
                raise CepEventError(f"the event time {ts!r} is not a whole number of milliseconds")
            project = projectors.get(stream)
            if project is None:
                project = self.find_projector(stream)
            raws.append((ts, stream, project(ts, attributes)))
        return raws

    def find_projector(self, stream: str) -> Callable[[int, Mapping[str, Any]], Event]:
        """The projector of a stream however it is spelled; remembered, within a bound."""
        folded = stream.casefold()
        project = self.projectors.get(folded)
        if project is None:
            self.unknown_events += 1
            return _nothing
        inner = project
        if len(self.projectors) < 100_000:
            self.projectors[stream] = inner
        return inner

    def projector(self, stream: str) -> Callable[[int, Mapping[str, Any]], Event]:
        """The function (ts, attributes) to the tuple that :meth:`send_rows` takes.

        Raises:
            CepEventError: No rule reads the stream.
        """
        project = self.projectors.get(stream.casefold())
        if project is None:
            raise CepEventError(f"no rule reads the stream {stream}")
        return project

    def send_rows(self, stream: str, rows: Sequence[Event]) -> list[Output]:
        """Take tuples of :meth:`projector`, all of one stream: the fastest way in."""
        return self._finish(self.run_rows(stream, rows))

    def run_rows(self, stream: str, rows: Sequence[Event]) -> list[Result]:
        """As :meth:`send_rows`, without making outputs."""
        if not rows:
            return []
        folded = stream.casefold()
        times = [row[0] for row in rows]
        is_direct = len(self.lanes) == 1 and self.lanes[0].lane.is_direct and not self.lanes[0].mixes
        if not is_direct or times[0] < self.lanes[0].lane.watermark or times != sorted(times):
            return self.run_batch([(row[0], folded, row) for row in rows])
        lane = self.lanes[0]
        self._start(times[0])
        lane.lane.in_order(times[0], times[-1])
        results: list[Result] = []
        self._run_segment(lane, {folded: rows}, None, times[-1], results, {})
        return _in_order(results)

    def run_batch(self, raws: Sequence[Raw], *, source: Any = None, now_ms: int | None = None) -> list[Result]:
        """As :meth:`send_batch`, from (ts, stream, tuple) and without making outputs."""
        if not self._accepts:
            return self._run(lambda lane: lane.take(raws, source, now_ms))
        results: list[Result] = []
        for part in runs_in_order(raws):
            results += self._run(lambda lane, part=part: lane.take(part, source, now_ms))  # type: ignore[misc]
        return _in_order(results)

    # Time

    def expect(self, sources: Iterable[Any]) -> None:
        """Say which inputs there are: the watermark waits also for those that never sent anything, until they are idle."""
        for lane in self.lanes:
            lane.lane.expect(list(sources))

    def begin(self, ts_ms: int) -> bool:
        """Say that rules which have not started start now: absences are armed from here. Whether any did.

        Without it they start at the first event.
        """
        is_new = any(not rule.is_started for rule in self.rules)
        self._start(max(ts_ms, *(lane.lane.watermark for lane in self.lanes)))
        return is_new

    def advance(self, watermark_ms: int) -> list[Output]:
        """Say that no event before this time will come any more; outputs that waited for that."""
        return self._finish(self.run_advance(watermark_ms))

    def run_advance(self, watermark_ms: int) -> list[Result]:
        """As :meth:`advance`, without making outputs."""
        return self._run(lambda lane: lane.advance(watermark_ms))

    def tick(self, wall_ms: int, now_ms: int | None = None) -> list[Output]:
        """Tell the wall clock: inputs that were silent for their ``idle`` follow it. Not during a replay.

        Args:
            wall_ms: The wall clock, on which event times are.
            now_ms: The clock of :meth:`send_batch`, which measures silence; by default the same.
        """
        clock_ms = wall_ms if now_ms is None else now_ms
        return self._finish(self._run(lambda lane: lane.tick(wall_ms, clock_ms)))

    @property
    def newest_ms(self) -> int | None:
        """The newest event time so far."""
        newest = max(lane.lane.newest for lane in self.lanes)
        return None if newest == BEGINNING else newest

    # Running

    def _run(self, release: Callable[[Lane], Release]) -> list[Result]:
        results: list[Result] = []
        handed: dict[int, list[tuple[int, CompiledRule, int, Event]]] = {}
        for number, lane in enumerate(self.lanes):
            self._hand_over(lane, handed.pop(number, []))
            released = release(lane.lane)
            if released.late:
                self._run_late(lane, released, results)
            self._run_lane(lane, released, results, handed)
        return _in_order(results)

    def _start(self, ts: int) -> None:
        if self.started is None:
            self.started = ts
        for lane in self.lanes:
            for rule in lane.unstarted:
                if not rule.is_started:
                    rule.is_started = True
                    rule.operator.start(ts)
            lane.unstarted.clear()

    def _hand_over(self, lane: LaneRules, events: list[tuple[int, CompiledRule, int, Event]]) -> None:
        """Outputs of rules that wait less become events of this lane, addressed to the rule that reads them."""
        for when, rule, tag, event in events:
            lane.lane.insert((when, f"{HANDED}{self.rules.index(rule)}:{tag}", event))

    def _run_lane(self, lane: LaneRules, released: Release, results: list[Result], handed: dict[int, Any]) -> None:
        if released.watermark == BEGINNING:
            return
        events = released.events
        if events and lane.unstarted:
            self._start(events[0][0])
        for first, last in segments(events) if lane.mixes else [(0, len(events))]:
            part = events[first:last]
            is_end = last == len(events)
            by_stream = by_stream_of(part)
            self._run_segment(lane, by_stream, part, released.watermark if is_end else part[-1][0], results, handed)

    def _run_segment(
        self,
        lane: LaneRules,
        by_stream: Mapping[str, Sequence[Event]],
        part: Sequence[Raw] | None,
        watermark: int,
        results: list[Result],
        handed: dict[int, Any],
    ) -> None:
        """Run the rules of a lane over events in order, each rule behind those it reads from."""
        inputs: dict[int, tuple[CompiledRule, Sequence[Any]]] = {}
        for stream, events in by_stream.items():
            index = lane.indexes.get(stream)
            if index is not None:
                for rule, chosen in index.inputs(events):
                    inputs[rule.order] = (rule, chosen)
        for rule in lane.several:
            tagged = self._tagged(rule, by_stream, part)
            if tagged:
                inputs[rule.order] = (rule, tagged)
        for stream, events in by_stream.items():
            if stream.startswith(HANDED):
                number, tag = map(int, stream[1:].split(":"))
                self._derive(inputs, self.rules[number], [(event[0], 0, tag, event) for event in events])
        for rule in lane.waiting:
            inputs.setdefault(rule.order, (rule, ()))
        todo = list(inputs)
        heapq.heapify(todo)
        while todo:
            rule, chosen = inputs.pop(heapq.heappop(todo))
            try:
                told = rule.run(chosen, watermark)
            except Exception as error:
                raise CepRuleError(rule.title, repr(error)) from error
            if not told:
                continue
            results += [(when, rule, out) for when, out in told]
            if rule.change_table is not None:
                self._change_table(rule, told)
            for consumer in rule.consumers:
                self._feed(lane, consumer, told, inputs, todo, handed)

    def _tagged(
        self, rule: CompiledRule, by_stream: Mapping[str, Sequence[Event]], part: Sequence[Raw] | None
    ) -> list[Any]:
        present = [stream for stream in rule.streams if stream in by_stream]
        if not present:
            return []
        if len(present) == 1 or part is None:
            tag = rule.streams.index(present[0])
            return [(tag, event) for event in by_stream[present[0]]]
        tags = {stream: tag for tag, stream in enumerate(rule.streams)}
        tagged = []
        for _, stream, event in part:
            tag = tags.get(stream.casefold(), -1)
            if tag >= 0:
                tagged.append((tag, event))
        return tagged

    def _feed(
        self,
        lane: LaneRules,
        consumer: Consumer,
        told: Sequence[Told],
        inputs: dict[int, tuple[CompiledRule, Sequence[Any]]],
        todo: list[int],
        handed: dict[int, Any],
    ) -> None:
        """Outputs of one rule become events of another, now or when its lane is due."""
        rule, convert = consumer.rule, consumer.convert
        events = [(when, out[1], consumer.tag, convert(when, out[3])) for when, out in told]
        if rule.timing.delay_ms != lane.lane.timing.delay_ms:
            number = next(i for i, other in enumerate(self.lanes) if rule in other.rules)
            handed.setdefault(number, []).extend((when, rule, tag, event) for when, _, tag, event in events)
            return
        if rule.order not in inputs:
            heapq.heappush(todo, rule.order)
        self._derive(inputs, rule, events)

    def _derive(
        self,
        inputs: dict[int, tuple[CompiledRule, Sequence[Any]]],
        rule: CompiledRule,
        events: list[tuple[int, int, int, Event]],
    ) -> None:
        """Merge events that rules made into what a rule is to take.

        Those that the passing of time made stand before raw events of that time, those of an event behind it.
        """
        _, chosen = inputs.get(rule.order, (rule, ()))
        is_tagged = rule.operator.is_tagged
        made = [(when, cause * 2, (tag, event) if is_tagged else event) for when, cause, tag, event in events]
        if chosen:
            raw = [((item[1] if is_tagged else item)[0], 1, item) for item in chosen]
            made = list(heapq.merge(raw, made, key=lambda item: item[:2]))
        inputs[rule.order] = (rule, [item for _, _, item in made])

    def _change_table(self, rule: CompiledRule, told: Sequence[Told]) -> None:
        for _, out in told:
            try:
                if rule.change_table is not None:
                    rule.change_table(rule.data(out[3]))
            except LimitError:
                rule.limits.dropped["rows"] += 1

    # Late events

    def _run_late(self, lane: LaneRules, released: Release, results: list[Result]) -> None:
        for behind, (_, stream, event) in released.late:
            folded = stream.casefold()
            for rule in lane.rules:
                if folded in rule.streams:
                    self._late(rule, folded, event, behind, results)

    def _late(self, rule: CompiledRule, stream: str, event: Event, watermark: int, results: list[Result]) -> None:
        if rule.timing.late == "accept" and rule.operator.takes_late:
            outs = rule.operator.feed_late(event, watermark)
            if outs is not None:
                told = rule.pass_on(list(outs), watermark)
                results += [(watermark, rule, out) for _, out in told]
                return
        if rule.timing.late == "side":
            results.append((watermark, rule, rule.late_output(stream, event)))
            self._feed_late(rule, event[0], event[rule.late_slots[stream]], watermark, results)
            return
        rule.limits.dropped["late"] += 1

    def _feed_late(self, rule: CompiledRule, ts: int, attributes: Any, watermark: int, results: list[Result]) -> None:
        """Rules that read ``<rule>__late``: their events are late by nature."""
        for consumer in rule.late_consumers:
            outs = consumer.rule.operator.feed_late(consumer.convert(ts, (attributes,)), watermark)
            results += [
                (watermark, consumer.rule, out) for _, out in consumer.rule.pass_on(list(outs or ()), watermark)
            ]

    def _finish(self, results: Sequence[Result]) -> list[Output]:
        return [out if isinstance(out, Output) else rule.output(out) for _, rule, out in results]

    # Tables

    def replace_table(self, name: str, rows: Iterable[Row]) -> bool:
        """Put other rows into a table; new keys that an absence watches are armed from now on. Whether there are any."""
        table = self.tables.get(name.casefold())
        if table is None:
            return False
        table.replace(rows)
        return self.watch_tables()

    def watch_tables(self) -> bool:
        """Arm the absences of keys that a table has got since they were armed last; whether there are any."""
        now = self.started if self.newest_ms is None else self.newest_ms
        held = [rule.operator.held() for rule in self.rules]
        for rule in self.rules:
            if isinstance(rule.operator, Absence) and rule.is_started and now is not None:
                rule.operator.watch_table(now)
        return held != [rule.operator.held() for rule in self.rules]

    # State

    def counters(self) -> dict[str, dict[str, int]]:
        """By rule: what was dropped at which bound, and about how many events it holds."""
        return {str(rule.label): {**rule.limits.dropped, "held": rule.operator.held()} for rule in self.rules}

    def snapshot(self) -> dict[str, Any]:
        """All state as JSON values, with a version. Take it between batches."""
        return persistence.snapshot(self)

    def restore(self, snapshot: Mapping[str, Any]) -> list[str]:
        """Take over a snapshot of this set of rules or an older one.

        Returns:
            The rules that start empty, because they are new or something else than select or having was changed.

        Raises:
            CepSnapshotError: Another version of snapshots, or damaged. The engine must not be used then.
        """
        return persistence.restore(self, snapshot)

    def keeps_all(self, stream: str) -> bool:
        """Whether some rule reads all attributes of a stream, as ``select *`` does."""
        layout = self.layouts.get(stream.casefold())
        return layout is not None and EVERYTHING in layout.slots


def _nothing(ts: int, attributes: Mapping[str, Any]) -> Event:
    return (ts,)


def _in_order(results: list[Result]) -> list[Result]:
    if len(results) > 1:
        results.sort(key=_when)
    return results


def _when(result: Result) -> tuple[int, int]:
    return result[0], result[1].rule.number
