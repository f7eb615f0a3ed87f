"""Whatever the text, a parser gives a plan or an error of the platform: never another exception."""

from contextlib import suppress
from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from sib.errors import SibError
from sib.ontology.ontology import compile_ontology
from sib.query.explain import print_plan
from sib.query.matcher import compile_filter
from sib.query.native import plan_delete, plan_native
from sib.query.plan import Aggregate, Insert, condition_of, is_read
from sib.query.relaxed import parse_relaxed
from sib.query.sqlbdc import plan_bdc
from sib.query.sqlplan import plan_sql

F = compile_ontology("F", '{"type":"object","properties":{"a":{},"b":{},"c":{"type":"object"}}}')
SQL = [
    "select a, count(distinct b) as n from F where a > 1 and b like 'x%' group by a having n > 2 order by n desc limit 1, 2",
    "select upper(a) u, case when a is null then 1 else b end from F where not (a in (1,'x') or b between 1 and 2)",
    "insert into F(a, c, b) values (\"{ 'x': [1, 2] }\", 'x''y', -1.5e3), (now(), true, null)",
    "update F set F.a = b + 1, c.d[0] = 'x' where contextData.timestamp > date_sub(now(), interval 1 day)",
    "delete from F where _id = ’f03c2131f0af4d8ea36818fa’ -- why\n;",
    "select * from F where a = {$P} and c.d.e[0] <> '{$P}'",
    "select count(*) from F",
    "select *, a * 2 as b2, {'a': [1, 2]} from F order by 'contextData.timestamp'",
]
SHELL = [
    "db.F.find({a:{$gt:1},'b.c':/x/i},{a:1}).sort({a:-1}).skip(1).limit(2);",
    "db.F.update({a:ObjectId('f03c2131f0af4d8ea36818fa')},{$set:{b:new Date(Date.now()-1)}},{multi:true})",
    "db['F'].aggregate([{$match:{a:{$in:[1,NumberLong(2)]}}},{$group:{_id:'$a',n:{$sum:1}}}])",
    '{ Sensor.a : {"$date":"2014-04-29T08:24:54.005Z"}, b: [1, -2.5, "\\u00e1", null, true, {$P}, ] }',
    'db.getCollection("F").findAndModify({query:{a:1}, update:{$inc:{b:1}}, new:true})',
]
WORDS = """
select from where and or not in like is null between group by having order limit offset insert into values update set
delete distinct as case when then else end count sum max now interval day date db find sort new Date F a b c a.b c[0]
_id * ( ) [ ] { } , . ; : = < > <> <= + - / % && || ! ~ ^ & 'x' "x" `a` ’x’ 1 -1 2.5 1e9 $ $gt $set {$P} ' " ` ’ “
/* */ -- # // /x/i \\ ? @x :x 0x1F ISODate( ObjectId( true false null undefined NaN !=
"""
TOKENS = [*WORDS.split(), "\n", "\0", "\ue000P\ue001"]


@st.composite
def damaged(draw, texts):
    """A good text with a few pieces cut out, doubled or put in."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 6)))
        piece = draw(st.sampled_from(["", text[start:end] * 2, *TOKENS]) | st.text(max_size=3))
        text = text[:start] + piece + text[end:]
    return text


soup = st.lists(st.sampled_from(TOKENS), max_size=25).flatmap(
    lambda tokens: st.sampled_from([" ".join(tokens), "".join(tokens)])
)
statements = st.text(max_size=60) | soup | soup.map(lambda text: f"select {text}") | damaged(SQL)
scripts = st.text(max_size=60) | soup | soup.map(lambda text: f"db.F.find({text})") | damaged(SHELL)
parameters = st.sampled_from([None, {}, {"P": "$x' or 1"}, {"P": -5}])


def now() -> datetime:
    return datetime(2020, 1, 1)


def exercise(plan) -> None:
    assert "ontology" in print_plan(plan)
    if not isinstance(plan, Insert | Aggregate):
        compile_filter(plan.filter)
    if is_read(plan):
        condition_of(plan)


@given(statements, parameters)
def test_sql(text, values):
    with suppress(SibError):
        plan = plan_sql(text, lookup=lambda name: F, now=now, parameters=values)
        exercise(plan)
        if isinstance(plan, Insert):
            for document in plan.documents:
                F.read(document)


@given(statements)
def test_configuration_reads(text):
    with suppress(SibError):
        compile_filter(plan_bdc(text).filter)


@given(scripts, parameters)
def test_native(text, values):
    with suppress(SibError):
        exercise(plan_native(text, ontology="F", now=now, parameters=values))
    with suppress(SibError):
        exercise(plan_delete(text, ontology="F", now=now))


@given(st.text(max_size=80) | soup | damaged(SHELL))
def test_relaxed_json(text):
    try:
        parse_relaxed(text, now=now)
    except SibError as error:
        message = error.message
    else:
        message = ""
    assert message == "" or message.isprintable()
