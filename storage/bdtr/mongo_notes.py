"""What a partition on MongoDB notes of itself, beside the instances: its state, and its collections with their indexes."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pymongo.client_session import ClientSession

from sib.errors import ConfigurationError, StoreUnavailableError
from storage.bdtr import mongo_checks as checks
from storage.bdtr.catalogue import spec_from_json
from storage.bdtr.model import IndexSpec
from storage.bdtr.mongo_changes import MongoChanges
from storage.bdtr.mongo_client import Client, mongo_errors
from storage.bdtr.mongo_session import Documents

FORMAT = 1
"""The version of what a partition notes; another one is refused."""

Document = dict[str, Any]


class MongoNotes:
    """One database and the part of it that is a partition's. Each read sees every commit made before it."""

    def __init__(self, client: Client, database: str, partition: str, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._database = client[database]
        self._clock = clock
        prefix = checks.INTERNAL + (f"{partition}." if partition else "")
        self._notes = self._database[prefix + "state"]
        self._log = self._database[prefix + "log"]
        self.transfers = self._database[prefix + "transfers"]
        self._changes = MongoChanges(self._database, self._log, self._notes, lambda: self.machine)
        self._machine = b""
        self._indexes: dict[str, list[IndexSpec]] = {}
        self._catalogue_version = -1

    def close(self) -> None:
        """Closes all connections."""
        self._client.close()

    def _state(self) -> Document:
        with mongo_errors():
            state = self._notes.find_one({"_id": "state"})
        if state is None:
            raise StoreUnavailableError("The BDTR has not been set up yet; start the platform, or wait for it.")
        return checked_format(state)

    @property
    def machine(self) -> bytes:
        """The five bytes in the middle of all ObjectIds that this store gives."""
        if not self._machine:
            self._machine = bytes(self._state()["machine"])
        return self._machine

    @property
    def seq(self) -> int:
        """The number of the last committed change."""
        return int(self._state()["seq"])

    # ------------------------------------------------------------------ catalogue

    def _catalogue(self) -> dict[str, list[IndexSpec]]:
        """The collections with their declared indexes, read again when they have changed."""
        with mongo_errors():
            state = self._notes.find_one({"_id": "state"}, {"catalogue": 1})
            version = -1 if state is None else state["catalogue"]
            if version != self._catalogue_version:
                self._indexes = self.load_catalogue()
                self._catalogue_version = version
        return self._indexes

    def load_catalogue(self, session: ClientSession | None = None) -> dict[str, list[IndexSpec]]:
        rows = self._notes.find({"_id": {"$gte": "collection:", "$lt": "collection;"}}, session=session)
        return {row["name"]: [spec_from_json(text) for text in row["indexes"]] for row in rows}

    def collections(self) -> list[str]:
        """The names of all collections: those made through this store and others that hold documents."""
        known = set(self._catalogue())
        with mongo_errors():
            for name in self._database.list_collection_names():
                is_internal = name.startswith((checks.INTERNAL, "system."))
                if name not in known and not is_internal and self._database[name].find_one({}, {"_id": 1}) is not None:
                    known.add(name)
        return sorted(known)

    def indexes(self, collection: str) -> list[IndexSpec]:
        """The declared indexes of a collection (without those on ``_id`` and ``contextData.timestamp``)."""
        return list(self._catalogue().get(collection, ()))

    def _geo_on_server(self, collection: str) -> list[IndexSpec]:
        """The declared geo indexes that the server has: it has none where a document holds what it cannot take."""
        declared = [spec for spec in self.indexes(collection) if spec.is_geo]
        if not declared:
            return []
        with mongo_errors():
            there = self._database[collection].index_information()
        return [spec for spec in declared if spec.name in there]

    def documents(self, collection: str) -> Documents:
        """The server's collection of an ontology."""
        return self._database[collection]

    def check_transactions(self) -> None:
        """Refuses a server that has no transactions: a crash would leave parts of batches, and of moves to the history.

        Raises:
            ConfigurationError: it is neither a member of a replica set nor a ``mongos``.
        """
        hello = self._client.admin.command("hello")
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise ConfigurationError(
                "The MongoDB of the BDTR is no replica set, so it has no transactions and a crash could lose instances: start "
                "it as one, of one member too (mongod --replSet rs0, then once rs.initiate() in mongosh)."
            )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC).replace(tzinfo=None)


def checked_format(state: Document) -> Document:
    """The state of a partition.

    Raises:
        ConfigurationError: another version wrote it.
    """
    if state["format"] != FORMAT:
        raise ConfigurationError(
            f"The BDTR was written in format {state['format']}, this version reads format {FORMAT}: "
            "start the version of Sofia2 that wrote it, or give another bdtr URL."
        )
    return state
