"""Geospatial operators."""

# ruff: noqa: E501 - a row of a table stays on its line

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sib.errors import QuerySyntaxError
from sib.query import geo
from sib.query.geo_operators import find_near, sort_by_distance
from sib.query.matcher import compile_filter

MADRID, BARCELONA, VALLADOLID, PARIS = [-3.7038, 40.4168], [2.1734, 41.3851], [-4.7245, 41.6523], [2.3522, 48.8566]
CITIES = {"Madrid": MADRID, "Barcelona": BARCELONA, "Valladolid": VALLADOLID, "Paris": PARIS}


def point(position):
    return {"type": "Point", "coordinates": position}


DOCUMENTS = [{"_id": name, "loc": point(position)} for name, position in CITIES.items()]
SPAIN = {"type": "Polygon", "coordinates": [[[-10, 36], [4, 36], [4, 43.5], [-10, 43.5], [-10, 36]]]}
SPAIN_WITHOUT_MADRID = {
    "type": "Polygon",
    "coordinates": [*SPAIN["coordinates"], [[-4, 40], [-3, 40], [-3, 41], [-4, 41], [-4, 40]]],
}
SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]]}


def matching(condition, documents=DOCUMENTS):
    matches = compile_filter({"loc": condition})
    return {document["_id"] for document in documents if matches(document)}


def holds(condition, value):
    return compile_filter({"loc": condition})({"loc": value})


@pytest.mark.parametrize(
    ("left", "right", "metres"),
    [
        (MADRID, BARCELONA, 505_500),
        ([0, 0], [1, 0], 6_378_100 * math.pi / 180),
        ([0, 0], [0, 1], 6_378_100 * math.pi / 180),
        ([179.5, 0], [-179.5, 0], 6_378_100 * math.pi / 180),
        ([0, 90], [0, -90], 6_378_100 * math.pi),
    ],
)
def test_distance(left, right, metres):
    assert geo.distance_m(tuple(left), tuple(right)) == pytest.approx(metres, rel=2e-3)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"$geoWithin": {"$geometry": SPAIN}}, {"Madrid", "Barcelona", "Valladolid"}),
        ({"$geoWithin": {"$geometry": SPAIN_WITHOUT_MADRID}}, {"Barcelona", "Valladolid"}),
        ({"$geoWithin": {"$geometry": {"type": "MultiPolygon", "coordinates": [SPAIN["coordinates"]]}}}, {"Madrid", "Barcelona", "Valladolid"}),
        ({"$geoIntersects": {"$geometry": SPAIN}}, {"Madrid", "Barcelona", "Valladolid"}),
        ({"$geoIntersects": {"$geometry": point(PARIS)}}, {"Paris"}),
        ({"$geoWithin": {"$box": [[-5, 40], [0, 42]]}}, {"Madrid", "Valladolid"}),
        ({"$geoWithin": {"$polygon": [[-5, 40], [0, 40], [0, 42], [-5, 42]]}}, {"Madrid", "Valladolid"}),
        ({"$geoWithin": {"$center": [MADRID, 2]}}, {"Madrid", "Valladolid"}),
        ({"$geoWithin": {"$centerSphere": [MADRID, 200_000 / 6_378_100]}}, {"Madrid", "Valladolid"}),
        ({"$geoWithin": {"$centerSphere": [MADRID, 100_000 / 6_378_100]}}, {"Madrid"}),
        ({"$near": {"$geometry": point(MADRID), "$maxDistance": 200_000}}, {"Madrid", "Valladolid"}),
        ({"$near": {"$geometry": point(MADRID), "$minDistance": 1000, "$maxDistance": 200_000}}, {"Valladolid"}),
        ({"$nearSphere": {"$geometry": point(MADRID), "$minDistance": 300_000}}, {"Barcelona", "Paris"}),
        ({"$near": MADRID, "$maxDistance": 200_000 / 6_378_100}, {"Madrid", "Valladolid"}),
        ({"$nearSphere": MADRID, "$maxDistance": 200_000 / 6_378_100, "$minDistance": 0.001}, {"Valladolid"}),
        ({"$near": {"$geometry": point(MADRID)}}, set(CITIES)),
        ({"$not": {"$geoWithin": {"$geometry": SPAIN}}}, {"Paris"}),
    ],
)  # fmt: skip
def test_points(condition, expected):
    assert matching(condition) == expected


@pytest.mark.parametrize(
    "stored",
    [point([5, 5]), [5, 5], {"lng": 5, "lat": 5}, [[50, 50], [5, 5]], [point([50, 50]), point([5, 5])]],
)
def test_forms_of_stored_points(stored):
    assert holds({"$geoWithin": {"$geometry": SQUARE}}, stored)
    assert holds({"$geoWithin": {"$box": [[0, 0], [10, 10]]}}, stored)
    assert holds({"$near": {"$geometry": point([5, 5]), "$maxDistance": 10}}, stored)
    assert not holds({"$geoWithin": {"$geometry": SPAIN}}, stored)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        5,
        "x",
        [],
        [1],
        ["a", "b"],
        {},
        {"type": "Point"},
        point([1]),
        point(["a", 2]),
        {"type": "Nothing", "coordinates": []},
    ],
)
def test_what_is_no_geometry_never_matches(stored):
    for condition in (
        {"$geoWithin": {"$geometry": SQUARE}},
        {"$geoIntersects": {"$geometry": SQUARE}},
        {"$geoWithin": {"$center": [[0, 0], 90]}},
        {"$near": {"$geometry": point([0, 0])}},
    ):
        assert not holds(condition, stored)


def test_a_point_off_the_sphere_is_only_on_the_plane():
    stored = point([1, 178])
    assert not holds({"$near": {"$geometry": point([0, 0])}}, stored)
    assert not holds({"$geoWithin": {"$geometry": SQUARE}}, stored)
    assert holds({"$geoWithin": {"$box": [[0, 170], [10, 180]]}}, stored)


LINE = {"type": "LineString", "coordinates": [[5, 5], [15, 5]]}


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (LINE, SQUARE, True),
        ({"type": "LineString", "coordinates": [[-5, 5], [15, 5]]}, SQUARE, True),
        ({"type": "LineString", "coordinates": [[11, 5], [15, 5]]}, SQUARE, False),
        (LINE, {"type": "LineString", "coordinates": [[10, 0], [10, 10]]}, True),
        (LINE, {"type": "LineString", "coordinates": [[10, 6], [10, 10]]}, False),
        (point([10, 10]), SQUARE, True),
        (point([5, 0]), SQUARE, True),
        (point([11, 5]), SQUARE, False),
        ({"type": "Polygon", "coordinates": [[[2, 2], [3, 2], [3, 3], [2, 2]]]}, SQUARE, True),
        ({"type": "Polygon", "coordinates": [[[-2, -2], [13, -2], [13, 13], [-2, 13], [-2, -2]]]}, SQUARE, True),
        ({"type": "Polygon", "coordinates": [[[9, 9], [20, 9], [20, 20], [9, 9]]]}, SQUARE, True),
        ({"type": "Polygon", "coordinates": [[[19, 9], [29, 9], [29, 20], [19, 9]]]}, SQUARE, False),
        ({"type": "MultiPoint", "coordinates": [[50, 50], [1, 1]]}, SQUARE, True),
        ({"type": "MultiLineString", "coordinates": [[[50, 50], [51, 51]], [[-1, 1], [1, 1]]]}, SQUARE, True),
        ({"type": "GeometryCollection", "geometries": [point([50, 50]), point([1, 1])]}, SQUARE, True),
    ],
)  # fmt: skip
def test_intersection_is_symmetric(left, right, expected):
    assert holds({"$geoIntersects": {"$geometry": right}}, left) is expected
    assert holds({"$geoIntersects": {"$geometry": left}}, right) is expected


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (LINE, False),
        ({"type": "LineString", "coordinates": [[1, 1], [9, 9]]}, True),
        ({"type": "Polygon", "coordinates": [[[2, 2], [3, 2], [3, 3], [2, 2]]]}, True),
        ({"type": "Polygon", "coordinates": [[[9, 9], [20, 9], [20, 20], [9, 9]]]}, False),
        ({"type": "Polygon", "coordinates": [[[-2, -2], [13, -2], [13, 13], [-2, 13], [-2, -2]]]}, False),
        ({"type": "MultiPoint", "coordinates": [[50, 50], [1, 1]]}, False),
        ({"type": "MultiPoint", "coordinates": [[2, 2], [1, 1]]}, True),
        (SQUARE, True),
    ],
)
def test_within(inner, expected):
    assert holds({"$geoWithin": {"$geometry": SQUARE}}, inner) is expected


def test_edges_are_great_circles():
    wide = {"type": "Polygon", "coordinates": [[[-60, 0], [60, 0], [60, 50], [-60, 50], [-60, 0]]]}
    assert holds({"$geoWithin": {"$geometry": wide}}, [0, 60])  # the northern edge bulges to the pole
    assert not holds({"$geoWithin": {"$polygon": [[-60, 0], [60, 0], [60, 50], [-60, 50]]}}, [0, 60])


def test_over_the_date_line():
    pacific = {"type": "Polygon", "coordinates": [[[170, -10], [-170, -10], [-170, 10], [170, 10], [170, -10]]]}
    assert holds({"$geoWithin": {"$geometry": pacific}}, [179, 0])
    assert holds({"$geoWithin": {"$geometry": pacific}}, [-175, 5])
    assert not holds({"$geoWithin": {"$geometry": pacific}}, [0, 0])
    assert not holds({"$geoWithin": {"$geometry": pacific}}, [160, 0])


def test_around_the_pole():
    arctic = {"type": "Polygon", "coordinates": [[[0, 70], [120, 70], [-120, 70], [0, 70]]]}
    assert holds({"$geoWithin": {"$geometry": arctic}}, [45, 89])
    assert not holds({"$geoWithin": {"$geometry": arctic}}, [45, 10])


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ({"$geoWithin": {}}, "$geoWithin"),
        ({"$geoWithin": {"$geometry": {"type": "Point", "coordinates": [1, 1]}}}, "Polygon"),
        ({"$geoWithin": {"$geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [2, 2]]]}}}, "closed"),
        ({"$geoWithin": {"$box": [[1, 1]]}}, "$box"),
        ({"$geoWithin": {"$center": [[1, 1], -1]}}, "$center"),
        ({"$geoWithin": {"$polygon": [[1, 1], [2, 2]]}}, "$polygon"),
        ({"$geoIntersects": {"$box": [[0, 0], [1, 1]]}}, "$geoIntersects"),
        ({"$near": {"$geometry": SQUARE}}, "Point"),
        ({"$near": "x"}, "$near"),
        ({"$near": {"$geometry": point([0, 0]), "$maxDistance": -1}}, "$maxDistance"),
        ({"$near": {"$geometry": point([0, 0]), "$foo": 1}}, "$foo"),
        ({"$near": {"$geometry": point([500, 0])}}, "$near"),
        ({"$maxDistance": 5}, "$maxDistance"),
    ],
)
def test_wrong_geometry_is_refused(condition, words):
    with pytest.raises(QuerySyntaxError) as caught:
        compile_filter({"loc": condition})
    assert words in str(caught.value)


def test_near_orders_by_distance():
    near = find_near({"x": 1, "$and": [{"loc": {"$near": {"$geometry": point(MADRID), "$maxDistance": 600_000}}}]})
    ordered = sort_by_distance(DOCUMENTS, near)
    assert [document["_id"] for document in ordered] == ["Madrid", "Valladolid", "Barcelona"]
    assert find_near({"x": {"$gt": 1}}) is None


def test_two_nears_are_refused():
    with pytest.raises(QuerySyntaxError, match="only one"):
        find_near({"a": {"$near": [0, 0]}, "b": {"$near": [0, 0]}})


LONGITUDES, LATITUDES = st.floats(-170, 170), st.floats(-80, 80)


@given(st.tuples(LONGITUDES, LATITUDES), st.tuples(LONGITUDES, LATITUDES))
def test_distance_is_symmetric_and_zero_only_at_home(left, right):
    assert geo.distance_m(left, right) == pytest.approx(geo.distance_m(right, left))
    assert geo.distance_m(left, left) == 0


@given(st.tuples(LONGITUDES, LATITUDES), st.floats(0.01, 5), st.floats(0.5, 1))
def test_the_middle_of_a_box_is_in_it_and_a_far_point_is_not(center, width, ratio):
    x, y = center
    left, right, low, high = x - width, x + width, y - width * ratio, y + width * ratio
    ring = [[left, low], [right, low], [right, high], [left, high], [left, low]]
    inside = compile_filter({"loc": {"$geoWithin": {"$geometry": {"type": "Polygon", "coordinates": [ring]}}}})
    assert inside({"loc": list(center)})
    assert not inside({"loc": [x, -y if abs(y) > 20 else 85]})
