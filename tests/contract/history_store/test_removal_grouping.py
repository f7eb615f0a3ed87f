"""Deleting without moving, and grouping: nothing twice, nothing lost, and a repetition after a crash changes nothing."""

import threading
from datetime import timedelta

import pytest

from sib.errors import LimitError, StoreUnavailableError
from storage.bdh import parts
from storage.bdh.grouping import Grouping, is_grouped
from storage.bdh.groups import GroupBy
from storage.bdh.removal import Removal
from storage.bdtr.transfers import TransferJournal
from storage.open import open_bdtr

HOURLY = GroupBy(3600, ("Sensor.assetId",), {"Sensor.measure": "sum"})


def removal(world, **options):
    return Removal("S", options.pop("store", world.store), options.pop("steps", world.journal), now=lambda: world.now)


def grouping(world, group=HOURLY, **options):
    return Grouping(world.ontology, group, world.files, world.manifest, **options)


def raw_days(world):
    """Ten instances of each of two old days, an hour apart, and one that is young."""
    world.insert(range(10), world.now - timedelta(days=3))
    world.insert(range(10, 20), world.now - timedelta(days=2))
    world.insert([20], world.now)


def test_what_is_old_is_removed_and_no_file_is_written(world):
    raw_days(world)
    result = removal(world).run(world.now - timedelta(days=1))
    assert (result.n_removed, result.n_batches, result.n_stale) == (20, 1, 0)
    assert world.real_time() == [20]
    assert world.manifest.files("S") == []
    assert removal(world).run(world.now - timedelta(days=1)).n_removed == 0


def test_a_removal_that_was_planned_before_a_crash_is_finished_by_the_next_transfer(world):
    raw_days(world)

    class Dying:
        def __getattr__(self, name):
            if name == "commit":
                raise KeyboardInterrupt
            return getattr(world.journal, name)

    with pytest.raises(KeyboardInterrupt):
        removal(world, steps=Dying()).run(world.now - timedelta(days=1))
    assert len(world.real_time()) == 21
    assert world.transfer().resume().n_resumed == 1
    assert world.real_time() == [20]
    assert world.history() == []


def test_removing_is_not_told_to_those_who_are_told_of_changes(world):
    raw_days(world)
    seq = world.store.seq
    removal(world).run(world.now - timedelta(days=1))
    assert world.store.seq == seq
    assert list(world.store.changes(seq, 10)) == []


def test_groups_stand_for_all_instances_of_a_period_and_key(world):
    raw_days(world)
    world.insert(range(100, 120), world.now - timedelta(days=3, hours=-1))
    world.transfer().run(world.now - timedelta(days=1))
    result = grouping(world).run(world.now - timedelta(days=1))
    assert (result.n_days, result.n_instances, result.n_groups) == (2, 40, 30)
    assert sum(world.history()) == sum(range(20)) + sum(range(100, 120))
    assert world.sql("select count(*) from S")[0][0] == 30
    assert all(is_grouped(record.name) for record in world.manifest.files("S"))
    assert grouping(world).run(world.now - timedelta(days=1)).n_instances == 0


def test_what_comes_late_is_merged_with_its_weight(world):
    mean = GroupBy(86_400, (), {"Sensor.measure": "avg"})
    day = world.now - timedelta(days=3)
    world.insert([0, 0, 0], day)
    world.transfer().run(world.now)
    grouping(world, mean).run(world.now)
    world.insert([4], day)
    world.transfer().run(world.now)
    grouping(world, mean).run(world.now)
    assert world.history() == [1.0]


def test_a_period_that_has_not_ended_stays_as_it_is(world):
    half_past = world.now - timedelta(days=1, minutes=-30)
    world.insert(range(10), half_past - timedelta(hours=1))
    world.insert(range(10, 20), half_past)
    world.transfer().run(half_past + timedelta(minutes=1))
    result = grouping(world, GroupBy(3600)).run(half_past + timedelta(minutes=1))
    assert (result.n_instances, result.n_groups) == (10, 1)
    assert world.sql("select count(*) from S")[0][0] == 11
    assert grouping(world, GroupBy(3600)).run(half_past + timedelta(minutes=1)).n_instances == 0
    assert grouping(world, GroupBy(3600)).run(half_past + timedelta(hours=1)).n_instances == 10


def test_a_crash_before_the_manifest_changes_nothing_and_the_next_run_does_it_once(world):
    raw_days(world)
    world.transfer().run(world.now - timedelta(days=1))

    class Dying:
        def __getattr__(self, name):
            if name == "replace":
                raise KeyboardInterrupt
            return getattr(world.manifest, name)

    with pytest.raises(KeyboardInterrupt):
        Grouping(world.ontology, HOURLY, world.files, Dying()).run(world.now - timedelta(days=1))
    assert world.history() == [float(n) for n in range(20)]
    grouping(world).run(world.now - timedelta(days=1))
    assert sum(world.history()) == sum(range(20))


def test_rows_that_do_not_count_are_left_out(world):
    raw_days(world)
    world.transfer().run(world.now - timedelta(days=1))
    first = world.manifest.files("S")[0]
    world.manifest.forget([first])
    world.manifest.add(
        [type(first)(**{name: getattr(first, name) for name in first.__slots__} | {"stale_rows": (0, 1)})]
    )
    grouping(world, GroupBy(86_400, (), {"Sensor.measure": "count"})).run(world.now - timedelta(days=1))
    assert world.history() == [8, 10]


def test_too_many_groups_are_refused_and_nothing_changes(world):
    raw_days(world)
    world.transfer().run(world.now - timedelta(days=1))
    before = world.manifest.files("S")
    with pytest.raises(LimitError, match="longer periods"):
        grouping(world, groups_max=5).run(world.now - timedelta(days=1))
    assert world.manifest.files("S") == before


def test_a_grouped_file_can_be_read_by_anybody(world):
    raw_days(world)
    world.transfer().run(world.now - timedelta(days=1))
    grouping(world).run(world.now - timedelta(days=1))
    record = world.manifest.files("S")[0]
    table = parts.read_table(world.files, f"S/fecha={record.day}/{record.name}")
    assert table.num_rows == record.n_rows == 10
    assert record.first_at == record.last_at


@pytest.mark.timeout(60)
def test_a_second_writer_moves_while_the_first_one_writes(tmp_path, world):
    """How a command moves beside a running partition: both wait for each other, and the partition's counters stay right."""
    other = open_bdtr(f"sqlite:{tmp_path}/bdtr.db", writer=True)
    done, failed = threading.Event(), []

    def move():
        try:
            while not done.is_set():
                world.transfer(store=other, steps=TransferJournal(other), batch_documents=40).run(world.now)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=move)
    thread.start()
    try:
        ids = set()
        for number in range(100):
            world.insert(range(number * 10, number * 10 + 10), world.now - timedelta(days=2))
            with world.store.begin() as transaction:
                ids.add(str(transaction.insert_document("S", {"Sensor": {"assetId": "B", "measure": -1.0}})))
    finally:
        done.set()
        thread.join()
    assert not failed
    world.transfer(store=other, steps=TransferJournal(other)).run(world.now)
    assert world.store.seq == 1100
    assert len(ids) == 100
    moved, kept = world.history(), world.real_time()
    assert moved == [float(n) for n in range(1000)]
    assert kept == [-1.0] * 100  # those are young
    assert world.store.count("S", {}) == 100
    other.close()


def test_a_writer_that_finds_the_file_busy_says_so_and_goes_on_afterwards(tmp_path, world, monkeypatch):
    monkeypatch.setattr("storage.bdtr.dialects.BUSY_TIMEOUT_MS", 100)
    other = open_bdtr(f"sqlite:{tmp_path}/bdtr.db", writer=True)
    world.insert(range(5), world.now)
    with other.begin() as transaction:
        transaction.insert_document("S", {"Sensor": {"assetId": "B", "measure": 7.0}})
        with pytest.raises(StoreUnavailableError):
            open_bdtr(f"sqlite:{tmp_path}/bdtr.db", writer=True)
    world.insert([5], world.now)
    assert world.store.seq == 7
    assert world.store.count("S", {}) == 7
    other.close()
