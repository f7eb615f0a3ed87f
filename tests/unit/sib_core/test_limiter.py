"""Failures are slowed down, per address and KP, and only they."""

import pytest

from sib import limiter
from sib.limiter import WINDOW_S, FailureLimiter


def test_delays_grow_beyond_the_limit_up_to_the_maximum():
    slow = FailureLimiter(3, 5)
    delays = [slow.failed("a", "K", 100.0) for _ in range(12)]
    assert delays == pytest.approx([0, 0, 0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5])


def test_each_address_and_kp_counts_for_itself():
    slow = FailureLimiter(1, 5)
    assert [slow.failed("a", "K", 0), slow.failed("b", "K", 0), slow.failed("a", "L", 0)] == [0, 0, 0]
    assert slow.failed("a", "K", 0) > 0


def test_a_minute_later_it_begins_again():
    slow = FailureLimiter(1, 5)
    slow.failed("a", "K", 1000)
    assert slow.failed("a", "K", 1000 + WINDOW_S - 0.1) > 0
    assert slow.failed("a", "K", 1000 + WINDOW_S) == 0
    assert slow.failed("a", "K", 1000 + WINDOW_S + 1) > 0


def test_thousands_of_failures_do_not_overflow():
    slow = FailureLimiter(0, 2.5)
    assert max(slow.failed("a", "K", 0) for _ in range(5000)) == 2.5


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(limiter, "KEYS_MAX", 3)
    slow = FailureLimiter(1, 5)
    for address in "abcd":
        slow.failed(address, "K", 0)
    assert slow.failed("d", "K", 0) > 0
    assert slow.failed("a", "K", 0) == 0  # forgotten


def test_endless_names_are_not_kept():
    limiter = FailureLimiter(30, 5)
    limiter.failed("a", "x" * 1_000_000, 0)
    assert sum(len(kp) for _, kp in limiter._failures) < 1000
