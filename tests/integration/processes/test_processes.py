"""Processes of a running platform, and of a stopped one: transfers, loads, schedules, and one run at a time."""

import csv
import json
import sqlite3
import time
from contextlib import closing

import pytest

import sofia2.bdh
from actors.processes.runs import lock, locks_folder
from benchmarks.platform_under_test import ONTOLOGY
from sofia2.control import ask
from sofia2.daemon import RunFolder
from storage.bdh.lock import transfer_lock

pytestmark = pytest.mark.timeout(300)
WAIT_S = 60


def table_of(path, count, *, wrong=()):
    """A CSV file of instances; the measures of some rows are no numbers."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["timestamp", "assetId", "measure", "geometry"])
        point = json.dumps({"type": "Point", "coordinates": [1, 2]})
        for number in range(count):
            measure = "warm" if number in wrong else number
            rows.writerow(["2026-01-01T00:00:00Z", f"A{number % 3}", measure, point])
    return str(path)


def load(platform, path, ontology, *options):
    return platform.command("process", "load", path, f"--ontology={ontology}", *options)


def count(platform, ontology):
    return platform.command("query", f"select count(*) from {ontology}")


def history(platform, ontology):
    return sofia2.bdh.table(ontology, data=str(platform.data)).to_pylist()


def until(is_so):
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_file_is_loaded_and_what_is_wrong_is_rejected_with_its_reason(platform, tmp_path):
    path = table_of(tmp_path / "a.csv", 300, wrong=(7, 250))
    done = load(platform, path, "Endless")
    assert (done["state"], done["rows"], done["stored"], done["rejected"]) == ("done", 300, 298, 2)
    with open(done["reject_file"]) as file:
        rejected = [json.loads(line) for line in file]
    assert [line["row"] for line in rejected] == [8, 251]
    assert "warm" in rejected[0]["error"]
    assert count(platform, "Endless") == 298
    assert platform.exit_of("process", "load", path, "--ontology=Endless")[0] == 1

    again = load(platform, path, "Endless", "--again")
    assert again["load"] != done["load"]
    assert count(platform, "Endless") == 2 * 298
    assert [each["load"] for each in platform.command("process", "loads")][:2] == [again["load"], done["load"]]


def test_a_load_has_the_rights_of_its_user(platform, tmp_path):
    path = table_of(tmp_path / "b.csv", 3)
    before = count(platform, "Endless")
    assert load(platform, path, "Endless", "--user=ana")["stored"] == 3
    other = table_of(tmp_path / "c.csv", 4)
    for user in ("eva", "nobody"):
        status, message = platform.exit_of("process", "load", other, "--ontology=Endless", f"--user={user}")
        assert status == 5, message
    assert count(platform, "Endless") == before + 3
    assert platform.exit_of("process", "load", other, "--ontology=Missing")[0] == 1
    assert platform.exit_of("process", "load", f"{other}.nothing.csv", "--ontology=Endless")[0] == 2
    unknown = tmp_path / "d.csv"
    unknown.write_text("colour\nred\n")
    status, message = platform.exit_of("process", "load", str(unknown), "--ontology=Endless")
    assert status == 1
    assert "colour" in message


def test_old_instances_move_to_the_history_while_the_platform_runs(platform, tmp_path):
    load(platform, table_of(tmp_path / "m.csv", 500), "Moved")
    time.sleep(1.1)
    counts = platform.transfer("Moved")
    assert (counts["moved"], counts["files"]) == (500, 1)
    assert count(platform, "Moved") == 0
    assert sorted(row["Sensor"]["measure"] for row in history(platform, "Moved")) == [float(n) for n in range(500)]
    assert platform.transfer("Moved")["moved"] == 0

    load(platform, table_of(tmp_path / "n.csv", 10), "Moved")
    time.sleep(1.1)
    assert platform.transfer("Moved")["moved"] == 10  # the partition writes on after another one has written


def test_old_instances_are_deleted_without_moving(platform, tmp_path):
    load(platform, table_of(tmp_path / "e.csv", 50), "Deleted")
    time.sleep(1.1)
    assert platform.transfer("Deleted")["deleted"] == 50
    assert count(platform, "Deleted") == 0
    assert history(platform, "Deleted") == []


def test_instances_are_prepared_and_grouped_on_their_way(platform, tmp_path):
    load(platform, table_of(tmp_path / "g.csv", 90), "Grouped")
    time.sleep(2.1)
    platform.until_heard()
    counts = platform.command("process", "run", "group")["counts"]
    assert (counts["moved"], counts["grouped"], counts["unprepared"]) == (90, 90, 0)
    rows = history(platform, "Grouped")
    assert len(rows) == counts["groups"]
    weights = [json.loads(row["_raw"])["contextData"]["grouped"]["n"] for row in rows]
    assert sum(weights) == 90
    total = sum(row["Sensor"]["measure"] * weight for row, weight in zip(rows, weights, strict=True))
    assert total == pytest.approx(2 * sum(range(90)))


def test_a_second_run_beside_another_is_refused_with_exit_3(platform):
    locks = locks_folder(str(platform.data))
    with transfer_lock(locks, "Moved"):
        status, message = platform.exit_of("process", "run", "transfer", "--ontology=Moved")
        assert (status, "under way" in message) == (3, True)
    with lock(locks, "clean"):
        assert platform.exit_of("process", "run", "clean")[0] == 3
    assert platform.exit_of("process", "run", "clean")[0] == 0


def test_what_cannot_be_run_says_why(platform):
    assert platform.exit_of("process", "run", "dance")[0] == 1
    assert platform.exit_of("process", "run", "transfer", "--ontology=Missing")[0] == 1
    assert platform.exit_of("process", "run", "group", "--ontology=Moved")[0] == 2
    status, message = platform.exit_of("process", "run", "transfer", f"--ontology={ONTOLOGY}")
    assert (status, "window" in message) == (2, True)
    (run,) = platform.command("process", "log", "transfer", "--limit=1")
    assert (run["state"], run["ontology"]) == ("failed", ONTOLOGY)
    assert "window" in run["error"]


def test_a_process_starts_by_itself_until_it_is_paused(platform, tmp_path):
    file = tmp_path / "often.yaml"
    file.write_text("sofia2: 1\nprocesses:\n  - {name: often, type: clean, schedule: 1s, keep_log: 9999d}\n")
    platform.command("apply", str(file))

    def runs():
        return [run for run in platform.command("process", "log", "often") if run["trigger"] == "schedule"]

    until(lambda: len(runs()) >= 2)
    assert {run["state"] for run in runs()} == {"done"}
    assert runs()[0]["counts"]["lines"] == 0
    platform.command("process", "pause", "often")
    time.sleep(1.5)
    before = len(runs())
    time.sleep(2)
    assert len(runs()) == before
    (shown,) = [each for each in platform.command("process", "list") if each["name"] == "often"]
    assert (shown["paused"], shown["state"]) == (True, "done")
    platform.command("process", "resume", "often")
    until(lambda: len(runs()) > before)
    platform.command("process", "pause", "often")


def test_the_runner_is_an_actor_with_metrics(platform):
    (runner,) = [actor for actor in platform.status()["actors"] if actor["kind"] == "ProcessRunner"]
    assert runner["state"] == "running"
    samples = {name: value for name, _, value in ask(RunFolder(platform.data), "metrics")["samples"]}
    assert samples["sofia2_process_runs_total"] >= 1
    assert samples["sofia2_process_busy_seconds_total"] > 0


def test_a_load_that_was_interrupted_goes_on_and_stores_each_row_once(platform, tmp_path):
    path = table_of(tmp_path / "k.csv", 5000, wrong=(4321,))
    before = count(platform, "Endless")
    begun = load(platform, path, "Endless", "--no-wait")

    def state():
        return next(each for each in platform.command("process", "loads") if each["load"] == begun["load"])

    until(lambda: state()["rows"] >= 1000)
    platform.kill("ProcessRunner")
    until(lambda: state()["state"] == "done")
    assert (state()["rows"], state()["stored"], state()["rejected"]) == (5000, 4999, 1)
    assert count(platform, "Endless") == before + 4999
    with open(state()["reject_file"]) as file:
        assert [json.loads(line)["row"] for line in file] == [4322]


def test_last_a_stopped_platform_moves_in_the_foreground_and_missed_runs_are_run_once(platform, tmp_path):
    load(platform, table_of(tmp_path / "z.csv", 100), "Moved")
    before = len(history(platform, "Moved"))
    platform.stop()
    time.sleep(1.1)
    assert platform.transfer("Moved")["moved"] == 100
    assert len(history(platform, "Moved")) == before + 100
    assert platform.exit_of("process", "load", str(tmp_path / "z.csv"), "--ontology=Moved")[0] == 1

    with closing(sqlite3.connect(platform.data / "bdc.db")) as database, database:
        database.execute("UPDATE process_states SET next_at = '2026-01-01 02:00:00.000000' WHERE name = 'compact'")
    platform.start("--modules=sib,process")

    def missed():
        return [run for run in platform.command("process", "log", "compact") if run["trigger"] == "missed"]

    until(missed)
    time.sleep(1.5)
    (run,) = missed()
    assert run["state"] == "done"
    assert run["counts"]["files_before"] >= 0
