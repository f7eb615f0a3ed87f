"""The way to the query workers.

Queries work in Python, and those of one process share its interpreter: one that takes seconds slows down all beside it. So each
begins among the short ones, and what is not done within ``SHORT_S`` begins anew, with its whole time, in workers for long ones.
Nobody has to guess what a query costs, and a short one waits for short ones only. With long ones a user leaves places to others.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from actors.config import PlatformConfig
from actors.runtime import ActorGoneError, Ref
from sib.errors import QueryTimeoutError, TooManyQueriesError

SHORT_S = 0.1
"""How long a query may work among the short ones."""
LONG_AT_ONCE_MAX = 4
"""Long queries of one gateway at work; they share one interpreter, so that more at once would not be done sooner."""
WAITING_FACTOR = 4
"""Queries of one gateway that wait or work, short ones and long ones, for each of ``limits.queries_at_once_max``."""
OTHERS_SHARE = 4
"""Of so many places for long queries, at work or waiting, a user leaves one to others (at least one of all, if there are two)."""
PATIENCE_FACTOR = 2
"""A query is answered within so many of its time limits, the wait for its turn included."""
RETRY_S = 0.05


class NoAnswerError(QueryTimeoutError):
    """No worker answered in time, neither with a result nor that it has stopped: it is overloaded, or it hangs."""

    status, is_retryable = 503, True


class QueryClient:
    """Runs queries, one call each, because a slow query must not hold back the others of its batch."""

    def __init__(self, config: PlatformConfig) -> None:
        limits, topology = config.limits, config.topology
        at_once_max = limits.queries_at_once_max
        long_max, waiting_max = min(at_once_max, LONG_AT_ONCE_MAX), at_once_max * WAITING_FACTOR
        self._short = _Lane(topology.query_workers, _Places(at_once_max, waiting_max), limits.write_timeout_s)
        self._long = _Lane(
            topology.long_query_workers or topology.query_workers,
            _Places(long_max, waiting_max),
            limits.write_timeout_s,
        )
        self._of_user = partial(_Places, _left(long_max), _left(waiting_max))
        self._users: dict[str, _Places] = {}
        """Those who have long queries now."""

    async def run(self, method: str, *arguments: Any, user: str = "") -> Any:
        """Run a read on some worker; on another one, or the same one restarted, if that worker dies meanwhile.

        Args:
            method: of the worker.
            arguments: of the method; the last one is the time limit of its work, in seconds.
            user: who asks; "" is the platform itself.

        Raises:
            TooManyQueriesError: as many wait already as may, of all or of this user, or it had no turn in ``PATIENCE_FACTOR``
                time limits.
            NoAnswerError: it had its turn, but in that time no worker answered.
            SibError: what the query met.
        """
        *others, time_limit_s = arguments
        patience_s = time_limit_s * PATIENCE_FACTOR
        try:
            return await self._short.run(_now_s() + patience_s, method, *others, min(time_limit_s, SHORT_S))
        except QueryTimeoutError as error:
            if time_limit_s <= SHORT_S or isinstance(error, NoAnswerError):
                raise
        until_s = _now_s() + patience_s
        own = self._users.setdefault(user, self._of_user())
        try:
            async with own.one(until_s, f" of the user {user}" if user else " of the platform"):
                return await self._long.run(until_s, method, *arguments)
        finally:
            if not own.taken:
                self._users.pop(user, None)


class _Places:
    """How many queries work at once, and how many wait or work."""

    def __init__(self, at_once_max: int, taken_max: int) -> None:
        self._running = asyncio.Semaphore(at_once_max)
        self._at_once_max, self._taken_max = at_once_max, taken_max
        self.taken = 0

    @asynccontextmanager
    async def one(self, until_s: float, of_whom: str = "") -> AsyncIterator[None]:
        """Wait for a place, at most until then."""
        if self.taken >= self._taken_max:
            raise TooManyQueriesError(
                f"as many queries{of_whom} run ({self._at_once_max}) and wait as may: ask again later"
            )
        self.taken += 1
        try:
            try:
                async with asyncio.timeout_at(until_s):
                    await self._running.acquire()
            except TimeoutError:
                raise TooManyQueriesError("the query had no turn in its time: ask again later") from None
            try:
                yield
            finally:
                self._running.release()
        finally:
            self.taken -= 1


class _Lane:
    """Workers, and the places that we have there."""

    def __init__(self, workers: Sequence[str], places: _Places, give_up_s: float) -> None:
        self._workers = itertools.cycle([Ref(name) for name in workers])
        self._places, self._give_up_s = places, give_up_s

    async def run(self, until_s: float, method: str, *arguments: Any) -> Any:
        async with self._places.one(until_s):
            try:
                async with asyncio.timeout_at(until_s):
                    return await self._call(method, *arguments)
            except TimeoutError:
                raise NoAnswerError("the query was at work, but no answer came in its time: ask again later") from None

    async def _call(self, method: str, *arguments: Any) -> Any:
        began = _now_s()
        while True:
            try:
                return await next(self._workers).call(method, *arguments)
            except ActorGoneError:
                if _now_s() - began > self._give_up_s:
                    raise
                await asyncio.sleep(RETRY_S)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _left(places: int) -> int:
    """What one user may have of so many places."""
    return max(1, places - max(1, places // OTHERS_SHARE))
