"""Points, shapes and their relations, on the sphere (GeoJSON) and on the plane (legacy coordinates).

Source: MongoDB manual, "Geospatial Query Operators". Edges of GeoJSON shapes are great circles.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sib.errors import QuerySyntaxError
from sib.query.numbers import as_float
from sib.query.values import is_number

EARTH_RADIUS_M = 6_378_100.0
"""Equatorial radius in metres, as MongoDB uses it."""

MAX_POSITIONS = 10_000
"""Positions in one shape of a query."""

TOUCH_RADIANS = 1e-12

Position: TypeAlias = tuple[float, float]
Ring: TypeAlias = list[Position]
Vector: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Shape:
    """A GeoJSON geometry taken apart: its single points, its lines, and its polygons (outer ring first, then holes)."""

    points: tuple[Position, ...] = ()
    lines: tuple[Ring, ...] = ()
    polygons: tuple[tuple[Ring, ...], ...] = ()


def distance_radians(left: Position, right: Position) -> float:
    """The angle between two [longitude, latitude] positions in degrees (haversine)."""
    longitude_1, latitude_1, longitude_2, latitude_2 = map(math.radians, (*left, *right))
    half = (
        math.sin((latitude_2 - latitude_1) / 2) ** 2
        + math.cos(latitude_1) * math.cos(latitude_2) * math.sin((longitude_2 - longitude_1) / 2) ** 2
    )
    return 2 * math.asin(min(1.0, math.sqrt(half)))


def distance_m(left: Position, right: Position) -> float:
    """The distance in metres between two [longitude, latitude] positions in degrees."""
    return EARTH_RADIUS_M * distance_radians(left, right)


# Reading


def read_position(value: Any) -> Position | None:
    """The first two numbers of a coordinate array, or None."""
    if isinstance(value, (list, tuple)) and len(value) >= 2 and is_number(value[0]) and is_number(value[1]):
        x, y = as_float(value[0]), as_float(value[1])
        if math.isfinite(x) and math.isfinite(y):
            return x, y
    return None


def read_point(value: Any) -> Position | None:
    """A GeoJSON Point, a legacy pair ``[x, y]`` or a legacy object ``{lng: x, lat: y}``; else None."""
    if isinstance(value, dict):
        if "coordinates" in value:
            return read_position(value["coordinates"]) if value.get("type", "Point") == "Point" else None
        if len(value) < 2 or isinstance(value.get("type"), str):
            return None
        return read_position(list(value.values())[:2])
    return read_position(value)


def is_on_earth(position: Position) -> bool:
    """Whether longitude and latitude are within their limits."""
    return -180 <= position[0] <= 180 and -90 <= position[1] <= 90


def read_shape(value: Any) -> Shape | None:
    """A GeoJSON geometry or a legacy point as a Shape; None when it is neither or leaves the sphere."""
    if isinstance(value, dict) and isinstance(value.get("type"), str):
        try:
            shape = _read_geometry(value)
        except (KeyError, TypeError, ValueError):
            return None
        return shape if all(map(is_on_earth, positions_of(shape))) else None
    point = read_point(value)
    return Shape(points=(point,)) if point is not None and is_on_earth(point) else None


def _read_geometry(geometry: dict[str, Any], depth: int = 0) -> Shape:
    kind = geometry["type"]
    if kind == "GeometryCollection":
        if depth > 4:
            raise ValueError("collections inside collections")
        shapes = [_read_geometry(inner, depth + 1) for inner in geometry["geometries"]]
        return Shape(
            tuple(point for shape in shapes for point in shape.points),
            tuple(line for shape in shapes for line in shape.lines),
            tuple(polygon for shape in shapes for polygon in shape.polygons),
        )
    coordinates = geometry["coordinates"]
    if kind == "Point":
        return Shape(points=(_position(coordinates),))
    if kind == "MultiPoint":
        return Shape(points=tuple(map(_position, coordinates)))
    if kind == "LineString":
        return Shape(lines=(_line(coordinates),))
    if kind == "MultiLineString":
        return Shape(lines=tuple(map(_line, coordinates)))
    if kind == "Polygon":
        return Shape(polygons=(_polygon(coordinates),))
    if kind == "MultiPolygon":
        return Shape(polygons=tuple(map(_polygon, coordinates)))
    raise ValueError(f"unknown geometry {kind}")


def _position(value: Any) -> Position:
    position = read_position(value)
    if position is None:
        raise ValueError("not a position")
    return position


def _line(value: Any) -> Ring:
    line = [_position(item) for item in value]
    if len(line) < 2:
        raise ValueError("a line needs two positions")
    return line


def _polygon(value: Any) -> tuple[Ring, ...]:
    rings = tuple([_position(item) for item in ring] for ring in value)
    if not rings or any(len(ring) < 4 or ring[0] != ring[-1] for ring in rings):
        raise ValueError("a polygon needs closed rings of at least four positions")
    return rings


def positions_of(shape: Shape) -> Iterator[Position]:
    """Every position of the shape."""
    yield from shape.points
    for line in shape.lines:
        yield from line
    for polygon in shape.polygons:
        for ring in polygon:
            yield from ring


def shape_of_query(value: Any, operator: str) -> Shape:
    """The ``$geometry`` of a query.

    Raises:
        QuerySyntaxError: not a GeoJSON geometry, out of the sphere, or too large.
    """
    shape = read_shape(value) if isinstance(value, dict) and "type" in value else None
    if shape is None:
        raise QuerySyntaxError(
            f"{operator} needs a $geometry in GeoJSON with [longitude, latitude] positions and closed polygon rings, "
            f"not {str(value)[:200]}"
        )
    if sum(1 for _ in positions_of(shape)) > MAX_POSITIONS:
        raise QuerySyntaxError(f"{operator}: the shape has more than {MAX_POSITIONS} positions")
    return shape


# The sphere


def _vector(position: Position) -> Vector:
    longitude, latitude = math.radians(position[0]), math.radians(position[1])
    return (
        math.cos(latitude) * math.cos(longitude),
        math.cos(latitude) * math.sin(longitude),
        math.sin(latitude),
    )


def _cross(a: Vector, b: Vector) -> Vector:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def distance_to_segment_radians(point: Position, start: Position, end: Position) -> float:
    """The angle from a point to an arc of a great circle."""
    p, a, b = _vector(point), _vector(start), _vector(end)
    normal = _cross(a, b)
    length = math.sqrt(_dot(normal, normal))
    if length > 1e-15 and _dot(_cross(normal, a), p) > 0 and _dot(_cross(b, normal), p) > 0:
        return abs(math.asin(max(-1.0, min(1.0, _dot(normal, p) / length))))
    return min(distance_radians(point, start), distance_radians(point, end))


def _segments(line: Sequence[Position]) -> Iterator[tuple[Position, Position]]:
    return itertools.pairwise(line)


def _segments_meet(first: tuple[Position, Position], second: tuple[Position, Position]) -> bool:
    a, b, c, d = map(_vector, (*first, *second))
    ab, cd = _cross(a, b), _cross(c, d)
    side_c, side_d, side_a, side_b = _dot(ab, c), _dot(ab, d), _dot(cd, a), _dot(cd, b)
    if side_c * side_d < 0 and side_a * side_b < 0:
        # The great circles cross twice; both arcs must hold the same crossing.
        crossing = _cross(ab, cd)
        middle_1 = (a[0] + b[0], a[1] + b[1], a[2] + b[2])
        middle_2 = (c[0] + d[0], c[1] + d[1], c[2] + d[2])
        return _dot(crossing, middle_1) * _dot(crossing, middle_2) > 0
    return any(
        distance_to_segment_radians(point, *segment) <= TOUCH_RADIANS
        for point, segment in ((first[0], second), (first[1], second), (second[0], first), (second[1], first))
    )


def _inside_ring(point: Position, ring: Ring) -> bool:
    """Whether the point is in the ring or on it: counts the edges that its meridian crosses north of it."""
    longitude, latitude = point
    crossings = 0
    turns = 0.0
    for start, end in _segments(ring):
        if distance_to_segment_radians(point, start, end) <= TOUCH_RADIANS:
            return True
        width = _longitude_difference(start[0], end[0])
        turns += width
        from_start, from_end = _longitude_difference(longitude, start[0]), _longitude_difference(longitude, end[0])
        if (from_start > 0) == (from_end > 0) or abs(from_start - from_end) > 180:
            continue
        wide = math.radians(width)
        if abs(math.sin(wide)) < 1e-15:
            continue
        tangent = (
            math.tan(math.radians(start[1])) * math.sin(math.radians(from_end))
            - math.tan(math.radians(end[1])) * math.sin(math.radians(from_start))
        ) / math.sin(wide)
        if math.degrees(math.atan(tangent)) > latitude:
            crossings += 1
    north_is_inside = abs(turns) > 180 and sum(position[1] for position in ring) > 0
    return (crossings % 2 == 1) != north_is_inside


def _longitude_difference(start: float, end: float) -> float:
    return (end - start + 180) % 360 - 180


def _in_polygon(point: Position, polygon: tuple[Ring, ...]) -> bool:
    return _inside_ring(point, polygon[0]) and not any(
        _inside_ring(point, hole) and not _on_line(point, hole) for hole in polygon[1:]
    )


def _on_line(point: Position, line: Ring) -> bool:
    return any(distance_to_segment_radians(point, *segment) <= TOUCH_RADIANS for segment in _segments(line))


def _lines_of(shape: Shape) -> list[Ring]:
    return [*shape.lines, *(ring for polygon in shape.polygons for ring in polygon)]


def intersects(left: Shape, right: Shape) -> bool:
    """Whether the two share any point; touching counts."""
    for one, other in ((left, right), (right, left)):
        for point in one.points:
            if point in other.points or any(_on_line(point, line) for line in other.lines):
                return True
        starts = [*one.points, *(line[0] for line in one.lines), *(polygon[0][0] for polygon in one.polygons)]
        if any(_in_polygon(start, polygon) for start in starts for polygon in other.polygons):
            return True
    return _lines_cross(_lines_of(left), _lines_of(right), _segments_meet)


def _lines_cross(left: list[Ring], right: list[Ring], meet: Callable[[Any, Any], bool]) -> bool:
    segments = [segment for line in right for segment in _segments(line)]
    return any(meet(one, other) for line in left for one in _segments(line) for other in segments)


def is_within(inner: Shape, region: Shape) -> bool:
    """Whether all of the inner shape lies in the polygons of the region; its edge belongs to it."""
    if not all(any(_in_polygon(position, polygon) for polygon in region.polygons) for position in positions_of(inner)):
        return False
    edges = [segment for polygon in region.polygons for ring in polygon for segment in _segments(ring)]
    for line in _lines_of(inner):
        for start, end in _segments(line):
            if any(_segments_meet((start, end), edge) for edge in edges):
                middle = _middle(start, end)
                if not any(_in_polygon(middle, polygon) for polygon in region.polygons):
                    return False
    holes = [hole for polygon in region.polygons for hole in polygon[1:]]
    return not any(
        _in_polygon(hole[0], polygon) and not _on_line(hole[0], polygon[0])
        for hole in holes
        for polygon in inner.polygons
    )


def _middle(start: Position, end: Position) -> Position:
    a, b = _vector(start), _vector(end)
    x, y, z = a[0] + b[0], a[1] + b[1], a[2] + b[2]
    return math.degrees(math.atan2(y, x)), math.degrees(math.atan2(z, math.hypot(x, y)))


def distance_to_shape_m(point: Position, shape: Shape) -> float:
    """The least distance in metres from the point to the shape; 0 inside a polygon."""
    if any(_in_polygon(point, polygon) for polygon in shape.polygons):
        return 0.0
    distances = [distance_radians(point, other) for other in shape.points]
    distances += [
        distance_to_segment_radians(point, *segment) for line in _lines_of(shape) for segment in _segments(line)
    ]
    return EARTH_RADIUS_M * min(distances)


# The plane


def in_flat_polygon(point: Position, ring: Sequence[Position]) -> bool:
    """Whether the point is in the polygon of the plane, or on its edge; the ring closes by itself."""
    x, y = point
    inside = False
    for (x1, y1), (x2, y2) in zip(ring, [*ring[1:], ring[0]], strict=True):
        on_line = (x2 - x1) * (y - y1) == (y2 - y1) * (x - x1)
        if on_line and min(x1, x2) <= x <= max(x1, x2) and min(y1, y2) <= y <= max(y1, y2):
            return True
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            inside = not inside
    return inside
