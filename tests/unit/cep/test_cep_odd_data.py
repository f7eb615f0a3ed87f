"""Whatever events hold, no rule fails."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sib.cep import compile_rules

RULES = """
from S[v > 2 and w != 'x' or k like 'a%'] select k, v + w as s, v % w as m, upper(k) as u insert into Filtered;
from S#time(7 ms) select k, count(v) as c, sum(v) as s, min(v) as n, max(w) as m, stddev(v) as d, median(v) as md,
    first(v) as f, last(w) as l, distinctCount(w) as dc group by k having count() > 0 output on change insert into Timed;
from S#length(3) select k, avg(v) as a, min(w) as m group by k insert into Last3;
from S#externalTime(v, 5) select k, count() as n group by k insert into External;
from S#time(7 ms) select k, v, max(w) as m group by k insert all events into Both;
from S#unique(k, w) select sum(v) as s, max(v) as m insert into Newest;
from S select k, min(v) as m, max(w) as x group by k insert into Ever;
from S#hop(10 ms, 4 ms) select k, min(v) as n, percentile(v, 90) as p, first(w) as f group by k order by n insert into Hops;
from S#session(5 ms, w) select k, count() as n, max(v) as l group by k insert into Sessions;
from S#lengthBatch(2) partition by k, w select sum(v) as s order by s desc limit 1 insert into Threes;
from every a=S[v > 2] -> b=S[w < a.v + 1] within 9 ms partition by k select a.v * b.v as x insert into Pairs;
from every a=S, b=S[v > a.v]+, c=S[v < b[last].v or w = b[5].w] partition by k, w select c.v as y insert into Peaks;
from every a=S[v > 3] -> not S[w < a.v] for 6 ms partition by k select a.w.x[0] as x insert into Missing;
from every not S[v != w] for 6 ms partition by k select k, w, lastEventTime() as t insert into Silent;
from S#time(9 ms) as l join S#length(2) as r on l.k == r.k and l.v > r.w select l.v as x, r.w.a as y insert into Joined;
from S as s join Rows as t on s.k == t.k select s.v, t.w insert into Looked;
from S[k in Rows.k or v in Rows] select * insert into Inside;
from S select k, v group by k output last every 6 ms insert into Rated;
@dedupe(v, '8 ms') from S select v output snapshot every 5 ms insert into Fewer;
from S select k, v insert into Kept update on Kept.k == k and v > Kept.v
"""

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.just(2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "a", "x", "5"]),
    st.just([1, [2]]),
    st.just({"a": 1, "x": [3]}),
)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.integers(-3, 5), ODD, ODD, ODD), max_size=12))
def test_no_rule_fails(steps):
    engine = compile_rules(RULES, tables={"Rows": [{"k": 1, "w": [1]}, {"k": [1]}, {}], "Kept": [{"k": None}]})
    ts = 0
    for gap, k, v, w in steps:
        ts += gap
        engine.send("S", ts, {"k": k, "v": v, "w": w})
    restored = compile_rules(RULES, tables={"Rows": [], "Kept": []})
    assert restored.restore(engine.snapshot()) == []
    ahead = [output.alarm_id for output in engine.advance(ts + 100)]
    assert len(ahead) == len(restored.advance(ts + 100))
