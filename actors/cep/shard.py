"""CepShard: the CEP rules of one actor, over the changes that the partitions announce.

First the snapshot, with the outputs that have not arrived yet, then the acknowledgement: whatever dies in between, the partitions
tell again what the last snapshot has not seen, and what comes out again has the same ids. While it replays, the wall clock stands
still for the rules.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import zlib
from collections.abc import Awaitable, Mapping, Sequence
from itertools import groupby
from typing import Any

import orjson

from actors import logs
from actors.cep.delivery import Delivery
from actors.cep.outbox import Delivered
from actors.cep.patience import Patience
from actors.config import PlatformConfig
from actors.feed import Announcement, Event
from actors.garbage import settle_memory
from actors.inside import Inside
from actors.watcher import Watcher
from sib.access import Rights
from sib.cep.definitions import CepEvent, CepRule, Deployment, Refuse, deploy
from sib.cep.engine import IncomingEvent
from sib.cep.errors import CepRuleError, CepSnapshotError
from sib.cep.events import milliseconds
from sib.cep.output import Output
from sib.cep.tables import TABLE_ROWS_MAX, row_of
from sib.errors import SibError
from sib.placement import place
from sib.query import plan as plans
from sib.rules.trigger import HOPS_MAX, hops_of
from storage.bdc.bdc import utc_now
from storage.bdc.records import LogRecord, UserRecord

log = logging.getLogger("sofia2.cep")

SNAPSHOT_S = 1.0
SNAPSHOT_SHARE = 10
"""A snapshot that takes long is taken seldom: at most a tenth of the time goes into it."""
RETRY_S = 0.5
GRACE_MS = 1_000
"""The clock goes so much behind for the rules: what is stored now may be on its way here, and would come late."""
TABLES_S = 5.0
"""How often the ontologies that rules read as tables are read again."""
TABLE_TIME_LIMIT_S = 10.0
OUTBOX = "outbox"
"""Outputs that have not arrived yet, in the snapshot of a shard."""
STATE_BYTES_MAX = 256 << 20
"""A larger state is not kept: after a crash such rules start from the last one that was."""


class CepShard:
    """The rules that are placed on one actor. An async actor; one batch at a time goes through the engine."""

    def __init__(self, name: str, config: PlatformConfig) -> None:
        logs.configure(config.data, name)
        self._name, self._config = name, config
        self._inside = Inside(name, config)
        self._bdc = self._inside.core.bdc
        self._loop = asyncio.get_event_loop()
        self._feed = Watcher(name, config.topology, self._take, lambda: self._waiting)
        self._delivery = Delivery(self._inside, config, has_scripts=lambda: self._has_scripts)
        self._has_scripts = False
        self._patience = Patience()
        self._recent: list[Output] = []
        """Made since the state was kept last, so that they are told once where the shard has to go back to it."""
        self._repeated: set[str] = set()
        self._deployment: Deployment | None = None
        self._positions: dict[str, int] = {}
        self._unacknowledged: list[asyncio.Future[None]] = []
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._is_live = False
        self._has_changed = False
        """By time alone, since the state was kept last."""
        self._snapshot_at_s = self._snapshot_took_s = 0.0
        self._tables_at_s = 0.0
        self._counts = {"events": 0, "outputs": 0, "circles": 0, "snapshots": 0}
        self._started = self._loop.create_task(self._start())

    async def _start(self) -> None:
        snapshot = await self._load()
        self._delivery.outbox.load((snapshot or {}).get(OUTBOX, ()))
        # Windows hold what looks to the collector like more and more to go through; none of it is ever in a cycle.
        settle_memory()
        self._feed.start()
        self._ticking = self._loop.create_task(self._go_live())

    async def _load(self) -> dict[str, Any] | None:
        """Take over the state that was kept last; what came after it comes again from the partitions."""
        while True:
            try:
                kept = await asyncio.to_thread(self._bdc.cep.load, self._name)
                self._positions, snapshot = {}, None
                if kept is not None:
                    self._positions, snapshot = await self._feed.known(kept[0]), _unpacked(kept[1])
                self._deployment = None
                await self._take_over(snapshot)
                return snapshot
            except SibError as error:
                log.warning("the CEP rules and their state cannot be read now: %s", error.message)
            except Exception:  # what Ray says of a partition that dies meanwhile
                log.exception("the CEP rules and their state cannot be read now")
            await asyncio.sleep(RETRY_S)

    async def _go_live(self) -> None:
        """The clock counts for the rules once every partition has told what it had to tell."""
        while not self._is_live:
            try:
                await self._feed.is_watching()
                async with self._turn:
                    self._is_live = True
                    await self._begin()
            except SibError as error:
                log.debug("not every partition answers: %s", error)
                await asyncio.sleep(0.2)

    # ------------------------------------------------------------------ configuration

    async def reload(self) -> int:
        """Take over the newest configuration: events, rules, rights. Returns its version."""
        await asyncio.shield(self._started)
        version = await self._inside.reload()
        async with self._turn:
            await self._take_over(None)
        await self._feed.is_watching()
        return version

    async def _take_over(self, snapshot: Mapping[str, Any] | None) -> None:
        rules, events, users, has_scripts = await asyncio.to_thread(self._read)
        self._has_scripts = has_scripts
        sources = rules, events, users, dict(self._inside.core.catalog.ontologies)
        before = self._deployment
        if before is not None:
            if before.sources == sources:
                return
            snapshot = before.engine.snapshot()
        refuse = self._judge(users)
        try:
            deployment = self._deploy(rules, events, refuse, snapshot)
        except CepSnapshotError as error:
            log.error("the state of the CEP rules cannot be used, they start anew: %s", error.message)
            deployment = self._deploy(rules, events, refuse, None)
        deployment.sources = sources
        for name, reason in deployment.broken.items():
            log.error("the CEP rule %s is not run: %s", name, reason)
        self._deployment = deployment
        partition_of = self._config.topology.partition_of
        deployment.engine.expect(sorted({partition_of(ontology) for ontology in deployment.events}))
        await self._read_tables()
        await self._begin()
        self._feed.watch(deployment.events)

    async def _begin(self) -> None:
        """Rules that have not started do now, even if nothing comes; kept at once, as a later start would make other outputs."""
        if self._is_live and self._deployment is not None and self._deployment.engine.begin(_wall_ms()):
            self._has_changed = True
            await self._take_snapshot()
            self._snapshot_at_s = 0.0

    def _deploy(
        self,
        rules: Sequence[CepRule],
        events: Sequence[CepEvent],
        refuse: Refuse,
        snapshot: Mapping[str, Any] | None,
    ) -> Deployment:
        catalog = self._inside.core.catalog
        return deploy(
            rules,
            events,
            ontology=catalog.ontology,
            ontologies=catalog.ontologies,
            refuse=refuse,
            snapshot=snapshot,
        )

    def _read(self) -> tuple[list[CepRule], list[CepEvent], dict[str, UserRecord], bool]:
        with self._bdc.read() as configuration:
            rules = [rule for rule in configuration.cep_rules.all() if rule.active]
            has_scripts = any(rule.active and rule.type == "cep" for rule in configuration.rules.all())
            users = {user.name: user for user in configuration.users.all()}
            events = configuration.cep_events.all()
        return rules if self._is_ours() else [], events, users, has_scripts

    def _is_ours(self) -> bool:
        """Rules read each other's outputs, so all of them run on one shard; the others stand by for its loss."""
        return place("cep", self._config.topology.cep_shards) == self._name

    def _judge(self, users: Mapping[str, UserRecord]) -> Refuse:
        ontologies = self._inside.core.catalog.ontologies

        def refuse(rule: CepRule, read: Sequence[str], written: Sequence[str]) -> str | None:
            owner = users.get(rule.owner)
            if owner is None or not owner.active:
                return f"its owner {rule.owner!r} is not active"
            if self._patience.is_stopped(rule.name, rule.version):
                return "it failed again and again as time went by, see the log: it is run again when it is changed"
            wanted = [(name, Rights.QUERY) for name in read] + [(name, Rights.INSERT) for name in written]
            for name, right in wanted:
                if right not in ontologies[name].rights(owner.name, owner.role):
                    return f"its owner {rule.owner!r} may not {right.name} in the ontology {name!r}"
            return None

        return refuse

    async def _read_tables(self) -> None:
        """The rows of the ontologies that rules read as tables, as of now."""
        deployment = self._deployment
        self._tables_at_s = time.monotonic()
        if deployment is None:
            return
        for name in deployment.tables:
            plan = plans.Find(name, {})
            arguments = plan, True, TABLE_ROWS_MAX, TABLE_TIME_LIMIT_S
            try:
                _, found, _ = await self._inside.core.queries.run("run", *arguments)
                root = self._inside.core.catalog.ontology(name).root
                rows = [row_of(document, root) for document in orjson.loads(found or b"[]")]
                self._has_changed |= deployment.engine.replace_table(name, rows)
            except SibError as error:
                log.warning("the table %s of CEP rules stays as it is: %s", name, error.message)

    # ------------------------------------------------------------------ events

    def events(self, partition: str, announcement: Announcement) -> None:
        """What changed in a partition."""
        self._feed.put(partition, announcement)

    async def _take(self, partition: str, events: list[Event]) -> Awaitable[None] | None:
        """Run the rules over the changes of one announcement; the awaitable ends when a snapshot has seen them."""
        self._waiting += len(events)
        try:
            await self._delivery.outbox.until_room()
            async with self._turn:
                position = self._positions.get(partition, -1)
                new = [event for event in events if event.seq > position]
                if not new:
                    return None
                part: Sequence[Event] = new
                try:
                    for part in self._patience.parts(partition, new):
                        self._run(partition, part)
                except Exception as error:
                    await self._failed(partition, part, error)
                    return None
                self._positions[partition] = new[-1].seq
                seen: asyncio.Future[None] = self._loop.create_future()
                self._unacknowledged.append(seen)
                return seen
        finally:
            self._waiting -= len(events)

    def _run(self, partition: str, events: Sequence[Event]) -> None:
        assert self._deployment is not None
        incoming = self._incoming(events)
        now_ms = _clock_ms() if self._is_live else None
        outputs = self._deployment.engine.send_batch(incoming, source=partition, now_ms=now_ms)
        self._counts["events"] += len(incoming)
        self._deliver(outputs)

    def _incoming(self, events: Sequence[Event]) -> list[IncomingEvent]:
        assert self._deployment is not None
        incoming: list[IncomingEvent] = []
        for (ontology, hops), alike in groupby(events, key=_origin_of):
            definitions = self._deployment.events.get(ontology)
            if not definitions:
                continue
            if hops >= HOPS_MAX:
                left_out = len(list(alike))
                self._counts["circles"] += left_out
                log.error("rules feed each other through %s: %d hops, %d events left out", ontology, hops, left_out)
                continue
            made = [
                definition.event(event.document, _stored_ms(event)) for event in alike for definition in definitions
            ]
            self._deployment.hops.note(made, hops)
            incoming += made
        return incoming

    def _deliver(self, outputs: Sequence[Output]) -> None:
        assert self._deployment is not None
        rules, hops, origins = self._deployment.rules, self._deployment.hops, self._deployment.origins
        self._recent += outputs
        if self._repeated:
            outputs = [output for output in outputs if output.alarm_id not in self._repeated]
        self._counts["outputs"] += len(outputs)
        self._delivery.put(
            Delivered(output, rules[name].owner, hops.of(output), origins.get(name, ""))
            for output in outputs
            if (name := str(output.rule)) in rules
        )

    # ------------------------------------------------------------------ failures

    async def _failed(self, partition: str, events: Sequence[Event], error: Exception) -> None:
        """What the rules failed over comes again, until it is set aside."""
        text = "CEP rules failed over %d changes of %s, they are tried again"
        log.error(text, len(events), partition, exc_info=error, extra={"code": CepRuleError.code})
        given_up = self._patience.failed(partition, events)
        if given_up is not None:
            await self._set_aside(partition, given_up, error)
        await self._go_back()

    async def _set_aside(self, partition: str, event: Event, error: Exception) -> None:
        details = {"partition": partition, "change": event.seq, "ontology": event.ontology, "reason": str(error)}
        log.error("a change is set aside, the CEP rules fail over it", extra={"code": "cep.event_set_aside", **details})
        summary = f"a change in {event.ontology} is set aside, the rules fail over it: {error}"[:200]
        try:
            await asyncio.to_thread(self._bdc.log, [LogRecord("CEP", utc_now(), summary, details=details)])
        except SibError as problem:
            log.warning("the process log: %s", problem.message)

    async def _failed_over_time(self, error: Exception) -> None:
        """A rule that failed as time went by is tried again, until it is stopped."""
        name = error.rule if isinstance(error, CepRuleError) else ""
        rule = self._deployment.rules.get(name) if self._deployment is not None else None
        log.error("CEP rules failed as time went by", exc_info=error, extra={"code": CepRuleError.code, "rule": name})
        if self._patience.failed_over_time(name, rule.version if rule else 0):
            log.error("the CEP rule %s is stopped", name, extra={"code": "cep.rule_stopped"})
        await self._go_back()

    async def _go_back(self) -> None:
        """To the state that was kept last, as after a crash; what was told since is not told again."""
        self._is_live = False
        self._ticking.cancel()
        self._feed.restart(self._patience.pause_s)
        for future in self._unacknowledged:
            future.cancel()
        self._unacknowledged.clear()
        self._repeated = {output.alarm_id for output in self._recent}
        await self._load()
        self._ticking = self._loop.create_task(self._go_live())

    # ------------------------------------------------------------------ upkeep

    async def tick(self) -> None:
        """Upkeep, about once a second: the wall clock for the rules, tables, and a snapshot if anything happened."""
        await asyncio.shield(self._started)
        async with self._turn:
            deployment = self._deployment
            if deployment is None:
                return
            has_room = self._delivery.outbox.has_room
            if self._is_live and not self._waiting and self._feed.is_caught_up and has_room:
                try:
                    outputs = deployment.engine.tick(_wall_ms(), _clock_ms())
                    self._deliver(outputs)
                    self._has_changed |= bool(outputs)
                except Exception as error:
                    await self._failed_over_time(error)
                    return
            if deployment.tables and time.monotonic() - self._tables_at_s > TABLES_S:
                await self._read_tables()
            pause_s = max(SNAPSHOT_S, SNAPSHOT_SHARE * self._snapshot_took_s)
            is_due = time.monotonic() - self._snapshot_at_s >= pause_s
            if is_due and (self._unacknowledged or self._has_changed or self._delivery.outbox.is_ahead_of_dump):
                await self._take_snapshot()

    async def _take_snapshot(self) -> None:
        """Keep the state; what it has seen counts as done."""
        assert self._deployment is not None
        began = time.monotonic()
        seen, self._unacknowledged = self._unacknowledged, []
        state = _packed({**self._deployment.engine.snapshot(), OUTBOX: self._delivery.outbox.dump()})
        if len(state) > STATE_BYTES_MAX:
            log.error("the state of the CEP rules has %d bytes and is not kept: lower their bounds", len(state))
            if len(self._delivery.outbox):
                self._unacknowledged = seen + self._unacknowledged
                return
        else:
            try:
                await asyncio.to_thread(self._bdc.cep.save, self._name, dict(self._positions), state, utc_now())
                self._counts["snapshots"] += 1
            except SibError as error:
                log.warning("the state of the CEP rules is kept later: %s", error.message)
                self._unacknowledged = seen + self._unacknowledged
                return
        self._has_changed = False
        self._recent.clear()
        self._repeated.clear()
        self._patience.forget(self._positions)
        for future in seen:
            if not future.done():
                future.set_result(None)
        self._snapshot_at_s = time.monotonic()
        self._snapshot_took_s = self._snapshot_at_s - began

    # ------------------------------------------------------------------ answers

    def rules(self) -> dict[str, Any]:
        """How each rule is doing: what it holds and has dropped at its bounds, or why it does not run."""
        if self._deployment is None:
            return {}
        counters = self._deployment.engine.counters()
        running = {name: {"state": "running", **counters.get(name, {})} for name in self._deployment.rules}
        return {
            **running,
            **{name: {"state": "refused", "reason": why} for name, why in self._deployment.broken.items()},
        }

    async def stats(self) -> dict[str, Any]:
        """The process and what its rules have done."""
        await asyncio.shield(self._started)
        deployment = self._deployment
        return {
            "pid": os.getpid(),
            "version": self._inside.core.catalog.version,
            "rules": len(deployment.rules) if deployment else 0,
            "broken": len(deployment.broken) if deployment else 0,
            "is_live": self._is_live,
            "waiting": self._waiting,
            "bdc_write": self._bdc.last_write,
            **self._counts,
            "set_aside": self._patience.set_aside,
            **self._delivery.counts,
        }


def _origin_of(event: Event) -> tuple[str, int]:
    """The ontology, and how many rules were at work before."""
    context = event.document.get("contextData", {})
    return event.ontology, hops_of(event.cause.by or context.get("session_key"))


def _stored_ms(event: Event) -> int:
    return event.cause.at_ms or milliseconds(event.document.get("contextData", {}).get("timestamp")) or 0


def _clock_ms() -> int:
    """A clock that only goes forward: for how long an input has been silent."""
    return time.monotonic_ns() // 1_000_000


def _wall_ms() -> int:
    """The wall clock for the rules."""
    return time.time_ns() // 1_000_000 - GRACE_MS


def _packed(state: Mapping[str, Any]) -> bytes:
    return zlib.compress(orjson.dumps(state, option=orjson.OPT_NON_STR_KEYS), 1)


def _unpacked(state: bytes) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = orjson.loads(zlib.decompress(state))
        return value
    except (zlib.error, orjson.JSONDecodeError):
        log.error("the state of the CEP rules is damaged, they start anew")
        return None
