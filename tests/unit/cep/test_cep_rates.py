"""``output ...``, ``on change`` and ``@dedupe``."""

import pytest


def stream(values, *, step=1, keys=None):
    return [("S", n * step, {"v": v, "k": keys[n] if keys else "a"}) for n, v in enumerate(values)]


def values(outputs):
    return [data["v"] for _, _, data in outputs]


@pytest.mark.parametrize(
    ("rate", "wanted"),
    [
        ("output first every 3 events", [0, 3, 6]),
        ("output last every 3 events", [2, 5]),
        ("output all every 3 events", [0, 1, 2, 3, 4, 5]),
        ("output every 3 events", [0, 1, 2, 3, 4, 5]),
        ("output first every 3 ms", [0, 3, 6]),
        ("output last every 3 ms", [2, 5]),
        ("output all every 3 ms", [0, 1, 2, 3, 4, 5]),
        ("output snapshot every 3 ms", [2, 5]),
    ],
)
@pytest.mark.parametrize("batch", [None, 1])
def test_rates(run, rate, wanted, batch):
    assert values(run(f"from S select v {rate} insert into T", stream(range(7)), batch=batch)) == wanted


def test_what_time_lets_out_comes_when_the_time_is_full(run):
    assert run("from S select v output last every 10 ms insert into T", stream([1, 2]), until=10) == [
        ("T", 1, {"v": 2})
    ]
    assert run("from S select v output last every 10 ms insert into T", stream([1, 2]), until=9) == []


def test_first_and_last_work_by_group(run):
    events = stream(range(6), keys="ababab")
    assert values(run("from S select k, v group by k output first every 10 ms insert into T", events)) == [0, 1]
    last = run("from S select k, v group by k output last every 10 ms insert into T", events, until=10)
    assert values(last) == [4, 5]


def test_snapshot_tells_the_newest_of_each_group_in_every_period(run):
    events = stream(range(3), keys="aba")
    outputs = run("from S select k, v group by k output snapshot every 5 ms insert into T", events, until=10)
    assert outputs == [(t, ts, {"k": k, "v": v}) for t, ts, k, v in [
        ("T", 5, "a", 2), ("T", 5, "b", 1), ("T", 10, "a", 2), ("T", 10, "b", 1),
    ]]  # fmt: skip


@pytest.mark.parametrize("batch", [None, 1])
def test_on_change_tells_when_having_turns_true_for_the_group(run, batch):
    rule = "from S#length(1) select k, avg(v) as v group by k having avg(v) > 5 output on change insert into T"
    events = stream([6, 7, 1, 8, 9, 9], keys="aaaaba")
    assert values(run(rule, events, batch=batch)) == [6, 8, 9]


def test_on_change_of_a_filter_with_having_is_an_edge(run):
    rule = "from S select k, v group by k having v > 5 output on change insert into T"
    assert values(run(rule, stream([6, 7, 1, 8]))) == [6, 8]


def test_on_change_of_a_batch_window_is_an_edge(run):
    rule = "from S#timeBatch(2) select max(v) as v having v > 5 output on change insert into T"
    assert values(run(rule, stream([6, 7, 7, 8, 1, 1, 9, 9]), until=8)) == [7, 9]


def test_on_change_without_having_tells_other_values_only(run):
    rule = "from S select v output on change insert into T"
    assert values(run(rule, stream([1, 1, 2, 2, 1, None, None]))) == [1, 2, 1, None]


def test_dedupe_tells_a_value_once_in_its_time(run):
    rule = "@dedupe(v, '3 ms') from S select v insert into T"
    assert [ts for _, ts, _ in run(rule, stream([1, 1, 2, 1, 2, 2]))] == [0, 2, 3, 5]


def test_outputs_of_a_rate_feed_other_rules(run):
    rules = "from S select v output last every 3 events insert into M; from M[v > 3] select v insert into T"
    assert [o for o in run(rules, stream(range(7))) if o[0] == "T"] == [("T", 5, {"v": 5})]


def test_on_change_of_a_pattern_tells_other_values_only(run):
    rule = "from every a=S -> b=S[v > a.v] select b.v as v having v > 1 output on change insert into T"
    assert values(run(rule, stream([0, 2, 0, 2, 0, 3]))) == [2, 3]
