"""Cursors, and how pymongo writes keys and orders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

Document = dict[str, Any]
Keys = str | Sequence[tuple[str, int | str]] | Mapping[str, int | str]
Order = list[tuple[str, int]]


def pairs(keys: Keys) -> list[tuple[str, int | str]]:
    """Keys of an index, in whatever form they come."""
    if isinstance(keys, str):
        return [(keys, 1)]
    return list(keys.items() if isinstance(keys, Mapping) else keys)


def order(keys: Keys | None) -> Order:
    """The fields of a sort with their directions."""
    return [(path, int(direction)) for path, direction in pairs(keys)] if keys else []


class Cursor:
    """The result of ``find``: carried out when it is first read. ``sort``, ``skip`` and ``limit`` come before that.

    Args:
        read: carries it out: (sort, skip, limit) -> documents.
        explain: (sort, limit) -> the steps, one a line.
    """

    def __init__(
        self,
        read: Callable[[Order, int, int | None], Iterator[Document]],
        explain: Callable[[Order, int | None], list[str]],
    ) -> None:
        self._read = read
        self._explain = explain
        self._order: Order = []
        self._skip = 0
        self._limit = 0
        self._running: Iterator[Document] | None = None

    def sort(self, key_or_list: Keys, direction: int = 1) -> Self:
        self._order = [(key_or_list, direction)] if isinstance(key_or_list, str) else order(key_or_list)
        return self

    def skip(self, skip: int) -> Self:
        self._skip = skip
        return self

    def limit(self, limit: int) -> Self:
        """0 is no limit; a negative limit counts as its amount, as in pymongo."""
        self._limit = abs(limit)
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Document:
        if self._running is None:
            self._running = self._read(self._order, self._skip, self._limit or None)
        return next(self._running)

    next = __next__

    def to_list(self, length: int | None = None) -> list[Document]:
        """The next documents, at most ``length``."""
        return list(self) if length is None else [document for _, document in zip(range(length), self, strict=False)]

    def rewind(self) -> Self:
        """Starts again when it is next read."""
        self._running = None
        return self

    def explain(self) -> list[str]:
        """The steps of this find, one a line."""
        return self._explain(self._order, self._skip + self._limit if self._limit else None)
