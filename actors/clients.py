"""A gateway's ways to the actors that write: batches to partitions, requests to session shards.

Invariant: what is settled here was decided there. A write is sent again with the same number until it is decided or
``write_timeout_s`` is over; then it is settled with :class:`StoreUnavailableError` and nobody may call it stored.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from actors.config import PlatformConfig
from actors.feed import Announcement
from actors.runtime import Ref
from actors.window import SendWindow
from actors.writes import WRITE_OVERHEAD_BYTES, Outcome, WriteBatch
from sib.errors import SibError


class Write(Protocol):
    """One write on its way to a partition. It is settled exactly once, by one of the three methods."""

    kind: int
    session_key: str
    ontology: str
    data: bytes

    @property
    def size_bytes(self) -> int: ...

    @property
    def context(self) -> Mapping[str, Any]:
        """ContextData of its session, but for the timestamp."""

    def stored(self, id_hex: bytes) -> None:
        """An INSERT is durable; its id as 24 hexadecimal digits."""

    def done(self, ids: list[Any]) -> None:
        """Another write is durable; the affected ids."""

    def refused(self, error: SibError) -> None:
        """Decided against, or (StoreUnavailableError) not decided in time."""


class FutureWrite:
    """A write that somebody awaits."""

    __slots__ = ("context", "data", "future", "kind", "ontology", "session_key")

    def __init__(self, kind: int, session_key: str, ontology: str, data: bytes, context: Mapping[str, Any]) -> None:
        self.context = context
        self.kind, self.session_key, self.ontology, self.data = kind, session_key, ontology, data
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @property
    def size_bytes(self) -> int:
        return len(self.data) + WRITE_OVERHEAD_BYTES

    def stored(self, id_hex: bytes) -> None:
        if not self.future.done():
            self.future.set_result(id_hex)

    def done(self, ids: list[Any]) -> None:
        if not self.future.done():
            self.future.set_result(ids)

    def refused(self, error: SibError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class PartitionClient:
    """The way to one partition. ``announced`` gets what it says of changes; ``settled`` runs after each batch's answers."""

    def __init__(
        self,
        name: str,
        gateway: str,
        epoch: str,
        config: PlatformConfig,
        acked: Callable[[], int],
        received: Callable[[], int | None],
        announced: Callable[[Announcement], None],
        settled: Callable[[], None],
        drained: Callable[[], None],
        took: Callable[[str, float, int], None],
    ) -> None:
        self._ref = Ref(name)
        self._gateway, self._epoch = gateway, epoch
        self._acked, self._received, self._announced, self._settled = acked, received, announced, settled
        self._took = took
        self._known: set[str] = set()
        self.window: SendWindow[Write] = SendWindow(
            self._send, self._fail, give_up_s=config.limits.write_timeout_s, drained=drained
        )

    def forget(self, session_key: str) -> None:
        self._known.discard(session_key)

    async def _send(self, number: int, writes: Sequence[Write]) -> None:
        keys = [write.session_key for write in writes]
        batch = WriteBatch(
            bytes([write.kind for write in writes]),
            keys,
            [write.ontology for write in writes],
            [write.data for write in writes],
        )
        began = time.perf_counter()
        try:
            outcome: Outcome | None = None
            while outcome is None:
                known = self._known
                contexts = {write.session_key: write.context for write in writes if write.session_key not in known}
                outcome = await self._ref.call(
                    "write", self._gateway, self._epoch, number, self._acked(), contexts or None, batch
                )
                if outcome is None:
                    self._known.clear()
                else:
                    self._known.update(contexts)
        except Exception:
            self._known.clear()
            raise
        self._settle(writes, outcome)
        self._took("WRITE", time.perf_counter() - began, len(writes))

    def _settle(self, writes: Sequence[Write], outcome: Outcome) -> None:
        machine, runs, failures, results, announcement = outcome
        random = machine.hex().encode()
        for first, positions in runs:
            number = first
            for position in range(len(writes)) if positions is None else positions:
                if failures and position in failures:
                    continue
                writes[position].stored(b"%08x%b%06x" % (number >> 24, random, number & 0xFFFFFF))
                number += 1
        for position, error in failures.items():
            writes[position].refused(error)
        for position, ids in results.items():
            writes[position].done(ids)
        self._settled()
        if announcement is not None:
            self._announced(announcement)

    def _fail(self, writes: Sequence[Write], error: SibError) -> None:
        for write in writes:
            write.refused(error)
        self._settled()

    async def heartbeat(self) -> bool:
        """Tell what was delivered; returns True while there is more of the change log to read."""
        told = self._gateway, self._epoch, self._acked(), self._received()
        announcement = await self._ref.call("heartbeat", *told)
        if announcement is None:
            return False
        self._announced(announcement)
        return True


class _Request:
    __slots__ = ("arguments", "future", "kind")
    size_bytes = 300

    def __init__(self, kind: str, arguments: tuple[Any, ...]) -> None:
        self.kind, self.arguments = kind, arguments
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()


class SessionClient:
    """The way to the session shards: requests are batched per shard."""

    def __init__(self, gateway: str, config: PlatformConfig) -> None:
        self._gateway, self._topology = gateway, config.topology
        self._windows = {
            shard: SendWindow(self._sender(shard), self._fail, give_up_s=config.limits.write_timeout_s)
            for shard in config.topology.session_shards
        }

    async def request(self, session_key: str, kind: str, *arguments: Any) -> Any:
        """Ask the shard of a session key (or of any key that spreads the load).

        Raises:
            SibError: What the shard refused with, or StoreUnavailableError when it could not decide in time.
        """
        request = _Request(kind, arguments)
        self._windows[self._topology.shard_of(session_key)].add(request)
        return await request.future

    def _sender(self, shard: str) -> Any:
        ref = Ref(shard)

        async def send(number: int, requests: Sequence[_Request]) -> None:
            answers = await ref.call("handle", self._gateway, [(r.kind, r.arguments) for r in requests])
            for request, answer in zip(requests, answers, strict=True):
                if request.future.done():
                    continue
                if isinstance(answer, SibError):
                    request.future.set_exception(answer)
                else:
                    request.future.set_result(answer)

        return send

    @staticmethod
    def _fail(requests: Sequence[_Request], error: SibError) -> None:
        for request in requests:
            if not request.future.done():
                request.future.set_exception(error)
