"""Names of executions, effects as they come from a sandbox, and what keeps one rule from harming others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sib.errors import LimitError, MalformedMessageError, SibError
from sib.rules.effects import EFFECTS_MAX, read_effects
from sib.rules.guards import FAILURES_MAX, PAUSE_S_FIRST, PAUSE_S_MAX, Breaker, Quota
from sib.rules.trigger import Trigger, effect_id, effect_key, hops_of, made_by, read_trigger

INSERT = {"kind": "insert", "ontology": "A", "instance": "{}"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def test_an_execution_has_its_key_and_its_ids_for_ever():
    trigger = Trigger("r", "A:1:1", 1_700_000_000, {"ontology": "{}"}, "KP:1", 2, 5)
    again = read_trigger(trigger.to_json())
    assert again == trigger
    assert effect_id(again, 0) == effect_id(trigger, 0)
    assert effect_id(trigger, 0).generation_time.timestamp() == 1_700_000_000
    others = {trigger.key, Trigger("s", "A:1:1", 0).key, Trigger("r", "A:1:2", 0).key, effect_key(trigger.key, 0)}
    assert len(others) == 4
    assert len({effect_id(trigger, number) for number in range(1000)}) == 1000


def test_ids_of_one_second_are_in_the_order_of_what_triggered_them():
    ids = [effect_id(Trigger("r", str(n), 1_700_000_000, order=n), 0) for n in range(100)]
    assert ids == sorted(ids)


def test_hops_are_read_from_what_rules_insert_and_from_nothing_else():
    assert hops_of(made_by("a:b", 7)) == 7
    assert hops_of("cep:Hot:3") == 3
    for other in (None, 5, "", "abc", "rule:x", "rule:x:y", "rule:x:1234", "a rule:x:1"):
        assert hops_of(other) == 0


def test_effects_are_read_in_order_and_numbered():
    effects = read_effects([INSERT, {"kind": "kv_put", "key": "k", "value": "1"}], first=10)
    assert [(effect.number, effect.kind, effect.is_recorded) for effect in effects] == [
        (10, "insert", False),
        (11, "kv_put", True),
    ]
    assert effects[0].fields == {
        **{k: v for k, v in INSERT.items() if k != "kind"},
        "kp": None,
        "kp_instance": None,
        "token": None,
    }


@pytest.mark.parametrize(
    "value",
    [
        {},
        None,
        {"kind": "exec"},
        {"kind": []},
        {"kind": "insert", "ontology": 5, "instance": "{}"},
        {"kind": "insert", "ontology": "A", "instance": {}},
        {"kind": "mail", "to": [], "subject": "s", "body": "b"},
        {"kind": "mail", "to": ["a@b\nBcc: c@d"], "subject": "s", "body": "b"},
        {"kind": "mail", "to": ["a@b"] * 51, "subject": "s", "body": "b"},
        {"kind": "kv_put", "key": "k" * 192, "value": "1"},
        {"kind": "kv_put", "key": "k", "value": "x" * 70_000},
        {"kind": "schedule", "rule": "r", "in_s": -1, "data": "1"},
        {"kind": "schedule", "rule": "r", "in_s": float("nan"), "data": "1"},
        {"kind": "http", "method": "GET", "url": "http://x", "headers": {"a": 1}, "body": None},
    ],
)
def test_what_is_no_effect_is_refused(value):
    with pytest.raises(MalformedMessageError):
        read_effects([value])


def test_the_number_of_effects_is_bounded():
    assert len(read_effects([INSERT] * EFFECTS_MAX)) == EFFECTS_MAX
    with pytest.raises(LimitError):
        read_effects([INSERT] * (EFFECTS_MAX + 1))


@given(JSON)
def test_whatever_a_sandbox_sends_is_effects_or_refused(value):
    try:
        read_effects(value)
    except SibError:
        pass


def test_the_breaker_opens_after_failures_in_a_row_and_lets_one_run_through():
    breaker = Breaker()
    for _ in range(FAILURES_MAX - 1):
        assert not breaker.failed(0.0)
    breaker.succeeded()
    for _ in range(FAILURES_MAX - 1):
        assert not breaker.failed(0.0)
    assert not breaker.is_open(0.0)
    assert breaker.failed(0.0)
    assert breaker.is_open(PAUSE_S_FIRST - 0.1)
    assert breaker.until_s(0.0) == PAUSE_S_FIRST
    assert not breaker.is_open(PAUSE_S_FIRST)
    assert breaker.is_open(PAUSE_S_FIRST)  # one at a time
    assert breaker.failed(PAUSE_S_FIRST)
    assert breaker.until_s(PAUSE_S_FIRST) == 3 * PAUSE_S_FIRST
    assert not breaker.is_open(100.0)
    breaker.succeeded()
    assert not breaker.is_open(100.0)
    assert breaker.until_s(100.0) is None


def test_the_pauses_of_the_breaker_have_an_end():
    breaker, now_s = Breaker(), 0.0
    for _ in range(FAILURES_MAX + 20):
        breaker.failed(now_s)
        now_s = breaker.until_s(now_s) or now_s
    breaker.failed(now_s)
    assert breaker.until_s(now_s) == now_s + PAUSE_S_MAX


def test_a_quota_is_of_a_minute_and_of_a_kind():
    quota = Quota({"mails": 2})
    quota.take("mails", 0.0)
    quota.take("mails", 30.0)
    with pytest.raises(LimitError, match="2 times a minute"):
        quota.take("mails", 59.0)
    quota.take("writes", 59.0, 1_000_000)
    quota.take("mails", 60.0, 2)
