"""Files that the manifest does not know: an older BDC was restored beside a newer history."""

from dataclasses import replace
from datetime import datetime, timedelta

import bson
import pytest

from storage.bdh import layout, parts
from storage.bdh.compaction import RETIRED_KEPT_S, Compaction
from storage.bdh.unknown import AdoptResult, SweepResult, UnknownFiles

DAY_1, DAY_2 = datetime(2026, 1, 1, 10), datetime(2026, 1, 2, 10)


@pytest.fixture
def unknown(world):
    world.now = datetime.now() + timedelta(days=30)  # the age of files is that of the machine
    return UnknownFiles("S", world.files, world.manifest, world.store, now=lambda: world.now)


def move(world, numbers, at=DAY_1):
    """As a file of its own."""
    world.insert(numbers, at)
    world.transfer().run(at + timedelta(hours=1))


def forget(world, *kept):
    """The manifest as in a backup that knows these files only."""
    known = world.manifest.files("S", with_retired=True)
    world.manifest.forget(known)
    world.manifest.add([replace(record, retired_at=None) for record in kept])


def compact(world):
    compaction = Compaction("S", world.files, world.manifest, now=lambda: world.now)
    compaction.run()
    world.now += timedelta(seconds=RETIRED_KEPT_S + 1)
    compaction.run()


def n_files(world):
    return len(world.files.entries("S/fecha=2026-01-01"))


def test_an_older_bdc_loses_no_file_and_its_instances_are_adopted(world, unknown):
    move(world, range(5))
    backup = world.manifest.files("S")
    move(world, range(5, 10))
    move(world, [10], DAY_2)
    forget(world, *backup)
    assert unknown.sweep() == SweepResult(n_unknown=2)
    assert world.history() == list(range(5))
    assert unknown.adopt() == AdoptResult(n_files=2, n_adopted=6)
    assert world.history() == list(range(11))
    assert world.sql("select count(*) from S where contextData.timestamp >= '2026-01-02'") == [(1,)]
    assert unknown.adopt() == AdoptResult()
    assert unknown.sweep() == SweepResult()


def test_what_was_compacted_since_stands_for_the_files_that_are_gone(world, unknown):
    move(world, range(5))
    move(world, range(5, 10))
    backup = world.manifest.files("S")
    compact(world)
    forget(world, *backup)
    result = unknown.adopt()
    assert (len(result.missing), result.n_adopted, result.n_forgotten) == (2, 10, 0)
    assert result.missing == [layout.path_of("S", record.day, record.name) for record in backup]
    assert unknown.adopt(forget_missing=True).n_forgotten == 2
    assert world.history() == list(range(10))


def test_a_file_and_those_it_was_made_of_are_adopted_once(world, unknown):
    move(world, range(5))
    move(world, range(5, 10))
    Compaction("S", world.files, world.manifest, now=lambda: world.now).run()
    forget(world)
    assert unknown.sweep() == SweepResult(n_unknown=3)
    assert unknown.adopt() == AdoptResult(n_files=1, n_adopted=10, n_double=10)
    assert world.history() == list(range(10))
    assert unknown.sweep() == SweepResult(n_deleted=2)
    assert world.history() == list(range(10))


def test_what_a_killed_compaction_left_is_deleted(world, unknown):
    move(world, range(5))
    move(world, range(5, 10))
    before = world.manifest.files("S")
    Compaction("S", world.files, world.manifest, now=lambda: world.now).run()
    forget(world, *before)
    assert unknown.sweep() == SweepResult(n_deleted=1)
    assert world.history() == list(range(10))


def test_instances_that_are_in_another_file_or_in_real_time_are_left_out(world, unknown):
    """A BDTR that is older than the history, too."""
    move(world, range(6))
    (record,) = world.manifest.files("S")
    table = parts.read_table(world.files, layout.path_of("S", record.day, record.name))
    forget(world)
    parts.write_table(world.files, "S", record.day, "part-90-91.parquet", table.slice(0, 2))
    world.manifest.add([replace(record, name="part-90-91.parquet", n_rows=2)])
    with world.store.begin() as transaction:
        found = [
            {"_id": bson.ObjectId(id_), "contextData": {"timestamp": DAY_1}, "Sensor": {"measure": 2.0}}
            for id_ in table["_id"].to_pylist()[2:3]
        ]
        transaction.insert_documents("S", found)
    assert unknown.sweep() == SweepResult(n_unknown=1)
    assert unknown.adopt() == AdoptResult(n_files=1, n_adopted=3, n_double=3)
    assert world.sql("select measure from both.S order by measure") == [(float(n),) for n in range(6)]
    assert unknown.sweep() == SweepResult(n_deleted=0, n_unknown=1)  # its instance of the BDTR is nowhere else yet
    world.transfer().run(DAY_2)
    assert unknown.sweep() == SweepResult(n_deleted=1)
    assert world.history() == list(range(6))


def test_ids_of_other_types_are_told_apart(world, unknown):
    for id_ in (5, "5"):
        with world.store.begin() as transaction:
            document = {"_id": id_, "contextData": {"timestamp": DAY_1}, "Sensor": {"measure": 1.0, "_id": "inner"}}
            transaction.insert_documents("S", [document])
        world.transfer().run(DAY_2)
    forget(world, world.manifest.files("S")[0])
    assert unknown.sweep() == SweepResult(n_unknown=1)
    assert unknown.adopt() == AdoptResult(n_files=1, n_adopted=1)
    assert world.history() == [1, 1]


def test_a_damaged_file_is_kept_and_named(world, unknown):
    move(world, range(1000))
    (record,) = world.manifest.files("S")
    path = layout.path_of("S", record.day, record.name)
    data = bytearray(world.files.read(path))
    data[100:1100] = bytes(1000)
    world.files.delete(path)
    world.files.put(path, "S/_tmp/x", memoryview(bytes(data)))
    forget(world)
    assert unknown.sweep() == SweepResult(n_unknown=1)
    assert unknown.adopt() == AdoptResult(damaged=[path])
    assert n_files(world) == 1


def test_the_files_of_a_transfer_under_way_are_no_concern(world, unknown):
    class Dies:
        def __getattr__(self, name):
            return getattr(world.journal, name)

        def commit(self, *arguments, **options):
            raise InterruptedError

    world.insert(range(3), DAY_1)
    with pytest.raises(InterruptedError):
        world.transfer(steps=Dies()).run(DAY_2)
    assert (unknown.sweep(), unknown.adopt()) == (SweepResult(), AdoptResult())
    world.transfer().run(DAY_2)
    assert world.history() == [0, 1, 2]
