"""Columns of SQL-like statements: which nodes of the tree name a field, and which field of the instance it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sqlglot import exp

from sib.errors import SqlSyntaxError
from sib.query.sqlparse import print_node, refuse, refuse_arguments

MAX_PATH_CHARS = 1000

_TABLE_ARGUMENTS = frozenset({"this", "alias"})


class OntologyColumns(Protocol):
    """What the planner must know of an ontology (``sib.ontology.Ontology`` is one)."""

    @property
    def name(self) -> str: ...
    def resolve_column(self, path: str) -> str: ...
    def is_date(self, path: str) -> bool: ...


Lookup = Callable[[str], OntologyColumns]


def is_path(node: exp.Expr) -> bool:
    """Whether the node names a field: ``a``, ``a.b.c``, ``a.b[0].c``."""
    return isinstance(node, exp.Column | exp.Dot | exp.Bracket) and not isinstance(node.this, exp.Star)


def raw_path(node: exp.Expr) -> str:
    """The path as it was written, with array indexes as segments (``a.b.0``)."""
    if isinstance(node, exp.Paren):
        return raw_path(node.this)
    if isinstance(node, exp.Column):
        path = ".".join(part.name for part in node.parts)
    elif isinstance(node, exp.Dot):
        path = f"{raw_path(node.this)}.{_segment(node.expression)}"
    elif isinstance(node, exp.Bracket):
        path = ".".join([raw_path(node.this), *(_segment(index) for index in node.expressions)])
    else:
        refuse(node, "The name of a field is needed, not")
    if len(path) > MAX_PATH_CHARS:
        raise SqlSyntaxError(f"A path longer than {MAX_PATH_CHARS} characters is refused.")
    return path


def table_of(node: exp.Expr | None) -> tuple[str, str | None]:
    """Name and alias of the one ontology that a statement is about."""
    if not isinstance(node, exp.Table) or not isinstance(node.this, exp.Identifier):
        raise SqlSyntaxError("The statement names one ontology, for example: select * from SensorTemperatura.")
    if node.args.get("db") or node.args.get("catalog"):
        raise SqlSyntaxError(f"The name of an ontology has no prefix: {node.name}, not {print_node(node)[:100]}.")
    refuse_arguments(node, _TABLE_ARGUMENTS, "the name of the ontology")
    return node.name, node.alias or None


class Columns:
    """The columns of one ontology, seen from a statement that may have given it an alias."""

    def __init__(self, ontology: OntologyColumns, alias: str | None = None) -> None:
        self.ontology = ontology
        self._alias = alias

    def resolve(self, node: exp.Expr) -> str:
        """The path in a stored instance. Raises UnknownFieldError if the ontology has none such."""
        return self.resolve_path(raw_path(node))

    def resolve_path(self, path: str) -> str:
        """As ``resolve``, for a path that was written in quotes."""
        first, _, rest = path.partition(".")
        if self._alias is not None and first == self._alias and rest:
            path = rest
        resolved = self.ontology.resolve_column(path)
        if "\0" in resolved or not all(segment and segment[0] != "$" for segment in resolved.split(".")):
            raise SqlSyntaxError(f"{path[:60]!a} is not the name of a field.")  # "$or" would be an operator
        return resolved

    def is_all(self, node: exp.Expr) -> bool:
        """Whether the item of a select is ``*``, or ``X.*`` of the ontology itself."""
        if isinstance(node, exp.Star):
            return not any(node.args.values())
        if not isinstance(node, exp.Column) or not isinstance(node.this, exp.Star):
            return False
        return node.table in (self._alias, self.ontology.name)

    def path(self, node: exp.Expr) -> str | None:
        """The field that the node names, None if it is something else."""
        return self.resolve(node) if is_path(node) else None

    def is_date(self, path: str) -> bool:
        return self.ontology.is_date(path)


def _segment(node: exp.Expr) -> str:
    if not isinstance(node, exp.Literal | exp.Identifier | exp.Var):
        refuse(node, "An index or a name is needed in a path, not")
    return str(node.this)
