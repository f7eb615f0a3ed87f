"""A consumer's side of the feed of one partition: announcements in order, and how far they have been delivered."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from actors.feed import Announcement


class Inbox:
    """What one partition has announced, put back into its order; says how far all is delivered.

    ``apply`` gets the number of the change and the Indications of a gateway, or the Events of a watcher.
    """

    def __init__(self, apply: Callable[[int, list[Any]], Awaitable[None] | None]) -> None:
        self._apply = apply
        self._received: int | None = None
        self._held: dict[int, Announcement] = {}
        self._open: dict[int, int] = {}
        """Announcements being delivered: what was delivered before each, by a number of its own."""
        self._numbers = itertools.count()

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

    def _deliver(self, announcement: Announcement) -> None:
        # A page of the change log may begin before what was received last.
        before = self.acked if announcement.is_reset else announcement.previous
        self._received = announcement.seq
        items = announcement.indications or announcement.events
        pending = self._apply(announcement.seq, items) if items else None
        if pending is not None:
            number = next(self._numbers)
            self._open[number] = before
            asyncio.ensure_future(pending).add_done_callback(lambda _: self._open.pop(number))
