from datetime import datetime

import pytest

from sib.errors import OntologyNotFoundError, SqlSyntaxError
from sib.ontology.ontology import compile_ontology
from sib.query.cache import PlanCache
from sib.query.explain import explain
from sib.query.plan import Find

SCHEMA = '{"type":"object","properties":{"a":{},"b":{}}}'


class Catalog:
    def __init__(self):
        self.ontologies = {"F": compile_ontology("F", SCHEMA)}
        self.now = datetime(2020, 1, 1)

    def lookup(self, name):
        if name not in self.ontologies:
            raise OntologyNotFoundError(name)
        return self.ontologies[name]

    def clock(self):
        return self.now


@pytest.fixture
def catalog():
    return Catalog()


@pytest.fixture
def cache(catalog):
    return PlanCache(lookup=catalog.lookup, now=catalog.clock, max_plans=3)


def test_sql_is_explained_stage_by_stage(catalog):
    stages = explain(
        "select a from F where b = ’x’ and a > {$N}; ",
        "SQLLIKE",
        lookup=catalog.lookup,
        parameters={"N": 3},
        stores=[lambda plan: [("store", f"scans {plan.ontology}")]],
    )
    assert [stage.title for stage in stages] == ["normalised text", "syntax tree", "plan", "store"]
    assert stages[0].text == "select a from F where b = 'x' and a > '{$N}'"
    assert "GT(" in stages[1].text
    assert '{"b": "x", "a": {"$gt": 3}}' in stages[2].text
    assert stages[3].text == "scans F"


def test_native_text_is_explained_stage_by_stage(catalog):
    stages = explain("db.F.find({a:{$lt:new Date()}}).limit(2);", "NATIVE", lookup=catalog.lookup, now=catalog.clock)
    assert [stage.title for stage in stages] == ["normalised text", "syntax tree", "plan"]
    assert "limit(2)" in stages[1].text
    assert "2020-01-01T00:00:00Z" in stages[2].text
    assert "skip" not in stages[2].text
    criterion = explain("{a:1}", "NATIVE", lookup=catalog.lookup, ontology="F")
    assert criterion[1].text == 'criterion {"a": 1}'
    assert explain("", "NATIVE", lookup=catalog.lookup, ontology="F")[1].text == "criterion {}"


def test_what_is_refused_is_not_explained(catalog):
    with pytest.raises(SqlSyntaxError):
        explain("drop table F", "SQL", lookup=catalog.lookup)


def test_plans_are_made_once(cache):
    assert cache.sql("select * from F where a = 1") == Find("F", {"a": 1})
    assert cache.sql("select * from F where a = 1") is cache.sql("select * from F where a = 1")
    assert cache.native("{a:1}", "F") is cache.native("{a:1}", "F")
    assert cache.native("{a:1}", "G").ontology == "G"


def test_a_changed_ontology_makes_a_new_plan(cache, catalog):
    first = cache.sql("select * from F where a = 1")
    catalog.ontologies["F"] = compile_ontology(
        "F", '{"type":"object","properties":{"R":{"type":"object","properties":{"a":{}}}}}'
    )
    second = cache.sql("select * from F where a = 1")
    assert first.filter == {"a": 1}
    assert second.filter == {"R.a": 1}
    del catalog.ontologies["F"]
    with pytest.raises(OntologyNotFoundError):
        cache.sql("select * from F where a = 1")


def test_a_plan_with_the_time_in_it_is_not_kept(cache, catalog):
    assert cache.native("{a:new Date()}", "F").filter == {"a": datetime(2020, 1, 1)}
    assert cache.sql("select * from F where a < now()").filter == {"a": {"$lt": datetime(2020, 1, 1)}}
    catalog.now = datetime(2021, 1, 1)
    assert cache.native("{a:new Date()}", "F").filter == {"a": datetime(2021, 1, 1)}
    assert cache.sql("select * from F where a < now()").filter == {"a": {"$lt": datetime(2021, 1, 1)}}
    assert len(cache) == 0


def test_the_cache_is_bounded_and_forgets_the_oldest(cache):
    kept = [cache.native(f"{{a:{number}}}", "F") for number in range(3)]
    assert cache.native("{a:0}", "F") is kept[0]
    cache.native("{a:3}", "F")
    assert len(cache) == 3
    assert cache.native("{a:0}", "F") is kept[0]
    assert cache.native("{a:1}", "F") is not kept[1]
    cache.native("{a:'" + "x" * 5000 + "'}", "F")
    assert len(cache) == 3
    with pytest.raises(SqlSyntaxError):
        cache.sql("nonsense")
    assert len(cache) == 3
