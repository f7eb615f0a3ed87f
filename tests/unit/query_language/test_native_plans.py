import json
from datetime import datetime
from pathlib import Path

import pytest
from bson import ObjectId

from sib.errors import QuerySyntaxError
from sib.query.native import plan_delete, plan_native
from sib.query.plan import Aggregate, Count, Delete, Distinct, Find, Insert, Update, condition_of, is_read, shape

FRAMES = Path(__file__).parents[2] / "data" / "client-frames.jsonl"
ID = "f03c2131f0af4d8ea36818fa"
NOW = datetime(2020, 1, 1)


def plan(text: str):
    return plan_native(text, ontology="T", now=lambda: NOW)


@pytest.mark.parametrize("text", ["", "  ", "{}", "{ }", " {}; ", "null", "{\n}"])
def test_nothing_is_every_instance(text):
    assert plan(text) == Find("T")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{Sensor.assetId:"x"}', Find("T", {"Sensor.assetId": "x"})),
        ("db.X.find()", Find("X")),
        ("db.SensorTemperatura.find().limit(3);", Find("SensorTemperatura", limit=3)),
        ("{db.X.find({a:1})}", Find("X", {"a": 1})),
        ('db["X Y"].find({a:1})', Find("X Y", {"a": 1})),
        ("db . getCollection ( 'X' ) . find ( )", Find("X")),
        ("db.X.find({a:1},{b:1,_id:0})", Find("X", {"a": 1}, {"b": 1, "_id": 0})),
        ("db.X.find(null, {})", Find("X")),
        ("db.X.findOne({a:1})", Find("X", {"a": 1}, limit=1)),
        (f'db.X.find({{"_id":{{"$oid":"{ID}"}}}})', Find("X", {"_id": ObjectId(ID)})),
        (
            "db.R.find().sort({'R.date':1}).sort({'contextData.timestamp':-1})",
            Find("R", sort=(("contextData.timestamp", -1),)),
        ),
        (
            'db.X.find().sort({"contextData.timestamp":-1}).limit(1)',
            Find("X", sort=(("contextData.timestamp", -1),), limit=1),
        ),
        ("db.X.find().skip(2).limit(-3).pretty().toArray()", Find("X", skip=2, limit=3)),
        ("db.X.find().limit(5).limit(0)", Find("X")),
        ("db.X.find().sort([['a',1],['b',-1.0]])", Find("X", sort=(("a", 1), ("b", -1)))),
        ('db.X.find({"Sensor.created":{"$lt": new ISODate()}});', Find("X", {"Sensor.created": {"$lt": NOW}})),
        (
            'db.X.find({"g.coordinates":{$near:[12,12],$maxDistance:1}})',
            Find("X", {"g.coordinates": {"$near": [12, 12], "$maxDistance": 1}}),
        ),
        ("{db.x: 1}", Find("T", {"db.x": 1})),
        ("db.X.find({a:1}).skip(1).limit(2).count()", Count("X", {"a": 1})),
        ("db.X.find({a:1}).skip(1).limit(2).count(true)", Count("X", {"a": 1}, 1, 2)),
        ("db.X.find({a:1}).limit(2).size()", Count("X", {"a": 1}, 0, 2)),
        ("db.X.count({a:1})", Count("X", {"a": 1})),
        ("db.X.countDocuments({a:1},{skip:1,limit:2})", Count("X", {"a": 1}, 1, 2)),
        ("db.X.estimatedDocumentCount()", Count("X")),
        ("db.X.distinct('a.b',{c:1})", Distinct("X", "a.b", {"c": 1})),
        (
            "db.X.aggregate([{$match:{a:1}},{$limit:2}],{allowDiskUse:true})",
            Aggregate("X", ({"$match": {"a": 1}}, {"$limit": 2})),
        ),
        ("db.X.aggregate({$match:{a:1}},{$limit:2}).toArray()", Aggregate("X", ({"$match": {"a": 1}}, {"$limit": 2}))),
        ("db.X.aggregate()", Aggregate("X", ())),
        (
            "db.X.insert({_id:1,d:ISODate('2014-01-01')})",
            Insert("X", ({"_id": 1, "d": {"$date": "2014-01-01T00:00:00.000Z"}},)),
        ),
        ("db.X.insert([{a:1},{a:2}])", Insert("X", ({"a": 1}, {"a": 2}))),
        ("db.X.insertOne({a:1})", Insert("X", ({"a": 1},))),
        ("db.X.insertMany([{a:1}],{ordered:false})", Insert("X", ({"a": 1},))),
        ("db.X.save({a:1})", Insert("X", ({"a": 1},))),
        ("db.X.save({_id:1,a:1})", Update("X", {"_id": 1}, {"a": 1}, multi=False, upsert=True, replace_root=True)),
        ("db.X.update({a:1},{$set:{b:2}})", Update("X", {"a": 1}, {"$set": {"b": 2}}, multi=False)),
        ("db.X.update({a:1},{$set:{b:2}},false,true)", Update("X", {"a": 1}, {"$set": {"b": 2}}, multi=True)),
        ("db.X.update({a:1},{$set:{b:2}},true)", Update("X", {"a": 1}, {"$set": {"b": 2}}, multi=False, upsert=True)),
        (
            "db.X.update({a:1},{$set:{b:2}},{multi:true,upsert:1})",
            Update("X", {"a": 1}, {"$set": {"b": 2}}, multi=True, upsert=True),
        ),
        (
            "db.X.update({a:1},{_id:9,contextData:{},S:{b:2}})",
            Update("X", {"a": 1}, {"S": {"b": 2}}, multi=False, replace_root=True),
        ),
        ("db.X.updateOne({},[{$set:{b:'$a'}}])", Update("X", {}, [{"$set": {"b": "$a"}}], multi=False)),
        (
            "db.X.updateMany({},{$set:{'a.$[e]':1}},{arrayFilters:[{e:2}]})",
            Update("X", {}, {"$set": {"a.$[e]": 1}}, multi=True, array_filters=({"e": 2},)),
        ),
        ("db.X.replaceOne({a:1},{b:2})", Update("X", {"a": 1}, {"b": 2}, multi=False, replace_root=True)),
        (
            "db.X.findOneAndUpdate({a:1},{$inc:{b:1}},{sort:{c:-1},returnDocument:'after',projection:{b:1}})",
            Update(
                "X", {"a": 1}, {"$inc": {"b": 1}}, multi=False, sort=(("c", -1),), returns="after", projection={"b": 1}
            ),
        ),
        (
            "db.X.findOneAndReplace({a:1},{b:1})",
            Update("X", {"a": 1}, {"b": 1}, multi=False, replace_root=True, returns="before"),
        ),
        (
            "db.X.findOneAndDelete({a:1},{sort:{b:1}})",
            Delete("X", {"a": 1}, multi=False, sort=(("b", 1),), returns="before"),
        ),
        (
            "db.X.findAndModify({query:{a:1},update:{$inc:{b:1}},new:true})",
            Update("X", {"a": 1}, {"$inc": {"b": 1}}, multi=False, returns="after"),
        ),
        ("db.X.findAndModify({query:{a:1},remove:true})", Delete("X", {"a": 1}, multi=False, returns="before")),
        ("db.X.remove({a:1});", Delete("X", {"a": 1}, multi=True)),
        ("db.X.remove({a:1},true)", Delete("X", {"a": 1}, multi=False)),
        ("db.X.remove({a:1},{justOne:true})", Delete("X", {"a": 1}, multi=False)),
        ("db.X.remove({})", Delete("X", {}, multi=True)),
        ("db.X.deleteOne({a:1})", Delete("X", {"a": 1}, multi=False)),
        ("db.X.deleteMany({a:1})", Delete("X", {"a": 1}, multi=True)),
    ],
)
def test_plans(text, expected):
    assert plan(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("selec * from X", "SQLLIKE), not with 'selec'"),
        ("(updat X set a = 1)", "not with 'updat'"),
        ("find({})", "db.ONTOLOGY.METHOD(...)"),
        ("Select * from X", "What begins with Select is SQL: send it as SQLLIKE"),
        ("[{$match:{}}]", "must be an object"),
        ("db.X", "expected db.ONTOLOGY.METHOD"),
        ("db.X.find", "expected db.ONTOLOGY.METHOD"),
        ("db.find({})", "expected db.ONTOLOGY.METHOD"),
        ("db.X.find({a:1}", "expected ',' or ')'"),
        ("db.X.find({}); db.X.drop()", "one statement at a time"),
        ("{db.X.find({})", "expected '}'"),
        ("db.X.drop()", "drop() is not accepted"),
        ("db.X.createIndex({a:1})", "not accepted"),
        ("db.X.find().explain()", "not accepted"),
        ("db.X.find().forEach(function(d){})", "JavaScript"),
        ("db.X.count().limit(1)", "not accepted after count()"),
        ("db.X.findOne().sort({a:1})", "not accepted after findOne()"),
        ("db.X.find({$where:'1'})", "$where is refused"),
        ("{a:{$elemMatch:{$where:'1'}}}", "$where is refused"),
        ("db.X.aggregate([{$project:{a:{$function:{}}}}])", "$function is refused"),
        ("db.X.find({},{a:{$function:{}}})", "$function is refused"),
        ("db.X.find(1)", "must be an object"),
        ("db.X.find({},{},{},{})", "at most"),
        ("db.X.find().limit('x')", "whole number"),
        ("db.X.find().limit(1.5)", "whole number"),
        ("db.X.find().limit(99999999999)", "from 0 to"),
        ("db.X.find().skip(-1)", "from 0 to"),
        ("db.X.find().sort({a:2})", "1 or -1"),
        ("db.X.find().sort({a:{$meta:'textScore'}})", "1 or -1"),
        ("db.X.find().sort('a')", "sort takes"),
        ("db.X.aggregate([{$match:{},$limit:1}])", "Stage 1"),
        ("db.X.aggregate('x')", "Stage 1"),
        ("db.X.distinct()", "needs the path"),
        ("db.X.distinct({})", "takes the path"),
        ("db.X.insert()", "needs an instance"),
        ("db.X.insert([])", "1 to"),
        ("db.X.insert([1])", "must be an object"),
        ("db.X.insertOne([{a:1}])", "takes one instance"),
        ("db.X.insertMany({a:1})", "a list of instances"),
        ("db.X.update({a:1})", "needs a change"),
        ("db.X.update({a:1},{$set:{b:1},c:2})", "takes operators"),
        ("db.X.update({a:1},{b:1},{multi:true})", "takes operators"),
        ("db.X.updateOne({a:1},{b:1})", "takes operators"),
        ("db.X.updateOne({a:1},{$set:1})", "content of $set"),
        ("db.X.updateOne({a:1},{$set:{b:1}},{collation:{}})", "no option 'collation'"),
        ("db.X.updateOne({a:1},{$set:{b:1}},{upsert:'yes'})", "true or false"),
        ("db.X.replaceOne({a:1},{$set:{b:1}})", "fields, not operators"),
        ("db.X.remove()", "needs a criterion"),
        ("db.X.deleteMany()", "needs a criterion"),
        ("db.X.findAndModify({query:{}})", "needs update or remove"),
        ("db.X.find()" + ".pretty()" * 60, "more than 50 calls"),
        ("db.eval('x')", "expected db.ONTOLOGY"),
    ],
)
def test_refusals(text, reason):
    with pytest.raises(QuerySyntaxError) as caught:
        plan(text)
    assert reason in caught.value.message


def test_a_criterion_alone_needs_an_ontology():
    with pytest.raises(QuerySyntaxError, match="ontology field"):
        plan_native("{a:1}", ontology=None)
    assert plan_native("db.X.find()", ontology=None) == Find("X")


def test_delete_takes_a_condition():
    assert plan_delete("{a:1}", ontology="T") == Delete("T", {"a": 1})
    assert plan_delete("db.X.find({a:1})", ontology="T") == Delete("X", {"a": 1})
    assert plan_delete("db.X.remove({})", ontology="T") == Delete("X", {})
    for text in ("", "{}", "null", " ", "{ };", "{/* all */}", "db.X.find()"):
        with pytest.raises(QuerySyntaxError, match="needs a condition"):
            plan_delete(text, ontology="T")


def test_condition_of_a_subscription():
    assert condition_of(plan("db.X.find({a:1},{b:1}).sort({c:1}).limit(2)")) == {"a": 1}
    assert condition_of(plan("db.X.count({a:1})")) == {"a": 1}
    assert condition_of(
        plan("db.X.aggregate([{$match:{a:1}},{$match:{}},{$match:{b:1}},{$group:{_id:1}},{$match:{c:1}}])")
    ) == {"$and": [{"a": 1}, {"b": 1}]}
    assert condition_of(plan("db.X.aggregate([{$limit:1}])")) == {}
    for text in ("db.X.remove({a:1})", "db.X.insert({a:1})", "db.X.aggregate([{$out:'Y'}])"):
        with pytest.raises(QuerySyntaxError):
            condition_of(plan(text))


def test_which_plans_read():
    assert is_read(plan("db.X.find()"))
    assert is_read(plan("db.X.aggregate([{$match:{a:1}}])"))
    assert not is_read(plan("db.X.aggregate([{$merge:'Y'}])"))
    assert not is_read(plan("db.X.remove({})"))


def test_shape_of_aggregate_answers():
    assert shape(Aggregate("X", (), scalar=True), [{"n": 3}]) == 3
    assert shape(Aggregate("X", (), scalar=True), []) == 0
    assert shape(Aggregate("X", (), empty_row={"n": 0}), []) == [{"n": 0}]
    assert shape(Aggregate("X", ()), []) == []


def native_texts() -> list[str]:
    """The native queries in recorded frames of published clients."""
    texts = set()

    def walk(value):
        if isinstance(value, dict):
            query = value.get("query")
            if isinstance(query, str) and value.get("queryType") in (None, "NATIVE"):
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
    return sorted(texts)


@pytest.mark.parametrize("text", native_texts())
def test_native_queries_of_published_clients(text):
    assert plan(text).ontology in ("T", "TestSensorTemperatura")


def test_frames_have_native_queries():
    assert len(native_texts()) > 10


def test_a_misspelt_keyword_is_told_before_a_missing_ontology():
    with pytest.raises(QuerySyntaxError, match="not with 'selec'"):
        plan_native("selec * from X", ontology=None)
