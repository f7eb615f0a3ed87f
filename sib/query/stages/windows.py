"""``$setWindowFields``: running sums, moving averages, ranks and neighbours within sorted partitions.

Source: MongoDB manual, "$setWindowFields".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sib.errors import QuerySyntaxError
from sib.query.accumulator_specs import compile_accumulator
from sib.query.budget import check_made_value
from sib.query.expressions import compile_expression
from sib.query.expressions.compiler import named_arguments
from sib.query.paths import Parts, check_path_conflicts, checked_parts
from sib.query.sorting import read_sort, sort_documents
from sib.query.stages.registry import Document, Environment, Stage, stage
from sib.query.stages.shaping import set_at
from sib.query.values import MISSING, SortKey, sort_key
from sib.query.window_bounds import Window, read_window
from sib.query.window_functions import RANKS, WINDOW_FUNCTIONS, Partition, WindowFunction, compile_window_accumulator

MAX_OUTPUTS = 200
"""Output fields of one ``$setWindowFields``."""


@stage("$setWindowFields")
def _set_window_fields(spec: Any, environment: Environment) -> Stage:
    named = named_arguments("$setWindowFields", spec, ("output",), ("partitionBy", "sortBy"))
    context = environment.context
    sort = read_sort(named["sortBy"]) if named.get("sortBy") else []
    read_partition = compile_expression(named.get("partitionBy"), context)
    outputs = _read_outputs(named["output"], sort, environment)
    budget = context.budget

    def run(documents: Iterable[Document]) -> Iterator[Document]:
        partitions: dict[SortKey, list[Document]] = {}
        for document in documents:
            budget.hold()
            key = read_partition(document, context.variables)
            partitions.setdefault(sort_key(None if key is MISSING else key), []).append(document)
        for key in sorted(partitions):
            rows = sort_documents(partitions[key], sort) if sort else partitions[key]
            partition = Partition(rows, sort, context)
            columns = [(parts, compute(partition)) for parts, compute in outputs]
            for position, row in enumerate(rows):
                made = row
                for parts, values in columns:
                    made = set_at(made, parts, values[position])
                check_made_value(made, budget)
                yield made

    return run


def _read_outputs(
    spec: Any, sort: list[tuple[str, int]], environment: Environment
) -> list[tuple[Parts, WindowFunction]]:
    if not isinstance(spec, Mapping) or not 1 <= len(spec) <= MAX_OUTPUTS:
        raise QuerySyntaxError(f"$setWindowFields needs an output of 1 to {MAX_OUTPUTS} fields")
    outputs = [
        (checked_parts(path, "$setWindowFields"), _read_function(path, function, sort, environment))
        for path, function in spec.items()
    ]
    check_path_conflicts(
        [parts for parts, _ in outputs],
        lambda path, other: f"$setWindowFields names {path!r} and {other!r}, which overlap",
    )
    return outputs


def _read_function(path: str, spec: Any, sort: list[tuple[str, int]], environment: Environment) -> WindowFunction:
    if not isinstance(spec, Mapping):
        raise QuerySyntaxError(f"$setWindowFields: the output {path!r} needs a window operator")
    operators = [name for name in spec if name != "window"]
    if len(operators) != 1:
        raise QuerySyntaxError(f"$setWindowFields: the output {path!r} needs one window operator")
    name = operators[0]
    argument = spec[name]
    window: Window | None = read_window(spec["window"], sort) if "window" in spec else None
    if name in RANKS or name in WINDOW_FUNCTIONS:
        if not sort:
            raise QuerySyntaxError(f"{name} needs a sortBy")
        if name in RANKS:
            if window is not None or argument not in ({}, []):
                raise QuerySyntaxError(f"{name} takes an empty object and no window")
            return RANKS[name]
        return WINDOW_FUNCTIONS[name](name, argument, window, environment.context)
    accumulator = compile_accumulator(name, argument, environment.context)
    return compile_window_accumulator(accumulator, window or Window())
