"""Where the outputs of CEP rules go: into ontologies, to subscriptions, and to script rules.

Invariant: an output waits in the outbox until it is where it belongs or was refused for good (and that is written down). An
output that is delivered again has the same ids everywhere, so that nothing is stored twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson
from bson import ObjectId

from actors.cep.outbox import RETRY_S, Delivered, Outbox, Way, describe
from actors.config import PlatformConfig
from actors.inside import Inside, Principal
from actors.runtime import Ref
from sib.cep.output import Output
from sib.errors import SibError
from sib.rules.trigger import made_by
from storage.bdc.bdc import utc_now
from storage.bdc.records import LogRecord

log = logging.getLogger("sofia2.cep")

AWAY_MAX = 1_000
"""Outputs that wait for a gateway that is not there; it misses further ones, which are counted."""
LOG_EVERY_S = 60.0
"""Insertions of one rule that are refused are written into the process log at most so often."""


class Delivery:
    """The ways out of one shard."""

    def __init__(self, inside: Inside, config: PlatformConfig, *, has_scripts: Callable[[], bool]) -> None:
        self._inside, self._config, self._has_scripts = inside, config, has_scripts
        self._refused_at_s: dict[str, float] = {}
        self.outbox = Outbox(self._send, self._set_aside)
        self._counts = {"inserted": 0, "refused": 0, "missed": 0}

    @property
    def counts(self) -> dict[str, int]:
        """How many outputs were inserted, refused or set aside, missed by gateways that were away, delivered, and wait."""
        return {**self._counts, "told": self.outbox.delivered, "undelivered": len(self.outbox)}

    def put(self, items: Iterable[Delivered]) -> None:
        """Outputs to be brought to their places, in their order for each place."""
        active = {record.name for record in self._inside.core.catalog.ontologies.values() if record.active}
        ontologies = {name.casefold(): name for name in active}
        for item in items:
            self.outbox.put(item, self._ways(item.output.stream.casefold(), ontologies))

    def _ways(self, stream: str, ontologies: dict[str, str]) -> list[Way]:
        ways = [Way("gateway", name) for name in self._config.topology.gateways]
        if stream in ontologies:
            ways.append(Way("ontology", ontologies[stream]))
        if self._has_scripts():
            ways += [Way("runner", name, stream) for name in self._config.topology.rule_runners]
        return ways

    async def _send(self, way: Way, items: Sequence[Delivered]) -> None:
        if way.kind == "ontology":
            await self._insert_all(items, way.name)
        else:
            await self._tell(way, items)

    async def _set_aside(self, way: Way, item: Delivered, error: Exception) -> None:
        self._counts["refused"] += 1
        await self._write_down(item, f"does not get to {way.name}: {describe(error)}")

    # ------------------------------------------------------------------ into ontologies

    async def _insert_all(self, items: Sequence[Delivered], ontology: str) -> None:
        ends = await asyncio.gather(*(self._insert(item, ontology) for item in items), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException) and not isinstance(end, SibError):
                raise end
        for item, end in zip(items, ends, strict=True):
            if isinstance(end, SibError):
                await self._refused(item, ontology, end)
            else:
                self._counts["inserted"] += 1

    async def _insert(self, item: Delivered, ontology: str) -> None:
        output = item.output
        who = Principal(item.owner, session_key=made_by(str(output.rule), item.hops, "cep"))
        while True:
            try:
                root = self._inside.core.catalog.ontology(ontology).root
                instance = output.data if root is None or root in output.data else {root: output.data}
                await self._inside.insert(who, ontology, instance, once=instance_id(output))
                return
            except SibError as error:
                if not error.is_retryable:
                    raise
                log.warning("an output of %s waits for %s: %s", output.rule, ontology, error.message)
                await asyncio.sleep(RETRY_S)

    async def _refused(self, item: Delivered, ontology: str, error: SibError) -> None:
        self._counts["refused"] += 1
        rule, now_s = str(item.output.rule), time.monotonic()
        if now_s - self._refused_at_s.get(rule, -LOG_EVERY_S) >= LOG_EVERY_S:
            self._refused_at_s[rule] = now_s
            log.error("an output of the CEP rule %s is not inserted into %s: %s", rule, ontology, error.message)
            await self._write_down(item, f"not inserted into {ontology}: {error.message}")

    async def _write_down(self, item: Delivered, why: str) -> None:
        """Enter into the process log that an output does not get to one of its places."""
        summary = f"rule {item.output.rule}: {why}"[:200]
        record = LogRecord("CEP", utc_now(), summary, item.owner, details=item.output.as_dict())
        try:
            await asyncio.to_thread(self._inside.core.bdc.log, [record])
        except Exception:
            log.warning("not written into the process log: %s", summary, exc_info=True)

    # ------------------------------------------------------------------ to subscriptions and scripts

    async def _tell(self, way: Way, items: Sequence[Delivered]) -> None:
        """Wait for somebody who is not there; what he refuses is raised."""
        batch = [_plain(item) for item in items]
        method = "cep_outputs" if way.kind == "gateway" else "cep_events"
        while True:
            try:
                await Ref(way.name).call(method, batch)
                return
            except SibError as error:
                if not error.is_retryable:
                    raise
            if way.kind == "gateway":
                self._shed(way)
            await asyncio.sleep(RETRY_S)

    def _shed(self, gateway: Way) -> None:
        missed = self.outbox.shed(gateway, AWAY_MAX)
        if missed:
            self._counts["missed"] += missed
            log.warning("%s is away: its subscriptions miss %d outputs of CEP rules", gateway.name, missed)


def instance_id(output: Output) -> ObjectId:
    """The ``_id`` of the instance that an output becomes: its time, and a part of its alarm id."""
    moment_s = max(0, min(output.ts_ms // 1000, 0xFFFFFFFF))
    return ObjectId(moment_s.to_bytes(4, "big") + bytes.fromhex(output.alarm_id)[:8])


def _plain(item: Delivered) -> dict[str, Any]:
    output = item.output
    data = orjson.loads(orjson.dumps(output.data, default=str, option=orjson.OPT_NON_STR_KEYS))
    return {
        "id": output.alarm_id,
        "rule": str(output.rule),
        "stream": output.stream,
        "ts": output.ts_ms,
        "data": data,
        "hops": item.hops,
        "ontology": item.ontology,
    }
