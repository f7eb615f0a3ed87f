"""What of a MongoDB's collection is old enough to leave it, page by page, at the cost of the page.

Instances come in the order of their times, which is what the index on the time gives: their window, where most of them are,
is never read. Those whose time is no date come last, in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import Any
from uuid import UUID

import bson
from bson.codec_options import CodecOptions
from bson.decimal128 import Decimal128
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo.client_session import ClientSession

from storage.bdtr.identity import number_of
from storage.bdtr.mongo_session import Documents
from storage.bdtr.moving import Aged, Key
from storage.bdtr.planner import TIME_PATH

IDS_BYTES_MAX = 8 * 1024 * 1024
"""Ids that one transfer notes: its row in the journal is one document of the server."""
CHUNK_DOCUMENTS, CHUNK_IDS_BYTES = 1_000, 1024 * 1024
"""So many are looked up together in the log."""

_RAW: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument)
_KINDS: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (type(None), ("null",)),
    ((int, float, Decimal128), ("int", "long", "double", "decimal")),
    (str, ("string",)),
    (Mapping, ("object",)),
    ((bytes, UUID), ("binData",)),
    (ObjectId, ("objectId",)),
    (bool, ("bool",)),
    (datetime, ("date",)),
    (Timestamp, ("timestamp",)),
)
"""Kinds of ids in the order in which a server sorts them."""
# Each of these is a range of the index; "no date" as such is none.
_NO_DATES = ["array", "minKey", "maxKey", "regex", *(name for _, names in _KINDS for name in names if name != "date")]
_UNDATED = {"$or": [{TIME_PATH: None}, {TIME_PATH: {"$type": _NO_DATES}}]}


def raw(documents: Documents) -> Documents:
    """A collection whose documents come in the bytes that are stored."""
    return documents.with_options(codec_options=_RAW)


def key_of(id_: Any, machine: bytes) -> Key:
    """The number in a generated id, which is short, or else the id in BSON."""
    number = number_of(id_, machine)
    return bson.encode({"_id": id_}) if number is None else number


class AgedPage:
    """The next instances of one collection: at most ``limit``, with ids of about ``IDS_BYTES_MAX``.

    ``unheard`` tells which of some ids may not move yet.
    """

    def __init__(
        self,
        documents: Documents,
        session: ClientSession | None,
        machine: bytes,
        limit: int,
        unheard: Callable[[Sequence[Any]], set[Key]],
    ) -> None:
        self._documents = raw(documents)
        self._session = session
        self._machine = machine
        self._limit = limit
        self._unheard = unheard
        self._found: list[RawBSONDocument] = []
        self._size_bytes = 0

    def find(self, before: datetime, after: Aged | None) -> list[Aged]:
        """Those inserted before a moment (naive UTC) or at an unknown time, behind the last one of the page before."""
        last = None if after is None else RawBSONDocument(after.blob)
        time = None if last is None else _time_of(last)
        if last is None or time is not None:
            self._find_dated(before, last, time)
        if not self._is_full:
            self._take_by_id(_UNDATED, None if time is not None else last)
        return [Aged(key_of(document["_id"], self._machine), bytes(document.raw)) for document in self._found]

    def _find_dated(self, before: datetime, last: RawBSONDocument | None, time: datetime | None) -> None:
        span: dict[str, Any] = {"$lt": before}
        if time is not None:
            self._take_by_id({TIME_PATH: time}, last)
            span["$gt"] = time
        if self._is_full:
            return
        dated = self._documents.find({TIME_PATH: span}, session=self._session).sort(TIME_PATH, 1)
        # An array of dates is no date, though the server compares its elements: its turn comes with the undated ones.
        self._take(dated, lambda document: _time_of(document) is not None)
        if self._is_full:  # of the last time there may be more: a page ends between two ids, not anywhere
            time = _time_of(self._found[-1])
            while self._found and _time_of(self._found[-1]) == time:
                self._drop_last()
            self._take_by_id({TIME_PATH: time}, None)

    @property
    def _is_full(self) -> bool:
        return len(self._found) >= self._limit or self._size_bytes >= IDS_BYTES_MAX

    def _take_by_id(self, condition: dict[str, Any], last: RawBSONDocument | None) -> None:
        for later in [{}] if last is None else _later(last["_id"]):
            if not self._is_full:
                self._take(self._documents.find({**later, **condition}, session=self._session).sort("_id", 1))

    def _take(self, cursor: Any, is_one: Callable[[RawBSONDocument], bool] = bool) -> None:
        with closing(cursor.batch_size(self._limit - len(self._found))):
            for document in self._heard(filter(is_one, cursor)):
                self._found.append(document)
                self._size_bytes += self._size_of(document)
                if self._is_full:
                    return

    def _heard(self, documents: Iterable[RawBSONDocument]) -> Iterator[RawBSONDocument]:
        for chunk in self._chunks(documents):
            unheard = self._unheard([document["_id"] for document in chunk])
            for document in chunk:
                if not unheard or key_of(document["_id"], self._machine) not in unheard:
                    yield document

    def _chunks(self, documents: Iterable[RawBSONDocument]) -> Iterator[list[RawBSONDocument]]:
        chunk: list[RawBSONDocument] = []
        size_bytes = 0
        for document in documents:
            chunk.append(document)
            size_bytes += self._size_of(document)
            if len(chunk) >= min(CHUNK_DOCUMENTS, self._limit - len(self._found)) or size_bytes >= CHUNK_IDS_BYTES:
                yield chunk
                chunk, size_bytes = [], 0
        if chunk:
            yield chunk

    def _drop_last(self) -> None:
        self._size_bytes -= self._size_of(self._found.pop())

    def _size_of(self, document: RawBSONDocument) -> int:
        key = key_of(document["_id"], self._machine)
        return len(key) if isinstance(key, bytes) else 0


def _time_of(document: Mapping[str, Any]) -> datetime | None:
    context = document.get("contextData")
    moment = context.get("timestamp") if isinstance(context, Mapping) else None
    return moment if isinstance(moment, datetime) else None


def _later(id_: Any) -> Iterator[dict[str, Any]]:
    """Conditions, one after the other, for all ids behind this one: a comparison stays inside the values of its kind."""
    yield {"_id": {"$gt": id_}}
    kind = next((at for at, (kinds, _) in enumerate(_KINDS) if _is_of(id_, kinds)), len(_KINDS))
    names = [name for _, others in _KINDS[kind + 1 :] for name in others]
    if names:
        yield {"_id": {"$type": names}}


def _is_of(id_: Any, kinds: Any) -> bool:
    return kinds is bool if isinstance(id_, bool) else isinstance(id_, kinds)
