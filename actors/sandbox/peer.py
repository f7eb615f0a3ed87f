"""The supervisor's end of a channel: calls in both directions, and bounds on all that a child can make it hold.

Invariants: what comes is checked before it is believed; held for a child are at most one frame, ``CALLS_IN_FLIGHT_MAX`` calls and
about ``OUTGOING_BYTES_MAX`` of answers. At a bound nothing more is read, so the child waits in its own write.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from actors.sandbox.errors import ProgramError
from actors.sandbox.exits import Reason
from actors.sandbox.frames import ForgedFrameError, FrameError, FrameReader, check_call, encode
from actors.sandbox.pacing import TokenBucket
from sib.errors import SibError

READ_BYTES = 256 * 1024
CALLS_IN_FLIGHT_MAX = 64
"""Calls of the child that are being carried out; the next ones wait in the socket."""
OUTGOING_BYTES_MAX = 4 * 1024 * 1024
"""Answers that wait because the child does not read; beyond it no call of it is read, and ``drained`` waits."""
STALLED_S = 30.0
"""A child that reads nothing for so long, while something waits for it, is at fault."""

CallHandler = Callable[[str, Any], Awaitable[Any] | Any]
"""Carries out a call of the child: method and payload to a JSON value, directly or later. A ``SibError`` is told to the child."""
FaultHandler = Callable[[Reason, str], None]


class Peer:
    """A child's messages. The first one goes to ``on_first``; ``on_fault`` is told why the child must be ended."""

    def __init__(
        self,
        channel: socket.socket,
        *,
        calls_per_s: float,
        on_first: Callable[[dict[str, Any]], None],
        on_call: CallHandler,
        on_fault: FaultHandler,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel, self._reader, self._outgoing = channel, FrameReader(), bytearray()
        self._bucket = TokenBucket(calls_per_s, calls_per_s, self._loop.time)
        self._on_first: Callable[[dict[str, Any]], None] | None = on_first
        self.on_call, self._on_fault = on_call, on_fault
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._next_id = 0
        self._is_reading = self._is_closed = False
        self._pace: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()
        self._room.set()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        """Nothing more comes: the child has closed its end, or we have."""
        self._resume()

    def ask(self, method: str, payload: Any) -> asyncio.Future[Any]:
        """Send a call; the future gets its result, or ``ProgramError``.

        Raises:
            FrameError: the payload is longer than a frame may be. Nothing was sent.
        """
        self._next_id += 1
        message = encode({"id": self._next_id, "call": method, "with": payload})
        answer = self._answers[self._next_id] = self._loop.create_future()
        self.write(message)
        return answer  # one that nobody waits for any more stays until the child answers

    def tell(self, method: str, payload: Any) -> None:
        """Send a notice.

        Raises:
            FrameError: as ``ask``.
        """
        self.write(encode({"call": method, "with": payload}))

    async def drained(self) -> None:
        """Wait while too much waits for the child."""
        await self._room.wait()

    def close(self) -> None:
        """Believe nothing more, send nothing more. Idempotent."""
        self._pause()
        self._stop_pacing()
        self._is_closed = True
        self._outgoing.clear()
        self._stop_writing()
        if not self.ended.done():
            self.ended.set_result(None)

    def fail(self, sentence: str, kind: type[SibError]) -> None:
        """Nobody will answer: every future gets this error."""
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(kind(sentence))

    # Reading

    def _resume(self) -> None:
        """Read, unless one of the bounds is reached."""
        is_full = len(self._calls) >= CALLS_IN_FLIGHT_MAX or len(self._outgoing) > OUTGOING_BYTES_MAX
        if self._is_closed or self._is_reading or self._pace or is_full:
            return
        self._is_reading = True
        self._loop.add_reader(self._channel, self._read)
        self._take_messages()

    def _pause(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._channel)

    def _read(self) -> None:
        try:
            data = self._channel.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:  # the program has closed its channel or ended; it may still run
            self.close()
            return
        self._reader.feed(data)
        self._take_messages()

    def _take_messages(self) -> None:
        try:
            for message in self._reader.messages():
                self._take(message)
                if not self._is_reading:
                    return
        except ForgedFrameError as error:
            self.close()
            self._on_fault(Reason.PROTOCOL, str(error))

    def _take(self, message: dict[str, Any]) -> None:
        if self._on_first:
            on_first, self._on_first = self._on_first, None
            on_first(message)
        elif "call" in message:
            self._take_call(*check_call(message))
            wait_s = self._bucket.take()
            if wait_s and not self._is_closed:
                self._pause()
                self._pace = self._loop.call_later(wait_s, self._paced)
        else:
            self._take_answer(message)

    def _paced(self) -> None:
        self._pace = None
        self._resume()

    def _stop_pacing(self) -> None:
        if self._pace:
            self._pace.cancel()
            self._pace = None

    def _take_answer(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        answer = self._answers.pop(number, None) if isinstance(number, int) else None
        if answer is None:
            raise ForgedFrameError("an answer to what was not asked")
        if answer.done():
            return
        error = message.get("error")
        if error is None:
            answer.set_result(message.get("result"))
        else:
            text = error.get("message") if isinstance(error, dict) else None
            answer.set_exception(ProgramError(str(text or "the program failed without saying why")))

    # Calls of the child

    def _take_call(self, number: int | None, method: str, payload: Any) -> None:
        try:
            result = self.on_call(method, payload)
        except Exception as error:
            self._refuse(number, error)
            return
        if not inspect.isawaitable(result):
            self._answer(number, result)
            return
        task = self._loop.create_task(self._carry_out(number, result))
        self._calls.add(task)
        task.add_done_callback(self._carried_out)
        if len(self._calls) >= CALLS_IN_FLIGHT_MAX:
            self._pause()

    async def _carry_out(self, number: int | None, result: Awaitable[Any]) -> None:
        try:
            value = await result
        except Exception as error:
            self._refuse(number, error)
        else:
            self._answer(number, value)

    def _carried_out(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._resume()

    def _answer(self, number: int | None, result: Any) -> None:
        if number is None:
            return
        try:
            message = encode({"id": number, "result": result})
        except (FrameError, TypeError) as error:
            self._refuse(number, ProgramError(f"the result cannot be sent: {error}"))
        else:
            self.write(message)

    def _refuse(self, number: int | None, error: Exception) -> None:
        if number is None:
            return
        if isinstance(error, SibError):
            told = {"code": error.code, "message": error.message}
        else:  # a fault of ours: its text may hold what the program must not see
            told = {"code": "sib.internal", "message": "the platform could not carry out the call"}
        self.write(encode({"id": number, "error": told}))

    # Writing

    def write(self, data: bytes) -> None:
        """Send a frame, at once or when the child has read what is before it."""
        if self._is_closed:
            return
        if not self._outgoing:
            data = data[self._try_send(data) :]
            if not data:
                return
            self._loop.add_writer(self._channel, self._write)
            self._watch()
        self._outgoing += data
        if len(self._outgoing) > OUTGOING_BYTES_MAX:
            self._room.clear()
            self._pause()

    def _write(self) -> None:
        sent = self._try_send(self._outgoing)
        del self._outgoing[:sent]
        if not self._outgoing:
            self._stop_writing()
            self._resume()
        elif sent:
            self._watch()

    def _try_send(self, data: bytes | bytearray) -> int:
        try:
            return self._channel.send(data)
        except BlockingIOError:
            return 0
        except OSError:  # the child has closed: its end will say more
            return len(data)

    def _watch(self) -> None:
        """From now on the child has ``STALLED_S`` to read something."""
        if self._stall:
            self._stall.cancel()
        self._stall = self._loop.call_later(STALLED_S, self._on_fault, Reason.STALLED, f"for {STALLED_S:g} s")

    def _stop_writing(self) -> None:
        self._loop.remove_writer(self._channel)
        if self._stall:
            self._stall.cancel()
            self._stall = None
        self._room.set()
