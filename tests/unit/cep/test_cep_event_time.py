"""Event time: watermark, late events, idle inputs, several inputs; disorder within the delay changes nothing."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sib.cep import CepEventError, Timing, compile_rules

RULES = {
    "filter": "from S[v > 2] select k, v insert into T",
    "time": "from S#time(7 ms) select k, sum(v) as s, max(v) as m group by k insert into T",
    "length": "from S#length(3) select k, sum(v) as s group by k insert into T",
    "expired": "from S#time(7 ms) select k, v insert expired events into T",
    "hop": "from S#hop(10 ms, 4 ms) select k, count() as n, min(v) as m group by k insert into T",
    "session": "from S#session(5 ms) select k, count() as n group by k insert into T",
    "lengthBatch": "from S#lengthBatch(3) select k, sum(v) as s group by k insert into T",
    "pattern": "from every a=S[v > 2] -> b=S[v < a.v] within 9 ms partition by k select a.v as x, b.v as y insert into T",
    "sequence": "from every a=S, b=S[v > a.v]+, c=S[v < b[last].v] partition by k select a.v as x, c.v as y insert into T",
    "count": "from every a=S[v > 2]<3> within 20 ms partition by k select a[0].v as x, a[last].v as y insert into T",
    "not behind": "from every a=S[v > 3] -> not S[v < 2] for 6 ms partition by k select a.v as x insert into T",
    "absence": "from not S for 6 ms partition by k select k, lastEventTime() as t insert into T",
    "every absence": "from every not S for 6 ms partition by k select k, lastEventTime() as t insert into T",
    "join": "from S[v > 2]#time(9 ms) as l join S[v < 3]#time(9 ms) as r on l.k == r.k select l.v as x, r.v as y insert into T",
    "last": "from S select k, v group by k output last every 6 ms insert into T",
    "snapshot": "from S select k, v group by k output snapshot every 6 ms insert into T",
    "cascade": """from S#time(9 ms) select k, sum(v) as s group by k having s > 6 insert into Big;
        from every a=Big -> b=S[v > 3] within 9 ms partition by k select a.s as s, b.v as v insert into T""",
}


@st.composite
def ordered_events(draw, *, size=40):
    """Events at different times, in order."""
    ts, events = 0, []
    for _ in range(draw(st.integers(0, size))):
        ts += draw(st.integers(1, 4))
        events.append(("S", ts, {"k": draw(st.sampled_from("ab")), "v": draw(st.integers(0, 5))}))
    return events


def watermarked(rules, delay):
    return ";".join(f"@watermark(delay='{delay} ms') {rule}" for rule in rules.split(";"))


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES.keys())
@settings(deadline=None, max_examples=15)
@given(ordered_events(), st.integers(1, 15), st.randoms(use_true_random=False), st.sampled_from([1, 3, None]))
def test_disorder_within_the_delay_changes_nothing(run, rules, events, delay, rng, batch):
    until = (events[-1][1] if events else 0) + 40
    shuffled = sorted(events, key=lambda event: event[1] + rng.random() * delay)
    assert run(watermarked(rules, delay), shuffled, until=until, batch=batch) == run(rules, events, until=until)


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES.keys())
@settings(deadline=None, max_examples=15)
@given(ordered_events(), st.integers(1, 7))
def test_how_events_are_cut_into_batches_changes_nothing(run, rules, events, batch):
    until = (events[-1][1] if events else 0) + 40
    assert run(rules, events, until=until, batch=batch) == run(rules, events, until=until)


def late_events(policy):
    rule = f"@watermark(delay='10 ms', late='{policy}') from S#timeBatch(100) select count() as n insert into T"
    return rule, [("S", ts, {"v": ts}) for ts in (0, 50, 120, 60, 118, 111, 250)]


def test_late_events_are_dropped_and_counted(run):
    rule, events = late_events("drop")
    engine = compile_rules(rule)
    outputs = engine.send_batch(events) + engine.advance(300)
    assert [(output.ts_ms, output.data["n"]) for output in outputs] == [(100, 2), (200, 3), (300, 1)]
    assert engine.counters()["1"]["late"] == 1


def test_late_events_go_aside(run):
    rule, events = late_events("side")
    outputs = run(rule, events, until=300)
    assert ("T__late", 60, {"v": 60}) in outputs
    assert [o for o in outputs if o[0] == "T"] == [("T", 100, {"n": 2}), ("T", 200, {"n": 3}), ("T", 300, {"n": 1})]


def test_late_events_can_be_read_by_a_rule_and_a_named_rule_names_them(run):
    rules = """@info(name='Hourly') @watermark(delay='10 ms', late='side') from S#timeBatch(100) select count() as n insert into T;
        from Hourly__late select v insert into Late"""
    events = [("S", ts, {"v": ts}) for ts in (0, 120, 60)]
    assert [o for o in run(rules, events) if o[0] != "T"] == [("Hourly__late", 60, {"v": 60}), ("Late", 60, {"v": 60})]


def test_accepted_late_events_enter_only_windows_still_open():
    rule = "@watermark(delay='10 ms', late='accept') from S#timeBatch(100) select count() as n insert into T"
    engine = compile_rules(rule)
    events = [("S", ts, {}) for ts in (0, 150, 160, 120, 90)]  # at 150 the watermark is 140: 120 is late, 90 closed
    outputs = engine.send_batch(events) + engine.advance(200)
    assert [(output.ts_ms, output.data["n"]) for output in outputs] == [(100, 1), (200, 3)]
    assert engine.counters()["1"]["late"] == 1


def test_accepted_late_events_of_filters_sessions_and_hops(run):
    def accepted(rule, times, until):
        events = [("S", ts, {"k": 1}) for ts in times]
        return run(f"@watermark(late='accept') {rule}", events, until=until)

    assert len(accepted("from S select k insert into T", (10, 5), 20)) == 2
    assert accepted("from S#session(10) select k, count() as n group by k insert into T", (10, 15, 12, 3), 30) == [
        ("T", 25, {"k": 1, "n": 4})
    ]
    assert accepted("from S#hop(20, 10) select count() as n insert into T", (5, 12, 8), 50) == [
        ("T", 10, {"n": 1}), ("T", 20, {"n": 3}), ("T", 30, {"n": 1}),
    ]  # fmt: skip


def test_without_delay_an_older_event_is_late_and_one_of_the_same_time_is_not(run):
    events = [("S", ts, {"n": n}) for n, ts in enumerate((5, 5, 4, 6))]
    assert [d["n"] for _, _, d in run("from S select n insert into T", events)] == [0, 1, 3]


def test_the_watermark_is_the_least_of_all_inputs():
    engine = compile_rules("from S#timeBatch(10) select count() as n insert into T")
    assert engine.send("S", 5, {}, source="p1") == []
    assert engine.send("S", 6, {}, source="p2") == []
    assert engine.send("S", 25, {}, source="p1") == []
    [output] = engine.send("S", 12, {}, source="p2")
    assert (output.ts_ms, output.data) == (10, {"n": 2})


def test_an_idle_input_follows_the_wall_clock():
    rule = "@watermark(delay='5 sec', idle='1 min') from not S for 10 sec partition by k select k insert into T"
    engine = compile_rules(rule)
    engine.send("S", 1_000_000, {"k": "a"}, now_ms=1_000_100)
    assert engine.tick(1_059_000) == []
    [output] = engine.tick(1_060_100)
    assert (output.ts_ms, output.data) == (1_010_000, {"k": "a"})


def test_without_idle_the_wall_clock_means_nothing():
    engine = compile_rules("from not S for 10 sec partition by k select k insert into T")
    engine.send("S", 1_000, {"k": "a"}, now_ms=1_000)
    assert engine.tick(10_000_000) == []


def test_timing_can_be_given_for_all_rules():
    engine = compile_rules("from S select n insert into T", timing=Timing(delay_ms=10))
    assert engine.send_batch([("S", 5, {"n": 1}), ("S", 3, {"n": 2})]) == []
    assert [output.data["n"] for output in engine.send("S", 16, {"n": 3})] == [2, 1]


def test_a_rule_waits_as_long_as_the_rules_it_reads_from(run):
    rules = """@watermark(delay='10 ms') from S select n insert into Slow;
        from Slow select n insert into T; from S select n insert into Fast"""
    events = [("S", ts, {"n": ts}) for ts in (5, 3, 30)]
    outputs = run(rules, events, batch=1)
    assert [o[2]["n"] for o in outputs if o[0] == "Fast"] == [5, 30]
    assert [o[2]["n"] for o in outputs if o[0] == "T"] == [3, 5]


def test_a_rule_that_waits_longer_gets_its_inputs_in_order(run):
    rules = """from S select n insert into Quick;
        @watermark(delay='10 ms') from every a=Quick -> b=R select a.n as a, b.n as b insert into T"""
    events = [("R", 9, {"n": 9}), ("S", 10, {"n": 10}), ("R", 5, {"n": 5}), ("R", 12, {"n": 12}), ("R", 40, {"n": 40})]
    assert [o for o in run(rules, events) if o[0] == "T"] == [("T", 12, {"a": 10, "b": 12})]


@pytest.mark.parametrize("ts", ["5", 5.5, None, True, 2**60])
def test_impossible_times_are_refused(ts):
    with pytest.raises(CepEventError):
        compile_rules("from S select n insert into T").send("S", ts, {})


def test_every_event_has_ts_and_differences_are_milliseconds(run):
    events = [("S", 5, {"ts": 99}), ("S", 25, {})]
    assert run("from every a=S -> b=S select b.ts - a.ts as d insert into T", events) == [("T", 25, {"d": 20})]
    assert run("from S[ts > 10] select ts, eventTime() as t insert into T", events) == [("T", 25, {"ts": 25, "t": 25})]


def test_many_events_in_disorder_are_all_there_and_in_order(run):
    rng = random.Random(4)
    events = [("S", ts, {"n": ts}) for ts in range(1_000)]
    shuffled = sorted(events, key=lambda event: event[1] + rng.random() * 50)
    outputs = run("@watermark(delay='50 ms') from S select n insert into T", shuffled, until=1_000, batch=7)
    assert [ts for _, ts, _ in outputs] == list(range(1_000))


SILENCE = "@watermark(idle='1 min') from not S for 10 sec partition by k select k insert into T"


def test_silence_is_measured_by_its_own_clock_whatever_the_wall_clock_does():
    engine = compile_rules(SILENCE)
    engine.send("S", 1_000_000, {"k": "a"}, now_ms=500)
    assert engine.tick(9_000_000, 59_000) == []
    [output] = engine.tick(1_070_000, 60_500)
    assert output.ts_ms == 1_010_000


def test_silence_is_not_measured_during_a_replay():
    engine = compile_rules(SILENCE)
    engine.send("S", 1_000_000, {"k": "a"})
    restored = compile_rules(SILENCE)
    restored.restore(engine.snapshot())
    for one in (engine, restored):
        assert one.tick(9_000_000, 800_000) == []
        assert one.tick(9_000_000, 859_999) == []
        assert len(one.tick(9_000_000, 860_000)) == 1


def test_time_waits_for_an_input_that_never_sent_anything_until_it_is_idle():
    engine = compile_rules("from S#timeBatch(10) select count() as n insert into T", timing=Timing(idle_ms=100))
    engine.expect(["p1", "p2"])
    assert engine.send("S", 5, {}, source="p1", now_ms=0) == []
    assert engine.send("S", 25, {}, source="p1", now_ms=1) == []
    assert engine.send("S", 7, {}, source="p2", now_ms=2) == []  # not late
    assert engine.tick(1_000, 60) == []
    assert [output.data["n"] for output in engine.send("S", 26, {}, source="p2", now_ms=61)] == [2]
    engine.expect(["p1", "p2", "p3"])
    assert engine.send_batch([("S", 45, {})], source="p1", now_ms=70) == []
    assert engine.send_batch([("S", 45, {})], source="p2", now_ms=70) == []
    assert engine.tick(40, 71) == []  # from now on p3 is silent
    assert engine.send_batch([("S", 46, {})], source="p2", now_ms=160) == []
    assert [output.ts_ms for output in engine.tick(40, 171)] == [30]
    assert engine.tick(30, 172) == []


def test_inputs_that_are_not_expected_any_more_hold_nothing_back():
    engine = compile_rules("from S#timeBatch(10) select count() as n insert into T")
    engine.expect(["p1", "p2"])
    engine.send("S", 5, {}, source="p1")
    engine.expect(["p1"])
    assert [output.ts_ms for output in engine.send("S", 15, {}, source="p1")] == [10]


def test_rules_that_begin_notice_keys_of_a_table_also_if_nothing_ever_comes():
    rule = "from not S for 10 ms partition by k in Keys.id select k insert into T"
    engine = compile_rules(rule, tables={"Keys": [{"id": "a"}]}, timing=Timing(idle_ms=5))
    engine.expect(["p1"])
    assert engine.begin(1_000)
    assert not engine.begin(2_000)
    assert engine.replace_table("Keys", [{"id": "a"}, {"id": "b"}])
    assert not engine.replace_table("Keys", [{"id": "a"}, {"id": "b"}])
    assert engine.tick(1_005, 0) == []
    assert engine.tick(1_009, 5) == []
    assert [(output.ts_ms, output.data["k"]) for output in engine.tick(1_020, 6)] == [(1_010, "a"), (1_010, "b")]
