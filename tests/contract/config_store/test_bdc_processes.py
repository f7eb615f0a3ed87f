"""Processes: definitions are configuration, how far each is and the loads of files are not."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from sib.errors import NotFoundError
from storage.bdc.processes import LoadRecord, LoadState, ProcessKind, ProcessRecord, RunState
from storage.bdc.records import LogRecord, Outcome

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456)
NIGHTLY = ProcessRecord("nightly", ProcessKind.TRANSFER, "Measure", "0 2 * * *", options={"action": "delete"})
LOAD = LoadRecord("/data/a.csv", "csv", "Measure", "sofia", "d" * 64, NOW)


def put(bdc, record):
    with bdc.change() as configuration:
        return configuration.processes.put(record)


def all_of(bdc):
    with bdc.read() as configuration:
        return configuration.processes.all()


def test_a_process_is_kept_as_it_was_put(bdc):
    assert put(bdc, NIGHTLY) is Outcome.CREATED
    version = bdc.config_version()
    assert put(bdc, NIGHTLY) is Outcome.UNCHANGED
    assert bdc.config_version() == version
    assert put(bdc, replace(NIGHTLY, active=False)) is Outcome.CHANGED
    assert all_of(bdc) == [replace(NIGHTLY, active=False)]


def test_a_process_without_ontology_and_schedule(bdc):
    plain = ProcessRecord("clean", ProcessKind.CLEAN)
    put(bdc, plain)
    assert all_of(bdc) == [plain]


def test_a_process_can_be_forgotten_once(bdc):
    put(bdc, NIGHTLY)
    with bdc.change() as configuration:
        configuration.processes.delete("nightly")
    assert all_of(bdc) == []
    with pytest.raises(NotFoundError), bdc.change() as configuration:
        configuration.processes.delete("nightly")


def test_how_far_a_process_is_does_not_count_the_configuration_up(bdc):
    version = bdc.config_version()
    bdc.processes.pause("nightly", True)
    bdc.processes.plan("nightly", "0 2 * * *", NOW)
    bdc.processes.note_run("nightly", RunState.FAILED, {"error": "no"})
    (progress,) = bdc.processes.progress().values()
    assert (progress.name, progress.is_paused, progress.next_at) == ("nightly", True, NOW)
    assert (progress.schedule, progress.run_state, progress.detail) == ("0 2 * * *", RunState.FAILED, {"error": "no"})
    bdc.processes.pause("nightly", False)
    assert not bdc.processes.progress()["nightly"].is_paused
    assert bdc.config_version() == version


def test_old_lines_are_forgotten_audits_apart(bdc):
    old, new = NOW - timedelta(days=40), NOW
    bdc.log([LogRecord(kind, at, f"{kind} {at.day}") for kind in ("AUDIT", "LOG", "PROCESS") for at in (old, new)])
    assert bdc.processes.forget_lines(NOW - timedelta(days=30), is_audit=False) == 2
    assert [line.kind for line in bdc.read_log(10)] == ["PROCESS", "LOG", "AUDIT", "AUDIT"]
    assert bdc.processes.forget_lines(NOW - timedelta(days=30), is_audit=True) == 1
    assert [line.at for line in bdc.read_log(10)] == [new] * 3


def test_a_load_and_how_far_it_is(bdc):
    first = bdc.processes.add_load(LOAD)
    second = bdc.processes.add_load(replace(LOAD, ontology="Other"))
    assert (first.id, second.id) == (1, 2)
    done = replace(
        first, state=LoadState.DONE, n_done=10, n_stored=9, n_rejected=1, reject_path="/r", reject_bytes=7, ended_at=NOW
    )
    bdc.processes.save_load(done)
    assert bdc.processes.load(1) == done
    assert bdc.processes.loads() == [second, done]
    assert bdc.processes.loads(state=LoadState.LOADING) == [second]
    assert bdc.processes.load_of("d" * 64, "Measure") == done
    assert bdc.processes.load_of("e" * 64, "Measure") is None
    with pytest.raises(NotFoundError):
        bdc.processes.load(3)


def test_old_loads_that_have_ended_are_forgotten(bdc, monkeypatch):
    monkeypatch.setattr("storage.bdc.processes.FILE_LOADS_KEPT", 2)
    for state in (LoadState.LOADING, LoadState.DONE, LoadState.FAILED, LoadState.DONE):
        bdc.processes.add_load(replace(LOAD, state=state))
    assert [load.id for load in bdc.processes.loads(10)] == [4, 3, 1]
