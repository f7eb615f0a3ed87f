"""The change feed: every insert, update and delete of a store in the order of its numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import bson
from sqlalchemy import Connection, delete, func, select

from storage.bdtr import schema
from storage.bdtr.model import Cause, Change, ChangeKind
from storage.bdtr.rewriting import KIND_UPDATE

BLOCKS_PER_STATEMENT = 200


def read_changes(connection: Connection, after_seq: int, limit: int) -> list[Change]:
    """The first changes after a number, at most ``limit``.

    Inserts are read from the documents, so one that was deleted since is missing and one that was updated since comes
    as it is now; the update or delete follows under its own number.
    """
    rows = schema.collection.c
    names = dict(connection.execute(select(rows.id, rows.name)).tuples().all())
    inserts = itertools.islice(_inserts(connection, names, after_seq, limit), limit)
    logged = _logged(connection, names, after_seq, limit)
    return sorted([*inserts, *logged], key=lambda change: change.seq)[:limit]


def _logged(connection: Connection, names: dict[int, str], after_seq: int, limit: int) -> list[Change]:
    log = schema.change_log
    found = connection.execute(select(log).where(log.c.seq > after_seq).order_by(log.c.seq).limit(limit))
    changes = []
    for row in found:
        noted = bson.decode(row.doc_id)
        cause = Cause(int(noted.get("t", 0)), noted.get("by", ""))
        kind = ChangeKind.UPDATE if row.kind == KIND_UPDATE else ChangeKind.DELETE
        document = None if row.doc is None else bson.decode(row.doc)
        changes.append(Change(row.seq, kind, names[row.collection_id], document, noted[""], cause))
    return changes


def _inserts(connection: Connection, names: dict[int, str], after_seq: int, limit: int) -> Iterator[Change]:
    for collection_id, low, high in _ranges(connection, after_seq):
        docs = schema.document_table(collection_id).c
        found = connection.execute(
            select(docs.seq, docs.doc).where(docs.seq >= low, docs.seq <= high).order_by(docs.seq).limit(limit)
        )
        for seq, blob in found.all():
            document = bson.decode(blob)
            yield Change(seq, ChangeKind.INSERT, names[collection_id], document, document["_id"])


def _ranges(connection: Connection, after_seq: int) -> Iterator[tuple[int, int, int]]:
    """Where inserts with greater numbers are: (collection, first, last), neighbours joined."""
    block = schema.block
    columns = (block.c.collection_id, block.c.seq, block.c.n_docs)
    started = connection.execute(
        select(*columns).where(block.c.seq <= after_seq).order_by(block.c.seq.desc()).limit(1)
    ).all()
    pending: tuple[int, int, int] | None = None
    rows = [row for row in started if row.seq + row.n_docs > after_seq + 1]
    position = after_seq
    while True:
        found = connection.execute(
            select(*columns).where(block.c.seq > position).order_by(block.c.seq).limit(BLOCKS_PER_STATEMENT)
        ).all()
        for collection_id, seq, n_docs in [*rows, *found]:
            low, high = max(seq, after_seq + 1), seq + n_docs - 1
            if pending is not None and pending[0] == collection_id and pending[2] + 1 == low:
                pending = (collection_id, pending[1], high)
                continue
            if pending is not None:
                yield pending
            pending = (collection_id, low, high)
        rows = []
        if len(found) < BLOCKS_PER_STATEMENT:
            break
        position = found[-1].seq
        if pending is not None:
            # What is known is handed out: a reader that has enough does not read the rest.
            yield pending
            pending = None
    if pending is not None:
        yield pending


def trim_changes(connection: Connection, before_seq: int, n_oldest: int, n_rows: int) -> int:
    """Deletes at most ``n_rows`` updates and deletes: those with smaller numbers, and the ``n_oldest`` oldest.

    Returns how many.
    """
    log = schema.change_log
    oldest = select(log.c.seq).order_by(log.c.seq).limit(n_rows).subquery()
    read_by_all = connection.execute(select(func.max(oldest.c.seq)).where(oldest.c.seq < before_seq)).scalar_one()
    beyond = None
    if n_oldest > 0:
        surplus = select(log.c.seq).order_by(log.c.seq).limit(min(n_oldest, n_rows)).subquery()
        beyond = connection.execute(select(func.max(surplus.c.seq))).scalar_one()
    end = max(read_by_all or 0, beyond or 0)
    if not end:
        return 0
    n_deleted: int = connection.execute(delete(log).where(log.c.seq <= end)).rowcount
    return n_deleted
