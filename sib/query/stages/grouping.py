"""Stages that gather documents: ``$group``, buckets, ``$sortByCount`` and ``$facet``."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sib.errors import QueryError, QuerySyntaxError
from sib.query.accumulator_specs import AccumulatorSpec, compile_accumulators
from sib.query.accumulators import Accumulator
from sib.query.budget import check_made_value
from sib.query.expressions import compile_expression, evaluate_constant
from sib.query.expressions.compiler import named_arguments
from sib.query.sorting import sort_documents
from sib.query.stages.registry import Document, Environment, Stage, compile_stages, read_stage, stage
from sib.query.stages.shaping import whole_number
from sib.query.values import MISSING, SortKey, sort_key, type_order

COUNT_ONLY = {"count": {"$sum": 1}}
"""The output of buckets that name none."""

MAX_FACETS = 50
"""Pipelines of one ``$facet``."""

MAX_BUCKETS = 10_000
"""Buckets of one ``$bucket`` or ``$bucketAuto``."""

REFUSED_IN_FACET = frozenset(("$facet", "$geoNear", "$out", "$merge"))


class _Group:
    """One group: its key and its accumulators."""

    __slots__ = ("accumulators", "key")

    def __init__(self, key: Any, specs: list[tuple[str, AccumulatorSpec]]) -> None:
        self.key = key
        self.accumulators: list[Accumulator] = [spec.make() for _, spec in specs]

    def add(self, document: Document, specs: list[tuple[str, AccumulatorSpec]], variables: Mapping[str, Any]) -> None:
        for accumulator, (_, spec) in zip(self.accumulators, specs, strict=True):
            accumulator.add(spec.read(document, variables))

    def document(self, specs: list[tuple[str, AccumulatorSpec]]) -> Document:
        made: Document = {"_id": self.key}
        for accumulator, (name, _) in zip(self.accumulators, specs, strict=True):
            value = accumulator.result()
            if value is not MISSING:
                made[name] = value
        return made


@stage("$group")
def _group(spec: Any, environment: Environment) -> Stage:
    if not isinstance(spec, Mapping) or "_id" not in spec:
        raise QuerySyntaxError("$group needs an object with _id")
    context = environment.context
    read_key = compile_expression(spec["_id"], context)
    fields = {name: value for name, value in spec.items() if name != "_id"}
    specs = compile_accumulators(fields, context, "$group")

    def run(documents: Iterable[Document]) -> Iterator[Document]:
        groups: dict[SortKey, _Group] = {}
        variables, budget = context.variables, context.budget
        for document in documents:
            budget.spend()
            key = read_key(document, variables)
            if key is MISSING:
                key = None
            identity = sort_key(key)
            group = groups.get(identity)
            if group is None:
                budget.hold()
                group = groups[identity] = _Group(key, specs)
            group.add(document, specs, variables)
        for group in groups.values():
            made = group.document(specs)
            check_made_value(made, budget)
            yield made

    return run


@stage("$sortByCount")
def _sort_by_count(spec: Any, environment: Environment) -> Stage:
    return compile_stages(
        [{"$group": {"_id": spec, "count": {"$sum": 1}}}, {"$sort": {"count": -1}}], environment.inner()
    )


@stage("$bucket")
def _bucket(spec: Any, environment: Environment) -> Stage:
    named = named_arguments("$bucket", spec, ("groupBy", "boundaries"), ("default", "output"))
    context = environment.context
    boundaries = _read_boundaries(named["boundaries"], environment)
    keys = [sort_key(boundary) for boundary in boundaries]
    has_default = "default" in named
    default = evaluate_constant(named["default"], context) if has_default else MISSING
    if has_default and keys[0] <= sort_key(default) < keys[-1]:
        raise QuerySyntaxError("$bucket: the default must be outside the boundaries")
    read_value = compile_expression(named["groupBy"], context)
    specs = compile_accumulators(named.get("output", COUNT_ONLY), context, "$bucket")

    def run(documents: Iterable[Document]) -> Iterator[Document]:
        groups: dict[int, _Group] = {}
        for document in documents:
            context.budget.spend()
            key = sort_key(read_value(document, context.variables))
            at = bisect.bisect_right(keys, key) - 1 if keys[0] <= key < keys[-1] else -1
            if at < 0 and not has_default:
                raise QueryError("$bucket: a value is outside the boundaries and there is no default")
            if at not in groups:
                groups[at] = _Group(boundaries[at] if at >= 0 else default, specs)
            groups[at].add(document, specs, context.variables)
        made = [group.document(specs) for group in groups.values()]
        yield from sort_documents(made, {"_id": 1})

    return run


def _read_boundaries(spec: Any, environment: Environment) -> list[Any]:
    if not isinstance(spec, list) or not 2 <= len(spec) <= MAX_BUCKETS:
        raise QuerySyntaxError(f"$bucket needs 2 to {MAX_BUCKETS} boundaries")
    boundaries = [evaluate_constant(boundary, environment.context) for boundary in spec]
    if len({type_order(boundary) for boundary in boundaries}) > 1:
        raise QuerySyntaxError("$bucket needs boundaries of one type")
    keys = [sort_key(boundary) for boundary in boundaries]
    if any(low >= high for low, high in itertools.pairwise(keys)):
        raise QuerySyntaxError("$bucket needs boundaries in ascending order")
    return boundaries


@stage("$bucketAuto")
def _bucket_auto(spec: Any, environment: Environment) -> Stage:
    named = named_arguments("$bucketAuto", spec, ("groupBy", "buckets"), ("output", "granularity"))
    if "granularity" in named:
        raise QuerySyntaxError("$bucketAuto: granularity is not supported")
    buckets = whole_number("$bucketAuto", named["buckets"], 1)
    if buckets > MAX_BUCKETS:
        raise QuerySyntaxError(f"$bucketAuto makes at most {MAX_BUCKETS} buckets")
    context = environment.context
    read_value = compile_expression(named["groupBy"], context)
    specs = compile_accumulators(named.get("output", COUNT_ONLY), context, "$bucketAuto")

    def run(documents: Iterable[Document]) -> Iterator[Document]:
        valued: list[tuple[SortKey, Any, Document]] = []
        for document in documents:
            context.budget.hold()
            value = read_value(document, context.variables)
            value = None if value is MISSING else value
            valued.append((sort_key(value), value, document))
        valued.sort(key=lambda item: item[0])
        for rows, upper in _split_evenly(valued, buckets):
            group = _Group({"min": rows[0][1], "max": upper}, specs)
            for _, _, document in rows:
                context.budget.spend()
                group.add(document, specs, context.variables)
            yield group.document(specs)

    return run


def _split_evenly(
    valued: list[tuple[SortKey, Any, Document]], buckets: int
) -> Iterator[tuple[list[tuple[SortKey, Any, Document]], Any]]:
    """Parts of about equal size, equal values kept together, each with its upper bound (the next part's least value)."""
    size = max(1, int(len(valued) / buckets + 0.5))
    start = made = 0
    while start < len(valued):
        made += 1
        end = len(valued) if made == buckets else min(start + size, len(valued))
        while end < len(valued) and valued[end][0] == valued[end - 1][0]:
            end += 1
        yield valued[start:end], valued[end][1] if end < len(valued) else valued[end - 1][1]
        start = end


@stage("$facet")
def _facet(spec: Any, environment: Environment) -> Stage:
    if not isinstance(spec, Mapping) or not 1 <= len(spec) <= MAX_FACETS:
        raise QuerySyntaxError(f"$facet needs an object of 1 to {MAX_FACETS} pipelines")
    facets: list[tuple[str, Stage]] = []
    for name, stages in spec.items():
        if not isinstance(name, str) or not name or "." in name or name.startswith("$"):
            raise QuerySyntaxError(f"$facet: {name!r} must be a plain name")
        for inner in stages if isinstance(stages, list) else ():
            if read_stage(inner)[0] in REFUSED_IN_FACET:
                raise QuerySyntaxError(f"{read_stage(inner)[0]} cannot stand in $facet")
        facets.append((name, compile_stages(stages, environment.inner())))
    budget = environment.context.budget

    def run(documents: Iterable[Document]) -> Iterator[Document]:
        held: list[Document] = []
        for document in documents:
            budget.hold()
            held.append(document)
        made: Document = {}
        for name, pipeline in facets:
            rows = made[name] = []
            for row in pipeline(held):
                budget.hold()
                rows.append(row)
        check_made_value(made, budget)
        yield made

    return run
