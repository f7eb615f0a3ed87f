"""One rule at work: what waits for it, in order, and what becomes of each.

Runs of one KP instance are in order: while one waits for its next try, those behind it wait too. At least once: a run counts as
handled when its effects are done, or when it lies among the dead letters.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from actors.rules.carrier import Carrier, Tools
from actors.rules.journal import Journal
from actors.rules.script import BATCH_MAX, Failure, Result, Script
from actors.sandbox.pool import WarmPool
from sib.errors import SibError
from sib.rules.guards import Breaker, Quota
from sib.rules.rule import Rule
from sib.rules.trigger import HOPS_MAX, Trigger
from storage.bdc.rules import DeadLetter

log = logging.getLogger("sofia2.rules")

TRIES = 3
RETRY_S = (0.2, 1.0)
"""Before the second and the third try of a run that failed."""
STORE_RETRY_S_MAX = 10.0
STORE_GIVE_UP_S = 600.0
"""What fails because a database or another system does not answer is tried for so long, and does not count as a try."""
CLOSING_S = 5.0
"""Beside the time of the run under way, for its effects."""
IDLE_S = 600.0
"""A script that had nothing to do for so long gives its process back."""


class Item:
    """One run that is waiting or under way. ``done`` is called once, when it is handled."""

    __slots__ = ("attempts", "done", "is_over", "trigger", "waiting_since")

    def __init__(self, trigger: Trigger, done: Callable[[bool], None]) -> None:
        self.trigger, self.done = trigger, done
        self.attempts = 0
        self.is_over = False
        self.waiting_since: float | None = None


class Lane:
    """The runs of one rule. One per active rule, on the event loop of its actor."""

    def __init__(self, rule: Rule, pool: WarmPool, tools: Tools, journal: Journal, quota: Quota) -> None:
        self._loop = asyncio.get_running_loop()
        self._pool, self._tools, self._journal, self._quota = pool, tools, journal, quota
        self._breaker = Breaker()
        self._ready: deque[Item] = deque()
        self._at_work: dict[Item, None] = {}
        """Taken and not decided, in order."""
        self._at_once = 1
        self._settling: asyncio.Task[None] | None = None
        self._blocked: dict[str, deque[Item]] = {}
        self._timers: set[asyncio.TimerHandle] = set()
        self._wake = asyncio.Event()
        self._is_closed = False
        self.counts = {"runs": 0, "failures": 0, "dead": 0, "refused": 0}
        self._take_over(rule)
        self._used_at = self._loop.time()
        self._work = self._loop.create_task(self._work_for_ever())

    def _take_over(self, rule: Rule) -> None:
        self.rule = self._next = rule
        self._carrier = Carrier(rule, self._tools, self._quota)
        self._script = Script(rule, self._pool, self._carrier.call)

    @property
    def waiting(self) -> int:
        """Runs that are not handled yet, but for those at work."""
        return len(self._ready) + sum(len(items) for items in self._blocked.values())

    def put(self, trigger: Trigger, done: Callable[[bool], None]) -> None:
        """A run is to be made; ``done`` gets whether it went well."""
        self._ready.append(Item(trigger, done))
        self._wake.set()

    def change(self, rule: Rule) -> None:
        """From the next batch on the rule is this one; what waits goes on."""
        self._next = rule
        self._wake.set()

    async def close(self) -> None:
        """End when what is under way has ended; what waits is not run any more."""
        self._is_closed = True
        self._wake.set()
        for timer in self._timers:
            timer.cancel()
        await asyncio.wait([self._work], timeout=self.rule.timeout_s + CLOSING_S)
        self._work.cancel()
        await asyncio.wait([self._work])
        await self._script.close()
        for items in (tuple(self._at_work), self._ready, *self._blocked.values()):
            for item in items:
                if not item.is_over:
                    item.is_over = True
                    item.done(False)

    def state(self) -> dict[str, Any]:
        """For people."""
        now_s = self._loop.time()
        until_s = self._breaker.until_s(now_s)
        return {
            "state": "running" if until_s is None else "broken",
            "waiting": self.waiting,
            "processes": self._script.starts,
            **({} if until_s is None else {"again_in_s": round(until_s - now_s, 1)}),
            **self.counts,
        }

    def reset(self) -> None:
        """Close the breaker: somebody has seen to what was wrong."""
        self._breaker.succeeded()

    async def tidy(self) -> None:
        """Give the process back when nothing has happened for long."""
        if self._loop.time() - self._used_at > IDLE_S and not self._ready:
            self._used_at = self._loop.time()
            await self._script.close()

    # The work

    async def _work_for_ever(self) -> None:
        while not self._is_closed:
            await self._wake.wait()
            if self._next is not self.rule:
                await self._script.close()
                self._take_over(self._next)
            try:
                items = await self._take()
                if items:
                    await self._run(items)
                elif not self._ready:
                    self._wake.clear()
            except Exception as error:
                log.exception("a batch of the rule %s failed", self.rule.name)
                for item in tuple(self._at_work):
                    await self._try_later(item, Failure("platform", type(error).__name__, "our own fault; see the log"))

    async def _take(self) -> list[Item]:
        """What is to be run next. Not while effects are carried out: what they make wait must wait in its order."""
        items: list[Item] = []
        if self._is_closed or self._next is not self.rule:
            return items
        for _ in range(min(self._at_once, len(self._ready))):
            item = self._ready.popleft()
            if not self._defer(item):
                self._at_work[item] = None
                if not await self._refused(item):
                    items.append(item)
                    if self._breaker.is_trying:
                        break  # alone: those behind it are not refused before it has had its chance
        self._used_at = self._loop.time()
        return items

    def _defer(self, item: Item) -> bool:
        """Whether it has to wait behind another of its KP instance."""
        behind = self._blocked.get(item.trigger.lane)
        if behind is None or behind[0] is item:
            return False
        self._wait_behind(behind, item)
        return True

    def _wait_behind(self, behind: deque[Item], item: Item) -> None:
        behind.append(item)
        self._at_work.pop(item, None)

    async def _run(self, items: list[Item]) -> None:
        """Run these and what follows them."""
        self._settling = None
        try:
            await self._run_ahead(items)
        except Exception:
            if self._settling is not None:  # what is sent must be recorded, whatever failed ahead of it
                await asyncio.wait([self._settling])
            raise
        finally:
            if self._settling is not None:
                self._settling.cancel()

    async def _run_ahead(self, items: list[Item]) -> None:
        """While effects are carried out, the next runs are made already, as long as they do not read.

        What is taken and what is made to wait is decided between two batches, never beside one, and so in order.
        """
        while items:
            results = await self._results(items, may_read=self._settling is None)
            if self._settling is not None:
                await self._settling
            if isinstance(results, SibError):  # no sandbox now: it is not the script's fault
                for item in items:
                    if not self._defer(item):
                        await self._try_when_possible(item, results)
                return
            batch = [entry for entry in zip(items, results, strict=False) if not self._defer(entry[0])]
            rest = [item for item in items[len(results) :] if not self._defer(item)]
            items = rest or ([] if self._breaker.is_trying else await self._take())
            if items and not rest and any(result.effects for _, result in batch):
                self._settling = self._loop.create_task(self._settle(batch))
            else:
                self._settling = None
                await self._settle(batch)
                items = [item for item in items if not self._defer(item)]

    async def _results(self, items: list[Item], *, may_read: bool) -> list[Result] | SibError:
        """Of the first ones: twice as many are tried at once as went well the last time, so that little is sent in vain."""
        try:
            results = await self._script.run([item.trigger for item in items[: self._at_once]], may_read=may_read)
        except SibError as error:
            return error
        self._at_once = min(BATCH_MAX, max(1, 2 * len(results)))
        return results

    async def _refused(self, item: Item) -> bool:
        """Whether it is not to be run at all."""
        trigger = item.trigger
        if trigger.hops >= HOPS_MAX:
            self.counts["refused"] += 1
            text = f"Not run: {HOPS_MAX} rules have triggered one another before it; rules that form a circle stop here"
            self._journal.said(self.rule, text, result="loop", execution=trigger.key, source=trigger.source)
            self._finish(item, False)
            return True
        is_new = not item.attempts and item.waiting_since is None
        if is_new and self._breaker.is_open(self._loop.time()):
            await self._bury(
                item, "the rule is not run for a while, because it failed too often in a row", is_run=False
            )
            return True
        return False

    async def _settle(self, batch: list[tuple[Item, Result]]) -> None:
        """Carry out what the runs ask for, in order; inserts that stand side by side go together."""
        together: list[tuple[Item, Result]] = []
        for item, result in batch:
            if self._defer(item):
                continue
            if result.is_ok and not any(effect.is_recorded for effect in result.effects):
                together.append((item, result))
                continue
            await self._commit_all(together)
            if result.is_ok:
                await self._commit(item, result)
            else:
                assert result.failure is not None
                self._note(item, result)
                await self._try_later(item, result.failure)
        await self._commit_all(together)

    async def _commit_all(self, together: list[tuple[Item, Result]]) -> None:
        runs = [(item.trigger, result.effects) for item, result in together]
        errors = await self._carrier.carry_out_together(runs)
        for (item, result), error in zip(together, errors, strict=True):
            if error is None:
                self._succeed(item, result)
            else:
                await self._not_committed(item, result, error)
        together.clear()

    async def _commit(self, item: Item, result: Result) -> None:
        try:
            await self._carrier.carry_out(item.trigger, result.effects)
        except SibError as error:
            await self._not_committed(item, result, error)
        else:
            self._succeed(item, result)

    async def _not_committed(self, item: Item, result: Result, error: SibError) -> None:
        failure = Failure("effects", error.code, error.message)
        if error.is_retryable:
            await self._try_when_possible(item, error)
            return
        handled = result
        if result.failure is None and self.rule.blocks.get("error"):
            handled = await self._script.handle(item.trigger, failure)
        else:
            handled = Result(result.branch, result.duration_ms, result.effects, result.output, failure)
        if not handled.is_ok:
            self._note(item, handled)
            await self._try_later(item, failure)
            return
        try:
            await self._carrier.carry_out(item.trigger, handled.effects)
        except SibError as second:
            await self._try_later(item, Failure("effects", second.code, second.message))
        else:
            self._succeed(item, handled)

    def _succeed(self, item: Item, result: Result) -> None:
        self._note(item, result)
        self._breaker.succeeded()
        self._finish(item, True)

    def _note(self, item: Item, result: Result) -> None:
        self.counts["runs"] += 1
        self.counts["failures"] += result.failure is not None
        self._journal.ran(self.rule, item.trigger, result, attempt=item.attempts + 1)

    # Another try

    async def _try_later(self, item: Item, failure: Failure) -> None:
        item.attempts += 1
        if item.attempts >= TRIES:
            await self._bury(item, failure.describe())
        else:
            self._block(item, RETRY_S[item.attempts - 1])

    async def _try_when_possible(self, item: Item, error: SibError) -> None:
        now_s = self._loop.time()
        if item.waiting_since is None:
            item.waiting_since = now_s
        waited_s = now_s - item.waiting_since
        if waited_s > STORE_GIVE_UP_S or not error.is_retryable:
            await self._bury(item, error.message)
        else:
            self._block(item, min(STORE_RETRY_S_MAX, max(0.2, waited_s)))

    def _block(self, item: Item, delay_s: float) -> None:
        key = item.trigger.lane
        behind = self._blocked.get(key)
        if behind is not None and behind[0] is not item:
            self._wait_behind(behind, item)  # another of its instance waits already
            return
        self._at_work.pop(item, None)
        if behind is None:
            self._blocked[key] = deque([item])
        self._timers = {timer for timer in self._timers if timer.when() > self._loop.time()}
        self._timers.add(self._loop.call_later(delay_s, self._unblock, key))

    def _unblock(self, key: str) -> None:
        """Its time has come: alone, those behind it wait until it is handled."""
        behind = self._blocked.get(key)
        if behind:
            self._ready.appendleft(behind[0])
            self._wake.set()

    async def _bury(self, item: Item, reason: str, *, is_run: bool = True) -> None:
        trigger = item.trigger
        letter = DeadLetter(self.rule.name, trigger.key, reason, item.attempts, trigger.to_json(), self._tools.now())
        while not self._is_closed:
            try:
                await asyncio.to_thread(self._tools.bdc.rules.bury, [letter])
                break
            except SibError as error:
                log.warning("a dead letter cannot be kept now: %s", error.message)
                await asyncio.sleep(1.0)
        self.counts["dead"] += 1
        if is_run and self._breaker.failed(self._loop.time()):
            until_s = self._breaker.until_s(self._loop.time()) or self._loop.time()
            wait_s = until_s - self._loop.time()
            text = (
                f"The rule failed too often in a row: for {wait_s:.0f} s it is not run, and what comes is a dead letter"
            )
            self._journal.said(self.rule, text, result="broken")
        self._finish(item, False)

    def _finish(self, item: Item, is_ok: bool) -> None:
        behind = self._blocked.get(item.trigger.lane)
        if behind is not None and behind[0] is item:
            del self._blocked[item.trigger.lane]
            behind.popleft()
            self._ready.extendleft(reversed(behind))
            self._wake.set()
        item.is_over = True
        self._at_work.pop(item, None)
        item.done(is_ok)


async def rehearse(rule: Rule, pool: WarmPool, carrier: Carrier, trigger: Trigger) -> Result:
    """One run in a process of its own; nothing of it is carried out."""
    script = Script(rule, pool, carrier.call)
    try:
        return (await script.run([trigger]))[0]
    finally:
        await script.close()
