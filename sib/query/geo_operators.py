"""The geospatial operators of filters, compiled to tests of one stored value, and the distances that ``$near`` sorts by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sib.errors import QuerySyntaxError
from sib.query import geo
from sib.query.numbers import as_float
from sib.query.paths import Predicate, values_at
from sib.query.values import is_number

NEAR_OPERATORS = ("$near", "$nearSphere")


@dataclass(frozen=True, slots=True)
class Near:
    """A ``$near`` or ``$nearSphere``: matches within the distances, nearest first.

    Attributes:
        center: [longitude, latitude] in degrees.
        max_distance_m: None is no bound.
    """

    path: str
    center: geo.Position
    min_distance_m: float
    max_distance_m: float | None

    def distance_m(self, document: Any) -> float | None:
        """The least distance in metres of the document's geometry at the path; None without one."""
        return distance_at(document, self.path, self.center)

    def is_match(self, distance_m: float | None) -> bool:
        """Whether a distance is within the bounds."""
        return (
            distance_m is not None
            and distance_m >= self.min_distance_m
            and (self.max_distance_m is None or distance_m <= self.max_distance_m)
        )


def distance_at(document: Any, path: str, center: geo.Position) -> float | None:
    """The least distance in metres from the center to the geometries that the document holds at the path."""
    distances = [
        geo.distance_to_shape_m(center, shape)
        for value in values_at(document, path, expand=False)
        for shape in _shapes(value)
    ]
    return min(distances, default=None)


def _shapes(value: Any) -> Iterator[geo.Shape]:
    shape = geo.read_shape(value)
    if shape is not None:
        yield shape
    elif isinstance(value, list):
        for element in value:
            shape = geo.read_shape(element)
            if shape is not None:
                yield shape


def _points(value: Any) -> Iterator[geo.Position]:
    point = geo.read_point(value)
    if point is not None:
        yield point
    elif isinstance(value, list):
        for element in value:
            point = geo.read_point(element)
            if point is not None:
                yield point


# $near


def find_near(filter_spec: Any) -> Near | None:
    """The ``$near`` or ``$nearSphere`` of a filter, which orders the result of a find; None if it has none.

    Raises:
        QuerySyntaxError: it is malformed, there are two, or it is inside ``$or`` or ``$nor``.
    """
    found = list(_nears(filter_spec)) if isinstance(filter_spec, Mapping) else []
    if len(found) > 1:
        raise QuerySyntaxError("a filter may hold only one $near or $nearSphere")
    return found[0] if found else None


def _nears(filter_spec: Mapping[str, Any]) -> Iterator[Near]:
    for path, condition in filter_spec.items():
        if path == "$and" and isinstance(condition, list):
            for clause in condition:
                if isinstance(clause, Mapping):
                    yield from _nears(clause)
        elif isinstance(condition, Mapping) and not path.startswith("$"):
            for operator in NEAR_OPERATORS:
                if operator in condition:
                    yield compile_near(path, operator, condition)


def compile_near(path: str, operator: str, condition: Mapping[str, Any]) -> Near:
    """Reads one ``$near``. Distances are metres with ``$geometry`` and radians with a legacy pair, as MongoDB has it."""
    argument = condition[operator]
    if isinstance(argument, Mapping) and "$geometry" in argument:
        _only(argument, {"$geometry", "$maxDistance", "$minDistance"}, operator)
        shape = geo.shape_of_query(argument["$geometry"], operator)
        if len(shape.points) != 1 or shape.lines or shape.polygons:
            raise QuerySyntaxError(f"{operator} needs one GeoJSON Point")
        center, unit_m, bounds = shape.points[0], 1.0, argument
    else:
        legacy = geo.read_point(argument)
        if legacy is None or not geo.is_on_earth(legacy):
            raise QuerySyntaxError(f"{operator} needs a GeoJSON Point in $geometry or a pair [longitude, latitude]")
        center, unit_m, bounds = legacy, geo.EARTH_RADIUS_M, condition
        if isinstance(argument, list) and len(argument) == 3 and is_number(argument[2]):
            bounds = {"$maxDistance": argument[2], **condition}
    maximum = bounds.get("$maxDistance")
    return Near(
        path,
        center,
        _distance(bounds.get("$minDistance", 0), "$minDistance") * unit_m,
        None if maximum is None else _distance(maximum, "$maxDistance") * unit_m,
    )


def _distance(value: Any, name: str) -> float:
    if not is_number(value) or not as_float(value) >= 0:
        raise QuerySyntaxError(f"{name} must be a number that is not negative")
    return as_float(value)


def _only(spec: Mapping[str, Any], allowed: set[str], operator: str) -> None:
    for name in spec:
        if name not in allowed:
            raise QuerySyntaxError(f"{operator} does not know {name!r}")


def near_test(near: Near) -> Predicate:
    """Whether one stored value is within the distances."""

    def test(value: Any) -> bool:
        return any(near.is_match(geo.distance_to_shape_m(near.center, shape)) for shape in _shapes(value))

    return test


def sort_by_distance(documents: Iterable[Any], near: Near) -> list[Any]:
    """The documents that match the near, nearest first. Keeps all of them in memory."""
    measured = [(near.distance_m(document), document) for document in documents]
    matching = [(distance, document) for distance, document in measured if near.is_match(distance)]
    matching.sort(key=lambda pair: pair[0] or 0.0)
    return [document for _, document in matching]


# $geoWithin and $geoIntersects


def compile_within(argument: Any, operator: str) -> Predicate:
    """``$geoWithin``: all of the stored geometry is in the region."""
    if not isinstance(argument, Mapping) or not argument:
        raise QuerySyntaxError(f"{operator} needs one of $geometry, $box, $polygon, $center, $centerSphere")
    if "$geometry" in argument:
        region = geo.shape_of_query(argument["$geometry"], operator)
        if not region.polygons or region.points or region.lines:
            raise QuerySyntaxError(f"{operator} needs a Polygon or MultiPolygon as its $geometry")
        return lambda value: any(geo.is_within(shape, region) for shape in _shapes(value))
    _only(argument, set(_FLAT_REGIONS), operator)
    if len(argument) != 1:
        raise QuerySyntaxError(f"{operator} takes one region")
    name, region_spec = next(iter(argument.items()))
    contains = _FLAT_REGIONS[name](region_spec)

    def test(value: Any) -> bool:
        if isinstance(value, dict) and value.get("type") not in (None, "Point") and name == "$centerSphere":
            shape = geo.read_shape(value)
            return shape is not None and all(map(contains, geo.positions_of(shape)))
        return any(map(contains, _points(value)))

    return test


def compile_intersects(argument: Any, operator: str) -> Predicate:
    """``$geoIntersects``: the stored geometry and the given one share a point."""
    if not isinstance(argument, Mapping) or set(argument) != {"$geometry"}:
        raise QuerySyntaxError(f"{operator} needs a $geometry")
    region = geo.shape_of_query(argument["$geometry"], operator)
    return lambda value: any(geo.intersects(shape, region) for shape in _shapes(value))


def _positions_of(spec: Any, least: int, name: str) -> list[geo.Position]:
    items = list(spec.values()) if isinstance(spec, Mapping) else spec
    positions = [geo.read_point(item) for item in items] if isinstance(items, list) else []
    known = [position for position in positions if position is not None]
    if len(known) < least or len(known) != len(positions) or len(known) > geo.MAX_POSITIONS:
        raise QuerySyntaxError(f"{name} needs {least} or more pairs of numbers")
    return known


def _box(spec: Any) -> Callable[[geo.Position], bool]:
    corners = _positions_of(spec, 2, "$box")
    if len(corners) != 2:
        raise QuerySyntaxError("$box needs two corners")
    (x1, y1), (x2, y2) = corners
    low_x, high_x, low_y, high_y = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
    return lambda point: low_x <= point[0] <= high_x and low_y <= point[1] <= high_y


def _polygon(spec: Any) -> Callable[[geo.Position], bool]:
    ring = _positions_of(spec, 3, "$polygon")
    return lambda point: geo.in_flat_polygon(point, ring)


def _circle(spec: Any, name: str) -> tuple[geo.Position, float]:
    if not isinstance(spec, list) or len(spec) != 2:
        raise QuerySyntaxError(f"{name} needs [[x, y], radius]")
    center = geo.read_point(spec[0])
    if center is None:
        raise QuerySyntaxError(f"{name} needs [[x, y], radius]")
    return center, _distance(spec[1], f"the radius of {name}")


def _center(spec: Any) -> Callable[[geo.Position], bool]:
    center, radius = _circle(spec, "$center")
    return lambda point: math.dist(point, center) <= radius


def _center_sphere(spec: Any) -> Callable[[geo.Position], bool]:
    center, radius = _circle(spec, "$centerSphere")
    if not geo.is_on_earth(center):
        raise QuerySyntaxError("$centerSphere needs [longitude, latitude] within their limits")
    return lambda point: geo.is_on_earth(point) and geo.distance_radians(point, center) <= radius


_FLAT_REGIONS: dict[str, Callable[[Any], Callable[[geo.Position], bool]]] = {
    "$box": _box,
    "$polygon": _polygon,
    "$center": _center,
    "$centerSphere": _center_sphere,
}
