"""Windows and aggregates against a naive reading of their definitions."""

import math
from statistics import pstdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

AGGREGATES = (
    "count() as n, count(v) as cv, sum(v) as s, avg(v) as a, min(v) as mn, max(v) as mx, stddev(v) as sd, "
    "first(v) as f, last(v) as l, distinctCount(v) as d, median(v) as md, percentile(v, 90) as p"
)
VALUES = st.one_of(st.none(), st.integers(-5, 5), st.floats(-5, 5, allow_nan=False).map(lambda x: round(x, 1)))


@st.composite
def streams(draw, *, keys="ab", size=40, gap=4):
    """Events in order of time, some at the same time."""
    ts, events = draw(st.integers(-50, 50)), []
    for _ in range(draw(st.integers(0, size))):
        ts += draw(st.integers(0, gap))
        events.append(("S", ts, {"k": draw(st.sampled_from(keys)), "v": draw(VALUES)}))
    return events


def percentile(values, percent):
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def aggregate(events):
    """All aggregates of events, from their definitions."""
    rows = [event[2]["v"] for event in events]
    values = [value for value in rows if value is not None]
    some = bool(values)
    return {
        "n": len(rows),
        "cv": len(values),
        "s": sum(values) if some else None,
        "a": sum(values) / len(values) if some else None,
        "mn": min(values) if some else None,
        "mx": max(values) if some else None,
        "sd": pstdev(values) if some else None,
        "f": rows[0],
        "l": rows[-1],
        "d": len(set(values)),
        "md": percentile(values, 50) if some else None,
        "p": percentile(values, 90) if some else None,
    }


def close(got, wanted):
    assert len(got) == len(wanted), (got, wanted)
    for (stream, ts, data), (at, expected) in zip(got, wanted, strict=True):
        assert stream == "T"
        assert ts == at
        assert data.keys() == expected.keys()
        for name, value in expected.items():
            if isinstance(value, float):
                assert data[name] is not None
                assert math.isclose(data[name], value, abs_tol=1e-6), name
            else:
                assert data[name] == value or math.isclose(data[name], value, abs_tol=1e-6), name


def sliding(events, inside):
    """One output per event: the aggregates of the events of its key up to it that are inside its window."""
    wanted = []
    for place, event in enumerate(events):
        seen = events[: place + 1]
        window = [e for i, e in enumerate(seen) if inside(e, i, event, place, seen) and e[2]["k"] == event[2]["k"]]
        wanted.append((event[1], {"k": event[2]["k"], **aggregate(window)}))
    return wanted


BATCHES = st.sampled_from([None, 1, 3])


@settings(deadline=None, max_examples=25)
@given(streams(), st.integers(1, 12), BATCHES)
def test_time_window(run, events, size, batch):
    rule = f"from S#time({size}) select k, {AGGREGATES} group by k insert into T"
    close(run(rule, events, batch=batch), sliding(events, lambda e, i, last, n, seen: e[1] > last[1] - size))


@settings(deadline=None, max_examples=25)
@given(streams(), st.integers(1, 5), BATCHES)
def test_length_window_counts_the_events_of_all_groups(run, events, size, batch):
    rule = f"from S#length({size}) select k, {AGGREGATES} group by k insert into T"
    close(run(rule, events, batch=batch), sliding(events, lambda e, i, last, n, seen: i > n - size))


@settings(deadline=None, max_examples=25)
@given(streams(), st.integers(1, 5))
def test_length_window_by_partition_counts_the_events_of_its_key(run, events, size):
    rule = f"from S#length({size}) partition by k select {AGGREGATES} insert into T"

    def inside(e, i, last, n, seen):
        own = [j for j, other in enumerate(seen) if other[2]["k"] == last[2]["k"]]
        return i in own[-size:]

    close(run(rule, events), sliding(events, inside))


@settings(deadline=None, max_examples=25)
@given(streams())
def test_without_a_window_aggregates_run_from_the_start(run, events):
    rule = f"from S select k, {AGGREGATES} group by k insert into T"
    close(run(rule, events), sliding(events, lambda *_: True))


@settings(deadline=None, max_examples=25)
@given(streams())
def test_unique_window_holds_the_newest_of_each(run, events):
    rule = "from S#unique(k) select count() as n, sum(v) as s, min(v) as mn, max(v) as mx insert into T"
    wanted = []
    for place, event in enumerate(events):
        newest = {e[2]["k"]: e for e in events[: place + 1]}
        made = aggregate(list(newest.values()))
        wanted.append((event[1], {name: made[name] for name in ("n", "s", "mn", "mx")}))
    close(run(rule, events), wanted)


@settings(deadline=None, max_examples=25)
@given(streams(), st.integers(1, 12))
def test_external_time_window_goes_by_an_attribute(run, events, size):
    moved = [(stream, ts, {**data, "at": ts * 2}) for stream, ts, data in events]
    rule = f"from S#externalTime(at, {size}) select k, {AGGREGATES} group by k insert into T"
    close(run(rule, moved), sliding(moved, lambda e, i, last, n, seen: e[2]["at"] > last[2]["at"] - size))


def windows(events, size, step, until):
    """The windows [end - size, end) with end = n * step + size that hold events and end by ``until``."""
    if not events:
        return
    for end in range(events[0][1], events[-1][1] + size + step + 1):
        if (end - size) % step:
            continue
        inside = [e for e in events if end - size <= e[1] < end]
        if inside and end <= until:
            groups = {}
            for event in inside:
                groups.setdefault(event[2]["k"], []).append(event)
            for key, group in groups.items():
                yield end, {"k": key, **aggregate(group)}


@settings(deadline=None, max_examples=25)
@given(streams(), st.integers(1, 12), st.integers(1, 12), BATCHES)
def test_hop_windows_are_aligned_to_the_epoch(run, events, size, step, batch):
    until = (events[-1][1] if events else 0) + 20
    rule = f"from S#hop({size}, {step}) select k, {AGGREGATES} group by k insert into T"
    close(run(rule, events, until=until, batch=batch), list(windows(events, size, step, until)))


@settings(deadline=None, max_examples=25)
@given(streams(), st.integers(1, 12), BATCHES)
def test_time_batches_are_aligned_to_the_epoch(run, events, size, batch):
    until = (events[-1][1] if events else 0) + 5
    rule = f"from S#timeBatch({size}) select k, {AGGREGATES} group by k insert into T"
    close(run(rule, events, until=until, batch=batch), list(windows(events, size, size, until)))


@settings(deadline=None, max_examples=25)
@given(streams(), st.integers(1, 5), BATCHES)
def test_length_batches(run, events, size, batch):
    rule = f"from S#lengthBatch({size}) select k, {AGGREGATES} group by k insert into T"
    wanted = []
    for start in range(0, len(events) - size + 1, size):
        groups = {}
        for event in events[start : start + size]:
            groups.setdefault(event[2]["k"], []).append(event)
        wanted += [(events[start + size - 1][1], {"k": k, **aggregate(group)}) for k, group in groups.items()]
    close(run(rule, events, batch=batch), wanted)


@settings(deadline=None, max_examples=25)
@given(streams(), st.integers(1, 6), BATCHES)
def test_sessions_end_when_their_key_is_silent(run, events, gap, batch):
    until = (events[-1][1] if events else 0) + 3
    rule = f"from S#session({gap}) select k, {AGGREGATES} group by k insert into T"
    sessions = []
    for event in events:
        own = [s for s in sessions if s[0][2]["k"] == event[2]["k"]]
        if own and event[1] - own[-1][-1][1] < gap:
            own[-1].append(event)
        else:
            sessions.append([event])
    ended = [(s[-1][1] + gap, s) for s in sessions if s[-1][1] + gap <= until]
    wanted = [(end, {"k": s[0][2]["k"], **aggregate(s)}) for end, s in sorted(ended, key=lambda pair: pair[0])]
    close(run(rule, events, until=until, batch=batch), wanted)


@settings(deadline=None, max_examples=25)
@given(streams(), st.integers(1, 12), BATCHES)
def test_all_events_are_told_when_they_come_and_when_they_leave(run, events, size, batch):
    rule = f"from S#time({size}) select k, v, count() as n group by k insert all events into T"
    until = (events[-1][1] if events else 0) + size
    moments = []
    for place, event in enumerate(events):
        moments.append((event[1], 1, place, event))
        moments.append((event[1] + size, 0, place, event))
    wanted, held = [], []
    for ts, is_arrival, _, event in sorted(moments, key=lambda m: m[:3]):
        (held.append if is_arrival else held.remove)(event)
        n = sum(e[2]["k"] == event[2]["k"] for e in held)
        wanted.append(("T", ts, {"k": event[2]["k"], "v": event[2]["v"], "n": n}))
    assert run(rule, events, until=until, batch=batch) == wanted


def test_expired_events_leave_at_their_time(run):
    rule = "from S#time(1 sec) select v insert expired events into T"
    events = [("S", 0, {"v": 1}), ("S", 300, {"v": 2}), ("S", 1_100, {"v": 3})]
    assert run(rule, events) == [("T", 1_000, {"v": 1})]
    assert run(rule, events, until=1_300) == [("T", 1_000, {"v": 1}), ("T", 1_300, {"v": 2})]


def test_expired_events_of_a_length_window(run):
    rule = "from S#length(2) select v insert expired events into T"
    events = [("S", n, {"v": n}) for n in range(4)]
    assert run(rule, events) == [("T", 2, {"v": 0}), ("T", 3, {"v": 1})]


def test_a_batch_without_aggregates_gives_its_events(run):
    events = [("S", n, {"v": n}) for n in range(5)]
    assert run("from S#timeBatch(3) select v insert into T", events, until=6) == [
        ("T", 3, {"v": 0}), ("T", 3, {"v": 1}), ("T", 3, {"v": 2}), ("T", 6, {"v": 3}), ("T", 6, {"v": 4}),
    ]  # fmt: skip


def test_a_window_without_events_gives_nothing(run):
    events = [("S", 0, {"v": 1}), ("S", 10 * 3_600_000, {"v": 2})]
    outputs = run("from S#timeBatch(1 min) select count() as n insert into T", events, until=11 * 3_600_000)
    assert outputs == [("T", 60_000, {"n": 1}), ("T", 36_060_000, {"n": 1})]


def test_order_by_and_limit_hold_for_the_outputs_of_one_window(run):
    events = [("S", n, {"k": k}) for n, k in enumerate("abbcccdddd")]
    rule = "from S#timeBatch(10) select k, count() as n group by k order by n desc limit 2 insert into T"
    assert run(rule, events, until=10) == [("T", 10, {"k": "d", "n": 4}), ("T", 10, {"k": "c", "n": 3})]


def test_limit_holds_for_each_partition(run):
    events = [("S", n, {"p": p, "k": k}) for n, (p, k) in enumerate(["1a", "1b", "1b", "2c", "2c", "2d"])]
    rule = "from S#timeBatch(10) partition by p select k, count() as n group by k order by n desc limit 1 insert into T"
    assert run(rule, events, until=10) == [
        ("T", 10, {"p": "1", "k": "b", "n": 2}),
        ("T", 10, {"p": "2", "k": "c", "n": 2}),
    ]


def test_having_may_use_columns_and_aggregates(run):
    events = [("S", n, {"v": n}) for n in range(4)]
    rule = "from S#length(2) select sum(v) as total having total > 2 and count() = 2 insert into T"
    assert run(rule, events) == [("T", 2, {"total": 3}), ("T", 3, {"total": 5})]


def test_arithmetic_of_aggregates(run):
    events = [("S", n, {"v": v}) for n, v in enumerate([3, 9, 4])]
    assert run("from S#length(5) select max(v) - min(v) as width insert into T", events)[-1][2] == {"width": 6}


def test_minimum_of_texts_and_of_mixed_values(run):
    events = [("S", n, {"v": v}) for n, v in enumerate(["b", "a", 3, None, "c"])]
    outputs = run("from S#length(5) select min(v) as low, max(v) as high insert into T", events)
    assert outputs[-1][2] == {"low": "a", "high": "c"}


def test_large_values_leave_no_rounding_behind(run):
    events = [("S", 0, {"v": 1e18}), ("S", 20, {"v": 0.1}), ("S", 25, {"v": 0.2})]
    outputs = run("from S#time(10) select sum(v) as s insert into T", events)
    assert math.isclose(outputs[-1][2]["s"], 0.3)


def test_panes_let_a_long_window_move_in_steps(run):
    events = [("S", ts, {"v": 1}) for ts in (0, 5, 9, 10, 19, 20, 100, 105)]
    rule = "@panes(10) from S#time(100) select count() as n insert into T"
    assert [data["n"] for _, _, data in run(rule, events)] == [1, 2, 3, 4, 5, 6, 4, 5]


@pytest.mark.parametrize("key", [[1, 2], {"x": 1}, None])
def test_groups_by_values_that_cannot_be_keys(run, key):
    events = [("S", n, {"k": key, "v": n}) for n in range(2)]
    outputs = run("from S#time(1 min) select k, count() as n group by k insert into T", events)
    assert [data for _, _, data in outputs] == [{"k": key, "n": 1}, {"k": key, "n": 2}]


def test_having_may_use_a_column_without_as(run):
    events = [("S", n, {"v": n}) for n in range(3)]
    assert run("from S#length(5) select count() having count > 2 insert into T", events) == [("T", 2, {"count": 3})]
