"""OntologyPartition: the one writer of its ontologies.

A batch of a gateway is validated, stamped, committed in one transaction and only then answered; what it changed goes to the
subscribers. Invariants: nobody hears of a change before its commit; a batch that comes again (same gateway, epoch and number)
is not stored twice; an instance that cannot be stored fails alone.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from actors import logs
from actors.batch import Work, change_of, nothing, remembered_as, restored
from actors.catalog import LiveCatalog
from actors.config import PlatformConfig
from actors.feed import CATCH_UP_CHANGES_MAX, Announcement, Changed, Feed, Subscriber, subscriber_of
from actors.garbage import settle_memory
from actors.kp.places import PREFIX as KP_PREFIX
from actors.runtime import Ref
from actors.writes import NO_CONSUMER, Outcome, WriteBatch
from sib.errors import (
    AuthorizationError,
    OntologyNotFoundError,
    SibError,
    StoreUnavailableError,
)
from sib.ontology import Ontology
from sib.query.budget import Budget
from storage.bdc.bdc import open_bdc
from storage.bdc.records import IndexDeclaration
from storage.bdtr.model import CHANGES_KEPT_MAX, IndexSpec, context_head
from storage.open import open_bdtr

log = logging.getLogger("sofia2.partition")

WRITE_TIME_LIMIT_S = 10.0
"""One update or delete may look for its instances this long; the partition serves nobody else meanwhile."""
CONTEXTS_MAX = 200_000
"""Sessions whose contextData is remembered; beyond it all are asked for again."""
CHECKPOINT_TICKS = 60


class OntologyPartition:
    """One partition; a sync actor, so that the calls of a gateway run in their order."""

    def __init__(self, name: str, config: PlatformConfig) -> None:
        logs.configure(config.data, name)
        self._name, self._config = name, config
        self._bdc = open_bdc(config.bdc_url)
        self._store = open_bdtr(config.partition_url(name), writer=True)
        self._catalog = LiveCatalog(self._bdc)
        self._ticks = 0
        self._prepared: dict[str, tuple[Any, ...]] = {}
        self._time_limit_s = min(config.limits.query_time_limit_s, WRITE_TIME_LIMIT_S)
        self._contexts: dict[str, tuple[bytes, dict[str, Any]]] = {}
        self._feed = Feed(self._positions(), self._store.seq)
        self._counts = {"batches": 0, "commits": 0, "writes": 0, "rejects": 0, "repeats": 0, "busy_s": 0.0}
        self._write_failure: str | None = None
        self._prepare_all()
        self._load_subscriptions()
        settle_memory()

    def _positions(self) -> dict[str, int]:
        """How far each consumer has heard; those that this configuration no longer has are forgotten.

        Else a module that was switched off would keep instances from moving to the history.
        """
        positions = self._store.positions()
        known = self._config.topology.consumers
        gone = [name for name in positions if name not in known and not name.startswith(KP_PREFIX)]
        if gone:
            self._store.forget_consumers(gone)
        return {name: seq for name, seq in positions.items() if name not in gone}

    def _load_subscriptions(self) -> None:
        gateways = {session.session_key: session.gateway for session in self._bdc.sessions.load()}
        for record in self._bdc.subscriptions.load():
            gateway = gateways.get(record.session_key)
            if gateway is not None and self._config.topology.partition_of(record.ontology) == self._name:
                try:
                    home = self._config.topology.home_of(record.gateway, gateway)
                    self._feed.subscribe(subscriber_of(record, home))
                except SibError as error:  # of an older version's making: it must not keep the partition from starting
                    log.error("the subscription %s cannot be matched: %s", record.subscription_id, error.message)

    # ------------------------------------------------------------------ writes

    def write(
        self,
        gateway: str,
        epoch: str,
        number: int,
        acked: int,
        contexts: Mapping[str, Mapping[str, Any]] | None,
        batch: WriteBatch,
    ) -> Outcome | None:
        """Commit a batch and say what became of each write.

        Args:
            gateway: Name of the caller, and its epoch: a new one with every process.
            epoch: See ``gateway``.
            number: Of this batch; a retry carries the same one and is harmless (the last 8 are remembered).
            acked: The caller has delivered every announcement up to this change; ``NO_CONSUMER``: it wants none.
            contexts: contextData of the sessions that this partition may not know yet.
            batch: At most a few hundred writes.

        Returns:
            None if a session's context is unknown (this process is new): send them all again. Nothing was stored.

        Raises:
            StoreUnavailableError: The store cannot decide now. Nothing is known to be stored; retry with the same number.
        """
        began = time.perf_counter()
        if len(self._contexts) > CONTEXTS_MAX:
            self._contexts.clear()
        self._learn(contexts)
        if any(key not in self._contexts for key in batch.session_keys):
            return None
        if acked != NO_CONSUMER:
            self._feed.consumer(gateway, epoch).acknowledge(acked)
        writer = f"{gateway}/{epoch}"
        work = Work(self, batch)
        try:
            remembered = self._commit(work, writer, number)
        except BaseException as error:
            self._prepared.clear()
            if isinstance(error, StoreUnavailableError):
                self._write_failure = error.message
            raise
        self._write_failure = None
        if remembered is not None:
            self._counts["repeats"] += 1
            return restored(self._store.machine, remembered)
        announcement = self._announce(gateway, work.changes)
        self._count(work, began)
        return Outcome(self._store.machine, work.runs(), work.failures, work.results, announcement)

    def _commit(self, work: Work, writer: str, number: int) -> bytes | None:
        with self._store.begin() as transaction:
            remembered = transaction.recall(writer, number)
            if remembered is not None:
                return remembered
            work.run(transaction)
            transaction.remember(writer, number, remembered_as(work))
            for name, position in self._feed.positions().items():
                transaction.set_position(name, position)
        return None

    def _learn(self, contexts: Mapping[str, Mapping[str, Any]] | None) -> None:
        for key, fields in (contexts or {}).items():
            self._contexts[key] = context_head(dict(fields)), dict(fields)

    def _announce(self, caller: str, changes: list[Changed] | None) -> Announcement | None:
        if changes is None:
            self._feed.skip_live()
            changes = []
        announcements = self._feed.publish(self._store.seq, changes)
        own = announcements.pop(caller, None)
        for gateway, announcement in announcements.items():
            method = "events" if self._feed.is_watcher(gateway) else "indicate"
            Ref(gateway).tell(method, self._name, announcement)
        return own

    def _count(self, work: Work, began: float) -> None:
        counts = self._counts
        counts["batches"] += 1
        counts["commits"] += 1
        counts["writes"] += len(work.batch.kinds)
        counts["rejects"] += len(work.failures)
        counts["busy_s"] += time.perf_counter() - began

    def ontology(self, name: str) -> Ontology:
        """The compiled ontology, its tables and indexes ready."""
        try:
            ontology = self._catalog.ontology(name)
        except (OntologyNotFoundError, AuthorizationError):
            self._catalog.refresh()
            ontology = self._catalog.ontology(name)
        record = self._catalog.ontologies[name]
        if self._prepared.get(name) != record.indexes:
            self._prepare(name, record.indexes)
        return ontology

    def _prepare(self, name: str, indexes: tuple[IndexDeclaration, ...]) -> None:
        """Make the tables and indexes. An index that what is stored does not allow is left out, and writes go on without it."""
        try:
            self._store.ensure_collection(name, [_index_spec(index) for index in indexes])
        except StoreUnavailableError:
            raise
        except SibError as error:
            log.error("the indexes of %s cannot all be made: %s", name, error.message)
        self._prepared[name] = indexes

    def context(self, session_key: str) -> tuple[bytes, dict[str, Any]]:
        return self._contexts[session_key]

    @property
    def machine(self) -> bytes:
        return self._store.machine

    def budget(self) -> Budget:
        return Budget.lasting(self._time_limit_s, time.monotonic)

    # ------------------------------------------------------------------ subscriptions and consumers

    def subscribe(self, subscribers: Sequence[Subscriber]) -> None:
        """Register subscriptions; from the next commit on they are notified. The same id again replaces it."""
        for subscriber in subscribers:
            self._feed.subscribe(subscriber, is_new=True)

    def unsubscribe(self, ids: Sequence[str]) -> None:
        self._feed.unsubscribe(ids)

    def move_sessions(self, gateways: Mapping[str, str]) -> None:
        """These sessions (by key) speak through these gateways now."""
        for session_key, gateway in gateways.items():
            self._feed.move(session_key, gateway)

    def heartbeat(
        self,
        gateway: str,
        epoch: str,
        acked: int,
        received: int | None = None,
        ontologies: Sequence[str] | None = None,
    ) -> Announcement | None:
        """A sign of life of a gateway, with what it has delivered; answers a page of the change log if it is behind.

        The page begins after ``received``, what this process of the gateway has got and delivers or has delivered; by default
        after what is delivered. Call again at once while an announcement comes back. ``ontologies``: ``watch`` in the same
        breath, so that no page of a partition that has just started again passes a watcher by.
        """
        if ontologies:
            self._feed.watch(gateway, frozenset(ontologies))
        consumer = self._feed.consumer(gateway, epoch)
        consumer.acknowledge(acked)
        if consumer.is_live:
            return None
        changes = list(self._store.changes(max(consumer.acked, received or 0), CATCH_UP_CHANGES_MAX))
        pages = [
            (change.seq, change_of(change.seq, change.collection, change.document, change.cause))
            for change in changes
            if change.document
        ]
        is_last = len(changes) < CATCH_UP_CHANGES_MAX
        if changes and not is_last and (not pages or pages[-1][0] < changes[-1].seq):
            pages.append((changes[-1].seq, Changed(changes[-1].seq, changes[-1].collection, (), nothing)))
        return self._feed.catch_up(gateway, pages, is_last=is_last)

    def watch(self, name: str, ontologies: Sequence[str]) -> None:
        """Whatever changes in these ontologies goes to this actor's ``events``: how other modules (CEP, rules) are fed.

        It is a consumer like a gateway: it sends heartbeats with what it has done, and is at least once told everything. To be
        said again with each heartbeat of a new process on either side; an empty list ends it.
        """
        if ontologies:
            self._feed.watch(name, frozenset(ontologies))
        else:
            self._feed.unwatch(name)
            self._store.forget_consumers([name])

    # ------------------------------------------------------------------ upkeep

    def reload(self) -> int:
        """Take over the newest configuration; returns its version."""
        self._catalog.refresh()
        self._prepare_all()
        return self._catalog.version

    def _prepare_all(self) -> None:
        """Tables and indexes of this partition's ontologies, outside of any batch: building an index takes time."""
        for name, record in self._catalog.ontologies.items():
            if record.active and self._config.topology.partition_of(name) == self._name:
                try:
                    self.ontology(name)
                except SibError as error:
                    log.warning("the ontology %s cannot be prepared: %s", name, error.message)

    def tick(self) -> None:
        """Upkeep, about once a second: expired instances, old changes, positions."""
        self._ticks += 1
        self._store.expire(time.time())
        if self._ticks % CHECKPOINT_TICKS == 0:
            self._store.checkpoint()
        positions = self._feed.positions()
        self._store.save_positions(positions)
        if positions:
            self._store.trim_changes(min(positions.values()), CHANGES_KEPT_MAX)

    def stats(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "version": self._catalog.version,
            "seq": self._store.seq,
            "subscriptions": self._feed.subscriptions,
            "write_failure": self._write_failure,
            **self._counts,
        }


def _index_spec(index: IndexDeclaration) -> IndexSpec:
    kind: Any = "2dsphere" if index.type == "2dsphere" else 1
    fields = tuple((path, kind) for path in index.fields)
    return IndexSpec(fields, unique=index.unique, sparse=index.sparse, expire_after_s=index.expire_after_s)
