"""Users who say who they are by name and password: MQTT's CONNECT and HTTP's Basic authentication.

As with JOIN, only failures are slowed down: right credentials are never refused or delayed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from sib.errors import AuthenticationError
from sib.limiter import DELAY_S_FIRST, FailureLimiter

log = logging.getLogger("sofia2.gateway")

Result = TypeVar("Result")


class Logins:
    """Checks names and passwords in threads, a few at once, since each check takes long on purpose."""

    def __init__(self, proving: asyncio.Semaphore, failures_per_minute: int, delay_s_max: float) -> None:
        self._proving = proving
        self.limiter = FailureLimiter(failures_per_minute, delay_s_max)
        self.failures = self.delays = 0

    async def check(self, address: str, user: str, look: Callable[[], Result]) -> Result:
        """What ``look`` returns; after too many failures of one user from one address, its next failure comes late.

        Raises:
            AuthenticationError: ``look`` raised it.
        """
        try:
            async with self._proving:
                return await asyncio.to_thread(look)
        except AuthenticationError:
            self.failures += 1
            delay_s = self.limiter.failed(address, user, time.monotonic())
            if delay_s:
                self.delays += 1
                if delay_s <= DELAY_S_FIRST:
                    log.warning(
                        "too many failed logins as %r from %s: further ones are slowed down", user[:80], address
                    )
                await asyncio.sleep(delay_s)
            raise
