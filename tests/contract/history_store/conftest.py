"""One history on every file system: a local folder, HDFS by RPC and by WebHDFS (skipped where Hadoop cannot run)."""

import uuid
from datetime import datetime

import bson
import pytest

from sib.ontology import compile_ontology
from sib.ontology.templates import template
from storage.bdc.bdc import open_bdc
from storage.bdh.files import open_files
from storage.bdh.query import HistoryQueries
from storage.bdh.transfer import Transfer
from storage.bdtr.model import context_head
from storage.bdtr.transfers import TransferJournal
from storage.open import open_bdtr
from tests.own_servers import hdfs_urls

NOW = datetime(2026, 11, 1)
EPOCH = datetime(1970, 1, 1)


@pytest.fixture(scope="session")
def hdfs(tmp_path_factory):
    """The addresses of a running HDFS: {"hdfs": url, "webhdfs": url}."""
    with hdfs_urls(tmp_path_factory.mktemp("hdfs")) as urls:
        yield urls


@pytest.fixture(
    params=["file", pytest.param("hdfs", marks=pytest.mark.server), pytest.param("webhdfs", marks=pytest.mark.server)]
)
def bdh_url(request, tmp_path):
    if request.param == "file":
        return f"file:{tmp_path}/bdh"
    return f"{request.getfixturevalue('hdfs')[request.param]}/{uuid.uuid4().hex}"


@pytest.fixture
def files(bdh_url):
    files = open_files(bdh_url)
    yield files
    files.close()


class World:
    """A BDC, a BDTR with the ontology S, and a history."""

    def __init__(self, folder, files):
        self.files = files
        self.bdc = open_bdc(f"sqlite:///{folder}/bdc.db", now=lambda: self.now)
        self.bdc.upgrade()
        self.manifest = self.bdc.history
        self.store = open_bdtr(f"sqlite:{folder}/bdtr.db", writer=True)
        self.journal = TransferJournal(self.store)
        self.ontology = compile_ontology("S", template("SensorPoint").schema_text)
        self.now = NOW
        self.head = context_head({"session_key": "k", "user": "ana", "kp": "KP", "kp_instancia": "KP01"})

    def insert(self, numbers, at, **fields):
        documents = [{"Sensor": {"assetId": f"A{n % 10}", "measure": float(n), **fields}} for n in numbers]
        now_ms = int((at - EPOCH).total_seconds() * 1000)
        with self.store.begin() as transaction:
            transaction.append("S", list(map(bson.encode, documents)), documents, [self.head] * len(documents), now_ms)

    def transfer(self, **options):
        arguments = {"store": self.store, "steps": self.journal, "files": self.files, "manifest": self.manifest}
        return Transfer(self.ontology, now=lambda: self.now, **{**arguments, **options})

    def queries(self):
        return HistoryQueries(self.files, self.manifest, lambda name: self.ontology, lambda name: self.store)

    def sql(self, text, **options):
        queries = self.queries()
        try:
            return queries.run(text, **options).rows
        finally:
            queries.close()

    def history(self):
        return sorted(row[0] for row in self.sql("select measure from S"))

    def real_time(self):
        return sorted(document["Sensor"]["measure"] for document in self.store.find("S"))

    def close(self):
        self.store.close()
        self.bdc.close()


@pytest.fixture
def world(tmp_path, files):
    world = World(tmp_path, files)
    yield world
    world.close()
