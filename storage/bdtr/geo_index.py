"""Boxes of longitude and latitude for the R*Tree of a geo index: around geometries, and around what a query seeks.

A box may be too large, never too small. Positions that are no place on Earth (some KPs send latitude first) get the box
of their bare numbers: only the flat operators can match them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sib.query import geo
from sib.query.geo_operators import compile_near
from sib.query.paths import values_at
from storage.bdtr.catalogue import IndexInfo

BOXES_PER_DOCUMENT_MAX = 255
"""An instance with more geometries gets one box that every query meets."""

_BOX_BITS = 8
_MARGIN = 1e-6
"""Degrees added on every side: more than the tolerance of "touches"."""
_EVERYWHERE = (-1e9, 1e9, -1e9, 1e9)

Box = tuple[float, float, float, float]
"""(least x, greatest x, least y, greatest y)"""
Row = tuple[int, float, float, float, float, int]


def create_statement(index: IndexInfo) -> str:
    """Makes the R*Tree; ``n`` is the change number of the instance and the number of the box in it."""
    return f"CREATE VIRTUAL TABLE {index.boxes.name} USING rtree(n, x1, x2, y1, y2, +seq INTEGER)"


def rows(seq: int, document: Mapping[str, Any], path: str) -> list[Row]:
    """The rows of a document; none if it has no geometry at the path."""
    boxes = list(_boxes_of(values_at(document, path)))
    if len(boxes) > BOXES_PER_DOCUMENT_MAX:
        boxes = [_EVERYWHERE]
    return [(seq << _BOX_BITS | number, *box, seq) for number, box in enumerate(boxes)]


def _boxes_of(values: Iterable[Any]) -> Iterator[Box]:
    for value in values:
        shape = geo.read_shape(value)
        if shape is not None:
            yield _around(shape) or _EVERYWHERE
            continue
        point = geo.read_point(value)
        if point is not None:
            yield _padded(point[0], point[0], point[1], point[1])


def _around(shape: geo.Shape) -> Box | None:
    """A box around a shape on the sphere; None when it may go round the back of the Earth or over a pole."""
    positions = list(geo.positions_of(shape))
    if not positions:
        return None
    west, east = min(p[0] for p in positions), max(p[0] for p in positions)
    south, north = min(p[1] for p in positions), max(p[1] for p in positions)
    if not shape.lines and not shape.polygons:
        return _padded(west, east, south, north)
    width = east - west
    if width >= 90:
        return None
    return _padded(west, east, -_bulge(-south, width), _bulge(north, width))


def _bulge(latitude: float, width: float) -> float:
    """How far north the great circle between two positions of one latitude comes, in degrees."""
    if latitude <= 0 or latitude >= 90:
        return latitude
    tangent = math.tan(math.radians(latitude)) / math.cos(math.radians(width / 2))
    return math.degrees(math.atan(tangent))


def _padded(west: float, east: float, south: float, north: float) -> Box:
    return west - _MARGIN, east + _MARGIN, south - _MARGIN, north + _MARGIN


def _circle(center: geo.Position, radius: float) -> list[Box] | None:
    """Boxes around a circle on the sphere; the radius is an angle in radians."""
    longitude, latitude = center
    reach = math.degrees(radius)
    if latitude + reach >= 90 or latitude - reach <= -90:
        return [_padded(-180, 180, latitude - reach, latitude + reach)]
    width = math.degrees(math.asin(min(1.0, math.sin(radius) / math.cos(math.radians(latitude)))))
    west, east, south, north = longitude - width, longitude + width, latitude - reach, latitude + reach
    boxes = [_padded(max(west, -180), min(east, 180), south, north)]
    if west < -180 + _MARGIN:
        boxes.append(_padded(west + 360, 180, south, north))
    if east > 180 - _MARGIN:
        boxes.append(_padded(-180, east - 360, south, north))
    return boxes


def query_boxes(path: str, condition: Mapping[str, Any]) -> list[Box] | None:
    """Boxes that hold everything a condition of operators can match; None if they would be no help.

    Raises:
        QuerySyntaxError: as the matcher does.
    """
    for operator in ("$near", "$nearSphere"):
        if operator in condition:
            near = compile_near(path, operator, condition)
            if near.max_distance_m is None:
                return None
            return _circle(near.center, near.max_distance_m / geo.EARTH_RADIUS_M)
    for operator in ("$geoWithin", "$within", "$geoIntersects"):
        region = condition.get(operator)
        if isinstance(region, Mapping):
            return _region_boxes(region, operator)
    return None


def _region_boxes(region: Mapping[str, Any], operator: str) -> list[Box] | None:
    if "$geometry" in region:
        box = _around(geo.shape_of_query(region["$geometry"], operator))
        return None if box is None else [box]
    if "$box" in region or "$polygon" in region:
        corners = region.get("$box", region.get("$polygon"))
        positions = [geo.read_point(corner) for corner in (corners.values() if isinstance(corners, dict) else corners)]
        known = [position for position in positions if position is not None]
        if not known:
            return None
        xs, ys = [p[0] for p in known], [p[1] for p in known]
        return [_padded(min(xs), max(xs), min(ys), max(ys))]
    circle = region.get("$center", region.get("$centerSphere"))
    if not isinstance(circle, list) or len(circle) != 2:
        return None
    center, radius = geo.read_point(circle[0]), float(circle[1])
    if center is None:
        return None
    if "$centerSphere" in region:
        return _circle(center, radius) if radius < math.pi / 2 else None
    return [_padded(center[0] - radius, center[0] + radius, center[1] - radius, center[1] + radius)]
