"""Databases as a whole: made and brought up to date, checked, and copied from one backend to another.

A copy leaves out what the target has already, so an interrupted one is simply started again. The platform must not run
on either database meanwhile.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, func, insert, inspect, select, text, tuple_, update

from sib.errors import ConfigurationError, SibError, StoreError
from sib.query.values import hashable
from storage.bdc.all_models import metadata
from storage.bdc.bdc import open_bdc
from storage.bdc.engine import Database, make_engine
from storage.bdc.models import SCHEMA_REVISION
from storage.bdc.schema import current_revision
from storage.bdtr.reader import StoreReader
from storage.open import FIRST_PARTITION, Store, kind_of, open_bdtr

BATCH_DOCUMENTS = 1_000
"""Documents that one transaction of a copy inserts."""
BATCH_ROWS = 500

_NO_TIME = datetime(1970, 1, 1)
"""For an update that reads no clock."""


class Step(NamedTuple):
    """How far a copy is: ``n_done`` of ``n_total`` documents or rows of one collection or table."""

    name: str
    n_done: int
    n_total: int


Progress = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class Health:
    """What a check found: a sentence for people, and whether the platform can work with the database."""

    database: str
    is_good: bool
    sentence: str
    answer_ms: float = 0.0


def _silent(_step: Step) -> None:
    """Nobody looks."""


# -------------------------------------------------------------------- all databases


def kind_of_database(url: str) -> str:
    """``bdc`` or ``bdtr``: told by the URL, else by the tables that are there.

    Raises:
        ConfigurationError: it cannot be told; say which one is meant.
    """
    if kind_of(url) in ("mongodb", "mongodb+srv", "postgresql"):
        return "bdtr"
    if kind_of(url) == "sqlite":
        path = sqlite_path(url)
        if path.is_dir() or not path.suffix:
            return "bdtr"
        url = f"sqlite:///{path}"
    with Database(make_engine(url)).read() as connection:
        names = set(inspect(connection).get_table_names())
    kinds = {kind for kind, table in (("bdc", "alembic_version"), ("bdtr", "t_meta")) if table in names}
    if len(kinds) != 1:
        what = "both a BDC and a BDTR" if kinds else "neither a BDC nor a BDTR"
        raise ConfigurationError(f"The database holds {what}: say which one is meant.")
    return kinds.pop()


def sqlite_path(url: str) -> Path:
    """The file or folder that a SQLite URL names, in either spelling."""
    rest = url.partition(":")[2]
    return Path(rest.removeprefix("///") if rest.startswith("///") else rest)


def bdtr_urls(url: str) -> list[str]:
    """The stores of a BDTR: one, or on SQLite the files of a folder."""
    if kind_of(url) != "sqlite":
        return [url]
    path = sqlite_path(url)
    files = sorted(path.glob("*.db")) if path.is_dir() else [path] if path.suffix else []
    return [f"sqlite:{file}" for file in files] or [f"sqlite:{path / FIRST_PARTITION}.db"]


def upgrade(bdc_url: str, bdtr_url: str) -> list[str]:
    """Makes both databases if they are not there and brings the BDC to this version; says what was done. Idempotent.

    Raises:
        ConfigurationError: one of them was written by a newer version.
    """
    said = []
    database = Database(make_engine(bdc_url))
    with database.read() as connection:
        before = current_revision(connection)
    bdc = open_bdc(bdc_url)
    bdc.upgrade()
    bdc.close()
    done = "is at" if before == SCHEMA_REVISION else "was made at" if before is None else f"went from {before} to"
    said.append(f"BDC: {done} version {SCHEMA_REVISION}.")
    for url in bdtr_urls(bdtr_url):
        store = open_bdtr(url, writer=True)
        said.append(f"BDTR: ready, {len(store.collections())} ontologies.")
        store.close()
    return said


def check(bdc_url: str, bdtr_url: str) -> list[Health]:
    """Asks each database whether the platform can work with it. Raises nothing: what is wrong is in the answer."""
    stores = bdtr_urls(bdtr_url)
    names = ["BDTR"] if len(stores) == 1 else [f"BDTR {number}" for number in range(len(stores))]
    return [_health("BDC", lambda: _ask_bdc(bdc_url))] + [
        _health(name, lambda url=url: _ask_bdtr(url))  # type: ignore[misc]
        for name, url in zip(names, stores, strict=True)
    ]


def _health(name: str, ask: Callable[[], str]) -> Health:
    began = time.perf_counter()
    try:
        sentence = ask()
    except SibError as error:
        return Health(name, False, error.message)
    return Health(name, True, sentence, (time.perf_counter() - began) * 1000)


def _ask_bdc(url: str) -> str:
    bdc = open_bdc(url)
    try:
        bdc.check()
        return f"version {SCHEMA_REVISION}, configuration {bdc.config_version()}"
    finally:
        bdc.close()


def _ask_bdtr(url: str) -> str:
    store = open_bdtr(url, writer=False)
    try:
        if isinstance(store, StoreReader):  # a MongoDB's is looked at with every read
            store.check()
        return f"change {store.seq}, {len(store.collections())} ontologies"
    finally:
        store.close()


def check_history(url: str) -> Health:
    """Asks the history whether it answers and takes a file, in bounded time; raises nothing."""
    return _health("BDH", lambda: _ask_history(url))


def _ask_history(url: str) -> str:
    from storage.bdh.files import open_files

    files = open_files(url)
    try:
        folders = files.entries("")
        if folders or not url.startswith("file:"):  # a local folder is made by the first start
            probe = f".check-{secrets.token_hex(6)}"
            files.put(probe, f"{probe}.part", memoryview(b"sofia2"))
            files.delete(probe)
        return f"it answers, {len(folders)} folders"
    finally:
        files.close()


# -------------------------------------------------------------------- BDTR


def copy_bdtr(source_url: str, target_url: str, progress: Progress = _silent) -> int:
    """Copies all instances and declared indexes; returns how many instances were written.

    ``_id`` and ``contextData`` stay. What the target has otherwise is made as in the source. Numbers of changes and
    positions are not copied: consumers begin at what is new, and its numbers go on from those of the source, since what
    is kept elsewhere (a CEP shard's snapshot, the keys of executions) must not meet a number for the second time.

    Raises:
        ConfigurationError: source and target are the same, or a transfer to the history is under way in the source.
        StoreError: after the copy the target has instances that the source has not.
    """
    sources, targets = bdtr_urls(source_url), bdtr_urls(target_url)
    if set(sources) & set(targets):
        raise ConfigurationError("Source and target of the copy are the same database.")
    target = open_bdtr(targets[0], writer=True)
    n_written = 0
    try:
        for url in sources:
            source = open_bdtr(url, writer=False)
            try:
                _refuse_transfers(source)
                for name in source.collections():
                    n_written += _copy_collection(source, target, name, progress)
                target.number_beyond(source.seq)
            finally:
                source.close()
    finally:
        target.close()
    return n_written


def _refuse_transfers(store: Store) -> None:
    """An unfinished transfer is known to the source only: without its journal, files and instances would not fit."""
    with store.snapshot() as moment:
        for name in store.collections():
            if any(row.state.name != "PUBLISHED" for row in moment.transfers(name)):
                raise ConfigurationError(
                    f"A transfer of {name} to the history is under way: let it end with `sofia2 process run transfer`."
                )


def _copy_collection(source: Store, target: Store, name: str, progress: Progress) -> int:
    n_total, n_seen, n_written = source.count(name), 0, 0
    target.ensure_collection(name, target.indexes(name))
    progress(Step(name, 0, n_total))
    for batch in batches(source.find(name), BATCH_DOCUMENTS):
        n_written += _copy_batch(target, name, batch)
        n_seen += len(batch)
        progress(Step(name, n_seen, n_total))
    # Indexes come last: filling one is faster than keeping it while everything goes in.
    target.ensure_collection(name, source.indexes(name))
    if target.count(name) > n_seen:
        raise StoreError(f"The target has instances of {name} that the source has not: look at both before you go on.")
    return n_written


def _copy_batch(target: Store, name: str, batch: list[dict[str, Any]]) -> int:
    ids = [document["_id"] for document in batch]
    present = {hashable(document["_id"]): document for document in target.find(name, {"_id": {"$in": ids}})}
    new = [document for document in batch if hashable(document["_id"]) not in present]
    other = [document for document in batch if present.get(hashable(document["_id"]), document) != document]
    if not new and not other:
        return 0
    with target.begin() as transaction:
        if new:
            transaction.insert_documents(name, new)
        for document in other:
            transaction.update(
                name, {"_id": document["_id"]}, document, multi=False, replacement=True, keep=("_id",), now=_NO_TIME
            )
    return len(new) + len(other)


def batches(documents: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """The documents in lists of at most ``size``."""
    iterator = iter(documents)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


# -------------------------------------------------------------------- BDC


def copy_bdc(source_url: str, target_url: str, progress: Progress = _silent) -> int:
    """Copies the whole configuration and state; returns how many rows were written. The target is made if needed.

    Raises:
        ConfigurationError: the source is not at this version, or the target holds other rows than the source.
    """
    source, target = Database(make_engine(source_url)), Database(make_engine(target_url))
    if source.engine.url == target.engine.url:
        raise ConfigurationError("Source and target of the copy are the same database.")
    open_bdc(source_url).check()
    open_bdc(target_url).upgrade()
    tables = metadata.sorted_tables
    with source.read() as reading:
        with target.read() as present:
            _refuse_others(reading, present, tables)
        n_written = sum(_copy_table(reading, target, table, progress) for table in tables)
    if target.engine.dialect.name == "oracle":
        _restart_identities(target, tables)
    return n_written


def _keys(table: Table) -> list[Any]:
    return list(table.primary_key.columns)


def _refuse_others(source: Connection, target: Connection, tables: Sequence[Table]) -> None:
    for table in tables:
        keys = _keys(table)
        for rows in batches(target.execute(select(*keys)).tuples(), BATCH_ROWS):
            known = {tuple(row) for row in source.execute(select(*keys).where(_is_among(keys, rows)))}
            if any(tuple(row) not in known for row in rows):
                raise ConfigurationError(
                    f"The target is in use: its table {table.name} holds rows that the source has not. Copy into an empty database."
                )


def _is_among(keys: Sequence[Any], rows: Sequence[Any]) -> Any:
    if len(keys) == 1:
        return keys[0].in_([row[0] for row in rows])
    return tuple_(*keys).in_([tuple(row) for row in rows])


def _copy_table(source: Connection, target: Database, table: Table, progress: Progress) -> int:
    keys = _keys(table)
    n_total = source.execute(select(func.count()).select_from(table)).scalar_one()
    n_done = n_written = 0
    progress(Step(table.name, 0, n_total))
    own = [column.name for column in table.columns if any(key.column.table is table for key in column.foreign_keys)]
    rows = source.execute(select(table).order_by(*keys)).mappings()
    for batch in batches(rows, BATCH_ROWS):
        n_written += _copy_rows(target, table, [dict(row) for row in batch], own)
        n_done += len(batch)
        progress(Step(table.name, n_done, n_total))
    if own:  # a row may refer to a later one
        for batch in batches(source.execute(select(table).order_by(*keys)).mappings(), BATCH_ROWS):
            _copy_rows(target, table, [dict(row) for row in batch], [])
    return n_written


def _copy_rows(target: Database, table: Table, rows: list[dict[str, Any]], blank: Sequence[str]) -> int:
    """Writes what is missing or different; ``blank``: columns that are left empty for now."""
    keys = _keys(table)
    wanted = [{**row, **dict.fromkeys(blank)} for row in rows]
    with target.write() as connection:
        among = _is_among(keys, [tuple(row[key.name] for key in keys) for row in rows])
        present = {
            tuple(row[key.name] for key in keys): dict(row)
            for row in connection.execute(select(table).where(among)).mappings()
        }
        new, n_changed = [], 0
        for row in wanted:
            there = present.get(tuple(row[key.name] for key in keys))
            if there is None:
                new.append(row)
            elif {**there, **dict.fromkeys(blank)} != row:
                n_changed += 1
                where = [key == row[key.name] for key in keys]
                values = {name: value for name, value in row.items() if name not in {key.name for key in keys}}
                connection.execute(update(table).where(*where).values(values))
        if new:
            connection.execute(insert(table), new)
    return len(new) + n_changed


def _restart_identities(target: Database, tables: Sequence[Table]) -> None:
    """Oracle does not notice ids that were given: the next one of its own must come after them."""
    with target.write() as connection:
        for table in tables:
            for column in table.columns:
                if column.identity is not None:
                    connection.execute(
                        text(
                            f"ALTER TABLE {table.name} MODIFY {column.name} "
                            "GENERATED BY DEFAULT AS IDENTITY (START WITH LIMIT VALUE)"
                        )
                    )
