"""The bytes of new instances, and the runs that share a row of ``t_block``."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import bson
from bson.errors import BSONError

from sib.errors import StoreError
from storage.bdtr import schema
from storage.bdtr.identity import COUNTER_BITS
from storage.bdtr.keys import milliseconds

DOCUMENT_BYTES_MAX = 16 * 1024 * 1024
"""Of one document, as MongoDB has it."""

_pack_i32, _pack_i64 = struct.Struct("<i").pack, struct.Struct("<q").pack
_ID_ELEMENT_BYTES = 17
"""Of ``_id`` in a BSON document: type, name with its end, ObjectId."""


def encode_document(document: Mapping[str, Any]) -> bytes:
    """BSON of a document.

    Raises:
        StoreError: it holds something that BSON cannot, or it is too large.
    """
    try:
        encoded: bytes = bson.encode(document)
    except (BSONError, OverflowError, TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"The document cannot be stored: {error}.") from error
    if len(encoded) > DOCUMENT_BYTES_MAX:
        raise StoreError(f"The document is larger than {DOCUMENT_BYTES_MAX} bytes: split it.")
    return encoded


def assemble(
    bodies: Sequence[bytes], heads: Sequence[bytes], now_ms: int, first: int, machine: bytes, seq: int
) -> list[tuple[int, bytes]]:
    """Rows (seq, document): ``_id`` and ``contextData`` are spliced in front of the encoded instance.

    No ObjectId, no merged dict, no second encoding: this is the hot path.
    """
    stamp = _pack_i64(now_ms) + b"\0"
    contexts = {head: head[:-9] + stamp for head in set(heads)}
    join = b"".join
    rows: list[tuple[int, bytes]] = []
    append = rows.append
    second = -1
    for body, head in zip(bodies, heads, strict=True):
        if first >> COUNTER_BITS != second:
            second = first >> COUNTER_BITS
            id_start = b"\x07_id\0" + second.to_bytes(4, "big") + machine
        size = len(body) + len(head) + _ID_ELEMENT_BYTES
        append(
            (seq, join((_pack_i32(size), id_start, (first & 0xFFFFFF).to_bytes(3, "big"), contexts[head], body[4:])))
        )
        first += 1
        seq += 1
    return rows


def runs(documents: Sequence[dict[str, Any]], is_generated: Sequence[bool]) -> Iterator[tuple[int, bool, int | None]]:
    """Runs of documents that can share a row of ``t_block``: (how many, generated ids, time in ms).

    The time is None when there is something else than a date or nothing at ``contextData.timestamp``.
    """
    n_documents, current = 0, None
    for document, generated in zip(documents, is_generated, strict=True):
        kind = (generated, _time_of(document))
        if kind != current and current is not None:
            yield n_documents, *current
            n_documents = 0
        current = kind
        n_documents += 1
    if current is not None:
        yield n_documents, *current


def _time_of(document: dict[str, Any]) -> int | None:
    context = document.get("contextData")
    if context is None or (isinstance(context, dict) and context.get("timestamp") is None):
        return schema.NO_TIME_MS
    moment = context.get("timestamp") if isinstance(context, dict) else context
    return milliseconds(moment) if isinstance(moment, datetime) and isinstance(context, dict) else None
