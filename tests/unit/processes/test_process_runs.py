"""Runs: one at a time, each in the process log, and one that was killed is noticed."""

from datetime import datetime, timedelta

import pytest

from actors.processes.runs import BY_HAND, SCHEDULED, ProcessRunningError, Runs, lock
from sib.errors import StoreError
from storage.bdc.bdc import open_bdc
from storage.bdc.processes import ProcessKind, RunState


@pytest.fixture
def bdc(tmp_path):
    bdc = open_bdc(f"sqlite:///{tmp_path}/bdc.db")
    bdc.upgrade()
    yield bdc
    bdc.close()


@pytest.fixture
def runs(bdc, tmp_path):
    times = iter(datetime(2026, 3, 1) + timedelta(seconds=second) for second in range(1000))
    return Runs(bdc, tmp_path / "locks", now=lambda: next(times))


def lines(bdc):
    return [line.details for line in bdc.read_log(100, kind="PROCESS")]


def test_a_run_is_noted_with_what_it_did(runs, bdc):
    with runs.run("clean", ProcessKind.CLEAN, SCHEDULED, user="ana") as run:
        assert bdc.processes.progress()["clean"].run_state is RunState.RUNNING
        run.counts["lines"] = 5
    progress = bdc.processes.progress()["clean"]
    assert progress.run_state is RunState.DONE
    (line,) = lines(bdc)
    assert line == progress.detail
    assert (line["process"], line["type"], line["trigger"], line["user"]) == ("clean", "clean", "schedule", "ana")
    assert (line["state"], line["counts"], line["error"]) == ("done", {"lines": 5}, None)
    assert line["started_at"] < line["ended_at"]
    assert line["duration_s"] >= 0
    assert bdc.read_log(1)[0].summary == "clean done: lines 5"


@pytest.mark.parametrize(
    ("error", "text"), [(StoreError("no room"), "no room"), (ZeroDivisionError("by 0"), "ZeroDivisionError: by 0")]
)
def test_a_run_that_failed_says_why_and_what_was_done_before(runs, bdc, error, text):
    def fail():
        with runs.run("transfer", ProcessKind.TRANSFER, BY_HAND, ontology="S") as run:
            run.counts["moved"] = 3
            raise error

    with pytest.raises(type(error)):
        fail()
    (line,) = lines(bdc)
    assert (line["state"], line["error"], line["counts"], line["ontology"]) == ("failed", text, {"moved": 3}, "S")
    assert bdc.processes.progress()["transfer:S"].run_state is RunState.FAILED


def test_two_runs_of_one_process_never_overlap(runs, bdc):
    with runs.run("clean", ProcessKind.CLEAN, BY_HAND):
        with pytest.raises(ProcessRunningError, match="clean"), runs.run("clean", ProcessKind.CLEAN, BY_HAND):
            pass
        with runs.run("compact", ProcessKind.COMPACT, BY_HAND):
            assert runs.interrupted() == []
    with runs.run("clean", ProcessKind.CLEAN, BY_HAND):
        pass
    assert [line["state"] for line in lines(bdc)] == ["done"] * 3


def test_a_run_that_was_killed_is_found_and_noted_by_the_next_one(runs, bdc):
    bdc.processes.note_run("clean", RunState.RUNNING, {"process": "clean", "user": "", "run": "before"})
    assert runs.interrupted() == ["clean"]
    with runs.run("clean", ProcessKind.CLEAN, BY_HAND):
        pass
    done, killed = lines(bdc)
    assert (killed["run"], killed["state"], killed["error"]) == ("before", "interrupted", "it was killed")
    assert done["state"] == "done"
    assert runs.interrupted() == []


def test_a_load_is_only_in_the_log(runs, bdc):
    with runs.run("load:1", ProcessKind.LOAD, BY_HAND, ontology="S", has_state=False):
        pass
    assert bdc.processes.progress() == {}
    assert [line["process"] for line in lines(bdc)] == ["load:1"]


def test_a_lock_of_any_name(tmp_path):
    with lock(tmp_path, "ñ/../a:b" * 40), pytest.raises(ProcessRunningError), lock(tmp_path, "ñ/../a:b" * 40):
        pass
    with lock(tmp_path, "ñ/../a:b" * 40):
        pass
