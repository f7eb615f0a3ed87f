"""``sofia2.bdh``: tables, SQL and datasets of a platform's history from another program, whatever its databases are."""

import itertools
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import bson
import pyarrow as pa
import pytest

import sofia2.bdh
from benchmarks.servers import PrivateServer, another_database
from sib.errors import (
    AuthenticationError,
    AuthorizationError,
    ConfigurationError,
    OntologyNotFoundError,
    SqlSyntaxError,
    UnknownFieldError,
)
from sib.ontology import compile_ontology
from sib.ontology.templates import template
from sofia2.apply import apply_files
from sofia2.settings import load_settings
from storage.bdc.bdc import open_bdc
from storage.bdh import layout
from storage.bdh.files import open_files
from storage.bdh.transfer import Transfer
from storage.bdtr.model import context_head
from storage.open import open_bdtr, transfer_journal
from tests.own_servers import own_server

ROOT = Path(__file__).parents[3]
DAY = datetime(2026, 1, 1, 12)
CONFIGURATION = """
sofia2: 1
users:
  - {name: sofia, password: sofia-password, role: COLABORADOR}
  - {name: ana, password: ana-password, role: USUARIO}
  - {name: eva, password: eva-password, role: USUARIO}
ontologies:
  - {name: S, owner: sofia, template: SensorPoint, permissions: {ana: QUERY, eva: INSERT}}
  - {name: Empty, owner: sofia, template: SensorPoint}
"""


def document(n):
    return {"Sensor": {"assetId": f"A{n % 10}", "measure": float(n), "timestamp": DAY}}


class Watched:
    """Calls ``look`` before and after each step of what is inside."""

    def __init__(self, inner, look):
        self.inner, self.look = inner, look

    def __getattr__(self, name):
        def step(*arguments, **options):
            self.look()
            result = getattr(self.inner, name)(*arguments, **options)
            self.look()
            return result

        return step


class Place:
    """A platform that does not run: 4 days of 25 instances in the history, a fifth in the real-time database."""

    def __init__(self, folder, bdtr_url, bdh_url):
        self.folder = folder
        self.file = folder / "sofia2.toml"
        bdtr = bdtr_url or f"sqlite:{folder}/bdtr"
        self.file.write_text(f'data = "{folder}"\nbdtr = "{bdtr}"\nbdh = "{bdh_url}"\n')
        self.file.chmod(0o600)
        config = load_settings({"config": str(self.file)}).to_platform_config()
        self.files = open_files(config.bdh_url)
        bdc = open_bdc(config.bdc_url)
        bdc.upgrade()
        apply_file = folder / "apply.yaml"
        apply_file.write_text(CONFIGURATION)
        apply_file.chmod(0o600)
        assert apply_files(bdc, [apply_file]).is_ok
        self.config, self.url = config, config.partition_url(config.topology.partition_of("S"))
        if self.url.startswith("sqlite:"):
            Path(self.url.removeprefix("sqlite:")).parent.mkdir(exist_ok=True)
        store = open_bdtr(self.url, writer=True)
        head = context_head({"session_key": "k", "user": "ana", "kp": "KP", "kp_instancia": "KP01"})
        for day in range(5):
            documents = [document(n) for n in range(day * 25, day * 25 + 25)]
            now_ms = int((DAY + timedelta(days=day)).replace(tzinfo=UTC).timestamp() * 1000)
            with store.begin() as transaction:
                transaction.append("S", list(map(bson.encode, documents)), documents, [head] * 25, now_ms)
        store.close()
        assert self.transfer(DAY + timedelta(days=4)) == 100
        self.records = bdc.history.files("S")
        bdc.close()

    def transfer(self, before, look=lambda: None, **options):
        """Move what is older; ``look`` is called before and after each step. How many it moved."""
        store, bdc = open_bdtr(self.url, writer=True), open_bdc(self.config.bdc_url)
        ontology = compile_ontology("S", template("SensorPoint").schema_text)
        steps, manifest = Watched(transfer_journal(store), look), Watched(bdc.history, look)
        try:
            return (
                Transfer(ontology, store, steps, self.files, manifest, now=lambda: DAY, **options).run(before).n_moved
            )
        finally:
            store.close()
            bdc.close()

    def table(self, name="S", **options):
        return sofia2.bdh.table(name, data=self.file, **options)

    def sql(self, text, **options):
        return sofia2.bdh.sql(text, data=self.file, **options)

    def lose(self, day):
        """Whoever opens a file of this day fails."""
        for record in self.records:
            if record.day == (DAY + timedelta(days=day)).date():
                self.files.delete(layout.path_of("S", record.day, record.name))


def forget_settings(monkeypatch):
    """No setting and no user comes from the environment of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("SOFIA2_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def new_database(tmp_path_factory):
    """A function that gives the URL of an empty database on a server of this module's own."""
    servers: dict[str, PrivateServer] = {}
    numbers = itertools.count()
    with ExitStack() as stack:

        def new(kind):
            if kind not in servers:
                servers[kind] = stack.enter_context(own_server(kind, tmp_path_factory.mktemp(kind)))
            name = f"sofia2_access{next(numbers)}"
            if kind == "mariadb":
                return another_database(servers[kind].url, name)
            return urlunsplit(urlsplit(servers[kind].url)._replace(path=f"/{name}"))

        yield new


@pytest.fixture(
    params=[
        ("sqlite", "file"),
        pytest.param(("sqlite", "hdfs"), marks=pytest.mark.server),
        pytest.param(("sqlite", "webhdfs"), marks=pytest.mark.server),
        pytest.param(("mariadb", "file"), marks=pytest.mark.server),
        pytest.param(("mongodb", "file"), marks=pytest.mark.server),
    ],
    ids="-".join,
)
def place(request, tmp_path, monkeypatch):
    bdtr, bdh = request.param
    bdh_url = f"file:{tmp_path}/bdh"
    if bdh != "file":
        bdh_url = f"{request.getfixturevalue('hdfs')[bdh]}/{tmp_path.name}-{os.getpid()}"
    bdtr_url = None
    if bdtr != "sqlite":
        bdtr_url = request.getfixturevalue("new_database")(bdtr)
    forget_settings(monkeypatch)
    return Place(tmp_path, bdtr_url, bdh_url)


@pytest.fixture
def local(tmp_path, monkeypatch):
    forget_settings(monkeypatch)
    return Place(tmp_path, None, f"file:{tmp_path}/bdh")


def measures(table):
    return sorted(row["measure"] for row in table["Sensor"].to_pylist())


def test_a_table_of_the_whole_history(place):
    table = place.table()
    assert table.column_names == ["_id", "contextData", "Sensor", "_raw"]
    assert measures(table) == list(range(100))
    assert table.schema.field("contextData").type.field("timestamp").type == pa.timestamp("ms")
    both = place.sql("select count(*) as n, count(distinct _id) as ids, max(measure) as top from both.S")
    assert both.to_pylist() == [{"n": 125, "ids": 125, "top": 124.0}]
    early = place.sql("select count(*) as n from both.S as of '2026-01-02 12:00:00'")
    assert early.to_pylist() == [{"n": 50}]


def test_other_days_are_never_opened(place):
    place.lose(0)
    place.lose(3)
    since, until = DAY + timedelta(days=1), DAY + timedelta(days=2, hours=1)
    assert measures(place.table(since=since, until=until)) == list(range(25, 75))
    where = "contextData.timestamp >= '2026-01-02' and contextData.timestamp < '2026-01-03' and Sensor.measure > 40"
    assert measures(place.table(where=where)) == list(range(41, 50))
    assert measures(place.table(since=since.replace(tzinfo=UTC), until=since + timedelta(hours=1))) == list(
        range(25, 50)
    )
    assert place.table(since=DAY + timedelta(days=10)).num_rows == 0
    for moment in (since.date(), since.date().isoformat(), since.isoformat()):
        assert measures(place.table(since=moment, until=since + timedelta(hours=1))) == list(range(25, 50))
    with pytest.raises(ConfigurationError, match="yesterday"):
        place.table(since="yesterday")
    assert place.sql("select max(measure) as m from S where fecha = '2026-01-02'").to_pylist() == [{"m": 49.0}]


def test_the_joined_view_at_every_step_of_a_transfer(place):
    seen = []

    def look():
        seen.append(
            place.sql("select count(*) as n, count(distinct _id) as ids, sum(measure) as m from both.S").to_pylist()
        )

    assert place.transfer(DAY + timedelta(days=9), look, batch_documents=10) == 25
    assert len(seen) >= 18
    assert all(rows == [{"n": 125, "ids": 125, "m": float(sum(range(125)))}] for rows in seen), seen


def test_columns_and_conditions(local):
    table = local.table(columns=["_id", "Sensor.measure", "contextData.kp"], where="assetId = 'A3'")
    assert table.column_names == ["_id", "Sensor.measure", "contextData.kp"]
    assert sorted(table["Sensor.measure"].to_pylist()) == [n for n in range(100) if n % 10 == 3]
    assert local.table("Empty").num_rows == 0
    for options, error in (
        ({"where": "nothing = 3"}, UnknownFieldError),
        ({"columns": ["nothing"]}, UnknownFieldError),
        ({"columns": []}, UnknownFieldError),
        ({"where": "1 = 1) or (select 1"}, SqlSyntaxError),
        ({"where": "length(read_text('/etc/passwd')) > 0"}, SqlSyntaxError),
    ):
        with pytest.raises(error):
            local.table(**options)
    with pytest.raises(OntologyNotFoundError):
        local.table("Nothing")


def test_rights_are_those_of_the_user(local, monkeypatch):
    with pytest.raises(AuthenticationError):
        local.table(user="ana")  # without a password
    monkeypatch.setenv("SOFIA2_PASSWORD", "ana-password")
    assert local.table(user="ana").num_rows == 100
    with pytest.raises(AuthorizationError):
        local.table("Empty", user="ana")
    with pytest.raises(AuthorizationError):
        local.sql("select count(*) from S where assetId in (select assetId from both.Empty)", user="ana")
    monkeypatch.setenv("SOFIA2_PASSWORD", "eva-password")
    monkeypatch.setenv("SOFIA2_USER", "eva")
    with pytest.raises(AuthorizationError):
        local.table()
    monkeypatch.setenv("SOFIA2_PASSWORD", "wrong")
    with pytest.raises(AuthenticationError):
        local.table()


def test_no_platform_is_said(tmp_path, monkeypatch):
    forget_settings(monkeypatch)
    with pytest.raises(ConfigurationError):
        sofia2.bdh.table("S", data=tmp_path)


NOTEBOOK = """
import json
from datetime import datetime
import ray
ray.init(num_cpus=1, include_dashboard=False, configure_logging=False, log_to_driver=False)
import sofia2.bdh
days = sofia2.bdh.dataset("S", since=datetime(2026, 1, 2), until=datetime(2026, 1, 4), where="measure < 70",
                          columns=["_id", "Sensor"])
rows = days.take_all()
files = sorted({name for name in days.input_files()})
empty = sofia2.bdh.dataset("S", since=datetime(2030, 1, 1))
print(json.dumps({"measures": sorted(row["Sensor"]["measure"] for row in rows), "columns": days.columns(),
                  "days": len(files), "empty": [empty.count(), empty.schema().names]}))
"""


def test_a_dataset_in_a_notebook(local, tmp_path):
    local.lose(0)
    local.lose(3)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SOFIA2_", "RAY_"))}
    environment = kept | {"SOFIA2_DATA": str(tmp_path), "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK], capture_output=True, text=True, cwd="/", env=environment, timeout=110
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "measures": list(range(25, 70)),
        "columns": ["_id", "Sensor"],
        "days": 2,
        "empty": [0, ["_id", "contextData", "Sensor", "_raw"]],
    }


def test_the_command_line(local, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "sofia2", *arguments, "--data", str(tmp_path), "--type", "bdh", "--json"]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)

    found = run(
        "query", "select assetId, count(*) as n from both.S where measure >= 95 group by assetId order by assetId"
    )
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == [{"assetid": f"A{n}", "n": 3} for n in range(10)]
    stages = json.loads(run("explain", "select max(measure) from S where fecha = '2026-01-02'").stdout)
    assert [stage["stage"] for stage in stages] == ["statement for DuckDB", "__t0 = S"]
    assert "times: 2026-01-02 00:00:00 to 2026-01-03 00:00:00\nfiles: 1 of 4, 1 days" in stages[1]["text"]
    refused = run("query", "select * from read_csv('x')")
    assert refused.returncode == 2
    assert json.loads(refused.stdout)["code"] == "query.sql_syntax"
