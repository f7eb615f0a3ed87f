"""Joins of streams and with tables, against a naive reading; tables that rules change."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sib.cep import compile_rules

SIDES = st.lists(
    st.tuples(st.sampled_from("LR"), st.integers(0, 3), st.sampled_from([1, 2, None]), st.integers(0, 5)), max_size=25
)


def stream(steps):
    ts, events = 0, []
    for n, (side, gap, key, value) in enumerate(steps):
        ts += gap
        events.append((side, ts, {"k": key, "v": value, "n": n}))
    return events


SELECT = "select l.n as l, r.n as r insert into T"


def pairs(outputs):
    return [(data["l"], data["r"]) for _, _, data in outputs]


@settings(deadline=None, max_examples=60)
@given(SIDES, st.integers(1, 8), st.integers(1, 8), st.sampled_from(["join", "left join", "full join"]), st.booleans())
def test_time_windows(run, steps, left_ms, right_ms, kind, one_way):
    events = stream(steps)
    rule = (
        f"from L#time({left_ms}) as l {kind} R#time({right_ms}) as r {'unidirectional' if one_way else ''} "
        f"on l.k == r.k and l.v <= r.v {SELECT}"
    )
    wanted = []
    for place, (side, ts, data) in enumerate(events):
        size = right_ms if side == "L" else left_ms
        if side == "R" and one_way:
            continue
        found = [
            other[2]
            for other in events[:place]
            if other[0] != side and other[1] > ts - size and data["k"] is not None and other[2]["k"] == data["k"]
        ]
        found = [o for o in found if (data["v"] <= o["v"] if side == "L" else o["v"] <= data["v"])]
        wanted += [(data["n"], o["n"]) if side == "L" else (o["n"], data["n"]) for o in found]
        if not found and (kind == "full join" or (kind == "left join" and side == "L")):
            wanted.append((data["n"], None) if side == "L" else (None, data["n"]))
    assert pairs(run(rule, events)) == wanted


@settings(deadline=None, max_examples=40)
@given(SIDES, st.integers(1, 4))
def test_length_windows(run, steps, size):
    events = stream(steps)
    wanted = []
    for place, (side, _, data) in enumerate(events):
        others = [other[2] for other in events[:place] if other[0] != side and other[2]["k"] is not None]
        found = [other["n"] for other in others[-size:] if other["k"] == data["k"]]
        wanted += [(data["n"], n) if side == "L" else (n, data["n"]) for n in found]
    assert pairs(run(f"from L#length({size}) as l join R#length({size}) as r on l.k == r.k {SELECT}", events)) == wanted


@settings(deadline=None, max_examples=40)
@given(SIDES, st.integers(0, 6))
def test_within_bounds_the_distance_in_time(run, steps, within):
    events = stream(steps)
    wanted = []
    for place, (side, ts, data) in enumerate(events):
        others = [o[2] for o in events[:place] if o[0] != side and ts - o[1] <= within and o[2]["k"] is not None]
        found = [other["n"] for other in others if other["k"] == data["k"]]
        wanted += [(data["n"], n) if side == "L" else (n, data["n"]) for n in found]
    assert pairs(run(f"from L as l join R as r on l.k == r.k within {within} ms {SELECT}", events)) == wanted


def test_unique_window_holds_the_newest_of_each(run):
    events = [
        ("R", 0, {"k": 1, "n": 0}),
        ("R", 1, {"k": 1, "n": 1}),
        ("R", 2, {"k": 2, "n": 2}),
        ("L", 3, {"k": 1, "n": 3}),
    ]
    assert pairs(run(f"from L as l join R#unique(k) as r on l.k == r.k {SELECT}", events)) == [(3, 1)]


def test_partition_is_one_more_equality(run):
    events = [("L", 0, {"p": 1, "n": 0}), ("L", 1, {"p": 2, "n": 1}), ("R", 2, {"p": 2, "n": 2})]
    outputs = run(f"from L#time(1 min) as l join R#time(1 min) as r partition by p {SELECT}", events)
    assert outputs == [("T", 2, {"p": 2, "l": 1, "r": 2})]


def test_without_on_all_pairs(run):
    events = [("L", 0, {"n": 0}), ("L", 1, {"n": 1}), ("R", 2, {"n": 2})]
    assert pairs(run(f"from L#time(1 min) as l join R#time(1 min) as r {SELECT}", events)) == [(0, 2), (1, 2)]


def test_filters_of_the_sides(run):
    events = [("L", 0, {"n": 0, "v": 1}), ("L", 1, {"n": 1, "v": 9}), ("R", 2, {"n": 2, "v": 1})]
    rule = f"from L[v > 5]#time(1 min) as l join R[v < 5]#time(1 min) as r {SELECT}"
    assert pairs(run(rule, events)) == [(1, 2)]


LIMITS = {"Limits": [{"k": "a", "most": 30}, {"k": "b", "most": 10}, {"k": "a", "most": 35}]}


def test_a_table_is_looked_up_for_each_event(run):
    rule = "from S as s join Limits as t on s.k == t.k and s.v > t.most select s.k, s.v, t.most insert into T"
    events = [("S", 0, {"k": "a", "v": 33}), ("S", 1, {"k": "a", "v": 40}), ("S", 2, {"k": "z", "v": 99})]
    assert [tuple(data.values()) for _, _, data in run(rule, events, tables=LIMITS)] == [
        ("a", 33, 30), ("a", 40, 30), ("a", 40, 35),
    ]  # fmt: skip


def test_left_join_with_a_table_keeps_what_has_no_row(run):
    rule = "from S as s left join Limits as t on s.k == t.k select s.k, t.most insert into T"
    assert [d for _, _, d in run(rule, [("S", 0, {"k": "z"})], tables=LIMITS)] == [{"k": "z", "most": None}]


def test_in_table(run):
    rule = "from S[k in Limits and not (v in Limits.most)] select k, v insert into T"
    events = [("S", n, {"k": k, "v": v}) for n, (k, v) in enumerate([("a", 1), ("z", 1), ("b", 30), (None, 1)])]
    assert [d for _, _, d in run(rule, events, tables=LIMITS)] == [{"k": "a", "v": 1}]


def test_a_table_can_be_replaced():
    rule = "from S as s join Limits as t on s.k == t.k select t.most insert into T"
    engine = compile_rules(rule, tables=LIMITS)
    engine.replace_table("Limits", [{"k": "a", "most": 1}])
    assert [output.data for output in engine.send("S", 0, {"k": "a"})] == [{"most": 1}]


def test_update_on_changes_rows_or_adds_one():
    rules = """from S select k, v insert into Newest update on Newest.k == k;
        from Ask as q join Newest as n on q.k == n.k select n.v insert into Answer"""
    engine = compile_rules(rules, tables={"Newest": [{"k": "a", "v": 0}]})
    for ts, (k, v) in enumerate([("a", 1), ("b", 2), ("a", 3)]):
        engine.send("S", ts, {"k": k, "v": v})
    answers = [engine.send("Ask", 10, {"k": k})[0].data["v"] for k in "ab"]
    assert answers == [3, 2]
    assert len(engine.tables["newest"].rows) == 2
    other = compile_rules(rules, tables={"Newest": []})
    other.restore(engine.snapshot())
    assert other.send("Ask", 11, {"k": "a"})[0].data == {"v": 3}


def test_insert_into_a_table_adds_rows():
    engine = compile_rules(
        "from S select k insert into Seen; from Q[k in Seen.k] select k insert into R", tables={"Seen": []}
    )
    engine.send("S", 0, {"k": 5})
    assert len(engine.send("Q", 1, {"k": 5})) == 1
    assert engine.send("Q", 2, {"k": 6}) == []
