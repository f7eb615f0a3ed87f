"""Instances that rules have just modified: the guard against rules that modify what makes them run.

What a rule inserts says in its contextData how many rules have been at work; what it modifies does not. So it is remembered
here until the change comes back through the feed.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

REMEMBERED_MAX = 100_000
"""Beyond it the oldest are forgotten; then a chain of rules may count from there again."""


class Touched:
    """How many rules have been at work on an instance that changed."""

    def __init__(self) -> None:
        self._hops: OrderedDict[tuple[str, Any], int] = OrderedDict()
        self._writing: dict[str, int] = {}
        self._ended = asyncio.Condition()

    @asynccontextmanager
    async def writing(self, ontology: str) -> AsyncIterator[None]:
        """While it is not known yet which instances of this ontology a rule modifies."""
        self._writing[ontology] = self._writing.get(ontology, 0) + 1
        try:
            yield
        finally:
            self._writing[ontology] -= 1
            if not self._writing[ontology]:
                del self._writing[ontology]
            async with self._ended:
                self._ended.notify_all()

    def note(self, ontology: str, ids: Iterable[Any], hops: int) -> None:
        """A rule has modified these; their changes will come."""
        for id_ in ids:
            self._hops[ontology, id_] = hops
            self._hops.move_to_end((ontology, id_))
        while len(self._hops) > REMEMBERED_MAX:
            self._hops.popitem(last=False)

    def take(self, ontology: str, id_: Any) -> int:
        """The rules that have been at work on an instance whose change has come; 0 if it was not a rule."""
        return self._hops.pop((ontology, id_), 0) if self._hops else 0

    async def settled(self, ontologies: Iterable[str]) -> None:
        """Wait until it is known which instances of these are being modified by rules."""
        waited = [name for name in ontologies if name in self._writing]
        if waited:
            async with self._ended:
                await self._ended.wait_for(lambda: not any(name in self._writing for name in waited))
