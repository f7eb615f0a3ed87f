"""When processes start: pure, from definitions, how far each is, and the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sib.cron import parse_schedule
from sib.errors import ConfigurationError
from storage.bdc.processes import ProcessProgress, ProcessRecord

MISSED_S = 60.0
"""A start that is later than this was missed: the platform did not run, or the run before took so long."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done with a process now: note its next time, and start it if ``is_due``."""

    process: ProcessRecord
    next_at: datetime | None
    is_due: bool
    is_missed: bool = False


def steps(processes: Mapping[str, ProcessRecord], progress: Mapping[str, ProcessProgress], now: datetime) -> list[Step]:
    """What is to be done now.

    A process whose schedule is new begins at its next time. Times that went by while nobody looked are one run, at once.
    """
    found = []
    for process in processes.values():
        known = progress.get(process.name, ProcessProgress(process.name))
        step = _step(process, known, now)
        if step is not None:
            found.append(step)
    return found


def _step(process: ProcessRecord, known: ProcessProgress, now: datetime) -> Step | None:
    if known.is_paused or not process.active or not process.schedule:
        return Step(process, None, is_due=False) if known.next_at is not None else None
    if known.next_at is not None and known.schedule == process.schedule:
        if known.next_at <= now:
            is_missed = now - known.next_at > timedelta(seconds=MISSED_S)
            return Step(process, _next(process, now), is_due=True, is_missed=is_missed)
        following = _next(process, now)
        if following is None or known.next_at <= following:
            return None
        return Step(process, following, is_due=False)  # the clock went back: what seemed near is far
    following = _next(process, now)
    if following == known.next_at and known.schedule == process.schedule:
        return None
    return Step(process, following, is_due=False)


def _next(process: ProcessRecord, now: datetime) -> datetime | None:
    try:
        return parse_schedule(process.schedule).next_after(now)
    except ConfigurationError:  # of another version's making: it must not keep the others from starting
        return None
