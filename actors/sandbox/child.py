"""One sandboxed program, seen by its supervisor: start, calls in both directions, output, and the end whatever it does.

Invariants: what the child sends is checked before it is believed; memory held for a child is bounded (one frame,
``OUTGOING_BYTES_MAX`` of answers, ``CALLS_IN_FLIGHT_MAX`` calls); after ``wait`` has
returned no process of it is left. Use it from one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import marshal
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from actors.sandbox import confinement, launcher
from actors.sandbox.cgroups import Usage
from actors.sandbox.errors import (
    ProgramEndedError,
    ProgramError,
    SandboxStartError,
    SandboxTimeoutError,
    SandboxUnavailableError,
)
from actors.sandbox.exits import SHELL_SIGNAL_BASE, Exit, Reason, reason_of
from actors.sandbox.frames import ForgedFrameError, FrameError, FrameReader, check_call, encode
from actors.sandbox.inside.frames import frame
from actors.sandbox.limits import Limits
from actors.sandbox.output import OutputBudget, OutputPump
from actors.sandbox.pacing import TokenBucket
from actors.sandbox.program import Command, Program, View
from actors.sandbox.sandbox import Level, Sandbox
from sib.errors import SibError

START_S_MAX = 10.0
"""From nothing to a child that is ready; on an idle machine it takes 0.03 s."""
READ_BYTES = 256 * 1024
CALLS_IN_FLIGHT_MAX = 64
"""Calls of the child that are being carried out; the next ones wait in the socket."""
OUTGOING_BYTES_MAX = 4 * 1024 * 1024
"""Answers that wait because the child does not read; beyond it no call of it is read, and ``notify`` waits."""
STALLED_S = 30.0
"""A child that reads nothing for so long, while something waits for it, is ended."""
DRAIN_S = 1.0
"""For the rest of the output, and of the calls, of a program that has ended by itself."""
STARTUP_OUTPUT_BYTES_MAX = 4096

CallHandler = Callable[[str, Any], Awaitable[Any] | Any]
"""Carries out a call of the child: method and payload to a JSON value, directly or later. A ``SibError`` is told to the child."""
OutputHandler = Callable[[int, bytes], None]
"""Gets output: 1 or 2 (standard output or error) and bytes, as they come."""


def refuse_calls(method: str, payload: Any) -> Any:
    """The handler of a program that runs alone."""
    raise ProgramError(f"{method}: there is no platform here, this program runs alone")


def _discard(launching: asyncio.Future[launcher.Launched]) -> None:
    """Nobody wants what has been launched any more. Its end may take a while: the kernel may be making a namespace for it."""
    if not launching.cancelled() and launching.exception() is None:
        asyncio.get_running_loop().run_in_executor(None, launching.result().discard)


class Child:
    """A jailed process. ``start`` gives one that waits; ``run`` makes it a program; ``wait`` gives its end.

    Always ``await close()`` in the end, or use ``async with``.
    """

    def __init__(self, sandbox: Sandbox, limits: Limits, launched: launcher.Launched) -> None:
        self._loop = asyncio.get_running_loop()
        self.sandbox, self.limits = sandbox, limits
        self._launched, self._channel = launched, launched.channel
        self._reader, self._outgoing = FrameReader(), bytearray()
        self._bucket = TokenBucket(limits.calls_per_s, limits.calls_per_s, self._loop.time)
        self._on_call: CallHandler = refuse_calls
        self._on_output: OutputHandler = self._keep_startup_output
        self._startup_output = bytearray()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._next_id = 0
        self._is_reading = self._is_closed = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._drained = asyncio.Event()
        self._drained.set()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._channel_ended: asyncio.Future[None] = self._loop.create_future()
        self._exit: asyncio.Future[Exit] = self._loop.create_future()
        self._reason: tuple[Reason, str] | None = None
        self._first: int | None = None
        budget = OutputBudget(limits.output_bytes, lambda: self.kill(Reason.OUTPUT))
        self._pumps = [
            OutputPump(launched.output, lambda data: self._on_output(1, data), budget),
            OutputPump(launched.errors, lambda data: self._on_output(2, data), budget),
        ]
        self._process = os.pidfd_open(launched.process.pid)
        self._loop.add_reader(self._process, self._process_ended)
        self._resume()

    @classmethod
    async def start(
        cls, sandbox: Sandbox, limits: Limits, *, views: Sequence[View] = (), imports: Sequence[str] = ()
    ) -> Child:
        """A child that is in its jail and waits for a program. Takes about 0.03 s.

        Args:
            sandbox: The means of isolation.
            limits: What the program may use.
            views: What it may see of the host, besides the interpreter.
            imports: Modules to import before it is ready; for children that wait in a pool.

        Raises:
            SandboxStartError: the jail could not be made; the message has what bubblewrap or the first program said.
        """
        loop = asyncio.get_running_loop()
        launching = loop.run_in_executor(launcher.thread, launcher.launch, sandbox, limits, views)
        try:
            launched = await asyncio.shield(launching)
        except asyncio.CancelledError:
            launching.add_done_callback(_discard)
            raise
        child = cls(sandbox, limits, launched)
        try:
            order = confinement.order(sandbox, limits, views, pid=launched.process.pid, imports=imports)
            child._write_frame(frame(marshal.dumps(order)))
            async with asyncio.timeout(START_S_MAX):
                await asyncio.shield(child._ready)
        except BaseException as error:
            await child.close()
            if isinstance(error, TimeoutError):
                raise SandboxStartError(f"the sandbox was not ready after {START_S_MAX:g} s") from None
            raise
        return child

    @property
    def pid(self) -> int:
        """The host's process id of the outermost process."""
        return self._launched.process.pid

    @property
    def is_alive(self) -> bool:
        return self._reason is None and not self._exit.done()

    def run(
        self,
        program: Program | Command,
        *,
        on_call: CallHandler = refuse_calls,
        on_output: OutputHandler | None = None,
    ) -> None:
        """Start the program, once. ``limits.timeout_s`` counts from here.

        Raises:
            SandboxUnavailableError: a ``Command``, at a level where nothing can be executed.
        """
        if isinstance(program, Command) and self.sandbox.level is not Level.FULL:
            raise SandboxUnavailableError("programs of other languages need level 3 (see 'sofia2 sandbox check')")
        self._on_call = on_call
        self._on_output = on_output or (lambda stream, data: None)
        if self.limits.timeout_s is not None:
            self._after("timeout", self.limits.timeout_s, Reason.TIMEOUT)
        self._write_frame(frame(marshal.dumps(program.to_message())))

    async def call(self, method: str, payload: Any = None, *, timeout_s: float) -> Any:
        """Have the program carry out a method that it serves, and give its result (a JSON value).

        Raises:
            ProgramError: its handler failed or there is none; the program goes on.
            SandboxTimeoutError: no answer in time. The program has been ended: it may be in an endless loop.
            ProgramEndedError: it ended, before or meanwhile.
            FrameError: the payload is longer than a frame may be. Nothing was sent.
        """
        self._check_alive()
        self._next_id += 1
        number = self._next_id
        answer = self._answers[number] = self._loop.create_future()
        timer = self._loop.call_later(timeout_s, self._time_out, answer, f"{method} took longer than {timeout_s:g} s")
        try:
            self._send({"id": number, "call": method, "with": payload})
        except (FrameError, TypeError):
            del self._answers[number]
            raise
        else:
            return await answer  # given up by the caller, it stays there until the program answers
        finally:
            timer.cancel()

    async def notify(self, method: str, payload: Any = None) -> None:
        """Tell the program something; waits while it does not read.

        Raises:
            ProgramEndedError: it has ended.
            FrameError: the payload is longer than a frame may be. Nothing was sent.
        """
        if len(self._outgoing) > OUTGOING_BYTES_MAX:
            await self._drained.wait()
        self._check_alive()
        self._send({"call": method, "with": payload})

    def kill(self, reason: Reason = Reason.STOPPED, detail: str = "") -> None:
        """End all its processes now. Idempotent: the first reason counts."""
        if self._exit.done() or self._reason is not None:
            return
        self._reason = (reason, detail)
        self._close_channel()
        self._kill_all()

    async def wait(self) -> Exit:
        """Its end; all its processes are gone then. May be called again."""
        return await asyncio.shield(self._exit)

    async def close(self) -> Exit:
        """``kill`` and ``wait``."""
        self.kill()
        return await self.wait()

    async def __aenter__(self) -> Child:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def usage(self) -> Usage:
        """What its processes have used together until now."""
        return self._launched.group.usage() if self._launched.group and not self._exit.done() else Usage()

    # Reading

    def _resume(self) -> None:
        self._timers.pop("pace", None)
        if self._is_closed or self._is_reading:
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
            self._close_channel()
            return
        self._reader.feed(data)
        self._take_messages()

    def _close_channel(self) -> None:
        """Nothing more is read, and nothing is sent."""
        self._pause()
        self._is_closed = True
        if not self._channel_ended.done():
            self._channel_ended.set_result(None)

    def _take_messages(self) -> None:
        try:
            for message in self._reader.messages():
                self._take(message)
                if not self._is_reading:
                    return
        except ForgedFrameError as error:
            self.kill(Reason.PROTOCOL, str(error))

    def _take(self, message: dict[str, Any]) -> None:
        if not self._ready.done():
            self._take_first(message)
        elif "call" in message:
            self._take_call(*check_call(message))
            wait_s = self._bucket.take()
            if wait_s:
                self._pause()
                self._timers["pace"] = self._loop.call_later(wait_s, self._resume)
        else:
            self._take_answer(message)

    def _take_first(self, message: dict[str, Any]) -> None:
        if message.get("ready") is True:
            pid = self._launched.take_first_pid()
            if pid is not None:
                with contextlib.suppress(OSError):
                    self._first = os.pidfd_open(pid)
            self._ready.set_result(None)
        else:
            self._ready.set_exception(SandboxStartError(f"the sandbox could not be made: {message.get('failed')}"))

    def _take_answer(self, message: dict[str, Any]) -> None:
        answer = self._answers.pop(message.get("id"), None)  # type: ignore[arg-type]
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

    def _take_call(self, number: int | None, method: str, payload: Any) -> None:
        try:
            result = self._on_call(method, payload)
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
        if "pace" not in self._timers and len(self._outgoing) <= OUTGOING_BYTES_MAX:
            self._resume()

    def _answer(self, number: int | None, result: Any) -> None:
        if number is None:
            return
        try:
            self._send({"id": number, "result": result})
        except (FrameError, TypeError) as error:
            self._refuse(number, ProgramError(f"the result cannot be sent: {error}"))

    def _refuse(self, number: int | None, error: Exception) -> None:
        if number is None:
            return
        if isinstance(error, SibError):
            told = {"code": error.code, "message": error.message}
        else:  # a fault of ours: its text may hold what the program must not see
            told = {"code": "sib.internal", "message": "the platform could not carry out the call"}
        self._send({"id": number, "error": told})

    # Writing

    def _send(self, message: dict[str, Any]) -> None:
        self._write_frame(encode(message))

    def _write_frame(self, data: bytes) -> None:
        if self._outgoing:
            self._outgoing += data
        else:
            sent = self._try_send(data)
            if sent == len(data):
                return
            self._outgoing += data[sent:]
            self._loop.add_writer(self._channel, self._write)
            self._after("stalled", STALLED_S, Reason.STALLED)
        if len(self._outgoing) > OUTGOING_BYTES_MAX:
            self._drained.clear()
            self._pause()

    def _write(self) -> None:
        sent = self._try_send(self._outgoing)
        del self._outgoing[:sent]
        if sent:
            self._after("stalled", STALLED_S, Reason.STALLED)
        if not self._outgoing:
            self._stop_writing()

    def _stop_writing(self) -> None:
        self._loop.remove_writer(self._channel)
        self._cancel("stalled")
        self._outgoing.clear()
        self._drained.set()
        if len(self._calls) < CALLS_IN_FLIGHT_MAX and "pace" not in self._timers:
            self._resume()

    def _try_send(self, data: bytes | bytearray) -> int:
        if self._is_closed:
            return len(data)
        try:
            return self._channel.send(data)
        except BlockingIOError:
            return 0
        except OSError:  # the child has closed: the end will say more
            return len(data)

    # The end

    def _after(self, name: str, delay_s: float, reason: Reason) -> None:
        self._cancel(name)
        detail = f"after {delay_s:g} s"
        self._timers[name] = self._loop.call_later(delay_s, self.kill, reason, detail)

    def _cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer:
            timer.cancel()

    def _time_out(self, answer: asyncio.Future[Any], sentence: str) -> None:
        if not answer.done():
            answer.set_exception(SandboxTimeoutError(sentence))
        self.kill(Reason.TIMEOUT, sentence)

    def _kill_all(self) -> None:
        """The group, the first process of the namespace (all others end with it), and the one that we started."""
        if self._launched.group:
            self._launched.group.kill()
        for descriptor in (self._first, self._process):
            if descriptor is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)

    def _process_ended(self) -> None:
        self._loop.remove_reader(self._process)
        self._calls.add(self._loop.create_task(self._finish()))

    async def _finish(self) -> None:
        self._kill_all()  # what it left running
        if self._first is not None:
            await self._ended(self._first)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                ends = (self._channel_ended, *(pump.ended for pump in self._pumps))
                await asyncio.gather(*map(asyncio.shield, ends))
        for pump in self._pumps:
            pump.close()
        self._close_channel()
        self._loop.remove_writer(self._channel)
        for name in list(self._timers):
            self._cancel(name)
        self._settle(self._exit_of(self._launched.process.wait()))
        self._release()

    async def _ended(self, descriptor: int) -> None:
        ended = self._loop.create_future()
        self._loop.add_reader(descriptor, ended.set_result, None)
        await ended
        self._loop.remove_reader(descriptor)

    def _exit_of(self, code: int) -> Exit:
        group = self._launched.group
        usage = group.usage() if group else Usage()
        status = SHELL_SIGNAL_BASE - code if code < 0 else code
        if self._reason is not None:
            reason, detail = self._reason
            return Exit(SHELL_SIGNAL_BASE + signal.SIGKILL, reason, detail, usage)
        is_out_of_memory = group is not None and group.out_of_memory_count() > 0
        return Exit(status, reason_of(status, is_out_of_memory=is_out_of_memory), usage=usage)

    def _settle(self, end: Exit) -> None:
        """Everyone who waits learns of the end."""
        if not self._ready.done():
            said = self._startup_output.decode(errors="replace").strip()
            self._ready.set_exception(SandboxStartError(f"the sandbox could not be made: {said or end.describe()}"))
        self._ready.exception()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ProgramEndedError(f"the program did not answer: {end.describe()}"))
        self._drained.set()
        self._exit.set_result(end)

    def _release(self) -> None:
        self._launched.abandon()
        if self._launched.group:
            self._loop.run_in_executor(None, self._launched.group.remove)
        for descriptor in (self._first, self._process):
            if descriptor is not None:
                os.close(descriptor)

    def _check_alive(self) -> None:
        if self._exit.done():
            raise ProgramEndedError(f"the program has ended: {self._exit.result().describe()}")
        if self._reason is not None:
            raise ProgramEndedError(f"the program is being ended ({self._reason[0]})")

    def _keep_startup_output(self, stream: int, data: bytes) -> None:
        self._startup_output += data[: STARTUP_OUTPUT_BYTES_MAX - len(self._startup_output)]
