"""Updates and deletes: find by the planner, decide by the exact matcher and updater, rewrite what really changed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import bson
from sqlalchemy import bindparam, delete, func, select, update

from sib.errors import DuplicateKeyError, LimitError, QueryError
from sib.query.budget import Budget, Context
from sib.query.updater import compile_update, upsert_seed
from sib.query.values import equal
from storage.bdtr import schema
from storage.bdtr.assembly import encode_document
from storage.bdtr.catalogue import TIME_OFF, CollectionInfo
from storage.bdtr.hot import delete_entries
from storage.bdtr.keys import key_of
from storage.bdtr.maintenance import IndexWriter
from storage.bdtr.model import DOCUMENTS_KEPT_MAX, WriteResult
from storage.bdtr.search import Searcher
from storage.bdtr.state import WriterState
from storage.bdtr.unique import batch_conflicts

if TYPE_CHECKING:
    from storage.bdtr.transaction import Transaction

WRITES_MAX = 1_000_000
"""Instances that one update or delete may change; more is refused, not done by half."""

CHUNK_DOCUMENTS = 500

KIND_UPDATE, KIND_DELETE = 1, 2
"""In ``t_change.kind``."""

_OTHER_TIME = object()

Updater = Callable[[dict[str, Any], datetime, bool], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class UpdateCommand:
    """The arguments of ``Transaction.update``."""

    filter: Mapping[str, Any]
    update: Any
    multi: bool
    upsert: bool
    array_filters: tuple[Mapping[str, Any], ...]
    replacement: bool
    keep: tuple[str, ...]
    check: Callable[[dict[str, Any]], None] | None
    now: datetime
    sort: tuple[tuple[str, int], ...]
    notes_unchanged: bool = False

    def updater(self, budget: Budget | None) -> Updater:
        """What makes the new document of an old one."""
        if self.replacement:
            return self._replaced
        return compile_update(
            self.update,
            filter=self.filter,
            array_filters=self.array_filters,
            context=Context(budget=budget, now=self.now),
        )

    def _replaced(self, old: dict[str, Any], now: datetime, is_insert: bool) -> dict[str, Any]:
        new = {"_id": old["_id"]} if "_id" in old else {}
        new.update(self.update)
        return new

    def changed(self, apply: Updater, old: dict[str, Any]) -> dict[str, Any]:
        """The new document: the kept fields as they were, in front and in their order."""
        made = apply(old, self.now, False)
        kept = {name: old[name] for name in self.keep if name in old}
        new = {**kept, **{name: value for name, value in made.items() if name not in self.keep}} if self.keep else made
        if "_id" in old and not equal(new.get("_id"), old["_id"]):
            raise QueryError("The update would change _id, which never changes: leave it out.")
        if self.check is not None:
            self.check(new)
        return new


class Rewriting:
    """One update on its way."""

    def __init__(
        self,
        transaction: Transaction,
        state: WriterState,
        indexes: IndexWriter,
        info: CollectionInfo,
        budget: Budget | None,
    ) -> None:
        self._transaction = transaction
        self._state = state
        self._indexes = indexes
        self._info = info
        self._budget = budget
        self._result = WriteResult()

    def run(self, command: UpdateCommand) -> WriteResult:
        apply = command.updater(self._budget)
        seqs = matching_seqs(
            self._state, self._info, command.filter, command.multi, command.sort, command.now, self._budget
        )
        if not seqs and command.upsert:
            self._upsert(command, apply)
        # With a unique index each document must see what the ones before it have become.
        has_unique = any(index.spec.unique for index in self._info.indexes.values())
        for chunk in _documents(self._state, self._info, seqs, 1 if has_unique else CHUNK_DOCUMENTS):
            unchanged = self._rewrite([(seq, blob, old, command.changed(apply, old)) for seq, blob, old in chunk])
            if command.notes_unchanged and unchanged:
                self._note(unchanged)
            if self._budget is not None:
                self._budget.spend(len(chunk))
        return self._result

    def _rewrite(
        self, chunk: list[tuple[int, bytes, dict[str, Any], dict[str, Any]]]
    ) -> list[tuple[bytes, dict[str, Any]]]:
        """Writes what really changed; returns what did not."""
        encoded = [(seq, blob, old, encode_document(new)) for seq, blob, old, new in chunk]
        self._result.matched += len(encoded)
        self._result.ids += [old["_id"] for _, _, old, _ in encoded]
        changed = [(seq, old, bson.decode(new), new) for seq, blob, old, new in encoded if new != blob]
        unchanged = [(blob, old) for _, blob, old, new in encoded if new == blob]
        if not changed:
            return unchanged
        self._refuse_duplicates([(seq, new) for seq, _, new, _ in changed])
        self._state.connection.execute(
            update(self._info.documents)
            .where(self._info.documents.c.seq == bindparam("seq_"))
            .values(doc=bindparam("doc_")),
            [{"seq_": seq, "doc_": blob} for seq, _, _, blob in changed],
        )
        self._indexes.replace(self._info, [(seq, old, new) for seq, old, new, _ in changed])
        if any(_time(old) != _time(new) for _, old, new, _ in changed):
            self._state.raise_collection_flags(self._info, TIME_OFF)
        self._transaction.log_changes(self._info, KIND_UPDATE, [(new["_id"], blob) for _, _, new, blob in changed])
        self._result.modified += len(changed)
        self._report([old for _, old, _, _ in changed], [new for _, _, new, _ in changed])
        return unchanged

    def _note(self, unchanged: list[tuple[bytes, dict[str, Any]]]) -> None:
        """An update that changes nothing is an event nevertheless."""
        documents = [old for _, old in unchanged]
        self._transaction.log_changes(self._info, KIND_UPDATE, [(old["_id"], blob) for blob, old in unchanged])
        self._report(documents, documents)

    def _refuse_duplicates(self, changed: list[tuple[int, dict[str, Any]]]) -> None:
        own = frozenset(seq for seq, _ in changed)
        for index in self._info.indexes.values():
            if index.spec.unique:
                documents = [new for _, new in changed]
                conflicts = batch_conflicts(self._state.connection, self._info, index, documents, own)
                if conflicts:
                    raise DuplicateKeyError(conflicts[min(conflicts)])

    def _report(self, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
        result = self._result
        if result.documents is None or result.before is None or len(result.documents) + len(after) > DOCUMENTS_KEPT_MAX:
            result.documents = result.before = None
            return
        result.documents += after
        result.before += before

    def _upsert(self, command: UpdateCommand, apply: Updater) -> None:
        seed = upsert_seed(command.filter, is_replacement=command.replacement)
        new = apply(seed, command.now, True)
        if command.check is not None:
            command.check(new)
        id_ = self._transaction.insert_document(self._info.name, new)
        self._result.upserted_id = id_
        self._result.ids.append(id_)
        if self._result.documents is not None:
            self._result.documents.append({"_id": id_, **{name: value for name, value in new.items() if name != "_id"}})


class Deletion:
    """Takes documents out, with their index entries and, at last, their rows in ``t_block``."""

    def __init__(
        self, transaction: Transaction, state: WriterState, indexes: IndexWriter, info: CollectionInfo
    ) -> None:
        self._transaction = transaction
        self._state = state
        self._indexes = indexes
        self._info = info

    def run(
        self, filter_: Mapping[str, Any], *, multi: bool, budget: Budget | None, sort: tuple[tuple[str, int], ...]
    ) -> list[Any]:
        return self.delete(matching_seqs(self._state, self._info, filter_, multi, sort, None, budget))

    def delete(self, seqs: Sequence[int]) -> list[Any]:
        """Deletes the documents with these numbers, as far as they are there. Returns their ids."""
        ids: list[Any] = []
        connection, documents = self._state.connection, self._info.documents
        blocks: set[int] = set()
        for chunk in _documents(self._state, self._info, seqs, CHUNK_DOCUMENTS):
            connection.execute(delete(documents).where(documents.c.seq.in_([seq for seq, _, _ in chunk])))
            self._indexes.replace(self._info, [(seq, old, None) for seq, _, old in chunk])
            if self._info.has_foreign_ids:
                delete_entries(connection, self._info.ids, [(key_of(old["_id"])[0], seq) for seq, _, old in chunk])
            of_chunk = [old["_id"] for _, _, old in chunk]
            self._transaction.log_changes(self._info, KIND_DELETE, [(id_, None) for id_ in of_chunk])
            self._transaction.count_deleted(self._info, len(chunk))
            ids += of_chunk
            blocks |= self._blocks_of([seq for seq, _, _ in chunk])
        self._drop_empty_blocks(blocks)
        return ids

    def _blocks_of(self, seqs: Sequence[int]) -> set[int]:
        """The rows of ``t_block`` that the documents belong to."""
        block = schema.block.c
        found: set[int] = set()
        end = -1
        for seq in sorted(seqs):
            if seq < end:
                continue
            row = self._state.connection.execute(
                select(block.seq, block.n_docs).where(block.seq <= seq).order_by(block.seq.desc()).limit(1)
            ).one_or_none()
            if row is not None:
                found.add(row.seq)
                end = row.seq + row.n_docs
        return found

    def _drop_empty_blocks(self, seqs: set[int]) -> None:
        connection, docs, block = self._state.connection, self._info.documents.c, schema.block.c
        for seq in seqs:
            n_docs = connection.execute(select(block.n_docs).where(block.seq == seq)).scalar_one()
            left = connection.execute(
                select(func.count()).select_from(
                    select(docs.seq).where(docs.seq >= seq, docs.seq < seq + n_docs).limit(1).subquery()
                )
            ).scalar_one()
            if not left:
                connection.execute(delete(schema.block).where(block.seq == seq))


def matching_seqs(
    state: WriterState,
    info: CollectionInfo,
    filter_: Mapping[str, Any],
    multi: bool,
    sort: tuple[tuple[str, int], ...],
    now: datetime | None,
    budget: Budget | None,
) -> list[int]:
    """The numbers of the documents that a write is about.

    Raises:
        LimitError: more than WRITES_MAX.
    """
    searcher = Searcher(
        lambda: nullcontext(state.connection), state.dialect, info, state.machine, budget=budget, now=now
    )
    matches = searcher.matches(filter_, sort=sort, limit=None if multi else 1)
    seqs = [seq for seq, _ in itertools.islice(matches, WRITES_MAX + 1 if multi else 1)]
    if len(seqs) > WRITES_MAX:
        raise LimitError(f"The write would change more than {WRITES_MAX} instances at once: narrow its condition.")
    return seqs


def _documents(
    state: WriterState, info: CollectionInfo, seqs: Sequence[int], n_documents: int
) -> Iterator[list[tuple[int, bytes, dict[str, Any]]]]:
    """The documents with these numbers in chunks: (seq, encoded, decoded)."""
    docs = info.documents.c
    for start in range(0, len(seqs), n_documents):
        chunk = seqs[start : start + n_documents]
        found = dict(state.connection.execute(select(docs.seq, docs.doc).where(docs.seq.in_(chunk))).tuples().all())
        present = [(seq, bytes(found[seq])) for seq in chunk if seq in found]
        if present:
            yield [(seq, blob, bson.decode(blob)) for seq, blob in present]


def _time(document: dict[str, Any]) -> Any:
    context = document.get("contextData")
    return context.get("timestamp") if isinstance(context, dict) else (context and _OTHER_TIME)
