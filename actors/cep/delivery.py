"""Where the outputs of CEP rules go: into ontologies, to subscriptions, and to script rules.

Invariant: when ``deliver`` returns, every output is where it belongs or was refused for good (and that is written down). An
output that is delivered again has the same ids everywhere, so that nothing is stored twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import orjson
from bson import ObjectId

from actors.config import PlatformConfig
from actors.inside import Inside, Principal
from actors.runtime import ActorGoneError, Ref
from sib.cep.output import Output
from sib.errors import SibError
from sib.rules.trigger import made_by
from storage.bdc.bdc import utc_now
from storage.bdc.records import LogRecord

log = logging.getLogger("sofia2.cep")

GATEWAY_S = 10.0
"""How long a gateway that is not there is waited for; it tells subscriptions only while their sessions are connected."""
RETRY_S = 0.2
LOG_EVERY_S = 60.0
"""Refusals of one rule are written into the process log at most so often."""


class Delivered(NamedTuple):
    """One output on its way: the rule's owner, and how many rules were at work before it."""

    output: Output
    owner: str
    hops: int


class Delivery:
    """The ways out of one shard."""

    def __init__(self, inside: Inside, config: PlatformConfig, *, has_scripts: Callable[[], bool]) -> None:
        self._inside, self._config, self._has_scripts = inside, config, has_scripts
        self._refused_at_s: dict[str, float] = {}
        self.counts = {"inserted": 0, "refused": 0, "told": 0}

    async def deliver(self, items: Sequence[Delivered]) -> None:
        """Bring outputs to their places, in their order for each place."""
        if not items:
            return
        batch = [_plain(item) for item in items]
        ways = [self._insert_all(items), self._tell_gateways(batch)]
        if self._has_scripts():
            ways += [self._until_heard(runner, "cep_events", batch) for runner in self._config.topology.rule_runners]
        await asyncio.gather(*ways)
        self.counts["told"] += len(items)

    # ------------------------------------------------------------------ into ontologies

    async def _insert_all(self, items: Sequence[Delivered]) -> None:
        catalog = self._inside.core.catalog
        names = {name.casefold(): name for name, record in catalog.ontologies.items() if record.active}
        inserts = [
            self._insert(item, ontology)
            for item in items
            if (ontology := names.get(item.output.stream.casefold())) is not None
        ]
        await asyncio.gather(*inserts)

    async def _insert(self, item: Delivered, ontology: str) -> None:
        output = item.output
        root = self._inside.core.catalog.ontology(ontology).root
        instance = output.data if root is None or root in output.data else {root: output.data}
        who = Principal(item.owner, session_key=made_by(str(output.rule), item.hops, "cep"))
        while True:
            try:
                await self._inside.insert(who, ontology, instance, once=instance_id(output))
                self.counts["inserted"] += 1
                return
            except SibError as error:
                if not error.is_retryable:
                    await self._refused(item, ontology, error)
                    return
                log.warning("an output of %s waits for %s: %s", output.rule, ontology, error.message)
                await asyncio.sleep(RETRY_S)

    async def _refused(self, item: Delivered, ontology: str, error: SibError) -> None:
        self.counts["refused"] += 1
        rule, now_s = str(item.output.rule), time.monotonic()
        if now_s - self._refused_at_s.get(rule, -LOG_EVERY_S) < LOG_EVERY_S:
            return
        self._refused_at_s[rule] = now_s
        log.error("an output of the rule %s cannot be inserted into %s: %s", rule, ontology, error.message)
        record = LogRecord(
            "CEP",
            utc_now(),
            f"rule {rule}: not inserted into {ontology}: {error.message}"[:200],
            item.owner,
            details=item.output.as_dict(),
        )
        try:
            await asyncio.to_thread(self._inside.core.bdc.log, [record])
        except SibError as problem:
            log.warning("the process log: %s", problem.message)

    # ------------------------------------------------------------------ to subscriptions and scripts

    async def _tell_gateways(self, batch: list[dict[str, Any]]) -> None:
        gateways = self._config.topology.gateways
        await asyncio.gather(*(self._until_heard(name, "cep_outputs", batch, GATEWAY_S) for name in gateways))

    async def _until_heard(
        self, name: str, method: str, batch: list[dict[str, Any]], give_up_s: float | None = None
    ) -> None:
        began = time.monotonic()
        while True:
            try:
                await Ref(name).call(method, batch)
                return
            except ActorGoneError:
                if give_up_s is not None and time.monotonic() - began > give_up_s:
                    log.warning("%s has not heard of %d outputs", name, len(batch))
                    return
                await asyncio.sleep(RETRY_S)
            except SibError as error:
                log.error("%s refused outputs of CEP rules: %s", name, error.message)
                return


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
    }
