"""The BDC as the rest of the platform sees it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from sib.access import Identity, Rights, Role
from storage.bdc import schema, tables
from storage.bdc.activity import Activity
from storage.bdc.cep_state import CepStore
from storage.bdc.command_listeners import CommandListenerStore
from storage.bdc.configuration import Configuration
from storage.bdc.engine import Database, LastWrite, make_engine
from storage.bdc.history import HistoryManifest
from storage.bdc.identities import Identities
from storage.bdc.models import ConfigCounter
from storage.bdc.mqtt import MqttStore
from storage.bdc.mqtt_retained import RetainedStore
from storage.bdc.processes import ProcessStore
from storage.bdc.records import Catalog, LogRecord
from storage.bdc.rules import RuleStore
from storage.bdc.sessions import SessionStore, SubscriptionStore

_VERSION = select(ConfigCounter.version)


def utc_now() -> datetime:
    """Now, as the BDC keeps times: naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


def open_bdc(url: str, *, now: Callable[[], datetime] = utc_now) -> Bdc:
    """Open a BDC, making its file if it is SQLite's; call ``upgrade`` or ``check`` before anything else.

    Raises:
        ConfigurationError: the URL cannot be used.
    """
    return Bdc(Database(make_engine(url)), now=now)


class Bdc:
    """The configuration database and the state that must outlive a process.

    Synchronous, safe for threads (each call takes a connection of its own), and several processes may have the same
    database open. Every call is one transaction, and raises StoreUnavailableError when the database cannot be used.
    """

    def __init__(
        self,
        database: Database,
        *,
        now: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._now = now
        self._identities = Identities(database, monotonic)
        self._activity = Activity(database)
        self.sessions = SessionStore(database)
        self.subscriptions = SubscriptionStore(database)
        self.command_listeners = CommandListenerStore(database)
        self.mqtt = MqttStore(database)
        self.retained = RetainedStore(database)
        self.history = HistoryManifest(database, now)
        self.cep = CepStore(database)
        self.rules = RuleStore(database)
        self.processes = ProcessStore(database)

    # The database itself.

    def upgrade(self) -> None:
        """Bring the tables to this version. Idempotent; several processes may do it at once.

        Raises:
            ConfigurationError: the database was written by a newer version.
        """
        with self._database.migration() as connection:
            schema.upgrade(connection)

    def check(self) -> None:
        """Refuse a database whose tables are not those of this version.

        Raises:
            ConfigurationError: it is empty, older or newer.
        """
        with self._database.read() as connection:
            schema.check(connection)

    def close(self) -> None:
        """Close the idle connections. The object opens new ones if it is used again."""
        self._database.engine.dispose()

    @property
    def last_write(self) -> LastWrite:
        """When this object wrote last, and whether the database could."""
        return self._database.last_write

    # Configuration.

    def config_version(self) -> int:
        """The number of the configuration; every change of it counts it up in the same transaction. Cheap."""
        with self._database.read() as connection:
            return int(connection.execute(_VERSION).scalar_one())

    def catalog(self) -> Catalog:
        """Ontologies, predefined queries and settings of one moment."""
        with self.read() as configuration:
            return Catalog(
                version=configuration.version(),
                ontologies={ontology.name: ontology for ontology in configuration.ontologies.all()},
                queries={query.name: query for query in configuration.queries.all()},
                settings=configuration.settings.all(),
            )

    @contextmanager
    def read(self) -> Iterator[Configuration]:
        """The whole configuration of one moment, by repositories."""
        with self._database.read() as connection:
            yield Configuration(connection, self._now)

    @contextmanager
    def change(self) -> Iterator[Configuration]:
        """Change the configuration: all of the block or, when it raises, nothing.

        Raises:
            StoreError: a name is taken, or something that still exists depends on what was deleted.
        """
        with self._database.write() as connection:
            configuration = Configuration(connection, self._now)
            yield configuration
            configuration.finish()

    # Who may do what.

    def identify(self, kp: str, token: str) -> Identity:
        """See ``Identities.identify``."""
        return self._identities.identify(kp, token)

    def identify_user(self, kp: str, user: str, password: str) -> Identity:
        """See ``Identities.identify_user``."""
        return self._identities.identify_user(kp, user, password)

    def log_in(self, user: str, password: str) -> Role:
        """See ``Identities.log_in``."""
        return self._identities.log_in(user, password)

    def recheck(self, holders: Sequence[tuple[str, str, str]]) -> list[Identity | None]:
        """See ``Identities.recheck``."""
        return self._identities.recheck(holders)

    def cipher_keys(self) -> dict[str, str]:
        """See ``Identities.cipher_keys``."""
        return self._identities.cipher_keys()

    def cep_outputs(self) -> dict[str, list[tuple[str, frozenset[str]]]]:
        """See ``storage.bdc.cep.outputs``."""
        from storage.bdc.cep import outputs

        with self.read() as configuration:
            return outputs(configuration)

    def owner_of(self, kp: str) -> str:
        """See ``Identities.owner_of``."""
        return self._identities.owner_of(kp)

    def rights(self, kp: str, user: str) -> dict[str, Rights]:
        """See ``Identities.rights``."""
        return self._identities.rights(kp, user)

    def tokens(self, kp: str) -> list[tuple[str, bool]]:
        """The tokens of a KP and whether each is active, oldest first. Never to be logged."""
        with self.read() as configuration:
            return [(token.token, token.active) for token in configuration.tokens.all(kp)]

    # BDC queries.

    def assets(self, user: str | None) -> list[dict[str, Any]]:
        """The rows of the table Asset: of one user, or of all (None)."""
        with self.read() as configuration:
            return tables.asset_rows(configuration, user)

    def table(self, name: str) -> list[dict[str, Any]]:
        """The rows of a configuration table, for an ADMINISTRADOR, without secrets; its name in any case.

        Raises:
            NotFoundError: there is no such table.
        """
        with self.read() as configuration:
            return tables.table_rows(configuration, name)

    # What was seen.

    def instances_seen(self, seen: Sequence[tuple[str, str, str, datetime]]) -> None:
        """See ``Activity.instances_seen``."""
        self._activity.instances_seen(seen)

    def tokens_seen(self, seen: Sequence[tuple[str, datetime]]) -> None:
        """See ``Activity.tokens_seen``."""
        self._activity.tokens_seen(seen)

    def log(self, records: Sequence[LogRecord]) -> None:
        """See ``Activity.log``."""
        self._activity.log(records)

    def read_log(self, limit: int, *, kind: str | None = None) -> list[LogRecord]:
        """See ``Activity.read_log``."""
        return self._activity.read_log(limit, kind=kind)
