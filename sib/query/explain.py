"""Every stage of a query from its text to its plan, for ``sofia2 explain`` and for people who wonder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any, NamedTuple

from bson import json_util

from sib.query.constructors import Clock
from sib.query.native import is_empty, plan_native
from sib.query.parameters import Parameters
from sib.query.plan import Plan
from sib.query.relaxed import parse_relaxed
from sib.query.shell import is_statement, parse_statement
from sib.query.sqlcolumns import Lookup
from sib.query.sqlparse import normalise, parse_sql
from sib.query.sqlplan import plan_sql

MAX_TREE_CHARS = 20_000


class ExplainedStage(NamedTuple):
    """One stage: its title and what it made, as text."""

    title: str
    text: str


def explain_sql(
    text: str, *, lookup: Lookup, now: Clock | None = None, parameters: Parameters | None = None
) -> tuple[list[ExplainedStage], Plan]:
    """The stages of a SQL-like statement, and its plan. Raises as ``plan_sql`` does."""
    plan = plan_sql(text, lookup=lookup, now=now, parameters=parameters)
    tree = repr(parse_sql(text, parameters=parameters))
    return [
        ExplainedStage("normalised text", normalise(text, parameters).replace("\ue000", "{$").replace("\ue001", "}")),
        ExplainedStage("syntax tree", _shortened(tree)),
        ExplainedStage("plan", print_plan(plan)),
    ], plan


def explain_native(
    text: str, *, ontology: str | None, now: Clock | None = None, parameters: Parameters | None = None
) -> tuple[list[ExplainedStage], Plan]:
    """The stages of a native query, and its plan. Raises as ``plan_native`` does."""
    plan = plan_native(text, ontology=ontology, now=now, parameters=parameters)
    return [
        ExplainedStage("normalised text", text.strip().rstrip("; \t\r\n")),
        ExplainedStage("syntax tree", _shortened(_native_tree(text, now, parameters))),
        ExplainedStage("plan", print_plan(plan)),
    ], plan


def explain(
    text: str,
    query_type: str,
    *,
    lookup: Lookup,
    ontology: str | None = None,
    now: Clock | None = None,
    parameters: Parameters | None = None,
    stores: Iterable[Callable[[Plan], Iterable[tuple[str, str]]]] = (),
) -> list[ExplainedStage]:
    """All stages of a query: what the language makes of it, then what each store says that it would do.

    Args:
        text: the query.
        query_type: "NATIVE", or "SQLLIKE" or "SQL".
        lookup: gives the ontology of a name, or raises OntologyNotFoundError.
        ontology: the ontology of a criterion alone.
        now: the clock, naive UTC.
        parameters: typed values for ``{$name}``.
        stores: hooks that append (title, text) for a plan: indexes used, the SQL sent.

    Raises:
        SibError: the query is refused.
    """
    if query_type == "NATIVE":
        stages, plan = explain_native(text, ontology=ontology, now=now, parameters=parameters)
    else:
        stages, plan = explain_sql(text, lookup=lookup, now=now, parameters=parameters)
    for store in stores:
        stages += [ExplainedStage(title, told) for title, told in store(plan)]
    return stages


def print_plan(plan: Plan) -> str:
    """The plan as text: its kind, then one line or block of extended JSON per part that is set."""
    lines = [type(plan).__name__]
    for part in fields(plan):
        value = getattr(plan, part.name)
        if value is None or value is False or value in ((), 0):
            continue
        lines.append(f"  {part.name}: {_json(value)}")
    return "\n".join(lines)


def _json(value: Any) -> str:
    text: str = json_util.dumps(value, json_options=json_util.RELAXED_JSON_OPTIONS, ensure_ascii=False)
    return text


def _native_tree(text: str, now: Clock | None, parameters: Parameters | None) -> str:
    if is_statement(text):
        statement = parse_statement(text, now=now, parameters=parameters)
        calls = [f"  {call.name}({', '.join(_json(each) for each in call.arguments)})" for call in statement.calls]
        return "\n".join([f"collection {json.dumps(statement.collection)}", *calls])
    return (
        "criterion {}" if is_empty(text) else f"criterion {_json(parse_relaxed(text, now=now, parameters=parameters))}"
    )


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TREE_CHARS else f"{text[:MAX_TREE_CHARS]}\n... ({len(text)} characters)"
