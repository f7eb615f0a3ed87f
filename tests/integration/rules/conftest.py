"""The platform of the tests of script rules."""

import json

import pytest

from actors import watcher as watcher_module
from actors.config import Limits, PlatformConfig
from actors.partition import OntologyPartition
from actors.query import QueryWorker
from sib.access import Permission, Role
from storage.bdc.bdc import open_bdc
from storage.bdc.records import KpRecord, OntologyRecord, TokenRecord, UserRecord
from tests.integration.local_actors import use_local_actors
from tests.integration.rules.rule_platform import TOKEN, TOPOLOGY, Platform


@pytest.fixture
async def platform(tmp_path, monkeypatch):
    monkeypatch.setattr(watcher_module, "BEAT_S", 0.05)
    for module in ("actors.partition", "actors.query", "actors.operations_core", "actors.rules.runner"):
        monkeypatch.setattr(f"{module}.logs.configure", lambda *_: None)
    (tmp_path / "bdtr").mkdir()
    bdc = open_bdc(f"sqlite:///{tmp_path}/bdc.db")
    bdc.upgrade()
    with bdc.change() as configuration:
        for name, role in (("sofia", Role.COLABORADOR), ("ana", Role.USUARIO)):
            configuration.users.put(UserRecord(name, role))
        schema = json.dumps({"type": "object", "properties": {"n": {"type": "number"}}})
        for name, parent in (("In", None), ("InChild", "In"), ("InGrandchild", "InChild"), ("Out", None)):
            permissions = {"ana": Permission.QUERY} if name == "In" else {}
            configuration.ontologies.put(OntologyRecord(name, "sofia", schema, parent=parent, permissions=permissions))
        names = frozenset({"In", "InChild", "InGrandchild", "Out"})
        configuration.kps.put(KpRecord("KP1", "sofia", ontologies=names))
        configuration.tokens.put(TokenRecord(TOKEN, "KP1", active=True))
    config = PlatformConfig(
        str(tmp_path),
        f"sqlite:///{tmp_path}/bdc.db",
        f"sqlite:{tmp_path}/bdtr",
        TOPOLOGY,
        listeners=(),
        limits=Limits(query_row_cap=10_000),
    )
    partition = OntologyPartition("partition-0", config)
    use_local_actors(monkeypatch, {"partition-0": partition, "query-0": QueryWorker("query-0", config)})
    platform = Platform(config, bdc, partition)
    yield platform
    await platform.die()
