"""Plans of the shell's reading methods: find, findOne, count, countDocuments, distinct, aggregate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sib.errors import QuerySyntaxError
from sib.query.arguments import (
    at_most,
    count_of,
    criterion,
    document,
    optional,
    options,
    pipeline_of,
    refuse_javascript,
    required,
    sort_of,
    type_in_words,
)
from sib.query.plan import Aggregate, Count, Distinct, Find, Plan
from sib.query.shell import Call, Statement

_COUNT_OPTIONS = frozenset({"limit", "skip"})
_WITHOUT_EFFECT = frozenset(
    {"pretty", "toArray", "batchSize", "maxTimeMS", "hint", "comment", "allowDiskUse", "readPref"}
)


def _find(statement: Statement) -> Plan:
    call, *cursor = statement.calls
    at_most(call, 3)
    projection = document(optional(call, 1, {}), "The projection")
    refuse_javascript(projection)
    plan = Find(statement.collection, criterion(optional(call, 0, {})), projection or None)
    return _apply_cursor(plan, cursor)


def _find_one(statement: Statement) -> Plan:
    plan = _find(Statement(statement.collection, statement.calls[:1]))
    refuse_more(statement.calls[0], statement.calls[1:])
    assert isinstance(plan, Find)
    return replace(plan, limit=1)


def _count(statement: Statement) -> Plan:
    call = statement.calls[0]
    refuse_more(call, statement.calls[1:])
    at_most(call, 2)
    bounds = options(call, 1, _COUNT_OPTIONS)
    return Count(
        statement.collection,
        criterion(optional(call, 0, {})),
        skip=count_of(bounds.get("skip", 0), "skip"),
        limit=count_of(bounds.get("limit", 0), "limit") or None,
    )


def _estimated_count(statement: Statement) -> Plan:
    refuse_more(statement.calls[0], statement.calls[1:])
    return Count(statement.collection)


def _distinct(statement: Statement) -> Plan:
    call = statement.calls[0]
    refuse_more(call, statement.calls[1:])
    at_most(call, 3)
    field = required(call, 0, "the path of a field")
    if not isinstance(field, str) or not field:
        raise QuerySyntaxError(f"distinct() takes the path of a field, not {type_in_words(field)}.")
    return Distinct(statement.collection, field, criterion(optional(call, 1, {})))


def _aggregate(statement: Statement) -> Plan:
    call = statement.calls[0]
    refuse_more(call, statement.calls[1:])
    # aggregate([stage, stage], options) and the old aggregate(stage, stage)
    stages = call.arguments[0] if call.arguments and isinstance(call.arguments[0], list) else call.arguments
    if stages is not call.arguments:
        at_most(call, 2)
        options(call, 1, frozenset())
    return Aggregate(statement.collection, pipeline_of(stages))


def refuse_more(first: Call, following: Sequence[Call]) -> None:
    """Refuse calls behind one that gives no cursor; what only formats is accepted."""
    for call in following:
        if call.name not in _WITHOUT_EFFECT:
            raise QuerySyntaxError(f".{call.name}() is not accepted after {first.name}().")


def _apply_cursor(plan: Find, calls: Sequence[Call]) -> Plan:
    """The plan after the cursor methods, in their order; of two of a kind the last one counts, as in MongoDB."""
    for number, call in enumerate(calls):
        if call.name in _COUNTING:
            refuse_more(call, calls[number + 1 :])
            return _counted(plan, call)
        if call.name in _WITHOUT_EFFECT:
            continue
        modify = _CURSOR_METHODS.get(call.name)
        if modify is None:
            accepted = ", ".join(sorted({*_CURSOR_METHODS, *_COUNTING, *_WITHOUT_EFFECT}))
            raise QuerySyntaxError(f".{call.name}() is not accepted after find(); accepted are {accepted}.")
        at_most(call, 1)
        plan = modify(plan, call)
    return plan


def _counted(plan: Find, call: Call) -> Count:
    """``count()`` leaves skip and limit out of account; ``count(true)`` and ``size()`` do not. Source: Mongo shell."""
    if call.name == "count" and optional(call, 0) is not True:
        return Count(plan.ontology, plan.filter)
    return Count(plan.ontology, plan.filter, plan.skip, plan.limit)


def _sort(plan: Find, call: Call) -> Find:
    return replace(plan, sort=sort_of(optional(call, 0, {})))


def _skip(plan: Find, call: Call) -> Find:
    return replace(plan, skip=count_of(required(call, 0, "a number"), "skip"))


def _limit(plan: Find, call: Call) -> Find:
    value: Any = required(call, 0, "a number")
    if isinstance(value, int | float) and value < 0:
        value = -value  # the shell: as many at once, then no more
    return replace(plan, limit=count_of(value, "limit") or None)


def _project(plan: Find, call: Call) -> Find:
    projection = document(required(call, 0, "a projection"), "The projection")
    refuse_javascript(projection)
    return replace(plan, projection=projection or None)


_COUNTING = frozenset({"count", "size", "itcount", "length"})
_CURSOR_METHODS: dict[str, Callable[[Find, Call], Find]] = {
    "sort": _sort,
    "skip": _skip,
    "limit": _limit,
    "projection": _project,
    "project": _project,
}
PLANNERS: dict[str, Callable[[Statement], Plan]] = {
    "find": _find,
    "findOne": _find_one,
    "count": _count,
    "countDocuments": _count,
    "estimatedDocumentCount": _estimated_count,
    "distinct": _distinct,
    "aggregate": _aggregate,
}
