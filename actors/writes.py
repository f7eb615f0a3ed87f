"""What a partition is told to write and what it answers: light, because gateways and everybody else who writes loads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import bson

from actors.feed import Announcement
from sib.errors import SibError

INSERT, UPDATE, DELETE, INSERT_ALL, INSERT_ONCE = 0, 1, 2, 3, 4
"""Kinds of a write: INSERT carries the instance's text, INSERT_ALL a JSON array of instances, INSERT_ONCE the 12 bytes of an
``_id`` before the text, the others a BSON command."""
NO_CONSUMER = -1
"""As ``acked`` of a write: the caller is told of no changes."""
WRITE_OVERHEAD_BYTES = 16
"""What a write takes in the message of its batch beside its data; a session key comes on top once for each session."""


class WriteBatch(NamedTuple):
    """The writes of one call, position by position."""

    kinds: bytes
    session_keys: list[str]
    ontologies: list[str]
    data: list[bytes]


class Outcome(NamedTuple):
    """What became of a batch: small when all went well.

    ``runs``: generated ids, as (first number, positions); None for all positions that are not in ``failures``.
    ``results``: for other kinds than INSERT, the affected ids by position.
    """

    machine: bytes
    runs: list[tuple[int, list[int] | None]]
    failures: dict[int, SibError]
    results: dict[int, list[Any]]
    announcement: Announcement | None


def encode_update(
    filter_: Mapping[str, Any],
    *,
    update: Any = None,
    replacement: str | None = None,
    multi: bool,
    upsert: bool = False,
    array_filters: Iterable[Mapping[str, Any]] = (),
    sort: Iterable[tuple[str, int]] = (),
) -> bytes:
    """The command of an UPDATE write: ``replacement`` (an instance's text) or ``update`` (operators or a pipeline)."""
    command = {"filter": filter_, "update": update, "multi": multi, "upsert": upsert}
    command["array_filters"] = list(array_filters)
    command["sort"] = [list(item) for item in sort]
    if replacement is not None:
        command["replacement"] = replacement
    return bytes(bson.encode(command))


def encode_delete(filter_: Mapping[str, Any], *, multi: bool, sort: Iterable[tuple[str, int]] = ()) -> bytes:
    """The command of a DELETE write."""
    return bytes(bson.encode({"filter": filter_, "multi": multi, "sort": [list(item) for item in sort]}))
