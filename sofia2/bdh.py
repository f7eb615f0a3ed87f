"""History for data science: an ontology's history as a Ray Dataset or an Arrow table, from a notebook or any program.

    import sofia2.bdh
    from datetime import datetime
    hot = sofia2.bdh.table("SensorTemperatura", since=datetime(2026, 1, 1), where="Sensor.measure > 30")
    days = sofia2.bdh.dataset("SensorTemperatura", columns=["contextData", "Sensor"])
    means = sofia2.bdh.sql("select assetId, avg(measure) as mean from both.SensorTemperatura group by assetId")

Times and conditions are pushed down: the files of other days are never opened. The rights are those of ``SOFIA2_USER``
with ``SOFIA2_PASSWORD``; without them, whoever may read the data folder acts as an ADMINISTRADOR.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sib.access import Rights, Role, authorize
from sib.errors import AuthenticationError, ConfigurationError
from sib.ontology import Ontology, compile_ontology
from storage.bdc.bdc import Bdc, open_bdc
from storage.bdh.files import HistoryFiles, open_files
from storage.bdh.intervals import EVER, Intervals, both
from storage.bdh.intervals import since as from_moment
from storage.bdh.intervals import until as before_moment
from storage.bdh.query import HistoryQueries
from storage.bdh.reader import FileReader
from storage.bdh.sql import read_condition
from storage.bdh.transfer import TransferStore
from storage.open import Store, open_bdtr

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

    from actors.config import PlatformConfig
    from sofia2.settings import Settings

__all__ = ["dataset", "sql", "table"]

Moment = datetime | date | str
"""UTC; of a date its beginning, of a text what ISO 8601 says."""
TIME_LIMIT_S = 3600.0
"""How long one table, or one task of a dataset, may read."""


def table(
    ontology: str,
    *,
    since: Moment | None = None,
    until: Moment | None = None,
    where: str | None = None,
    columns: Sequence[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    user: str | None = None,
) -> pa.Table:
    """The history of an ontology as one Arrow table in memory.

    Args:
        ontology: its name.
        since: the first moment of ``contextData.timestamp``, UTC; a date, or its text (ISO 8601), will do.
        until: the moment before which they end, UTC.
        where: a condition in SQL, as after WHERE: ``Sensor.measure > 30 and contextData.kp = 'KP1'``.
        columns: names of columns or dotted paths; by default ``_id`` (text), ``contextData``, the ontology's root or its
            fields, and ``_raw`` (JSON of what has no column).
        data: the platform's data folder or settings file; by default ``SOFIA2_DATA`` or the usual folder.
        user: whose rights; by default ``SOFIA2_USER``. The password is in ``SOFIA2_PASSWORD``.

    Raises:
        ConfigurationError: there is no platform there, or a text is no date.
        AuthenticationError, AuthorizationError: the user may not read this ontology.
        OntologyNotFoundError, UnknownFieldError, SqlSyntaxError: what is asked for does not exist.
        StoreUnavailableError: a database or file system does not answer.
    """
    needed = _times(since, until)
    with open_history(data, user) as history:
        condition = None if where is None else read_condition(where, history.ontology(ontology))
        return history.queries.table(
            ontology, needed=needed, condition=condition, columns=columns, time_limit_s=TIME_LIMIT_S
        )


def dataset(
    ontology: str,
    *,
    since: Moment | None = None,
    until: Moment | None = None,
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
    with open_history(data, user) as history:
        compiled = history.ontology(ontology)
        wanted = None if columns is None else tuple(columns)
        reader = FileReader(history.url, compiled, needed, where, wanted, TIME_LIMIT_S)
        condition = None if where is None else read_condition(where, compiled)
        files = history.queries.files_of(ontology, needed=needed, condition=condition, time_limit_s=TIME_LIMIT_S)
        empty = reader.read([])
    if not files:
        return ray.data.from_arrow(empty)
    return ray.data.read_datasource(HistorySource(reader, files, empty.schema))


def sql(text: str, *, data: str | os.PathLike[str] | None = None, user: str | None = None) -> pa.Table:
    """What a SELECT on the history finds, as one Arrow table with the columns that a QUERY of type BDH shows.

    Args:
        text: the statement, as in a QUERY of type BDH: ``Name`` is history, ``both.Name`` history and real time together.
        data: as of ``table``.
        user: as of ``table``: it needs the right on each ontology that the statement names.

    Raises:
        SibError: as ``table``; LimitError: it needs too much memory.
    """
    with open_history(data, user) as history:
        return history.queries.arrow(text, time_limit_s=TIME_LIMIT_S)


class History:
    """The history of a platform, opened for somebody: each ontology is given only to who may QUERY it."""

    def __init__(self, config: PlatformConfig, bdc: Bdc, files: HistoryFiles, user: str | None, role: Role) -> None:
        self.url = config.bdh_url
        self.config, self.bdc = config, bdc
        self._user, self._role = user, role
        self._ontologies: dict[str, Ontology] = {}
        self._stores: dict[str, Store] = {}
        self.queries = HistoryQueries(files, bdc.history, self.ontology, self.store_of)

    def ontology(self, name: str) -> Ontology:
        """An ontology that the user may read.

        Raises:
            OntologyNotFoundError: there is none of this name.
            AuthorizationError: it is not active, or the user has not the right.
        """
        if name not in self._ontologies:
            with self.bdc.read() as configuration:
                record = configuration.ontologies.get(name)
            rights = Rights.NONE if record is None else record.rights(self._user or "", self._role)
            authorize(
                "QUERY",
                name,
                {name: rights},
                is_known=record is not None,
                is_active=record is not None and (record.active or self._user is None),
            )
            assert record is not None
            self._ontologies[name] = compile_ontology(name, record.schema_text, version=record.version)
        return self._ontologies[name]

    def store_of(self, ontology: str) -> TransferStore | None:
        """The partition of the BDTR that has the ontology; None if nothing was ever stored there."""
        partition = self.config.topology.partition_of(ontology)
        url = self.config.partition_url(partition)
        if url.startswith("sqlite:") and not Path(url.removeprefix("sqlite:")).exists():
            return None
        if partition not in self._stores:
            self._stores[partition] = open_bdtr(url, writer=False)
        return cast("TransferStore", self._stores[partition])

    def close(self) -> None:
        self.queries.close()
        for store in list(self._stores.values()):  # a late journal may still open one
            store.close()


@contextmanager
def open_history(data: str | os.PathLike[str] | None, user: str | None) -> Iterator[History]:
    """The history of a platform, running or stopped; arguments and errors are those of ``table``."""
    settings = _settings(data)
    config = _config(settings)
    path = config.bdc_url.removeprefix("sqlite:///")
    if path != config.bdc_url and not Path(path).exists():
        raise ConfigurationError(
            f"There is no platform in {settings.data} yet: give data= or SOFIA2_DATA, or run 'sofia2 start'."
        )
    bdc = open_bdc(config.bdc_url)
    try:
        bdc.check()
        user = user if user is not None else os.environ.get("SOFIA2_USER") or None
        role = Role.ADMINISTRADOR if user is None else bdc.log_in(user, _password(user))
        files = open_files(config.bdh_url)
        try:
            history = History(config, bdc, files, user, role)
            try:
                yield history
            finally:
                history.close()
        finally:
            files.close()
    finally:
        bdc.close()


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


def _config(settings: Settings) -> PlatformConfig:
    """The platform as it runs or ran last, else as it would be started."""
    from dataclasses import replace

    from sofia2.daemon import RunFolder, config_from_json

    folder = RunFolder(settings.data)
    has_urls = any(settings.has_url(name) for name in ("bdc", "bdtr", "bdh"))
    if folder.config.exists() and (not has_urls or folder.running()):
        config = config_from_json(folder.config.read_text())
    else:
        config = settings.to_platform_config()
    return config if config.bdh_url else replace(config, bdh_url=settings.url("bdh"))


def _times(since: Moment | None, until: Moment | None) -> Intervals:
    needed = EVER if since is None else from_moment(_utc(since))
    return needed if until is None else both(needed, before_moment(_utc(until)))


def _utc(moment: Moment) -> datetime:
    if isinstance(moment, str):
        text = moment
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ConfigurationError(f"{text[:40]!r} is no date such as 2026-01-31 or 2026-01-31T12:00.") from None
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
