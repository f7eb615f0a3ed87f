"""The processes of the platform: their definitions, how far each is, and loads of files. Times are naive UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from sib.errors import NotFoundError, StoreError
from storage.bdc.configuration import Configuration
from storage.bdc.engine import Database
from storage.bdc.models import ProcessLog
from storage.bdc.process_models import FileLoad, Process, ProcessState
from storage.bdc.records import Outcome

FILE_LOADS_KEPT = 1_000
"""Ended loads that are listed; older ones are forgotten."""


class ProcessKind(StrEnum):
    """What a process does."""

    TRANSFER = "transfer"
    """Takes instances that are older than the ontology's window out of the BDTR: to the BDH, or for good."""
    CLEAN = "clean"
    """Forgets old lines of the process log and expired sessions."""
    COMPACT = "compact"
    """Makes few files of the BDH out of many."""
    LOAD = "load"
    """Loads a file into an ontology."""


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process. Without ``ontology`` a transfer or compaction is of all; without ``schedule`` nothing starts it by itself."""

    name: str
    kind: ProcessKind
    ontology: str = ""
    schedule: str = ""
    active: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


class RunState(StrEnum):
    """What became of a run."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """Its process was killed; what it did is whole, and the next run goes on."""


@dataclass(frozen=True, slots=True)
class ProcessProgress:
    """How far a process is. ``schedule``: the one that ``next_at`` was reckoned from; ``detail``: of its last run."""

    name: str
    schedule: str = ""
    next_at: datetime | None = None
    is_paused: bool = False
    run_state: RunState | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


class LoadState(StrEnum):
    """How far a load is."""

    LOADING = "loading"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class LoadRecord:
    """A load of a file. ``n_done`` rows have been decided: ``n_stored`` are stored, ``n_rejected`` are in the reject file."""

    path: str
    format: str
    ontology: str
    user: str
    digest: str
    started_at: datetime
    id: int = 0
    state: LoadState = LoadState.LOADING
    n_done: int = 0
    n_stored: int = 0
    n_rejected: int = 0
    reject_path: str = ""
    reject_bytes: int = 0
    error: str = ""
    ended_at: datetime | None = None


class ProcessRepository:
    """The definitions, as one transaction sees and changes them; a part of the configuration."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    def all(self) -> list[ProcessRecord]:
        """All, by name."""
        rows = self._configuration.connection.execute(select(Process.__table__).order_by(Process.name))
        return [_process(row) for row in rows]

    def get(self, name: str) -> ProcessRecord | None:
        statement = select(Process.__table__).where(Process.name == name)
        row = self._configuration.connection.execute(statement).first()
        return None if row is None else _process(row)

    def put(self, record: ProcessRecord) -> Outcome:
        """Create or change a process.

        Raises:
            StoreError: another process is the transfer of this ontology.
        """
        current = self.get(record.name)
        if record.kind is ProcessKind.TRANSFER and record.ontology:
            is_it = (Process.kind == record.kind.value, Process.ontology == record.ontology)
            statement = select(Process.name).where(*is_it, Process.name != record.name)
            other = self._configuration.connection.execute(statement).scalar()
            if other is not None:
                raise StoreError(f"The transfer of {record.ontology!r} is {other!r} already: an ontology has one.")
        if current == record:
            return Outcome.UNCHANGED
        values = {
            "kind": record.kind.value,
            "ontology": record.ontology,
            "schedule_text": record.schedule,
            "is_active": record.active,
            "options": dict(record.options),
        }
        self._configuration.store(Process, {"name": record.name}, values, is_new=current is None)
        return Outcome.CREATED if current is None else Outcome.CHANGED

    def delete(self, name: str) -> None:
        """Forget a process; a predefined one is as it was in the beginning then.

        Raises:
            NotFoundError: there is none.
        """
        if not self._configuration.connection.execute(delete(Process).where(Process.name == name)).rowcount:
            raise NotFoundError(f"There is no process {name!r} that was defined.")
        self._configuration.is_changed = True


class ProcessStore:
    """How far processes and loads are. Every call is one transaction; safe for threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def progress(self) -> dict[str, ProcessProgress]:
        """How far each process is that has ever run, waited or been paused."""
        with self._database.read() as connection:
            return {row.name: _progress(row) for row in connection.execute(select(ProcessState.__table__))}

    def plan(self, name: str, schedule: str, next_at: datetime | None) -> None:
        """Note when a process runs next (None: never), and the schedule that says so."""
        with self._database.write() as connection:
            _put_state(connection, name, schedule_text=schedule, next_at=next_at)

    def pause(self, name: str, is_paused: bool) -> None:
        """Keep a process from starting by itself, or let it again."""
        with self._database.write() as connection:
            _put_state(connection, name, is_paused=is_paused)

    def note_run(self, name: str, state: RunState, detail: Mapping[str, Any]) -> None:
        """Note what its run is doing or what became of it."""
        with self._database.write() as connection:
            _put_state(connection, name, run_state=state.value, run_detail=dict(detail))

    def forget_lines(self, before: datetime, *, is_audit: bool) -> int:
        """Forget lines of the process log: those of audits, or all others. Returns how many."""
        of_audit = ProcessLog.kind == "AUDIT" if is_audit else ProcessLog.kind != "AUDIT"
        with self._database.write() as connection:
            return int(connection.execute(delete(ProcessLog).where(of_audit, ProcessLog.logged_at < before)).rowcount)

    # ------------------------------------------------------------------ loads

    def add_load(self, record: LoadRecord) -> LoadRecord:
        """Note a new load; gives it with its number. Old ones that have ended are forgotten."""
        values = _load_values(record)
        with self._database.write() as connection:
            # The number is ours, not the database's: every database returns a generated one in another way.
            number = 1 + int(connection.execute(select(func.max(FileLoad.id))).scalar() or 0)
            connection.execute(insert(FileLoad).values(id=number, **values))
            old = delete(FileLoad).where(FileLoad.id <= number - FILE_LOADS_KEPT)
            connection.execute(old.where(FileLoad.state != LoadState.LOADING.value))
        return replace(record, id=number)

    def save_load(self, record: LoadRecord) -> None:
        """Note how far a load is."""
        with self._database.write() as connection:
            connection.execute(update(FileLoad).where(FileLoad.id == record.id).values(**_load_values(record)))

    def loads(self, limit: int = FILE_LOADS_KEPT, *, state: LoadState | None = None) -> list[LoadRecord]:
        """Loads, newest first."""
        statement = select(FileLoad.__table__).order_by(FileLoad.id.desc()).limit(limit)
        if state is not None:
            statement = statement.where(FileLoad.state == state.value)
        with self._database.read() as connection:
            return [_load(row) for row in connection.execute(statement)]

    def load(self, number: int) -> LoadRecord:
        """One load.

        Raises:
            NotFoundError: there is none of this number.
        """
        with self._database.read() as connection:
            row = connection.execute(select(FileLoad.__table__).where(FileLoad.id == number)).first()
        if row is None:
            raise NotFoundError(f"There is no load {number}.")
        return _load(row)

    def load_of(self, digest: str, ontology: str) -> LoadRecord | None:
        """The newest load of this content into an ontology."""
        statement = (
            select(FileLoad.__table__)
            .where(FileLoad.digest == digest, FileLoad.ontology == ontology)
            .order_by(FileLoad.id.desc())
            .limit(1)
        )
        with self._database.read() as connection:
            row = connection.execute(statement).first()
        return None if row is None else _load(row)


def _put_state(connection: Connection, name: str, **values: Any) -> None:
    is_it = ProcessState.name == name
    if connection.execute(select(ProcessState.name).where(is_it)).first() is not None:
        connection.execute(update(ProcessState).where(is_it).values(**values))
        return
    fresh: dict[str, Any] = {
        "schedule_text": "",
        "next_at": None,
        "is_paused": False,
        "run_state": "",
        "run_detail": {},
    }
    connection.execute(insert(ProcessState).values(name=name, **{**fresh, **values}))


def _process(row: Row[Any]) -> ProcessRecord:
    return ProcessRecord(
        name=row.name,
        kind=ProcessKind(row.kind),
        ontology=row.ontology,
        schedule=row.schedule_text,
        active=row.is_active,
        options=row.options,
    )


def _progress(row: Row[Any]) -> ProcessProgress:
    return ProcessProgress(
        name=row.name,
        schedule=row.schedule_text,
        next_at=row.next_at,
        is_paused=row.is_paused,
        run_state=RunState(row.run_state) if row.run_state else None,
        detail=row.run_detail or {},
    )


def _load_values(record: LoadRecord) -> dict[str, Any]:
    return {
        "path": record.path,
        "file_format": record.format,
        "ontology": record.ontology,
        "user_name": record.user,
        "digest": record.digest,
        "state": record.state.value,
        "n_done": record.n_done,
        "n_stored": record.n_stored,
        "n_rejected": record.n_rejected,
        "reject_path": record.reject_path,
        "reject_bytes": record.reject_bytes,
        "error_text": record.error,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
    }


def _load(row: Row[Any]) -> LoadRecord:
    return LoadRecord(
        path=row.path,
        format=row.file_format,
        ontology=row.ontology,
        user=row.user_name,
        digest=row.digest,
        started_at=row.started_at,
        id=row.id,
        state=LoadState(row.state),
        n_done=row.n_done,
        n_stored=row.n_stored,
        n_rejected=row.n_rejected,
        reject_path=row.reject_path,
        reject_bytes=row.reject_bytes,
        error=row.error_text,
        ended_at=row.ended_at,
    )
