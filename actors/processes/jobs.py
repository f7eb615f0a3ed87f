"""What processes do, beside the platform's actors or without a platform: plain calls that may take long.

A transfer writes to the BDTR as a second writer: the stores let writers wait for each other, and the partition reads back what
another one has changed before its next transaction. So the same code runs in the platform's ProcessRunner and in a command,
whether the platform runs, stops or starts meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

from actors.config import PlatformConfig
from actors.processes.definitions import (
    Action,
    all_processes,
    clean_options,
    transfer_of,
    transfer_options,
)
from actors.processes.preparing import Preparation
from actors.processes.runs import locks_folder
from sib.errors import ConfigurationError, OntologyNotFoundError, SibError, StoreError, StoreUnavailableError
from sib.ontology import Ontology, compile_ontology
from storage.bdc.bdc import Bdc
from storage.bdc.processes import ProcessKind, ProcessRecord
from storage.bdc.records import OntologyRecord
from storage.bdh.compaction import Compaction
from storage.bdh.files import HistoryFiles, open_files
from storage.bdh.grouping import Grouping
from storage.bdh.lock import TransferRunningError, transfer_lock
from storage.bdh.removal import Removal
from storage.bdh.transfer import Transfer, TransferSteps, TransferStore
from storage.bdh.unknown import UnknownFiles
from storage.open import Store, open_bdtr, transfer_journal

log = logging.getLogger("sofia2.processes")

BATCH_DOCUMENTS = 20_000
"""Instances of one batch of a transfer: the partition's writes wait while one is taken out."""
ATTEMPTS = 5
"""A database or file system that does not answer is asked so often, each time after a longer while."""
PAUSE_S = 1.0
FAILURES_TOLD = 5
"""The log has all of them."""
SESSION_GRACE_S = 3600.0
"""A session is ended by its session shard; what is left this long after its end is of a shard that was not there."""

Progress = Callable[[str], None]


def _ignore(_: str) -> None:
    """Nobody looks on."""


@dataclass(slots=True)
class _Place:
    """Where one ontology's instances and history are."""

    ontology: Ontology
    store: TransferStore | None
    steps: TransferSteps | None
    files: HistoryFiles


class Jobs:
    """Carries out processes. Not for several threads: make one for each run."""

    def __init__(
        self,
        config: PlatformConfig,
        bdc: Bdc,
        *,
        now: Callable[[], datetime],
        should_stop: Callable[[], bool] = lambda: False,
        progress: Progress = _ignore,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._config = config
        self._bdc = bdc
        self._now = now
        self._should_stop = should_stop
        self._progress = progress
        self._sleep = sleep
        self._locks = locks_folder(config.data)

    def run(self, process: ProcessRecord, counts: dict[str, Any], *, ontology: str = "") -> None:
        """Carry a process out; ``counts`` is filled as it goes.

        Args:
            process: any but a load.
            counts: what was done so far, by what it is.
            ontology: only this one of a transfer or compaction.

        Raises:
            TransferRunningError: a transfer of the one ontology is under way.
            SibError: what could not be done; what was done is whole, and another run goes on from there.
        """
        only = ontology or process.ontology
        if process.kind is ProcessKind.TRANSFER:
            self._each(self._to_transfer(process, only), self._transfer, counts, is_one=bool(only))
        elif process.kind is ProcessKind.COMPACT:
            names = [only] if only else self._bdc.history.ontologies()
            self._each(names, self._compact, counts, is_one=bool(only))
        elif process.kind is ProcessKind.CLEAN:
            self._clean(process, counts)
        else:
            raise ConfigurationError("A load is run by the platform: use 'sofia2 process load'.")

    def _each(
        self, names: list[str], act: Callable[[str, dict[str, Any]], None], counts: dict[str, Any], *, is_one: bool
    ) -> None:
        """Act on each ontology; one that fails does not keep the others from their turn."""
        failed: list[str] = []
        for name in names:
            if self._should_stop():
                break
            try:
                act(name, counts)
            except Exception as error:
                if is_one:
                    raise
                if isinstance(error, TransferRunningError):  # a command moves it just now
                    _add(counts, "ontologies_busy", 1)
                    continue
                _add(counts, "ontologies_failed", 1)
                is_known = isinstance(error, SibError)
                failed.append(f"{name}: {error.message if isinstance(error, SibError) else repr(error)}")
                log.warning("%s", failed[-1], exc_info=None if is_known else error)
        if failed:
            raise StoreError(f"{len(failed)} of {len(names)} ontologies failed. {' '.join(failed[:FAILURES_TOLD])}")

    # ------------------------------------------------------------------ transfer

    def _to_transfer(self, process: ProcessRecord, only: str) -> list[str]:
        if only:
            return [only]
        with self._bdc.read() as configuration:
            processes = all_processes(configuration.processes.all())
            records = configuration.ontologies.all()
        own = {each.ontology for each in processes.values() if each.kind is ProcessKind.TRANSFER and each.schedule}
        return [record.name for record in records if record.window_s is not None and record.name not in own]

    def _transfer(self, name: str, counts: dict[str, Any]) -> None:
        record = self._ontology(name)
        with self._bdc.read() as configuration:
            options = transfer_options(transfer_of(all_processes(configuration.processes.all()), name))
        if record.window_s is None:
            raise ConfigurationError(f"The ontology {name!r} has no real-time window: give it one with window: 30d.")
        before = self._now() - timedelta(seconds=record.window_s)
        with transfer_lock(self._locks, name), self._place(record) as place:
            if place.store is not None:
                self._patiently(lambda: self._take_out(place, options.action, options.prepare, before, counts))
            if options.group is not None:
                grouping = Grouping(place.ontology, options.group, place.files, self._bdc.history)
                grouped = self._patiently(lambda: grouping.run(before, should_stop=self._should_stop))
                _add(counts, "grouped", grouped.n_instances)
                _add(counts, "groups", grouped.n_groups)

    def _take_out(self, place: _Place, action: Action, prepare: Any, before: datetime, counts: dict[str, Any]) -> None:
        assert place.store is not None
        assert place.steps is not None
        name = place.ontology.name
        preparation = Preparation(prepare, self._now()) if prepare else None
        transfer = self._of_place(place, preparation)
        begun = dict(counts)

        def tell(key: str, done: int) -> None:
            counts[key] = begun.get(key, 0) + done
            self._progress(f"{name}: {counts[key]} {key}")

        if action is Action.DELETE:
            resumed = transfer.resume()
            _add(counts, "moved", resumed.n_moved)
            removal = Removal(name, place.store, place.steps, now=self._now)
            removed = removal.run(
                before, should_stop=self._should_stop, progress=lambda result: tell("deleted", result.n_removed)
            )
            tell("deleted", removed.n_removed)
            return
        moved = transfer.run(
            before, should_stop=self._should_stop, progress=lambda result: tell("moved", result.n_moved)
        )
        tell("moved", moved.n_moved)
        _add(counts, "files", moved.n_files)
        _add(counts, "size_bytes", moved.size_bytes)
        _add(counts, "resumed", moved.n_resumed)
        _add(counts, "changed_meanwhile", moved.n_stale)
        if preparation is not None:
            _add(counts, "unprepared", preparation.n_unprepared)

    def _of_place(self, place: _Place, preparation: Preparation | None = None) -> Transfer:
        assert place.store is not None
        assert place.steps is not None
        return Transfer(
            place.ontology,
            place.store,
            place.steps,
            place.files,
            self._bdc.history,
            now=self._now,
            prepare=preparation,
            batch_documents=BATCH_DOCUMENTS,
        )

    def _ontology(self, name: str) -> OntologyRecord:
        with self._bdc.read() as configuration:
            record = configuration.ontologies.get(name)
        if record is None:
            raise OntologyNotFoundError(f"There is no ontology {name!r}: check its name (it is case-sensitive).")
        return record

    @contextmanager
    def _place(self, record: OntologyRecord) -> Iterator[_Place]:
        ontology = compile_ontology(record.name, record.schema_text, version=record.version)
        url = self._config.partition_url(self._config.topology.partition_of(record.name))
        is_there = not url.startswith("sqlite:") or Path(url.removeprefix("sqlite:")).exists()
        store: Store | None = self._patiently(lambda: open_bdtr(url, writer=True)) if is_there else None
        files = open_files(self._config.history_url)
        try:
            steps = None if store is None else transfer_journal(store)
            yield _Place(ontology, cast("TransferStore | None", store), steps, files)
        finally:
            files.close()
            if store is not None:
                store.close()

    def _patiently(self, act: Callable[[], Any]) -> Any:
        """Do it again after a while if a database or file system does not answer: every step may be repeated."""
        for attempt in range(ATTEMPTS):
            try:
                return act()
            except StoreUnavailableError as error:
                if attempt + 1 == ATTEMPTS or self._should_stop() or isinstance(error, TransferRunningError):
                    raise
                self._progress(f"{error.message} (again in {PAUSE_S * 2**attempt:g} s)")
                self._sleep(PAUSE_S * 2**attempt)
        raise AssertionError("unreachable")

    # ------------------------------------------------------------------ compaction and cleaning

    def _compact(self, name: str, counts: dict[str, Any]) -> None:
        with self._bdc.read() as configuration:
            record = configuration.ontologies.get(name)
            options = transfer_options(transfer_of(all_processes(configuration.processes.all()), name))
        if record is None:  # history outlives the ontology; its files stay as they are
            return
        with transfer_lock(self._locks, name), self._place(record) as place:
            if place.store is not None:
                self._patiently(self._of_place(place).resume)
            compaction = Compaction(name, place.files, self._bdc.history, now=self._now)
            if options.group is not None:  # what is grouped has few files already
                _add(counts, "files_deleted", self._patiently(compaction.delete_retired))
            else:
                self._progress(name)
                result = self._patiently(lambda: compaction.run(should_stop=self._should_stop))
                _add(counts, "days", result.n_days)
                _add(counts, "files_before", result.n_old)
                _add(counts, "files_after", result.n_new)
                _add(counts, "files_deleted", result.n_deleted)
                for failure in result.failures:
                    log.warning("%s", failure)
                if result.failures:
                    _add(counts, "days_failed", len(result.failures))
                    raise StoreError(" ".join(result.failures[:FAILURES_TOLD]))
            swept = self._patiently(self._unknown(place).sweep)
            _add(counts, "orphans_deleted", swept.n_deleted)
            if swept.n_unknown:
                _add(counts, "files_unknown", swept.n_unknown)
                log.warning(
                    "%d files of the history of %s are kept, but queries do not see them: the manifest does not know them. "
                    "Was the BDC restored from an older backup? Then run 'sofia2 process adopt'.",
                    swept.n_unknown,
                    name,
                )

    def adopt(self, ontology: str, counts: dict[str, Any], *, forget_missing: bool = False) -> None:
        """Enter the files of the history that the manifest does not know into it, of one ontology or (``""``) of all.

        Args:
            ontology: its name.
            counts: is filled with what was done.
            forget_missing: the manifest no longer names files that are not there.

        Raises:
            TransferRunningError: a transfer of the one ontology is under way.
            SibError: what could not be done; it may be run again.
        """
        with self._bdc.read() as configuration:
            names = [record.name for record in configuration.ontologies.all()]

        def act(name: str, counts: dict[str, Any]) -> None:
            with transfer_lock(self._locks, name), self._place(self._ontology(name)) as place:
                if place.store is not None:
                    self._patiently(self._of_place(place).resume)
                result = self._patiently(lambda: self._unknown(place).adopt(forget_missing=forget_missing))
                _add(counts, "files", result.n_files)
                _add(counts, "instances", result.n_adopted)
                _add(counts, "doubles", result.n_double)
                _add(counts, "forgotten", result.n_forgotten)
                for key, paths in (("missing", result.missing), ("damaged", result.damaged)):
                    _add(counts, key, len(paths))
                    for path in paths:
                        log.warning("The file %s of the history is %s.", path, key)

        self._each([ontology] if ontology else names, act, counts, is_one=bool(ontology))

    def _unknown(self, place: _Place) -> UnknownFiles:
        return UnknownFiles(place.ontology.name, place.files, self._bdc.history, place.store, now=self._now)

    def _clean(self, process: ProcessRecord, counts: dict[str, Any]) -> None:
        options, now, store = clean_options(process), self._now(), self._bdc.processes
        before, audits_before = (
            now - timedelta(seconds=seconds) for seconds in (options.lines_kept_s, options.audits_kept_s)
        )
        counts["lines"] = self._patiently(lambda: store.forget_lines(before, is_audit=False))
        counts["audits"] = self._patiently(lambda: store.forget_lines(audits_before, is_audit=True))
        expired = now - timedelta(seconds=SESSION_GRACE_S)
        counts["sessions"] = len(self._patiently(lambda: self._bdc.sessions.delete_expired(expired)))


def _add(counts: dict[str, Any], key: str, done: int) -> None:
    counts[key] = counts.get(key, 0) + done
