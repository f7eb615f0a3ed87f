"""A consumer's side of the feed of one partition: announcements in order, and how far they have been delivered."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from actors.feed import Announcement, Events

log = logging.getLogger("sofia2.feed")

PAUSES_S = (0.1, 1.0, 5.0)
"""Each item of a failed delivery is tried again alone after these; then it is set aside."""


class Inbox:
    """What one partition has announced, put back into its order; says how far all is delivered.

    ``apply`` gets the number of the change and the Indications of a gateway, or the Events of a watcher. What it fails over is
    given to it again, item by item, so that an item is handled at least once or set aside alone, counted and logged.
    """

    def __init__(self, apply: Callable[[int, list[Any]], Awaitable[None] | None]) -> None:
        self._apply = apply
        self._received: int | None = None
        self._held: dict[int, Announcement] = {}
        self._open: dict[int, int] = {}
        """Announcements being delivered: what was delivered before each, by a number of its own."""
        self._numbers = itertools.count()
        self._work: set[asyncio.Task[None]] = set()
        self.set_aside = 0
        """Items that failed every time."""

    @property
    def acked(self) -> int:
        """Every change up to this one is delivered."""
        return min(self._open.values()) if self._open else self._received or 0

    @property
    def received(self) -> int | None:
        """Every change up to this one has come here, if it concerns us; None before the first announcement."""
        return self._received

    def put(self, announcement: Announcement) -> None:
        """Take an announcement, in whatever order they come; the chain begins with a reset, what was received is dropped."""
        if announcement.is_reset:
            self._held = {before: held for before, held in self._held.items() if held.seq > announcement.seq}
            self._deliver(announcement)
        elif self._received is None or announcement.seq > self._received:
            self._held[announcement.previous] = announcement
        while self._received is not None and (following := self._held.pop(self._received, None)) is not None:
            self._deliver(following)

    def close(self) -> None:
        """End what is under way; it never counts as delivered."""
        for task in self._work:
            task.cancel()

    def _deliver(self, announcement: Announcement) -> None:
        # A page of the change log may begin before what was received last.
        before = self.acked if announcement.is_reset else announcement.previous
        self._received = announcement.seq
        items = announcement.indications or announcement.events
        pending = self._begin(announcement.seq, items) if items else None
        if pending is not None:
            number = next(self._numbers)
            self._open[number] = before
            self._work.add(task := asyncio.ensure_future(self._finish(number, announcement.seq, items, pending)))
            task.add_done_callback(self._work.discard)

    def _begin(self, seq: int, items: list[Any]) -> Awaitable[None] | None:
        try:
            return self._apply(seq, items)
        except Exception as error:
            return _raised(error)

    async def _finish(self, number: int, seq: int, items: Sequence[Any], pending: Awaitable[None]) -> None:
        """See a delivery through; one that is cancelled never counts as done."""
        try:
            await pending
        except Exception:
            log.exception("what was announced could not be delivered, it is tried again", extra={"code": "feed.failed"})
            for item in items:
                for one in item.alone() if isinstance(item, Events) else (item,):
                    await self._try_again(seq, one)
        del self._open[number]

    async def _try_again(self, seq: int, item: Any) -> None:
        for pause_s in PAUSES_S:
            await asyncio.sleep(pause_s)
            try:
                pending = self._apply(seq, [item])
                if pending is not None:
                    await pending
                return
            except Exception as error:
                failure = error
        self.set_aside += 1
        text = "a change in %s up to %d cannot be delivered and is set aside"
        log.error(text, item.ontology, seq, exc_info=failure, extra={"code": "feed.set_aside"})


async def _raised(error: Exception) -> None:
    raise error
