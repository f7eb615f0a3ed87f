"""TTL indexes: which instances are too old."""

from __future__ import annotations

from sqlalchemy import select

from storage.bdtr.catalogue import IndexInfo
from storage.bdtr.keys import TAG_DATE, date_key, type_range
from storage.bdtr.state import WriterState


def expired_seqs(state: WriterState, index: IndexInfo, now: float, limit: int) -> list[int]:
    """The numbers of at most ``limit`` documents whose date in the index is older than its expiry allows.

    An array of dates counts by its oldest, as in MongoDB; what is no date never expires.
    """
    assert index.spec.expire_after_s is not None
    low, _ = type_range(TAG_DATE)
    high = date_key(int((now - index.spec.expire_after_s) * 1000))
    seqs: set[int] = set()
    tables = [index.side]
    if state.dialect.has_hot_tables and not index.spec.unique:
        tables.append(index.hot)
    for table in tables:
        statement = select(table.c.seq).where(table.c.k >= low, table.c.k < high).limit(limit)
        seqs.update(state.connection.execute(statement).scalars())
    return sorted(seqs)[:limit]
