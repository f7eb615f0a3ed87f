"""The values that go in and out of a BDTR store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

import bson

from sib.errors import ConfigurationError, DuplicateKeyError

_ANY_TIME = datetime(2000, 1, 1)
GEO = "2dsphere"
ID_INDEX = "_id_"
DOCUMENTS_KEPT_MAX = 10_000
"""Changed instances that the result of one update carries."""
DISTINCT_MAX = 100_000
"""Different values that ``distinct`` collects."""
PATH_LENGTH_MAX = 500
"""Characters of a path in an index."""


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """A declared index: its fields in order, each ascending (1), descending (-1) or ``"2dsphere"``.

    ``expire_after_s``: instances whose date in the (single) field is older are removed by ``expire``.
    """

    fields: tuple[tuple[str, int | str], ...]
    unique: bool = False
    sparse: bool = False
    expire_after_s: float | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", "_".join(f"{path}_{kind}" for path, kind in self.fields))
        if not self.fields:
            raise ConfigurationError(f"The index {self.name!r} has no fields; name at least one.")
        for path, kind in self.fields:
            if not path or len(path) > PATH_LENGTH_MAX or path.startswith("$") or kind not in (1, -1, GEO):
                raise ConfigurationError(
                    f"The index {self.name!r} has the field {path[:80]!r} of kind {kind!r}; "
                    f'allowed are a path of at most {PATH_LENGTH_MAX} characters with 1, -1 or "{GEO}".'
                )
        if any(path.split(".")[0] == "_id" for path in self.paths):
            raise ConfigurationError(
                f"The index {self.name!r} has the field _id, which is always indexed; leave it out."
            )
        if self.is_geo and len(self.fields) > 1:
            raise ConfigurationError(f'The index {self.name!r} mixes "{GEO}" with other fields; declare two indexes.')
        if self.expire_after_s is not None and (len(self.fields) > 1 or self.is_geo):
            raise ConfigurationError(f"The index {self.name!r} expires instances; that needs exactly one date field.")

    @property
    def is_geo(self) -> bool:
        return any(kind == GEO for _, kind in self.fields)

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(path for path, _ in self.fields)


class ChangeKind(StrEnum):
    """What happened to an instance."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


CHANGES_KEPT_MAX = 1_000_000
"""Changes kept for a consumer that is gone; older ones it never hears of."""


def heard_by_all(positions: Mapping[str, int], seq: int) -> int:
    """The change up to which every consumer has heard, of those up to ``seq``; one that is gone counts only so long.

    An insert is told from the instance itself: what is behind this number may not leave the store for the history.
    """
    return max(min(positions.values(), default=seq), seq - CHANGES_KEPT_MAX)


class Cause(NamedTuple):
    """When something was changed (ms since 1970), and the ``session_key`` of who did it; empty when it is not known."""

    at_ms: int = 0
    by: str = ""


UNKNOWN_CAUSE = Cause()


@dataclass(frozen=True, slots=True)
class Change:
    """One numbered change of a partition. An insert carries the document as it is now, a delete carries none.

    The contextData of an instance says who inserted it; ``cause`` is known of updates.
    """

    seq: int
    kind: ChangeKind
    collection: str
    document: dict[str, Any] | None
    id: Any
    cause: Cause = UNKNOWN_CAUSE


@dataclass(slots=True)
class WriteResult:
    """What an update did.

    ``ids`` are those of all matched instances (and of the upserted one). ``documents`` are the changed or upserted
    instances as they are now, ``before`` the changed ones as they were, in step; both are None when more than
    ``DOCUMENTS_KEPT_MAX`` were changed: read them from the change feed.
    """

    matched: int = 0
    modified: int = 0
    ids: list[Any] = field(default_factory=list)
    documents: list[dict[str, Any]] | None = field(default_factory=list)
    before: list[dict[str, Any]] | None = field(default_factory=list)
    upserted_id: Any = None


class DuplicatesInBatchError(DuplicateKeyError):
    """Some of the documents of an ``append`` break a unique index. Nothing of the batch was written.

    ``positions`` gives a sentence for each document that must be left out; the others may be appended again
    in the same transaction.
    """

    def __init__(self, message: str, positions: dict[int, str]) -> None:
        Exception.__init__(self, message, positions)

    @property
    def positions(self) -> dict[int, str]:
        positions: dict[int, str] = self.args[1]
        return positions

    def __str__(self) -> str:
        return str(self.args[0])


def context_head(context: dict[str, Any]) -> bytes:
    """The encoded ``contextData`` element of a session: what ``append`` takes as a head, encoded once a session.

    Its last nine bytes (time and end) are replaced by ``append`` with the time of the batch.
    """
    fields = {name: value for name, value in context.items() if name != "timestamp"}
    encoded: bytes = bson.encode({**fields, "timestamp": _ANY_TIME})
    return b"\x03contextData\0" + encoded
