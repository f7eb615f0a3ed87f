"""The journal of transfers to the history, kept beside the instances: taking them out and DONE are one transaction.

A row is PLANNED (its instances are being written to files), DONE (they are in the files and no longer here; the files
are not in the manifest yet), or PUBLISHED (the manifest has them). A published row is kept for a while, so that a query
that read the manifest just before finds its files.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Column,
    Connection,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy import inspect as inspect_database
from sqlalchemy.dialects import mysql

from sib.errors import NotFoundError
from sib.query.budget import Budget
from storage.bdtr import schema
from storage.bdtr.catalogue import TIME_OFF, Catalogue
from storage.bdtr.dialects import Dialect
from storage.bdtr.model import heard_by_all
from storage.bdtr.moving import DIGEST_BYTES, Aged, Key, aged_documents
from storage.bdtr.planner import TIME_PATH
from storage.bdtr.schema import LongText, Name, Number
from storage.bdtr.search import Searcher

if TYPE_CHECKING:
    from storage.bdtr.relational import RelationalStore

NO_NUMBER = -1
"""Stands for the number of an instance that has none."""
_LENGTH = struct.Struct("<q")
PUBLISHED_KEPT_S = 3600.0
"""How long a published row stays: longer than any query takes."""

transfer = Table(
    "t_transfer",
    MetaData(),
    Column("id", Number, primary_key=True, autoincrement=False),
    Column("collection", Name, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("files", LongText, nullable=False),
    Column("receipt", LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")),
    Column("ts_ms", Number, nullable=False),
)


class State(IntEnum):
    """How far a transfer is."""

    PLANNED = 0
    DONE = 1
    PUBLISHED = 2


@dataclass(frozen=True, slots=True)
class Receipt:
    """Which versions of which instances go into the files of a transfer, row by row through all files."""

    seqs: Sequence[Key]
    digests: Sequence[bytes]

    def to_bytes(self) -> bytes:
        """Rows of a number and a digest; then, in their order, the ids of those that have the number ``NO_NUMBER``."""
        numbers = array("q", [seq if isinstance(seq, int) else NO_NUMBER for seq in self.seqs])
        ids = [seq for seq in self.seqs if isinstance(seq, bytes)]
        return b"".join([_LENGTH.pack(len(numbers)), numbers.tobytes(), *self.digests, *ids])

    @classmethod
    def from_bytes(cls, data: bytes) -> Receipt:
        (n_rows,) = _LENGTH.unpack_from(data)
        start = _LENGTH.size + 8 * n_rows
        end = start + DIGEST_BYTES * n_rows
        numbers = array("q")
        numbers.frombytes(data[_LENGTH.size : start])
        ids = _split(data, end)
        seqs: list[Key] = [next(ids) if number == NO_NUMBER else number for number in numbers]
        return cls(seqs, [data[at : at + DIGEST_BYTES] for at in range(start, end, DIGEST_BYTES)])

    def numbers(self) -> list[int]:
        """The keys, where all of them are numbers."""
        return [seq for seq in self.seqs if isinstance(seq, int)]


def _split(data: bytes, start: int) -> Iterator[bytes]:
    """BSON documents that follow each other."""
    while start < len(data):
        end = start + int.from_bytes(data[start : start + 4], "little")
        yield data[start:end]
        start = end


@dataclass(frozen=True, slots=True)
class TransferRow:
    """A row of the journal. ``files`` are plain values that the history knows the meaning of; each has ``n_rows``."""

    id: int
    collection: str
    state: State
    files: list[dict[str, Any]]
    receipt: Receipt | None


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit did. ``n_stale`` instances were changed or deleted since they were written to the files."""

    is_done: bool
    n_moved: int
    n_stale: int


class TransferJournal:
    """The steps of a transfer that the writer of a store carries out, each in a transaction of its own.

    All arguments and results are plain values, so a partition can carry a step out for another process. Every step may
    be repeated after a crash.
    """

    def __init__(self, store: RelationalStore) -> None:
        self._store = store

    def plan(self, collection: str, files: list[dict[str, Any]], receipt: bytes, now_ms: int) -> int:
        """Note what will be moved; returns the number of the transfer."""
        with self._store.begin() as transaction:
            connection = transaction.connection
            transaction.make_table(transfer)
            number = 1 + (connection.execute(select(func.max(transfer.c.id))).scalar() or 0)
            row = {"id": number, "collection": collection, "state": State.PLANNED, "ts_ms": now_ms}
            connection.execute(insert(transfer).values(**row, files=json.dumps(files), receipt=receipt))
        return number

    def commit(self, number: int, files: list[dict[str, Any]], *, accept_stale: bool) -> Committed:
        """Take the instances out and mark the transfer DONE, in one transaction.

        Args:
            number: of the transfer.
            files: as in the plan, completed by what is known now that they are written.
            accept_stale: what changed since stays here and its rows are noted in ``stale_rows`` of the files; without
                it nothing is done when something changed.

        Raises:
            NotFoundError: there is no such transfer (it was abandoned).
        """
        with self._store.begin() as transaction:
            row = _row(transaction.connection, number)
            if row.state is not State.PLANNED or row.receipt is None:
                return Committed(True, 0, 0)
            seqs, digests = row.receipt.numbers(), row.receipt.digests
            stale = transaction.changed_since(row.collection, seqs, digests)
            if stale and not accept_stale:
                return Committed(False, 0, len(stale))
            gone = set(stale)
            transaction.take_out(row.collection, [seq for at, seq in enumerate(seqs) if at not in gone])
            values = {"state": State.DONE, "files": json.dumps(with_stale(files, stale)), "receipt": None}
            transaction.connection.execute(update(transfer).where(transfer.c.id == number).values(**values))
        return Committed(True, len(seqs) - len(stale), len(stale))

    def abandon(self, number: int) -> None:
        """Forget a planned transfer. Its files must be gone before."""
        with self._store.begin() as transaction:
            is_it = (transfer.c.id == number, transfer.c.state == State.PLANNED)
            transaction.connection.execute(delete(transfer).where(*is_it))

    def publish(self, numbers: Sequence[int], now_ms: int) -> None:
        """The manifest has the files of these transfers. Rows published long ago are deleted."""
        with self._store.begin() as transaction:
            connection = transaction.connection
            done = (transfer.c.id.in_(list(numbers)), transfer.c.state == State.DONE)
            connection.execute(update(transfer).where(*done).values(state=State.PUBLISHED, ts_ms=now_ms))
            before_ms = now_ms - int(PUBLISHED_KEPT_S * 1000)
            old = (transfer.c.state == State.PUBLISHED, transfer.c.ts_ms < before_ms)
            # The newest row stays: its number is where the next one begins.
            last = connection.execute(select(func.max(transfer.c.id))).scalar() or 0
            connection.execute(delete(transfer).where(*old, transfer.c.id < last))


class Snapshot:
    """A store at one moment: its instances and its journal of transfers fit together."""

    def __init__(self, connection: Connection, dialect: Dialect, catalogue: Catalogue, machine: bytes) -> None:
        self._connection = connection
        self._dialect = dialect
        self._catalogue = catalogue
        self._machine = machine

    def transfers(self, collection: str) -> list[TransferRow]:
        """The journal of a collection, oldest first."""
        if not inspect_database(self._connection).has_table(transfer.name):
            return []
        statement = select(transfer).where(transfer.c.collection == collection).order_by(transfer.c.id)
        return [_transfer_row(row) for row in self._connection.execute(statement)]

    def aged(self, collection: str, before_ms: int, after: Aged | None, limit: int) -> list[Aged]:
        """See ``aged_documents``: behind another one, none that a consumer has still to hear of. All keys are numbers here."""
        info = self._catalogue.get(collection)
        after_seq = 0 if after is None else after.seq
        if info is None or not isinstance(after_seq, int):
            return []
        consumer, meta = schema.consumer.c, schema.meta.c
        positions = dict(self._connection.execute(select(consumer.name, consumer.seq)).tuples().all())
        seq = self._connection.execute(select(meta.num).where(meta.name == "seq")).scalar_one()
        return aged_documents(self._connection, info, before_ms, after_seq, heard_by_all(positions, seq), limit)

    def by_seq(self, collection: str, seqs: Sequence[Key]) -> dict[Key, bytes]:
        """The instances with these keys, as far as they are there."""
        info = self._catalogue.get(collection)
        wanted = {seq for seq in seqs if isinstance(seq, int)}
        if info is None or not wanted:
            return {}
        docs = info.documents.c
        between = (docs.seq >= min(wanted), docs.seq <= max(wanted))
        rows = self._connection.execute(select(docs.seq, docs.doc).where(*between))
        return {seq: blob for seq, blob in rows.tuples() if seq in wanted}

    def inserted(self, collection: str, bounds: Mapping[str, Any]) -> Mapping[str, Any]:
        """The filter of the instances that were inserted between bounds (``$gte``, ``$lte``) or at an unknown time."""
        info = self._catalogue.get(collection)
        if info is None or not info.flags & TIME_OFF:  # all times are known
            return {TIME_PATH: bounds}
        return {"$or": [{TIME_PATH: bounds}, {TIME_PATH: {"$not": {"$type": "date"}}}]}

    def find(
        self, collection: str, filter_: Mapping[str, Any], *, budget: Budget | None = None, now: datetime | None = None
    ) -> Iterator[dict[str, Any]]:
        """The instances that match."""
        info = self._catalogue.get(collection)
        if info is None:
            return
        searcher = Searcher(
            lambda: nullcontext(self._connection), self._dialect, info, self._machine, budget=budget, now=now
        )
        for _, document in searcher.matches(filter_):
            yield document


def _row(connection: Connection, number: int) -> TransferRow:
    found = connection.execute(select(transfer).where(transfer.c.id == number)).first()
    if found is None:
        raise NotFoundError(f"There is no transfer {number}.")
    return _transfer_row(found)


def _transfer_row(row: Any) -> TransferRow:
    receipt = None if row.receipt is None else Receipt.from_bytes(bytes(row.receipt))
    return TransferRow(row.id, row.collection, State(row.state), json.loads(row.files), receipt)


def with_stale(files: list[dict[str, Any]], stale: Sequence[int]) -> list[dict[str, Any]]:
    """The files with the stale ones among their rows, counted inside each file."""
    noted = []
    start = 0
    for file in files:
        end = start + file["n_rows"]
        noted.append({**file, "stale_rows": [at - start for at in stale if start <= at < end]})
        start = end
    return noted
