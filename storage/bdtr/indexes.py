"""From documents to the keys of an index: exactly for any document, and fast for the many simple ones of a batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import bson

from sib.query.paths import split_path, values_at
from sib.query.values import MISSING
from storage.bdtr import catalogue
from storage.bdtr.keys import ANY_KEY, KEY_BYTES_MAX, NULL_KEY, compound_key, key_of, number_key
from storage.bdtr.model import IndexSpec

KEYS_PER_DOCUMENT_MAX = 2_000
"""An instance with more keys in one index is filed under ``ANY_KEY``: found by every query, checked by the matcher."""

_SHORT_TEXT = KEY_BYTES_MAX // 4
"""Characters of which every string is short enough for an exact key, whatever its alphabet."""

Row = tuple[int, bytes]
"""(seq, key): a row of a hot table."""


def keys_of(spec: IndexSpec, document: dict[str, Any]) -> tuple[set[bytes], int]:
    """All keys of a document in an index, and the flags that the index has from now on.

    No keys: the index is sparse and the document has none of its fields.
    """
    if len(spec.fields) == 1:
        return _single_keys(spec, document)
    return _compound_keys(spec, document)


def _single_keys(spec: IndexSpec, document: dict[str, Any]) -> tuple[set[bytes], int]:
    path = spec.fields[0][0]
    values = values_at(document, path)
    if spec.sparse and all(value is MISSING for value in values):
        return set(), 0
    if len(values) > KEYS_PER_DOCUMENT_MAX:
        return {ANY_KEY}, catalogue.WILD | catalogue.MULTIKEY
    flags = catalogue.MULTIKEY if _is_multikey(values) else 0
    keys = set()
    for value in values or (MISSING,):
        if value is MISSING:
            keys.add(NULL_KEY)
            continue
        key, is_exact = key_of(value)
        keys.add(key)
        if not is_exact:
            flags |= catalogue.INEXACT
    return keys, flags


def _compound_keys(spec: IndexSpec, document: dict[str, Any]) -> tuple[set[bytes], int]:
    columns = [values_at(document, path) or [MISSING] for path in spec.paths]
    if spec.sparse and all(value is MISSING for values in columns for value in values):
        return set(), 0
    flags = catalogue.MULTIKEY if any(map(_is_multikey, columns)) else 0
    n_keys = 1
    for values in columns:
        n_keys *= len(values)
    if n_keys > KEYS_PER_DOCUMENT_MAX:
        return {ANY_KEY}, catalogue.WILD | catalogue.MULTIKEY
    directions = [kind for _, kind in spec.fields]
    keys = set()
    for combination in itertools.product(*columns):
        values_or_null = (None if value is MISSING else value for value in combination)
        key, is_exact = compound_key(zip(values_or_null, directions, strict=True))
        keys.add(key)
        if not is_exact:
            flags |= catalogue.INEXACT
    return keys, flags


def _is_multikey(values: Sequence[Any]) -> bool:
    return len(values) != 1 or isinstance(values[0], list)


def batch_extractor(spec: IndexSpec) -> Callable[[Sequence[dict[str, Any]], int], tuple[list[Row], int]]:
    """A function (documents, first seq) -> (rows of the hot table in order of seq, flags) for a whole batch.

    Short strings and small numbers under plain objects, nearly everything that devices send, take the short way.
    """
    parts = split_path(spec.fields[0][0]) if len(spec.fields) == 1 else ()

    def extract(documents: Sequence[dict[str, Any]], seq: int) -> tuple[list[Row], int]:
        rows: list[Row] = []
        flags = 0
        append = rows.append
        for seq, document in enumerate(documents, seq):  # noqa: B020 - starts where it is told
            value: Any = document if parts else None
            try:
                for part in parts:
                    value = value[part]
            except (KeyError, TypeError):
                value = None
            kind = type(value)
            if kind is str and len(value) <= _SHORT_TEXT:
                append((seq, b"\x04" + value.encode("utf-8", "surrogatepass")))
            elif kind is float or kind is int:
                append((seq, number_key(value)))
            else:
                keys, new_flags = keys_of(spec, document)
                flags |= new_flags
                rows += [(seq, key) for key in sorted(keys)]
        return rows, flags

    return extract


def with_context(documents: Sequence[dict[str, Any]], heads: Sequence[bytes], now_ms: int) -> list[dict[str, Any]]:
    """The documents of a batch with their ``contextData``, for indexes on fields of it.

    Each different head is decoded once.
    """
    ending = now_ms.to_bytes(8, "little", signed=True) + b"\0"
    contexts: dict[bytes, Any] = {}
    merged = []
    for document, head in zip(documents, heads, strict=True):
        context = contexts.get(head)
        if context is None:
            element = head[:-9] + ending
            size = (len(element) + 5).to_bytes(4, "little")
            context = contexts[head] = bson.decode(size + element + b"\0")
        merged.append({**context, **document})
    return merged
