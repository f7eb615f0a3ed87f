"""One batch of writes at work inside a partition's transaction.

Invariant: an instance that cannot be stored fails alone; the batch as a whole fails only when the store cannot decide.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Union

import bson
import orjson

import sib.errors
from actors.feed import Changed
from actors.writes import DELETE, INSERT, INSERT_ALL, INSERT_ONCE, UPDATE, Outcome, WriteBatch
from sib.errors import DuplicateKeyError, InvalidInstanceError, SibError, StoreUnavailableError
from sib.ontology import Ontology
from sib.query.budget import Budget
from storage.bdc.bdc import utc_now
from storage.bdtr.identity import object_id
from storage.bdtr.model import UNKNOWN_CAUSE, Cause, DuplicatesInBatchError, WriteResult

if TYPE_CHECKING:
    from storage.bdtr.mongo_transaction import MongoTransaction
    from storage.bdtr.transaction import Transaction as RelationalTransaction

Transaction: TypeAlias = Union["RelationalTransaction", "MongoTransaction"]

log = logging.getLogger("sofia2.partition")


class Home(Protocol):
    """What a batch asks its partition for."""

    @property
    def machine(self) -> bytes: ...
    def ontology(self, name: str) -> Ontology: ...
    def context(self, session_key: str) -> tuple[bytes, dict[str, Any]]: ...
    def budget(self) -> Budget: ...


class _Run:
    """Consecutive INSERTs of one ontology inside a batch."""

    __slots__ = ("bodies", "docs", "first", "heads", "positions")

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.bodies: list[bytes] = []
        self.docs: list[dict[str, Any]] = []
        self.heads: list[bytes] = []
        self.first = 0


class Work:
    """One batch at work: INSERTs are collected into runs, everything else runs at its place in the order."""

    def __init__(self, partition: Home, batch: WriteBatch) -> None:
        self.partition = partition
        self.batch = batch
        self.failures: dict[int, SibError] = {}
        self.results: dict[int, list[Any]] = {}
        self.changes: list[Changed] | None = []
        self._done: list[_Run] = []
        self._open: dict[str, _Run] = {}
        self._once: dict[str, list[int]] = {}
        self._now_ms = time.time_ns() // 1_000_000

    def run(self, transaction: Transaction) -> None:
        kinds, _, ontologies, data = self.batch
        encoders: dict[str, Callable[[bytes], tuple[bytes, dict[str, Any]]]] = {}
        for position, kind in enumerate(kinds):
            name = ontologies[position]
            if kind != INSERT or self._once:
                self._flush(transaction, but_once=kind == INSERT_ONCE)
            if kind == INSERT_ONCE:
                self._once.setdefault(name, []).append(position)
                continue
            if kind != INSERT:
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

    def _flush(self, transaction: Transaction, *, but_once: bool = False) -> None:
        """Store what has been collected; INSERTs and inserts that are stored once never wait together."""
        if self._once and not but_once:
            waiting, self._once = self._once, {}
            for name, positions in waiting.items():
                self._insert_once(transaction, name, positions)
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
                handler = {INSERT_ALL: self._insert_all, UPDATE: self._update, DELETE: self._delete}[kind]
                self.results[position] = handler(transaction, position, name)
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

    def _insert_once(self, transaction: Transaction, name: str, positions: Sequence[int]) -> None:
        """Instances whose ``_id`` says what they are: one that is there already is a repetition and nothing to do."""
        stamp = datetime(1970, 1, 1) + timedelta(milliseconds=self._now_ms)
        documents: dict[bson.ObjectId, dict[str, Any]] = {}
        position_of: dict[bson.ObjectId, int] = {}
        for position in positions:
            data = self.batch.data[position]
            id_ = bson.ObjectId(data[:12])
            try:
                instance = self.partition.ontology(name).encode(data[12:])[1]
            except StoreUnavailableError:
                raise
            except SibError as error:
                self.failures[position] = error
                continue
            except Exception as error:
                self.failures[position] = _unexpected(name, error)
                continue
            self.results[position] = [id_]
            context = self.partition.context(self.batch.session_keys[position])[1]
            if position_of.setdefault(id_, position) == position:
                documents[id_] = {"_id": id_, "contextData": {**context, "timestamp": stamp}, **instance}
        self._insert_new(transaction, name, list(documents.values()), position_of)

    def _insert_new(
        self,
        transaction: Transaction,
        name: str,
        documents: list[dict[str, Any]],
        position_of: Mapping[bson.ObjectId, int],
    ) -> None:
        while documents:
            try:
                transaction.insert_documents(name, documents)
            except DuplicatesInBatchError as error:
                refused = [documents[index]["_id"] for index in error.positions]
                there = {document["_id"] for document in transaction.find(name, {"_id": {"$in": refused}})}
                if there:  # repetitions; without them perhaps nothing is refused
                    documents = [document for document in documents if document["_id"] not in there]
                    continue
                for index in sorted(error.positions, reverse=True):
                    position = position_of[documents.pop(index)["_id"]]
                    del self.results[position]
                    self.failures[position] = DuplicateKeyError(error.positions[index])
                continue
            instances = [change_of(0, name, document).instances[0] or {} for document in documents]
            self._changed(transaction, name, instances, documents.__getitem__)
            return

    def _update(self, transaction: Transaction, position: int, name: str) -> list[Any]:
        ontology = self.partition.ontology(name)
        command = bson.decode(self.batch.data[position])
        update = command["update"]
        is_replacement = "replacement" in command
        context = self.partition.context(self.batch.session_keys[position])[1]
        transaction.cause = Cause(self._now_ms, context.get("session_key") or "")
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
            now=utc_now(),
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
                self._changed_one(seq, name, document, transaction.cause)
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

    def _changed_one(self, seq: int, name: str, document: dict[str, Any], cause: Cause) -> None:
        if self.changes is not None:
            self.changes.append(change_of(seq, name, document, cause))


def _unexpected(ontology: str, error: Exception) -> SibError:
    """Our own fault at one write: it fails alone, because a batch that raises would come again and again."""
    log.error("a write to %s failed", ontology, exc_info=error)
    return SibError("the platform failed at this write; its log says why")


def change_of(seq: int, name: str, document: dict[str, Any], cause: Cause = UNKNOWN_CAUSE) -> Changed:
    """One whole document as the feed takes it."""
    instance = {key: value for key, value in document.items() if key not in ("_id", "contextData")}
    return Changed(seq, name, (instance,), lambda _: document, cause)


def nothing(_: int) -> dict[str, Any]:
    """For a page without instances."""
    raise IndexError("this page has no instances")


def remembered_as(work: Work) -> bytes:
    """The outcome of a batch, to be kept with its commit for a caller that did not hear of it."""
    failures = {str(at): [type(error).__name__, error.message] for at, error in work.failures.items()}
    results = {str(at): ids for at, ids in work.results.items()}
    return bytes(bson.encode({"runs": work.runs(), "failures": failures, "results": results}))


def restored(machine: bytes, remembered: bytes) -> Outcome:
    """The outcome that was kept."""
    stored = bson.decode(remembered)
    failures = {int(at): _error(*parts) for at, parts in stored["failures"].items()}
    runs = [(int(first), positions) for first, positions in stored["runs"]]
    # Its indications come from the change log: this process has not announced the batch.
    return Outcome(machine, runs, failures, {int(at): ids for at, ids in stored["results"].items()}, None)


def _error(name: str, message: str) -> SibError:
    kind = getattr(sib.errors, name, InvalidInstanceError)
    error: SibError = kind(message)
    return error
