"""The way to the query workers.

Queries work in Python, and those of one process share its interpreter: one that takes seconds slows down all beside it. So each
begins among the short ones, and what is not done within ``SHORT_S`` begins anew, with its whole time, in workers for long ones.
Nobody has to guess what a query costs, and a short one waits for short ones only.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
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
PATIENCE_FACTOR = 2
"""A query is answered within so many of its time limits, the wait for its turn included."""
RETRY_S = 0.05


class QueryClient:
    """Runs queries, one call each, because a slow query must not hold back the others of its batch."""

    def __init__(self, config: PlatformConfig) -> None:
        limits, topology = config.limits, config.topology
        at_once_max = limits.queries_at_once_max
        self._short = _Lane(topology.query_workers, at_once_max, at_once_max * WAITING_FACTOR, limits.write_timeout_s)
        self._long = _Lane(
            topology.long_query_workers or topology.query_workers,
            min(at_once_max, LONG_AT_ONCE_MAX),
            at_once_max * WAITING_FACTOR,
            limits.write_timeout_s,
        )

    async def run(self, method: str, *arguments: Any) -> Any:
        """Run a read on some worker; on another one, or the same one restarted, if that worker dies meanwhile.

        Args:
            method: of the worker.
            arguments: of the method; the last one is the time limit of its work, in seconds.

        Raises:
            TooManyQueriesError: as many wait already as may, or it had no turn in ``PATIENCE_FACTOR`` time limits.
            SibError: what the query met.
        """
        *others, time_limit_s = arguments
        patience_s = time_limit_s * PATIENCE_FACTOR
        try:
            return await self._short.run(patience_s, method, *others, min(time_limit_s, SHORT_S))
        except QueryTimeoutError:
            if time_limit_s <= SHORT_S:
                raise
        return await self._long.run(patience_s, method, *arguments)


class _Lane:
    """Workers, how many of our queries work there at once, and how many wait or work."""

    def __init__(self, workers: Sequence[str], at_once_max: int, waiting_max: int, give_up_s: float) -> None:
        self._workers = itertools.cycle([Ref(name) for name in workers])
        self._running = asyncio.Semaphore(at_once_max)
        self._at_once_max, self._waiting_max, self._give_up_s = at_once_max, waiting_max, give_up_s
        self._waiting = 0

    async def run(self, patience_s: float, method: str, *arguments: Any) -> Any:
        if self._waiting >= self._waiting_max:
            raise TooManyQueriesError(f"{self._at_once_max} queries run and as many wait as may: ask again later")
        self._waiting += 1
        try:
            async with asyncio.timeout(patience_s), self._running:
                return await self._call(method, *arguments)
        except TimeoutError:
            raise TooManyQueriesError(f"the query had no turn for {patience_s:g} s: ask again later") from None
        finally:
            self._waiting -= 1

    async def _call(self, method: str, *arguments: Any) -> Any:
        began = asyncio.get_running_loop().time()
        while True:
            try:
                return await next(self._workers).call(method, *arguments)
            except ActorGoneError:
                if asyncio.get_running_loop().time() - began > self._give_up_s:
                    raise
                await asyncio.sleep(RETRY_S)
