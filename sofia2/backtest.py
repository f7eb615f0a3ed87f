"""Back-test: a CEP rule over what was stored, in the order in which it was stored, without any action.

The events, the engine and the rules are those of the live platform (:mod:`sib.cep.definitions`); only the clock is left out: time
goes on with the instances, and at the end to ``until``. Real time and history are read as one, a day at a time.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from sib.cep import Engine, Output, parse_rules
from sib.cep.definitions import CepRule, Deployment, deploy, streams_of
from sib.cep.errors import CepSyntaxError
from sib.cep.events import milliseconds
from sib.cep.language import ast
from sib.cep.tables import TABLE_ROWS_MAX, row_of
from sib.errors import ConfigurationError, LimitError, NotFoundError, SibError
from sib.ssap.printing import print_one
from sofia2.bdh import TIME_LIMIT_S, History
from storage.bdh.columns import layout_of
from storage.bdh.fitting import restore
from storage.bdh.intervals import EVER, Intervals, both
from storage.bdh.intervals import since as from_moment
from storage.bdh.intervals import until as before_moment
from storage.bdh.sql import Scope

SLICE = timedelta(days=1)
"""What is in memory at once of each ontology."""

BATCH = 1_000

ALARMS_KEPT_MAX = 100_000
"""Alarms that are listed; further ones are counted."""


@dataclass(frozen=True)
class FileRule(CepRule):
    """A rule of a file: its whole text instead of boxes."""

    source: str = ""

    def text(self) -> str:
        return self.source


@dataclass(frozen=True, slots=True)
class Label:
    """When there should have been an alarm: a period in ms, and values that the alarm's data have."""

    since_ms: int
    until_ms: int
    data: Mapping[str, Any]

    def fits(self, alarm: Output, tolerance_ms: int) -> bool:
        is_then = self.since_ms - tolerance_ms <= alarm.ts_ms <= self.until_ms + tolerance_ms
        return is_then and all(alarm.data.get(name) == value for name, value in self.data.items())


@dataclass
class Score:
    """How alarms compare with labels. A label is found when some alarm fits; an alarm is right when it fits some label."""

    right: int
    wrong: int
    found: int
    missed: list[Label]

    @property
    def precision(self) -> float | None:
        """Right alarms of all; None without alarms."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else None

    @property
    def recall(self) -> float | None:
        """Found labels of all; None without labels."""
        return self.found / (self.found + len(self.missed)) if self.found or self.missed else None


@dataclass
class Report:
    """What a back-test found. ``count`` is of all alarms; ``alarms`` holds the first ``ALARMS_KEPT_MAX``."""

    events: int = 0
    count: int = 0
    alarms: list[Output] = field(default_factory=list)
    seconds: float = 0.0
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    """By rule, the ontology of the first event that it reads."""

    def take(self, outputs: Iterable[Output], titles: frozenset[str]) -> None:
        """Keep the alarms of the rules under test."""
        for output in outputs:
            if str(output.rule) in titles:
                self.count += 1
                if len(self.alarms) < ALARMS_KEPT_MAX:
                    self.alarms.append(output)


def backtest(history: History, chosen: Sequence[CepRule], since: datetime, until: datetime) -> Report:
    """Run rules over the instances that were stored from ``since`` to before ``until`` (UTC, naive).

    Rules of the platform whose outputs they read run with them; their outputs are not listed.

    Raises:
        CepSyntaxError: a rule cannot be read. ConfigurationError: it cannot run here, with the reason.
        SibError: as ``sofia2.bdh.table``.
    """
    began = time.perf_counter()
    deployment = _deploy(history, chosen)
    report = Report()
    titles = frozenset(rule.name for rule in chosen)
    engine = deployment.engine
    engine.begin(_ms(since))
    batch: list[tuple[str, int, dict[str, Any]]] = []
    for document in _documents(history, deployment, since, until):
        batch += document
        report.events += len(document)
        if len(batch) >= BATCH:
            report.take(engine.send_batch(batch), titles)
            batch = []
    report.take(engine.send_batch(batch), titles)
    report.take(engine.advance(_ms(until)), titles)
    report.dropped, report.origins = _dropped(engine), deployment.origins
    report.seconds = time.perf_counter() - began
    return report


def chosen_rules(history: History, name: str) -> list[CepRule]:
    """The deployed rule of this name, active or not.

    Raises:
        NotFoundError: there is none.
    """
    with history.bdc.read() as configuration:
        rule = configuration.cep_rules.get(name)
    if rule is None:
        raise NotFoundError(f"there is no CEP rule and no file {name!r}: 'sofia2 cep list' shows the rules")
    return [rule]


def rules_of_text(text: str, owner: str) -> list[CepRule]:
    """The rules of a file; one without ``@name`` is named by its target.

    Raises:
        CepSyntaxError: with lines and columns of the text.
    """
    found: list[CepRule] = []
    for rule in parse_rules(text):
        name = rule.name or _free(rule.target, found)
        source = rule.text if rule.name else f"@name({name!r})\n{rule.text}"
        found.append(FileRule(name, owner, "", "", "", source=source))
    return found


def _free(name: str, rules: Sequence[CepRule]) -> str:
    taken = {rule.name for rule in rules}
    number = 2
    while name in taken:
        name, number = f"{name.partition('#')[0]}#{number}", number + 1
    return name


def score(alarms: Sequence[Output], labels: Sequence[Label], tolerance_ms: int) -> Score:
    """Compare alarms with labels."""
    found = [False] * len(labels)
    right = 0
    for alarm in alarms:
        fitting = [number for number, label in enumerate(labels) if label.fits(alarm, tolerance_ms)]
        right += bool(fitting)
        for number in fitting:
            found[number] = True
    missed = [label for label, is_found in zip(labels, found, strict=True) if not is_found]
    return Score(right, len(alarms) - right, len(labels) - len(missed), missed)


def read_label(value: Any) -> Label:
    """A label of a file: ``ts``, or ``since`` and ``until`` (ms since 1970 or a date), and perhaps ``data``.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, dict) or not isinstance(value.get("data", {}), dict):
        raise ValueError("a label is a JSON object with 'ts', or 'since' and 'until', and perhaps 'data' (an object)")
    first = _moment_ms(value.get("since", value.get("ts")))
    last = _moment_ms(value.get("until", value.get("ts", value.get("since"))))
    if last < first:
        raise ValueError("a label ends before it begins")
    return Label(first, last, value.get("data", {}))


def _moment_ms(value: Any) -> int:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    found = milliseconds(value)
    if found is None:
        raise ValueError("a label has a time: 'ts', or 'since' and 'until', in ms or as a date")
    return found


# What runs


def _deploy(history: History, chosen: Sequence[CepRule]) -> Deployment:
    with history.bdc.read() as configuration:
        events = configuration.cep_events.all()
        deployed = configuration.cep_rules.all()
        ontologies = [record.name for record in configuration.ontologies.all()]
    rules = _with_sources(chosen, deployed)
    ontology_of = {event.name.casefold(): event.ontology for event in events}
    for rule in rules:
        for stream in ontology_of.keys() & set(streams_of(rule.parse())):
            history.ontology(ontology_of[stream])  # whether whoever asks may read it
    deployment = deploy(
        rules,
        events,
        ontology=history.ontology,
        ontologies=ontologies,
        refuse=lambda rule, read, written: _refusal(history, read),
        rows=lambda name: _rows(history, name),
    )
    for rule in chosen:
        if rule.name in deployment.broken:
            raise ConfigurationError(f"the rule {rule.name} cannot run: {deployment.broken[rule.name]}")
    return deployment


def _refusal(history: History, names: Sequence[str]) -> str | None:
    """Why whoever asks may not read these ontologies; None: they may."""
    for name in names:
        try:
            history.ontology(name)
        except SibError as error:
            return error.message
    return None


def _with_sources(chosen: Sequence[CepRule], deployed: Sequence[CepRule]) -> list[CepRule]:
    """The rules and those, active, whose outputs they read, directly or not."""
    names = {rule.name for rule in chosen}
    others: dict[str, list[tuple[CepRule, ast.Rule]]] = {}
    for rule in deployed:
        if rule.active and rule.name not in names:
            try:
                parsed = rule.parse()
            except (CepSyntaxError, ValueError):
                continue
            others.setdefault(parsed.target.casefold(), []).append((rule, parsed))
    result = list(chosen)
    own = [rule.parse() for rule in chosen]
    made = {rule.target.casefold() for rule in own}
    wanted = [stream for rule in own for stream in streams_of(rule) if stream not in made]
    while wanted:
        for rule, parsed in others.pop(wanted.pop(), ()):
            result.append(rule)
            wanted += streams_of(parsed)
    return result


def _rows(history: History, ontology: str) -> list[dict[str, Any]]:
    """An ontology as a table, as it is in real time now."""
    root = history.ontology(ontology).root
    stored = _stored(history, ontology, EVER, Scope.REAL_TIME)
    rows = [row_of(orjson.loads(print_one(document)), root) for document in stored]
    if len(rows) > TABLE_ROWS_MAX:
        raise LimitError(f"the table {ontology} has {len(rows)} rows, at most {TABLE_ROWS_MAX} are allowed")
    return rows


# What it runs over


def _documents(
    history: History, deployment: Deployment, since: datetime, until: datetime
) -> Iterator[list[tuple[str, int, dict[str, Any]]]]:
    """The events of one instance after the other."""
    for inserted_ms, ontology, document in stored_instances(history, deployment.events, since, until):
        yield [definition.event(document, inserted_ms) for definition in deployment.events[ontology]]


def stored_instances(
    history: History, ontologies: Iterable[str], since: datetime, until: datetime
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Insertion time in ms, ontology and instance, in the order in which they were stored."""
    names = list(ontologies)
    while since < until:
        end = min(since + SLICE, until)
        parts = [_slice(history, ontology, since, end) for ontology in names]
        for inserted_ms, _, ontology, document in heapq.merge(*parts, key=lambda item: item[:3]):
            yield inserted_ms, ontology, document
        since = end


def _slice(
    history: History, ontology: str, since: datetime, until: datetime
) -> list[tuple[int, str, str, dict[str, Any]]]:
    found = []
    for document in _stored(history, ontology, both(from_moment(since), before_moment(until)), Scope.BOTH):
        stored_ms = milliseconds(document.get("contextData", {}).get("timestamp"))
        if stored_ms is not None:
            found.append((stored_ms, str(document["_id"]), ontology, document))
    found.sort(key=lambda item: item[:2])
    return found


def _stored(history: History, ontology: str, needed: Intervals, scope: Scope) -> Iterator[dict[str, Any]]:
    table = history.queries.table(ontology, needed=needed, scope=scope, time_limit_s=TIME_LIMIT_S)
    return restore(iter(table.to_pylist()), layout_of(history.ontology(ontology)))


def _dropped(engine: Engine) -> dict[str, dict[str, int]]:
    counters = {
        rule: {what: count for what, count in counts.items() if what != "held"}
        for rule, counts in engine.counters().items()
    }
    return {rule: counts for rule, counts in counters.items() if counts}


def _ms(moment: datetime) -> int:
    return round(moment.replace(tzinfo=UTC).timestamp() * 1000)
