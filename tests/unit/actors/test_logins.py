"""Failed logins are slowed down, right ones never."""

import asyncio

import pytest

from actors.gateway import logins as module
from actors.gateway.logins import Logins
from sib.errors import AuthenticationError
from sib.limiter import KEYS_MAX, FailureLimiter


@pytest.fixture
def slept(monkeypatch):
    """What was slept, instead of sleeping."""
    delays = []

    async def sleep(delay_s):
        delays.append(delay_s)

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    return delays


def wrong():
    raise AuthenticationError("wrong")


async def fail(logins, address="1.2.3.4", user="ana"):
    with pytest.raises(AuthenticationError):
        await logins.check(address, user, wrong)


async def test_failures_over_the_limit_come_later_and_later(slept):
    logins = Logins(asyncio.Semaphore(2), 3, 1.0)
    for _ in range(9):
        await fail(logins)
    assert slept == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert (logins.failures, logins.delays) == (9, 6)


async def test_right_ones_and_others_are_not_delayed(slept):
    logins = Logins(asyncio.Semaphore(2), 1, 5.0)
    for _ in range(3):
        await fail(logins)
    slept.clear()
    assert await logins.check("1.2.3.4", "ana", lambda: "ana") == "ana"
    await fail(logins, user="eva")
    await fail(logins, address="4.3.2.1")
    assert slept == []


async def test_what_waits_keeps_nobody_from_being_checked():
    logins = Logins(asyncio.Semaphore(1), 0, 60.0)
    waiting = [asyncio.ensure_future(logins.check("1.2.3.4", "ana", wrong)) for _ in range(5)]
    assert await asyncio.wait_for(logins.check("1.2.3.4", "ana", lambda: "in"), 5) == "in"
    for each in waiting:
        each.cancel()


def test_who_failed_is_remembered_within_bounds():
    limiter = FailureLimiter(1, 5)
    for number in range(KEYS_MAX + 10):
        limiter.failed(f"10.0.0.{number}", "x" * 10_000, 0.0)
    assert len(limiter._failures) == KEYS_MAX
    assert all(len(kp) <= 200 for _, kp in list(limiter._failures)[:10])
