"""Order, retries, bounds and ends of callbacks, with a clock that the test moves and a poster that does as it is told."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import defaultdict

import pytest

from actors.gateway.callback_post import EndpointRefusedError
from actors.gateway.callbacks import GIVE_UP_S, RETRY_MAX_S, CallbackSender, Outcome


class Clock:
    """Time stands still until ``advance``; sleepers wake in order."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, delay_s: float) -> None:
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + delay_s, id(future), future))
        await future

    async def advance(self, seconds: float) -> None:
        end = self.now + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self.now, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)
            await settle()
        self.now = end


class Endpoints:
    """Answers each POST with the status set for its URL, and remembers it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.statuses: dict[str, int | Exception] = defaultdict(lambda: 200)
        self.posts: list[tuple[float, str, bytes]] = []
        self.gate: asyncio.Event | None = None
        self.at_once = self.at_once_max = 0

    async def post(self, endpoint: str, body: bytes) -> int:
        self.posts.append((self.clock.now, endpoint, body))
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        if self.gate is not None:
            await self.gate.wait()
        self.at_once -= 1
        status = self.statuses[endpoint]
        if isinstance(status, Exception):
            raise status
        return status

    def bodies(self, endpoint: str) -> list[bytes]:
        return [body for _, posted, body in self.posts if posted == endpoint]


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def endpoints(clock: Clock) -> Endpoints:
    return Endpoints(clock)


@pytest.fixture
async def sender(clock: Clock, endpoints: Endpoints):
    sender = CallbackSender(endpoints.post, clock=clock, sleep=clock.sleep, queue_items_max=5, posts_max=4)
    yield sender
    await sender.close()


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_is_delivered(sender, endpoints, status):
    endpoints.statuses["http://a"] = status
    assert await sender.deliver("s", "http://a", b"1") is Outcome.DELIVERED
    assert endpoints.bodies("http://a") == [b"1"]
    assert (sender.counts.delivered, sender.counts.waiting, sender.counts.waiting_bytes) == (1, 0, 0)


async def test_order_is_kept_across_retries(sender, endpoints, clock):
    endpoints.statuses["http://a"] = 500
    futures = [sender.deliver("s", "http://a", body) for body in (b"1", b"2", b"3")]
    await clock.advance(10)
    assert set(endpoints.bodies("http://a")) == {b"1"}
    endpoints.statuses["http://a"] = 200
    await clock.advance(60)
    assert [future.result() for future in futures] == [Outcome.DELIVERED] * 3
    delivered = endpoints.bodies("http://a")
    assert delivered[-3:] == [b"1", b"2", b"3"]


@pytest.mark.parametrize(
    "failure", [301, 302, 307, 404, 500, OSError("refused"), TimeoutError(), EndpointRefusedError("private")]
)
async def test_everything_else_is_tried_again(sender, endpoints, clock, failure):
    endpoints.statuses["http://a"] = failure
    future = sender.deliver("s", "http://a", b"1")
    await clock.advance(0)
    assert not future.done()
    endpoints.statuses["http://a"] = 200
    await clock.advance(2)
    assert future.result() is Outcome.DELIVERED
    assert sender.counts.failed_posts == 1
    assert sender.counts.refused_addresses == (1 if isinstance(failure, EndpointRefusedError) else 0)


async def test_back_off_doubles_to_a_minute_and_ends_after_an_hour(sender, endpoints, clock):
    endpoints.statuses["http://a"] = 500
    future = sender.deliver("s", "http://a", b"1")
    await clock.advance(GIVE_UP_S + RETRY_MAX_S)
    assert future.result() is Outcome.GIVEN_UP
    times = [at for at, _, _ in endpoints.posts]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    for number, gap in enumerate(gaps):
        longest = min(RETRY_MAX_S, 2.0**number)
        assert 0.8 * longest <= gap <= longest
    assert 60 < len(times) < 90
    assert times[-1] < GIVE_UP_S
    assert sender.counts.given_up == 1


async def test_a_dead_endpoint_is_reported_once_an_hour(clock, endpoints):
    dead: list[str] = []
    sender = CallbackSender(endpoints.post, on_dead=dead.append, clock=clock, sleep=clock.sleep)
    endpoints.statuses["http://a"] = 500
    sender.deliver("s", "http://a", b"x")
    await clock.advance(GIVE_UP_S - 1)
    assert dead == []
    await clock.advance(RETRY_MAX_S)
    assert dead == ["s"]
    for _ in range(4):
        sender.deliver("s", "http://a", b"x")
        await clock.advance(GIVE_UP_S / 4)
    await clock.advance(RETRY_MAX_S)  # the last attempt of the hour comes up to a back-off later
    assert dead == ["s", "s"]
    await sender.close()


async def test_a_subscription_may_be_stopped_when_its_endpoint_is_reported_dead(clock, endpoints):
    sender = CallbackSender(endpoints.post, on_dead=lambda id_: sender.stop(id_), clock=clock, sleep=clock.sleep)
    endpoints.statuses["http://a"] = 500
    futures = [sender.deliver("s", "http://a", b"x")]
    await clock.advance(GIVE_UP_S / 2)
    futures.append(sender.deliver("s", "http://a", b"y"))
    await clock.advance(GIVE_UP_S)
    assert [future.result() for future in futures] == [Outcome.GIVEN_UP, Outcome.STOPPED]
    await sender.close()


async def test_a_dead_endpoint_delays_nobody_else(sender, endpoints, clock):
    endpoints.statuses["http://dead"] = OSError("refused")
    for number in range(10):
        sender.deliver(f"dead-{number}", "http://dead", b"x")
    await clock.advance(0)
    assert await sender.deliver("s", "http://a", b"1") is Outcome.DELIVERED


async def test_a_full_queue_gives_up_its_oldest(sender, endpoints, clock, caplog):
    endpoints.statuses["http://a"] = 500
    futures = [sender.deliver("s", "http://a", b"%d" % number) for number in range(8)]
    await settle()
    assert [future.done() and future.result() for future in futures] == [Outcome.GIVEN_UP] * 3 + [False] * 5
    assert (sender.counts.dropped_full, sender.counts.waiting) == (3, 5)
    assert "queue full" in caplog.text
    endpoints.statuses["http://a"] = 200
    await clock.advance(5)
    assert [future.result() for future in futures[3:]] == [Outcome.DELIVERED] * 5


async def test_bytes_are_bounded_over_all_subscriptions(clock, endpoints):
    sender = CallbackSender(endpoints.post, clock=clock, sleep=clock.sleep, queue_bytes_max=100)
    endpoints.statuses["http://a"] = 500
    for number in range(10):
        sender.deliver("s", "http://a", b"x" * 30)
        sender.deliver(f"other-{number}", "http://a", b"x" * 5)
    assert sender.counts.waiting_bytes <= 100 + 10 * 5
    await sender.close()
    assert sender.counts.waiting_bytes == 0


async def test_a_post_of_an_item_that_was_dropped_meanwhile_settles_nothing_else(sender, endpoints, clock):
    endpoints.gate = asyncio.Event()
    futures = [sender.deliver("s", "http://a", b"%d" % number) for number in range(5)]
    await settle()
    futures.append(sender.deliver("s", "http://a", b"5"))
    assert futures[0].result() is Outcome.GIVEN_UP
    endpoints.gate.set()
    await settle()
    assert [future.result() for future in futures[1:]] == [Outcome.DELIVERED] * 5
    assert endpoints.bodies("http://a") == [b"0", b"1", b"2", b"3", b"4", b"5"]


async def test_posts_at_once_are_bounded(sender, endpoints):
    endpoints.gate = asyncio.Event()
    futures = [sender.deliver(f"s{number}", "http://a", b"x") for number in range(20)]
    await settle()
    assert endpoints.at_once == 4
    endpoints.gate.set()
    await asyncio.gather(*futures)
    assert endpoints.at_once_max == 4


async def test_stop_ends_what_waits(sender, endpoints, clock):
    endpoints.statuses["http://a"] = 500
    futures = [sender.deliver("s", "http://a", b"1"), sender.deliver("s", "http://a", b"2")]
    await clock.advance(0)
    posts = len(endpoints.posts)
    sender.stop("s")
    sender.stop("unknown")
    await clock.advance(GIVE_UP_S)
    assert [future.result() for future in futures] == [Outcome.STOPPED] * 2
    assert len(endpoints.posts) == posts
    assert sender.counts.waiting == 0


async def test_a_subscription_goes_on_after_stop_and_after_quiet(sender, endpoints, clock):
    sender.deliver("s", "http://a", b"1")
    await clock.advance(0)
    sender.stop("s")
    assert await sender.deliver("s", "http://a", b"2") is Outcome.DELIVERED
    assert await sender.deliver("s", "http://b", b"3") is Outcome.DELIVERED
    assert endpoints.bodies("http://b") == [b"3"]


async def test_the_log_shows_no_parameters_of_the_endpoint(sender, endpoints, clock, caplog):
    endpoints.statuses["http://a/x?key=s3cret"] = 500
    sender.deliver("s", "http://a/x?key=s3cret", b"1")
    await clock.advance(0)
    assert "answered 500" in caplog.text
    assert "s3cret" not in caplog.text
