"""SQL-like statements carried out on a few instances with the exact engine: what a client gets to see."""

import json
from datetime import datetime

import pytest
from bson import ObjectId

from sib.errors import OntologyNotFoundError
from sib.ontology.ontology import compile_ontology
from sib.query.matcher import compile_filter
from sib.query.pipeline import run_pipeline
from sib.query.plan import Aggregate, Count, Delete, Find, Insert, Update, shape
from sib.query.projection import compile_projection
from sib.query.sorting import sort_documents
from sib.query.sqlplan import plan_sql
from sib.query.updater import compile_update

NOW = datetime(2014, 5, 1)
ROOTED = {
    "$schema": "http://json-schema.org/draft-04/schema#",
    "type": "object",
    "properties": {"Sensor": {"type": "string", "$ref": "#/datos"}},
    "required": ["Sensor"],
    "additionalProperties": False,
    "datos": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "assetId": {"type": "string"},
            "measure": {"type": "number"},
            "timestamp": {"type": "object", "properties": {"$date": {"type": "string", "format": "date-time"}}},
            "geometry": {
                "type": "object",
                "properties": {"coordinates": {"type": "array"}, "type": {"type": "string"}},
            },
            "tags": {"type": "array", "items": {"type": "object", "properties": {"k": {}, "v": {}}}},
        },
    },
}
FLAT = {
    "type": "object",
    "properties": {name: {} for name in ("stationName", "Genre", "Movie", "n", "flag", "text", "a", "b", "key")},
}
ONTOLOGIES = {
    "SensorTemperatura": compile_ontology("SensorTemperatura", json.dumps(ROOTED)),
    "Feed": compile_ontology("Feed", json.dumps(FLAT)),
}


def _id(number: int) -> ObjectId:
    return ObjectId(f"{number:024x}")


def _sensor(number: int, asset: str, measure: object, day: int) -> dict:
    document: dict = {
        "_id": _id(number),
        "contextData": {"user": "sofia", "timestamp": datetime(2014, 4, day, 12)},
        "Sensor": {"assetId": asset, "measure": measure, "timestamp": datetime(2014, 4, day)},
    }
    if measure is None:
        del document["Sensor"]["measure"]
    return document


SENSORS = [
    _sensor(1, "S_1", 10, 1),
    _sensor(2, "S_1", 20.5, 2),
    _sensor(3, "S_2", 30, 3),
    _sensor(4, "S%2", 7, 4),
    _sensor(5, "x'y", None, 5),
]
SENSORS[0]["Sensor"]["geometry"] = {"coordinates": [40.5, -3.6], "type": "Point"}
SENSORS[1]["Sensor"]["geometry"] = {"coordinates": [10.5, 3.6], "type": "Point"}
SENSORS[2]["Sensor"]["tags"] = [{"k": "a", "v": 1}, {"k": "b", "v": 2}]
FEED = [
    {"_id": 1, "stationName": "Valladolid", "Genre": "drama", "Movie": "A", "n": 1, "flag": True, "text": "one"},
    {"_id": 2, "stationName": "Madrid", "Genre": "drama", "Movie": "B", "n": 2, "flag": False, "text": "two\nlines"},
    {"_id": 3, "stationName": "Madrid", "Genre": "comedy", "Movie": "A", "n": 3, "text": None},
    {"_id": 4, "stationName": "León", "Genre": "drama", "Movie": "A", "n": None},
    {"_id": 5, "Movie": None, "n": -4, "a": 2, "b": 2, "key": "k"},
    {"_id": 6, "n": 5, "a": 1, "b": 2},
]
COLLECTIONS = {"SensorTemperatura": SENSORS, "Feed": FEED}


def lookup(name: str):
    if name not in ONTOLOGIES:
        raise OntologyNotFoundError(f"No ontology {name}.")
    return ONTOLOGIES[name]


def answer(text: str):
    """What the statement gives: rows or a number; for writes the ids that it concerns."""
    plan = plan_sql(text, lookup=lookup, now=lambda: NOW)
    documents = COLLECTIONS[plan.ontology]
    if isinstance(plan, Aggregate):
        rows = list(run_pipeline(documents, list(plan.pipeline), collection=COLLECTIONS.__getitem__, now=NOW))
        return shape(plan, rows)
    assert not isinstance(plan, Insert)
    matches = compile_filter(plan.filter)
    found = [document for document in documents if matches(document)]
    if isinstance(plan, Count):
        return len(found)
    if isinstance(plan, Update | Delete):
        return [document["_id"] for document in found]
    assert isinstance(plan, Find)
    found = sort_documents(found, plan.sort) if plan.sort else found
    found = found[plan.skip :][: plan.limit]
    return [compile_projection(plan.projection)(document) for document in found]


def ids(text: str) -> list:
    return [row["_id"] if isinstance(row["_id"], int) else int(str(row["_id"]), 16) for row in answer(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select * from SensorTemperatura limit 3;", [1, 2, 3]),
        ("select * from SensorTemperatura limit 2 offset 1", [2, 3]),
        ("select * from SensorTemperatura limit 1,3", [2, 3, 4]),
        ("select * from SensorTemperatura limit 0", []),
        ("select * from SensorTemperatura order by contextData.timestamp DESC limit 1;", [5]),
        ("select * from SensorTemperatura order by 'contextData.timestamp'", [1, 2, 3, 4, 5]),
        ('select * from SensorTemperatura order by "contextData.timestamp" desc limit 2', [5, 4]),
        ("select * from SensorTemperatura order by assetId desc, measure desc", [5, 3, 2, 1, 4]),
        ("select * from SensorTemperatura order by measure * -1", [5, 3, 2, 1, 4]),
        ("select * from SensorTemperatura where SensorTemperatura.assetId ='S_2';", [3]),
        ('select * from SensorTemperatura where Sensor.assetId = "S_2"', [3]),
        ("select * from SensorTemperatura where assetId='S_2'", [3]),
        ("select * from SensorTemperatura where SensorTemperatura.measure>17", [2, 3]),
        ("select*from SensorTemperatura where measure>=10 and measure<=20.5", [1, 2]),
        ("SeLeCt * FrOm SensorTemperatura WhErE measure BeTwEeN 7 aNd 10 OrDeR bY measure", [4, 1]),
        ("select * from SensorTemperatura where measure not between 7 and 10", [2, 3, 5]),
        ("select * from SensorTemperatura where 17 < measure", [2, 3]),
        ("select * from SensorTemperatura where measure <> 10", [2, 3, 4, 5]),
        ("select * from SensorTemperatura where measure != 10", [2, 3, 4, 5]),
        ("select * from SensorTemperatura where not (measure = 10)", [2, 3, 4, 5]),
        ("select * from SensorTemperatura where not measure > 10", [1, 4, 5]),
        ("select * from SensorTemperatura where measure is null", [5]),
        ("select * from SensorTemperatura where measure is not null", [1, 2, 3, 4]),
        ("select * from SensorTemperatura where measure in (10, 7, 99)", [1, 4]),
        ("select * from SensorTemperatura where measure not in (10, 7)", [2, 3, 5]),
        ("select * from SensorTemperatura where assetId like 'S\\_%'", [1, 2, 3]),
        ("select * from SensorTemperatura where assetId like 'S__'", [1, 2, 3, 4]),
        ("select * from SensorTemperatura where assetId like 'S!%2' escape '!'", [4]),
        ("select * from SensorTemperatura where assetId not like '%_1'", [3, 4, 5]),
        ("select * from SensorTemperatura where assetId like 's_1'", []),
        ("select * from SensorTemperatura where assetId ilike 's\\_1'", [1, 2]),
        ("select * from SensorTemperatura where assetId regexp '^S.[12]$'", [1, 2, 3, 4]),
        ("select * from SensorTemperatura where assetId = 'x''y'", [5]),
        ("select * from SensorTemperatura where assetId = 'x\\'y'", [5]),
        ("select * from SensorTemperatura where (assetId='S_1' and measure>15) or (assetId='S_2')", [2, 3]),
        ("select * from SensorTemperatura where 1=1 and measure=7", [4]),
        ("select * from SensorTemperatura where 1=0", []),
        ("select * from SensorTemperatura where true and not false and measure = 7", [4]),
        ("select * from SensorTemperatura where geometry.coordinates[0] > 40", [1]),
        ("select * from SensorTemperatura where Sensor.geometry.coordinates.1 > 0", [2]),
        ("select * from SensorTemperatura where tags.k = 'b'", [3]),
        ("select * from SensorTemperatura where tags[1].v = 2", [3]),
        ("select * from SensorTemperatura where timestamp >= '2014-04-04'", [4, 5]),
        ("select * from SensorTemperatura where timestamp between '2014-04-02' and '2014-04-03T00:00:00.000Z'", [2, 3]),
        ("select * from SensorTemperatura where timestamp in ('2014-04-02', '2014-04-05')", [2, 5]),
        ("""select * from SensorTemperatura where timestamp = "{ '$date': '2014-04-04T00:00:00.000Z'}" """, [4]),
        ("select * from SensorTemperatura where contextData.timestamp > '2014-04-04T00:00:00Z'", [4, 5]),
        ("select * from SensorTemperatura where timestamp > now() - interval 27 day", [5]),
        ("select * from SensorTemperatura where timestamp > date_sub(now(), interval 1 month)", [2, 3, 4, 5]),
        ("select * from SensorTemperatura where timestamp = date '2014-04-04'", [4]),
        ("select * from SensorTemperatura where timestamp = ISODate('2014-04-04')", [4]),
        ("select * from SensorTemperatura where _id = '000000000000000000000003'", [3]),
        (
            "select * from SensorTemperatura where _id in ('000000000000000000000003', ObjectId('000000000000000000000004'))",
            [3, 4],
        ),
        ("""select * from SensorTemperatura where _id = '{"$oid":"000000000000000000000003"}'""", [3]),
        ("select * from SensorTemperatura t where t.measure = 7 and t.Sensor.assetId = 'S%2'", [4]),
        ("select SensorTemperatura.* from SensorTemperatura where measure = 7", [4]),
        ("select * from `SensorTemperatura` where `Sensor`.`measure` = 7 and `Sensor.measure` = 7", [4]),
        ("select * from SensorTemperatura -- all\n where measure = 7 /* of it */ # so", [4]),
        ("{select * from SensorTemperatura where measure = 7}", [4]),
        ("select * from Feed where stationName='Valladolid'", [1]),
        ("select * from Feed where stationName=’Valladolid’", [1]),
        ("select * from Feed where stationName=“Valladolid”", [1]),
        ("select * from Feed where flag", [1]),
        ("select * from Feed where not flag", [2, 3, 4, 5, 6]),
        ("select * from Feed where flag is false", [2]),
        ("select * from Feed where flag is not true and n = 3", [3]),
        ("select * from Feed where text like 'two%lines'", [2]),
        ("select * from Feed where a = b", [1, 2, 3, 4, 5]),
        ("select * from Feed where a < b", [6]),
        ("select * from Feed where n * 2 > 4", [3, 6]),
        ("select * from Feed where n * 2 < 4", [1, 5]),
        ("select * from Feed where upper(stationName) = 'MADRID'", [2, 3]),
        ("select * from Feed where upper(stationName) like '%D'", [1, 2, 3]),
        ("select * from Feed where length(Genre) in (6, 7)", [3]),
        ("select * from Feed where abs(n) = 4", [5]),
        ("select * from Feed where n / 0 is null and n = 1", [1]),
        ("select * from Feed where `key` = 'k'", [5]),
        ("select * from Feed where Feed.key='k' and key<>'x' order by key", [5]),
    ],
)
def test_which_instances(text, expected):
    assert ids(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select count(*) from SensorTemperatura", 5),
        ("select count(*) from SensorTemperatura where SensorTemperatura.measure>16", 2),
        ("select count(1) from Feed where n > 99", 0),
        ("select count(n) from Feed", 5),
        ("select count(distinct Movie) from Feed", 2),
        ("select count(distinct Movie) from Feed where n > 99", 0),
        ("select count(n * 2) from Feed", 5),
        ("select count(*) as n from Feed", [{"n": 6}]),
        ("select count(*) as n, max(n) as m from Feed where n > 99", [{"n": 0, "m": None}]),
        ("select count(*) as n from Feed having n > 10", []),
        ("select SensorTemperatura.measure from SensorTemperatura where measure = 7", [{"Sensor": {"measure": 7}}]),
        (
            "select measure, assetId from SensorTemperatura where measure = 7",
            [{"Sensor": {"measure": 7, "assetId": "S%2"}}],
        ),
        ("select _id from SensorTemperatura where measure = 7", [{"_id": _id(4)}]),
        (
            "select _id, contextData.user from SensorTemperatura where measure = 7",
            [{"_id": _id(4), "contextData": {"user": "sofia"}}],
        ),
        ("select Sensor.assetId, Sensor from SensorTemperatura where measure = 7", [{"Sensor": SENSORS[3]["Sensor"]}]),
        ("select tags.v from SensorTemperatura where measure = 30", [{"Sensor": {"tags": [{"v": 1}, {"v": 2}]}}]),
        ("select measure as m from SensorTemperatura where measure = 7", [{"m": 7}]),
        (
            "select measure m, assetId from SensorTemperatura where measure = 7",
            [{"m": 7, "Sensor": {"assetId": "S%2"}}],
        ),
        ("select geometry.coordinates[0] as lat from SensorTemperatura where measure = 10", [{"lat": 40.5}]),
        ("select geometry.coordinates[0] from SensorTemperatura where measure = 10", [{"coordinates[0]": 40.5}]),
        ("select tags[1].v from SensorTemperatura where measure = 30", [{"v": 2}]),
        ("select tags[1].v as v from SensorTemperatura where measure = 7", [{}]),
        (
            "select n * 2 + 1 as d, n / 2 h, n % 2 r, n div 2 i from Feed where n = 3",
            [{"d": 7, "h": 1.5, "r": 1, "i": 1}],
        ),
        (
            "select -n as m, 1 as one, 'x' as x, '$n' as dollar from Feed where n = 3",
            [{"m": -3, "one": 1, "x": "x", "dollar": "$n"}],
        ),
        (
            "select upper(Genre) as u, lower('AB') l, length(Genre) c from Feed where n = 3",
            [{"u": "COMEDY", "l": "ab", "c": 6}],
        ),
        ("select upper(Genre) as u, length(Genre) c from Feed where n = 5", [{"u": None, "c": None}]),
        (
            "select round(n / 7, 2) r, abs(n) a, floor(n / 2) f, sqrt(n*n) s from Feed where n = 3",
            [{"r": 0.43, "a": 3, "f": 1.0, "s": 3.0}],
        ),
        (
            "select concat(Genre, '-', n) as c, ifnull(text, 'none') t from Feed where n = 3",
            [{"c": "comedy-3", "t": "none"}],
        ),
        (
            "select case when n > 2 then 'much' when n > 0 then 'some' else 'none' end as c from Feed where n in (3, 2) order by n",
            [{"c": "some"}, {"c": "much"}],
        ),
        (
            "select case n when 3 then 'three' end c, if(n > 2, 1, 0) i, nullif(n, 3) z from Feed where n = 3",
            [{"c": "three", "i": 1, "z": None}],
        ),
        (
            "select substring(Genre, 2, 3) s, trim('  x ') t, greatest(n, 10) g, mod(n, 2) m from Feed where n = 3",
            [{"s": "ome", "t": "x", "g": 10, "m": 1}],
        ),
        ("select n > 2 as big from Feed where n = 3", [{"big": True}]),
        (
            "select year(timestamp) y, month(timestamp) m, day(timestamp) d from SensorTemperatura where measure = 7",
            [{"y": 2014, "m": 4, "d": 4}],
        ),
        ("select *, n * 2 as d from Feed where n = 5", [{"_id": 6, "n": 5, "a": 1, "b": 2, "d": 10}]),
        ("select *, n from Feed where n = 5", [{"_id": 6, "n": 5, "a": 1, "b": 2}]),
        ("select n as v from Feed order by v desc limit 2", [{"v": 5}, {"v": 3}]),
        ("select n * -1 as v from Feed where n > 0 order by v limit 2", [{"v": -5}, {"v": -3}]),
        ("select n as v from Feed where n > 0 order by 1 limit 1 offset 1", [{"v": 2}]),
        ("select n as v from Feed limit 0", []),
        ("select distinct Movie from Feed order by Movie", [{"Movie": None}, {"Movie": "A"}, {"Movie": "B"}]),
        ("select distinct(Movie) as m from Feed where Movie is not null order by m desc limit 1", [{"m": "B"}]),
        (
            "select distinct Genre, Movie from Feed where Genre = 'drama' order by 2 desc",
            [{"Genre": "drama", "Movie": "B"}, {"Genre": "drama", "Movie": "A"}],
        ),
        (
            "select Genre, count(distinct Movie) as num from Feed group by Genre order by num, Genre",
            [{"Genre": None, "num": 0}, {"Genre": "comedy", "num": 1}, {"Genre": "drama", "num": 2}],
        ),
        ("select Genre, count(*) from Feed group by Genre having count(*) > 2", [{"Genre": "drama", "count(*)": 3}]),
        (
            "select Genre g, sum(n) s, avg(n) a, min(n) i, max(n) m from Feed where Genre='drama' group by g",
            [{"g": "drama", "s": 3, "a": 1.5, "i": 1, "m": 2}],
        ),
        ("select count(n) c, count(text) t, count(*) r from Feed", [{"c": 5, "t": 2, "r": 6}]),
        (
            "select assetId, max(measure) as m from SensorTemperatura group by Sensor.assetId having m > 5 order by m desc",
            [
                {"Sensor": {"assetId": "S_2"}, "m": 30},
                {"Sensor": {"assetId": "S_1"}, "m": 20.5},
                {"Sensor": {"assetId": "S%2"}, "m": 7},
            ],
        ),
        (
            "select Genre, Movie, count(*) n from Feed where Genre='drama' group by Genre, Movie order by n desc limit 1",
            [{"Genre": "drama", "Movie": "A", "n": 2}],
        ),
        ("select max(n) - min(n) as span from Feed", [{"span": 9}]),
        ("select max(n) from Feed", [{"max(n)": 5}]),
        ("select max(Sensor.measure) from SensorTemperatura", [{"max(measure)": 30}]),
        ("select round(avg(n), 1) r, avg(n) * 2 d from Feed where n > 0", [{"r": 2.8, "d": 5.5}]),
        ("select year(timestamp) y, count(*) c from SensorTemperatura group by year(timestamp)", [{"y": 2014, "c": 5}]),
        (
            "select n % 2 as odd, count(*) c from Feed where n > 0 group by odd order by odd",
            [{"odd": 0, "c": 1}, {"odd": 1, "c": 3}],
        ),
        (
            "select Genre from Feed group by Genre having Genre is not null order by count(*) desc",
            [{"Genre": "drama"}, {"Genre": "comedy"}],
        ),
        ("select Genre from Feed group by 1 having max(n) < 3 and Genre <> 'x'", [{"Genre": "drama"}]),
        ("select max(timestamp) as t from SensorTemperatura having t > '2014-04-04'", [{"t": datetime(2014, 4, 5)}]),
        ("select max(timestamp) as t from SensorTemperatura having t > '2014-04-06'", []),
        (
            "select measure from SensorTemperatura group by measure order by Sensor.measure desc limit 1",
            [{"Sensor": {"measure": 30}}],
        ),
    ],
)
def test_rows(text, expected):
    assert answer(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("update SensorTemperatura set measure = 1 where assetId = 'S_1'", [_id(1), _id(2)]),
        ("update SensorTemperatura set measure = 1", [document["_id"] for document in SENSORS]),
        ("delete from SensorTemperatura where measure > 10", [_id(2), _id(3)]),
        ("delete from Feed", [1, 2, 3, 4, 5, 6]),
    ],
)
def test_writes_concern_all_matches(text, expected):
    assert answer(text) == expected


def test_an_update_by_expressions_computes():
    plan = plan_sql("update Feed set n = n * 10, text = concat(Genre, '!'), a = '$b' where _id = 3", lookup=lookup)
    assert isinstance(plan, Update)
    changed = compile_update(plan.update)(dict(FEED[2]), NOW, False)
    assert (changed["n"], changed["text"], changed["a"]) == (30, "comedy!", "$b")
