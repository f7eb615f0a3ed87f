"""OntologyPartition: the one writer of its ontologies.

A batch of a gateway is validated, stamped, committed in one transaction and only then answered; what it changed goes to the
subscribers. Invariants: nobody hears of a change before its commit; a batch that comes again (same gateway, epoch and number)
is not stored twice; an instance that cannot be stored fails alone.
"""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, Union

import bson
import orjson
from bson import json_util

import sib.errors
from actors import logs
from actors.catalog import LiveCatalog
from actors.config import PlatformConfig
from actors.feed import CATCH_UP_CHANGES_MAX, Announcement, Changed, Feed, Subscriber
from actors.runtime import Ref
from sib.errors import (
    AuthorizationError,
    DuplicateKeyError,
    InvalidInstanceError,
    OntologyNotFoundError,
    SibError,
    StoreUnavailableError,
)
from sib.ontology import Ontology
from sib.query.budget import Budget
from sib.ssap.messages import Dialect
from storage.bdc.bdc import open_bdc
from storage.bdc.records import IndexDeclaration, SubscriptionRecord
from storage.bdtr.identity import object_id
from storage.bdtr.model import DuplicatesInBatchError, IndexSpec, WriteResult, context_head
from storage.open import open_bdtr

if TYPE_CHECKING:
    from storage.bdtr.mongo_transaction import MongoTransaction
    from storage.bdtr.transaction import Transaction as RelationalTransaction

Transaction: TypeAlias = Union["RelationalTransaction", "MongoTransaction"]

log = logging.getLogger("sofia2.partition")

WRITE_TIME_LIMIT_S = 10.0
"""One update or delete may look for its instances this long; the partition serves nobody else meanwhile."""
CONTEXTS_MAX = 200_000
"""Sessions whose contextData is remembered; beyond it all are asked for again."""
CHECKPOINT_TICKS = 60
CHANGES_KEPT_MAX = 1_000_000
"""Changes kept for a consumer that is gone; older ones are forgotten."""
_NAIVE = json_util.JSONOptions(tz_aware=False)

INSERT, UPDATE, DELETE, INSERT_ALL, INSERT_ONCE = 0, 1, 2, 3, 4
"""Kinds of a write: INSERT carries the instance's text, INSERT_ALL a JSON array of instances, INSERT_ONCE the 12 bytes of an
``_id`` before the text, the others a BSON command."""
NO_CONSUMER = -1
"""As ``acked`` of a write: the caller is told of no changes."""


class WriteBatch(NamedTuple):
    """The writes of one call, position by position."""

    kinds: bytes
    session_keys: list[str]
    ontologies: list[str]
    data: list[bytes]


class Outcome(NamedTuple):
    """What became of a batch: small when all went well.

    ``runs``: generated ids, as (first number, positions); None for all positions that are not in ``failures``.
    ``results``: for other kinds than INSERT, the affected ids by position.
    """

    machine: bytes
    runs: list[tuple[int, list[int] | None]]
    failures: dict[int, SibError]
    results: dict[int, list[Any]]
    announcement: Announcement | None


class _Run:
    """Consecutive INSERTs of one ontology inside a batch."""

    __slots__ = ("bodies", "docs", "first", "heads", "positions")

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.bodies: list[bytes] = []
        self.docs: list[dict[str, Any]] = []
        self.heads: list[bytes] = []
        self.first = 0


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
        self._feed = Feed(self._store.positions(), self._store.seq)
        self._counts = {"batches": 0, "commits": 0, "writes": 0, "rejects": 0, "repeats": 0, "busy_s": 0.0}
        self._prepare_all()
        self._load_subscriptions()
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)

    def _load_subscriptions(self) -> None:
        gateways = {session.session_key: session.gateway for session in self._bdc.sessions.load()}
        for record in self._bdc.subscriptions.load():
            gateway = gateways.get(record.session_key)
            if gateway is not None and self._config.topology.partition_of(record.ontology) == self._name:
                try:
                    self._feed.subscribe(subscriber_of(record, gateway))
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
        work = _Work(self, batch)
        try:
            remembered = self._commit(work, writer, number)
        except BaseException:
            self._prepared.clear()
            raise
        if remembered is not None:
            self._counts["repeats"] += 1
            return _restored(self._store.machine, remembered)
        announcement = self._announce(gateway, work.changes)
        self._count(work, began)
        return Outcome(self._store.machine, work.runs(), work.failures, work.results, announcement)

    def _commit(self, work: _Work, writer: str, number: int) -> bytes | None:
        with self._store.begin() as transaction:
            remembered = transaction.recall(writer, number)
            if remembered is not None:
                return remembered
            work.run(transaction)
            transaction.remember(writer, number, _remembered(work))
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

    def _count(self, work: _Work, began: float) -> None:
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
            self._feed.subscribe(subscriber)

    def unsubscribe(self, ids: Sequence[str]) -> None:
        self._feed.unsubscribe(ids)

    def move_sessions(self, gateways: Mapping[str, str]) -> None:
        """These sessions (by key) speak through these gateways now."""
        for session_key, gateway in gateways.items():
            self._feed.move(session_key, gateway)

    def heartbeat(self, gateway: str, epoch: str, acked: int, received: int | None = None) -> Announcement | None:
        """A sign of life of a gateway, with what it has delivered; answers a page of the change log if it is behind.

        The page begins after ``received``, what this process of the gateway has got and delivers or has delivered; by default
        after what is delivered. Call again at once while an announcement comes back.
        """
        consumer = self._feed.consumer(gateway, epoch)
        consumer.acknowledge(acked)
        if consumer.is_live:
            return None
        changes = list(self._store.changes(max(consumer.acked, received or 0), CATCH_UP_CHANGES_MAX))
        pages = [
            (change.seq, _changed(change.seq, change.collection, change.document))
            for change in changes
            if change.document
        ]
        is_last = len(changes) < CATCH_UP_CHANGES_MAX
        if changes and not is_last and (not pages or pages[-1][0] < changes[-1].seq):
            pages.append((changes[-1].seq, Changed(changes[-1].seq, changes[-1].collection, (), _nothing)))
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
            **self._counts,
        }


class _Work:
    """One batch at work: INSERTs are collected into runs, everything else runs at its place in the order."""

    def __init__(self, partition: OntologyPartition, batch: WriteBatch) -> None:
        self.partition = partition
        self.batch = batch
        self.failures: dict[int, SibError] = {}
        self.results: dict[int, list[Any]] = {}
        self.changes: list[Changed] | None = []
        self._done: list[_Run] = []
        self._open: dict[str, _Run] = {}
        self._now_ms = time.time_ns() // 1_000_000

    def run(self, transaction: Transaction) -> None:
        kinds, _, ontologies, data = self.batch
        encoders: dict[str, Callable[[bytes], tuple[bytes, dict[str, Any]]]] = {}
        for position, kind in enumerate(kinds):
            name = ontologies[position]
            if kind != INSERT:
                self._flush(transaction)
                self._alone(transaction, position, kind, name)
                continue
            try:
                encode = encoders.get(name)
                if encode is None:
                    encode = encoders[name] = self.partition.ontology(name).encode
                body, doc = encode(data[position])
            except SibError as error:
                if isinstance(error, StoreUnavailableError):
                    raise
                self.failures[position] = error
                continue
            except Exception as error:
                self.failures[position] = _unexpected(name, error)
                continue
            run = self._open.get(name)
            if run is None:
                run = self._open[name] = _Run()
            run.positions.append(position)
            run.bodies.append(body)
            run.docs.append(doc)
            run.heads.append(self.partition.context(self.batch.session_keys[position])[0])
        self._flush(transaction)

    def runs(self) -> list[tuple[int, list[int] | None]]:
        inserts = self.batch.kinds.count(INSERT)
        if len(self._done) == 1 and inserts == len(self.batch.kinds):
            return [(self._done[0].first, None)]
        return [(run.first, run.positions) for run in self._done]

    def _flush(self, transaction: Transaction) -> None:
        for name, run in self._open.items():
            self._append(transaction, name, run)
            self._done.append(run)
            self._changed(transaction, name, run.docs, self._whole(run.first, run.docs, run.positions))
        self._open = {}

    def _append(self, transaction: Transaction, name: str, run: _Run) -> None:
        """Store a run; instances that break a unique index fail alone."""
        while True:
            try:
                run.first = transaction.append(name, run.bodies, run.docs, run.heads, self._now_ms)
                return
            except DuplicatesInBatchError as error:
                for index in sorted(error.positions, reverse=True):
                    self.failures[run.positions[index]] = DuplicateKeyError(error.positions[index])
                    for column in (run.positions, run.bodies, run.docs, run.heads):
                        del column[index]

    def _whole(
        self, first: int, docs: Sequence[dict[str, Any]], positions: Sequence[int]
    ) -> Callable[[int], dict[str, Any]]:
        stamp = datetime(1970, 1, 1) + timedelta(milliseconds=self._now_ms)
        machine, partition, keys = self.partition.machine, self.partition, self.batch.session_keys

        def whole(index: int) -> dict[str, Any]:
            context = partition.context(keys[positions[index]])[1]
            id_ = object_id(first + index, machine)
            return {"_id": id_, "contextData": {**context, "timestamp": stamp}, **docs[index]}

        return whole

    def _alone(self, transaction: Transaction, position: int, kind: int, name: str) -> None:
        try:
            with transaction.savepoint():
                handlers = {INSERT_ALL: self._insert_all, INSERT_ONCE: self._insert_once}
                handlers |= {UPDATE: self._update, DELETE: self._delete}
                self.results[position] = handlers[kind](transaction, position, name)
        except StoreUnavailableError:
            raise
        except SibError as error:
            self.failures[position] = error
        except Exception as error:
            self.failures[position] = _unexpected(name, error)

    def _insert_all(self, transaction: Transaction, position: int, name: str) -> list[Any]:
        ontology = self.partition.ontology(name)
        run = _Run()
        for text in orjson.loads(self.batch.data[position]):
            body, doc = ontology.encode(text if isinstance(text, str) else orjson.dumps(text))
            run.bodies.append(body)
            run.docs.append(doc)
        if not run.bodies:
            return []
        run.heads = [self.partition.context(self.batch.session_keys[position])[0]] * len(run.bodies)
        run.first = transaction.append(name, run.bodies, run.docs, run.heads, self._now_ms)
        self._changed(transaction, name, run.docs, self._whole(run.first, run.docs, [position] * len(run.docs)))
        return [object_id(run.first + index, self.partition.machine) for index in range(len(run.docs))]

    def _insert_once(self, transaction: Transaction, position: int, name: str) -> list[Any]:
        """An instance whose ``_id`` says what it is: if it is there already, this is a repetition and nothing to do."""
        data = self.batch.data[position]
        id_ = bson.ObjectId(data[:12])
        ontology = self.partition.ontology(name)
        instance = ontology.encode(data[12:])[1]
        if list(transaction.find(name, {"_id": id_}, limit=1)):
            return [id_]
        context = self.partition.context(self.batch.session_keys[position])[1]
        stamp = datetime(1970, 1, 1) + timedelta(milliseconds=self._now_ms)
        document = {"_id": id_, "contextData": {**context, "timestamp": stamp}, **instance}
        transaction.insert_document(name, document)
        self._changed(transaction, name, [instance], lambda _: document)
        return [id_]

    def _update(self, transaction: Transaction, position: int, name: str) -> list[Any]:
        ontology = self.partition.ontology(name)
        command = bson.decode(self.batch.data[position])
        update = command["update"]
        is_replacement = "replacement" in command
        if is_replacement:
            update = ontology.read(command["replacement"])
        result = transaction.update(
            name,
            command["filter"],
            update,
            multi=command["multi"],
            upsert=command["upsert"],
            array_filters=command["array_filters"],
            replacement=is_replacement,
            check=None if is_replacement else ontology.validate_document,
            now=datetime.now(UTC).replace(tzinfo=None),
            budget=self.partition.budget(),
            sort=[tuple(item) for item in command["sort"]],
            notes_unchanged=True,
        )
        if result.upserted_id is not None:
            self._stamp(transaction, position, name, result)
        if result.documents is None:
            self.changes = None
        else:
            first_seq = transaction.seq - len(result.documents) + 1
            for seq, document in enumerate(result.documents, first_seq):
                self._changed_one(seq, name, document)
        return list(result.ids)

    def _stamp(self, transaction: Transaction, position: int, name: str, result: WriteResult) -> None:
        """An instance that an upsert made gets its contextData, as every instance has it."""
        context = self.partition.context(self.batch.session_keys[position])[1]
        moment = datetime(1970, 1, 1) + timedelta(milliseconds=self._now_ms)
        stamped = transaction.update(
            name,
            {"_id": result.upserted_id},
            {"$set": {"contextData": {**context, "timestamp": moment}}},
            multi=False,
            keep=("_id",),
            now=moment,
        )
        result.documents = stamped.documents

    def _delete(self, transaction: Transaction, position: int, name: str) -> list[Any]:
        self.partition.ontology(name)
        command = bson.decode(self.batch.data[position])
        sort = [tuple(item) for item in command["sort"]]
        budget = self.partition.budget()
        return transaction.delete(name, command["filter"], command["multi"], budget=budget, sort=sort)

    def _changed(
        self,
        transaction: Transaction,
        name: str,
        docs: Sequence[dict[str, Any]],
        whole: Callable[[int], dict[str, Any]],
    ) -> None:
        if self.changes is not None:
            self.changes.append(Changed(transaction.seq - len(docs) + 1, name, docs, whole))

    def _changed_one(self, seq: int, name: str, document: dict[str, Any]) -> None:
        if self.changes is not None:
            self.changes.append(_changed(seq, name, document))


def _unexpected(ontology: str, error: Exception) -> SibError:
    """Our own fault at one write: it fails alone, because a batch that raises would come again and again."""
    log.error("a write to %s failed", ontology, exc_info=error)
    return SibError("the platform failed at this write; its log says why")


def subscriber_of(record: SubscriptionRecord, gateway: str) -> Subscriber:
    """A stored subscription as a partition needs it."""
    return Subscriber(
        record.subscription_id,
        record.session_key,
        record.ontology,
        json_util.loads(record.filter_text, json_options=_NAIVE),
        gateway,
        record.dialect == Dialect.ONE,
    )


def _index_spec(index: IndexDeclaration) -> IndexSpec:
    kind: Any = "2dsphere" if index.type == "2dsphere" else 1
    fields = tuple((path, kind) for path in index.fields)
    return IndexSpec(fields, unique=index.unique, sparse=index.sparse, expire_after_s=index.expire_after_s)


def _changed(seq: int, name: str, document: dict[str, Any]) -> Changed:
    instance = {key: value for key, value in document.items() if key not in ("_id", "contextData")}
    return Changed(seq, name, (instance,), lambda _: document)


def _nothing(_: int) -> dict[str, Any]:
    raise IndexError("this page has no instances")


def _remembered(work: _Work) -> bytes:
    failures = {str(at): [type(error).__name__, error.message] for at, error in work.failures.items()}
    results = {str(at): ids for at, ids in work.results.items()}
    return bytes(bson.encode({"runs": work.runs(), "failures": failures, "results": results}))


def _restored(machine: bytes, remembered: bytes) -> Outcome:
    stored = bson.decode(remembered)
    failures = {int(at): _error(*parts) for at, parts in stored["failures"].items()}
    runs = [(int(first), positions) for first, positions in stored["runs"]]
    # Its indications come from the change log: this process has not announced the batch.
    return Outcome(machine, runs, failures, {int(at): ids for at, ids in stored["results"].items()}, None)


def _error(name: str, message: str) -> SibError:
    kind = getattr(sib.errors, name, InvalidInstanceError)
    error: SibError = kind(message)
    return error


def encode_update(
    filter_: Mapping[str, Any],
    *,
    update: Any = None,
    replacement: str | None = None,
    multi: bool,
    upsert: bool = False,
    array_filters: Iterable[Mapping[str, Any]] = (),
    sort: Iterable[tuple[str, int]] = (),
) -> bytes:
    """The command of an UPDATE write: ``replacement`` (an instance's text) or ``update`` (operators or a pipeline)."""
    command = {"filter": filter_, "update": update, "multi": multi, "upsert": upsert}
    command["array_filters"] = list(array_filters)
    command["sort"] = [list(item) for item in sort]
    if replacement is not None:
        command["replacement"] = replacement
    return bytes(bson.encode(command))


def encode_delete(filter_: Mapping[str, Any], *, multi: bool, sort: Iterable[tuple[str, int]] = ()) -> bytes:
    """The command of a DELETE write."""
    return bytes(bson.encode({"filter": filter_, "multi": multi, "sort": [list(item) for item in sort]}))
