"""What processes do, on every database of instances: move, delete and group beside a writer that stays open."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import bson
import pytest

from actors.config import PlatformConfig, Topology
from actors.processes.jobs import Jobs
from actors.processes.runs import locks_folder
from sib.access import Role
from sib.errors import ConfigurationError, OntologyNotFoundError, StoreError, StoreUnavailableError
from sib.ontology import compile_ontology
from sib.ontology.templates import template
from storage.bdc.bdc import open_bdc
from storage.bdc.processes import ProcessKind, ProcessRecord
from storage.bdc.records import LogRecord, OntologyRecord, UserRecord
from storage.bdh import parts
from storage.bdh.files import open_files
from storage.bdh.lock import TransferRunningError, transfer_lock
from storage.bdh.query import HistoryQueries
from storage.bdtr.model import IndexSpec, context_head
from storage.open import open_bdtr

TOPOLOGY = Topology(("mqtt-0",), ("http-0",), ("shard-0",), ("partition-0",), ("query-0",))
TRANSFER = ProcessRecord("transfer", ProcessKind.TRANSFER)
COMPACT = ProcessRecord("compact", ProcessKind.COMPACT)
CLEAN = ProcessRecord("clean", ProcessKind.CLEAN)
DAY = timedelta(days=1)


class OnePlace(PlatformConfig):
    """The URL is of a place that no other test has."""

    def partition_url(self, partition):
        return self.bdtr_url


class Place:
    """A platform's databases without a platform; ``partition`` is what its partition would write with."""

    def __init__(self, folder, bdtr_url):
        self.now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
        self.config = OnePlace(
            str(folder),
            f"sqlite:///{folder}/bdc.db",
            bdtr_url,
            TOPOLOGY,
            listeners=(),
            bdh_url=f"file:{folder}/bdh",
        )
        self.bdc = open_bdc(self.config.bdc_url)
        self.bdc.upgrade()
        self.partition = open_bdtr(self.config.partition_url("partition-0"), writer=True)
        self.slept = []
        with self.bdc.change() as configuration:
            configuration.users.put(UserRecord("u", Role.COLABORADOR))

    def ontology(self, name, window_s=86_400, **transfer):
        schema = template("SensorPoint").schema_for(name)
        with self.bdc.change() as configuration:
            configuration.ontologies.put(OntologyRecord(name, "u", schema, window_s=window_s))
            if transfer:
                configuration.processes.put(ProcessRecord(f"own-{name}", ProcessKind.TRANSFER, name, **transfer))
        self.partition.ensure_collection(
            name, [IndexSpec((("contextData.timestamp", 1),)), IndexSpec((("Sensor.assetId", 1),))]
        )

    def insert(self, name, numbers, age):
        documents = [{"Sensor": {"assetId": f"A{n % 3}", "measure": float(n)}} for n in numbers]
        heads = [context_head({"user": "u", "kp": "k"})] * len(documents)
        now_ms = int((self.now - age).replace(tzinfo=UTC).timestamp() * 1000)
        with self.partition.begin() as transaction:
            transaction.append(name, [bson.encode(each) for each in documents], documents, heads, now_ms)

    def run(self, process, ontology=""):
        counts = {}
        Jobs(self.config, self.bdc, now=lambda: self.now, sleep=self.slept.append).run(
            process, counts, ontology=ontology
        )
        return counts

    def real_time(self, name):
        return sorted(document["Sensor"]["measure"] for document in self.partition.find(name, {}))

    def history(self, name):
        files = open_files(self.config.bdh_url)
        rows = []
        for record in self.bdc.history.files(name):
            rows += parts.read_table(files, f"{name}/fecha={record.day}/{record.name}").to_pylist()
        return sorted(row["Sensor"]["measure"] for row in rows)

    def sql(self, text):
        with self.bdc.read() as configuration:
            schemas = {record.name: record.schema_text for record in configuration.ontologies.all()}
        ontologies = {name: compile_ontology(name, schema) for name, schema in schemas.items()}
        files = open_files(self.config.bdh_url)
        queries = HistoryQueries(files, self.bdc.history, ontologies.__getitem__, lambda name: self.partition)
        try:
            return queries.run(text).rows
        finally:
            queries.close()

    def close(self):
        self.partition.close()
        self.bdc.close()


@pytest.fixture
def place(store_url, tmp_path):
    place = Place(tmp_path, store_url)
    yield place
    place.close()


def test_what_is_older_than_the_window_moves_and_the_partition_writes_on(place):
    place.ontology("Moved")
    place.insert("Moved", range(30), 2 * DAY)
    place.insert("Moved", range(30, 40), DAY / 2)
    counts = place.run(TRANSFER, "Moved")
    assert (counts["moved"], counts["files"], counts["resumed"]) == (30, 1, 0)
    assert place.history("Moved") == [float(n) for n in range(30)]
    place.insert("Moved", range(40, 45), DAY / 2)
    assert place.real_time("Moved") == [float(n) for n in range(30, 45)]
    assert place.partition.count("Moved", {"Sensor.assetId": "A0"}) == 5
    assert place.run(TRANSFER, "Moved")["moved"] == 0


def test_instances_with_ids_from_elsewhere_move_too(place):
    place.ontology("Foreign")
    place.insert("Foreign", range(5), 2 * DAY)
    ids = [bson.ObjectId("aa" * 12), "a text", 7, 7.5, {"of": "an object"}, bson.ObjectId("01" * 12)]
    stamp = place.now - 2 * DAY
    documents = [
        {"_id": id_, "contextData": {"user": "u", "timestamp": stamp}, "Sensor": {"assetId": "F", "measure": float(n)}}
        for n, id_ in enumerate(ids, 10)
    ]
    with place.partition.begin() as transaction:
        transaction.insert_documents("Foreign", documents)
    assert place.run(TRANSFER, "Foreign")["moved"] == 11
    assert place.real_time("Foreign") == []
    assert place.history("Foreign") == [float(n) for n in (*range(5), *range(10, 16))]


@pytest.mark.parametrize("is_dated", [False, True])
def test_instances_without_a_time_have_the_same_day_in_real_time_as_in_the_history(place, is_dated):
    place.ontology("Odd")
    at = place.now.replace(hour=10, minute=0, second=0) - 3 * DAY
    generated = bson.ObjectId(int(at.replace(tzinfo=UTC).timestamp()).to_bytes(4, "big") + bytes(8))
    later = bson.ObjectId(int((at + 2 * DAY).replace(tzinfo=UTC).timestamp()).to_bytes(4, "big") + bytes(8))
    contexts = {"a": {"timestamp": at}, "b": {"timestamp": at + 2 * DAY}}
    if not is_dated:
        contexts |= {generated: {}, later: {"timestamp": None}, "c": {"timestamp": "yesterday"}, "d": {"timestamp": 5}}
    documents = [{"_id": id_, "contextData": context, "Sensor": {}} for id_, context in contexts.items()]
    with place.partition.begin() as transaction:
        transaction.insert_documents("Odd", documents)

    def found(condition):
        return [id_ for (id_,) in place.sql(f"select _id from both.Odd where {condition} order by _id")]

    day, next_day = at.date(), (at + DAY).date()
    conditions = {
        f"fecha = '{day}'": ["a"] if is_dated else [str(generated), "a"],
        f"fecha >= '{next_day}'": ["b"] if is_dated else [str(later), "b"],
        "fecha < '2000-01-01'": [] if is_dated else ["c", "d"],
        f"contextData.timestamp < '{next_day}'": ["a"],
        "true": ["a", "b"] if is_dated else sorted([str(generated), str(later), "a", "b", "c", "d"]),
    }
    assert {condition: found(condition) for condition in conditions} == conditions
    place.run(TRANSFER, "Odd")
    assert place.partition.count("Odd", {}) == 0
    assert {condition: found(condition) for condition in conditions} == conditions


def test_what_is_older_than_the_window_is_deleted(place):
    place.ontology("Deleted", options={"action": "delete"})
    place.insert("Deleted", range(30), 2 * DAY)
    place.insert("Deleted", [30], DAY / 2)
    assert place.run(TRANSFER, "Deleted")["deleted"] == 30
    assert place.real_time("Deleted") == [30]
    assert place.history("Deleted") == []


def test_what_moves_is_prepared_and_grouped(place):
    group = {"every_s": 86_400, "by": ["Sensor.assetId"], "values": {"Sensor.measure": "sum"}}
    prepare = [{"$set": {"Sensor.measure": {"$add": ["$Sensor.measure", 1]}}}]
    place.ontology("Grouped", options={"group": group, "prepare": prepare})
    place.insert("Grouped", range(30), 3 * DAY)
    counts = place.run(TRANSFER, "Grouped")
    assert (counts["grouped"], counts["groups"], counts["unprepared"]) == (30, 3, 0)
    assert place.history("Grouped") == [sum(range(first, 30, 3)) + 10 for first in range(3)]
    assert place.run(COMPACT)["files_deleted"] == 0


def test_the_general_transfer_is_of_all_with_a_window_but_those_with_a_schedule_of_their_own(place):
    place.ontology("One")
    place.ontology("Two", options={"action": "delete"})
    place.ontology("Own", schedule="@hourly")
    place.ontology("Endless", window_s=None)
    for name in ("One", "Two", "Own", "Endless"):
        place.insert(name, [1, 2], 2 * DAY)
    counts = place.run(TRANSFER)
    assert (counts["moved"], counts["deleted"]) == (2, 2)
    assert [len(place.real_time(name)) for name in ("One", "Two", "Own", "Endless")] == [0, 0, 2, 2]


def test_one_ontology_that_fails_does_not_keep_the_others(place, monkeypatch):
    place.ontology("Bad")
    place.ontology("Good")
    for name in ("Bad", "Good"):
        place.insert(name, [1], 2 * DAY)
    take_out = Jobs._take_out

    def failing(self, where, *arguments):
        if where.ontology.name == "Bad":
            raise StoreError("no room")
        take_out(self, where, *arguments)

    monkeypatch.setattr(Jobs, "_take_out", failing)
    with pytest.raises(StoreError, match=r"1 of 2 ontologies failed\. Bad: no room"):
        place.run(TRANSFER)
    assert place.real_time("Good") == []


@pytest.mark.adapters("sqlite")
def test_an_ontology_that_a_command_moves_just_now_is_left_out(place):
    place.ontology("Busy")
    place.ontology("Free")
    for name in ("Busy", "Free"):
        place.insert(name, [1], 2 * DAY)
    with transfer_lock(locks_folder(place.config.data), "Busy"):
        counts = place.run(TRANSFER)
        with pytest.raises(TransferRunningError):
            place.run(TRANSFER, "Busy")
    assert (counts["moved"], counts["ontologies_busy"]) == (1, 1)
    assert place.real_time("Busy") == [1]


def test_a_database_that_does_not_answer_is_asked_again(place, monkeypatch):
    place.ontology("Moved")
    place.insert("Moved", [1], 2 * DAY)
    take_out, failures = Jobs._take_out, [1, 2]

    def failing(self, *arguments):
        if failures:
            failures.pop()
            raise StoreUnavailableError("busy")
        take_out(self, *arguments)

    monkeypatch.setattr(Jobs, "_take_out", failing)
    assert place.run(TRANSFER, "Moved")["moved"] == 1
    assert place.slept == [1, 2]


def test_compaction_makes_one_file_of_a_day(place):
    place.ontology("Moved")
    for age in (4 * DAY, 3 * DAY, 2 * DAY):
        place.insert("Moved", range(10), age)
        place.run(TRANSFER, "Moved")
        place.insert("Moved", range(10), age)
        place.run(TRANSFER, "Moved")
    counts = place.run(COMPACT)
    assert (counts["files_before"], counts["files_after"], counts["days"]) == (6, 3, 3)
    assert place.history("Moved") == sorted([float(n) for n in range(10)] * 6)


@pytest.mark.adapters("sqlite")
def test_files_that_an_older_bdc_does_not_know_are_kept_told_of_and_adopted(place, caplog):
    place.ontology("Moved")
    place.ontology("Empty")
    for numbers in (range(3), range(3, 6)):
        place.insert("Moved", numbers, 2 * DAY)
        place.run(TRANSFER, "Moved")
    _, forgotten = place.bdc.history.files("Moved")
    place.bdc.history.forget([forgotten])
    place.now += 60 * DAY
    counts = place.run(COMPACT)
    assert (counts["files_unknown"], counts["orphans_deleted"]) == (1, 0)
    assert "sofia2 process adopt" in caplog.text
    counts = {}
    Jobs(place.config, place.bdc, now=lambda: place.now).adopt("", counts)
    assert (counts["files"], counts["instances"], counts["missing"]) == (1, 3, 0)
    assert place.history("Moved") == [float(n) for n in range(6)]
    assert "files_unknown" not in place.run(COMPACT)


@pytest.mark.adapters("sqlite")
def test_a_damaged_file_stops_neither_the_other_days_nor_the_other_ontologies(place):
    for name in ("A", "B"):
        place.ontology(name)
        for age in (4 * DAY, 3 * DAY) * 2:
            place.insert(name, range(2), age)
            place.run(TRANSFER, name)
    damaged = place.bdc.history.files("A")[0]
    path = f"A/fecha={damaged.day}/{damaged.name}"
    files = open_files(place.config.bdh_url)
    data = bytes(files.read(path))
    files.delete(path)
    files.put(path, "A/_tmp/x", memoryview(data[:-10]))
    counts = {}
    with pytest.raises(StoreError, match=rf"1 of 2 ontologies failed\. A: The file '{path}' of the history is damaged"):
        Jobs(place.config, place.bdc, now=lambda: place.now).run(COMPACT, counts)
    assert (counts["days"], counts["files_after"], counts["days_failed"], counts["ontologies_failed"]) == (3, 3, 1, 1)
    assert len(place.bdc.history.files("A")) == 3


@pytest.mark.adapters("sqlite")
def test_an_error_of_no_known_kind_does_not_keep_the_other_ontologies(place, monkeypatch):
    place.ontology("Bad")
    place.ontology("Good")
    for name in ("Bad", "Good"):
        place.insert(name, [1], 2 * DAY)
    open_place = Jobs._place

    def failing(self, record):
        if record.name == "Bad":
            raise ZeroDivisionError("odd")
        return open_place(self, record)

    monkeypatch.setattr(Jobs, "_place", failing)
    with pytest.raises(StoreError, match=r"1 of 2 ontologies failed\. Bad: ZeroDivisionError\('odd'\)"):
        place.run(TRANSFER)
    assert place.real_time("Good") == []


@pytest.mark.adapters("sqlite")
def test_cleaning_forgets_old_lines(place):
    place.bdc.log(
        [LogRecord(kind, place.now - age, "x") for kind in ("LOG", "AUDIT") for age in (DAY, 40 * DAY, 400 * DAY)]
    )
    assert place.run(CLEAN) == {"lines": 2, "audits": 1, "sessions": 0}
    strict = replace(CLEAN, options={"keep_log_s": 3600, "keep_audit_s": 3600})
    assert place.run(strict) == {"lines": 1, "audits": 2, "sessions": 0}


@pytest.mark.adapters("sqlite")
def test_what_cannot_be_done_says_why(place):
    place.ontology("Endless", window_s=None)
    with pytest.raises(ConfigurationError, match="window"):
        place.run(TRANSFER, "Endless")
    with pytest.raises(OntologyNotFoundError):
        place.run(TRANSFER, "Missing")
