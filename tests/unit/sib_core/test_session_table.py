"""Sessions: found while they live, kept alive by use, expired exactly when their time is over."""

import pytest

from sib.errors import AuthenticationError
from sib.sessions import Session, Sessions


def session(key, used_at_s=100.0):
    return Session(key, "K", "i", "sofia", "user", 0, False, "g", "", used_at_s, used_at_s)


@pytest.fixture
def sessions():
    table = Sessions(10.0)
    table.add(session("a"))
    return table


def test_a_session_lives_until_its_time_is_over(sessions):
    assert sessions.find("a", 110.0).key == "a"
    with pytest.raises(AuthenticationError):
        sessions.find("a", 110.1)


@pytest.mark.parametrize("key", [None, "", "b", "A"])
def test_unknown_keys(sessions, key):
    with pytest.raises(AuthenticationError, match="JOIN again"):
        sessions.find(key, 100.0)


def test_use_restarts_the_expiry_and_an_older_use_changes_nothing(sessions):
    assert sessions.touch("a", 108.0)
    assert sessions.touch("a", 103.0)
    assert sessions.find("a", 118.0)
    assert not sessions.touch("b", 108.0)


def test_expired_are_listed_and_removed_once(sessions):
    sessions.add(session("b", 105.0))
    assert [expired.key for expired in sessions.expired(112.0)] == ["a"]
    assert sessions.remove("a").key == "a"
    assert sessions.remove("a") is None
    assert [left.key for left in sessions.all()] == ["b"]
    assert len(sessions) == 1


def test_a_changed_expiry_counts_for_all(sessions):
    sessions.expiry_s = 1.0
    assert sessions.is_expired(sessions.all()[0], 102.0)
