"""Rules that can be read and make no sense: every problem with its line and column."""

import pytest

from sib.cep import CepSyntaxError, check, compile_rules, parse_rules

STREAMS = {"S": {"k": "string", "v": "number", "on": "bool"}, "U": {"k": "string", "w": "float"}}


def found(text, streams=None, tables=None):
    return [(p.position.line, p.position.column, p.message) for p in check(parse_rules(text), streams, tables)]


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("from S[foo(v) > 1] select v insert into T", 8, "no function foo"),
        ("from S[v > 1 and avg(v) > 2] select v insert into T", 18, "avg is an aggregate"),
        ("from S#sliding(3) select v insert into T", 7, "no window sliding"),
        ("from S#time(x) select v insert into T", 13, "a duration above 0"),
        ("from S#time(0 sec) select v insert into T", 13, "a duration above 0"),
        ("from S#length(1.5) select v insert into T", 15, "a whole number above 0"),
        ("from S#hop(10 min) select v insert into T", 7, "hop takes 2 arguments, not 1"),
        ("from S#externalTime(5 sec, 3) select v insert into T", 21, "an attribute"),
        ("from S#time(1 min)[v > 3] select v insert into T", 20, "before the window"),
        ("from not S select k insert into T", 6, "needs its time"),
        ("from every a=S -> not S[v > 1] partition by k select a.k insert into T", 19, "needs its time"),
        ("from not S for 1 min -> b=S select b.k insert into T", 6, "begins with an event"),
        ("from every a=S? -> b=S select b.k insert into T", 12, "cannot be optional"),
        ("from every a=S<3:2> -> b=S select b.k insert into T", 12, "second number"),
        ("from every a=S and b=S or c=S -> d=S select d.k insert into T", 6, "not by both"),
        ("from every a=S<2> and b=S -> d=S select d.k insert into T", 12, "takes no count"),
        ("from every a=S#time(1 min) -> b=S select b.k insert into T", 15, "takes no window"),
        ("from S within 1 min select k insert into T", 6, "is no pattern"),
        ("from S select v + 1 insert into T", 15, "give this a name"),
        ("from S select k, v as k insert into T", 18, "two columns are called k"),
        ("from S select avg(sum(v)) as x insert into T", 19, "an aggregate inside avg"),
        ("from S select abs(v, 1) as x insert into T", 15, "abs takes 1 arguments, not 2"),
        ("from S select percentile(v, 200) as x insert into T", 29, "from 0 to 100"),
        ("from S select k order by z insert into T", 26, "order by names a selected column"),
        ("from S[5] select k insert into T", 8, "a condition is expected"),
        ("from S[v > 'x' + 1] select k insert into T", 12, "'+' works on a number, and this is a string"),
        ("from S[1 = 'x'] select k insert into T", 8, "never equal"),
        ("from S as s join U#hop(1 min, 1 min) as u on s.k == u.k select s.k insert into T", 19, "sides of a join"),
        (
            "from S#time(1 min) as s join U#time(1 min) as u on s.k = u.k select avg(s.v) as a insert into T",
            69,
            "aggregate",
        ),
        ("from every a=S -> b=S partition by k select avg(a.v) as m insert into T", 45, "aggregate"),
        ("from S#timeBatch(1 min) select count() as n insert expired events into T", 7, "sliding windows only"),
        ("from S select k insert expired events into T", 1, "expired events need"),
        ("from S select k output every 0 events insert into T", 17, "above 0"),
        ("@water(delay='1 sec') from S select k insert into T", 1, "no @water"),
        ("@watermark(delay='soon') from S select k insert into T", 1, "delay is a duration"),
        ("@watermark(late='keep') from S select k insert into T", 1, "late is"),
        ("@max(keys=0) from S select k insert into T", 1, "whole number above 0"),
        ("@max(memory='much') from S select k insert into T", 1, "a size"),
        ("@dedupe(z, '1 min') from S select k insert into T", 1, "column of the output"),
        ("@panes('x') from S#time(1 min) select count() as n insert into T", 1, "@panes(60)"),
        ("from S[v > 1] select k insert into S", 1, "feed themselves: S -> S"),
        ("from S partition by k in T.id select k insert into O", 26, "belongs to an absence"),
    ],
)
def test_problems_have_their_place(text, column, message):
    (line, at, told), *_ = found(text)
    assert message in told
    assert (line, at) == (1, column)


def test_without_declarations_unknown_names_are_accepted():
    assert found("from Whatever[x.y > 3] select z, q.r as s group by w insert into T") == []


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("from X select k insert into T", 6, "no stream or table is called X"),
        ("from S[temp > 3] select k insert into T", 8, "no attribute is called temp"),
        ("from S select k, w insert into T", 18, "no attribute is called w"),
        ("from S[k + 1 > 3] select k insert into T", 8, "'+' works on a number, and this is a string"),
        ("from S[v * k > 3] select k insert into T", 12, "'*' works on a number"),
        ("from S[k > 3] select k insert into T", 8, "never equal, greater or less"),
        ("from S[v] select k insert into T", 8, "a condition is expected here"),
        ("from S select sum(k) as t insert into T", 19, "sum works on a number"),
        ("from every a=S -> b=U[w > a.x] partition by k select a.k insert into T", 27, "no attribute is called a.x"),
        ("from every a=S -> b=U partition by v select a.k insert into T", 36, "U has no attribute v"),
        ("from S[k in Tabla] select k insert into T", 8, "no table is called Tabla"),
        ("from not S for 1 min partition by k in Tabla.id select k insert into T", 40, "no table is called Tabla"),
    ],
)
def test_declared_streams_make_names_and_types_known(text, column, message):
    (line, at, told), *_ = found(text, STREAMS, {})
    assert message in told
    assert (line, at) == (1, column)


@pytest.mark.parametrize(
    "text",
    [
        "from s[V > 3 and ON = true] select K, ts insert into T",
        "from every a=S -> b=U[w > a.v] partition by k select a.k, b.ts - a.ts as d insert into T",
        "from S#time(1 min) select k, avg(v) as m group by k having m > 3 order by m desc insert into T",
        "from S[v > 1] select k, v as big insert into T; from T[big > 3] select k insert into Q",
        "from S[k like 'a%' and upper(k) = 'A'] select coalesce(v, 0) + 1 as x insert into T",
    ],
)
def test_declared_streams_accept_what_is_right(text):
    assert found(text, STREAMS, {}) == []


def test_outputs_of_a_rule_are_known_names():
    text = "from S select k, v as big insert into T;\nfrom T[v > 1] select k insert into Q"
    assert [(line, column) for line, column, _ in found(text, STREAMS, {})] == [(2, 8)]


def test_cycles_are_refused_at_any_length():
    text = "from A select x insert into B; from B select x insert into C; from C select x insert into A"
    assert found(text) == [(1, 1, "these rules feed themselves: B -> C -> A -> B")]


def test_cascades_have_a_depth():
    text = ";".join(f"from R{n} select x insert into R{n + 1}" for n in range(9))
    assert "more than 8 rules in a row" in found(text)[0][2]
    assert found(";".join(f"from R{n} select x insert into R{n + 1}" for n in range(8))) == []


def test_two_rules_of_one_name_are_refused():
    text = "@name('a') from S select k insert into T; @name('a') from S select k insert into U"
    assert [message for _, _, message in found(text)] == ["two rules are called a"]


def test_compile_tells_all_problems_at_once():
    with pytest.raises(CepSyntaxError) as caught:
        compile_rules("from S[foo(v) > 1 and bar() = 2] select v insert into T; from not X select k insert into Y")
    assert len(caught.value.problems) == 3
    assert "1:8: there is no function foo" in caught.value.message


def test_a_very_long_cascade_is_refused_and_nothing_more():
    text = ";".join(f"from R{n} select x insert into R{n + 1}" for n in range(1_500))
    assert [message[:17] for _, _, message in found(text)] == ["more than 8 rules"]
