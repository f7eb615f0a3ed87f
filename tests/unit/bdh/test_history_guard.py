"""What the text of a history query can reach: its ontologies, and nothing else."""

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sib.errors import AuthorizationError, OntologyNotFoundError, SibError, SqlSyntaxError
from sib.ontology import compile_ontology
from sib.ontology.templates import template
from storage.bdc.records import HistoryFileRecord
from storage.bdh.engine import open_engine
from storage.bdh.guard import FUNCTIONS, check
from storage.bdh.local import LocalFiles
from storage.bdh.query import HistoryQueries

SENSOR = template("SensorPoint").schema_text
ONTOLOGIES = {name: compile_ontology(name, SENSOR) for name in ("S", "T")}


class NoFiles:
    """A manifest without files that knows which ontologies were asked for."""

    def __init__(self):
        self.asked = []

    def files(self, ontology, **_) -> list[HistoryFileRecord]:
        self.asked.append(ontology)
        return []


def lookup(name):
    if name == "Secret":
        raise AuthorizationError("The user may not QUERY the ontology 'Secret': ask its owner for the permission.")
    if name not in ONTOLOGIES:
        raise OntologyNotFoundError(f"There is no ontology {name!r}.")
    return ONTOLOGIES[name]


@pytest.fixture(scope="module")
def queries(tmp_path_factory):
    root = tmp_path_factory.mktemp("bdh")
    (root / "Secret").mkdir()
    (root / "Secret" / "x.csv").write_text("password\nhush\n")
    queries = HistoryQueries(LocalFiles(root), NoFiles(), lookup)
    queries.root = root
    yield queries
    queries.close()


@pytest.fixture(scope="module")
def connection():
    return duckdb.connect()


def test_no_history_is_no_rows(queries):
    result = queries.run("select * from S")
    assert result.rows == []
    assert [column.name for column in result.columns][:3] == ["_id", "contextdata.session_key", "contextdata.user"]
    assert queries.run("select count(*) as n, max(measure) from S").rows == [(0, None)]
    assert queries.run("select a.measure from S a join T b on a.assetId = b.assetId").rows == []


@pytest.mark.parametrize(
    "table",
    [
        "read_csv('{root}/Secret/x.csv')", "read_text('{root}/Secret/x.csv')", "read_blob('{root}/Secret/x.csv')",
        "'{root}/Secret/x.csv'", "`{root}/Secret/x.csv`", "glob('{root}/**')", "parquet_metadata('{root}/x')",
        "duckdb_settings()", "duckdb_secrets()", "information_schema.tables", "pg_catalog.pg_class", "sqlite_master",
        "query('select 1')", "query_table('S')", "range(10)", "table(read_csv('x'))", "(show tables)", "(describe S)",
        "(from read_csv('x'))", "(select * from read_csv('x'))", "(pivot S on x)", "(table S)", "Secret", "bdh.Secret",
        "both.Secret", "bdtr.Secret", "__t0", "system.S", "json_execute_serialized_sql('{{}}')",
        "S, lateral read_csv('{root}/Secret/x.csv')", "S, lateral flatten(x)", "S cross join lateral read_text('x')",
        "S, lateral (select * from Secret)", "S lateral view read_csv('x') t as y",
        "S lateral view explode(read_text('x')) t as y", "S join read_csv('x') on 1 = 1", "(S join Secret on 1 = 1)",
        "S where 1 in (select 1 from Secret)", "S union all select * from Secret",
        "S where exists (select 1 from read_csv('x'))", "S as of (select 1 from Secret)", "S as of read_text('x')",
        "S as of pg_sleep(10)", "S for system_time as of current_setting('x')", "S tablesample (select 1 from Secret)",
        "http_get('http://127.0.0.1')", "'http://127.0.0.1/x.csv'", "'s3://x/y.parquet'", "sniff_csv('x')",
    ],
)  # fmt: skip
def test_nothing_else_is_a_table(queries, table):
    with pytest.raises((SqlSyntaxError, OntologyNotFoundError, AuthorizationError)):
        queries.run(f"select * from {table.format(root=queries.root)}")


@pytest.mark.parametrize(
    "text",
    [
        "with recursive `{path}` as (select * from `{path}`) select * from `{path}`",
        "with recursive `bdh://Secret/*/*.parquet` as (select 1 as x) select * from `bdh://Secret/*/*.parquet`",
        "with recursive duckdb_databases as (select * from duckdb_databases) select * from duckdb_databases",
        "select l.* from S join lateral (select * from `{path}`) l on true"
        " where exists (with `{path}` as (select 1) select 1 from `{path}`)",
        "select * from S, lateral (select * from `{path}`) l where exists (with `{path}` as (select 1) select 1)",
        "select * from S lateral view explode((select array_agg(password) from `{path}`)) t as x"
        " where exists (with `{path}` as (select 1) select 1)",
        "select * from S join unnest((select array_agg(password) from `{path}`)) t on true"
        " where exists (with `{path}` as (select 1) select 1)",
        "with a as (with `{path}` as (select 1) select 1) select * from S join lateral (select * from `{path}`) l",
    ],
)
def test_the_name_of_a_view_reaches_no_file_and_no_catalogue(queries, text):
    with pytest.raises((SqlSyntaxError, OntologyNotFoundError)):
        queries.run(text.format(path=queries.root / "Secret" / "x.csv"))


def test_a_view_with_a_plain_name_is_one(queries):
    assert queries.run("with a as (select count(*) as n from S) select n + 1 from a").rows == [(1,)]


@pytest.mark.parametrize(
    "expression",
    [
        "current_setting('temp_directory')", "getenv('HOME')", "current_query()", "version()", "current_user",
        "current_database()", "current_schemas(true)", "getvariable('x')", "nextval('x')", "setval('x', 1)",
        "pg_sleep(1)", "sleep_ms(1000)", "write_log('x')", "txid_current()", "pg_catalog.pg_sleep(1)", "main.abs(1)",
        "repeat('a', 1000000000)", "range(1000000000000)", "replace('aa', 'a', 'bb')", "levenshtein('a', 'b')",
        "regexp_replace('a', 'a', 'bb')", "damerau_levenshtein('a', 'b')", "editdist3('a', 'b')",
        "(select 1 from Secret)", "(select measure from Secret)",
        "json_serialize_sql('select 1')", "read_text('x')", "inet_server_addr()", "@@version", "$1", "?", ":x", "{{fn x}}",
        "has_table_privilege('x', 'y')", "transform(measure) using 'cat' as (x)", "cast(1 as pg_catalog.int4)",
        "reflect('java.lang.System', 'exit')", "java_method('a', 'b')", "setseed(0.1)", "assert_true(false)",
    ],
)  # fmt: skip
def test_no_other_function_is_reached(queries, expression):
    with pytest.raises((SqlSyntaxError, AuthorizationError)):
        queries.run(f"select {expression} from S")


@pytest.mark.parametrize(
    "text",
    [
        "copy S to '/tmp/x'", "copy (select * from S) to '/tmp/x'", "attach '/tmp/x' as y", "detach S", "install httpfs",
        "load httpfs", "pragma version", "set x = 1", "reset x", "create table x as select * from S", "drop table S",
        "insert into S select * from S", "update S set measure = 1", "delete from S", "export database '/tmp'",
        "import database '/tmp'", "call pragma_version()", "checkpoint", "vacuum", "explain select * from S",
        "describe S", "show tables", "use x", "select * into x from S", "select * from S; drop table S", "begin",
        "with x as (insert into S values (1)) select 1", "execute x", "prepare x as select 1", "", ";", "{}", "null",
        "select * from S /*", "select 'x", "selekt 1", "select * from S limit 'x' offset", "from S insert overwrite x",
        "insert overwrite local directory '/tmp' select * from S", "add jar x", "dfs -ls /", "!sh ls",
    ],
)  # fmt: skip
def test_only_selects_run(queries, text):
    with pytest.raises(SqlSyntaxError):
        queries.run(text)


@given(st.text(max_size=40))
def test_a_string_stays_a_string(queries, text):
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    try:
        rows = queries.run(f"select '{quoted}' as x, count(*) as n from S").rows
    except SqlSyntaxError:
        return  # characters that no statement may have
    assert rows == [(text, 0)]


@given(st.text(alphabet=st.sampled_from("""ab'"`\\;-/*(){}$., x"""), max_size=30))
def test_text_never_breaks_out(queries, text):
    manifest = queries._sources._manifest
    manifest.asked.clear()
    for statement in (
        f"select * from S where assetId = '{text}'",
        f'select "{text}" from S',
        f"select `{text}` from S",
    ):
        try:
            queries.run(statement)
        except SibError:
            pass
    assert set(manifest.asked) <= {"S"}


@pytest.mark.parametrize(
    "expression",
    [
        "nvl(measure, 0)", "concat(assetId, 'x')", "percentile(measure, 0.5)", "percentile_approx(measure, 0.5)",
        "collect_list(assetId)", "collect_set(assetId)", "size(geometry.coordinates)", "if(measure > 3, 1, 2)",
        "regexp_extract(assetId, 'a(.)', 1)", "split(assetId, '_')[0]", "to_date('2026-01-01')",
        "datediff('2026-01-02', '2026-01-01')", "date_add('2026-01-01', 1)", "from_unixtime(5)", "instr(assetId, 'a')",
        "date_format(contextdata.timestamp, 'yyyy-MM-dd HH')", "current_timestamp()", "get_json_object(_raw, '$.a')",
        "array_contains(geometry.coordinates, 1)", "stddev_pop(measure)", "ntile(4) over (order by _id)", "md5(assetId)",
        "months_between('2026-01-01', '2026-02-01')", "assetId rlike 'a'", "cast('1' as bigint)", "round(measure, 1)",
    ],
)  # fmt: skip
def test_functions_of_hive(queries, expression):
    assert len(queries.run(f"select {expression} as x from S").rows) <= 1


def test_the_right_is_asked_for_each_time(queries):
    text = "select count(*) from T"
    assert queries.run(text).rows == [(0,)]

    def refused(name):
        raise AuthorizationError(f"not {name}")

    with pytest.raises(AuthorizationError):
        queries.run(text, lookup=refused)
    assert queries.run(text).rows == [(0,)]


@pytest.mark.parametrize(
    "text",
    [
        "select x -> y from a", "select * from a, lateral (select 1) b", "select * from unnest([1, 2])",
        "select count(*) over (order by x), row_number() over () from a",
        "select x like 'b', not x, x between 1 and 2, case when x then 1 end, x::date, coalesce(x, 1) from a",
        "with recursive t as (select 1 as n union all select n + 1 from t where n < 5) select * from t",
        "select sum(x) filter (where y) from a b left join (select * from a) c using (x) group by rollup (x)",
        "select x in (1, 2), exists (select 1), [1, 2], {'a': 1}, interval 3 day, x || 'a', x[1:2] from a",
        "select percentile_cont(0.5) within group (order by x) from a", "select date_trunc('day', x), now() from a",
    ],
)  # fmt: skip
def test_computations_are_let_through(connection, text):
    check(connection, text, {"a"})


def test_every_function_of_the_list_is_one_of_duckdb(connection):
    known = {row[0] for row in connection.execute("select distinct function_name from duckdb_functions()").fetchall()}
    assert known >= FUNCTIONS
    tables = "select distinct function_name from duckdb_functions() where function_type like 'table%'"
    for (name,) in connection.execute(tables).fetchall():
        if name != "unnest" and name not in FUNCTIONS:
            with pytest.raises(SqlSyntaxError):
                check(connection, f'select * from "{name}"(1)', ())


@given(st.text(max_size=30))
def test_a_parameter_is_a_value_and_nothing_else(queries, value):
    text = "select {$X} as x, count(*) as n from S where assetId = {$X}"
    try:
        rows = queries.run(text, parameters={"X": value}).rows
    except SqlSyntaxError:
        return
    assert rows == [(value, 0)]


def test_parameters_are_for_predefined_queries(queries):
    for text, parameters in (
        ("select {$X} from S", None),
        ("select {$X} from S", {}),
        ("select * from `{$X}`", {"X": "S"}),
        ("select measure as {$X} from S", {"X": "y"}),
    ):
        with pytest.raises((SqlSyntaxError, OntologyNotFoundError)):
            queries.run(text, parameters=parameters)
    assert queries.run("select count(*) as n from S as of {$X}", parameters={"X": "2026-01-01"}).rows == [(0,)]


def test_times_are_those_of_utc_wherever_the_machine_is(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    engine = open_engine(LocalFiles(tmp_path), 64 << 20, 1)
    assert engine.execute("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]
    engine.close()
