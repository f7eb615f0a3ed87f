"""From ids to documents: generated ids are found by their numbers, others by the side table of ``_id``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import bson
from bson.objectid import ObjectId
from sqlalchemy import Connection, Select, Table, bindparam, select

from sib.query.values import SortKey, sort_key
from storage.bdtr import schema
from storage.bdtr.catalogue import CollectionInfo
from storage.bdtr.keys import key_of

COUNTER_BITS = 24
VALUES_PER_STATEMENT = 500
TABLES_KNOWN = 1000
"""Tables whose statements are kept: to make one takes longer than to carry it out."""


def number_of(id_: Any, machine: bytes) -> int | None:
    """The number of an ObjectId that a store with this machine part generated; None for any other id."""
    if not isinstance(id_, ObjectId):
        return None
    raw = id_.binary
    if raw[4:9] != machine:
        return None
    return int.from_bytes(raw[:4], "big") << COUNTER_BITS | int.from_bytes(raw[9:], "big")


def object_id(number: int, machine: bytes) -> ObjectId:
    """The ObjectId of a generated number: seconds, machine, counter."""
    counter = number & (1 << COUNTER_BITS) - 1
    return ObjectId((number >> COUNTER_BITS).to_bytes(4, "big") + machine + counter.to_bytes(3, "big"))


def candidate_seqs(connection: Connection, info: CollectionInfo, ids: Iterable[Any], machine: bytes) -> set[int]:
    """The change numbers of documents that may have one of these ids: for each id nearly always none or one."""
    ids = list(ids)
    seqs: set[int] = set()
    for number in (number_of(id_, machine) for id_ in ids):
        if number is not None:
            seqs.update(_seq_of_number(connection, info, number))
    if info.has_foreign_ids:
        for keys in _chunks(sorted({key_of(id_)[0] for id_ in ids})):
            seqs.update(connection.execute(_seqs_by_key(info.ids), {"keys": keys}).scalars())
    return seqs


def _seq_of_number(connection: Connection, info: CollectionInfo, number: int) -> Iterator[int]:
    row = connection.execute(_BLOCK_BEFORE, {"number": number}).one_or_none()
    if row is not None and number - row.first_id < row.n_docs and row.collection_id == info.id:
        yield row.seq + number - row.first_id


def stored_ids(connection: Connection, info: CollectionInfo, ids: Iterable[Any], machine: bytes) -> set[SortKey]:
    """Which of these ids documents have."""
    ids = list(ids)
    wanted, found = {sort_key(id_) for id_ in ids}, set()
    for seqs in _chunks(sorted(candidate_seqs(connection, info, ids, machine))):
        for blob in connection.execute(_documents_by_seq(info.documents), {"seqs": seqs}).scalars():
            found.add(sort_key(bson.decode(blob)["_id"]))
    return found & wanted


def _chunks(values: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(values), VALUES_PER_STATEMENT):
        yield values[start : start + VALUES_PER_STATEMENT]


@lru_cache(maxsize=TABLES_KNOWN)
def _seqs_by_key(ids: Table) -> Select[Any]:
    return select(ids.c.seq).where(ids.c.k.in_(bindparam("keys", expanding=True)))


@lru_cache(maxsize=TABLES_KNOWN)
def _documents_by_seq(documents: Table) -> Select[Any]:
    return select(documents.c.doc).where(documents.c.seq.in_(bindparam("seqs", expanding=True)))


_BLOCK = schema.block.c
_BLOCK_BEFORE = (
    select(_BLOCK.first_id, _BLOCK.seq, _BLOCK.n_docs, _BLOCK.collection_id)
    .where(_BLOCK.first_id <= bindparam("number"))
    .order_by(_BLOCK.first_id.desc())
    .limit(1)
)
