"""The way to the query workers: short queries are not held up by long ones, and every wait has an end."""

import asyncio

import pytest

from actors import query_client as module
from actors.config import Limits, PlatformConfig, Topology
from actors.query_client import LONG_AT_ONCE_MAX, SHORT_S, NoAnswerError, QueryClient
from actors.runtime import ActorGoneError
from sib.errors import QueryTimeoutError, TooManyQueriesError

THREADS = 8
TIME_LIMIT_S = 30.0


class Workers:
    """Stands for ``Ref``: each worker has ``THREADS``; a query is as long as its name says, and "gone" ends its worker once."""

    def __init__(self):
        self.calls = []
        self.rooms = {}
        self.has_gone = False
        self.at_work = 0
        self.long_done = asyncio.Event()

    def ref(self, name):
        room = self.rooms.setdefault(name, asyncio.Semaphore(THREADS))

        class Ref:
            async def call(_, method, query, time_limit_s):
                self.calls.append((name, query, time_limit_s))
                async with room:
                    return await self.work(query, time_limit_s)

        return Ref()

    async def work(self, query, time_limit_s):
        if query == "gone" and not self.has_gone:
            self.has_gone = True
            raise ActorGoneError("killed")
        if query == "long":
            if time_limit_s <= SHORT_S:
                raise QueryTimeoutError("too long")
            self.at_work += 1
            await self.long_done.wait()
        if query == "hung":
            await asyncio.Event().wait()
        return query


@pytest.fixture
async def workers(monkeypatch):
    workers = Workers()
    monkeypatch.setattr(module, "Ref", workers.ref)
    return workers


def client(*, at_once_max=64):
    topology = Topology((), (), (), (), ("short-0",), long_query_workers=("long-0",))
    limits = Limits(queries_at_once_max=at_once_max)
    return QueryClient(PlatformConfig("", "", "", topology, (), limits=limits))


async def turns():
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_is_not_done_in_a_short_time_begins_anew_among_the_long_ones(workers):
    workers.long_done.set()
    assert await client().run("run", "long", TIME_LIMIT_S) == "long"
    assert workers.calls == [("short-0", "long", SHORT_S), ("long-0", "long", TIME_LIMIT_S)]


async def test_short_queries_are_answered_while_long_ones_fill_their_workers(workers):
    queries = client()
    long = [asyncio.create_task(queries.run("run", "long", TIME_LIMIT_S, user=f"u{n}")) for n in range(100)]
    await turns()
    assert [await queries.run("run", f"short {number}", TIME_LIMIT_S) for number in range(100)]
    assert not any(task.done() for task in long)
    assert workers.at_work == LONG_AT_ONCE_MAX
    workers.long_done.set()
    assert set(await asyncio.gather(*long)) == {"long"}


async def test_a_limit_below_the_short_time_is_the_querys_own(workers):
    with pytest.raises(QueryTimeoutError):
        await client().run("run", "long", SHORT_S / 2)
    assert workers.calls == [("short-0", "long", SHORT_S / 2)]


async def test_as_many_wait_as_may(workers):
    queries = client(at_once_max=2)
    waiting = [asyncio.create_task(queries.run("run", "long", TIME_LIMIT_S, user=f"u{n}")) for n in range(8)]
    await turns()
    with pytest.raises(TooManyQueriesError):
        await queries.run("run", "long", TIME_LIMIT_S)
    assert await queries.run("run", "short", TIME_LIMIT_S) == "short"
    workers.long_done.set()
    await asyncio.gather(*waiting)
    assert await queries.run("run", "long", TIME_LIMIT_S) == "long"


async def test_one_user_leaves_a_place_for_long_queries_to_others(workers):
    queries = client()
    greedy = [asyncio.create_task(queries.run("run", "long", TIME_LIMIT_S, user="greedy")) for _ in range(100)]
    await turns()
    assert workers.at_work == LONG_AT_ONCE_MAX - 1
    other = asyncio.create_task(queries.run("run", "long", TIME_LIMIT_S, user="other"))
    await turns()
    assert workers.at_work == LONG_AT_ONCE_MAX
    workers.long_done.set()
    assert set(await asyncio.gather(other, *greedy)) == {"long"}
    assert not queries._users, "who has nothing there is not remembered"


async def test_one_user_does_not_wait_in_all_places(workers):
    queries = client(at_once_max=2)
    greedy = [asyncio.create_task(queries.run("run", "long", TIME_LIMIT_S, user="greedy")) for _ in range(6)]
    await turns()
    with pytest.raises(TooManyQueriesError, match="as many queries of the user greedy run"):
        await queries.run("run", "long", TIME_LIMIT_S, user="greedy")
    other = asyncio.create_task(queries.run("run", "long", TIME_LIMIT_S, user="other"))
    await turns()
    assert not other.done()
    workers.long_done.set()
    await asyncio.gather(other, *greedy)


@pytest.mark.parametrize("query", ["hung", "long"])
async def test_a_wait_for_a_turn_has_an_end(workers, query):
    """Also behind a worker that does not answer."""
    queries = client(at_once_max=1)
    first = asyncio.create_task(queries.run("run", query, TIME_LIMIT_S))
    await turns()
    with pytest.raises(TooManyQueriesError, match="no turn"):
        await queries.run("run", query, SHORT_S * 1.1)
    workers.long_done.set()
    first.cancel()


async def test_a_worker_that_does_not_answer_is_not_waited_for_and_not_called_a_wait_for_a_turn(workers):
    with pytest.raises(NoAnswerError, match="no answer"):
        await client().run("run", "hung", SHORT_S * 1.1)
    assert len(workers.calls) == 1, "what hangs among the short ones is not asked among the long ones, too"


async def test_a_query_whose_worker_dies_is_asked_again(workers):
    assert await client().run("run", "gone", TIME_LIMIT_S) == "gone"
    assert [query for _, query, _ in workers.calls] == ["gone", "gone"]
