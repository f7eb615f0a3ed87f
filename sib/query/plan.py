"""What a query text means, whatever language it was written in: one of seven small plans.

Filters, projections, pipelines and updates are MongoDB's, with BSON values (ObjectId, naive UTC datetime, Regex).
A plan may be shared by a cache: whoever receives one must not change what is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sib.errors import QuerySyntaxError

Filter = dict[str, Any]
Sort = tuple[tuple[str, Any], ...]
Stage = dict[str, Any]
Returned = Literal["ids", "before", "after"]

WRITING_STAGES = frozenset({"$out", "$merge"})


@dataclass(frozen=True, slots=True)
class Find:
    """Whole instances, or what the projection leaves of them; ``limit`` None: no limit but the row cap."""

    ontology: str
    filter: Filter = field(default_factory=dict)
    projection: dict[str, Any] | None = None
    sort: Sort = ()
    skip: int = 0
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A pipeline.

    ``scalar``: the answer is the only value of the only row, 0 if there is no row.
    ``empty_row``: the row to answer when the pipeline gives none (SQL aggregates without GROUP BY always give one row).
    """

    ontology: str
    pipeline: tuple[Stage, ...]
    scalar: bool = False
    empty_row: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """The number of matching instances after ``skip`` and ``limit``: a bare number."""

    ontology: str
    filter: Filter = field(default_factory=dict)
    skip: int = 0
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Distinct:
    """The different values of a field: a list of values, not of rows."""

    ontology: str
    field: str
    filter: Filter


@dataclass(frozen=True, slots=True)
class Insert:
    """Instances to insert, in extended JSON (dates as ``{"$date": ...}``): what ``Ontology.read`` takes."""

    ontology: str
    documents: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Update:
    """A change of the first match, or of all with ``multi``.

    ``replace_root``: ``update`` is a whole new instance (``_id`` and ``contextData`` stay as they are); otherwise it is
    a document of update operators or an update pipeline (a list). ``sort`` chooses the first match.
    ``returns``: what a QUERY with this plan answers: the ids, or the instance as it was before or is after.
    """

    ontology: str
    filter: Filter
    update: dict[str, Any] | list[Stage]
    multi: bool
    upsert: bool = False
    array_filters: tuple[Filter, ...] = ()
    replace_root: bool = False
    sort: Sort = ()
    returns: Returned = "ids"
    projection: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Removal of all matches, or of the first by ``sort``; ``returns`` "before": a QUERY answers what was removed."""

    ontology: str
    filter: Filter
    multi: bool = True
    sort: Sort = ()
    returns: Returned = "ids"
    projection: dict[str, Any] | None = None


Plan = Find | Aggregate | Count | Distinct | Insert | Update | Delete
Read = Find | Aggregate | Count | Distinct


def is_read(plan: Plan) -> bool:
    """Whether carrying out the plan changes nothing. A pipeline with ``$out`` or ``$merge`` is not a read."""
    if isinstance(plan, Aggregate):
        return not any(WRITING_STAGES.intersection(stage) for stage in plan.pipeline)
    return isinstance(plan, Find | Count | Distinct)


def condition_of(plan: Plan) -> Filter:
    """The condition of a subscription: order, limit, skip and projection do not count.

    Of a pipeline the leading ``$match`` stages count.

    Raises:
        QuerySyntaxError: the plan is a write.
    """
    if isinstance(plan, Find | Count | Distinct):
        return plan.filter
    if isinstance(plan, Aggregate) and is_read(plan):
        return _leading_match(plan.pipeline)
    raise QuerySyntaxError("A subscription takes a query: find, a criterion or a select, not a statement that writes.")


def shape(plan: Aggregate, rows: Sequence[Mapping[str, Any]]) -> Any:
    """The answer of an aggregate from its rows: the rows, the row for "nothing", or the bare number."""
    if plan.scalar:
        return next(iter(rows[0].values()), 0) if rows else 0
    if not rows and plan.empty_row is not None:
        return [dict(plan.empty_row)]
    return rows


def _leading_match(pipeline: Sequence[Stage]) -> Filter:
    filters: list[Filter] = []
    for stage in pipeline:
        if "$match" not in stage:
            break
        filters.append(stage["$match"])
    filters = [each for each in filters if each]
    return {"$and": filters} if len(filters) > 1 else filters[0] if filters else {}
