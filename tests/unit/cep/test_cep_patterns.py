"""Patterns and sequences: each point of their definition, and naive readings as oracles."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


def events(text, *, step=1_000, key="k"):
    """One event per letter, a second apart: stream E, attributes kind (the letter) and n (its place); blanks are time."""
    return [("E", n * step, {"kind": kind, "n": n, "k": key}) for n, kind in enumerate(text) if kind != " "]


def pattern(shape, names="ab", clauses=""):
    """A rule whose steps X stand for E[kind = 'x'], and whose outputs tell the places of the named events."""
    for letter in "ABCD":
        shape = shape.replace(letter, f"E[kind = '{letter.lower()}']")
    columns = ", ".join(f"{name}.n as {name}" for name in names)
    return f"from {shape} {clauses} select {columns} insert into T"


def matched(run, rule, input_events, **options):
    return [tuple(data.values()) for _, _, data in run(rule, input_events, **options)]


def test_every_starts_a_match_at_each_event_and_one_event_closes_all(run):
    assert matched(run, pattern("every a=A -> b=B"), events("aacab b")) == [(0, 4), (1, 4), (3, 4)]


def test_without_every_there_is_one_match(run):
    assert matched(run, pattern("a=A -> b=B"), events("aabab")) == [(0, 2)]


def test_without_every_there_is_one_match_for_each_key(run):
    both = sorted(events("aabab", key="x") + events(" abab", key="y"), key=lambda event: event[1])
    rule = pattern("a=A -> b=B", clauses="partition by k")
    assert matched(run, rule, both) == [("x", 0, 2), ("y", 1, 2)]


def test_without_every_a_match_that_ran_out_does_not_count(run):
    assert matched(run, pattern("a=A -> b=B within 1 sec"), events("a  ab ab")) == [(3, 4)]


def test_every_before_a_group_has_one_match_at_a_time(run):
    assert matched(run, pattern("every (a=A -> b=B)"), events("aabab")) == [(0, 2), (3, 4)]


def test_a_group_that_ran_out_does_not_hide_a_later_one(run):
    assert matched(run, pattern("every (a=A -> b=B) within 2 sec"), events("a a b")) == [(2, 4)]


def test_within_counts_from_the_first_event_and_includes_its_end(run):
    assert matched(run, pattern("every a=A -> b=B within 2 sec"), events("a b")) == [(0, 2)]
    assert matched(run, pattern("every a=A -> b=B within 2 sec"), events("a  b")) == []
    assert matched(run, pattern("every a=A -> b=B -> c=C within 3 sec", "abc"), events("ab c")) == [(0, 1, 3)]
    assert matched(run, pattern("every a=A -> b=B -> c=C within 3 sec", "abc"), events("ab  c")) == []


def test_within_of_a_group_counts_from_the_first_event_of_the_group(run):
    rule = pattern("every a=A -> (b=B -> c=C) within 1 sec", "abc")
    assert matched(run, rule, events("a   bc")) == [(0, 4, 5)]
    assert matched(run, rule, events("a   b c")) == []


def test_others_may_lie_between_an_arrow(run):
    assert matched(run, pattern("every a=A -> b=B"), events("accb")) == [(0, 3)]


def test_a_comma_means_the_very_next_event_of_the_key(run):
    assert matched(run, pattern("every a=A, b=B"), events("abacb")) == [(0, 1)]
    both = sorted(events("a b", key="x") + events(" c ", key="y"), key=lambda event: event[1])
    assert matched(run, pattern("every a=A, b=B", clauses="partition by k"), both) == [("x", 0, 2)]
    assert matched(run, pattern("every a=A, b=B"), both) == []


def test_an_event_that_fails_its_filter_kills_a_sequence(run):
    rule = "from every a=E[n > 0], b=E[n > a.n + 1] select a.n as a, b.n as b insert into T"
    given_events = [("E", t, {"n": n}) for t, n in enumerate([1, 2, 4, 0, 6])]
    assert matched(run, rule, given_events) == [(2, 4)]


def test_exact_counts_collect_and_do_not_overlap(run):
    rule = "from every a=E[kind='a']<3> select a[0].n as x, a[1].n as y, a[last].n as z, a[last-1].n as w insert into T"
    assert matched(run, rule, events("aaabaaaa")) == [(0, 1, 2, 1), (4, 5, 6, 5)]


def test_a_count_within_a_time_lets_go_its_oldest(run):
    rule = "from every a=E[kind='a']<3> within 3 sec select a[0].n as x, a[last].n as z insert into T"
    assert matched(run, rule, events("a   a a a")) == []
    assert matched(run, rule, events("a  a aa")) == [(3, 6)]


def test_counts_with_bounds(run):
    rule = "from every a=E[kind='a']<2:3> -> b=E[kind='b'] select a[0].n as x, a[last].n as z, b.n as b insert into T"
    assert matched(run, rule, events("ab")) == []
    assert matched(run, rule, events("aab")) == [(0, 1, 2)]
    assert (0, 2, 4) in matched(run, rule, events("aaaab"))


def test_optional_and_repeated_steps_of_a_sequence(run):
    def rule(mark):
        return f"""from every a=E[kind='a'], b=E[kind='b']{mark}, c=E[kind='c']
            select a.n as a, b[0].n as b0, b[last].n as b1, c.n as c insert into T"""

    assert matched(run, rule("?"), events("ac")) == [(0, None, None, 1)]
    assert matched(run, rule("?"), events("abc")) == [(0, 1, 1, 2)]
    assert matched(run, rule("?"), events("abbc")) == []
    assert matched(run, rule("*"), events("ac abbc")) == [(0, None, None, 1), (3, 4, 5, 6)]
    assert matched(run, rule("+"), events("ac abbbc")) == [(3, 4, 6, 7)]


def test_a_last_step_that_is_optional_is_not_waited_for(run):
    rule = "from every a=E[kind='a'] -> b=E[kind='b']* select a.n as a, b[last].n as b insert into T"
    assert matched(run, rule, events("ab")) == [(0, None)]


def test_and_takes_both_in_any_order_or_takes_one(run):
    assert matched(run, pattern("every (a=A and b=B)"), events("abba")) == [(0, 1), (3, 2)]
    assert matched(run, pattern("every a=A or b=B"), events("a cb")) == [(0, None), (None, 3)]
    assert matched(run, pattern("every c=C -> a=A and b=B", "cab"), events("cb ca")) == [(0, 4, 1)]


def test_every_in_the_middle_lets_each_event_go_on(run):
    assert matched(run, pattern("a=A -> every b=B"), events("abb")) == [(0, 1)]
    assert matched(run, pattern("every a=A -> every b=B"), events("abb")) == [(0, 1), (0, 2)]


def test_absence_behind_an_event(run):
    rule = "from every a=E[kind='a'] -> not E[kind='b'] for 2 sec select a.n as a, eventTime() as t insert into T"
    assert matched(run, rule, events("a  a b a"), until=20_000) == [(0, 2_000), (3, 5_000), (7, 9_000)]
    assert matched(run, rule, events("a    ab"), until=20_000) == [(0, 2_000)]
    assert matched(run, rule, events("a b"), until=20_000) == [(0, 2_000)]
    assert matched(run, rule, events("ab"), until=20_000) == []


def test_absence_between_two_events(run):
    rule = pattern("every a=A -> not B for 2 sec -> c=C", "ac")
    assert matched(run, rule, events("a  c")) == [(0, 3)]
    assert matched(run, rule, events("ab  c")) == []
    assert matched(run, rule, events("ac c")) == [(0, 3)]


def test_absence_beside_an_event(run):
    rule = pattern("every a=A -> b=B and not C for 3 sec", "ab")
    assert matched(run, rule, events("ab  d"), until=10_000) == [(0, 1)]
    assert matched(run, rule, events("abc  "), until=10_000) == []


def test_conditions_on_captured_events(run):
    rule = """from every a=E, b=E[v < a.v]+, c=E[v > b[last].v] within 1 hour partition by k
        select a.v as p0, b[last].v as pmin, c.v as p1 insert into T"""
    prices = [("E", t, {"k": "x", "v": v}) for t, v in enumerate([10, 8, 7, 9, 5, 6, 6])]
    assert matched(run, rule, prices) == [("x", 10, 7, 9), ("x", 8, 7, 9), ("x", 9, 5, 6)]


def test_patterns_over_several_streams_by_key(run):
    rule = "from every a=Door -> b=Alarm within 5 sec partition by home select a.ts as t0, b.ts as t1 insert into T"
    given_events = [
        ("Door", 0, {"home": 1}),
        ("Alarm", 1_000, {"home": 2}),
        ("Other", 1_500, {"home": 1}),
        ("ALARM", 2_000, {"home": 1}),
    ]
    assert run(rule, given_events) == [("T", 2_000, {"home": 1, "t0": 0, "t1": 2_000})]


def test_an_event_without_its_key_belongs_to_no_partition(run):
    rule = "from every a=A -> b=B partition by k select a.ts as t insert into T"
    assert run(rule, [("A", 0, {}), ("B", 1, {}), ("A", 2, {"k": None}), ("B", 3, {"k": None})]) == []


def test_select_star_of_a_pattern_gives_the_attributes_of_all_events(run):
    rule = "from every a=A -> b=B select * insert into T"
    assert run(rule, [("A", 0, {"x": 1, "z": 1}), ("B", 1, {"y": 2, "z": 2})]) == [("T", 1, {"x": 1, "z": 1, "y": 2})]


def test_outputs_of_one_time_come_in_the_order_in_which_their_matches_began(run):
    rule = "from every a=E[kind='a'] -> b=E[kind='b'] partition by k select k, a.n as n insert into T"
    given_events = [
        ("E", 1, {"kind": "a", "k": "y", "n": 1}),
        ("E", 2, {"kind": "a", "k": "x", "n": 2}),
        ("E", 5, {"kind": "b", "k": "x"}),
        ("E", 5, {"kind": "b", "k": "y"}),
    ]
    assert [data["n"] for _, _, data in run(rule, given_events)] == [1, 2]


@pytest.mark.parametrize("value", [None, "text", [1]])
def test_odd_values_never_match_and_never_fail(run, value):
    rule = "from every a=E -> b=E[v > a.v + 1] partition by k select a.v as x insert into T"
    assert run(rule, [("E", t, {"k": 1, "v": v}) for t, v in enumerate([value, 5, value])]) == []


# Naive readings

LETTERS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3), st.sampled_from("xy")), max_size=25)


def stream(letters):
    ts, made = 0, []
    for n, (kind, gap, key) in enumerate(letters):
        ts += gap
        made.append(("E", ts, {"kind": kind, "n": n, "k": key}))
    return made


def followed_by(given_events, within):
    """For each a the first b of its key behind it, if it comes within the time."""
    found = []
    for i, a in enumerate(given_events):
        if a[2]["kind"] != "a":
            continue
        later = [e for e in given_events[i + 1 :] if e[2]["k"] == a[2]["k"] and e[2]["kind"] == "b"]
        if later and later[0][1] - a[1] <= within:
            found.append((later[0][1], i, later[0][2]["n"]))
    return [(n_a, n_b) for _, n_a, n_b in sorted(found, key=lambda f: (f[0], f[1]))]


@settings(deadline=None, max_examples=60)
@given(LETTERS, st.integers(0, 8), st.sampled_from([None, 4]))
def test_every_a_then_b_is_the_first_b_behind_each_a(run, letters, within, batch):
    given_events = stream(letters)
    tail = f"within {within} ms partition by k select a.n as a, b.n as b insert into T"
    got = run(f"from every a=E[kind='a'] -> b=E[kind='b'] {tail}", given_events, batch=batch)
    pairs, wanted = [(data["a"], data["b"]) for _, _, data in got], followed_by(given_events, within)
    if batch is None:
        assert pairs == wanted
    else:  # outputs of one time are ordered within a batch only
        assert sorted(pairs) == sorted(wanted)


@settings(deadline=None, max_examples=60)
@given(LETTERS, st.integers(0, 8))
def test_the_general_matcher_agrees_with_the_linear_one(run, letters, within):
    given_events = stream(letters)
    tail = f"within {within} ms partition by k select a.n as a, b.n as b, c.n as c insert into T"
    step = "b=E[kind='b' and n > a.n]"
    linear = run(f"from every a=E[kind='a'] -> {step} -> c=E[kind='c'] {tail}", given_events)
    general = run(f"from every a=E[kind='a'] -> ({step}) within 9 hours -> c=E[kind='c'] {tail}", given_events)
    assert linear == general


@settings(deadline=None, max_examples=60)
@given(LETTERS, st.integers(1, 6))
def test_a_then_no_b_is_every_a_without_a_b_in_time(run, letters, duration):
    given_events = stream(letters)
    until = (given_events[-1][1] if given_events else 0) + 10
    rule = f"from every a=E[kind='a'] -> not E[kind='b'] for {duration} ms partition by k select a.n as a insert into T"
    wanted = []
    for i, a in enumerate(given_events):
        end = a[1] + duration
        if a[2]["kind"] == "a" and not any(
            e[2]["kind"] == "b" and e[2]["k"] == a[2]["k"] and e[1] < end for e in given_events[i + 1 :]
        ):
            wanted.append((end, i))
    got = [(ts, data["a"]) for _, ts, data in run(rule, given_events, until=until)]
    assert got == sorted(wanted)


@settings(deadline=None, max_examples=60)
@given(LETTERS)
def test_a_sequence_is_three_events_of_a_key_in_a_row(run, letters):
    given_events = stream(letters)
    rule = (
        "from every a=E[kind='a'], b=E[kind='b'], c=E[kind='c'] partition by k select a.n as a, c.n as c insert into T"
    )
    wanted = []
    for key in "xy":
        own = [e for e in given_events if e[2]["k"] == key]
        trios = [t for t in zip(own, own[1:], own[2:], strict=False) if "".join(e[2]["kind"] for e in t) == "abc"]
        wanted += [(c[1], a[2]["n"], c[2]["n"]) for a, _, c in trios]
    assert [(ts, data["a"], data["c"]) for _, ts, data in run(rule, given_events)] == sorted(wanted)
