"""History for data science: an ontology's history as a Ray Dataset or an Arrow table, from a notebook or any program.

    import sofia2.bdh
    from datetime import datetime
    hot = sofia2.bdh.table("SensorTemperatura", since=datetime(2026, 1, 1), where="Sensor.measure > 30")
    days = sofia2.bdh.dataset("SensorTemperatura", columns=["contextData", "Sensor"])

Times and conditions are pushed down: the files of other days are never opened. The rights are those of ``SOFIA2_USER``
with ``SOFIA2_PASSWORD``; without them, whoever may read the data folder acts as an ADMINISTRADOR.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sib.access import Rights, rights_of
from sib.errors import AuthenticationError, AuthorizationError, ConfigurationError, OntologyNotFoundError
from sib.ontology import compile_ontology
from storage.bdc.bdc import Bdc, open_bdc
from storage.bdh.files import open_files
from storage.bdh.intervals import EVER, Intervals, both
from storage.bdh.intervals import since as from_moment
from storage.bdh.intervals import until as before_moment
from storage.bdh.query import HistoryQueries
from storage.bdh.reader import FileReader
from storage.bdh.sql import read_condition
from storage.bdh.transfer import TransferStore
from storage.bdtr.relational import RelationalStore

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

    from sofia2.settings import Settings

__all__ = ["dataset", "table"]

TIME_LIMIT_S = 3600.0
"""How long one table, or one task of a dataset, may read."""


def table(
    ontology: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    where: str | None = None,
    columns: Sequence[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    user: str | None = None,
) -> pa.Table:
    """The history of an ontology as one Arrow table in memory.

    Args:
        ontology: its name.
        since: the first moment of ``contextData.timestamp``, UTC.
        until: the moment before which they end, UTC.
        where: a condition in SQL, as after WHERE: ``Sensor.measure > 30 and contextData.kp = 'KP1'``.
        columns: names of columns or dotted paths; by default ``_id`` (text), ``contextData``, the ontology's root or its
            fields, and ``_raw`` (JSON of what has no column).
        data: the platform's data folder or settings file; by default ``SOFIA2_DATA`` or the usual folder.
        user: whose rights; by default ``SOFIA2_USER``. The password is in ``SOFIA2_PASSWORD``.

    Raises:
        ConfigurationError: there is no platform there.
        AuthenticationError, AuthorizationError: the user may not read this ontology.
        OntologyNotFoundError, UnknownFieldError, SqlSyntaxError: what is asked for does not exist.
        StoreUnavailableError: a database or file system does not answer.
    """
    needed = _times(since, until)
    with _open(ontology, data, user) as history:
        condition = None if where is None else read_condition(where, history.reader(needed, where, columns).ontology)
        return history.queries.table(
            ontology, needed=needed, condition=condition, columns=columns, time_limit_s=TIME_LIMIT_S
        )


def dataset(
    ontology: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    where: str | None = None,
    columns: Sequence[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    user: str | None = None,
) -> ray.data.Dataset:
    """The history of an ontology as a Ray Dataset; which files it reads is decided now.

    Arguments and errors are those of ``table``. A file that a compaction replaces later can be read for some minutes more.
    """
    import ray.data

    from sofia2.bdh_source import HistorySource

    needed = _times(since, until)
    with _open(ontology, data, user) as history:
        reader = history.reader(needed, where, columns)
        condition = None if where is None else read_condition(where, reader.ontology)
        files = history.queries.files_of(ontology, needed=needed, condition=condition, time_limit_s=TIME_LIMIT_S)
        empty = reader.read([])
    if not files:
        return ray.data.from_arrow(empty)
    return ray.data.read_datasource(HistorySource(reader, files, empty.schema))


@dataclass(slots=True)
class _History:
    """The history of one ontology, opened for somebody who may read it."""

    url: str
    ontology_name: str
    schema_text: str
    version: int
    queries: HistoryQueries

    def reader(self, needed: Intervals, where: str | None, columns: Sequence[str] | None) -> FileReader:
        ontology = compile_ontology(self.ontology_name, self.schema_text, version=self.version)
        wanted = None if columns is None else tuple(columns)
        return FileReader(self.url, ontology, needed, where, wanted, TIME_LIMIT_S)


@contextmanager
def _open(name: str, data: str | os.PathLike[str] | None, user: str | None) -> Iterator[_History]:
    settings = _settings(data)
    bdc_url, bdtr_url, bdh_url = _urls(settings, name)
    path = bdc_url.removeprefix("sqlite:///")
    if path != bdc_url and not Path(path).exists():
        raise ConfigurationError(
            f"There is no platform in {settings.data} yet: give data= or SOFIA2_DATA, or run 'sofia2 start'."
        )
    bdc = open_bdc(bdc_url)
    store = _store(bdtr_url)
    files = open_files(bdh_url)
    try:
        bdc.check()
        schema_text, version = _readable(bdc, name, user)
        ontology = compile_ontology(name, schema_text, version=version)
        stores: TransferStore | None = store
        queries = HistoryQueries(files, bdc.history, lambda _: ontology, lambda _: stores)
        try:
            yield _History(bdh_url, name, schema_text, version, queries)
        finally:
            queries.close()
    finally:
        files.close()
        if store is not None:
            store.close()
        bdc.close()


def _readable(bdc: Bdc, name: str, user: str | None) -> tuple[str, int]:
    """The schema of an ontology and its version, if the user may read it."""
    user = user if user is not None else os.environ.get("SOFIA2_USER") or None
    role = None if user is None else bdc.log_in(user, _password(user))
    with bdc.read() as configuration:
        record = configuration.ontologies.get(name)
    if record is None:
        raise OntologyNotFoundError(f"There is no ontology {name!r}: check its name (it is case-sensitive).")
    if user is not None and role is not None:
        permission = record.permissions.get(user)
        rights = rights_of(user, role, owner=record.owner, is_public=record.public, permission=permission)
        if Rights.QUERY not in rights:
            raise AuthorizationError(f"The user may not QUERY the ontology {name!r}: ask its owner for the permission.")
    return record.schema_text, record.version


def _password(user: str) -> str:
    password = os.environ.get("SOFIA2_PASSWORD")
    if password is None:
        raise AuthenticationError(f"Whoever acts as {user!r} shows a password: set SOFIA2_PASSWORD.")
    return password


def _settings(data: str | os.PathLike[str] | None) -> Settings:
    from sofia2.settings import load_settings

    if data is None:
        return load_settings()
    path = Path(data).expanduser()
    if path.is_file():
        return load_settings({"config": str(path)})
    return load_settings({"data": str(path)})


def _urls(settings: Settings, ontology: str) -> tuple[str, str, str]:
    """(BDC, partition of the BDTR, BDH): as the platform runs or ran last, else as it would be started."""
    from sofia2.daemon import RunFolder, config_from_json

    folder = RunFolder(settings.data)
    has_urls = any(settings.has_url(name) for name in ("bdc", "bdtr", "bdh"))
    if folder.config.exists() and (not has_urls or folder.running()):
        config = config_from_json(folder.config.read_text())
    else:
        config = settings.to_platform_config()
    partition = config.partition_url(config.topology.partition_of(ontology))
    return config.bdc_url, partition, str(getattr(config, "bdh_url", "") or settings.url("bdh"))


def _store(url: str) -> RelationalStore | None:
    if not url.startswith("sqlite:") or not Path(url.removeprefix("sqlite:")).exists():
        return None
    return RelationalStore.open(url, writer=False)


def _times(since: datetime | None, until: datetime | None) -> Intervals:
    needed = EVER if since is None else from_moment(_utc(since))
    return needed if until is None else both(needed, before_moment(_utc(until)))


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
