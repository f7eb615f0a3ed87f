"""Documents that are inserted as they are, with an ``_id`` of their own or a generated one: copies, upserts, ``$out``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import bson
from bson.regex import Regex

from sib.errors import StoreError
from storage.bdtr import schema
from storage.bdtr.assembly import encode_document, runs
from storage.bdtr.catalogue import FOREIGN_IDS, TIME_OFF, CollectionInfo
from storage.bdtr.identity import COUNTER_BITS, number_of, object_id
from storage.bdtr.keys import key_of
from storage.bdtr.maintenance import IndexWriter
from storage.bdtr.model import DuplicatesInBatchError
from storage.bdtr.state import WriterState
from storage.bdtr.unique import batch_conflicts, id_conflict

if TYPE_CHECKING:
    from storage.bdtr.transaction import Transaction


class Insertion:
    """One insert of such documents on its way."""

    def __init__(
        self, transaction: Transaction, state: WriterState, indexes: IndexWriter, info: CollectionInfo
    ) -> None:
        self._transaction, self._state, self._indexes, self._info = transaction, state, indexes, info

    def run(self, documents: Sequence[dict[str, Any]], now_s: int) -> list[Any]:
        """See ``Transaction.insert_documents``."""
        state = self._state
        first = following = max(state.last_id + 1, now_s << COUNTER_BITS)
        whole, is_generated = [], []
        for document in documents:
            is_generated.append("_id" not in document)
            if isinstance(document.get("_id"), (list, Regex, re.Pattern)):
                raise StoreError("An _id cannot be an array or a regular expression.")
            if is_generated[-1]:
                whole.append({"_id": object_id(following, state.machine), **document})
                following += 1
            else:
                whole.append({"_id": document["_id"], **document})
        encoded = [encode_document(document) for document in whole]
        whole = [bson.decode(blob) for blob in encoded]
        refuse_duplicates(state, self._info, whole, is_generated)
        self._insert(whole, encoded, is_generated, first)
        state.last_id = max(state.last_id, following - 1)
        return [document["_id"] for document in whole]

    def _insert(
        self, documents: list[dict[str, Any]], encoded: list[bytes], is_generated: list[bool], first: int
    ) -> None:
        state, dialect, info = self._state, self._state.dialect, self._info
        seq = state.seq + 1
        dialect.insert(state.connection, info.documents, list(enumerate(encoded, seq)))
        self._indexes.append_whole(info, documents, seq)
        foreign = [
            (key_of(document["_id"])[0], at)
            for at, (document, generated) in enumerate(zip(documents, is_generated, strict=True), seq)
            if not generated
        ]
        if foreign:
            dialect.insert(state.connection, info.ids, foreign)
            state.raise_collection_flags(info, FOREIGN_IDS)
            self._never_give(document["_id"] for document in documents)
        for n_documents, generated, ts_ms in runs(documents, is_generated):
            if ts_ms is None:
                state.raise_collection_flags(info, TIME_OFF)
            time_ms = schema.NO_TIME_MS if ts_ms is None else ts_ms
            self._transaction.advance(info, first if generated else None, n_documents, time_ms)
            first += n_documents if generated else 0

    def _never_give(self, ids: Iterable[Any]) -> None:
        """An id of our own machine that came from outside (a restored copy) must not be given again."""
        for id_ in ids:
            number = number_of(id_, self._state.machine)
            if number is not None and number > self._state.last_id:
                self._state.last_id = number


def refuse_duplicates(
    state: WriterState,
    info: CollectionInfo,
    documents: list[dict[str, Any]],
    is_generated: list[bool] | None = None,
) -> None:
    """Refuses documents that break a unique index, or repeat an ``_id`` where not all are generated.

    Raises:
        DuplicatesInBatchError: with all of them.
    """
    conflicts: dict[int, str] = {}
    if is_generated is not None and not all(is_generated):
        conflicts = id_conflict(state, info, documents, is_generated)
    for index in info.indexes.values():
        if index.spec.unique:
            conflicts = {**batch_conflicts(state.connection, info, index, documents), **conflicts}
    if conflicts:
        raise DuplicatesInBatchError(conflicts[min(conflicts)], conflicts)
