"""From ids to documents: generated ids are found by their numbers, others by the side table of ``_id``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import bson
from bson.objectid import ObjectId
from sqlalchemy import Connection, select

from sib.query.values import sort_key
from storage.bdtr import schema
from storage.bdtr.catalogue import CollectionInfo
from storage.bdtr.keys import key_of

COUNTER_BITS = 24


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


def candidate_seqs(connection: Connection, info: CollectionInfo, id_: Any, machine: bytes) -> list[int]:
    """The change numbers of documents that may have this id: nearly always none or one."""
    seqs = []
    number = number_of(id_, machine)
    if number is not None:
        block = schema.block.c
        row = connection.execute(
            select(block.first_id, block.seq, block.n_docs, block.collection_id)
            .where(block.first_id <= number)
            .order_by(block.first_id.desc())
            .limit(1)
        ).one_or_none()
        if row is not None and number - row.first_id < row.n_docs and row.collection_id == info.id:
            seqs.append(row.seq + number - row.first_id)
    if info.has_foreign_ids:
        side = info.ids.c
        seqs += connection.execute(select(side.seq).where(side.k == key_of(id_)[0])).scalars()
    return seqs


def seqs_of_ids(
    connection: Connection, info: CollectionInfo, ids: Iterable[Any], machine: bytes
) -> list[tuple[int, Any]]:
    """(seq, id as stored) of the documents that have these ids."""
    found = []
    docs = info.documents.c
    for id_ in ids:
        for seq in candidate_seqs(connection, info, id_, machine):
            blob = connection.execute(select(docs.doc).where(docs.seq == seq)).scalar_one_or_none()
            if blob is not None:
                stored = bson.decode(blob)["_id"]
                if sort_key(stored) == sort_key(id_):
                    found.append((seq, stored))
    return found
