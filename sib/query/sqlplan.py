"""SQL-like statements to plans.

Source: sofia2 documentation and clients for the forms; NULL logic, dates and nesting are those of the documents.
"""

from __future__ import annotations

from sqlglot import exp

from sib.errors import SqlSyntaxError
from sib.query.constructors import Clock
from sib.query.parameters import Parameters
from sib.query.plan import Plan
from sib.query.sqlcolumns import Lookup
from sib.query.sqlgroup import is_grouped, plan_groups
from sib.query.sqlparse import parse_sql
from sib.query.sqlrows import plan_rows
from sib.query.sqlselect import read_select
from sib.query.sqlwrite import plan_delete, plan_insert, plan_update


def plan_sql(text: str, *, lookup: Lookup, now: Clock | None = None, parameters: Parameters | None = None) -> Plan:
    """The plan of one SELECT, INSERT, UPDATE or DELETE.

    Args:
        text: the statement; the ontology that it names counts.
        lookup: gives the ontology of a name, or raises OntologyNotFoundError.
        now: the clock (naive UTC) for ``now()``; without it such a text is refused.
        parameters: typed values for ``{$name}`` (see ``bind_parameters``).

    Raises:
        SqlSyntaxError: the text cannot be read, or uses something that is refused.
        UnknownFieldError: it names a field that the ontology does not have.
        OntologyNotFoundError: from ``lookup``.
    """
    tree = parse_sql(text, parameters=parameters)
    try:
        return plan_tree(tree, lookup, now)
    except RecursionError:
        raise SqlSyntaxError("The statement is nested too deeply.") from None


def plan_tree(tree: exp.Expr, lookup: Lookup, now: Clock | None) -> Plan:
    """The plan of a parsed statement."""
    if isinstance(tree, exp.Insert):
        return plan_insert(tree, lookup, now)
    if isinstance(tree, exp.Update):
        return plan_update(tree, lookup, now)
    if isinstance(tree, exp.Delete):
        return plan_delete(tree, lookup, now)
    select = read_select(tree, lookup, now)
    return plan_groups(select) if is_grouped(select) else plan_rows(select)
