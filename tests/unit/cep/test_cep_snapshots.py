"""Snapshots: restored anywhere, an engine goes on as if nothing had happened; ids that a replay repeats."""

import json
import random

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sib.cep import CepSnapshotError, compile_rules
from sib.cep.errors import CepRuleError

RULES = """
from S[v > 2] select k, v insert into Filtered;
from S#time(7 ms) select k, sum(v) as s, max(v) as m, stddev(v) as d, median(v) as md, distinctCount(v) as c
    group by k having sum(v) > 3 output on change insert into Timed;
from S#length(3) select k, avg(v) as a, first(v) as f group by k insert into Last3;
from S#time(7 ms) select k, v, count() as n group by k insert all events into Both;
from S#unique(k) select sum(v) as s insert into Newest;
from S select k, min(v) as m group by k insert into Ever;
from S#hop(10 ms, 4 ms) select k, count() as n, percentile(v, 90) as p group by k insert into Hops;
from S#session(5 ms) select k, count() as n, last(v) as l group by k insert into Sessions;
from S#lengthBatch(3) select k, sum(v) as s group by k insert into Threes;
from every a=S[v > 2] -> b=R[v < a.v] within 9 ms partition by k select a.v as x, b.v as y insert into Pairs;
from every a=S, b=S[v > a.v]+, c=S[v < b[last].v] partition by k select a.v as x, c.v as y insert into Peaks;
from every a=S[v > 2]<3> within 20 ms partition by k select a[0].v as x insert into Trio;
from every a=S[v > 3] -> not R[v < 2] for 6 ms partition by k select a.v as x insert into Missing;
from every (a=S[v > 3] and b=R[v > 3]) partition by k select a.v as x, b.v as y insert into Together;
from not S for 6 ms partition by k select k, lastEventTime() as t insert into Silent;
from S#time(9 ms) as l join R#length(2) as r on l.k == r.k select l.v as x, r.v as y insert into Joined;
from S select k, v group by k output last every 6 ms insert into Rated;
@dedupe(k, '8 ms') from S select k, v insert into Fewer;
@watermark(delay='5 ms', late='side') from S#timeBatch(6 ms) select k, sum(v) as s group by k insert into Delayed;
from every a=Delayed -> b=Silent within 50 ms partition by k select a.s as s insert into Cascade
"""


def make_events(rng, size):
    ts, events = 0, []
    for _ in range(size):
        ts += rng.choice([-2, 0, 1, 1, 2, 5])
        ts = max(ts, 0)
        events.append((rng.choice("SSR"), ts, {"k": rng.choice("ab"), "v": rng.choice([None, 0, 1, 2.5, 3, 4, 5])}))
    return events


def as_list(outputs):
    return [(output.rule, output.ts_ms, output.data, output.alarm_id) for output in outputs]


def batches(rng, events):
    place = 0
    while place < len(events):
        size = rng.randint(1, 6)
        yield events[place : place + size]
        place += size


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(0, 60))
def test_restoring_at_any_point_changes_nothing(seed, size):
    rng = random.Random(seed)
    events = make_events(rng, size)
    whole, cut = compile_rules(RULES), compile_rules(RULES)
    straight, resumed = [], []
    for batch in batches(rng, events):
        straight += as_list(whole.send_batch(batch))
        resumed += as_list(cut.send_batch(batch))
        if rng.random() < 0.4:
            snapshot = json.loads(json.dumps(cut.snapshot(), allow_nan=False))
            cut = compile_rules(RULES)
            assert cut.restore(snapshot) == []
    assert resumed == straight
    assert as_list(cut.advance(10_000)) == as_list(whole.advance(10_000))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_a_replay_repeats_the_ids_however_it_is_batched(seed):
    rng = random.Random(seed)
    events = [(s, ts * 3, data) for ts, (s, _, data) in enumerate(make_events(rng, 50))]  # all at different times
    first, second = compile_rules(RULES), compile_rules(RULES)
    once = [output.alarm_id for batch in batches(rng, events) for output in first.send_batch(batch)]
    again = [output.alarm_id for batch in batches(rng, events) for output in second.send_batch(batch)]
    once += [output.alarm_id for output in first.advance(1_000)]
    again += [output.alarm_id for output in second.advance(1_000)]
    assert sorted(once) == sorted(again)
    assert len(set(once)) == len(once)


def test_equal_outputs_of_one_time_have_different_ids():
    engine = compile_rules("from S select v insert into T")
    ids = [output.alarm_id for _ in range(3) for output in engine.send("S", 5, {"v": 1})]
    assert len(set(ids)) == 3
    assert [len(text) for text in ids] == [32] * 3


def test_ids_depend_on_rule_version_time_and_data():
    def made(rule="from S select v insert into T", ts=5, v=1, **options):
        return compile_rules(rule, **options).send("S", ts, {"v": v})[0].alarm_id

    others = [made(ts=6), made(v=2), made("from S select v insert into U"), made(versions={"T": 2})]
    assert len({made(), *others}) == 5
    assert made() == made()


RULE = "from S#time(1 min) select k, sum(v) as s group by k having sum(v) > {limit} insert into T"


def test_a_rule_keeps_its_state_when_only_select_or_having_change():
    old = compile_rules(RULE.format(limit=5))
    old.send("S", 0, {"k": 1, "v": 3})
    new = compile_rules(RULE.format(limit=3).replace("as s", "as total"))
    assert new.restore(old.snapshot()) == []
    assert [output.data for output in new.send("S", 1, {"k": 1, "v": 1})] == [{"k": 1, "total": 4}]


@pytest.mark.parametrize("change", [("1 min", "2 min"), ("sum(v) as s", "avg(v) as s"), ("from S", "from S[v > 0]")])
def test_a_rule_starts_empty_when_more_is_changed(change):
    old = compile_rules(RULE.format(limit=3))
    old.send("S", 0, {"k": 1, "v": 3})
    new = compile_rules(RULE.format(limit=3).replace(*change))
    assert new.restore(old.snapshot()) == ["1"]
    assert new.send("S", 1, {"k": 1, "v": 1}) == []


def test_rules_that_were_added_start_empty_and_others_go_on():
    old = compile_rules("@name('a') " + RULE.format(limit=3))
    old.send("S", 0, {"k": 1, "v": 3})
    text = "@name('b') from S[z is null]#length(2) select sum(v) as s insert into U; @name('a') " + RULE.format(limit=3)
    new = compile_rules(text, snapshot=old.snapshot())
    assert new.restore(old.snapshot()) == ["b"]
    assert [output.data["s"] for output in new.send("S", 1, {"k": 1, "v": 1})] == [1, 4]


def test_a_snapshot_has_a_version_and_others_are_refused():
    engine = compile_rules("from S select v insert into T")
    snapshot = engine.snapshot()
    assert snapshot["version"] == 1
    with pytest.raises(CepSnapshotError, match="version 2"):
        engine.restore({**snapshot, "version": 2})
    with pytest.raises(CepSnapshotError, match="version None"):
        engine.restore({})


@pytest.mark.parametrize(
    "damage", [{"lanes": 5}, {"rules": None}, {"tables": {"x": {"z": 1}}}, {"lanes": {"0": {"d": 3}}}]
)
def test_a_damaged_snapshot_is_told_as_such(damage):
    engine = compile_rules("from S select v insert into T")
    engine.send("S", 1, {"v": 1})
    damaged = {**engine.snapshot(), **damage}
    if damage.get("tables"):
        assert engine.restore(damaged) == []  # a table that is gone does not matter
    else:
        with pytest.raises(CepSnapshotError, match="damaged"):
            engine.restore(damaged)


def test_whole_numbers_beyond_64_bits_survive_in_the_state_and_are_told_as_floats():
    rule = "from S#length(9) select k, sum(v) as s, max(v) as m group by k insert into T"
    old = compile_rules(rule)
    for _ in range(8):
        old.send("S", 1, {"k": "a", "v": 2**62 + 1})
    snapshot = orjson.loads(orjson.dumps(old.snapshot()))
    new = compile_rules(rule)
    assert new.restore(snapshot) == []
    [output] = new.send("S", 1, {"k": "a", "v": 1})
    assert output.data == {"k": "a", "s": float(2**65 + 9), "m": 2**62 + 1}
    assert orjson.dumps(output.as_dict())


def test_a_rule_that_fails_is_named():
    engine = compile_rules("@name('r') from S select v insert into T")
    engine.rules[0].operator.feed = lambda events, watermark: 1 / 0
    with pytest.raises(CepRuleError, match="the CEP rule r failed: ZeroDivisionError") as caught:
        engine.send("S", 1, {"v": 1})
    assert caught.value.rule == "r"


def moved_on(old, rules):
    """An engine of other rules that goes on with the state of an old one, by way of JSON; and the rules that start empty."""
    snapshot = orjson.loads(orjson.dumps(old.snapshot()))
    new = compile_rules(rules, snapshot=snapshot)
    return new, new.restore(snapshot)


def data_of(outputs):
    return [(str(output.rule), output.data) for output in outputs]


def test_waiting_events_have_the_attributes_that_are_read_now():
    rule = "@watermark(delay='10 ms') @name('{}') from S select {} insert into T"
    old = compile_rules(rule.format("a", "v"))
    old.send("S", 1, {"v": 1, "w": 2})
    new, fresh = moved_on(old, rule.format("b", "w") + ";" + rule.format("a", "v") + ";" + rule.format("c", "*"))
    assert fresh == ["b", "c"]
    outputs = data_of(new.send("S", 20, {"v": 3, "w": 4}))
    assert outputs == [("b", {"w": None}), ("a", {"v": 1}), ("c", {"v": 1})]
    assert data_of(new.advance(20)) == [("b", {"w": 4}), ("a", {"v": 3}), ("c", {"v": 3, "w": 4})]


def test_a_rule_that_now_reads_what_its_old_events_do_not_have_starts_empty():
    rule = "@name('{}') from every a=S -> b=S[v > a.v] within 1 min select a.{} as x insert into T"
    old = compile_rules(rule.format("a", "v"))
    old.send("S", 1, {"v": 1, "w": 2})
    new, fresh = moved_on(old, rule.format("a", "w"))
    assert fresh == ["a"]
    assert new.send("S", 2, {"v": 2, "w": 3}) == []
    new, fresh = moved_on(old, rule.format("a", "v") + ";" + rule.format("b", "w"))
    assert fresh == ["b"]
    assert data_of(new.send("S", 2, {"v": 2, "w": 3})) == [("a", {"x": 1})]


FAST = "@name('fast') from S select v, k insert into F"
SLOW = "@name('{}') @watermark(delay='{} ms') from {} select {} insert into {}"


def test_outputs_on_their_way_reach_the_rule_that_they_are_for():
    reader = SLOW.format("reader", 10, "F", "v", "T")
    old = compile_rules(f"{FAST};{reader}")
    assert data_of(old.send("S", 1, {"v": 1, "k": "x"})) == [("fast", {"v": 1, "k": "x"})]
    first = SLOW.format("first", 10, "S", "k", "U")
    new, fresh = moved_on(old, f"{first};{FAST};{SLOW.format('other', 10, 'F', 'k', 'V')};{reader}")
    assert fresh == ["first", "other"]
    found = data_of(new.send("S", 20, {"v": 2, "k": "y"}))
    assert ("reader", {"v": 1}) in found
    assert all(rule in ("reader", "fast", "first") for rule, _ in found)
    new, _ = moved_on(old, f"{first};{FAST}")  # nobody is there to take it
    assert ("reader", {"v": 1}) not in data_of(new.send("S", 20, {"v": 2, "k": "y"}))


@pytest.mark.parametrize(("before", "after"), [(5, 20), (20, 5), (5, 0)])
def test_a_rule_that_waits_longer_or_less_than_before_keeps_its_state_and_what_waits(before, after):
    rule = "@name('r') @watermark(delay='{} ms') from S#length(9) select sum(v) as s insert into T"
    other = "@name('o') @watermark(delay='7 ms') from S select v insert into U"
    old = compile_rules(f"{rule.format(before)};{other}")
    outputs = old.send_batch([("S", ts, {"v": 1}) for ts in range(100)])
    new, fresh = moved_on(old, f"{rule.format(after)};{other}")
    assert fresh == []
    outputs += new.send_batch([("S", ts, {"v": 1}) for ts in range(100, 200)]) + new.advance(300)
    assert [o.data["s"] for o in outputs if o.rule == "r"] == [min(ts + 1, 9) for ts in range(200)]
    assert sum(o.rule == "o" for o in outputs) == 200


def test_a_rule_keeps_what_waits_when_another_rule_goes_or_comes_before_it():
    text = "@name('{}') @watermark(delay='5 ms') from S#length(3) select k, sum(v) as s insert into T"
    old = compile_rules(f"{text.format('x')};{text.format('a')}")
    old.send_batch([("S", ts, {"k": "k", "v": 1}) for ts in range(4)])
    new, fresh = moved_on(old, f"{text.format('a')};{text.format('z')}")
    assert fresh == ["z"]
    found = data_of(new.advance(10))
    assert [values["s"] for rule, values in found if rule == "a"] == [1, 2, 3, 3]


def test_equal_numbers_have_equal_ids_however_they_are_written():
    def ids(*values):
        engine = compile_rules("from S select k, v insert into T")
        events = [("S", 5, {"k": k, "v": [k, {"b": k, "a": 1}]}) for k in values]
        return [output.alarm_id for output in engine.send_batch(events)]

    assert ids(41.0) == ids(41) != ids(41.5)
    assert ids(41, 41.0, 41) == ids(41.0, 41.0, 41)
    assert len(set(ids(41, 41.0, 41))) == 3
