"""The SELECT of an ontology's own columns, for those who want instances and write no statement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from sqlglot import exp

from sib.errors import UnknownFieldError
from sib.ontology import Ontology
from storage.bdh import names
from storage.bdh.columns import CONTEXT, Layout, layout_of
from storage.bdh.intervals import EVER, Intervals
from storage.bdh.scan import literal, quote
from storage.bdh.sql import FIRST_SOURCE, Scope, Source, Statement


def table_statement(
    ontology: Ontology,
    needed: Intervals,
    condition: tuple[str, exp.Expr] | None = None,
    columns: Sequence[str] | None = None,
) -> Statement:
    """A SELECT of an ontology's own columns, for times and a condition.

    Raises:
        UnknownFieldError: there is no such column.
    """
    source = Source(FIRST_SOURCE, ontology, layout_of(ontology), Scope.HISTORY, None, needed=needed)
    conditions = []
    if condition is not None:
        source.conditions.append(condition[1])
        conditions.append(f"({condition[0]})")
    if needed != EVER:
        conditions.append(_within(needed))
    items = ", ".join(_items(ontology, source.layout, columns))
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return Statement([source], [], False, f"SELECT {items} FROM {quote(source.name)}{where}")


def _items(ontology: Ontology, columns: Layout, wanted: Sequence[str] | None) -> Iterator[str]:
    if wanted is None:
        yield from (quote(name) for name in columns.arrow().names)
        return
    if not wanted:
        raise UnknownFieldError("Name at least one column, or give no columns for all.")
    for name in wanted:
        found = names.find(name.split("."), ontology, columns)
        path = ".".join(map(quote, found.path))
        if found.rest:
            inside = "$" + "".join(f'."{part}"' for part in found.rest)
            path = f"json_extract_string({path}, {literal(inside)})"
        yield f"{path} AS {quote(name)}"


def _within(needed: Intervals) -> str:
    moment = f"{quote(CONTEXT)}.{quote('timestamp')}"
    ranges = []
    for start, end in needed:
        bounds = [] if start == datetime.min else [f"{moment} >= TIMESTAMP '{start}'"]
        bounds += [] if end == datetime.max else [f"{moment} < TIMESTAMP '{end}'"]
        ranges.append(f"({' AND '.join(bounds)})" if bounds else "true")
    return f"({' OR '.join(ranges)})" if ranges else "false"
