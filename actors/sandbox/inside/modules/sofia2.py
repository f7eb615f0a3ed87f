"""``import sofia2`` in a KP that the platform runs: the KP's client over the channel of its sandbox, without a token.

    async with sofia2.KP() as kp:
        await kp.insert("Thermostat", {"Thermostat": {"celsius": 21.5}})
        async with kp.subscribe("Thermostat", "{Thermostat.celsius: {$gt: 25}}") as hot:
            async for instance in hot:
                print(instance)

The same methods as the client outside, with the standard library alone. What is refused is raised as ``RefusedError``. The
platform checks every call: this module is a convenience and protects nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import uuid
from collections import deque
from datetime import date, datetime, timezone

TYPE_CHECKING = False  # importing typing costs every start 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Instance = dict[str, Any] | str

CHANNEL = 3
FRAME_BYTES_MAX = 1024 * 1024
CALLS_MAX = 48
"""Calls without an answer; further ones wait. The platform reads no more than 64 at once."""
QUEUE_MAX = 10_000
"""Instances of one subscription that wait to be taken; beyond it the oldest is dropped and counted."""
TIMEOUT_S = 35.0
_HEADER = struct.Struct(">I")
_READ_BYTES = 256 * 1024


class RefusedError(Exception):
    """The platform refused or failed: ``code`` is stable, the sentence is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code, self.message = code, message

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class ConnectionLostError(RefusedError):
    """The platform is gone: a write may or may not be stored."""


class RequestTimeoutError(RefusedError):
    """No answer in time: a write may or may not be stored."""


class KP:
    """The KP that this program is. Arguments are taken and not needed: the platform knows who this is."""

    def __init__(self, *_: object, timeout_s: float = TIMEOUT_S, **__: object) -> None:
        self.name: str | None = None
        self.instance: str | None = None
        self.session_key: str | None = None
        self._timeout_s = timeout_s
        self._line: _Line | None = None

    def __repr__(self) -> str:
        return f"KP({self.name}:{self.instance})"

    async def __aenter__(self) -> KP:
        await self.join()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    async def join(self) -> None:
        """Begin; ``async with`` does it."""
        if self._line is None:
            self._line = _Line.open()
            told = await self._call("join", {})
            self.name, self.instance, self.session_key = told["kp"], told["instance"], told["session_key"]

    async def leave(self) -> None:
        """End; ``async with`` does it. Idempotent."""
        line, self._line = self._line, None
        if line is not None:
            line.close()

    async def insert(self, ontology: str, instance: Instance) -> str:
        """Store an instance (a dict, or JSON text); returns its id once it is durable."""
        result: str = await self._call("insert", {"ontology": ontology, "instance": _plain(instance)})
        return result

    async def insert_many(self, ontology: str, instances: Iterable[Instance]) -> list[str]:
        """Store instances of one ontology, all or none; returns their ids."""
        items = [_plain(instance) for instance in instances]
        result: list[str] = await self._call("insert_many", {"ontology": ontology, "instances": items})
        return result

    async def query(
        self,
        text: str = "",
        ontology: str | None = None,
        *,
        type: str | None = None,
        params: dict[str, str] | None = None,
    ) -> Any:
        """Run a query (SQL-like, native, a criterion, or a predefined one's name): a list of dicts, or a count's number."""
        payload = {"text": text, "ontology": ontology, "type": type, "params": params}
        return await self._call("query", payload)

    async def update(
        self, ontology: str | None, query: str, instance: Instance | None = None, *, type: str | None = None
    ) -> list[str]:
        """Replace what matches by ``instance``, or run the updating statement; returns the ids."""
        given = None if instance is None else _plain(instance)
        result: list[str] = await self._call(
            "update", {"text": query, "ontology": ontology, "instance": given, "type": type}
        )
        return result

    async def delete(self, ontology: str | None, query: str, *, type: str | None = None) -> list[str]:
        """Delete what matches; returns the ids."""
        result: list[str] = await self._call("delete", {"text": query, "ontology": ontology, "type": type})
        return result

    async def secret(self, name: str) -> str:
        """A text that 'sofia2 kp secret set' has given to this KP."""
        result: str = await self._call("secret", {"name": name})
        return result

    def subscribe(
        self,
        ontology: str | None,
        query: str = "",
        ms_refresh: int = 0,
        *,
        type: str | None = None,
        params: dict[str, str] | None = None,
        queue_max: int = QUEUE_MAX,
    ) -> Subscription:
        """The instances that match, as they are stored or changed. Use it with ``async with``, or iterate."""
        payload = {"text": query, "ontology": ontology, "ms_refresh": ms_refresh, "type": type, "params": params}
        return Subscription(self, payload, queue_max)

    async def _call(self, method: str, payload: dict[str, Any]) -> Any:
        if self._line is None:
            raise ConnectionLostError("kp.connection_lost", "this KP has not joined: use 'async with sofia2.KP()'")
        try:
            return await asyncio.wait_for(self._line.call(method, payload), self._timeout_s)
        except TimeoutError:
            raise RequestTimeoutError("kp.time_out", f"no answer within {self._timeout_s:g} s") from None


class Subscription:
    """What a KP has asked to be told: an asynchronous iterator with a bounded queue; ``dropped`` counts what was lost."""

    def __init__(self, kp: KP, payload: dict[str, Any], queue_max: int) -> None:
        self.id, self.dropped = uuid.uuid4().hex, 0
        self._kp, self._payload, self._queue_max = kp, payload, queue_max
        self._queue: deque[Any] = deque()
        self._arrived = asyncio.Event()
        self._is_started = self._is_over = False

    async def __aenter__(self) -> Subscription:
        await self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Any:
        if not self._is_started:
            await self._begin()
        while not self._queue:
            if self._is_over:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._queue.popleft()

    async def _begin(self) -> None:
        self._is_started = True
        line = self._kp._line
        if line is not None:
            line.subscriptions[self.id] = self
        await self._kp._call("subscribe", {**self._payload, "id": self.id})

    async def close(self) -> None:
        """End it; whoever iterates comes to the end. Idempotent."""
        if self._is_over:
            return
        self.end()
        line = self._kp._line
        if line is not None and line.subscriptions.pop(self.id, None) is not None:
            await self._kp._call("unsubscribe", {"id": self.id})

    def put(self, instances: list[Any]) -> None:
        """Some were notified."""
        for instance in instances:
            if len(self._queue) >= self._queue_max:
                self._queue.popleft()
                self.dropped += 1
            self._queue.append(instance)
        self._arrived.set()

    def end(self) -> None:
        """Nothing comes any more; what waits can still be taken."""
        self._is_over = True
        self._arrived.set()


class _Line:
    """The channel on the event loop of this program; shared by its KPs."""

    present: _Line | None = None

    @classmethod
    def open(cls) -> _Line:
        loop = asyncio.get_running_loop()
        line = cls.present
        if line is None or line.loop is not loop:
            if line is not None:
                line.shut()
            line = cls.present = cls(loop)
        line.users += 1
        return line

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.users = loop, 0
        self.subscriptions: dict[str, Subscription] = {}
        self._buffer, self._out = bytearray(), bytearray()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._room = asyncio.Semaphore(CALLS_MAX)
        self._lost: ConnectionLostError | None = None
        os.set_blocking(CHANNEL, False)
        loop.add_reader(CHANNEL, self._read)

    def close(self) -> None:
        self.users -= 1
        if self.users == 0:
            self.shut()
            _Line.present = None

    def shut(self) -> None:
        if not self.loop.is_closed():
            self.loop.remove_reader(CHANNEL)
            self.loop.remove_writer(CHANNEL)
        for subscription in self.subscriptions.values():
            subscription.end()
        os.set_blocking(CHANNEL, True)

    async def call(self, method: str, payload: dict[str, Any]) -> Any:
        async with self._room:
            if self._lost is not None:
                raise self._lost
            self._number += 1
            number = self._number
            text = {"id": number, "call": method, "with": payload}
            body = json.dumps(
                text, ensure_ascii=False, allow_nan=False, default=_extended, separators=(",", ":")
            ).encode()
            if len(body) > FRAME_BYTES_MAX:
                raise RefusedError(
                    "kp.too_long", f"a call has at most {FRAME_BYTES_MAX} bytes; this one has {len(body)}"
                )
            answer = self._answers[number] = self.loop.create_future()
            try:
                self._send(_HEADER.pack(len(body)) + body)
                return await answer
            finally:
                if answer.done():
                    self._answers.pop(number, None)

    def _send(self, data: bytes) -> None:
        if not self._out:
            try:
                data = data[os.write(CHANNEL, data) :]
            except BlockingIOError:
                pass
            except OSError:
                self._lose()
            if not data:
                return
            self.loop.add_writer(CHANNEL, self._write)
        self._out += data

    def _write(self) -> None:
        try:
            del self._out[: os.write(CHANNEL, self._out)]
        except BlockingIOError:
            return
        except OSError:
            self._lose()
        if not self._out:
            self.loop.remove_writer(CHANNEL)

    def _read(self) -> None:
        try:
            data = os.read(CHANNEL, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        self._buffer += data
        begin = 0
        while len(self._buffer) - begin >= _HEADER.size:
            (size,) = _HEADER.unpack_from(self._buffer, begin)
            end = begin + _HEADER.size + size
            if len(self._buffer) < end:
                break
            self._take(json.loads(self._buffer[begin + _HEADER.size : end]))
            begin = end
        del self._buffer[:begin]

    def _take(self, message: dict[str, Any]) -> None:
        if "call" in message:
            payload = message.get("with") or {}
            subscription = self.subscriptions.get(payload.get("subscription", ""))
            if message["call"] == "indication" and subscription is not None:
                subscription.put(payload["instances"])
            return
        number: int = message.get("id", 0)
        answer = self._answers.get(number)
        if answer is None or answer.done():
            self._answers.pop(number, None)
        elif "error" in message:
            answer.set_exception(RefusedError(message["error"]["code"], message["error"]["message"]))
        else:
            answer.set_result(message.get("result"))

    def _lose(self) -> None:
        self._lost = ConnectionLostError("kp.connection_lost", "the platform is gone")
        self._out.clear()
        self.loop.remove_reader(CHANNEL)
        self.loop.remove_writer(CHANNEL)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(self._lost)
        for subscription in self.subscriptions.values():
            subscription.end()


def _plain(instance: Instance) -> Any:
    return instance if isinstance(instance, str) else dict(instance)


def _extended(value: object) -> dict[str, str]:
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=timezone.utc)  # noqa: UP017 - as old as 3.2
        text = moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]  # noqa: UP017
        return {"$date": f"{text}Z"}
    if isinstance(value, date):
        return {"$date": f"{value.isoformat()}T00:00:00.000Z"}
    raise TypeError(f"a {type(value).__name__} is no JSON value: {value!r}")
