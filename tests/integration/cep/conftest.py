"""A CEP shard over a real configuration database and a real partition, without Ray between them."""

import json

import pytest

from actors import watcher as watcher_module
from actors.config import Limits, PlatformConfig
from actors.partition import OntologyPartition
from actors.query import QueryWorker
from sib.access import Role
from sib.cep.definitions import CepEvent
from storage.bdc.bdc import open_bdc
from storage.bdc.records import OntologyRecord, UserRecord
from tests.integration.cep.cep_platform import TOPOLOGY, CepPlatform
from tests.integration.local_actors import use_local_actors

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}, "k": {"type": "string"}}}


@pytest.fixture
async def platform(tmp_path, monkeypatch):
    monkeypatch.setattr(watcher_module, "BEAT_S", 0.05)
    for module in ("actors.partition", "actors.query", "actors.operations_core", "actors.cep.shard"):
        monkeypatch.setattr(f"{module}.logs.configure", lambda *_: None)
    (tmp_path / "bdtr").mkdir()
    bdc = open_bdc(f"sqlite:///{tmp_path}/bdc.db")
    bdc.upgrade()
    with bdc.change() as configuration:
        configuration.users.put(UserRecord("sofia", Role.COLABORADOR))
        for name in ("In", "Other", "Out"):
            configuration.ontologies.put(OntologyRecord(name, "sofia", json.dumps(SCHEMA)))
            configuration.cep_events.put(CepEvent(f"e{name}", "sofia", name))
    urls = f"sqlite:///{tmp_path}/bdc.db", f"sqlite:{tmp_path}/bdtr"
    config = PlatformConfig(str(tmp_path), *urls, TOPOLOGY, listeners=(), limits=Limits())
    partition = OntologyPartition("partition-0", config)
    actors = {"partition-0": partition, "query-0": QueryWorker("query-0", config)}
    use_local_actors(monkeypatch, actors)
    platform = CepPlatform(config, bdc, partition)
    yield platform
    platform.die()
