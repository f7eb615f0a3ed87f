"""What collections and indexes a store has, read from its catalogue tables."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Table, select

from storage.bdtr import schema
from storage.bdtr.model import IndexSpec

# Flags of an index
MULTIKEY = 1
"""Some instance has an array on the way to or at the path: one instance may have several keys."""
INEXACT = 2
"""Some keys were cut or rounded: the order of the index is not exactly the order of the values."""
WILD = 4
"""Some instance had too many keys and stands under ``ANY_KEY``."""
BUILDING = 8
"""Older instances are not all in it yet: writers maintain it, no query may use it."""

# Flags of a collection
TIME_OFF = 1
"""Some instance has a ``contextData.timestamp`` that ``t_block`` does not tell."""
FOREIGN_IDS = 2
"""Some instances have ids that the store did not give."""
TIME_UNORDERED = 4
"""Some instance has an earlier ``contextData.timestamp`` than one inserted before it (the clock was set back)."""


@dataclass(slots=True)
class IndexInfo:
    """One side-table index of a collection."""

    collection_id: int
    slot: int
    spec: IndexSpec
    flags: int = 0
    side: Table = field(init=False)
    hot: Table = field(init=False)
    boxes: Table = field(init=False)

    def __post_init__(self) -> None:
        self.side = schema.side_table(self.collection_id, self.slot)
        self.hot = schema.hot_table(self.collection_id, self.slot)
        self.boxes = schema.geo_table(self.collection_id, self.slot)

    @property
    def is_ready(self) -> bool:
        return not self.flags & BUILDING


@dataclass(slots=True)
class CollectionInfo:
    """One collection: its number, flags, and its indexes by name (without the one on ``_id``).

    ``last_ms`` is the latest ``contextData.timestamp``, once the writer has asked for it.
    """

    id: int
    name: str
    flags: int = 0
    n_docs: int = 0
    last_ms: int | None = None
    indexes: dict[str, IndexInfo] = field(default_factory=dict)
    documents: Table = field(init=False)
    ids: Table = field(init=False)

    def __post_init__(self) -> None:
        self.documents = schema.document_table(self.id)
        self.ids = schema.side_table(self.id, schema.ID_SLOT)

    @property
    def has_foreign_ids(self) -> bool:
        return bool(self.flags & FOREIGN_IDS)


Catalogue = dict[str, CollectionInfo]


def load(connection: Connection) -> Catalogue:
    """Reads the whole catalogue; its size is that of the ontologies and their indexes, not of the data."""
    by_id: dict[int, CollectionInfo] = {}
    for row in connection.execute(select(schema.collection)):
        by_id[row.id] = CollectionInfo(row.id, row.name, row.flags, row.n_docs)
    for row in connection.execute(select(schema.side_index).order_by(schema.side_index.c.slot)):
        spec = spec_from_json(row.spec)
        by_id[row.collection_id].indexes[spec.name] = IndexInfo(row.collection_id, row.slot, spec, row.flags)
    return {info.name: info for info in by_id.values()}


def spec_to_json(spec: IndexSpec) -> str:
    """The text in ``t_index.spec``."""
    return json.dumps(
        {
            "fields": spec.fields,
            "unique": spec.unique,
            "sparse": spec.sparse,
            "expire_after_s": spec.expire_after_s,
            "name": spec.name,
        }
    )


def spec_from_json(text: str) -> IndexSpec:
    """The opposite of ``spec_to_json``."""
    raw: dict[str, Any] = json.loads(text)
    return IndexSpec(**{**raw, "fields": tuple((path, kind) for path, kind in raw["fields"])})
