"""Loads: whoever may not is refused at once, a store that cannot decide is asked again, and what was interrupted goes on."""

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from actors.processes import loads as module
from actors.processes.definitions import LoadFormat, LoadOptions
from actors.processes.loads import Loads, id_of
from actors.processes.runs import ProcessRunningError
from sib.access import Permission, Role
from sib.errors import (
    AuthorizationError,
    ConfigurationError,
    InvalidInstanceError,
    OntologyNotFoundError,
    StoreError,
    StoreUnavailableError,
)
from storage.bdc.bdc import open_bdc
from storage.bdc.processes import LoadRecord, LoadState
from storage.bdc.records import OntologyRecord, UserRecord

NOW = datetime(2026, 3, 1)
SCHEMA = '{"type": "object", "properties": {"n": {"type": "number"}}}'


class Inside:
    """Stores by id; ``fail`` may raise what the platform would."""

    def __init__(self):
        self.stored, self.asked = {}, 0
        self.fail = lambda instance: None

    async def insert(self, who, ontology, instance, *, once):
        self.asked += 1
        self.fail(json.loads(instance))
        self.stored[once] = (who.user, ontology, instance)
        return once


@pytest.fixture
def inside():
    return Inside()


@pytest.fixture
def bdc(tmp_path):
    bdc = open_bdc(f"sqlite:///{tmp_path}/bdc.db")
    bdc.upgrade()
    with bdc.change() as configuration:
        for name, role in (("sofia", Role.COLABORADOR), ("ana", Role.USUARIO), ("eva", Role.USUARIO)):
            configuration.users.put(UserRecord(name, role))
        configuration.users.put(UserRecord("gone", Role.ADMINISTRADOR, active=False))
        permissions = {"ana": Permission.INSERT, "eva": Permission.QUERY}
        configuration.ontologies.put(OntologyRecord("S", "sofia", SCHEMA, permissions=permissions))
    yield bdc
    bdc.close()


@pytest.fixture
def loads(bdc, inside, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 10)
    monkeypatch.setattr(module, "PAUSE_S", 0)
    return Loads(bdc, inside, tmp_path / "loads", tmp_path / "locks", now=lambda: NOW)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"n": {number}}}\n' for number in range(35)))
    return path


async def begin(loads, file, user="", **options):
    return await loads.begin(LoadOptions(str(file), LoadFormat.JSON, user), "S", **options)


async def test_each_row_is_stored_for_the_owner_and_the_same_file_again_does_nothing(loads, inside, file):
    load, is_new = await begin(loads, file)
    assert is_new
    done = await loads.run(load)
    assert (done.state, done.n_done, done.n_stored, done.n_rejected) == (LoadState.DONE, 35, 35, 0)
    assert {user for user, _, _ in inside.stored.values()} == {"sofia"}
    assert await begin(loads, file) == (done, False)
    other, is_new = await begin(loads, file, again=True)
    assert is_new
    await loads.run(other)
    assert len(inside.stored) == 70


async def test_who_may_not_insert_is_refused_before_anything_is_noted(loads, bdc, file):
    for user in ("eva", "gone", "nobody"):
        with pytest.raises(AuthorizationError, match=user):
            await begin(loads, file, user)
    with pytest.raises(OntologyNotFoundError):
        await loads.begin(LoadOptions(str(file), LoadFormat.JSON), "T")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await begin(loads, Path("/nothing/here"))
    assert bdc.processes.loads() == []
    assert (await begin(loads, file, "ana"))[1]


async def test_a_store_that_cannot_decide_is_asked_again(loads, inside, file):
    failures = [1] * 5

    def fail(_):
        if failures:
            failures.pop()
            raise StoreUnavailableError("busy")

    inside.fail = fail
    load, _ = await begin(loads, file)
    assert (await loads.run(load)).n_stored == 35
    assert inside.asked == 40


async def test_what_ends_a_load_is_noted_and_it_goes_on_from_there(loads, bdc, inside, file):
    def fail(instance):
        if instance["n"] == 25:
            raise AuthorizationError("not any more")
        if instance["n"] % 10 == 3:
            raise InvalidInstanceError("a three")

    inside.fail = fail
    load, _ = await begin(loads, file)
    with pytest.raises(AuthorizationError):
        await loads.run(load)
    failed = bdc.processes.load(load.id)
    assert (failed.state, failed.error, failed.n_done, failed.n_rejected) == (LoadState.FAILED, "not any more", 20, 2)

    inside.fail = lambda instance: None
    with open(failed.reject_path, "a") as rejects:
        rejects.write("what a crash left behind")
    resumed, is_new = await begin(loads, file)
    assert is_new
    done = await loads.run(resumed)
    assert (done.id, done.state, done.n_done, done.n_stored) == (load.id, LoadState.DONE, 35, 33)
    assert len(inside.stored) == 33


async def test_rejects_of_rows_that_were_not_noted_are_written_again_once(loads, bdc, inside, file):
    def fail(instance):
        if instance["n"] >= 30:
            raise InvalidInstanceError("too much")

    inside.fail = fail
    load, _ = await begin(loads, file)
    done = await loads.run(load)
    with open(done.reject_path, "a") as rejects:
        rejects.write("what a crash left behind")
    bdc.processes.save_load(replace(done, n_done=30, state=LoadState.LOADING))
    again = await loads.run(load)
    lines = Path(again.reject_path).read_text().splitlines()
    assert [json.loads(line)["row"] for line in lines] == [31, 32, 33, 34, 35] * 2


async def test_a_load_runs_once_at_a_time_whoever_begins_it(loads, bdc, inside, file):
    load, _ = await begin(loads, file)
    refusals = []
    insert = inside.insert

    async def slow(*arguments, **options):
        if not refusals:
            refusals.append(None)
            again, _ = await begin(loads, file)
            with pytest.raises(ProcessRunningError) as refused:
                await loads.run(again)
            refusals[0] = refused.value
        return await insert(*arguments, **options)

    inside.insert = slow
    done = await loads.run(load)
    assert refusals[0].message == f"The process 'load:{load.id}' runs already: wait for it."
    assert (done.state, done.n_stored, inside.asked) == (LoadState.DONE, 35, 35)
    assert bdc.processes.load(load.id) == done
    assert await loads.run(load) == done
    assert inside.asked == 35


async def test_a_file_that_has_changed_meanwhile_is_not_loaded(loads, inside, file):
    load, _ = await begin(loads, file)
    file.write_text('{"n": 1}\n')
    with pytest.raises(StoreError, match="changed"):
        await loads.run(load)
    assert inside.stored == {}


def test_ids_are_in_the_order_of_the_rows_and_of_one_load():
    load = LoadRecord("a", "csv", "S", "u", "d", NOW, id=1)
    ids = [id_of(load, number) for number in (1, 2, 255, 256, 70_000, (1 << 24) + 5)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    other = LoadRecord("a", "csv", "S", "u", "d", NOW, id=2)
    assert id_of(other, 1) != id_of(load, 1)
