"""SQL-like statements on a database without ontologies: any path is allowed, dates are told from the stored documents."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from sib.query import plan as plans
from sib.query.extended import from_extended
from sib.query.paths import values_at
from sib.query.sqlplan import plan_sql

if TYPE_CHECKING:
    from sofia2.bdtr.database import Database

SAMPLE_DOCUMENTS = 50
"""Documents looked at to learn whether a field holds dates."""


class _Documents:
    """What the planner asks of an ontology. The prefix of a column is the documents' root element, never an alias."""

    def __init__(self, database: Database, name: str) -> None:
        self.name = name
        self._database = database

    def resolve_column(self, path: str) -> str:
        return path

    def is_date(self, path: str) -> bool:
        sample = islice(self._database.store.find(self.name, {}, limit=SAMPLE_DOCUMENTS), SAMPLE_DOCUMENTS)
        return any(isinstance(value, datetime) for document in sample for value in values_at(document, path))


def run_sql(database: Database, text: str) -> Any:
    """Carries out one statement; see ``Collection.sql``."""
    plan = plan_sql(text, lookup=lambda name: _Documents(database, name), now=database.now)
    match plan:
        case plans.Insert():
            documents = [_stored(document) for document in plan.documents]
            return len(database[plan.ontology].insert_many(documents).inserted_ids)
        case plans.Update():
            return database[plan.ontology].update_many(plan.filter, plan.update, plan.upsert).matched_count
        case plans.Delete():
            return database[plan.ontology].delete_many(plan.filter).deleted_count
        case _:
            return _read(database, plan)


def _read(database: Database, plan: plans.Read) -> Any:
    collection = database[plan.ontology]
    match plan:
        case plans.Count():
            return collection.count_documents(plan.filter, skip=plan.skip, limit=plan.limit or 0)
        case plans.Distinct():
            return collection.distinct(plan.field, plan.filter)
        case plans.Aggregate():
            return plans.shape(plan, list(collection.aggregate(list(plan.pipeline))))
        case plans.Find():
            cursor = collection.find(plan.filter, plan.projection).sort(list(plan.sort)).skip(plan.skip)
            return [] if plan.limit == 0 else list(cursor.limit(plan.limit or 0))


def _stored(value: Any) -> Any:
    """BSON values of extended JSON."""
    if isinstance(value, Mapping):
        converted = from_extended(dict(value))
        if isinstance(converted, dict):
            return {name: _stored(member) for name, member in converted.items()}
        return converted
    return [_stored(member) for member in value] if isinstance(value, list) else value
