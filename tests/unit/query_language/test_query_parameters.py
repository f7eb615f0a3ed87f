from datetime import datetime

import pytest
from bson import ObjectId

from sib.errors import QuerySyntaxError, SqlSyntaxError
from sib.ontology.ontology import compile_ontology
from sib.query.native import plan_native
from sib.query.parameters import MAX_PARAMETER_CHARS, MAX_PARAMETERS, bind_parameters
from sib.query.plan import Aggregate, Find, Insert, Update
from sib.query.sqlplan import plan_sql

F = compile_ontology("F", '{"type":"object","properties":{"a":{},"b":{},"c":{}}}')


def sql(text, parameters):
    return plan_sql(text, lookup=lambda name: F, parameters=parameters)


@pytest.mark.parametrize(
    ("type_name", "sent", "value"),
    [
        ("string", "x", "x"),
        ("string", '"x"', "x"),
        ("string", "'x'", "x"),
        ("string", '""x""', '"x"'),
        ("string", '"', '"'),
        ("STRING", "5", "5"),
        ("string", 5, "5"),
        ("number", "5", 5),
        ("number", '"5.5"', 5.5),
        ("number", " -2e3 ", -2000.0),
        ("integer", "5", 5),
        ("double", "5", 5.0),
        ("boolean", "True", True),
        ("boolean", False, False),
        ("date", "2014-04-29T08:24:54.005Z", datetime(2014, 4, 29, 8, 24, 54, 5000)),
        ("objectid", "f03c2131f0af4d8ea36818fa", ObjectId("f03c2131f0af4d8ea36818fa")),
    ],
)
def test_values_take_their_declared_type(type_name, sent, value):
    bound = bind_parameters({"P": sent}, {"P": type_name})["P"]
    assert bound == value
    assert type(bound) is type(value)


@pytest.mark.parametrize(
    ("values", "types", "reason"),
    [
        ({}, {"P": "string"}, "P of this query is missing"),
        (None, {"P": "string"}, "P of this query is missing"),
        ({"P": "x"}, {"P": "number"}, "must be a number"),
        ({"P": "NaN"}, {"P": "number"}, "must be a number"),
        ({"P": "1.5"}, {"P": "integer"}, "must be a integer"),
        ({"P": "perhaps"}, {"P": "boolean"}, "must be a boolean"),
        ({"P": "tomorrow"}, {"P": "date"}, "must be a date"),
        ({"P": "x"}, {"P": "blob"}, "declared as blob"),
        ({"P": "\ud800"}, {"P": "string"}, "half a character"),
        ({"P": "x" * (MAX_PARAMETER_CHARS + 1)}, {"P": "string"}, "longer"),
        ({f"P{number}": "x" for number in range(MAX_PARAMETERS + 1)}, {}, "More than"),
    ],
)
def test_values_that_do_not_fit(values, types, reason):
    with pytest.raises(QuerySyntaxError) as caught:
        bind_parameters(values, types)
    assert reason in caught.value.message


def test_undeclared_parameters_are_text():
    assert bind_parameters({"P": "5"}, {}) == {"P": "5"}


HOSTILE = "x' or '1'='1"


@pytest.mark.parametrize(
    ("text", "parameters", "filter_"),
    [
        ("select * from F where a={$P}", {"P": "x"}, {"a": "x"}),
        ("select * from F where a = '{$P}'", {"P": "x"}, {"a": "x"}),
        ("select * from F where a={ $P } and b>{$N}", {"P": HOSTILE, "N": -2.5}, {"a": HOSTILE, "b": {"$gt": -2.5}}),
        ("select * from F where a='{$P}'", {"P": "x\\"}, {"a": "x\\"}),
        ("select * from F where a={$P}", {"P": '{"$date":"2014-01-01"}'}, {"a": '{"$date":"2014-01-01"}'}),
        ("select * from F where a={$P}", {"P": True}, {"a": True}),
        ("select * from F where a={$P}", {"P": None}, {"a": None}),
        ("select * from F where a>{$P}", {"P": datetime(2014, 1, 1)}, {"a": {"$gt": datetime(2014, 1, 1)}}),
        ("select * from F where a like '%{$P}'", {"P": "x'y"}, {"a": {"$regex": "x'y$", "$options": "s"}}),
        ("select * from F where a in ({$P}, {$Q})", {"P": 1, "Q": 2}, {"a": {"$in": [1, 2]}}),
        ("select * from F where a = '{$P}-{$Q}'", {"P": 1, "Q": False}, {"a": "1-false"}),
        ("select * from F where a = {$P}", {"P": "{$Q}", "Q": "secret"}, {"a": "{$Q}"}),
    ],
)
def test_sql_takes_values_never_text(text, parameters, filter_):
    assert sql(text, parameters) == Find("F", filter_)


def test_sql_elsewhere():
    assert sql("select * from F limit {$N}", {"N": 3}) == Find("F", limit=3)
    assert sql("insert into F(a, b) values ({$P}, {$Q})", {"P": "[1]", "Q": 2}) == Insert("F", ({"a": "[1]", "b": 2},))
    assert sql("update F set a={$P} where b={$Q}", {"P": '{"x":1}', "Q": 2}) == Update(
        "F", {"b": 2}, {"$set": {"a": '{"x":1}'}}, True
    )
    shown = sql("select {$P} as p from F", {"P": "$a"})
    assert isinstance(shown, Aggregate)
    assert shown.pipeline == ({"$project": {"_id": 0, "p": {"$literal": "$a"}}},)


@pytest.mark.parametrize(
    "text", ["select * from {$P}", "select F.{$P} from F", "update F set {$P} = 1", "select a {$P} from F"]
)
def test_sql_parameters_are_no_names(text):
    with pytest.raises(SqlSyntaxError):
        sql(text, {"P": "F"})


def test_marks_cannot_be_smuggled_in():
    assert sql("select * from F where a = '\ue000P\ue001'", {"P": "x"}) == Find("F", {"a": "P"})
    assert sql("select * from F where a = {$P}", {"P": "\ue000Q\ue001", "Q": "x"}) == Find("F", {"a": "\ue000Q\ue001"})


@pytest.mark.parametrize(
    ("text", "parameters", "filter_"),
    [
        ("{a:{$P}}", {"P": "x"}, {"a": "x"}),
        ("{a:'{$P}', b:{$gt:{ $N }}}", {"P": 'x",$where:"1', "N": 5}, {"a": 'x",$where:"1', "b": {"$gt": 5}}),
        ("{a:/^x/, b:'{$P}!'}", {"P": datetime(2014, 1, 1)}, {"b": "2014-01-01T00:00:00.000Z!"}),
        ("db.F.find({a:{$in:[{$P},{$Q}]}})", {"P": 1, "Q": True}, {"a": {"$in": [1, True]}}),
        ("{a:{$P}}", {"P": "$b"}, {"a": "$b"}),
    ],
)
def test_native_takes_values_never_text(text, parameters, filter_):
    plan = plan_native(text, ontology="F", parameters=parameters)
    assert isinstance(plan, Find)
    assert filter_.items() <= plan.filter.items()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{a:{$Q}}", "Q of this query is missing"),
        ("{a:'x{$Q}'}", "Q of this query is missing"),
        ("{$expr:{$eq:['$a',{$P}]}}", "cannot begin with"),
        ("db.F.aggregate([{$project:{x:{$P}}}])", "cannot begin with"),
        ("db.F.find({}, {x:{$P}})", "cannot begin with"),
        ("db.F.updateOne({}, [{$set:{x:{$P}}}])", "cannot begin with"),
    ],
)
def test_native_parameters_are_no_fields(text, reason):
    with pytest.raises(QuerySyntaxError) as caught:
        plan_native(text, ontology="F", parameters={"P": "$secret"})
    assert reason in caught.value.message
