"""Outputs on their way out of a shard: each way at its own pace and in order, all together within one bound.

What waits here is kept with the state of the rules, so that a crash loses none: it goes on where it has not been yet.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from bson import json_util

from sib.cep.output import Output
from sib.errors import SibError

log = logging.getLogger("sofia2.cep")

WAITING_MAX = 10_000
"""Outputs that wait; beyond it no further events are taken until some have arrived."""
BATCH_MAX = 500
"""Outputs that one way takes at a time."""
RETRY_S = 0.2
RETRY_S_MAX = 5.0
TRIES = 6
"""So often a batch that fails is offered, with growing pauses; then each of it once more alone."""
_NAIVE = json_util.JSONOptions(tz_aware=False, json_mode=json_util.JSONMode.RELAXED)


class Delivered(NamedTuple):
    """One output on its way: the rule's owner, how many rules were at work before it, and the ontology that it comes from."""

    output: Output
    owner: str
    hops: int
    ontology: str


class Way(NamedTuple):
    """Where outputs go, one batch after the other: ``kind`` is ``ontology``, ``gateway`` or ``runner``.

    Scripts have a way for each stream, so that a slow one holds up no other stream.
    """

    kind: str
    name: str
    stream: str = ""


class _Entry:
    """One output and the ways that it has still to go."""

    __slots__ = ("item", "ways")

    def __init__(self, item: Delivered, ways: Iterable[Way]) -> None:
        self.item, self.ways = item, set(ways)


class Outbox:
    """What waits to be delivered. On the event loop of its actor.

    Args:
        send: brings a batch to the end of a way; returns when it is there. When it raises, whatever it is, the batch comes again.
        set_aside: told of an output that fails alone, too, and why: it does not get to the end of this way.
    """

    def __init__(
        self,
        send: Callable[[Way, Sequence[Delivered]], Awaitable[None]],
        set_aside: Callable[[Way, Delivered, Exception], Awaitable[None]],
    ) -> None:
        self._send, self._set_aside = send, set_aside
        self._entries: dict[_Entry, None] = {}
        self._lanes: dict[Way, deque[_Entry]] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self._room.set()
        self.delivered = 0
        self._dumped: tuple[int, int] = (0, 0)
        """How many waited when they were kept last, and how many had been delivered."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def has_room(self) -> bool:
        """Whether further outputs may be made."""
        return self._room.is_set()

    async def until_room(self) -> None:
        """Wait until further outputs may be made."""
        await self._room.wait()

    def put(self, item: Delivered, ways: Sequence[Way]) -> None:
        """Take an output; it is never refused, but see ``until_room``."""
        entry = _Entry(item, ways)
        self._entries[entry] = None
        for way in ways:
            lane = self._lanes.get(way)
            if lane is None:
                lane = self._lanes[way] = deque()
                self._work.add(task := asyncio.get_running_loop().create_task(self._deliver(way, lane)))
                task.add_done_callback(self._work.discard)
            lane.append(entry)
        if not ways:
            self._end(entry)
        if len(self._entries) >= WAITING_MAX:
            self._room.clear()

    def shed(self, way: Way, kept: int) -> int:
        """Let a way take no more than the oldest ``kept`` that wait for it (or its batch under way); how many it misses."""
        lane, count = self._lanes.get(way, deque()), 0
        while len(lane) > max(kept, BATCH_MAX):
            self._went(lane.pop(), way)
            count += 1
        return count

    async def _deliver(self, way: Way, lane: deque[_Entry]) -> None:
        while lane:
            batch = list(itertools.islice(lane, BATCH_MAX))
            if not await self._has_arrived(way, [entry.item for entry in batch]):
                for entry in batch:
                    await self._deliver_alone(way, entry.item)
            for _ in batch:
                self._went(lane.popleft(), way)
        del self._lanes[way]

    async def _has_arrived(self, way: Way, items: Sequence[Delivered]) -> bool:
        for number in range(TRIES):
            try:
                await self._send(way, items)
            except Exception as error:
                text = "%d outputs of CEP rules for %s fail, they are tried again: %s"
                log.warning(text, len(items), way.name, describe(error), exc_info=_unexpected(error))
                await asyncio.sleep(min(RETRY_S_MAX, RETRY_S * 2**number))
            else:
                return True
        return False

    async def _deliver_alone(self, way: Way, item: Delivered) -> None:
        try:
            await self._send(way, [item])
        except Exception as error:
            details = {"rule": str(item.output.rule), "way": way.name, "reason": describe(error)}
            text = "an output of a CEP rule is set aside, it does not get to %s"
            log.error(text, way.name, exc_info=_unexpected(error), extra={"code": "cep.output_set_aside", **details})
            await self._set_aside(way, item, error)

    def _went(self, entry: _Entry, way: Way) -> None:
        entry.ways.discard(way)
        if not entry.ways:
            self._end(entry)

    def _end(self, entry: _Entry) -> None:
        del self._entries[entry]
        self.delivered += 1
        if len(self._entries) < WAITING_MAX:
            self._room.set()

    # Kept with the state of the rules

    def dump(self) -> list[str]:
        """All that wait, in their order, each with the ways that it has still to go."""
        self._dumped = len(self), self.delivered
        return [json_util.dumps(_plain(entry), json_options=_NAIVE) for entry in self._entries]

    @property
    def is_ahead_of_dump(self) -> bool:
        """Whether something that was kept has arrived since, so that it would go twice after a crash."""
        return self._dumped[0] > 0 and self.delivered > self._dumped[1]

    def load(self, kept: Iterable[str]) -> None:
        """Go on with what ``dump`` gave."""
        for text in kept:
            fields = json_util.loads(text, json_options=_NAIVE)
            rule, stream, ts_ms, data, identity, repeat = fields["output"]
            output = Output(rule, stream, ts_ms, data, (identity[0], identity[1]), repeat)
            item = Delivered(output, fields["owner"], fields["hops"], fields["ontology"])
            self.put(item, [Way(*way) for way in fields["ways"]])
        self._dumped = len(self), self.delivered


def describe(error: Exception) -> str:
    """The sentence of a refusal; of anything else only its kind, as what it says is not for users."""
    return error.message if isinstance(error, SibError) else type(error).__name__


def _unexpected(error: Exception) -> Exception | None:
    return None if isinstance(error, SibError) else error


def _plain(entry: _Entry) -> dict[str, Any]:
    output, owner, hops, ontology = entry.item
    parts = [output.rule, output.stream, output.ts_ms, output.data, output.identity, output.repeat]
    return {"output": parts, "owner": owner, "hops": hops, "ontology": ontology, "ways": sorted(entry.ways)}
