"""Tables of the rules: rows of an ontology (or a file), looked up by equality, replaced as a whole or row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sib.cep import nulls
from sib.cep.aggregates import hashable
from sib.errors import LimitError

TABLE_ROWS_MAX = 100_000
"""Rows of one table; more is refused."""

Row = dict[str, Any]

_KEYS = ("id", "_id", "key")


class Table:
    """Rows with an index for each attribute that rules look up. Indexes are made when first needed."""

    def __init__(self, name: str, rows: Iterable[Row] = ()) -> None:
        self.name = name
        self.rows: list[Row] = []
        self._indexes: dict[str, dict[Any, list[Row]]] = {}
        self.replace(rows)

    def replace(self, rows: Iterable[Row]) -> None:
        """Put other rows in place of all there are.

        Raises:
            LimitError: More than ``TABLE_ROWS_MAX``; the table keeps what it had.
        """
        new = list(rows)
        if len(new) > TABLE_ROWS_MAX:
            raise LimitError(f"table {self.name} has {len(new)} rows, at most {TABLE_ROWS_MAX} are allowed")
        self.rows = new
        self._indexes.clear()

    def update_or_insert(self, row: Row, attribute: str | None, matches: Callable[[Row], bool]) -> None:
        """Change the rows that match to hold the row's values; add the row if none does.

        Args:
            row: The new values.
            attribute: An attribute that is equal in the row and in all rows that match, to find them fast; or None.
            matches: Whether a row of the table is to be changed.

        Raises:
            LimitError: The table is full.
        """
        candidates = self.rows if attribute is None else self.lookup(attribute, cell(row, attribute))
        found = [old for old in candidates if matches(old)]
        for old in found:
            self._forget(old)
            old.update(row)
            self._note(old)
        if not found:
            self.insert(row)

    def insert(self, row: Row) -> None:
        """Add a row.

        Raises:
            LimitError: The table is full.
        """
        if len(self.rows) >= TABLE_ROWS_MAX:
            raise LimitError(f"table {self.name} is full: {TABLE_ROWS_MAX} rows")
        self.rows.append(dict(row))
        self._note(self.rows[-1])

    def _forget(self, row: Row) -> None:
        for attribute, index in self._indexes.items():
            bucket = index.get(hashable(cell(row, attribute)), [])
            bucket[:] = [other for other in bucket if other is not row]

    def _note(self, row: Row) -> None:
        for attribute, index in self._indexes.items():
            value = cell(row, attribute)
            if value is not None:
                index.setdefault(hashable(value), []).append(row)

    def lookup(self, attribute: str, value: Any) -> Sequence[Row]:
        """The rows whose attribute equals the value, in order."""
        index = self._indexes.get(attribute)
        if index is None:
            index = self._indexes[attribute] = self._index(attribute)
        try:
            return index.get(value, ())
        except TypeError:
            return ()

    def _index(self, attribute: str) -> dict[Any, list[Row]]:
        index: dict[Any, list[Row]] = {}
        for row in self.rows:
            value = cell(row, attribute)
            if value is not None:
                index.setdefault(hashable(value), []).append(row)
        return index

    def keys(self, attribute: str) -> list[Any]:
        """The different values of an attribute, in the order of the rows."""
        if attribute not in self._indexes:
            self._indexes[attribute] = self._index(attribute)
        return [value for value, rows in self._indexes[attribute].items() if rows]

    def finder(self, attribute: str | None) -> Callable[[Any], bool | None]:
        """The function behind ``x in TABLE``: null for null. Without a known attribute the table's key counts."""

        def find(value: Any) -> bool | None:
            if value is None:
                return None
            return bool(self.lookup(self._attribute(attribute), value))

        return find

    def _attribute(self, wanted: str | None) -> str:
        first = self.rows[0] if self.rows else {}
        for name in (wanted, *_KEYS):
            if name is not None and name in first:
                return name
        return next(iter(first), wanted or "id")


def row_of(document: Mapping[str, Any], root: str | None) -> Row:
    """The row that an instance is, given as its JSON: what is below the root, ids and dates as texts."""
    body = document.get(root) if root is not None else None
    if isinstance(body, dict):
        body = {**body, "_id": document.get("_id")}
    else:
        body = {name: value for name, value in document.items() if name != "contextData"}
    return {name: _plain(value) for name, value in body.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(text := value.get("$oid", value.get("$date")), str):
            return text
        return {name: _plain(item) for name, item in value.items()}
    return nulls.plain(value)


def cell(row: Row, attribute: str) -> Any:
    """The value of an attribute of a row, which may be a path with dots."""
    value: Any = row
    for part in attribute.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
