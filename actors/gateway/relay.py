"""GatewayRelay: the name under which other actors reach a gateway that is no actor of ours, such as a Ray Serve replica.

What they call is kept here until the gateway takes it (it always has one ``take`` waiting); what needs an answer waits for it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import Any

from actors.config import PlatformConfig
from actors.feed import Announcement
from sib.errors import OverloadedError

CALLS_MAX = 10_000
"""Calls that wait for the gateway; at the bound announcements are dropped: the change log brings them again."""
TAKE_S = 10.0
ANSWER_S = 5.0

Call = tuple[int | None, str, tuple[Any, ...]]


class GatewayRelay:
    """An async actor with the methods of a gateway actor, and ``take`` and ``give`` for the gateway behind it."""

    def __init__(self, name: str, config: PlatformConfig) -> None:
        self._name = name
        self._calls: list[Call] = []
        self._has_calls = asyncio.Event()
        self._attached = asyncio.Event()
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[Any]] = {}

    async def ready(self) -> None:
        """Returns when a gateway has attached itself."""
        await self._attached.wait()

    async def take(self) -> list[Call]:
        """What was called since, as (number to ``give`` the answer for or None, method, arguments); waits for something."""
        self._attached.set()
        try:
            await asyncio.wait_for(self._has_calls.wait(), TAKE_S)
        except TimeoutError:
            return []
        calls, self._calls = self._calls, []
        self._has_calls.clear()
        return calls

    async def give(self, number: int, result: Any) -> None:
        future = self._answers.pop(number, None)
        if future is not None and not future.done():
            future.set_result(result)

    def _put(self, number: int | None, method: str, *arguments: Any) -> None:
        if len(self._calls) >= CALLS_MAX:
            if number is not None:
                raise OverloadedError(f"the gateway {self._name} does not answer")
            return
        self._calls.append((number, method, arguments))
        self._has_calls.set()

    async def _ask(self, method: str) -> Any:
        number = next(self._numbers)
        future = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            self._put(number, method)
            return await asyncio.wait_for(future, ANSWER_S)
        except TimeoutError:
            raise OverloadedError(f"the gateway {self._name} does not answer") from None
        finally:
            self._answers.pop(number, None)

    async def indicate(self, partition: str, announcement: Announcement) -> None:
        self._put(None, "indicate", partition, announcement)

    async def cep_outputs(self, outputs: list[dict[str, Any]]) -> None:
        self._put(None, "cep_outputs", outputs)

    async def forget(self, session_keys: list[str]) -> None:
        self._put(None, "forget", session_keys)

    async def moved(self, session_keys: list[str]) -> None:
        self._put(None, "moved", session_keys)

    async def end_subscription(self, subscription_id: str) -> None:
        self._put(None, "end_subscription", subscription_id)

    async def command(
        self, kp: str | None, instance: str | None, command_type: str | None, args: dict[str, Any]
    ) -> None:
        self._put(None, "command", kp, instance, command_type, args)

    async def reload(self) -> int:
        return int(await self._ask("reload"))

    async def samples(self) -> Any:
        return await self._ask("samples")

    async def stats(self) -> dict[str, Any]:
        return {**await self._ask("stats"), "relay_pid": os.getpid()}

    async def stop(self) -> None:
        """Nothing listens here."""
