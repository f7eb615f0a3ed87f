"""The writer's side of a store: its connection, its counters, and what it remembers of its indexes between commits."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import RootTransaction, Table, bindparam, exc, func, insert, inspect, select, update

from sib.errors import ConfigurationError, SibError
from storage.bdtr import catalogue, schema
from storage.bdtr.catalogue import Catalogue, CollectionInfo, IndexInfo
from storage.bdtr.dialects import Dialect
from storage.bdtr.failures import store_errors
from storage.bdtr.hot import HotIndex
from storage.bdtr.indexes import Row, batch_extractor

Extractor = Callable[[Sequence[dict[str, Any]], int], tuple[list[Row], int]]

MACHINE_BYTES = 5


class WriterState:
    """What the one writer holds in memory; all of it can be read back from the tables, and is after a rollback.

    ``seq`` and ``last_id`` are those of the last commit, or inside a transaction those that it has reached.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.machine = b""
        self.seq = 0
        self.last_id = 0
        self.catalogue: Catalogue = {}
        self.catalogue_version = 0
        self.is_catalogue_changed = False
        self._is_stale = False
        self._saved = 0, 0
        self._hot: dict[tuple[int, int], HotIndex] = {}
        self._extractors: dict[tuple[int, int], Extractor] = {}
        self._doomed: list[Table] = []
        with store_errors():
            self.connection = dialect.writer_engine().connect()
            try:
                with self.connection.begin():
                    self._set_up()
                    self._data_version = dialect.data_version(self.connection)
                    self.reload()
                dialect.unlock_set_up(self.connection)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        self.connection.close()
        self.connection.engine.dispose()

    def _set_up(self) -> None:
        connection = self.connection
        found = self._format()
        if found is None:
            self.dialect.lock_set_up(connection)
            found = self._format()
        if found is None:
            schema.metadata.create_all(connection)
            names = ("seq", "last_id", "catalogue", "writer")
            rows: list[dict[str, Any]] = [{"name": name, "num": 0, "raw": None} for name in names]
            # The machine part of the ObjectIds: fixed for ever, so that ids of the store can be told from others.
            rows.append({"name": "machine", "num": None, "raw": os.urandom(MACHINE_BYTES)})
            rows.append({"name": "format", "num": schema.FORMAT, "raw": None})
            connection.execute(insert(schema.meta), rows)
        else:
            schema.refuse_other_format(found)

    def _format(self) -> int | None:
        if not inspect(self.connection).has_table(schema.meta.name):
            return None
        row = schema.meta.c
        return self.connection.execute(select(row.num).where(row.name == "format")).scalar_one_or_none()

    def begin(self) -> RootTransaction:
        """Begins the only transaction that writes, and reads back what others have written since the last one.

        A connection that was lost meanwhile is made anew.
        """
        try:
            return self._begin()
        except exc.DBAPIError as error:
            if not error.connection_invalidated:
                raise
        return self._begin()

    def _begin(self) -> RootTransaction:
        began = self.connection.begin()
        try:
            self.reload_if_foreign()
        except BaseException:
            with contextlib.suppress(exc.DBAPIError):
                began.rollback()
            raise
        return began

    def reload(self) -> None:
        """Reads everything back from the tables."""
        meta = {row.name: row for row in self.connection.execute(select(schema.meta))}
        self.machine = bytes(meta["machine"].raw)
        self.seq, self.last_id = self._saved = meta["seq"].num, meta["last_id"].num
        self.catalogue_version = meta["catalogue"].num
        self.reload_catalogue()
        self._hot.clear()

    def reload_catalogue(self) -> None:
        self.catalogue = catalogue.load(self.connection)
        self.is_catalogue_changed = False
        self._extractors.clear()

    def reload_if_foreign(self) -> None:
        """To be called inside a transaction: another process may have written since the last one."""
        version = self.dialect.data_version(self.connection)
        if version != self._data_version or self._is_stale:
            self.reload()
            self._data_version = version
            self._is_stale = False

    def take_back(self, seq: int, last_id: int) -> None:
        """After a rollback: everything is read back, now or, if the database cannot answer now, with the next transaction."""
        self.seq, self.last_id = seq, last_id
        self._is_stale = True
        self._doomed.clear()
        with contextlib.suppress(SibError), store_errors(), self.connection.begin() as reading:
            self.reload_if_foreign()
            reading.rollback()

    def save(self, counts: dict[str, int]) -> None:
        """Writes the counters at the end of a transaction; ``counts``: by how many documents each collection grew."""
        changed = []
        if (self.seq, self.last_id) != self._saved:
            changed += [{"name_": "seq", "num_": self.seq}, {"name_": "last_id", "num_": self.last_id}]
        if self.is_catalogue_changed:
            self.catalogue_version += 1
            changed.append({"name_": "catalogue", "num_": self.catalogue_version})
        if changed:  # a transaction that did nothing must not cost a write
            self.connection.execute(_SAVE_META, changed)
            self._saved = self.seq, self.last_id
        for name, grown in counts.items():
            if grown:
                info = self.catalogue[name]
                info.n_docs += grown
                self.connection.execute(_SAVE_COUNT, {"id_": info.id, "n_": info.n_docs})

    # ------------------------------------------------------------------ tables

    def create_table(self, table: Table) -> None:
        """Makes an empty table, with this transaction if the database can.

        Where it cannot, a rollback leaves the table: empty, as the next one that gets its number wants it.
        """
        if self.dialect.has_ddl_in_transactions:
            table.create(self.connection)
            return
        with self.connection.engine.connect() as other:
            table.create(other, checkfirst=True)
            other.commit()

    def drop_table(self, table: Table) -> None:
        """Drops a table with this transaction, or after it where dropping would commit."""
        if self.dialect.has_ddl_in_transactions:
            table.drop(self.connection)
        else:
            self._doomed.append(table)

    @property
    def n_doomed(self) -> int:
        return len(self._doomed)

    def spare(self, n_doomed: int) -> None:
        """At a failed savepoint: tables doomed since then stay."""
        del self._doomed[n_doomed:]

    def drop_doomed(self) -> None:
        """After the commit. What cannot be dropped is left over: nobody knows it any more."""
        doomed, self._doomed = self._doomed, []
        if not doomed:
            return
        with contextlib.suppress(exc.DBAPIError), self.connection.engine.connect() as other:
            for table in doomed:
                table.drop(other, checkfirst=True)
            other.commit()

    # ------------------------------------------------------------------ indexes

    def hot(self, index: IndexInfo) -> HotIndex:
        key = index.collection_id, index.slot
        found = self._hot.get(key)
        if found is None:
            found = self._hot[key] = HotIndex(self.dialect, index, self.connection)
        return found

    def forget_hot(self, keys: set[tuple[int, int]]) -> None:
        for key in keys:
            self._hot.pop(key, None)

    def forget_index(self, index: IndexInfo) -> None:
        """The index has been dropped; its number may be given again."""
        self._hot.pop((index.collection_id, index.slot), None)
        self._extractors.pop((index.collection_id, index.slot), None)

    def extractor(self, index: IndexInfo) -> Extractor:
        key = index.collection_id, index.slot
        found = self._extractors.get(key)
        if found is None:
            found = self._extractors[key] = batch_extractor(index.spec)
        return found

    def raise_flags(self, index: IndexInfo, flags: int) -> None:
        """Remembers, durably with this transaction, what has been seen in an index."""
        if flags & ~index.flags:
            index.flags |= flags
            self.save_index_flags(index)

    def save_index_flags(self, index: IndexInfo) -> None:
        where = schema.side_index.c
        self.connection.execute(
            update(schema.side_index)
            .where(where.collection_id == index.collection_id, where.slot == index.slot)
            .values(flags=index.flags)
        )
        self.is_catalogue_changed = True

    def raise_collection_flags(self, info: CollectionInfo, flags: int) -> None:
        if flags & ~info.flags:
            info.flags |= flags
            self.connection.execute(
                update(schema.collection).where(schema.collection.c.id == info.id).values(flags=info.flags)
            )
            self.is_catalogue_changed = True

    # ------------------------------------------------------------------ collections

    def note_time(self, info: CollectionInfo, ts_ms: int) -> None:
        """Remembers the time of a new run of instances, and durably if it is earlier than one before."""
        if info.last_ms is None:
            block = schema.block.c
            latest = self.connection.execute(
                select(func.max(block.ts_ms)).where(block.collection_id == info.id)
            ).scalar_one()
            info.last_ms = schema.NO_TIME_MS if latest is None else latest
        if ts_ms < info.last_ms:
            self.raise_collection_flags(info, catalogue.TIME_UNORDERED)
        info.last_ms = max(info.last_ms, ts_ms)

    def collection(self, name: str) -> CollectionInfo:
        """The collection, made if it is not there. To be called inside a transaction."""
        info = self.catalogue.get(name)
        return info if info is not None else self._create(name)

    def _create(self, name: str) -> CollectionInfo:
        limit = 200
        if not name or len(name) > limit or "\0" in name:
            raise ConfigurationError(f"A collection needs a name of 1 to {limit} characters.")
        number = 1 + max((info.id for info in self.catalogue.values()), default=0)
        info = CollectionInfo(number, name)
        self.connection.execute(insert(schema.collection).values(id=number, name=name, flags=0, n_docs=0))
        for table in (info.documents, info.ids):
            self.create_table(table)
        self.catalogue[name] = info
        self.is_catalogue_changed = True
        return info


_SAVE_META = update(schema.meta).where(schema.meta.c.name == bindparam("name_")).values(num=bindparam("num_"))
_SAVE_COUNT = update(schema.collection).where(schema.collection.c.id == bindparam("id_")).values(n_docs=bindparam("n_"))
