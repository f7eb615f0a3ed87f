"""An open database, by itself and without a platform."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from sofia2.bdtr.collection import Collection
from storage.open import Store, Writing

EXPIRE_EVERY_S = 1.0


class Database:
    """An open database: ``database[name]`` is a collection. Safe for several threads, not across a fork."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self.store = store
        self._clock = clock
        self._lock = threading.RLock()
        self._expired_at = 0.0

    def __getitem__(self, name: str) -> Collection:
        return Collection(self, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.store.close()

    def list_collection_names(self) -> list[str]:
        return self.store.collections()

    @contextmanager
    def begin(self) -> Iterator[Writing]:
        """One durable transaction; threads wait for each other."""
        with self._lock, self.store.begin() as transaction:
            yield transaction

    @contextmanager
    def locked(self) -> Iterator[Store]:
        """The store, for what begins transactions of its own."""
        with self._lock:
            yield self.store

    def now(self) -> datetime:
        """The clock's time as naive UTC in milliseconds, as BSON keeps it."""
        moment = datetime.fromtimestamp(self._clock(), UTC).replace(tzinfo=None)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def expire(self) -> None:
        """Deletes what TTL indexes say is too old, about once a second at most."""
        now = self._clock()
        if abs(now - self._expired_at) >= EXPIRE_EVERY_S:
            with self._lock:
                self._expired_at = now
                self.store.expire(now)
