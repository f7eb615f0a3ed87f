"""SELECT with aggregates, GROUP BY, HAVING or DISTINCT to a pipeline around one ``$group``."""

from __future__ import annotations

from typing import Any

from sqlglot import exp

from sib.errors import SqlSyntaxError
from sib.query.plan import Aggregate, Count, Plan, Stage
from sib.query.sqlcolumns import Columns, is_path
from sib.query.sqlexpr import Expressions
from sib.query.sqlfilter import Filters, conjunction
from sib.query.sqlparse import refuse
from sib.query.sqlrows import Rows, is_simple_path
from sib.query.sqlselect import Select, is_quoted_path, resolve_item

_SORT_FIELD = "__sort"
_ACCUMULATORS: dict[type[exp.Expr], str] = {
    exp.Sum: "$sum",
    exp.Avg: "$avg",
    exp.Min: "$min",
    exp.Max: "$max",
    exp.First: "$first",
    exp.Last: "$last",
    exp.StddevPop: "$stdDevPop",
    exp.Stddev: "$stdDevPop",
    exp.StddevSamp: "$stdDevSamp",
}


def is_grouped(select: Select) -> bool:
    """Whether the rows are groups of instances and not instances."""
    tree = select.tree
    if tree.args.get("group") or tree.args.get("having") or tree.args.get("distinct"):
        return True
    nodes = [*(item.node for item in select.items), *(node for node, _ in select.order)]
    return any(node.find(exp.AggFunc) is not None for node in nodes)


def plan_groups(select: Select) -> Plan:
    """The plan of a SELECT whose rows are groups. A count alone, without alias and GROUP BY, gives a bare number."""
    if select.tree.args.get("distinct"):
        return _plan_distinct(select)
    if any(select.columns.is_all(item.node) for item in select.items):
        raise SqlSyntaxError("A select with aggregates or GROUP BY names its items, not *.")
    is_bare = _is_bare_count(select)
    counted = _count_plan(select) if is_bare else None
    if counted is not None:
        return counted
    groups = Groups(select, _keys(select))
    rows = groups.rows()
    having = _having(select, groups)
    order = _order(select, groups)
    stages = [*groups.stages(), *([{"$match": having}] if having else []), *order, *select.window(), rows.project()]
    has_one_row = not groups.keys and not having and not select.skip and select.limit != 0
    return Aggregate(
        select.ontology,
        (*select.match(), *stages),
        scalar=is_bare,
        empty_row=_empty_row(select, rows) if has_one_row and not is_bare else None,
    )


class Groups:
    """The output of ``$group``: a scope in which group keys and aggregates are fields."""

    def __init__(self, select: Select, keys: list[exp.Expr]) -> None:
        self._select = select
        self._columns: Columns = select.columns
        self._instances = Expressions(select.columns, select.now)
        self.keys = {self._identity(key): (f"_id.k{number}", key) for number, key in enumerate(keys)}
        self._aggregates: dict[exp.Expr, tuple[str, dict[str, Any]]] = {}
        self._sets: list[str] = []

    def path(self, node: exp.Expr) -> str | None:
        """The field of the group that holds the node's value.

        Raises:
            SqlSyntaxError: the node is a column that is neither grouped by nor inside an aggregate.
        """
        key = self.keys.get(self._identity(node))
        if key is not None:
            return key[0]
        if isinstance(node, exp.AggFunc):
            return self._aggregate(node)
        if is_path(node):
            refuse(node, "A column beside aggregates must stand in GROUP BY or inside an aggregate")
        return None

    def is_date(self, path: str) -> bool:
        """Whether the field of the group holds dates: a key that does, or the least or greatest of some."""
        for name, node in [*self.keys.values(), *((name, node) for node, (name, _) in self._aggregates.items())]:
            source = node.this if isinstance(node, exp.Min | exp.Max | exp.First | exp.Last) else node
            if name == path and is_path(source):
                return self._columns.is_date(self._columns.resolve(source))
        return False

    def rows(self) -> Rows:
        """The keys of the rows: plain columns nested as in the instance, the rest flat."""
        rows = Rows()
        expressions = Expressions(self, self._select.now)
        for item in self._select.items:
            value = expressions.translate(item.node)
            if item.alias is None and is_simple_path(item.node):
                rows.add_nested(self._columns.resolve(item.node), value)
            else:
                rows.add_flat(item, value)
        return rows

    def stages(self) -> list[Stage]:
        """The ``$group``, and the sizes of what ``count(distinct x)`` has collected. Last, when all is registered."""
        # A missing value counts as null, so that both fall into one group.
        keys = {
            name.split(".")[1]: {"$ifNull": [self._instances.translate(node), None]}
            for name, node in self.keys.values()
        }
        group = {"_id": keys or None, **dict(self._aggregates.values())}
        sizes = {name: {"$size": {"$setDifference": [f"${name}", [None]]}} for name in self._sets}
        return [{"$group": group}, *([{"$addFields": sizes}] if sizes else [])]

    def _identity(self, node: exp.Expr) -> Any:
        """What two spellings of one thing share: ``Sensor.measure`` and ``measure`` are the same column."""
        node = node.unnest()
        return self._columns.resolve(node) if is_path(node) else node

    def _aggregate(self, node: exp.Expr) -> str:
        if node in self._aggregates:
            return self._aggregates[node][0]
        name = f"a{len(self._aggregates)}"
        if isinstance(node, exp.Count):
            is_set, accumulator = self._count(node)
            if is_set:
                self._sets.append(name)
        else:
            accumulator = self._accumulator(node)
        self._aggregates[node] = (name, accumulator)
        return name

    def _count(self, node: exp.Count) -> tuple[bool, dict[str, Any]]:
        argument = node.this
        if isinstance(argument, exp.Distinct):
            if len(argument.expressions) != 1:
                refuse(node, "count(distinct ...) takes one item")
            return True, {"$addToSet": self._instances.translate(argument.expressions[0])}
        if node.expressions:
            refuse(node, "count(...) takes one item")
        if argument is None or isinstance(argument, exp.Star | exp.Literal):
            return False, {"$sum": 1}
        is_present = {"$gt": [self._instances.translate(argument), None]}
        return False, {"$sum": {"$cond": [is_present, 1, 0]}}

    def _accumulator(self, node: exp.Expr) -> dict[str, Any]:
        operator = _ACCUMULATORS.get(type(node))
        argument = node.this
        if operator is not None and isinstance(argument, exp.Distinct) and operator in ("$min", "$max"):
            argument = argument.expressions[0]
        if operator is None or isinstance(argument, exp.Distinct):
            refuse(node, "This aggregate is not accepted; count, count(distinct), sum, avg, min, max, stddev are")
        return {operator: self._instances.translate(argument)}


def _keys(select: Select) -> list[exp.Expr]:
    group = select.tree.args.get("group")
    if group is None:
        return []
    extra = [name for name, value in group.args.items() if value and name != "expressions"]
    if extra:
        raise SqlSyntaxError(f"GROUP BY with {extra[0].upper()} is not accepted.")
    return [_key(resolve_item(node, select.items), select) for node in group.expressions]


def _key(node: exp.Expr, select: Select) -> exp.Expr:
    if node.find(exp.AggFunc) is not None:
        refuse(node, "GROUP BY takes columns and expressions, not aggregates")
    if is_quoted_path(node):
        return exp.Column(this=exp.to_identifier(str(node.this), quoted=True))
    return node


def _having(select: Select, groups: Groups) -> dict[str, Any]:
    clause = select.tree.args.get("having")
    if clause is None:
        return {}
    for column in [each for each in clause.find_all(exp.Column) if is_path(each)]:
        replacement = resolve_item(column, select.items)
        if replacement is not column:
            column.replace(replacement.copy())
    return Filters(groups, select.now).where(clause)


def _order(select: Select, groups: Groups) -> list[Stage]:
    expressions = Expressions(groups, select.now)
    keys: dict[str, int] = {}
    computed: dict[str, Any] = {}
    for node, direction in select.order:
        inner = node.unnest()
        path = groups.path(_key(inner, select) if is_quoted_path(inner) else inner)
        if path is None:
            path = f"{_SORT_FIELD}{len(computed)}"
            computed[path] = expressions.translate(node)
        keys.setdefault(path, direction)
    stages: list[Stage] = [{"$addFields": computed}] if computed else []
    return [*stages, {"$sort": keys}] if keys else []


def _is_bare_count(select: Select) -> bool:
    item = select.items[0]
    is_alone = len(select.items) == 1 and item.alias is None and isinstance(item.node, exp.Count)
    return is_alone and not select.tree.args.get("group") and not select.tree.args.get("having")


def _count_plan(select: Select) -> Plan | None:
    """``count(*)`` and ``count(column)`` as a count, which a store answers without reading rows."""
    argument = select.items[0].node.this
    if select.skip or select.limit == 0:
        return None
    if argument is None or isinstance(argument, exp.Star | exp.Literal):
        return Count(select.ontology, select.filter)
    if is_simple_path(argument):
        is_present = {select.columns.resolve(argument): {"$ne": None}}
        return Count(select.ontology, conjunction([select.filter, is_present]))
    return None


def _empty_row(select: Select, rows: Rows) -> dict[str, Any]:
    """The row of aggregates over no instance: counts are 0, the rest is null."""
    counts = [isinstance(item.node.unnest(), exp.Count) for item in select.items]
    return {key: 0 if is_count else None for key, is_count in zip(rows.keys, counts, strict=False)}


def _plan_distinct(select: Select) -> Plan:
    """Every item is a key of the group; ORDER BY may name items only."""
    if _is_aggregated(select):
        raise SqlSyntaxError(
            "DISTINCT beside aggregates or GROUP BY is not accepted; GROUP BY alone gives each group once."
        )
    if any(select.columns.is_all(item.node) for item in select.items):
        raise SqlSyntaxError("SELECT DISTINCT names its items: with * every row differs by its _id.")
    groups = Groups(select, [item.node for item in select.items])
    rows = groups.rows()
    order = _order(select, groups)
    return Aggregate(select.ontology, (*select.match(), *groups.stages(), *order, *select.window(), rows.project()))


def _is_aggregated(select: Select) -> bool:
    has_clause = bool(select.tree.args.get("group") or select.tree.args.get("having"))
    return has_clause or any(item.node.find(exp.AggFunc) is not None for item in select.items)
