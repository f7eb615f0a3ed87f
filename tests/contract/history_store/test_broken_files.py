"""Files of the history that are missing or damaged: queries and compactions name them."""

from datetime import datetime

import pytest

from sib.errors import QueryError, StoreError
from sib.ontology import compile_ontology
from sib.ontology.templates import template
from storage.bdh import layout, parts
from storage.bdh.compaction import Compaction

DAY_1, DAY_2 = datetime(2026, 1, 1, 10), datetime(2026, 1, 2, 10)


def footer_bytes(data):
    return int.from_bytes(data[-8:-4], "little")


DAMAGES = {
    "without its end": lambda data: data[:-200],
    "empty": lambda data: b"",
    "odd footer": lambda data: data[: -8 - footer_bytes(data)] + b"\xaf" * footer_bytes(data) + data[-8:],
    "odd pages": lambda data: data[:100] + bytes(1500) + data[1600:],
}


@pytest.fixture
def path(world):
    """Of the second of two files."""
    for day in (DAY_1, DAY_2):
        world.insert(range(1000), day)
        world.transfer().run(datetime(2026, 1, 3))
    return layout.record_path(world.manifest.files("S")[1])


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_query_names_the_damaged_file(world, path, damage):
    data = world.files.read(path)
    world.files.delete(path)
    world.files.put(path, "S/_tmp/x", memoryview(DAMAGES[damage](data)))
    with pytest.raises(StoreError, match=path):
        world.sql("select sum(measure), max(_id), max(assetId) from S")
    assert world.sql("select count(*) from S where fecha = '2026-01-01'") == [(1000,)]
    with pytest.raises(parts.DamagedPartError, match=path):
        parts.read_table(world.files, path)


@pytest.mark.parametrize("columns", ["count(*)", "max(measure)"])
def test_a_query_names_the_missing_file(world, path, columns):
    world.files.delete(path)
    for source in ("S", "both.S"):
        with pytest.raises(parts.LostPartError, match=path):
            world.sql(f"select {columns} from {source}")
    assert world.sql("select count(*) from S where fecha = '2026-01-01'") == [(1000,)]


def test_a_query_names_the_missing_file_of_an_older_version(world, path):
    """Its columns are looked up first."""
    world.ontology = compile_ontology("S", template("SensorPoint").schema_text.replace('"measure"', '"value"'))
    world.files.delete(path)
    with pytest.raises(parts.LostPartError, match=path):
        world.sql("select count(*) from S where fecha = '2026-01-02'")


def test_a_file_that_is_lost_while_queries_run(world, path):
    """DuckDB remembers footers."""
    queries = world.queries()
    try:
        assert queries.run("select count(*) from S").rows == [(2000,)]
        world.files.delete(path)
        with pytest.raises(parts.LostPartError, match=path):
            queries.run("select count(*) from S")
    finally:
        queries.close()


def test_a_query_that_is_wrong_blames_no_file(world, path):
    with pytest.raises(QueryError) as caught:
        world.sql("select assetId rlike '(' from S")
    assert path not in str(caught.value)


def test_a_compaction_leaves_out_the_day_and_does_the_others(world, path):
    world.insert(range(5), DAY_1)
    world.insert(range(5), DAY_2)
    world.transfer().run(datetime(2026, 1, 3))
    world.files.delete(path)
    result = Compaction("S", world.files, world.manifest, now=lambda: world.now).run()
    assert (result.n_days, result.n_new) == (1, 1)
    (failure,) = result.failures
    assert path in failure
