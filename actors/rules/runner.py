"""RuleRunner: runs the script rules that are placed on it. An async actor.

Rules change without a restart: each reload takes over what the BDC says. What triggers them comes from the partitions' feed, from
the CEP shards and from the clock; each counts as done when its runs are handled, so what a crash interrupts comes again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from actors import logs
from actors.config import PlatformConfig
from actors.feed import Announcement, Event
from actors.garbage import settle_memory
from actors.inside import Inside
from actors.rules.carrier import Rehearsal, Tools, describe
from actors.rules.clock import Clock
from actors.rules.fetch import Fetcher
from actors.rules.journal import FLUSH_S, Journal
from actors.rules.lane import Lane, rehearse
from actors.rules.mail import MailServer
from actors.rules.matching import Matcher, branch_of
from actors.rules.rights import Judge
from actors.sandbox import selftest
from actors.sandbox.errors import SandboxStartError
from actors.sandbox.limits import Limits
from actors.sandbox.pool import WarmPool
from actors.watcher import Watcher
from sib.errors import MalformedMessageError, NotFoundError, SibError, UnsupportedError
from sib.placement import place
from sib.rules.condition import compile_condition
from sib.rules.guards import Quota
from sib.rules.rule import Rule, RuleType
from sib.rules.trigger import Trigger, read_trigger
from storage.bdc.bdc import utc_now

log = logging.getLogger("sofia2.rules")

WARM = 2
"""Processes that wait for a rule that needs one."""
DONE_KEPT = timedelta(days=7)
"""Effects are remembered for so long: what has not come again by then does not."""
TIDY_TICKS = 3600
RETRY_S = 0.5
REDRIVE_MAX = 1000
QUOTAS = ("writes", "queries", "http", "mails")
REFUSED = (
    "script rules are not run on this machine, because programs cannot be isolated here: see 'sofia2 sandbox check'"
)


class RuleRunner:
    """The script rules of one actor."""

    def __init__(self, name: str, config: PlatformConfig) -> None:
        logs.configure(config.data, name)
        self._name, self._config = name, config
        self._inside = Inside(name, config)
        self._bdc = self._inside.core.bdc
        self._loop = asyncio.get_event_loop()
        self._journal = Journal(self._bdc, utc_now)
        self._fetch = Fetcher()
        self._lanes: dict[str, Lane] = {}
        self._quotas: dict[str, Quota] = {}
        self._matcher = Matcher((), {})
        self._clock = Clock(self._bdc, utc_now, self._put, self._is_ours)
        self._tools = Tools(self._inside, self._bdc, self._fetch, self._mail, utc_now, self._clock.poke)
        self._feed = Watcher(name, config.topology, self._take, lambda: self._waiting)
        self._pool: WarmPool | None = None
        self._refusal = "the sandbox is being tested"
        self._waiting = self._ticks = self._skipped = 0
        self._changing = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self._started = self._loop.create_task(self._start())
        self._flushing = self._loop.create_task(self._flush_for_ever())

    async def _start(self) -> None:
        report = await selftest.check()
        if report.sandbox is None or not report.is_enough:
            self._refusal = REFUSED
            log.error("%s", "; ".join(report.lines()))
        else:
            memory_mb = self._config.limits.rules_memory_mb
            limits = Limits(memory_mb=memory_mb, cpu=1.0, disk_mb=8, inodes=256, processes=16, can_fork=False)
            self._pool = WarmPool(report.sandbox, limits, size=WARM)
            self._refusal = ""
            try:
                await self._pool.fill()
            except SandboxStartError as error:
                log.warning("no sandbox waits: %s", error.message)
        while True:
            try:
                await self._take_over()
                break
            except SibError as error:
                log.warning("the rules cannot be read now: %s", error.message)
                await asyncio.sleep(RETRY_S)
        # The thousands of runs that wait would be gone through again and again; none of them is ever in a cycle.
        settle_memory()
        self._feed.start()
        self._clock.start()

    # ------------------------------------------------------------------ configuration

    async def reload(self) -> int:
        """Take over the newest configuration: rules, rights, settings. Returns its version."""
        await asyncio.shield(self._started)
        version = await self._inside.reload()
        await self._take_over()
        await self._feed.is_watching()
        return version

    async def _take_over(self) -> None:
        async with self._changing:
            rules = [rule for rule in await asyncio.to_thread(self._read_rules) if self._is_ours(rule.name)]
            judge = await asyncio.to_thread(self._judge)
            active = [rule for rule in rules if rule.active] if self._pool is not None else []
            refused = {rule.name: why for rule in active if (why := judge.refusal(rule)) is not None}
            active = [rule for rule in active if rule.name not in refused]
            matcher = Matcher(active, self._inside.core.catalog.ontologies, judge.may_read)
            matcher.broken.update(refused)
            active = [rule for rule in active if rule.name not in matcher.broken]
            for name, reason in matcher.broken.items():
                log.error("the rule %s is not run: %s", name, reason)
            self._fetch.permit(self._setting("rules.http_allow"))
            for quota in self._quotas.values():
                quota.per_minute = self._per_minute()
            ended = [self._lanes.pop(name) for name in set(self._lanes) - {rule.name for rule in active}]
            for rule in active:
                lane = self._lanes.get(rule.name)
                if lane is None:
                    self._lanes[rule.name] = self._new_lane(rule)
                elif lane.rule != rule or lane.rule.version != rule.version:
                    lane.change(rule)
            self._matcher = matcher
            self._feed.watch(matcher.by_ontology)
            await self._clock.change(active)
            for lane in ended:
                self._closing.add(task := self._loop.create_task(lane.close()))
                task.add_done_callback(self._closing.discard)

    def _new_lane(self, rule: Rule) -> Lane:
        assert self._pool is not None
        quota = self._quotas.setdefault(rule.name, Quota(self._per_minute()))
        return Lane(rule, self._pool, self._tools, self._journal, quota)

    def _judge(self) -> Judge:
        with self._bdc.read() as configuration:
            users = {user.name: user for user in configuration.users.all()}
        return Judge(users, self._inside.core.catalog.ontologies, self._bdc.cep_outputs())

    def _read_rules(self) -> list[Rule]:
        with self._bdc.read() as configuration:
            return configuration.rules.all()

    def _is_ours(self, rule: str) -> bool:
        return place(rule, self._config.topology.rule_runners) == self._name

    def _setting(self, name: str) -> Any:
        default = getattr(self._config.limits, name.replace(".", "_"))
        return self._inside.core.catalog.setting(name, default)

    def _per_minute(self) -> dict[str, int]:
        return {kind: int(self._setting(f"rules.{kind}_per_minute")) for kind in QUOTAS}

    def _mail(self) -> MailServer:
        def text(name: str) -> str:
            return str(self._setting(f"mail.{name}") or "")

        return MailServer(
            host=text("host"),
            port=int(self._setting("mail.port")),
            security=text("security"),
            user=text("user"),
            password_file=text("password_file"),
            sender=text("sender"),
        )

    # ------------------------------------------------------------------ what triggers rules

    def events(self, partition: str, announcement: Announcement) -> None:
        """What changed in a partition."""
        self._feed.put(partition, announcement)

    async def _take(self, partition: str, events: list[Event]) -> Awaitable[None] | None:
        matcher = self._matcher
        triggers = [trigger for event in events for trigger in matcher.triggers(event)]
        return self._put_all(triggers)

    async def cep_events(self, batch: Sequence[Mapping[str, Any]]) -> None:
        """Outputs of CEP rules; returns when every rule that they trigger has handled them.

        Each has ``id`` (the same when it comes again), ``stream`` (the target of ``insert into``), ``ts`` (ms), ``data``,
        ``ontology`` and ``hops``.
        """
        await asyncio.shield(self._started)
        triggers = [trigger for event in batch for trigger in self._of_output(event)]
        rest = self._put_all(triggers)
        if rest is not None:
            await rest

    def _of_output(self, event: Mapping[str, Any]) -> Iterable[Trigger]:
        return self._matcher.of_output(
            str(event["stream"]),
            event["data"],
            int(event["ts"]),
            id_=event["id"],
            ontology=event.get("ontology") or "",
            hops=int(event.get("hops") or 0),
        )

    def _put_all(self, triggers: Iterable[Trigger]) -> Awaitable[None] | None:
        """Hand over runs; the awaitable ends when all are handled."""
        left = 1
        ended: asyncio.Future[None] = self._loop.create_future()

        def handled(_: bool) -> None:
            nonlocal left
            left -= 1
            if not left and not ended.done():
                ended.set_result(None)

        for trigger in triggers:
            left += 1
            if not self._put(trigger, handled):
                left -= 1
        handled(True)
        return None if ended.done() else ended

    def _put(self, trigger: Trigger, done: Callable[[bool], None]) -> bool:
        lane = self._lanes.get(trigger.rule)
        if lane is None:
            return False
        self._waiting += 1

        def handled(is_ok: bool) -> None:
            self._waiting -= 1
            done(is_ok)

        lane.put(trigger, handled)
        return True

    # ------------------------------------------------------------------ commands

    def rules(self) -> dict[str, Any]:
        """How each active rule is doing."""
        states = {name: lane.state() for name, lane in self._lanes.items()}
        broken = {name: {"state": "refused", "reason": reason} for name, reason in self._matcher.broken.items()}
        return {"refusal": self._refusal, "rules": {**states, **broken}}

    async def test(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Run a rule, active or not, once and without effects, and tell what it would have done.

        Args:
            name: the rule.
            given: ``ontology`` or ``cepData`` (a value, or JSON text), ``data``.

        Raises:
            NotFoundError: there is no such rule. UnsupportedError: programs cannot be isolated here.
        """
        await asyncio.shield(self._started)
        if self._pool is None:
            raise UnsupportedError(self._refusal)
        rule = next((rule for rule in await asyncio.to_thread(self._read_rules) if rule.name == name), None)
        if rule is None:
            raise NotFoundError(f"there is no rule {name!r}")
        trigger = _trial(rule, given)
        if trigger is None:
            return {
                "rule": name,
                "branch": None,
                "ok": True,
                "effects": [],
                "output": "",
                "error": None,
                "duration_ms": 0,
            }
        carrier = Rehearsal(rule, self._tools, Quota(self._per_minute()))
        result = await rehearse(rule, self._pool, carrier, trigger)
        return {
            "rule": name,
            "branch": result.branch,
            "ok": result.is_ok,
            "effects": [describe(effect) for effect in result.effects],
            "output": result.output,
            "error": result.failure and result.failure.to_json(),
            "duration_ms": result.duration_ms,
        }

    async def redrive(self, name: str, ids: Sequence[int] | None = None) -> dict[str, int]:
        """Run dead letters of a rule again, the oldest first; those that end well now are no dead letters any more.

        Raises:
            NotFoundError: the rule is not active here.
        """
        await asyncio.shield(self._started)
        lane = self._lanes.get(name)
        if lane is None:
            raise NotFoundError(f"the rule {name!r} is not active: {self._refusal or 'resume it first'}")
        letters = await asyncio.to_thread(lambda: self._bdc.rules.dead_letters(name, limit=REDRIVE_MAX))
        chosen = [letter for letter in reversed(letters) if ids is None or letter.id in ids]
        lane.reset()
        results = await asyncio.gather(*(self._once_more(lane, read_trigger(letter.content)) for letter in chosen))
        raised = [letter.id for letter, is_ok in zip(chosen, results, strict=True) if is_ok and letter.id is not None]
        if raised:
            await asyncio.to_thread(self._bdc.rules.raise_letters, raised)
        return {"redriven": len(raised), "failed": len(chosen) - len(raised)}

    async def _once_more(self, lane: Lane, trigger: Trigger) -> bool:
        ended: asyncio.Future[bool] = self._loop.create_future()
        self._put(trigger, lambda is_ok: None if ended.done() else ended.set_result(is_ok))
        return await ended

    # ------------------------------------------------------------------ upkeep

    async def tick(self) -> None:
        """Upkeep, about once a second."""
        self._ticks += 1
        for lane in list(self._lanes.values()):
            await lane.tidy()
        if self._ticks % TIDY_TICKS == 0:
            await asyncio.to_thread(self._bdc.rules.forget_done, utc_now() - DONE_KEPT)

    async def _flush_for_ever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await self._journal.flush()
            except Exception:
                log.exception("the process log")

    async def stats(self) -> dict[str, Any]:
        """The process and what its rules have done. The first answer comes when it has begun to work."""
        await asyncio.shield(self._started)
        totals = {"runs": 0, "failures": 0, "dead": 0, "refused": 0}
        for lane in self._lanes.values():
            for kind in totals:
                totals[kind] += lane.counts[kind]
        return {
            "pid": os.getpid(),
            "version": self._inside.core.catalog.version,
            "rules": len(self._lanes),
            "waiting": self._waiting,
            "refusal": self._refusal,
            "bdc_write": self._bdc.last_write,
            **totals,
        }


def _trial(rule: Rule, given: Mapping[str, Any]) -> Trigger | None:
    """A run with a sample; None if the condition says that there is nothing to run."""
    content: dict[str, Any] = {"data": given.get("data")}
    attributes: Mapping[str, Any] = {}
    for key in ("ontology", "cepData"):
        value = given.get(key)
        if value is None:
            continue
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        try:
            parsed = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise MalformedMessageError("the sample is no JSON") from None
        content[key] = text
        attributes = parsed if isinstance(parsed, dict) else {}
        if key == "cepData" and isinstance(attributes.get("inEvents"), dict):
            attributes = attributes["inEvents"]
    moment_s = int(datetime.now(UTC).timestamp())
    branch: str | None = "then" if rule.type is RuleType.TIMED else "if"
    if rule.when:
        branch = branch_of(rule, compile_condition(rule.when), attributes, moment_s * 1000)
    return None if branch is None else Trigger(rule.name, f"test:{time.time_ns()}", moment_s, content, branch=branch)
