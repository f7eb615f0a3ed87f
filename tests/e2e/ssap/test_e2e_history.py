"""QUERY of the history: the shape of its answers in each dialect, rights, bounds, and the joined view during transfers."""

import asyncio
import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sib.ontology import compile_ontology
from sib.ontology.templates import template
from sofia2.control import wait_in_force
from sofia2.daemon import RunFolder, config_from_json
from storage.bdh.files import open_files
from storage.bdh.transfer import Transfer
from storage.open import open_bdtr, transfer_journal
from tests.moving import until_heard

CONFIGURATION = """
ontologies:
  - {name: Past, owner: sofia, template: SensorPoint}
  - {name: Moving, owner: sofia, template: SensorPoint}
  - {name: PastOfLuis, owner: luis, template: SensorPoint}
  - {name: PastShared, owner: luis, template: SensorPoint, permissions: {sofia: INSERT}}
kps:
  - name: KPPast
    owner: sofia
    ontologies: [Past, Moving, PastShared]
    tokens: [past0000000000000000000000000001]
queries:
  - name: mediasDesde
    ontology: Past
    type: BDH
    text: "select assetId, avg(measure) as mean from Past where measure >= {$FROM} and assetId like {$LIKE} group by assetId"
    params: {FROM: number, LIKE: string}
"""
INSTANCES = 60
BATCH = 7


class History:
    """The databases of the platform under test, as its Process module opens them."""

    def __init__(self, sib):
        self.config = config_from_json(RunFolder(Path(sib.data)).config.read_text())
        self.manifest = sib.bdc.history
        self.files = open_files(self.config.history_url)

    def transfer(self, name, *, progress=lambda _: None, batch_documents=BATCH):
        url = self.config.partition_url(self.config.topology.partition_of(name))
        store = open_bdtr(url, writer=True)
        ontology = compile_ontology(name, template("SensorPoint").schema_text)
        try:
            until_heard(store)
            transfer = Transfer(
                ontology,
                store,
                transfer_journal(store),
                self.files,
                self.manifest,
                now=lambda: datetime.now(UTC).replace(tzinfo=None),
                batch_documents=batch_documents,
            )
            return transfer.run(datetime(2100, 1, 1), progress=progress).n_moved
        finally:
            store.close()


@pytest.fixture(scope="module")
def history(sib):
    sib.apply(CONFIGURATION)
    folder = RunFolder(Path(sib.data))
    assert wait_in_force(folder, sib.bdc.config_version(), timeout_s=60)
    return History(sib)


@pytest.fixture
async def device(history, websocket):
    opened = await websocket(join=False)
    await opened.join(kp="KPPast", token="past0000000000000000000000000001")
    return opened


async def fill(device, tools, ontology, count):
    items = [
        {"type": "INSERT", "ontology": ontology, "body": {"data": tools.sensor(n, f"q{n % 5}"), "query": None}}
        for n in range(count)
    ]
    answer = await device.ask("BULK", items)
    assert answer.ok
    assert json.dumps(answer.data).count("ObjectId") == count


@pytest.fixture(scope="module")
def filled():
    """What is done once for the module."""
    return set()


@pytest.fixture
async def past(device, history, tools, filled):
    if not filled:
        await fill(device, tools, "Past", INSTANCES)
        assert await asyncio.to_thread(history.transfer, "Past") == INSTANCES
        filled.add("Past")
    return device


@pytest.mark.parametrize("kind", ["BDH", "HDB", 4])
async def test_the_answer_in_each_dialect(past, kind):
    text = "select assetId, measure, contextdata.timestamp from Past where measure >= 55 order by measure limit 3;"
    for dialect in ("string", "object", "one"):
        answer = await past.query(text, kind, ontology=None, dialect=dialect)
        assert answer.ok, answer
        assert isinstance(answer.data, dict if dialect == "one" else str)
        rows = answer.rows
        assert rows["columns"] == [
            {"name": "assetid", "type": "VARCHAR", "index": 1},
            {"name": "measure", "type": "DOUBLE", "index": 2},
            {"name": "contextdata.timestamp", "type": "TIMESTAMP", "index": 3},
        ]
        assert [row[:2] for row in rows["values"]] == [["q0", 55.0], ["q1", 56.0], ["q2", 57.0]]
        assert datetime.fromisoformat(rows["values"][0][2]).year >= 2026


async def test_all_columns_and_the_row_cap(past):
    rows = (await past.query("{select * from Past}", "BDH", ontology="Past")).rows
    names = [column["name"] for column in rows["columns"]]
    assert names[:6] == [
        "_id", "contextdata.session_key", "contextdata.user", "contextdata.kp", "contextdata.kp_identificador",
        "contextdata.timestamp",
    ]  # fmt: skip
    assert names[6:] == [name.lower() for name in names[6:]]
    assert len(rows["values"]) == INSTANCES
    many = (await past.query("select a._id from Past a cross join Past b limit 150", "BDH")).rows
    assert len(many["values"]) == 100


async def test_over_rest(past, rest, sib):
    text = "select count(*) as n from Past"
    expected = {"columns": [{"name": "n", "type": "BIGINT", "index": 1}], "values": [[INSTANCES]]}
    for version in ({}, {"version": "ONE"}):
        key = await rest.join(sib, "KPPast", "past0000000000000000000000000001", **version)
        answer = await rest.get(sessionKey=key, query=text, queryType="BDH")
        assert answer.status_code == 200, answer.text
        data = answer.json()["data"]
        assert (json.loads(data) if isinstance(data, str) else data) == expected
        assert isinstance(data, str) or version
        refused = await rest.get(sessionKey=key, query="select * from PastOfLuis", queryType="BDH")
        assert (refused.status_code, refused.json()["errorCode"]) == (400, "AUTHORIZATION")


@pytest.mark.parametrize(("text", "code"), [
    ("select * from Nothing", "ONTOLOGY_NOT_FOUND"),
    ("select * from PastOfLuis", "AUTHORIZATION"),
    ("select * from PastShared", "AUTHORIZATION"),
    ("select a._id from Past a join PastOfLuis b on a._id = b._id", "AUTHORIZATION"),
    ("select * from Past where _id in (select _id from both.PastShared)", "AUTHORIZATION"),
    ("with x as (select * from PastOfLuis) select * from x", "AUTHORIZATION"),
    ("select nothing from Past", "PERSISTENCE"),
    ("selekt * from Past", "PARSE_SQL"),
    ("", "PARSE_SQL"),
    ("delete from Past", "PARSE_SQL"),
    ("select * from read_csv('/etc/passwd')", "PARSE_SQL"),
    ("select * from Past, lateral read_text('/etc/passwd')", "PARSE_SQL"),
    ("copy Past to '/tmp/stolen'", "PARSE_SQL"),
    ("select current_setting('temp_directory') from Past", "PARSE_SQL"),
])  # fmt: skip
async def test_refused(past, text, code):
    answer = await past.query(text, "BDH")
    assert (answer.ok, answer.code, answer.data) == (False, code, None), answer
    assert answer.error


async def test_a_predefined_query(past):
    async def ask(**params):
        body = {"query": "mediasDesde", "queryType": "SIB_DEFINED", "queryParams": params}
        return await past.ask("QUERY", body, ontology=None, dialect="one")

    assert (await ask(FROM="55", LIKE='"q1"')).data["values"] == [["q1", 56.0]]
    assert (await ask(FROM="55", LIKE="x' or '1' = '1")).data["values"] == []
    assert (await ask(FROM="0) or (1=1", LIKE="q1")).ok is False
    assert (await ask(FROM="55")).code == "OTHER"
    wish = {
        "query": "mediasDesde",
        "msRefresh": "0",
        "queryType": "SIB_DEFINED",
        "queryParams": {"FROM": "1", "LIKE": "q"},
    }
    assert (await past.ask("SUBSCRIBE", wish, ontology="Past")).code == "OTHER"


async def test_only_the_real_time_database_can_be_subscribed_to(past):
    wish = {"query": "select * from Past", "msRefresh": "0", "queryType": "BDH"}
    answer = await past.ask("SUBSCRIBE", wish, ontology="Past")
    assert (answer.ok, answer.code) == (False, "OTHER")


async def test_a_slow_query_is_stopped(past, sib):
    sib.apply("settings: {query.time_limit_s: 1}\n")
    await asyncio.sleep(1.5)
    try:
        joins = " ".join(f"cross join Past p{n}" for n in range(8))
        answer = await past.query(f"select count(*) as n from Past p {joins} where p.measure + p7.measure < 0", "BDH")
        assert (answer.ok, answer.code) == (False, "OTHER"), answer
        assert "longer" in answer.error
        assert (await past.query("select count(*) as n from Past", "BDH")).rows["values"] == [[INSTANCES]]
    finally:
        sib.apply("settings: {query.time_limit_s: 30}\n")


async def test_the_joined_view_never_changes_while_instances_move(device, history, tools):
    await fill(device, tools, "Moving", 90)
    moved = threading.Event()

    def move():
        try:
            return history.transfer("Moving", progress=lambda _: moved.wait(0.1), batch_documents=5)
        finally:
            moved.set()

    text = "select count(*) as n, count(distinct _id) as ids, sum(measure) as s from both.Moving"
    task = asyncio.create_task(asyncio.to_thread(move))
    seen, shares = [], set()
    while not task.done():
        seen.append((await device.query(text, "BDH")).rows["values"][0])
        shares.add((await device.query("select count(*) as n from Moving", "BDH")).rows["values"][0][0])
    assert await task == 90
    assert all(row == [90, 90, float(sum(range(90)))] for row in seen), seen
    assert len(seen) > 5
    assert len(shares) > 2, "the transfer ran beside the queries"
    assert (await device.query("select count(*) as n from bdtr.Moving", "BDH")).rows["values"] == [[0]]
    assert (await device.query(text + " as of '2020-01-01'", "BDH")).rows["values"] == [[0, 0, None]]
