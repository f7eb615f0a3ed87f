"""SQL-like statements: refusals, writes, configuration reads, recorded statements of published clients."""

import json
import time
from datetime import datetime
from pathlib import Path

import pytest
from bson import ObjectId

from sib.errors import OntologyNotFoundError, SqlSyntaxError, UnknownFieldError
from sib.ontology.ontology import compile_ontology
from sib.query.plan import Delete, Find, Insert, Update, condition_of
from sib.query.sqlbdc import TableRead, plan_bdc
from sib.query.sqllike import like_to_regex
from sib.query.sqlparse import MAX_CODE_CHARS, MAX_SQL_CHARS
from sib.query.sqlplan import plan_sql

FRAMES = Path(__file__).parents[2] / "data" / "client-frames.jsonl"
ID = "f03c2131f0af4d8ea36818fa"
DATE = {"type": "object", "properties": {"$date": {"type": "string", "format": "date-time"}}}
SENSOR = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "assetId": {"type": "string"},
        "measure": {"type": "number"},
        "timestamp": DATE,
        "geometry": {"type": "object"},
        "note": {"type": "string"},
        "tags": {"type": "array"},
    },
}
ONTOLOGIES = {
    "TestSensorTemperatura": compile_ontology(
        "TestSensorTemperatura",
        json.dumps({"type": "object", "properties": {"Sensor": SENSOR}, "additionalProperties": False}),
    ),
    "F": compile_ontology(
        "F", json.dumps({"type": "object", "properties": {name: {} for name in ("a", "b", "key", "order")}})
    ),
}
ALL = "TestSensorTemperatura"


def lookup(name: str):
    if name not in ONTOLOGIES:
        raise OntologyNotFoundError(f"No ontology {name}.")
    return ONTOLOGIES[name]


def plan(text: str):
    return plan_sql(text, lookup=lookup, now=lambda: datetime(2020, 1, 1))


GEOMETRY = {"coordinates": [40.512967, -3.67495], "type": "Point"}


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        (
            f"insert into {ALL}(geometry, assetId, measure, timestamp) values (\"{{ 'coordinates': [ 40.512967, -3.67495 ], "
            "'type': 'Point' }\", \"S_1\", 15, \"{ '$date': '2014-04-29T08:24:54.005Z'}\")",
            [
                {
                    "geometry": GEOMETRY,
                    "assetId": "S_1",
                    "measure": 15,
                    "timestamp": {"$date": "2014-04-29T08:24:54.005Z"},
                }
            ],
        ),
        (
            f"INSERT INTO {ALL} (Sensor.measure, {ALL}.assetId) VALUES (-1.5,'it''s');",
            [{"measure": -1.5, "assetId": "it's"}],
        ),
        (
            f"insert into {ALL}(`measure`, \"note\") values (1, ''), (2, null)",
            [{"measure": 1, "note": ""}, {"measure": 2, "note": None}],
        ),
        (f"insert into {ALL}(timestamp) values ('2014-04-29')", [{"timestamp": {"$date": "2014-04-29T00:00:00.000Z"}}]),
        (f"insert into {ALL}(timestamp) values (now())", [{"timestamp": {"$date": "2020-01-01T00:00:00.000Z"}}]),
        (f"insert into {ALL}(tags, note) values ('[1, 2]', '[urgent')", [{"tags": [1, 2], "note": "[urgent"}]),
        (
            f"insert into {ALL}(tags, geometry) values ([1, 'x'], {{'a': 1}})",
            [{"tags": [1, "x"], "geometry": {"a": 1}}],
        ),
        (f"insert into {ALL}(geometry.type, geometry.x) values ('P', true)", [{"geometry": {"type": "P", "x": True}}]),
        (f"insert into {ALL} set measure=1, note='x'", [{"measure": 1, "note": "x"}]),
        (f'insert into {ALL}(geometry) values (\'{{"a": "{{}}"}}\')', [{"geometry": {"a": "{}"}}]),
    ],
)
def test_inserts_go_under_the_root(text, documents):
    assert plan(text) == Insert(ALL, tuple({"Sensor": document} for document in documents))


def test_an_unrooted_insert_may_use_words_of_sql():
    assert plan("insert into F(key, order, a) values (1, 2, 3)") == Insert("F", ({"key": 1, "order": 2, "a": 3},))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f'UPDATE {ALL} SET {ALL}.assetId="S" WHERE {ALL}.assetId="T"',
            Update(ALL, {"Sensor.assetId": "T"}, {"$set": {"Sensor.assetId": "S"}}, multi=True),
        ),
        (f"update {ALL} set measure=15", Update(ALL, {}, {"$set": {"Sensor.measure": 15}}, multi=True)),
        (
            f"update {ALL} set timestamp='2014-01-01', geometry='{{\"a\":1}}', note=null where measure=1;",
            Update(
                ALL,
                {"Sensor.measure": 1},
                {"$set": {"Sensor.timestamp": datetime(2014, 1, 1), "Sensor.geometry": {"a": 1}, "Sensor.note": None}},
                multi=True,
            ),
        ),
        (
            f"update {ALL} s set s.measure = 2 where s.measure = 1",
            Update(ALL, {"Sensor.measure": 1}, {"$set": {"Sensor.measure": 2}}, True),
        ),
        (f"update {ALL} set measure = 2 * 3", Update(ALL, {}, {"$set": {"Sensor.measure": 6}}, True)),
        (
            f"update {ALL} set measure = measure + 1, note = '$x'",
            Update(
                ALL,
                {},
                [{"$set": {"Sensor.measure": {"$add": ["$Sensor.measure", 1]}, "Sensor.note": {"$literal": "$x"}}}],
                True,
            ),
        ),
        (f"delete from {ALL} where _id = '{ID}'", Delete(ALL, {"_id": ObjectId(ID)})),
        (f"delete from {ALL} where _id = 'x'", Delete(ALL, {"_id": "x"})),
        (f"delete from {ALL}", Delete(ALL, {})),
    ],
)
def test_updates_and_deletes(text, expected):
    assert plan(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1 and b = 2", {"a": 1, "b": 2}),
        ("a > 1 and a < 5", {"a": {"$gt": 1, "$lt": 5}}),
        ("a > 1 and a > 5", {"$and": [{"a": {"$gt": 1}}, {"a": {"$gt": 5}}]}),
        ("a = 1 and (a = 2 and (b = 3 and 1 = 1))", {"$and": [{"a": 1, "b": 3}, {"a": 2}]}),
        (
            "a like 'x%' and a like '%y'",
            {"$and": [{"a": {"$regex": "^x", "$options": "s"}}, {"a": {"$regex": "y$", "$options": "s"}}]},
        ),
        ("a = 1 or b = 2 or (a = 3 or b = 4)", {"$or": [{"a": 1}, {"b": 2}, {"a": 3}, {"b": 4}]}),
        ("not (a = 1 or b = 2)", {"$nor": [{"$or": [{"a": 1}, {"b": 2}]}]}),
        ("a = null", {"a": None}),
        ("a <=> 1", {"a": 1}),
        ("a = 12345678901234567890.0", {"a": 12345678901234567890.0}),
        ("a = 0x1F", {"a": 31}),
        ("a = '{\"x\":1}'", {"a": '{"x":1}'}),
        ("a = {'x': 1}", {"a": {"$eq": {"x": 1}}}),
    ],
)
def test_filters(text, expected):
    assert plan(f"select * from F where {text}") == Find("F", expected)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "begins with"),
        ("wrong query", "not with 'wrong'"),
        ("select", "names one ontology"),
        ("select * from", "cannot be read"),
        ("select 1", "names one ontology"),
        ("select * from F where", "cannot be read"),
        ("select * frm F", "cannot be read"),
        ("select a b c from F", "line 1, column 12, near 'c'"),
        ("select * from F; select * from F", "one statement"),
        ("select * from F; drop table F", "one statement"),
        ("drop table F", "not with 'drop'"),
        ("create table F (a int)", "not with 'create'"),
        ("truncate F", "not with 'truncate'"),
        ("explain select * from F", "not with 'explain'"),
        ("show tables", "not with 'show'"),
        ("with q as (select 1) select * from q", "not with 'with'"),
        ("select * from F join G on F.a = G.a", "Joins"),
        ("select * from F, G", "Joins"),
        ("select * from (select * from F) x", "Subqueries"),
        ("select * from F where a in (select b from F)", "Subqueries"),
        ("select * from F where exists (select 1)", "Subqueries"),
        ("select (select 1) from F", "Subqueries"),
        ("select a from F union select b from F", "UNION"),
        ("select a from F union all select b from F", "UNION"),
        ("select max(a) over () from F", "Window"),
        ("select * from F where a = ?", "Placeholders"),
        ("select * from F where a = :x", "Placeholders"),
        ("select * from F where a = @x", "Variables"),
        ("select * from F where a = {$x}", "predefined queries"),
        ("select * from F where a = 'x", "character 27 is not closed"),
        ("select * from F where a = “x", "not closed"),
        ("select * from F /* x", "not closed"),
        ("select * from F where a = (1", "cannot be read"),
        ("select * from F where a = " + "(" * 100 + "1" + ")" * 100, "nested"),
        ("select * from F where " + "not " * 500 + "a", "nested"),
        ("select * from F where a = " + "- " * 500 + "1", "nested"),
        ("select " + "+".join(["a"] * 2000) + " from F", "nested"),
        ("select * from F where a = '" + "x" * MAX_SQL_CHARS + "'", "longer"),
        ("select * from F where a in (" + "1," * MAX_CODE_CHARS + "1)", "outside of quotes"),
        ("select * from F for update", "LOCKS is not accepted"),
        ("select * into G from F", "INTO is not accepted"),
        ("select * from F use index (a)", "HINTS is not accepted"),
        ("select * from x.F", "no prefix"),
        ("select * from `hive.default`.`F`", "no prefix"),
        ("select a.* from F", "not accepted in an expression"),
        ("select foo(a) from F", "not accepted"),
        ("select * from F where foo(a) = 1", "not accepted"),
        ("select group_concat(a) from F", "aggregate is not accepted"),
        ("select sum(distinct a) from F", "aggregate is not accepted"),
        ("select count(distinct a, b) from F", "takes one item"),
        ("select a, count(*) from F", "must stand in GROUP BY"),
        ("select b from F group by a", "must stand in GROUP BY"),
        ("select * from F group by a", "names its items"),
        ("select *, count(*) from F", "names its items"),
        ("select a from F group by a with rollup", "ROLLUP"),
        ("select a from F group by count(*)", "not aggregates"),
        ("select a from F group by 3", "no item 3"),
        ("select distinct * from F", "names its items"),
        ("select distinct a, count(*) from F group by a", "DISTINCT beside"),
        ("select distinct a from F order by b", "must stand in GROUP BY"),
        ("select * from F where count(*) > 1", "not accepted"),
        ("select a as x, b as x from F", "same alias"),
        ("select a as `x.y` from F", "flat key"),
        ("select a as `$x` from F", "flat key"),
        (f"select measure, assetId as Sensor from {ALL}", "key of two items"),
        ("select * from F limit -1", "whole number"),
        ("select * from F limit 1.5", "whole number"),
        ("select * from F limit a", "not accepted as a value"),
        ("select * from F limit all", "not accepted as a value"),
        ("select * from F limit 99999999999999999999", "does not fit in 64 bits"),
        ("select * from F where a = 9223372036854775808", "send it as a string"),
        ("select * from F fetch first 3 rows only", "FETCH"),
        ("select * from F order by 2", "no item 2"),
        ("select * from F order by rand()", "not accepted"),
        ("select * from F where a = 1e999", "too large"),
        ("select * from F where a = " + "9" * 5000, "number longer"),
        ("select * from F where a is 5", "IS takes null"),
        ("select * from F where a xor b", "not accepted"),
        ("select * from F where a like b", "not accepted as a value"),
        ("select * from F where a like 5", "text in quotes"),
        ("select * from F where a like 'x' escape 'yz'", "one character"),
        ("select * from F where a = 'x' collate utf8", "COLLATE"),
        (f"select * from {ALL} where timestamp > 'yesterday'", "holds dates"),
        (f"select * from {ALL} where contextData.timestamp > 'x'", "holds dates"),
        (f"select * from {ALL} where timestamp > now() - interval 1 fortnight", "units are"),
        (f"select * from {ALL} where timestamp > now() - interval 99999999 year", "interval"),
        ("insert into F values (1)", "names its columns"),
        ("insert into F() values ()", "names its columns"),
        ("insert into F(a) values (1, 2)", "1 column(s) and gives 2"),
        ("insert into F(a, a) values (1, 2)", "twice"),
        ("insert into F(a, a.b) values (1, 2)", "twice"),
        ("insert into F(a) select b from F", "Subqueries"),
        ("insert into F(a) values (b)", "not accepted as a value"),
        ("insert into F(a) values (1) on duplicate key update a=1", "CONFLICT is not accepted"),
        ("insert ignore into F(a) values (1)", "IGNORE is not accepted"),
        ("replace into F(a) values (1)", "not with 'replace'"),
        ("update F set", "what to set"),
        ("update F set a = 1, a = 2", "set twice"),
        ("update F set _id = 'x'", "cannot be set"),
        ("update F set contextData.user = 'x'", "cannot be set"),
        ("update F set a = 1 limit 3", "LIMIT is not accepted"),
        ("update F, G set a = 1", "Joins"),
        ("delete from F limit 3", "LIMIT is not accepted"),
        ("delete from F using G", "USING is not accepted"),
        ("delete F where a = 1", "delete from"),
    ],
)
def test_refusals(text, reason):
    with pytest.raises(SqlSyntaxError) as caught:
        plan(text)
    assert reason in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        f"select * from {ALL} where nope = 1",
        f"select Measure from {ALL}",
        f"select * from {ALL} order by nope",
        f"select count(nope) from {ALL}",
        f"select * from {ALL} where upper(nope) = 'X'",
        f"insert into {ALL}(nope) values (1)",
        f"update {ALL} set nope = 1",
        f"delete from {ALL} where Sensor.nope = 1",
        "select * from F where nope = 1",
    ],
)
def test_unknown_fields(text):
    with pytest.raises(UnknownFieldError):
        plan(text)


@pytest.mark.parametrize(
    "text",
    [
        "select * from Open where $or = 1",
        "select * from Open where a.$where = 'x'",
        "select `$where` from Open",
        "select * from Open order by ''",
        "select * from Open where `a..b` = 1",
        "insert into Open(`$set`) values (1)",
        "update Open set `a.$x` = 1",
    ],
)
def test_operators_are_no_fields(text):
    is_open = compile_ontology("Open", '{"type":"object"}')
    with pytest.raises((SqlSyntaxError, UnknownFieldError)):
        plan_sql(text, lookup=lambda name: is_open)
    assert plan_sql("select * from Open where a.b.$date > 1", lookup=lambda name: is_open) == Find(
        "Open", {"a.b": {"$gt": 1}}
    )


def test_unknown_ontology():
    for text in ("select * from Nope", "insert into Nope(a) values (1)", "update Nope set a=1", "delete from Nope"):
        with pytest.raises(OntologyNotFoundError):
            plan(text)


def test_the_time_is_not_known_without_a_clock():
    with pytest.raises(SqlSyntaxError, match="current time"):
        plan_sql("select * from F where a > now()", lookup=lookup)


def test_long_chains_are_no_deep_trees():
    text = "select * from F where " + " or ".join(f"a = {number}" for number in range(2000))
    assert len(plan(text).filter["$or"]) == 2000
    text = "select * from F where " + " and ".join(f"a <> {number}" for number in range(2000))
    assert len(plan(text).filter["$and"]) == 2000


def test_hostile_texts_are_refused_soon():
    began = time.monotonic()
    for text in (
        "'\\'" * 20_000,
        '"' * 30_001,
        "(" * 60_000,
        "select " + "a," * 30_000 + "a from F",
        "/*" * 30_000,
        "-" * 60_000,
    ):
        with pytest.raises((SqlSyntaxError, UnknownFieldError)):
            plan(text)
    assert time.monotonic() - began < 20  # quadratic work would take minutes


@pytest.mark.parametrize(
    ("pattern", "regex"),
    [
        ("abc", "^abc$"),
        ("a%", "^a"),
        ("%a", "a$"),
        ("%a%", "a"),
        ("%", ""),
        ("", "^$"),
        ("a_c", "^a.c$"),
        ("a%%b", "^a.*b$"),
        ("a.b\\%", r"^a\.b%$"),
    ],
)
def test_like(pattern, regex):
    assert like_to_regex(pattern) == regex


def test_a_subscription_takes_the_condition():
    assert condition_of(plan("select a from F where b = 1 order by a limit 3")) == {"b": 1}
    assert condition_of(plan("select a, count(*) as n from F where b = 1 group by a having n > 3")) == {"b": 1}
    assert condition_of(plan("select count(*) from F where b = 1")) == {"b": 1}
    assert condition_of(plan("select a as x from F")) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select * from Asset", TableRead("asset")),
        (
            "{select * from Asset where identificacion='tweets_sofia'}",
            TableRead("asset", filter={"identificacion": "tweets_sofia"}),
        ),
        ("select identificacion from asset;", TableRead("asset", ("identificacion",))),
        ("SELECT Identificacion, ASSET.Tipo FROM ASSET", TableRead("asset", ("identificacion", "tipo"))),
        (
            "select * from Asset a where a.Tipo like 'v%' order by a.tipo desc limit 2,3",
            TableRead(
                "asset", filter={"tipo": {"$regex": "^v", "$options": "s"}}, order=(("tipo", -1),), skip=2, limit=3
            ),
        ),
        ("select count(*) from Asset where tipo = 'x'", TableRead("asset", filter={"tipo": "x"}, is_count=True)),
    ],
)
def test_configuration_reads(text, expected):
    assert plan_bdc(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "delete from Asset",
        "insert into Asset(a) values (1)",
        "update Asset set a = 1",
        "select * from Asset, User",
        "select other.a from Asset",
        "select a as b from Asset",
        "select max(a) from Asset",
        "select upper(a) from Asset",
        "select a from Asset group by a",
        "select distinct a from Asset",
        "select * from Asset order by upper(a)",
        "select * from Asset; select * from User",
    ],
)
def test_configuration_reads_are_plain_selects(text):
    with pytest.raises(SqlSyntaxError):
        plan_bdc(text)


def recorded_statements() -> list[str]:
    """The SQL-like statements in recorded frames of published clients."""
    texts = set()

    def walk(value):
        if isinstance(value, dict):
            query = value.get("query")
            if isinstance(query, str) and value.get("queryType") == "SQLLIKE" and "Asset" not in query:
                texts.add(query)
            for each in value.values():
                walk(each)
        elif isinstance(value, list):
            for each in value:
                walk(each)
        elif isinstance(value, str) and value[:1] in ("{", "["):
            try:
                walk(json.loads(value))
            except ValueError:
                pass

    for line in FRAMES.read_text(encoding="utf-8").splitlines():
        frame = json.loads(line)
        if frame["direction"] == "request":
            walk(frame["payload"])
    return sorted(texts - {""})


@pytest.mark.parametrize("text", recorded_statements())
def test_statements_of_published_clients(text):
    made = plan(text)
    assert made.ontology == ALL
    if isinstance(made, Insert):
        for document in made.documents:
            lookup(ALL).read(document)


def test_frames_have_statements():
    assert len(recorded_statements()) > 10
