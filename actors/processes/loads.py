"""Loads of files into an ontology: checked as every INSERT is, with a status, a reject file, and resumed after a crash.

Every row has the ``_id`` that its file and number give it, and a row that is there already is stored once: so a load that was
interrupted goes on after the last row that is noted, and a file that comes again stores nothing twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from bson import ObjectId

from actors.inside import Inside, Principal
from actors.processes.definitions import LoadFormat, LoadOptions
from actors.processes.rows import FileRow, read_rows
from actors.processes.runs import lock
from sib.access import Rights
from sib.errors import (
    AuthorizationError,
    ConfigurationError,
    DuplicateKeyError,
    InvalidInstanceError,
    LimitError,
    MalformedMessageError,
    OntologyNotFoundError,
    SibError,
    StoreError,
)
from sib.ontology import Ontology, compile_ontology
from storage.bdc.bdc import Bdc
from storage.bdc.processes import LoadRecord, LoadState
from storage.bdc.records import OntologyRecord

log = logging.getLogger("sofia2.processes")

ROWS_AT_ONCE = 1_000
"""Rows that are on their way together; then how far the load is, is noted."""
ATTEMPTS = 8
PAUSE_S = 0.5
_MARK_BYTES, _NUMBER_BITS = 5, 24
_REJECTED = (InvalidInstanceError, DuplicateKeyError, LimitError, MalformedMessageError)
"""What is wrong with one row; anything else ends the load."""


class Loads:
    """Loads files on behalf of users, in the platform's ProcessRunner."""

    def __init__(self, bdc: Bdc, inside: Inside, folder: Path, locks: Path, *, now: Callable[[], datetime]) -> None:
        self._bdc = bdc
        self._inside = inside
        self._folder = folder
        self._locks = locks
        self._now = now

    async def begin(self, options: LoadOptions, ontology: str, *, again: bool = False) -> tuple[LoadRecord, bool]:
        """Note a load. Gives it, and whether there is something to do: a file that was loaded before has been done.

        Args:
            options: the file, and on whose behalf.
            ontology: into which.
            again: load it again, as new instances.

        Raises:
            OntologyNotFoundError: there is no such ontology.
            AuthorizationError: the user may not INSERT into it.
            ConfigurationError: the file cannot be read.
        """
        return await asyncio.to_thread(self._begin, options, ontology, again)

    def _begin(self, options: LoadOptions, ontology: str, again: bool) -> tuple[LoadRecord, bool]:
        with self._bdc.read() as configuration:
            record = configuration.ontologies.get(ontology)
        if record is None:
            raise OntologyNotFoundError(f"There is no ontology {ontology!r}: check its name (it is case-sensitive).")
        user = options.user or record.owner
        self._check_rights(record, user)
        path = Path(options.file)
        try:
            digest = digest_of(path)
        except OSError as error:
            raise ConfigurationError(f"The file {path} cannot be read: {error.strerror}.") from None
        if not again:
            before = self._bdc.processes.load_of(digest, ontology)
            if before is not None and before.state is LoadState.DONE:
                return before, False
            if before is not None:  # it was interrupted or has failed: it goes on
                resumed = replace(
                    before, path=str(path), format=options.format.value, user=user,
                    state=LoadState.LOADING, error="", ended_at=None,
                )  # fmt: skip
                if resumed != before:  # what is noted of one that is under way stays
                    self._bdc.processes.save_load(resumed)
                return resumed, True
        new = LoadRecord(str(path), options.format.value, ontology, user, digest, self._now())
        return self._bdc.processes.add_load(new), True

    def _check_rights(self, ontology: OntologyRecord, name: str) -> None:
        """Refuse at once who may not INSERT; each row is checked again when it is stored."""
        with self._bdc.read() as configuration:
            user = configuration.users.get(name)
        rights = Rights.NONE if user is None or not user.active else ontology.rights(name, user.role)
        if Rights.INSERT not in rights:
            raise AuthorizationError(f"The user {name!r} may not INSERT into {ontology.name!r}.")

    async def run(self, load: LoadRecord) -> LoadRecord:
        """Load what is left of a file; a load that has ended meanwhile is given as it is.

        Raises:
            ProcessRunningError: it is under way already, whoever began it.
            SibError: why it ended before its end: the user may not INSERT, the store does not answer, the file changed.
        """
        with lock(self._locks, f"load:{load.id}"):
            load = await asyncio.to_thread(self._bdc.processes.load, load.id)
            if load.state is LoadState.DONE:
                return load
            try:
                return await self._run(load)
            except (SibError, OSError) as error:
                text = error.message if isinstance(error, SibError) else f"The file cannot be read: {error.strerror}."
                current = await asyncio.to_thread(self._bdc.processes.load, load.id)
                failed = replace(current, state=LoadState.FAILED, error=text, ended_at=self._now())
                await asyncio.to_thread(self._bdc.processes.save_load, failed)
                raise error if isinstance(error, SibError) else StoreError(text) from None

    async def _run(self, load: LoadRecord) -> LoadRecord:
        ontology = await asyncio.to_thread(self._ontology, load)
        who = Principal(load.user, session_key=f"load:{load.id}")
        rows = read_rows(Path(load.path), LoadFormat(load.format), ontology)
        while True:
            batch = await asyncio.to_thread(_next_rows, rows, load.n_done)
            if not batch:
                break
            errors = await asyncio.gather(*(self._store(who, load, row) for row in batch))
            rejected = [(row, error) for row, error in zip(batch, errors, strict=True) if error]
            load = await asyncio.to_thread(self._note, load, batch, rejected)
        done = replace(load, state=LoadState.DONE, ended_at=self._now())
        await asyncio.to_thread(self._bdc.processes.save_load, done)
        return done

    def _ontology(self, load: LoadRecord) -> Ontology:
        if digest_of(Path(load.path)) != load.digest:
            raise StoreError(f"The file {load.path} has changed since its load began: load it again.")
        with self._bdc.read() as configuration:
            record = configuration.ontologies.get(load.ontology)
        if record is None:
            raise OntologyNotFoundError(f"There is no ontology {load.ontology!r} any more.")
        return compile_ontology(record.name, record.schema_text, version=record.version)

    async def _store(self, who: Principal, load: LoadRecord, row: FileRow) -> str:
        """Store one row; what is wrong with it, if anything."""
        if row.error:
            return row.error
        for attempt in range(ATTEMPTS):
            try:
                await self._inside.insert(who, load.ontology, row.instance, once=id_of(load, row.number))
                return ""
            except _REJECTED as error:
                return error.message
            except SibError as error:
                if not error.is_retryable or attempt + 1 == ATTEMPTS:
                    raise
                await asyncio.sleep(PAUSE_S * 2**attempt)
        raise AssertionError("unreachable")

    def _note(self, load: LoadRecord, batch: list[FileRow], rejected: list[tuple[FileRow, str]]) -> LoadRecord:
        """Write the rejects first, then how far it is: what was written after the last note is cut off at the next start."""
        path = Path(load.reject_path) if load.reject_path else self._folder / f"load-{load.id}.rejects.jsonl"
        size_bytes = load.reject_bytes
        if rejected:
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
                file.truncate(load.reject_bytes)
                file.seek(load.reject_bytes)
                for row, error in rejected:
                    line = {"row": row.number, "error": error, "instance": row.instance}
                    file.write(json.dumps(line, ensure_ascii=False, default=str).encode() + b"\n")
                size_bytes = file.tell()
                file.flush()
                os.fsync(file.fileno())
        noted = replace(
            load,
            n_done=batch[-1].number,
            n_stored=load.n_stored + len(batch) - len(rejected),
            n_rejected=load.n_rejected + len(rejected),
            reject_path=str(path) if size_bytes else "",
            reject_bytes=size_bytes,
        )
        self._bdc.processes.save_load(noted)
        return noted


def digest_of(path: Path) -> str:
    """What tells the content of one file from another's."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()


def id_of(load: LoadRecord, number: int) -> ObjectId:
    """The ``_id`` of a row of a load: always the same, and in the order of the rows."""
    text = f"{load.id} {load.digest} {load.ontology}"
    mark = hashlib.blake2b(text.encode(), digest_size=_MARK_BYTES).digest()
    seconds = int(load.started_at.replace(tzinfo=UTC).timestamp()) + (number >> _NUMBER_BITS)
    return ObjectId(seconds.to_bytes(4, "big") + mark + (number & (1 << _NUMBER_BITS) - 1).to_bytes(3, "big"))


def as_json(load: LoadRecord) -> dict[str, Any]:
    """A load as commands tell of it."""
    return {
        "load": load.id,
        "file": load.path,
        "format": load.format,
        "ontology": load.ontology,
        "user": load.user,
        "state": load.state.value,
        "rows": load.n_done,
        "stored": load.n_stored,
        "rejected": load.n_rejected,
        "reject_file": load.reject_path or None,
        "error": load.error or None,
        "started_at": load.started_at.isoformat(),
        "ended_at": load.ended_at and load.ended_at.isoformat(),
    }


def _next_rows(rows: Iterator[FileRow], n_done: int) -> list[FileRow]:
    return list(islice((row for row in rows if row.number > n_done), ROWS_AT_ONCE))
