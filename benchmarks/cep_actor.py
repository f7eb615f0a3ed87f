"""A CepShard in a process of its own, fed as a partition feeds it: its events per second, calls of Ray included."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

import bson

from actors import runtime
from actors.config import PlatformConfig, Topology
from actors.feed import Announcement, Changed, Feed
from benchmarks.report import ROOT
from sib.access import Role
from sib.cep.definitions import CepEvent, CepRule
from sofia2.daemon import write_private
from storage.bdc.bdc import open_bdc
from storage.bdc.records import OntologyRecord, UserRecord

PARTITION, SHARD = "partition-0", "cep-shard-0"
TOPOLOGY = Topology((), (), (), (PARTITION,), (), cep_shards=(SHARD,))
EVENT, ONTOLOGY = "LECTURA", "Reading"
SCHEMA = """{"type": "object", "required": ["Reading"], "properties": {"Reading": {"type": "object", "properties":
 {"k": {"type": "string"}, "v": {"type": "number"}, "t": {"type": "number"}}}}}"""
PAGE = 500
"""Events in one announcement: as many as a partition commits at once under load."""
WAITING_MAX = 20_000
"""Events on their way: as many as a watcher lets wait before it reads no further page."""
LOOK_S = 0.02
"""How often the shard is asked how far it has got: each question costs it as much as some events do."""
TICK_S = 1.0
"""As in a platform: upkeep, and with it a snapshot of the rules' state."""
TIMEOUT_S = 120


class QuietPartition:
    """A partition that has nothing to tell by itself."""

    def __init__(self, config: PlatformConfig) -> None:
        self._is_begun = False

    def watch(self, name: str, ontologies: list[str]) -> None:
        """All the same."""

    def heartbeat(
        self, name: str, epoch: str, acked: int, received: int | None, ontologies: list[str]
    ) -> Announcement | None:
        if self._is_begun:
            return None
        self._is_begun = True
        return Announcement(True, 0, 0, [])


def events_per_second(rules: str, count: int, keys: int) -> float:
    """Events per second of wall time from the first announcement until the rules have seen the last event."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = _prepare(folder, rules)
        token = folder / "token"
        write_private(token, "0" * 64)
        runtime.start_ray(
            folder / "r", environment={"PYTHONPATH": str(ROOT), "SOFIA2_DATA": str(folder)}, token_file=token
        )
        import ray

        try:
            runtime.spawn("benchmarks.cep_actor:QuietPartition", PARTITION, config)
            shard = runtime.spawn("actors.cep:CepShard", SHARD, SHARD, config, is_async=True)
            assert shard.ask("stats")["broken"] == 0
            return _measure(shard, _announcements(count, keys))
        finally:
            ray.shutdown()


def _prepare(folder: Path, rules: str) -> PlatformConfig:
    bdc = open_bdc(f"sqlite:///{folder}/bdc.db")
    bdc.upgrade()
    with bdc.change() as configuration:
        configuration.users.put(UserRecord("sofia", Role.ADMINISTRADOR))
        configuration.ontologies.put(OntologyRecord(ONTOLOGY, "sofia", SCHEMA))
        attributes = ("Reading.k", "Reading.v", "Reading.t")
        configuration.cep_events.put(CepEvent(EVENT, "sofia", ONTOLOGY, attributes))
        for number, text in enumerate(rules.split(";")):
            configuration.cep_rules.put(CepRule(f"rule{number}", "sofia", *_boxes(text)))
    bdc.close()
    return PlatformConfig(str(folder), f"sqlite:///{folder}/bdc.db", f"sqlite:{folder}/bdtr", TOPOLOGY, listeners=())


def _boxes(text: str) -> tuple[str, str, str]:
    """From, Select and Insert Into of a rule's text."""
    first, _, rest = text.partition("select")
    select, _, into = rest.partition("insert into")
    return first.strip().removeprefix("from"), select, into


def _announcements(count: int, keys: int) -> list[Announcement]:
    rng, now_ms, pages = random.Random(3), int(time.time() * 1000), []
    feed = Feed({}, 0)
    feed.watch(SHARD, frozenset({ONTOLOGY}))
    consumer = feed.consumer(SHARD, "")
    feed.catch_up(SHARD, [], is_last=True)
    for first in range(1, count + 1, PAGE):
        documents = [
            {
                "_id": bson.ObjectId(),
                "contextData": {
                    "session_key": "s", "user": "sofia", "kp": "KP1", "kp_instancia": "KP1:1",
                    "timestamp": bson.datetime_ms.DatetimeMS(now_ms + seq // 100),
                },
                "Reading": {"k": f"s{rng.randrange(keys)}", "v": rng.random() * 100, "t": rng.randrange(20)},
            }
            for seq in range(first, min(first + PAGE, count + 1))
        ]  # fmt: skip
        last = first + len(documents) - 1
        pages.append(feed.publish(last, [Changed(first, ONTOLOGY, documents, documents.__getitem__)])[SHARD])
        consumer.acknowledge(last)
    return pages


def _measure(shard: runtime.Ref, pages: list[Announcement]) -> float:
    count, done, told = pages[-1].seq, 0, 0
    began = ticked = time.perf_counter()
    while done < count:
        while told < len(pages) and pages[told].seq - done <= WAITING_MAX:
            shard.tell("events", PARTITION, pages[told])
            told += 1
        time.sleep(LOOK_S)
        done, now = shard.ask("stats")["events"], time.perf_counter()
        if now - ticked >= TICK_S:
            shard.tell("tick")
            ticked = now
        if now - began > TIMEOUT_S:
            raise TimeoutError(f"{done} of {count} events after {TIMEOUT_S} s")
    return count / (time.perf_counter() - began)
