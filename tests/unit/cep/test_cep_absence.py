"""Absence: once per silence, again with every, keys of a table that never came, and a naive oracle."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sib.cep import compile_rules

RULE = "from not S for 10 ms partition by k select k, lastEventTime() as last insert into T"


def at(*times, key="a"):
    return [("S", ts, {"k": key}) for ts in times]


def told(outputs):
    return [(ts, data.get("k"), data["last"]) for _, ts, data in outputs]


def test_fires_once_per_silence_and_again_after_the_next_event(run):
    assert told(run(RULE, at(0, 5, 40, 41), until=100)) == [(15, "a", 5), (51, "a", 41)]


def test_every_fires_again_each_time(run):
    rule = RULE.replace("not S", "every not S")
    assert told(run(rule, at(0, 5, 33), until=55)) == [(15, "a", 5), (25, "a", 5), (43, "a", 33), (53, "a", 33)]


def test_an_event_at_the_very_deadline_comes_too_late(run):
    assert told(run(RULE, at(0, 10), until=12)) == [(10, "a", 0)]
    assert told(run(RULE, at(0, 9), until=18)) == []


def test_keys_of_a_table_are_armed_at_the_first_event_and_others_at_first_sight(run):
    rule = RULE.replace("partition by k", "partition by k in Known.id")
    tables = {"Known": [{"id": "a"}, {"id": "never"}]}
    outputs = run(rule, [("Other", 3, {}), *at(5, key="a"), *at(7, key="b")], until=30, tables=tables)
    assert told(outputs) == [(13, "never", None), (15, "a", 5), (17, "b", 7)]


def test_without_partition_it_is_armed_at_the_first_event(run):
    rule = "from not S for 10 ms select lastEventTime() as last, eventTime() as at insert into T"
    assert run(rule, [("Other", 3, {})], until=50) == [("T", 13, {"last": None, "at": 13})]


def test_time_can_begin_without_an_event():
    engine = compile_rules("from not S for 10 ms select eventTime() as t insert into T")
    engine.begin(100)
    assert [output.ts_ms for output in engine.advance(200)] == [110]


def test_only_events_that_pass_the_filter_end_a_silence(run):
    rule = RULE.replace("not S", "not S[v > 1]")
    given_events = [("S", 0, {"k": "a", "v": 2}), ("S", 5, {"k": "a", "v": 1}), ("S", 6, {"k": "a"})]
    assert told(run(rule, given_events, until=30)) == [(10, "a", 0)]


def test_attributes_of_the_last_event_can_be_selected(run):
    rule = "from not S for 10 ms partition by k in Known.id select k, v, lastEventTime() as last insert into T"
    tables = {"Known": [{"id": "never"}]}
    outputs = run(rule, [("S", 0, {"k": "a", "v": 7})], until=30, tables=tables)
    assert [data for _, _, data in outputs] == [{"k": "never", "v": None, "last": None}, {"k": "a", "v": 7, "last": 0}]


def test_outputs_of_one_time_come_in_the_order_of_the_last_events(run):
    given_events = [*at(0, key="a"), *at(0, key="b"), *at(5, key="b"), *at(5, key="a")]
    assert [key for _, key, _ in told(run(RULE, given_events, until=30))] == ["b", "a"]


def test_new_keys_of_a_table_are_armed_from_then_on():
    engine = compile_rules(RULE.replace("partition by k", "partition by k in Known.id"), tables={"Known": []})
    engine.send("S", 0, {"k": "a"})
    engine.replace_table("Known", [{"id": "z"}])
    assert [(output.ts_ms, output.data["k"]) for output in engine.advance(30)] == [(10, "a"), (10, "z")]


def test_having_filters_and_keys_may_have_parts(run):
    rule = "from not S for 10 ms partition by k, z select k, z having z > 1 insert into T"
    given_events = [("S", 0, {"k": "a", "z": 1}), ("S", 1, {"k": "a", "z": 2}), ("S", 2, {"k": "a"})]
    assert run(rule, given_events, until=50) == [("T", 11, {"k": "a", "z": 2})]


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ab")), max_size=25),
    st.integers(1, 8),
    st.booleans(),
    st.sampled_from([None, 1, 4]),
)
def test_naive_absence(run, steps, duration, is_every, batch):
    ts, given_events = 0, []
    for gap, key in steps:
        ts += gap
        given_events.append(("S", ts, {"k": key}))
    until = ts + 20
    wanted = []
    for key in "ab":
        times = [e[1] for e in given_events if e[2]["k"] == key]
        for time, following in zip(times, [*times, until + 1][1:], strict=True):
            silences = range(time + duration, min(following, until) + 1, duration)
            wanted += [(deadline, key, time) for deadline in (silences if is_every else silences[:1])]
    rule = RULE.replace("not S", f"{'every ' if is_every else ''}not S").replace("10 ms", f"{duration} ms")
    got = told(run(rule, given_events, until=until, batch=batch))
    assert sorted(got) == sorted(wanted)
    assert [moment for moment, _, _ in got] == sorted(moment for moment, _, _ in got)


def test_select_star_gives_the_key_and_the_last_event(run):
    rule = "from not S for 10 ms partition by k in Known.id select * insert into T"
    outputs = run(rule, [("S", 0, {"k": "a", "v": 7})], until=30, tables={"Known": [{"id": "never"}]})
    assert [data for _, _, data in outputs] == [{"k": "never"}, {"k": "a", "v": 7}]


def test_keys_that_a_table_got_while_the_engine_was_down_are_armed_at_its_restart():
    rule = RULE.replace("partition by k", "partition by k in Known.id")
    engine = compile_rules(rule, tables={"Known": [{"id": "a"}]})
    engine.send("S", 0, {"k": "a"})
    engine.send("S", 5, {"k": "a"})
    restarted = compile_rules(rule, tables={"Known": [{"id": "a"}, {"id": "new"}]})
    assert restarted.restore(engine.snapshot()) == []
    assert [(output.ts_ms, output.data["k"]) for output in restarted.advance(30)] == [(15, "a"), (15, "new")]
