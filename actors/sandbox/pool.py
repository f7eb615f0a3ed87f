"""Children that are in their jail and wait, so that a program starts in well below a millisecond."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

from actors.sandbox.child import Child
from actors.sandbox.errors import SandboxStartError
from actors.sandbox.limits import Limits
from actors.sandbox.program import View
from actors.sandbox.sandbox import Sandbox

IMPORTS = ("inside.channel", "traceback", "datetime")
"""What nearly every program needs."""


class WarmPool:
    """Keeps ``size`` waiting children of one kind. Each is used once: nothing passes from one program to the next."""

    def __init__(
        self,
        sandbox: Sandbox,
        limits: Limits,
        *,
        size: int,
        views: Sequence[View] = (),
        imports: Sequence[str] = IMPORTS,
    ) -> None:
        self._sandbox, self._limits, self._size = sandbox, limits, size
        self._views, self._imports = tuple(views), tuple(imports)
        self._waiting: deque[Child] = deque()
        self._filling: asyncio.Task[None] | None = None
        self._is_closed = False

    async def fill(self) -> None:
        """Start what is missing, one after the other.

        Raises:
            SandboxStartError: a child could not be started.
        """
        while len(self._waiting) < self._size and not self._is_closed:
            child = await self._start()
            if self._is_closed:
                await child.close()
            else:
                self._waiting.append(child)

    async def take(self) -> Child:
        """A waiting child; a new one when none waits. It is the caller's, who closes it; another is started meanwhile.

        Raises:
            SandboxStartError: none waited and none could be started.
        """
        taken: Child | None = None
        while self._waiting and taken is None:
            child = self._waiting.popleft()
            taken = child if child.is_alive else None
        if self._filling is None or self._filling.done():
            self._filling = asyncio.get_running_loop().create_task(self._refill())
        return taken or await self._start()

    async def _refill(self) -> None:
        with contextlib.suppress(SandboxStartError):  # the next ``take`` starts one itself, and says why it cannot
            await self.fill()

    async def _start(self) -> Child:
        return await Child.start(self._sandbox, self._limits, views=self._views, imports=self._imports)

    async def close(self) -> None:
        """End those that wait. Idempotent."""
        self._is_closed = True
        if self._filling is not None:
            await asyncio.wait([self._filling])
        while self._waiting:
            await self._waiting.popleft().close()
