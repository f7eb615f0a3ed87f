"""The parts of a SELECT, read once and checked, for the planners of plain and of grouped selects."""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from sib.errors import SqlSyntaxError
from sib.query.constructors import Clock
from sib.query.plan import Filter, Stage
from sib.query.sqlcolumns import Columns, Lookup, table_of
from sib.query.sqlfilter import NEVER, Filters
from sib.query.sqlparse import BOUND, refuse_arguments
from sib.query.sqlvalues import constant

MAX_ITEMS = 500
MAX_COUNT = 2**31 - 1

_ARGUMENTS = frozenset(
    {"expressions", "from_", "from", "where", "group", "having", "order", "limit", "offset", "distinct"}
)


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the select list: its expression and its alias."""

    node: exp.Expr
    alias: str | None


@dataclass(frozen=True, slots=True)
class Select:
    """The parts of a SELECT that all kinds share."""

    tree: exp.Expr
    columns: Columns
    filter: Filter
    items: tuple[Item, ...]
    order: tuple[tuple[exp.Expr, int], ...]
    skip: int
    limit: int | None
    now: Clock | None

    @property
    def ontology(self) -> str:
        return self.columns.ontology.name

    def window(self) -> list[Stage]:
        """OFFSET and LIMIT as stages."""
        stages: list[Stage] = [{"$skip": self.skip}] if self.skip else []
        if self.limit == 0:
            return [{"$match": NEVER}]
        return [*stages, {"$limit": self.limit}] if self.limit is not None else stages

    def match(self) -> list[Stage]:
        """WHERE as stages."""
        return [{"$match": self.filter}] if self.filter else []


def read_select(tree: exp.Expr, lookup: Lookup, now: Clock | None) -> Select:
    """The parts of a SELECT, with its names resolved against the ontology.

    Raises:
        SqlSyntaxError: it has a clause that is not accepted.
        UnknownFieldError, OntologyNotFoundError: it names what does not exist.
    """
    refuse_arguments(tree, _ARGUMENTS, "a select")
    source = tree.args.get("from_") or tree.args.get("from")
    name, alias = table_of(source.this if source is not None else None)
    columns = Columns(lookup(name), alias)
    items = tuple(Item(each.unalias(), each.alias or None) for each in tree.expressions)
    if not 1 <= len(items) <= MAX_ITEMS:
        raise SqlSyntaxError(f"A select takes 1 to {MAX_ITEMS} items.")
    _check_aliases(items)
    order = tree.args.get("order")
    return Select(
        tree=tree,
        columns=columns,
        filter=Filters(columns, now).where(tree.args.get("where")),
        items=items,
        order=tuple(_ordered(each, items) for each in (order.expressions if order is not None else ())),
        skip=_count(tree.args.get("offset"), now) or 0,
        limit=_count(tree.args.get("limit"), now),
        now=now,
    )


def path_in_order(node: exp.Expr, columns: Columns) -> str | None:
    """The field to order by; a path may stand in quotes. Source: Sofia2 manual, order by 'contextData.timestamp'."""
    node = node.unnest()
    if is_quoted_path(node):
        return columns.resolve_path(str(node.this))
    return columns.path(node)


def is_quoted_path(node: exp.Expr) -> bool:
    """Whether a text in quotes stands where a column is meant; the value of a parameter never does."""
    return isinstance(node, exp.Literal) and bool(node.args.get("is_string")) and not node.meta.get(BOUND)


def _ordered(node: exp.Expr, items: tuple[Item, ...]) -> tuple[exp.Expr, int]:
    direction = -1 if node.args.get("desc") else 1
    return resolve_item(node.this, items), direction


def resolve_item(node: exp.Expr, items: tuple[Item, ...]) -> exp.Expr:
    """What an alias or a position (``order by 2``) in ORDER BY, GROUP BY or HAVING stands for."""
    inner = node.unnest()
    if isinstance(inner, exp.Literal) and not inner.args.get("is_string"):
        if not inner.this.isdigit() or not 1 <= int(inner.this[:9]) <= len(items):
            raise SqlSyntaxError(f"There is no item {inner.this[:20]} in the select list.")
        return items[int(inner.this) - 1].node
    if isinstance(inner, exp.Column) and len(inner.parts) == 1:
        for item in items:
            if item.alias == inner.name:
                return item.node
    return inner


def _count(clause: exp.Expr | None, now: Clock | None) -> int | None:
    if clause is None:
        return None
    if isinstance(clause, exp.Fetch):
        raise SqlSyntaxError("FETCH is not accepted: write limit 10.")
    value = constant(clause.expression, now)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:20])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise SqlSyntaxError(f"LIMIT and OFFSET take a whole number from 0 to {MAX_COUNT}.")
    return value


def _check_aliases(items: tuple[Item, ...]) -> None:
    aliases = [item.alias for item in items if item.alias is not None]
    for alias in aliases:
        if "." in alias or alias.startswith("$") or "\0" in alias:
            raise SqlSyntaxError(f"The alias {alias[:60]!r} is not accepted: it gives a flat key, without '.' and '$'.")
    if len(set(aliases)) != len(aliases):
        raise SqlSyntaxError("Two items have the same alias.")
