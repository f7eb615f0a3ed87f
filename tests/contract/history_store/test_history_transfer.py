"""Transfers, compaction and queries on every file system."""

from datetime import date, datetime, timedelta

import pytest

from sib.errors import NotFoundError, StoreUnavailableError
from storage.bdh import compaction as compaction_module
from storage.bdh import layout, parts
from storage.bdh.compaction import RETIRED_KEPT_S, Compaction
from storage.bdh.lock import TransferRunningError, transfer_lock
from storage.bdh.unknown import SweepResult, UnknownFiles
from storage.bdtr.model import IndexSpec

DAY_1, DAY_2, DAY_3 = datetime(2026, 1, 1, 10), datetime(2026, 1, 2, 10), datetime(2026, 1, 3, 10)


def test_old_instances_move_by_day_and_young_ones_stay(world):
    world.insert(range(10), DAY_1)
    world.insert(range(10, 15), DAY_2)
    world.insert(range(15, 18), DAY_3)
    result = world.transfer().run(DAY_3)
    assert (result.n_moved, result.n_files, result.n_stale) == (15, 2, 0)
    assert world.history() == list(range(15))
    assert world.real_time() == [15, 16, 17]
    records = world.manifest.files("S")
    assert [(record.day, record.n_rows, record.first_at) for record in records] == [
        (date(2026, 1, 1), 10, DAY_1),
        (date(2026, 1, 2), 5, DAY_2),
    ]
    assert all(layout.is_part_name(record.name) for record in records)
    assert world.files.entries("S/_tmp") == []
    assert world.transfer().run(DAY_3).n_moved == 0


def test_moving_is_no_change_and_keeps_indexes_true(world):
    world.store.ensure_collection("S", [IndexSpec((("Sensor.assetId", 1),)), IndexSpec((("Sensor.measure", -1),))])
    world.insert(range(100), DAY_1)
    world.insert(range(100, 110), DAY_3)
    seq = world.store.seq
    world.transfer(batch_documents=30).run(DAY_2)
    assert world.store.seq == seq
    assert [change.seq for change in world.store.changes(0, 1000)] == list(range(101, 111))
    assert world.store.count("S", {"Sensor.assetId": "A1"}) == 1
    assert world.store.count("S", {"Sensor.measure": {"$lt": 105}}) == 5
    assert world.store.count("S") == 10
    assert world.history() == list(range(100))


def test_a_drifting_type_does_not_stop_a_transfer(world):
    world.insert([1], DAY_1)
    with world.store.begin() as transaction:
        transaction.insert_documents(
            "S",
            [
                {"_id": "own", "contextData": {"timestamp": DAY_1}, "Sensor": {"measure": "hot"}},
                {"_id": 5, "contextData": {"timestamp": DAY_1}, "Sensor": [1, 2]},
            ],
        )
    assert world.transfer().run(DAY_2).n_moved == 3
    assert world.sql("select _id, measure from S where measure is null order by _id") == [("5", None), ("own", None)]
    raw = dict(world.sql("select _id, _raw from S where _raw is not null"))
    assert raw == {"own": '{"Sensor":{"measure":"hot"}}', "5": '{"_id":5,"Sensor":[1,2]}'}


def test_an_update_meanwhile_is_never_lost(world):
    world.insert(range(5), DAY_1)

    class Slow:
        """Somebody writes after the files were written and before the commit, ``times`` times."""

        def __init__(self, journal, times):
            self.journal, self.times = journal, times

        def __getattr__(self, name):
            return getattr(self.journal, name)

        def commit(self, number, files, *, accept_stale):
            if self.times:
                self.times -= 1
                with world.store.begin() as transaction:
                    transaction.update(
                        "S", {"Sensor.assetId": "A2"}, {"$inc": {"Sensor.measure": 100}}, multi=False, now=DAY_1
                    )
            return self.journal.commit(number, files, accept_stale=accept_stale)

    result = world.transfer(steps=Slow(world.journal, 1)).run(DAY_2)
    assert (result.n_moved, result.n_stale) == (5, 1)
    assert world.history() == [0, 1, 3, 4, 102]
    assert world.real_time() == []
    assert len(world.manifest.files("S")) == 1

    world.insert(range(5, 10), DAY_1)
    with world.store.begin() as transaction:
        transaction.update("S", {"Sensor.assetId": "A5"}, {"$set": {"Sensor.assetId": "A2"}}, multi=False, now=DAY_1)
    result = world.transfer(steps=Slow(world.journal, 4)).run(DAY_2)
    assert (result.n_moved, result.n_stale) == (4, 3)
    assert world.real_time() == [305]
    assert world.history() == [0, 1, 3, 4, 6, 7, 8, 9, 102]
    assert world.transfer().run(DAY_2).n_moved == 1
    assert world.history() == [0, 1, 3, 4, 6, 7, 8, 9, 102, 305]
    stale = [record for record in world.manifest.files("S") if record.stale_rows]
    assert [record.stale_rows for record in stale] == [(0,)]
    table = parts.read_table(world.files, layout.path_of("S", stale[0].day, stale[0].name))
    assert table.num_rows == stale[0].n_rows == 5


def test_a_delete_meanwhile_is_not_undone(world):
    world.insert(range(3), DAY_1)

    class Deleting:
        def __getattr__(self, name):
            return getattr(world.journal, name)

        def plan(self, *arguments):
            number = world.journal.plan(*arguments)
            with world.store.begin() as transaction:
                transaction.delete("S", {"Sensor.measure": 1.0})
            return number

    world.transfer(steps=Deleting()).run(DAY_2)
    assert world.history() == [0, 2]
    assert world.real_time() == []


def test_the_files_of_another_store_are_left_alone(world, tmp_path):
    day = date(2026, 1, 1)
    name = layout.part_name(1, 3)
    world.files.put(
        layout.path_of("S", day, name), layout.tmp_path_of("S", day, name), memoryview(b"of a store before")
    )
    world.insert(range(3), DAY_1)
    world.transfer().run(DAY_2)
    assert world.history() == [0, 1, 2]
    assert world.files.read(layout.path_of("S", day, name)) == b"of a store before"


@pytest.mark.parametrize("jump", [timedelta(days=4000), timedelta(days=-4000)])
def test_a_clock_that_jumps_during_a_transfer_loses_nothing(world, jump):
    """At every step of several batches, forward or backward, with a compaction and its deletions between them."""
    world.insert(range(30), DAY_1)
    world.insert(range(30, 40), DAY_3)
    compaction = Compaction("S", world.files, world.manifest, now=lambda: world.now)

    class Jumping:
        def __getattr__(self, name):
            def step(*arguments, **options):
                world.now += jump
                result = getattr(world.journal, name)(*arguments, **options)
                world.now -= jump
                compaction.run()
                return result

            return step

    assert world.transfer(steps=Jumping(), batch_documents=10).run(DAY_2).n_moved == 30
    assert world.history() == list(range(30))
    assert world.real_time() == list(range(30, 40))
    world.now += jump
    compaction.run()
    world.transfer().run(DAY_2)
    assert world.sql("select count(*), sum(measure) from both.S") == [(40, float(sum(range(40))))]
    assert world.history() == list(range(30))


@pytest.mark.parametrize("cut", [0, 700])
def test_a_file_cut_short_is_written_again(world, cut):
    """What lies below us lost the end of a file that had its name already, and the process that wrote it."""
    world.insert(range(50), DAY_1)

    class Dies:
        def __getattr__(self, name):
            return getattr(world.journal, name)

        def commit(self, *arguments, **options):
            raise StoreUnavailableError("killed")

    with pytest.raises(StoreUnavailableError):
        world.transfer(steps=Dies()).run(DAY_2)
    folder = "S/fecha=2026-01-01"
    (entry,) = world.files.entries(folder)
    whole = world.files.read(f"{folder}/{entry.name}")
    world.files.delete(f"{folder}/{entry.name}")
    world.files.put(f"{folder}/{entry.name}", "S/_tmp/x", memoryview(whole[:cut]))
    assert world.transfer().run(DAY_2).n_moved == 50
    assert world.history() == list(range(50))
    assert world.store.count("S") == 0


def test_queries_see_every_instance_once_at_every_step(world):
    world.insert(range(40), DAY_1)
    counts = []

    def look():
        counts.append(world.sql("select count(*), sum(measure) from both.S")[0])

    class Watched:
        def __getattr__(self, name):
            def step(*arguments, **options):
                look()
                result = getattr(world.journal, name)(*arguments, **options)
                look()
                return result

            return step

    class Manifest:
        def __getattr__(self, name):
            return getattr(world.bdc.history, name)

        def add(self, records):
            look()
            world.bdc.history.add(records)
            look()

    world.transfer(steps=Watched(), manifest=Manifest(), batch_documents=15).run(DAY_2)
    assert set(counts) == {(40, float(sum(range(40))))}
    assert len(counts) >= 18


def test_as_of_leaves_out_what_came_later(world):
    world.insert(range(3), DAY_1)
    world.insert(range(3, 5), DAY_2)
    world.insert(range(5, 9), DAY_3)
    world.transfer().run(DAY_2)
    assert world.sql("select count(*) from both.S as of '2026-01-02 10:00:00'") == [(5,)]
    assert world.sql("select count(*) from both.S for system_time as of timestamp '2026-01-02 09:59:59'") == [(3,)]
    assert world.sql("select count(*) from both.S") == [(9,)]
    assert world.sql("select count(*) from bdtr.S") == [(6,)]


def test_compaction_makes_one_file_of_a_day_and_queries_agree(world):
    for n in range(6):
        world.insert(range(n * 10, n * 10 + 10), DAY_1 + timedelta(minutes=n))
        world.transfer().run(DAY_2)
    world.insert(range(60, 65), DAY_2)
    world.transfer().run(DAY_3)
    assert len(world.manifest.files("S")) == 7
    before = world.history()
    compaction = Compaction("S", world.files, world.manifest, now=lambda: world.now)
    result = compaction.run()
    assert (result.n_days, result.n_old, result.n_new, result.n_deleted) == (1, 6, 1, 0)
    assert world.history() == before
    assert len(world.files.entries("S/fecha=2026-01-01")) == 7
    world.now += timedelta(seconds=RETIRED_KEPT_S + 1)
    assert compaction.run().n_deleted == 6
    assert world.history() == before
    assert len(world.files.entries("S/fecha=2026-01-01")) == 1
    assert world.sql("select count(*) from both.S") == [(65,)]


def test_compaction_is_bounded_by_what_rows_take_in_memory(world, monkeypatch):
    """Texts that come again are small in a file, and large in memory."""
    for n in range(6):
        world.insert(range(n * 10, n * 10 + 10), DAY_1, assetId="long" * 5_000)
        world.transfer().run(DAY_2)
    size_bytes = 10 * 20_000
    tables = []
    concat_tables = compaction_module.pa.concat_tables
    monkeypatch.setattr(
        compaction_module.pa, "concat_tables", lambda given: tables.append(concat_tables(given)) or tables[-1]
    )
    compaction = Compaction("S", world.files, world.manifest, now=lambda: world.now, memory_bytes_max=5 * size_bytes)
    assert sum(record.size_bytes for record in world.manifest.files("S")) < size_bytes / 2
    assert compaction.run().n_new == 2
    assert all(table.nbytes <= 5 * size_bytes for table in tables)
    assert [record.n_rows for record in world.manifest.files("S")] in ([40, 20], [20, 40])
    assert world.history() == list(range(60))
    world.insert([60], DAY_1, assetId="long" * 300_000)
    world.transfer().run(DAY_2)
    assert compaction.run().n_new == 0  # one is too large, the others are together
    assert len(tables) == 2


def test_an_interrupted_compaction_is_done_again(world):
    for n in range(3):
        world.insert([n], DAY_1)
        world.transfer().run(DAY_2)

    class Dies:
        def __getattr__(self, name):
            return getattr(world.manifest, name)

        def replace(self, old, new):
            raise StoreUnavailableError("killed")

    with pytest.raises(StoreUnavailableError):
        Compaction("S", world.files, Dies(), now=lambda: world.now).run()
    assert world.history() == [0, 1, 2]
    Compaction("S", world.files, world.manifest, now=lambda: world.now).run()
    assert world.history() == [0, 1, 2]
    assert len(world.manifest.files("S")) == 1


def test_sweep_deletes_only_what_nobody_knows(world):
    world.insert([1], DAY_1)
    world.transfer().run(DAY_2)
    day = date(2026, 1, 1)
    world.files.put(layout.path_of("S", day, "part-8-9.parquet"), layout.tmp_path_of("S", day, "x"), memoryview(b"x"))
    unknown = UnknownFiles("S", world.files, world.manifest, world.store, now=lambda: world.now)
    world.now = datetime.now() - timedelta(days=30)
    assert unknown.sweep() == SweepResult()
    world.now = datetime.now() + timedelta(days=30)
    assert unknown.sweep() == SweepResult(n_deleted=1)
    assert world.history() == [1]


def test_one_transfer_at_a_time(tmp_path):
    with transfer_lock(tmp_path, "S"):
        with pytest.raises(TransferRunningError), transfer_lock(tmp_path, "S"):
            pass
        with transfer_lock(tmp_path, "T"):
            pass
    with transfer_lock(tmp_path, "S"):
        pass


def test_an_abandoned_transfer_cannot_be_committed(world):
    world.insert([1], DAY_1)
    number = world.journal.plan("S", [], b"", 0)
    world.journal.abandon(number)
    with pytest.raises(NotFoundError):
        world.journal.commit(number, [], accept_stale=False)
