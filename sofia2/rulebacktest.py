"""Back-test of a script rule: its runs over what was stored, in the order in which it was stored, and without any effect.

What decides whether it runs, the sandbox and the script are those of the live platform. Queries see what is stored now, values
(``sofia.kv``) begin empty and live as long as the back-test, and HTTP gives an empty answer.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from bson import json_util

from actors.feed import Event
from actors.rules.carrier import describe
from actors.rules.matching import Matcher
from actors.rules.rights import Judge
from actors.rules.script import Result, Script
from actors.sandbox import selftest
from actors.sandbox.limits import Limits
from actors.sandbox.pool import WarmPool
from sib.errors import AuthorizationError, ConfigurationError, MalformedMessageError, UnsupportedError
from sib.rules.rule import Rule, RuleType
from sib.rules.trigger import Trigger
from sofia2 import backtest as cep_backtest
from sofia2.bdh import TIME_LIMIT_S, History
from sofia2.reading import BDH, NATIVE, SQL, Reader
from storage.bdc.cep import running_rules

BATCH = 200
"""Runs that go to the script together."""
RUNS_KEPT_MAX = 10_000
"""Runs that are listed; further ones are counted."""


@dataclass(frozen=True, slots=True)
class Ran:
    """One run: when its instance was stored or its CEP output made (ms), and how it ended."""

    ts_ms: int
    result: Result

    def as_dict(self) -> dict[str, Any]:
        failure = self.result.failure
        return {
            "ts": self.ts_ms,
            "branch": self.result.branch,
            "ok": self.result.is_ok,
            "effects": [describe(effect) for effect in self.result.effects],
            "output": self.result.output,
            "error": failure and failure.to_json(),
        }


@dataclass
class RuleReport:
    """What a back-test found. ``runs`` holds the first ``RUNS_KEPT_MAX``; the counts are of all."""

    events: int = 0
    """Instances, or outputs of CEP rules."""
    count: int = 0
    failed: int = 0
    branches: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)
    runs: list[Ran] = field(default_factory=list)
    seconds: float = 0.0

    def take(self, ts_ms: int, result: Result) -> None:
        """Count a run; of one that failed nothing would have been carried out."""
        self.count += 1
        self.failed += not result.is_ok
        self.branches[result.branch] += 1
        if result.is_ok:
            self.effects.update(effect.kind for effect in result.effects)
        if len(self.runs) < RUNS_KEPT_MAX:
            self.runs.append(Ran(ts_ms, result))


def backtest(history: History, rule: Rule, since: datetime, until: datetime) -> RuleReport:
    """Run a rule over what was stored from ``since`` to before ``until`` (UTC, naive).

    Raises:
        ConfigurationError: it cannot run, with the reason. UnsupportedError: programs cannot be isolated here.
        SibError: as ``sofia2.bdh.table``.
    """
    return asyncio.run(_backtest(_Trial(history, rule), since, until))


async def _backtest(trial: _Trial, since: datetime, until: datetime) -> RuleReport:
    began = time.perf_counter()
    tested = await selftest.check()
    if tested.sandbox is None or not tested.is_enough:
        raise UnsupportedError("Programs cannot be isolated on this machine: see 'sofia2 sandbox check'.")
    memory_mb = trial.history.config.limits.rules_memory_mb
    limits = Limits(memory_mb=memory_mb, cpu=1.0, disk_mb=8, inodes=256, processes=16, can_fork=False)
    script = Script(trial.rule, WarmPool(tested.sandbox, limits, size=0), trial.call)
    try:
        triggers = trial.triggers(since, until)
        while batch := list(itertools.islice(triggers, trial.batch)):
            while batch:
                results = await script.run([trigger for _, trigger in batch])
                for (ts_ms, _), result in zip(batch, results, strict=False):
                    trial.take(ts_ms, result)
                batch = batch[len(results) :]
    finally:
        await script.close()
    trial.report.seconds = time.perf_counter() - began
    return trial.report


class _Trial:
    """One rule, what would have made it run, and what it may ask."""

    def __init__(self, history: History, rule: Rule) -> None:
        if rule.type is RuleType.TIMED:
            raise ConfigurationError("A timed rule does not depend on what was stored: try it with 'sofia2 rule test'.")
        self.history, self.rule = history, rule
        self.report = RuleReport()
        # What one run keeps the next one reads, so they go one by one.
        self.batch = 1 if any("kv" in block for block in rule.blocks.values()) else BATCH
        self._values: dict[str, Any] = {}
        with history.bdc.read() as configuration:
            self._users = {user.name: user for user in configuration.users.all()}
            self._ontologies = {record.name: record for record in configuration.ontologies.all()}
            running = running_rules(configuration)
            self._makers = [each for each, parsed in running if parsed.target.casefold() == rule.cep.casefold()]
        judge = Judge(self._users, self._ontologies, history.bdc.cep_outputs())
        refusal = judge.refusal(rule)
        self._matcher = Matcher([rule], self._ontologies, judge.may_read)
        refusal = refusal or self._matcher.broken.get(rule.name)
        if refusal:
            raise ConfigurationError(f"the rule {rule.name} cannot run: {refusal}")
        self._reader = Reader(history.config, history.bdc, partial(self._authorize, judge))

    def _authorize(self, judge: Judge, ontology: str) -> None:
        """Both count: the rule's owner, as when it runs, and who asks."""
        self.history.ontology(ontology)
        if ontology in self._ontologies and not judge.may_read(self.rule.owner, ontology):
            raise AuthorizationError(f"The user {self.rule.owner} may not QUERY the ontology {ontology!r}.")

    def triggers(self, since: datetime, until: datetime) -> Iterator[tuple[int, Trigger]]:
        """What would have made the rule run, and when (ms)."""
        if self.rule.type is RuleType.CEP:
            yield from self._of_outputs(since, until)
            return
        stored = cep_backtest.stored_instances(self.history, self._matcher.by_ontology, since, until)
        for number, (ts_ms, ontology, document) in enumerate(stored, 1):
            self.report.events = number
            for trigger in self._matcher.triggers(Event(number, ontology, document)):
                yield ts_ms, trigger

    def _of_outputs(self, since: datetime, until: datetime) -> Iterator[tuple[int, Trigger]]:
        if not self._makers:
            raise ConfigurationError(f"no active CEP rule inserts into {self.rule.cep!r}")
        found = cep_backtest.backtest(self.history, self._makers, since, until)
        if found.count > len(found.alarms):
            raise ConfigurationError(f"there are {found.count} outputs in this time: choose a shorter one")
        self.report.events = found.count
        for output in found.alarms:
            origin = found.origins.get(str(output.rule), "")
            about = output.stream, output.data, output.ts_ms
            for trigger in self._matcher.of_output(*about, id_=output.alarm_id, ontology=origin, hops=0):
                yield output.ts_ms, trigger

    def take(self, ts_ms: int, result: Result) -> None:
        """Note a run, and keep the values that it wanted kept."""
        self.report.take(ts_ms, result)
        for effect in result.effects if result.is_ok else ():
            if effect.kind == "kv_put":
                self._values[effect.fields["key"]] = effect.fields["value"]
            elif effect.kind == "kv_delete":
                self._values.pop(effect.fields["key"], None)

    async def call(self, method: str, payload: Any) -> Any:
        """What the script asks and waits for.

        Raises:
            SibError: it is refused or failed.
        """
        asked = payload if isinstance(payload, dict) else {}
        if method == "kv.get":
            return self._values.get(str(asked.get("key")))
        if method == "http":
            return {"status": 0, "headers": {}, "body": ""}
        if method == "query":
            return await asyncio.to_thread(self._query, asked)
        raise MalformedMessageError(f"scripts cannot call {method[:40]!r}")

    def _query(self, asked: dict[str, Any]) -> str:
        told = str(asked.get("type") or "SQLLIKE").lower()
        if told not in (NATIVE, "sqllike", BDH):
            raise UnsupportedError(f"a back-test asks no query of the type {told[:40]!r}")
        found = self._reader.run(
            str(asked.get("query")),
            SQL if told == "sqllike" else told,
            ontology=asked.get("ontology"),
            time_limit_s=TIME_LIMIT_S,
        )
        return str(json_util.dumps(found, json_options=json_util.RELAXED_JSON_OPTIONS))
