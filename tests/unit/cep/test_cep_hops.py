"""How many rules were at work before an output: by its own causes, and enough that circles end."""

import itertools

import pytest

from sib.cep import compile_rules
from sib.cep.hops import Hops

FILTER = "@name('copy') from S[v > 0] select k, v insert into O"
COUNT = "@name('count') from S#time(10 sec) select count() as n output every 1 sec insert into O"
SILENT = "@name('silent') from not S for 10 sec partition by k select k insert into O"


class Counted:
    """An engine and the hops of what comes out of it."""

    def __init__(self, text):
        self.engine = compile_rules(text)
        self.hops = Hops(self.engine.rules)

    def send(self, *events):
        for hops, together in itertools.groupby(events, key=lambda event: event[3]):
            self.hops.note([event[:3] for event in together], hops)
        outputs = self.engine.send_batch([(stream, ts_ms, data) for stream, ts_ms, data, _ in events])
        return [(output.ts_ms, self.hops.of(output)) for output in outputs]

    def advance(self, ts_ms):
        return [(output.ts_ms, self.hops.of(output)) for output in self.engine.advance(ts_ms)]


def event(ts_ms, hops, stream="S", k="a"):
    return stream, ts_ms, {"k": k, "v": 1}, hops


def test_an_output_counts_from_the_event_that_made_it():
    counted = Counted(FILTER)
    assert counted.send(event(1, 0), event(2, 5), event(3, 0), event(4, 2)) == [(1, 1), (2, 6), (3, 1), (4, 3)]


def test_events_that_the_rule_does_not_read_do_not_count():
    counted = Counted(f"{FILTER}; @name('other') from T select k insert into P")
    assert sorted(counted.send(event(1, 0), event(1, 7, stream="T"))) == [(1, 1), (1, 8)]


def test_an_event_that_waited_for_its_time_counts_when_it_is_released():
    counted = Counted("@watermark(delay='5 sec') " + FILTER)
    assert counted.send(event(1_000, 3), event(2_000, 0)) == []
    assert counted.send(event(9_000, 0)) == [(1_000, 4), (2_000, 1)]


def test_what_comes_late_counts():
    counted = Counted("@watermark(late='side') " + FILTER)
    counted.send(event(1_000, 0))
    assert counted.send(event(500, 4))[0][1] == 5


@pytest.mark.parametrize(
    ("text", "has_others"), [(COUNT, False), (SILENT, False), (SILENT, True)], ids=["rate", "absence", "busy absence"]
)
def test_a_circle_that_time_drives_ends(text, has_others):
    """Each output comes back as an event; events of others come all the time."""
    counted = Counted(text)
    counted.send(event(0, 0), event(0, 0, k="b"))
    seen = []
    for step in range(1, 200):
        now_ms = step * 1_000
        outputs = counted.send(event(now_ms, 0, k="b")) if has_others else counted.advance(now_ms)
        seen += [hops for _, hops in outputs]
        for _, hops in outputs:
            if hops < 8:
                seen += [more for _, more in counted.send(event(now_ms, hops))]
    assert max(seen) == 8
    assert min(seen[seen.index(8) :]) == 8, "once it is noticed, it does not begin anew"


def test_a_rule_behind_one_that_waits_counts_as_that_one():
    counted = Counted(f"{SILENT}; @name('after') from O select k insert into P")
    counted.send(event(0, 3), event(1_000, 0, k="b"))
    assert {hops for _, hops in counted.advance(11_500)} == {4}


def test_what_time_makes_counts_from_what_was_read_within_a_day():
    counted = Counted(SILENT)
    counted.send(event(0, 6))
    assert counted.advance(10_001) == [(10_000, 7)]
    day_ms = 86_400_000
    counted.send(event(2 * day_ms, 0))
    assert counted.advance(2 * day_ms + 10_001) == [(2 * day_ms + 10_000, 1)]


def test_many_changes_of_hops_are_bounded_and_counted_with_the_most():
    counted = Counted("@watermark(delay='1 hour') " + FILTER)
    counted.send(*(event(number, number % 3) for number in range(1_000)))
    outputs = counted.advance(1_000_000)
    assert len(outputs) == 1_000
    assert outputs[0][1] == 3, "the oldest are told apart no more"
    assert [hops for _, hops in outputs[-3:]] == [2, 3, 1]
