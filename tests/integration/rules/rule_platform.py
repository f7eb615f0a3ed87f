"""A rule runner over a real configuration database, a real partition and real sandboxes, without Ray between them."""

import asyncio

from actors.config import Topology
from actors.inside import Inside, Principal
from actors.rules.runner import RuleRunner
from sib.rules.rule import Rule, RuleType
from sib.ssap.messages import QueryType
from tests.integration.local_actors import LocalRef, until

TOPOLOGY = Topology(
    ("mqtt-0",), ("http-0",), ("shard-0",), ("partition-0",), ("query-0",), rule_runners=("rule-runner-0",)
)
TOKEN = "0123456789abcdef"
SOFIA = Principal("sofia", "KP1", "device-1", "a session")


class Platform:
    """What the tests do with it."""

    def __init__(self, config, bdc, partition):
        self.config, self.bdc, self.partition = config, bdc, partition
        self.devices = Inside("devices", config)
        self.runner = None

    async def start(self):
        self.runner = LocalRef.actors["rule-runner-0"] = RuleRunner("rule-runner-0", self.config)
        await self.runner.reload()
        return self.runner

    async def die(self):
        """As kill -9: whatever is under way ends here, nothing is finished."""
        runner, self.runner = self.runner, None
        if runner is None:
            return
        LocalRef.actors.pop("rule-runner-0", None)
        runner._feed.close()
        runner._clock.close()
        runner._flushing.cancel()
        for lane in runner._lanes.values():
            lane._is_closed = True
            lane._work.cancel()
            lane._carrier.carry_out = _never
            await lane._script.close()
        if runner._pool is not None:
            await runner._pool.close()

    async def rules(self, *rules):
        """Make rules and wait until they are in force."""
        with self.bdc.change() as configuration:
            for rule in rules:
                configuration.rules.put(rule)
        if self.runner is not None:
            await self.runner.reload()

    async def send(self, ontology, *instances, who=SOFIA):
        for instance in instances:
            await self.devices.insert(who, ontology, instance)

    async def rows(self, ontology):
        """Instances in the order in which they were stored: neither ids nor times tell those of one batch apart."""
        found = await self.devices.query(SOFIA, f"db.{ontology}.find({{}})", query_type=QueryType.NATIVE)
        order: dict = {}
        for change in self.partition._store.changes(0, 100_000):
            if change.document:
                order.setdefault(change.document["_id"], change.seq)
        found.sort(key=lambda row: order[row["_id"]])
        return [{key: value for key, value in row.items() if key not in ("_id", "contextData")} for row in found]

    until = staticmethod(until)

    async def until_rows(self, ontology, count):
        async def enough():
            rows = await self.rows(ontology)
            return rows if len(rows) >= count else None

        return await self.until(enough)

    async def until_idle(self):
        """Everything that was sent is handled, and the log is written."""
        feed = self.partition._feed
        await self.until(lambda: feed.positions()["rule-runner-0"] >= self.partition.stats()["seq"])
        await self.until(lambda: self.runner._waiting == 0)
        await self.runner._journal.flush()

    def log(self, rule):
        return [record for record in self.bdc.read_log(1000, kind="SCRIPT") if record.details["rule"] == rule]


async def _never(*_):
    await asyncio.Event().wait()


def a_rule(name="rule", *, owner="sofia", type=RuleType.ONTOLOGY, ontologies=("In",), then="pass", **changes):
    """A rule with defaults; blocks by their names (``if_`` and ``else_``)."""
    blocks = {"then": then}
    for key in ("if_", "else_", "error"):
        if key in changes:
            blocks[key.rstrip("_")] = changes.pop(key)
    return Rule(name, owner, type, ontologies if type is RuleType.ONTOLOGY else (), blocks=blocks, **changes)
