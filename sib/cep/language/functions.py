"""What an expression may call: aggregates over a window, and functions of values, with their arguments and results."""

from __future__ import annotations

from dataclasses import dataclass

NUMBER, STRING, BOOL = "number", "string", "bool"


@dataclass(frozen=True, slots=True)
class Signature:
    """``result`` None = as its arguments. ``argument`` None = anything. ``arguments_max`` None = any number."""

    arguments_min: int
    arguments_max: int | None
    result: str | None
    argument: str | None = None


AGGREGATES = {
    "count": Signature(0, 1, NUMBER),
    "sum": Signature(1, 1, NUMBER, NUMBER),
    "avg": Signature(1, 1, NUMBER, NUMBER),
    "min": Signature(1, 1, None),
    "max": Signature(1, 1, None),
    "stddev": Signature(1, 1, NUMBER, NUMBER),
    "first": Signature(1, 1, None),
    "last": Signature(1, 1, None),
    "distinctcount": Signature(1, 1, NUMBER),
    "median": Signature(1, 1, NUMBER, NUMBER),
    "percentile": Signature(2, 2, NUMBER, NUMBER),
}

FUNCTIONS = {
    "coalesce": Signature(1, None, None),
    "ifthenelse": Signature(3, 3, None),
    "abs": Signature(1, 1, NUMBER, NUMBER),
    "round": Signature(1, 2, NUMBER, NUMBER),
    "floor": Signature(1, 1, NUMBER, NUMBER),
    "ceil": Signature(1, 1, NUMBER, NUMBER),
    "upper": Signature(1, 1, STRING, STRING),
    "lower": Signature(1, 1, STRING, STRING),
    "length": Signature(1, 1, NUMBER),
    "concat": Signature(1, None, STRING),
    "substring": Signature(2, 3, STRING),
    "tonumber": Signature(1, 1, NUMBER),
    "tostring": Signature(1, 1, STRING),
    "geodistance": Signature(2, 4, NUMBER),
    "geowithin": Signature(2, None, BOOL),
    "eventtime": Signature(0, 0, NUMBER),
    "lasteventtime": Signature(0, 0, NUMBER),
}

READABLE_NAMES = {
    "distinctcount": "distinctCount",
    "ifthenelse": "ifThenElse",
    "tonumber": "toNumber",
    "tostring": "toString",
    "geodistance": "geoDistance",
    "geowithin": "geoWithin",
    "eventtime": "eventTime",
    "lasteventtime": "lastEventTime",
}
"""Names that are not written in lower case."""

TIME_FUNCTIONS = frozenset({"eventtime", "lasteventtime"})
"""Functions of the match, not of values."""

WINDOWS: dict[str, tuple[tuple[str, ...], int]] = {
    "time": (("duration",), 1),
    "length": (("count",), 1),
    "timebatch": (("duration",), 1),
    "lengthbatch": (("count",), 1),
    "session": (("duration", "path"), 1),
    "hop": (("duration", "duration"), 2),
    "unique": (("path", "path", "path", "path"), 1),
    "externaltime": (("path", "duration"), 2),
}
"""Windows: what each argument is, and how many there must be."""
