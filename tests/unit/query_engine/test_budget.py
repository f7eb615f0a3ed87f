"""The budget of a query."""

import pytest

from sib.errors import LimitError, QuerySyntaxError, QueryTimeoutError
from sib.query.budget import (
    MAX_NESTING,
    MAX_VALUE_DEPTH,
    SPENDS_PER_CLOCK_READING,
    Budget,
    check_made_value,
    check_nesting,
)


def test_no_deadline_is_no_limit():
    budget = Budget()
    for _ in range(10 * SPENDS_PER_CLOCK_READING):
        budget.spend()


def test_the_deadline_is_seen_within_one_reading():
    now = [0.0]
    budget = Budget.lasting(2.0, lambda: now[0])
    budget.spend(SPENDS_PER_CLOCK_READING)
    now[0] = 2.0
    for _ in range(SPENDS_PER_CLOCK_READING - 1):
        budget.spend()
    with pytest.raises(QueryTimeoutError, match="time limit"):
        budget.spend()


def test_big_steps_read_the_clock_at_once():
    with pytest.raises(QueryTimeoutError):
        Budget(1, lambda: 1).spend(10**9)


def test_a_deadline_needs_a_clock():
    with pytest.raises(ValueError, match="clock"):
        Budget(1)


def test_held_documents_can_be_given_back():
    budget = Budget(max_held_documents=2)
    budget.hold(1)
    before = budget.held
    budget.hold()
    budget.release_to(before)
    budget.hold()
    with pytest.raises(LimitError, match="more than 2"):
        budget.hold()


def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


def test_nesting():
    check_nesting(nested(MAX_NESTING), "filter")
    with pytest.raises(QuerySyntaxError, match="nested"):
        check_nesting(nested(MAX_NESTING + 1), "filter")
    with pytest.raises(QuerySyntaxError, match="nested"):
        check_nesting(nested(100_000), "filter")


def test_made_values():
    check_made_value(nested(MAX_VALUE_DEPTH), Budget())
    with pytest.raises(LimitError, match="levels"):
        check_made_value(nested(MAX_VALUE_DEPTH + 1), Budget())
    shared = 1
    for _ in range(60):
        shared = [shared, shared]
    with pytest.raises(LimitError, match="values"):
        check_made_value(shared, Budget())
