"""What the tests of a CEP shard do with it."""

from actors.cep.shard import CepShard
from actors.config import Topology
from actors.inside import Inside, Principal
from sib.cep.definitions import CepRule
from sib.rules.rule import Rule, RuleType
from sib.ssap.messages import QueryType
from tests.integration.local_actors import LocalRef, until

SHARD = "cep-0"
TOPOLOGY = Topology(
    ("mqtt-0",), (), ("shard-0",), ("partition-0",), ("query-0",), rule_runners=("runner-0",), cep_shards=(SHARD,)
)
SOFIA = Principal("sofia", session_key="a session")


class Hearer:
    """Stands for a gateway or a rule runner: what it is told, and how it answers."""

    def __init__(self):
        self.heard = []
        self.offered = 0
        self.answer = lambda batch: None

    async def _take(self, batch):
        self.offered += 1
        result = self.answer(batch)
        if result is not None:
            await result
        self.heard += batch

    cep_outputs = cep_events = _take

    def numbers(self, stream):
        return [output["data"].get("n") for output in self.heard if output["stream"] == stream]


class CepPlatform:
    def __init__(self, config, bdc, partition):
        self.config, self.bdc, self.partition = config, bdc, partition
        self.devices = Inside("devices", config)
        self.gateway = LocalRef.actors["mqtt-0"] = Hearer()
        self.runner = LocalRef.actors["runner-0"] = Hearer()
        self.shard = None

    async def start(self, *rules):
        """Start a shard with these CEP rules (none: those that there are), and a script that hears of their outputs."""
        with self.bdc.change() as configuration:
            for rule in rules:
                configuration.cep_rules.put(rule)
            configuration.rules.put(Rule("script", "sofia", RuleType.CEP, cep="Out", blocks={"then": "pass"}))
        self.shard = LocalRef.actors[SHARD] = CepShard(SHARD, self.config)
        await self.shard.reload()
        await self.until(lambda: self.shard._is_live)

    def die(self):
        """As kill -9."""
        shard, self.shard = self.shard, None
        if shard is None:
            return
        LocalRef.actors.pop(SHARD, None)
        shard._feed.close()
        for task in list(shard._delivery.outbox._work):
            task.cancel()

    async def send(self, ontology, *instances, who=SOFIA):
        for instance in instances:
            await self.devices.insert(who, ontology, instance)

    async def rows(self, ontology):
        return await self.devices.query(SOFIA, f"db.{ontology}.find({{}})", query_type=QueryType.NATIVE)

    until = staticmethod(until)


def cep_rule(name, text, select, target):
    return CepRule(name, "sofia", text, select, target)
