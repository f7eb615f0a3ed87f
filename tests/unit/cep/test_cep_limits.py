"""Cascades, and the bounds of a rule with what happens at each."""

import pytest

from sib.cep import CepSyntaxError, compile_rules
from sib.cep.limits import parse_bytes
from sib.cep.tables import TABLE_ROWS_MAX, Table
from sib.errors import LimitError


def dropped(engine, rule="1"):
    return {name: count for name, count in engine.counters()[rule].items() if name != "held"}


def test_outputs_feed_rules_in_one_pass(run):
    rules = """from B[n > 1] select n insert into C; from A select n + 1 as n insert into B;
        from every x=C -> y=A select x.n as x, y.n as y insert into D"""
    outputs = run(rules, [("A", 0, {"n": 1}), ("A", 1, {"n": 5})])
    assert outputs == [
        ("C", 0, {"n": 2}), ("B", 0, {"n": 2}), ("C", 1, {"n": 6}), ("B", 1, {"n": 6}), ("D", 1, {"x": 2, "y": 5}),
    ]  # fmt: skip


def test_select_star_feeds_all_attributes(run):
    rules = "from A[x > 1] select * insert into B; from B select y, x insert into C"
    assert run(rules, [("A", 0, {"x": 2, "y": 3})])[1] == ("C", 0, {"y": 3, "x": 2})


def test_partition_keys_are_part_of_an_output_and_can_be_read(run):
    rules = "from every a=A -> b=A partition by k select a.n as n insert into B; from B select k, n insert into C"
    events = [("A", 0, {"k": "x", "n": 1}), ("A", 1, {"k": "x", "n": 2})]
    assert run(rules, events) == [("B", 1, {"k": "x", "n": 1}), ("C", 1, {"k": "x", "n": 1})]


def test_several_rules_may_write_one_stream(run):
    rules = "from A select n insert into X; from B select n insert into X; from X select n insert into Y"
    outputs = run(rules, [("B", 0, {"n": 1}), ("A", 1, {"n": 2})])
    assert [o for o in outputs if o[0] == "Y"] == [("Y", 0, {"n": 1}), ("Y", 1, {"n": 2})]


def test_raw_events_of_a_target_stream_are_taken_too(run):
    rules = "from A select n insert into X; from X select n insert into Y"
    outputs = run(rules, [("X", 0, {"n": 1}), ("A", 1, {"n": 2})])
    assert [o[2]["n"] for o in outputs if o[0] == "Y"] == [1, 2]


KEYED = [
    "from S#time(1 min) select k, count() as n group by k insert into T",
    "from S#hop(10 min, 1 min) select k, count() as n group by k insert into T",
    "from S#lengthBatch(1) partition by k select count() as n insert into T",
    "from S#session(1 min) select k, count() as n group by k insert into T",
    "from S#unique(k) select count() as n insert into T",
    "from S select k, count() as n group by k insert into T",
    "from not S for 1 min partition by k select k insert into T",
    "from every a=S -> b=R partition by k select a.k insert into T",
    "from every a=S<2> partition by k select a[0].k insert into T",
    "from S select k group by k output last every 1 min insert into T",
]


@pytest.mark.parametrize("rule", KEYED)
def test_at_the_bound_of_keys_new_keys_are_not_taken_and_counted(rule):
    engine = compile_rules(f"@max(keys=2) {rule}")
    engine.send_batch([("S", n, {"k": n % 4}) for n in range(4)])
    count = dropped(engine).get("keys", 0)
    assert count == (2 if "lengthBatch" not in rule else 0)


def test_at_the_bound_of_partial_matches_the_oldest_goes():
    engine = compile_rules("@max(partials=2) from every a=S -> b=R select a.n as n insert into T")
    engine.send_batch([("S", n, {"n": n}) for n in range(5)])
    assert [output.data["n"] for output in engine.send("R", 9, {})] == [3, 4]
    assert dropped(engine) == {"partials": 3}


@pytest.mark.parametrize(
    "rule",
    [
        "from S#time(1 min) select count() as n insert into T",
        "from S#time(1 min) select count() as n insert all events into T",
        "from S#timeBatch(10 ms) as s select count() as n insert into T",
        "from S#time(1 min) as l join R#time(1 min) as r select l.n as n insert into T",
    ],
)
def test_at_the_bound_of_window_events_the_oldest_go(rule):
    engine = compile_rules(f"@max(events=20) {rule}")
    engine.send_batch([("S", n, {"n": n}) for n in range(100)])
    assert engine.counters()["1"]["held"] <= 20
    assert "timeBatch" in rule or dropped(engine)["events"] >= 80


def test_memory_is_a_number_of_events():
    engine = compile_rules("@max(memory='5 KB') from S#time(1 min) select count() as n insert into T")
    assert engine.rules[0].limits.events == 20


@pytest.mark.parametrize(
    ("text", "size"), [("64 MB", 64_000_000), ("1.5kb", 1_500), ("2 MiB", 2 << 20), (100, 100), ("7", 7)]
)
def test_sizes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MB", "5 apples", "-3"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="size"):
        parse_bytes(text)


def test_a_table_has_a_bound():
    table = Table("t", [{"id": 1}])
    with pytest.raises(LimitError, match="100000"):
        table.replace({"id": n} for n in range(TABLE_ROWS_MAX + 1))
    assert table.rows == [{"id": 1}]


def test_matches_that_ran_out_are_forgotten():
    engine = compile_rules("from every a=S -> b=R within 10 ms partition by k select a.k insert into T")
    engine.send_batch([("S", n, {"k": n}) for n in range(1_000)])
    assert engine.counters()["1"]["held"] < 30


def test_groups_without_events_are_forgotten():
    engine = compile_rules("from S#time(10 ms) select k, count() as n group by k insert into T")
    engine.send_batch([("S", n, {"k": n}) for n in range(1_000)])
    assert len(engine.rules[0].operator.state["groups"]) < 100


def test_unknown_streams_are_counted_and_move_the_time():
    engine = compile_rules("from not S for 5 ms select eventTime() as t insert into T")
    assert [output.ts_ms for output in engine.send_batch([("Other", 0, {}), ("Other", 7, {})])] == [5]
    assert engine.unknown_events == 2


def test_many_filters_with_equalities_give_what_each_gives_alone(run):
    rules = [f"from S[k = {n % 7} and v > {n % 3}] select k, v insert into T{n}" for n in range(20)]
    rules.append("from S[k in (1, 2)] select k, v insert into T20")
    events = [("S", n, {"k": (n * 5) % 9 if n % 4 else [n], "v": n % 5}) for n in range(60)]
    together = run(";".join(rules), events)
    for number, rule in enumerate(rules):
        assert [o for o in together if o[0] == f"T{number}"] == run(rule, events)


def test_a_leap_of_time_does_not_tell_every_silence_in_it():
    engine = compile_rules("from every not S for 1 ms select eventTime() as t insert into T")
    engine.send("S", 0, {})
    assert len(engine.advance(10**12)) < 200_000
    assert dropped(engine)["firings"] > 10**11
    assert [output.ts_ms for output in engine.advance(10**12 + 2)] == [10**12 + 1, 10**12 + 2]


def test_a_leap_of_time_does_not_tell_every_snapshot_in_it():
    engine = compile_rules("from S select v output snapshot every 1 ms insert into T")
    engine.send("S", 0, {"v": 1})
    assert len(engine.advance(10**12)) < 20_000
    assert len(engine.advance(10**12 + 2)) == 2


def test_long_rows_of_conditions_are_no_problem_and_deep_expressions_are_refused():
    many = " or ".join(f"v = {n}" for n in range(1_000))
    assert len(compile_rules(f"from S[{many}] select v insert into T").send("S", 0, {"v": 999})) == 1
    for condition in ("+".join("v" * 100) + " > 1", "not " * 400 + "v = 1", "-" * 400 + "v > 1"):
        with pytest.raises(CepSyntaxError):
            compile_rules(f"from S[{condition}] select v insert into T")
    deep = "(" * 29 + "v" + " + 1) * 2 - v" * 29
    assert compile_rules(f"from S select {deep} as x insert into T").send("S", 0, {"v": 1})


def test_a_hop_has_a_bound_of_panes():
    with pytest.raises(CepSyntaxError, match="rounder"):
        compile_rules("from S#hop(1 day, 7 ms) select count() as n insert into T")
