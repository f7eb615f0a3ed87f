"""When processes start: at their times, once for what was missed, never when paused."""

from dataclasses import replace
from datetime import datetime, timedelta

from actors.processes.timetable import Step, steps
from storage.bdc.processes import ProcessKind, ProcessProgress, ProcessRecord

NOW = datetime(2026, 3, 1, 12, 30, 15)
HOURLY = ProcessRecord("clean", ProcessKind.CLEAN, schedule="7 * * * *")
NEXT = datetime(2026, 3, 1, 13, 7)


def step(process, now=NOW, **known):
    progress = {process.name: ProcessProgress(process.name, **known)} if known else {}
    found = steps({process.name: process}, progress, now)
    assert len(found) <= 1
    return found[0] if found else None


def waiting(next_at, process=HOURLY):
    return {"schedule": process.schedule, "next_at": next_at}


def test_a_new_process_waits_for_its_next_time():
    assert step(HOURLY) == Step(HOURLY, NEXT, is_due=False)


def test_nothing_is_to_be_done_before_its_time():
    assert step(HOURLY, **waiting(NEXT)) is None


def test_at_its_time_it_starts_and_the_next_time_is_known():
    assert step(HOURLY, now=NEXT, **waiting(NEXT)) == Step(HOURLY, NEXT + timedelta(hours=1), is_due=True)


def test_what_was_missed_for_days_is_one_run():
    now = NEXT + timedelta(days=3, minutes=20)
    missed = step(HOURLY, now=now, **waiting(NEXT))
    assert (missed.is_due, missed.is_missed) == (True, True)
    assert missed.next_at == NEXT + timedelta(days=3, hours=1)
    assert step(HOURLY, now=now, **waiting(missed.next_at)) is None


def test_a_changed_schedule_is_reckoned_anew_without_a_run():
    changed = replace(HOURLY, schedule="0 4 * * *")
    assert step(changed, **waiting(NOW - timedelta(hours=1))) == Step(changed, datetime(2026, 3, 2, 4), is_due=False)


def test_a_period_counts_from_its_start():
    every = ProcessRecord("often", ProcessKind.COMPACT, schedule="10s")
    assert step(every).next_at == NOW + timedelta(seconds=10)
    due = step(every, now=NOW + timedelta(seconds=10), **waiting(NOW + timedelta(seconds=10), every))
    assert due.is_due
    assert due.next_at == NOW + timedelta(seconds=20)


def test_a_clock_that_went_back_does_not_keep_a_process_waiting():
    found = step(HOURLY, now=NOW - timedelta(days=2), **waiting(NEXT))
    assert found == Step(HOURLY, NEXT - timedelta(days=2), is_due=False)


def test_paused_inactive_or_without_a_schedule_nothing_starts():
    past = waiting(NOW - timedelta(hours=1))
    assert step(HOURLY, **past, is_paused=True) == Step(HOURLY, None, is_due=False)
    assert not step(replace(HOURLY, active=False), **past).is_due
    assert not step(replace(HOURLY, schedule=""), **past).is_due
    assert step(HOURLY, schedule=HOURLY.schedule, is_paused=True) is None


def test_after_a_pause_the_time_is_reckoned_anew():
    assert step(HOURLY, schedule=HOURLY.schedule, next_at=None) == Step(HOURLY, NEXT, is_due=False)


def test_a_schedule_that_cannot_be_read_stops_nobody_else():
    broken = ProcessRecord("broken", ProcessKind.CLEAN, schedule="nonsense")
    found = steps({"broken": broken, "clean": HOURLY}, {}, NOW)
    assert [each for each in found if each.next_at is not None] == [Step(HOURLY, NEXT, is_due=False)]
