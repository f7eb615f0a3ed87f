"""SQL on history: names, refusals and the days that a query needs."""

from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sib.errors import OntologyNotFoundError, SqlSyntaxError, UnknownFieldError
from sib.ontology import compile_ontology
from sib.ontology.templates import template
from storage.bdh import intervals
from storage.bdh.intervals import EVER, NEVER
from storage.bdh.pruning import days_needed
from storage.bdh.sql import Scope, read_condition, read_statement

ONTOLOGY = compile_ontology("SensorTemperatura", template("SensorPoint").schema_text)


def lookup(name):
    if name != "SensorTemperatura":
        raise OntologyNotFoundError(f"There is no ontology {name!r}.")
    return ONTOLOGY


def read(text, scope=Scope.HISTORY):
    return read_statement(text, lookup=lookup, scope=scope)


def constant(node):
    text = node.this if node.is_string else node.this.this
    return datetime.fromisoformat(text)


def needed(condition):
    found = EVER
    (source,) = read(f"select * from SensorTemperatura where {condition}").sources
    for each in source.conditions:
        found = intervals.both(found, days_needed(each, source.name, constant))
    return found


def day(number):
    return datetime(2026, 1, number)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("measure", '"__t0"."Sensor"."measure" AS "measure"'),
        ("MEASURE", '"__t0"."Sensor"."measure" AS "measure"'),
        ("Sensor.measure", '"__t0"."Sensor"."measure" AS "measure"'),
        ("SensorTemperatura.Sensor.measure", '"__t0"."Sensor"."measure" AS "measure"'),
        ("SensorTemperatura.measure", '"__t0"."Sensor"."measure" AS "measure"'),
        ("geometry.type", '"__t0"."Sensor"."geometry"."type" AS "geometry.type"'),
        ("contextdata.kp_identificador", '"__t0"."contextData"."kp_instancia" AS "contextdata.kp_identificador"'),
        ("contextData.timestamp", '"__t0"."contextData"."timestamp" AS "contextdata.timestamp"'),
        ("`contextdata.user`", '"__t0"."contextData"."user" AS "contextdata.user"'),
        ("_id", '"__t0"."_id" AS "_id"'),
        ("fecha", '"__t0"."fecha" AS "fecha"'),
        ("count(*)", 'COUNT(*) AS "count(*)"'),
        ("avg(measure) as m", 'AVG("__t0"."Sensor"."measure") AS m'),
        ("geometry.coordinates[0]", '"__t0"."Sensor"."geometry"."coordinates"[1] AS "geometry.coordinates[0]"'),
    ],
)
def test_names(column, expected):
    assert read(f"select {column} from SensorTemperatura").body == f'SELECT {expected} FROM "__t0" AS "__t0"'


def test_a_field_without_a_column_is_found_by_the_name_of_its_ontology():
    open_ontology = compile_ontology("Open", '{"type": "object", "properties": {"v": {"type": "number"}}}')

    def raw(column):
        statement = read_statement(f"select {column} from Open", lookup=lambda _: open_ontology, scope=Scope.HISTORY)
        return statement.body.partition(" FROM ")[0]

    assert "_raw" in raw("Open.x.y")
    assert raw("Open.x.y").endswith('AS "x.y"')
    assert raw("Open.v") == 'SELECT "__t0"."v" AS "v"'
    with pytest.raises(UnknownFieldError):
        raw("x.y")
    with pytest.raises(UnknownFieldError):
        read("select SensorTemperatura.geometry.type.x from SensorTemperatura")


@pytest.mark.parametrize(
    ("hive", "duckdb"),
    [
        (
            "assetId, count(*) as n from SensorTemperatura group by assetId with rollup",
            "GROUP BY ROLLUP (assetId)",
        ),
        (
            "assetId, count(*) as n from SensorTemperatura group by assetId with cube",
            "GROUP BY CUBE (assetId)",
        ),
        (
            "assetId, count(*) as n from SensorTemperatura group by assetId grouping sets ((assetId), ())",
            "GROUP BY GROUPING SETS ((assetId), ())",
        ),
        ("trunc(contextData.timestamp, 'MM') as m from SensorTemperatura", "DATE_TRUNC('MONTH', "),
        ("unix_timestamp(contextData.timestamp) as s from SensorTemperatura", "CAST(FLOOR(EPOCH(TRY_CAST("),
        ("unix_timestamp('2026', 'yyyy') as s from SensorTemperatura", "EPOCH(STRPTIME('2026', '%Y'))"),
    ],
)
def test_what_hive_writes_otherwise(hive, duckdb):
    assert duckdb in read(f"select {hive}").body


def test_aliases_views_and_subqueries():
    statement = read(
        "with hot as (select s.measure m from SensorTemperatura s where s.measure > 30) "
        "select avg(m) mean from hot where m < (select max(measure) from bdtr.SensorTemperatura) order by mean"
    )
    assert [source.scope for source in statement.sources] == [Scope.HISTORY, Scope.REAL_TIME]
    assert statement.with_[0].startswith("hot AS (SELECT")
    assert "ORDER BY mean" in statement.body
    text = statement.text([("__t0", "SELECT 1"), ("__t1", "SELECT 2")])
    assert text.startswith('WITH "__t0" AS NOT MATERIALIZED (SELECT 1), "__t1" AS NOT MATERIALIZED (SELECT 2), hot AS')


@pytest.mark.parametrize(
    "text",
    [
        "select * from SensorTemperatura as of '2026-01-02'",
        "select * from SensorTemperatura as of timestamp '2026-01-02' s",
        "select * from both.SensorTemperatura for system_time as of '2026-01-02'",
        "select 'as of ''x''' from SensorTemperatura timestamp as of '2026-01-02'",
    ],
)
def test_as_of(text):
    (source,) = read(text).sources
    assert constant(source.as_of) == datetime(2026, 1, 2)


@pytest.mark.parametrize(
    "text",
    [
        "", "drop table SensorTemperatura", "insert into SensorTemperatura values (1)", "select 1; select 2",
        "select * from read_csv('/etc/passwd')", "select * from SensorTemperatura, read_text('/etc/passwd')",
        "copy SensorTemperatura to '/tmp/x'", "attach '/tmp/x'", "pragma database_list", "set x = 1", "select * from",
        "select * into x from SensorTemperatura", "select * from other.SensorTemperatura", "select ? from SensorTemperatura",
        "select * from SensorTemperatura as of measure", "select " + "(" * 70 + "1" + ")" * 70,
        "create table x as select * from SensorTemperatura", "delete from SensorTemperatura", "select 'x from SensorTemperatura",
        "with x as (delete from SensorTemperatura) select 1",
    ],
)  # fmt: skip
def test_refused(text):
    with pytest.raises(SqlSyntaxError):
        read(text)


@pytest.mark.parametrize(
    "text", ["select nothing from SensorTemperatura", "select contextdata.x from SensorTemperatura"]
)
def test_unknown_fields(text):
    with pytest.raises(UnknownFieldError):
        read(text)


@pytest.mark.parametrize("name", ["Unknown", "'/etc/passwd'", "`/etc/passwd`", "information_schema", "duckdb_settings"])
def test_tables_are_ontologies(name):
    with pytest.raises((OntologyNotFoundError, SqlSyntaxError)):
        read(f"select * from {name}")


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    for statement in (text, f"select {text} from SensorTemperatura", f"select * from SensorTemperatura where {text}"):
        try:
            read(statement)
        except (SqlSyntaxError, UnknownFieldError, OntologyNotFoundError):
            pass


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("contextdata.timestamp >= '2026-01-02'", intervals.since(day(2))),
        ("contextdata.timestamp < '2026-01-02'", intervals.until(day(2))),
        ("'2026-01-02' > contextdata.timestamp", intervals.until(day(2))),
        (
            "contextdata.timestamp >= '2026-01-02' and contextdata.timestamp < '2026-01-03'",
            intervals.of_day(date(2026, 1, 2)),
        ),
        ("contextData.timestamp between '2026-01-02' and '2026-01-04'", ((day(2), intervals.after(day(4))),)),
        ("fecha = '2026-01-02'", intervals.of_day(date(2026, 1, 2))),
        (
            "fecha in ('2026-01-02', '2026-01-05')",
            (*intervals.of_day(date(2026, 1, 2)), *intervals.of_day(date(2026, 1, 5))),
        ),
        ("to_date(contextdata.timestamp) = '2026-01-02'", intervals.of_day(date(2026, 1, 2))),
        ("cast(contextdata.timestamp as date) > '2026-01-02'", intervals.since(day(3))),
        ("(fecha = '2026-01-02' and measure > 3) or (fecha = '2026-01-03')", ((day(2), day(4)),)),
        ("fecha = '2026-01-02' or measure > 3", EVER),
        ("fecha = '2026-01-02' and fecha = '2026-01-03'", NEVER),
        ("not (fecha = '2026-01-02')", EVER),
        ("Sensor.timestamp >= '2026-01-02'", EVER),
        ("measure > 3", EVER),
        ("fecha <> '2026-01-02'", EVER),
    ],
)
def test_days_that_a_condition_needs(condition, expected):
    assert needed(condition) == expected


def test_an_outer_join_needs_all_days():
    sources = read(
        "select * from SensorTemperatura a left join SensorTemperatura b on a._id = b._id where b.fecha = '2026-01-02'"
    ).sources
    assert [source.conditions for source in sources] == [[], []]


def test_a_condition_is_one_condition():
    text, _ = read_condition("Sensor.measure > 30 and contextData.kp = 'K'", ONTOLOGY)
    assert text == """"__t0"."Sensor"."measure" > 30 AND "__t0"."contextData"."kp" = 'K'"""
    for wrong in (
        "1 = 1 order by 1",
        "measure > (select 1)",
        "1; drop table x",
        "measure >",
        "1 union select 2",
        "1=1 limit 1",
    ):
        with pytest.raises(SqlSyntaxError):
            read_condition(wrong, ONTOLOGY)


moments = st.datetimes(datetime(2026, 1, 1), datetime(2026, 1, 9))
sets = st.lists(st.tuples(moments, st.timedeltas(timedelta(seconds=1), timedelta(days=2))), max_size=4).map(
    lambda pairs: intervals.either(NEVER, tuple((start, start + length) for start, length in pairs))
)


@given(sets, sets, moments)
def test_sets_of_moments(one, other, moment):
    def has(found):
        return any(start <= moment < end for start, end in found)

    assert has(intervals.both(one, other)) == (has(one) and has(other))
    assert has(intervals.either(one, other)) == (has(one) or has(other))
    assert intervals.touches(one, moment, moment) == has(one)
    assert not has(one) or intervals.touches_day(one, moment.date())
