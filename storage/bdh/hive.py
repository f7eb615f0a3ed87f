"""What Hive writes otherwise than DuckDB, as far as sqlglot carries it over as it is. On a statement's tree, in place."""

from __future__ import annotations

from sqlglot import exp

_DEFAULT_FORMAT = "%Y-%mstrict-%dstrict %Hstrict:%Mstrict:%Sstrict"
"""sqlglot's for ``unix_timestamp`` without a format: Hive then takes a timestamp as well as its text."""
_UNITS = {"MM": "MONTH", "MON": "MONTH", "YY": "YEAR", "YYYY": "YEAR", "Q": "QUARTER"}


def to_duckdb(tree: exp.Expr) -> exp.Expr:
    """The statement as DuckDB writes it."""
    for node in list(tree.find_all(exp.Group, exp.TimestampTrunc, exp.StrToUnix)):
        if isinstance(node, exp.Group):
            _group(node)
        elif isinstance(node, exp.TimestampTrunc):
            unit = _UNITS.get(node.text("unit").upper())
            if unit is not None:
                node.set("unit", exp.var(unit))
        elif node.text("format") == _DEFAULT_FORMAT:
            seconds = exp.func(
                "floor", exp.func("epoch", exp.TryCast(this=node.this, to=exp.DataType.build("timestamp")))
            )
            node.replace(exp.cast(seconds, "bigint"))
    return tree


def _group(group: exp.Group) -> None:
    """``GROUP BY a, b WITH ROLLUP``, ``WITH CUBE``, ``GROUPING SETS (…)``: the columns belong to what follows them."""
    for name in ("rollup", "cube", "grouping_sets"):
        parts = group.args.get(name)
        if not parts or not group.expressions:
            continue
        if not parts[0].expressions:
            parts[0].set("expressions", group.expressions)
        group.set("expressions", [])
