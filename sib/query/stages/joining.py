"""Stages that read other ontologies: ``$lookup``, ``$graphLookup``, ``$unionWith``; and ``$geoNear``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from sib.errors import QuerySyntaxError
from sib.query import geo
from sib.query.budget import Context
from sib.query.expressions import compile_expression
from sib.query.expressions.compiler import Expression, Scope, named_arguments
from sib.query.geo_operators import distance_at
from sib.query.matcher import compile_filter
from sib.query.numbers import as_float
from sib.query.paths import checked_parts, values_at
from sib.query.stages.registry import Document, Environment, Stage, compile_stages, stage
from sib.query.stages.shaping import set_at, whole_number
from sib.query.values import MISSING, SortKey, is_number, is_truthy, sort_key


class _Foreign:
    """The documents of another ontology, read once, with an index on one path."""

    def __init__(self, name: str, environment: Environment) -> None:
        self._name = name
        self._environment = environment
        self._documents: list[Document] | None = None
        self._index: dict[SortKey, list[int]] | None = None

    def documents(self) -> list[Document]:
        if self._documents is None:
            held: list[Document] = []
            for document in self._environment.collection(self._name):
                self._environment.context.budget.hold()
                held.append(document)
            self._documents = held
        return self._documents

    def positions(self, path: str, values: Iterable[Any]) -> list[int]:
        """Where the documents are whose path equals one of the values, in their order."""
        if self._index is None:
            self._index = {}
            for position, document in enumerate(self.documents()):
                self._environment.context.budget.spend()
                for key in {_key(value) for value in values_at(document, path)}:
                    self._index.setdefault(key, []).append(position)
        index = self._index
        return sorted({position for value in values for position in index.get(_key(value), ())})


def _key(value: Any) -> SortKey:
    return sort_key(None if value is MISSING else value)


def _local_values(document: Document, path: str) -> list[Any]:
    """What a document looks for: the elements of arrays, null where there is nothing."""
    found: list[Any] = []
    for value in values_at(document, path, expand=False):
        if isinstance(value, list):
            found.extend(value)
        else:
            found.append(None if value is MISSING else value)
    return found


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise QuerySyntaxError(f"{name} must be a string that is not empty")
    return value


@stage("$lookup")
def _lookup(spec: Any, environment: Environment) -> Stage:
    named = named_arguments("$lookup", spec, ("from", "as"), ("localField", "foreignField", "let", "pipeline"))
    if ("localField" in named) != ("foreignField" in named):
        raise QuerySyntaxError("$lookup needs localField and foreignField together")
    if "localField" not in named and "pipeline" not in named:
        raise QuerySyntaxError("$lookup needs localField and foreignField, or a pipeline")
    foreign = _Foreign(_text("$lookup: from", named["from"]), environment)
    target = checked_parts(named["as"], "$lookup: as")
    find = _equality_finder(named, foreign) if "localField" in named else lambda _document: foreign.documents()
    refine = _inner_pipeline(named, environment) if "pipeline" in named else None
    budget = environment.context.budget

    def run(documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            budget.spend()
            rows = find(document)
            yield set_at(document, target, rows if refine is None else refine(document, rows))

    return run


def _equality_finder(named: Mapping[str, Any], foreign: _Foreign) -> Callable[[Document], list[Document]]:
    local, other = (
        _text("$lookup: localField", named["localField"]),
        _text("$lookup: foreignField", named["foreignField"]),
    )

    def find(document: Document) -> list[Document]:
        positions = foreign.positions(other, _local_values(document, local))
        rows = foreign.documents()
        return [rows[position] for position in positions]

    return find


def _inner_pipeline(
    named: Mapping[str, Any], environment: Environment
) -> Callable[[Document, list[Document]], list[Document]]:
    """The pipeline of a ``$lookup``, with the variables of ``let`` made from each outer document."""
    context = environment.context
    let = named.get("let", {})
    if not isinstance(let, Mapping):
        raise QuerySyntaxError("$lookup: let needs an object")
    Scope(context).with_names(*let)
    made: list[tuple[str, Expression]] = [(name, compile_expression(value, context)) for name, value in let.items()]
    inner_context = Context(context.budget, context.now, {**context.variables, **dict.fromkeys(let)}, context.random)
    pipeline = compile_stages(named["pipeline"], environment.inner(inner_context))

    def refine(document: Document, rows: list[Document]) -> list[Document]:
        variables = {name: value(document, context.variables) for name, value in made}
        inner_context.variables = {**context.variables, **variables}
        inner_context.now = context.now
        held = context.budget.held
        found: list[Document] = []
        for row in pipeline(rows):
            context.budget.spend()
            found.append(row)
        context.budget.release_to(held)
        return found

    return refine


@stage("$graphLookup")
def _graph_lookup(spec: Any, environment: Environment) -> Stage:
    required = ("from", "startWith", "connectFromField", "connectToField", "as")
    named = named_arguments("$graphLookup", spec, required, ("maxDepth", "depthField", "restrictSearchWithMatch"))
    context = environment.context
    foreign = _Foreign(_text("$graphLookup: from", named["from"]), environment)
    start = compile_expression(named["startWith"], context)
    source, target = (_text(f"$graphLookup: {key}", named[key]) for key in ("connectFromField", "connectToField"))
    result = checked_parts(named["as"], "$graphLookup: as")
    deepest = whole_number("$graphLookup: maxDepth", named["maxDepth"], 0) if "maxDepth" in named else None
    depth_parts = checked_parts(named["depthField"], "$graphLookup: depthField") if "depthField" in named else None
    is_allowed = compile_filter(named.get("restrictSearchWithMatch"), context)

    def reach(document: Document) -> list[Document]:
        value = start(document, context.variables)
        frontier = list(value) if isinstance(value, list) else [] if value is MISSING else [value]
        depth_of: dict[int, int] = {}
        depth = 0
        while frontier and (deepest is None or depth <= deepest):
            rows = foreign.documents()
            reached: list[Any] = []
            for position in foreign.positions(target, frontier):
                context.budget.spend()
                if position not in depth_of and is_allowed(rows[position]):
                    depth_of[position] = depth
                    reached.extend(value for value in _local_values(rows[position], source) if value is not None)
            frontier = reached
            depth += 1
        found = [(foreign.documents()[position], level) for position, level in depth_of.items()]
        return [row if depth_parts is None else set_at(row, depth_parts, level) for row, level in found]

    def run(documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            context.budget.spend()
            yield set_at(document, result, reach(document))

    return run


@stage("$unionWith")
def _union_with(spec: Any, environment: Environment) -> Stage:
    named = {"coll": spec} if isinstance(spec, str) else named_arguments("$unionWith", spec, ("coll",), ("pipeline",))
    name = _text("$unionWith: coll", named["coll"])
    pipeline = compile_stages(named.get("pipeline", []), environment.inner())
    budget = environment.context.budget

    def run(documents: Iterable[Document]) -> Iterator[Document]:
        yield from documents
        for document in pipeline(environment.collection(name)):
            budget.spend()
            yield document

    return run


@stage("$geoNear")
def _geo_near(spec: Any, environment: Environment) -> Stage:
    optional = ("spherical", "maxDistance", "minDistance", "query", "distanceMultiplier", "includeLocs", "key")
    named = named_arguments("$geoNear", spec, ("near", "distanceField"), optional)
    context = environment.context
    path = named.get("key", environment.geo_path)
    if not isinstance(path, str):
        raise QuerySyntaxError(
            "$geoNear needs the path of the geometry in key: the ontology has not exactly one geo index"
        )
    center = geo.read_point(named["near"])
    if center is None or not geo.is_on_earth(center):
        raise QuerySyntaxError("$geoNear needs a GeoJSON Point or a pair [longitude, latitude] in near")
    measure = _measure(named, path, center)
    multiplier = _number("distanceMultiplier", named.get("distanceMultiplier", 1))
    least = _number("minDistance", named.get("minDistance", 0))
    most = _number("maxDistance", named.get("maxDistance", math.inf))
    matches = compile_filter(named.get("query"), context)
    distance_parts = checked_parts(named["distanceField"], "$geoNear: distanceField")
    locations = checked_parts(named["includeLocs"], "$geoNear: includeLocs") if "includeLocs" in named else None

    def run(documents: Iterable[Document]) -> Iterator[Document]:
        measured: list[tuple[float, Document]] = []
        for document in documents:
            context.budget.spend()
            distance = measure(document)
            if distance is None or not least <= distance <= most or not matches(document):
                continue
            context.budget.hold()
            made = set_at(document, distance_parts, distance * multiplier)
            if locations is not None:
                made = set_at(made, locations, values_at(document, path, expand=False)[0])
            measured.append((distance, made))
        measured.sort(key=lambda pair: pair[0])
        for _, document in measured:
            yield document

    return run


def _number(name: str, value: Any) -> float:
    if not is_number(value) or not as_float(value) >= 0:
        raise QuerySyntaxError(f"$geoNear: {name} must be a number that is not negative")
    return as_float(value)


def _measure(named: Mapping[str, Any], path: str, center: geo.Position) -> Callable[[Document], float | None]:
    """Metres for a GeoJSON point; radians for a legacy pair with ``spherical``, else degrees on the plane."""
    if isinstance(named["near"], Mapping) and "coordinates" in named["near"]:
        return lambda document: distance_at(document, path, center)
    if is_truthy(named.get("spherical", False)):

        def radians(document: Document) -> float | None:
            metres = distance_at(document, path, center)
            return None if metres is None else metres / geo.EARTH_RADIUS_M

        return radians

    def degrees(document: Document) -> float | None:
        points = (geo.read_point(value) for value in values_at(document, path, expand=False))
        return min((math.dist(center, point) for point in points if point is not None), default=None)

    return degrees
