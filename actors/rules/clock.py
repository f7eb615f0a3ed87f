"""Runs that have a time: timed rules, and what scripts have scheduled. When each is due is kept in the BDC."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from sib.cron import Period, parse_schedule
from sib.errors import SibError
from sib.rules.rule import Rule, RuleType
from sib.rules.trigger import Trigger, read_trigger
from storage.bdc.bdc import Bdc
from storage.bdc.rules import QueuedRun

log = logging.getLogger("sofia2.rules")

STEP_S = 0.05
QUEUE_S = 1.0
"""How often the queue is looked at; sooner when a rule of this process has put something into it."""
QUEUE_RUNS_MAX = 500

Put = Callable[[Trigger, Callable[[bool], None]], bool]
"""Hands a run to its rule; says whether the rule runs here."""


class Clock:
    """The due times of one runner."""

    def __init__(self, bdc: Bdc, now: Callable[[], datetime], put: Put, is_ours: Callable[[str], bool]) -> None:
        self._bdc, self._now, self._put, self._is_ours = bdc, now, put, is_ours
        self._loop = asyncio.get_running_loop()
        self._due: dict[str, datetime] = {}
        self._rules: dict[str, Rule] = {}
        self._running: set[str] = set()
        self._queued: set[str] = set()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._spawn(self._timers())
        self._spawn(self._queue())

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    def poke(self) -> None:
        """Something in the queue may be due now."""
        self._wake.set()

    async def change(self, rules: Iterable[Rule]) -> None:
        """These are the active timed rules now."""
        timed = {rule.name: rule for rule in rules if rule.type is RuleType.TIMED}
        kept = await asyncio.to_thread(self._bdc.rules.timers) if timed else {}
        for name, rule in timed.items():
            known = self._rules.get(name)
            if known is not None and known.version == rule.version:
                continue
            version, due = kept.get(name, (0, None))
            if version != rule.version or due is None:
                due = self._first(rule)
                await asyncio.to_thread(self._bdc.rules.set_timer, name, rule.version, due)
            self._due[name] = due
        self._rules = timed
        self._due = {name: due for name, due in self._due.items() if name in timed}

    def _first(self, rule: Rule) -> datetime:
        schedule = parse_schedule(rule.schedule)
        return self._now() if isinstance(schedule, Period) else schedule.next_after(self._now())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Timed rules

    async def _timers(self) -> None:
        while True:
            now = self._now()
            for name, due in list(self._due.items()):
                if due <= now and name not in self._running:
                    self._fire(self._rules[name], due)
            await asyncio.sleep(STEP_S)

    def _fire(self, rule: Rule, due: datetime) -> None:
        moment_s = int(due.replace(tzinfo=UTC).timestamp())
        trigger = Trigger(rule.name, f"time:{due.isoformat()}", moment_s, branch="then")
        self._running.add(rule.name)
        if not self._put(trigger, lambda _: self._spawn(self._fired(rule, due))):
            self._running.discard(rule.name)

    async def _fired(self, rule: Rule, due: datetime) -> None:
        """A run that began before a crash is made again with the same time, and so has the same effects."""
        following = _following(rule, due, self._now())
        try:
            await asyncio.to_thread(self._bdc.rules.set_timer, rule.name, rule.version, following)
        except SibError as error:
            log.warning("the next time of the rule %s cannot be kept: %s", rule.name, error.message)
        if self._due.get(rule.name) == due:
            self._due[rule.name] = following
        self._running.discard(rule.name)

    # The queue

    async def _queue(self) -> None:
        while True:
            try:
                await self._take_due()
            except SibError as error:
                log.warning("the queue of rules cannot be read: %s", error.message)
            try:
                async with asyncio.timeout(QUEUE_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def _take_due(self) -> None:
        runs = await asyncio.to_thread(self._bdc.rules.due, self._now(), QUEUE_RUNS_MAX)
        for run in runs:
            if run.key not in self._queued and self._is_ours(run.rule):
                self._queued.add(run.key)
                if not self._put(read_trigger(run.content), lambda _, run=run: self._spawn(self._done(run))):  # type: ignore[misc]
                    log.warning("the rule %s, which a script has called, is not active", run.rule)
                    self._spawn(self._done(run))

    async def _done(self, run: QueuedRun) -> None:
        try:
            await asyncio.to_thread(self._bdc.rules.unqueue, [run.key])
        except SibError as error:
            log.warning("a run cannot be taken out of the queue: %s", error.message)
        self._queued.discard(run.key)


def _following(rule: Rule, due: datetime, now: datetime) -> datetime:
    """The next time; times that have passed meanwhile are left out."""
    schedule = parse_schedule(rule.schedule)
    if isinstance(schedule, Period):
        missed = max(0.0, (now - due).total_seconds()) // schedule.seconds
        return due + timedelta(seconds=(missed + 1) * schedule.seconds)
    return schedule.next_after(max(due, now))
