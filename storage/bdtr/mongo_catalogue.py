"""The collections of a partition on MongoDB with their indexes, as its writer knows them and changes them on the server.

What is declared is noted in the transaction of the change; what the server does with indexes is outside of transactions.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import CollectionInvalid, OperationFailure

from sib.errors import ConfigurationError, DuplicateKeyError, StoreError
from storage.bdtr import mongo_checks as checks
from storage.bdtr.catalogue import spec_to_json
from storage.bdtr.model import IndexSpec
from storage.bdtr.mongo_client import mongo_errors
from storage.bdtr.mongo_session import Turn

if TYPE_CHECKING:
    from storage.bdtr.mongo_transaction import MongoTransaction

log = logging.getLogger("sofia2.bdtr")

_TIME_INDEX = IndexSpec((("contextData.timestamp", 1),))
_CONFLICTING = (85, 86)

Known = dict[str, list[IndexSpec]]


class MongoCatalogue:
    """What is declared, of all collections; ``version`` counts its changes, so that readers see that there were some."""

    def __init__(self, database: Database, turn: Turn) -> None:
        self._database, self._turn = database, turn
        self._known: Known = {}
        self._geo_live: dict[str, set[str]] = {}
        self.version = -1
        self.is_changed = False
        """By the transaction under way."""

    # ------------------------------------------------------------------ with a transaction

    def learn(self, version: int, load: Callable[[ClientSession], Known]) -> None:
        """At the begin: read it again if another writer has changed it."""
        if version != self.version:
            self._known = load(self._turn.session)
            self._geo_live.clear()
            self.version = version

    def committed(self) -> None:
        if self.is_changed:
            self.version += 1
            self.is_changed = False

    def forget(self) -> None:
        """After a rollback: it is read back with the next transaction."""
        if self.is_changed:
            self.version = -1
            self.is_changed = False

    def known(self) -> tuple[Known, bool]:
        return {name: list(specs) for name, specs in self._known.items()}, self.is_changed

    def restore(self, known: tuple[Known, bool]) -> None:
        self._known, self.is_changed = known

    # ------------------------------------------------------------------ collections and indexes

    def collection(self, name: str, transaction: MongoTransaction) -> list[IndexSpec]:
        """The declared indexes of a collection, which is made if it is not there."""
        if name not in self._known:
            checks.check_name(name)
            with self._turn.paused():
                make(self._database, name)
                self._create_on_server(name, _TIME_INDEX)
            self._declare(name, [], transaction)
        return self._known[name]

    def ensure(
        self, name: str, indexes: Sequence[IndexSpec], transaction: MongoTransaction
    ) -> DuplicateKeyError | None:
        """Gives a collection exactly these indexes, and notes those that are there then; gives the failure of a unique one."""
        declared = self.collection(name, transaction)
        gone = [spec for spec in declared if spec not in indexes]
        present = [spec for spec in declared if spec in indexes]
        there = set(self._database[name].index_information())
        new = [spec for spec in indexes if spec not in declared or spec.name not in there]
        if not gone and not new:
            return None
        failure: DuplicateKeyError | None = None
        with self._turn.paused():
            for spec in gone:
                self._drop_on_server(name, spec)
            for spec in new:
                try:
                    self._create_on_server(name, spec)
                except DuplicateKeyError as error:
                    failure = failure or DuplicateKeyError(f"The index {spec.name!r} was not made: {error.message}")
                    continue
                present = [*(other for other in present if other.name != spec.name), spec]
        self._geo_live.pop(name, None)
        self._declare(name, present, transaction)
        return failure

    def _create_on_server(self, collection: str, spec: IndexSpec) -> None:
        keys = list(spec.fields)
        options: dict[str, Any] = {"name": spec.name}
        if spec.unique:
            options["unique"] = True
        if spec.sparse:
            options["sparse"] = True
        try:
            with mongo_errors():
                self._create_anew(collection, keys, options)
        except DuplicateKeyError:
            raise
        except StoreError as error:
            if not spec.is_geo:
                raise ConfigurationError(f"The index {spec.name!r} cannot be made: {error.message}") from error
            log.warning("the geo index %s of %s cannot be made on the server: %s", spec.name, collection, error.message)

    def _create_anew(self, collection: str, keys: list[tuple[str, Any]], options: dict[str, Any]) -> None:
        documents = self._database[collection]
        try:
            documents.create_index(keys, **options)
        except OperationFailure as error:
            if error.code not in _CONFLICTING:
                raise
            for name, index in documents.index_information().items():
                if name == options["name"] or list(index["key"]) == keys:
                    documents.drop_index(name)
            documents.create_index(keys, **options)

    def _drop_on_server(self, collection: str, spec: IndexSpec) -> None:
        with contextlib.suppress(OperationFailure):  # it is not there
            self._database[collection].drop_index(spec.name)
        if spec.fields == _TIME_INDEX.fields:
            self._create_on_server(collection, _TIME_INDEX)

    def _declare(self, name: str, specs: Sequence[IndexSpec], transaction: MongoTransaction) -> None:
        self._known[name] = list(specs)
        self.is_changed = True
        transaction.declare(name, [spec_to_json(spec) for spec in specs])

    def drop_unfit(self, collection: str, documents: Iterable[Mapping[str, Any]]) -> None:
        """Drops geo indexes on the server that would refuse one of these documents; distances are then measured here."""
        specs = [spec for spec in self._known[collection] if spec.is_geo]
        if not specs:
            return
        if collection not in self._geo_live:
            self._geo_live[collection] = set(self._database[collection].index_information())
        live = self._geo_live[collection]
        for spec in specs:
            if spec.name in live and not all(checks.is_indexable(document, spec) for document in documents):
                log.warning(
                    "the geo index %s of %s is dropped: an instance is no place on Earth", spec.name, collection
                )
                with self._turn.paused(), contextlib.suppress(OperationFailure):
                    self._database[collection].drop_index(spec.name)
                live.discard(spec.name)


def make(database: Database, collection: str) -> None:
    """Makes a collection if it is not there."""
    with contextlib.suppress(CollectionInvalid):
        database.create_collection(collection)
