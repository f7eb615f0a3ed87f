"""What writes answer: the attributes of pymongo's results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sib.errors import SibError


@dataclass(frozen=True, slots=True)
class InsertOneResult:
    """Of ``insert_one``."""

    inserted_id: Any
    acknowledged: bool = True


@dataclass(frozen=True, slots=True)
class InsertManyResult:
    """Of ``insert_many``."""

    inserted_ids: list[Any]
    acknowledged: bool = True


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """Of ``update_one``, ``update_many`` and ``replace_one``; a no-op has modified nothing."""

    matched_count: int
    modified_count: int
    upserted_id: Any = None
    acknowledged: bool = True


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """Of ``delete_one`` and ``delete_many``."""

    deleted_count: int
    acknowledged: bool = True


@dataclass(slots=True)
class BulkWriteResult:
    """Of ``bulk_write``; ``upserted_ids`` by position."""

    inserted_count: int = 0
    matched_count: int = 0
    modified_count: int = 0
    deleted_count: int = 0
    upserted_count: int = 0
    upserted_ids: dict[int, Any] = field(default_factory=dict)
    acknowledged: bool = True


class BulkWriteError(SibError):
    """Some operations of a bulk write failed: ``errors`` by position; ``result`` says what the others did."""

    code, status = "store.bulk_write", 400

    def __init__(self, message: str, errors: dict[int, str], result: BulkWriteResult) -> None:
        Exception.__init__(self, message, errors, result)

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def errors(self) -> dict[int, str]:
        errors: dict[int, str] = self.args[1]
        return errors

    @property
    def result(self) -> BulkWriteResult:
        result: BulkWriteResult = self.args[2]
        return result
