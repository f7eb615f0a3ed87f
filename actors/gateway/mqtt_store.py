"""Persistent MQTT sessions, their queues and retained messages in a store: the port, one in memory, and the writer before it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from actors.gateway.mqtt_options import MqttStats
from sib.errors import StoreUnavailableError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A persistent session. ``state`` is plain JSON; ``left_at_s`` is epoch seconds, None while it is connected."""

    client_id: str
    state: dict[str, Any]
    expiry_s: int
    left_at_s: float | None


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message that waits for a client. ``properties`` is plain JSON; ``expires_at_s`` is in epoch seconds."""

    client_id: str
    number: int
    """Grows within a gateway; the queue's order."""
    topic: str
    payload: bytes
    qos: int
    is_retain: bool
    properties: list[list[Any]]
    expires_at_s: float | None


@dataclass(frozen=True, slots=True)
class StoredRetained:
    """A retained message; an empty payload takes it out. Of two with one topic the one with the higher ``stamp`` counts."""

    topic: str
    payload: bytes
    qos: int
    properties: list[list[Any]]
    expires_at_s: float | None
    stamp: int


class SessionsMovedError(Exception):
    """These clients' sessions are another gateway's by now: nothing of the call was written."""

    def __init__(self, client_ids: Sequence[str]) -> None:
        super().__init__(f"{len(client_ids)} sessions")
        self.client_ids = client_ids


class MqttSessionStore(Protocol):
    """Where persistent sessions outlive the process. Each call is durable when it returns, and idempotent.

    Several gateways may share what is stored; each session is held by one of them.
    """

    async def load_all(self) -> tuple[list[StoredSession], list[StoredMessage]]:
        """Everything that this gateway holds, messages of each client by number."""
        ...

    async def claim(self, client_ids: Sequence[str]) -> tuple[list[StoredSession], list[StoredMessage]]:
        """From now on this gateway holds these clients' sessions, whoever held them; returns those that exist."""
        ...

    async def save(self, sessions: Sequence[StoredSession]) -> None:
        """Create or replace.

        Raises:
            SessionsMovedError: Some are another gateway's.
        """
        ...

    async def delete(self, client_ids: Sequence[str]) -> None:
        """Take sessions out, with what waits for them. Unknown ones are no error."""
        ...

    async def enqueue(self, messages: Sequence[StoredMessage]) -> None:
        """Keep messages for clients that are away.

        Raises:
            SessionsMovedError: Some of their sessions are another gateway's.
        """
        ...

    async def dequeue(self, keys: Sequence[tuple[str, int]]) -> None:
        """Take messages out, by client id and number. Unknown ones are no error."""
        ...

    async def load_retained(self) -> list[StoredRetained]:
        """The retained messages of all gateways."""
        ...

    async def retain(self, changes: Sequence[StoredRetained]) -> None:
        """Keep or take out retained messages."""
        ...


class MemorySessionStore:
    """A store that lives as long as its object: for tests, and for a listener whose sessions need not last."""

    def __init__(self) -> None:
        self.sessions: dict[str, StoredSession] = {}
        self.messages: dict[tuple[str, int], StoredMessage] = {}
        self.retained: dict[str, StoredRetained] = {}

    async def load_all(self) -> tuple[list[StoredSession], list[StoredMessage]]:
        return list(self.sessions.values()), sorted(self.messages.values(), key=lambda message: message.number)

    async def claim(self, client_ids: Sequence[str]) -> tuple[list[StoredSession], list[StoredMessage]]:
        sessions, messages = await MemorySessionStore.load_all(self)
        wanted = set(client_ids)
        return (
            [session for session in sessions if session.client_id in wanted],
            [message for message in messages if message.client_id in wanted],
        )

    async def save(self, sessions: Sequence[StoredSession]) -> None:
        self.sessions.update((session.client_id, session) for session in sessions)

    async def delete(self, client_ids: Sequence[str]) -> None:
        gone = set(client_ids)
        for client_id in gone:
            self.sessions.pop(client_id, None)
        self.messages = {key: message for key, message in self.messages.items() if key[0] not in gone}

    async def enqueue(self, messages: Sequence[StoredMessage]) -> None:
        self.messages.update(((message.client_id, message.number), message) for message in messages)

    async def dequeue(self, keys: Sequence[tuple[str, int]]) -> None:
        for key in keys:
            self.messages.pop(key, None)

    async def load_retained(self) -> list[StoredRetained]:
        return list(self.retained.values())

    async def retain(self, changes: Sequence[StoredRetained]) -> None:
        for change in changes:
            if change.payload:
                self.retained[change.topic] = change
            else:
                self.retained.pop(change.topic, None)


class StoreWriter:
    """Puts changes into the store in the order in which they were asked for, many at a time, one call at a time.

    While a call runs, what comes next collects; neighbours of one kind then go together.
    """

    def __init__(
        self, store: MqttSessionStore, stats: MqttStats, moved: Callable[[Sequence[str]], None] = lambda _: None
    ) -> None:
        self._store = store
        self._stats = stats
        self._moved = moved
        """Told which sessions turned out to be another gateway's."""
        self._waiting: list[tuple[str, list[Any], asyncio.Future[Any] | None]] = []
        self._task: asyncio.Task[None] | None = None

    def save(self, client_id: str, snapshot: Callable[[], StoredSession]) -> asyncio.Future[None]:
        """Done when the session is stored; ``StoreUnavailableError`` when it could not be.

        The snapshot is taken when the write begins: many changes of one session become one write.
        """
        return self._ask("save", [(client_id, snapshot)])

    def delete(self, client_id: str) -> None:
        self._add("delete", [client_id], None)

    def enqueue(self, messages: list[StoredMessage]) -> asyncio.Future[None]:
        """Done when all messages are stored; ``StoreUnavailableError`` when they could not be."""
        return self._ask("enqueue", messages)

    def dequeue(self, client_id: str, number: int) -> None:
        self._add("dequeue", [(client_id, number)], None)

    def retain(self, change: StoredRetained) -> asyncio.Future[None]:
        """Done when the retained message is stored, or taken out; ``StoreUnavailableError`` when it could not be."""
        return self._ask("retain", [change])

    async def claim(self, client_id: str) -> tuple[StoredSession | None, list[StoredMessage]]:
        """Take a client's session over from whoever holds it; see ``MqttSessionStore.claim``. None = there is none.

        Raises:
            StoreUnavailableError: Retryable.
        """
        claimed: Any = await self._ask("claim", [client_id])
        found: tuple[StoredSession | None, list[StoredMessage]] = claimed.get(client_id, (None, []))
        return found

    async def settle(self) -> None:
        """Wait until everything asked for so far has been tried."""
        await self._ask("claim", [])

    async def drain(self) -> None:
        """Wait until nothing is left to be tried."""
        while self._task is not None:
            await asyncio.shield(self._task)

    def _ask(self, kind: str, items: list[Any]) -> asyncio.Future[Any]:
        done = asyncio.get_running_loop().create_future()
        # A failure that nobody waits for is in the log and the counters.
        done.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._add(kind, items, done)
        return done

    def _add(self, kind: str, items: list[Any], done: asyncio.Future[Any] | None) -> None:
        self._waiting.append((kind, items, done))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._write(*self._next_batch())
        finally:
            self._task = None

    def _next_batch(self) -> tuple[str, list[Any], list[asyncio.Future[Any]]]:
        kind = self._waiting[0][0]
        end = next((at for at, entry in enumerate(self._waiting) if entry[0] != kind), len(self._waiting))
        taken, self._waiting = self._waiting[:end], self._waiting[end:]
        items = [item for _, some, _ in taken for item in some]
        if kind == "save":
            items = [snapshot() for snapshot in dict(items).values()]
        return kind, items, [done for _, _, done in taken if done is not None]

    async def _write(self, kind: str, items: list[Any], waiting: list[asyncio.Future[Any]]) -> None:
        result: Any = None
        error: StoreUnavailableError | None = None
        try:
            result = await self._call(kind, items)
        except SessionsMovedError as moved:
            self._moved(moved.client_ids)
            error = StoreUnavailableError("the MQTT session is at another gateway by now; send it again")
        except Exception:
            self._stats.store_failures += 1
            log.exception("mqtt sessions could not be stored", extra={"operation": kind, "items": len(items)})
            error = StoreUnavailableError("the MQTT session could not be stored; send it again")
        for done in waiting:
            if done.done():
                continue
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)

    async def _call(self, kind: str, items: list[Any]) -> Any:
        if kind != "claim":
            await getattr(self._store, kind)(items)
            return None
        if not items:
            return {}
        sessions, messages = await self._store.claim(items)
        claimed: dict[str, tuple[StoredSession, list[StoredMessage]]] = {
            session.client_id: (session, []) for session in sessions
        }
        for message in messages:
            claimed[message.client_id][1].append(message)
        return claimed
