"""Geographic queries: the index finds what the matcher finds, nearest first."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sib.query.matcher import compile_filter

MADRID, TOLEDO, LEON, SYDNEY = [-3.7038, 40.4168], [-4.0273, 39.8628], [-5.5671, 42.5987], [151.2093, -33.8688]
PLACES = {"Madrid": MADRID, "Toledo": TOLEDO, "León": LEON, "Sydney": SYDNEY}
EDGE = st.sampled_from([-180.0, -179.9, -90.0, 0.0, 89.9, 90.0, 179.9, 180.0])
LONGITUDES = st.one_of(EDGE, st.floats(-180, 180))
LATITUDES = st.one_of(st.sampled_from([-90.0, -89.9, 0.0, 89.9, 90.0]), st.floats(-90, 90))
POINTS = st.tuples(LONGITUDES, LATITUDES).map(list)
STORED = st.one_of(
    POINTS.map(lambda point: {"type": "Point", "coordinates": point}),
    POINTS,
    POINTS.map(lambda point: {"type": "Point", "coordinates": point[::-1]}),  # latitude first: no place on Earth
    st.lists(POINTS, min_size=2, max_size=3).map(lambda line: {"type": "LineString", "coordinates": line}),
    st.just("nowhere"),
)
SQUARES = st.tuples(st.floats(-170, 160), st.floats(-80, 70), st.floats(0.5, 20)).map(
    lambda corner: [
        [corner[0], corner[1]],
        [corner[0] + corner[2], corner[1]],
        [corner[0] + corner[2], corner[1] + corner[2] / 2],
        [corner[0], corner[1] + corner[2] / 2],
        [corner[0], corner[1]],
    ]
)
CONDITIONS = st.one_of(
    st.builds(
        lambda point, far: {"$near": {"$geometry": {"type": "Point", "coordinates": point}, "$maxDistance": far}},
        POINTS,
        st.floats(0, 25_000_000),
    ),
    st.builds(lambda point, far: {"$nearSphere": point, "$maxDistance": far}, POINTS, st.floats(0, 4)),
    SQUARES.map(lambda ring: {"$geoWithin": {"$geometry": {"type": "Polygon", "coordinates": [ring]}}}),
    SQUARES.map(lambda ring: {"$geoIntersects": {"$geometry": {"type": "Polygon", "coordinates": [ring]}}}),
    st.builds(lambda low, high: {"$geoWithin": {"$box": [low, high]}}, POINTS, POINTS),
    st.builds(lambda point, radius: {"$geoWithin": {"$center": [point, radius]}}, POINTS, st.floats(0, 200)),
    st.builds(lambda point, angle: {"$geoWithin": {"$centerSphere": [point, angle]}}, POINTS, st.floats(0, 3)),
)


@pytest.fixture
def places(collection):
    collection.create_index([("where", "2dsphere")])
    collection.insert_many(
        [{"name": name, "where": {"type": "Point", "coordinates": at}} for name, at in PLACES.items()]
    )
    return collection


def near(point, **bounds):
    return {"where": {"$near": {"$geometry": {"type": "Point", "coordinates": point}, **bounds}}}


def test_the_nearest_come_first(places):
    assert [document["name"] for document in places.find(near(MADRID))] == ["Madrid", "Toledo", "León", "Sydney"]


@pytest.mark.adapters("sqlite", "mariadb", "postgresql", "oracle")
def test_a_greatest_distance_is_looked_up_in_the_index(places):
    cursor = places.find(near(MADRID, **{"$maxDistance": 100_000}))

    assert "geo index" in cursor.explain()[0]
    assert [document["name"] for document in cursor] == ["Madrid", "Toledo"]


def test_near_with_a_limit_gives_the_nearest_of_all(places):
    assert [document["name"] for document in places.find(near(TOLEDO)).limit(2)] == ["Toledo", "Madrid"]


def test_an_update_moves_an_instance_and_a_delete_removes_it(places):
    places.update_one({"name": "Sydney"}, {"$set": {"where.coordinates": TOLEDO}})
    places.delete_one({"name": "Toledo"})

    assert [document["name"] for document in places.find(near(TOLEDO, **{"$maxDistance": 1000}))] == ["Sydney"]
    assert places.count_documents(near(SYDNEY, **{"$maxDistance": 1000})) == 0


def test_a_point_that_is_no_place_on_earth_is_stored(places):
    places.insert_one({"name": "turned", "where": {"type": "Point", "coordinates": [1, 178]}})

    assert places.find_one({"name": "turned"})["where"]["coordinates"] == [1, 178]
    assert places.count_documents(near([1, 17.8], **{"$maxDistance": 20_000_000})) == 4
    assert places.count_documents({"where": {"$geoWithin": {"$box": [[0, 100], [2, 180]]}}}) == 1


def test_an_index_on_present_documents_finds_them(collection):
    collection.insert_many([{"name": name, "where": at} for name, at in PLACES.items()])
    collection.create_index([("where", "2dsphere")])

    assert [document["name"] for document in collection.find(near(LEON, **{"$maxDistance": 1000}))] == ["León"]
    collection.drop_index("where_2dsphere")
    assert [document["name"] for document in collection.find(near(LEON, **{"$maxDistance": 1000}))] == ["León"]


def test_geo_near_uses_the_one_geo_index(places):
    stage = {"near": {"type": "Point", "coordinates": MADRID}, "distanceField": "far", "spherical": True}

    assert [row["name"] for row in places.aggregate([{"$geoNear": stage}])] == ["Madrid", "Toledo", "León", "Sydney"]


@pytest.mark.adapters("sqlite", "mariadb", "postgresql", "oracle")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(stored=st.lists(STORED, max_size=15), condition=CONDITIONS)
def test_the_index_changes_no_answer(collection, stored, condition):
    collection.create_index([("where", "2dsphere")])
    collection.delete_many({})
    collection.insert_many([{"n": number, "where": where} for number, where in enumerate(stored)])
    matches = compile_filter({"where": condition})

    expected = {document["n"] for document in collection.find() if matches(document)}

    assert {document["n"] for document in collection.find({"where": condition})} == expected
