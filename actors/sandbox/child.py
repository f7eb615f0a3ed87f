"""One sandboxed program, seen by its supervisor: start, calls in both directions, output, and the end whatever it does.

Invariant: after ``wait`` has returned no process of it is left. Use it from one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import marshal
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future
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
from actors.sandbox.inside.frames import frame
from actors.sandbox.limits import Limits
from actors.sandbox.output import OutputBudget, OutputPump
from actors.sandbox.peer import CallHandler, Peer
from actors.sandbox.program import Command, Program, View
from actors.sandbox.sandbox import Level, Sandbox

START_S_MAX = 10.0
"""From nothing to a child that is ready; on an idle machine it takes 0.03 s."""
DRAIN_S = 1.0
"""For the rest of the output, and of the calls, of a program that has ended by itself."""
STARTUP_OUTPUT_BYTES_MAX = 4096

OutputHandler = Callable[[int, bytes], None]
"""Gets output: 1 or 2 (standard output or error) and bytes, as they come."""


def refuse_calls(method: str, payload: Any) -> Any:
    """The handler of a program that runs alone."""
    raise ProgramError(f"{method}: there is no platform here, this program runs alone")


def _discard(launching: Future[launcher.Launched]) -> None:
    """Nobody wants what has been launched any more. In the launcher's thread: the event loop may be gone meanwhile."""
    if launching.exception() is None:
        launching.result().discard()


class Child:
    """A jailed process. ``start`` gives one that waits; ``run`` makes it a program; ``wait`` gives its end.

    Always ``await close()`` in the end, or use ``async with``.
    """

    def __init__(self, sandbox: Sandbox, limits: Limits, launched: launcher.Launched) -> None:
        self._loop = asyncio.get_running_loop()
        self.sandbox, self.limits = sandbox, limits
        self._launched = launched
        self._on_output: OutputHandler = self._keep_startup_output
        self._startup_output = bytearray()
        self._time_limit: asyncio.TimerHandle | None = None
        self._finishing: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
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
        self._peer = Peer(
            launched.channel,
            calls_per_s=limits.calls_per_s,
            on_first=self._take_first,
            on_call=refuse_calls,
            on_fault=self.kill,
        )

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
        launching = launcher.thread.submit(launcher.launch, sandbox, limits, views)
        try:
            launched = await asyncio.shield(asyncio.wrap_future(launching))
        except asyncio.CancelledError:
            if not launching.cancel():
                launching.add_done_callback(_discard)
            raise
        child = cls(sandbox, limits, launched)
        try:
            order = confinement.order(sandbox, limits, views, pid=launched.process.pid, imports=imports)
            child._peer.write(frame(marshal.dumps(order)))
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
        self._peer.on_call = on_call
        self._on_output = on_output or (lambda stream, data: None)
        if self.limits.timeout_s is not None:
            detail = f"after {self.limits.timeout_s:g} s"
            self._time_limit = self._loop.call_later(self.limits.timeout_s, self.kill, Reason.TIMEOUT, detail)
        self._peer.write(frame(marshal.dumps(program.to_message())))

    async def call(self, method: str, payload: Any = None, *, timeout_s: float) -> Any:
        """Have the program carry out a method that it serves, and give its result (a JSON value).

        Raises:
            ProgramError: its handler failed or there is none; the program goes on.
            SandboxTimeoutError: no answer in time. The program has been ended: it may be in an endless loop.
            ProgramEndedError: it ended, before or meanwhile.
            FrameError: the payload is longer than a frame may be. Nothing was sent.
        """
        self._check_alive()
        answer = self._peer.ask(method, payload)
        timer = self._loop.call_later(timeout_s, self._time_out, answer, f"{method} took longer than {timeout_s:g} s")
        try:
            return await answer
        finally:
            timer.cancel()

    async def notify(self, method: str, payload: Any = None) -> None:
        """Tell the program something; waits while it does not read.

        Raises:
            ProgramEndedError: it has ended.
            FrameError: the payload is longer than a frame may be. Nothing was sent.
        """
        await self._peer.drained()
        self._check_alive()
        self._peer.tell(method, payload)

    def kill(self, reason: Reason = Reason.STOPPED, detail: str = "") -> None:
        """End all its processes now. Idempotent: the first reason counts."""
        if self._exit.done() or self._reason is not None:
            return
        self._reason = (reason, detail)
        self._peer.close()
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

    # The beginning

    def _take_first(self, message: dict[str, Any]) -> None:
        if message.get("ready") is True:
            pid = self._launched.take_first_pid()
            if pid is not None:
                with contextlib.suppress(OSError):
                    self._first = os.pidfd_open(pid)
            self._ready.set_result(None)
        else:
            self._ready.set_exception(SandboxStartError(f"the sandbox could not be made: {message.get('failed')}"))

    # The end

    def _time_out(self, answer: asyncio.Future[Any], sentence: str) -> None:
        if not answer.done():
            answer.set_exception(SandboxTimeoutError(sentence))
        self.kill(Reason.TIMEOUT, sentence)

    def _kill_all(self) -> None:
        """The first process of the namespace: all others end with it, and bubblewrap, which waits for it, as well.

        Before it is known, or without a namespace, the process that we started. bubblewrap is not killed with the rest: it
        has to reap the first process, which else would be left to the machine's init.
        """
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process if self._first is None else self._first, signal.SIGKILL)

    def _process_ended(self) -> None:
        self._loop.remove_reader(self._process)
        if self._time_limit:
            self._time_limit.cancel()
        self._finishing = self._loop.create_task(self._finish())

    async def _finish(self) -> None:
        if self._launched.group:
            self._launched.group.kill()  # what was being started when the rest was killed
        if self._first is not None:
            await self._ended(self._first)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                ends = (self._peer.ended, *(pump.ended for pump in self._pumps))
                await asyncio.gather(*map(asyncio.shield, ends))
        for pump in self._pumps:
            pump.close()
        self._peer.close()
        self._settle(self._exit_of(self._launched.process.wait()))
        self._release()

    async def _ended(self, descriptor: int) -> None:
        ended = asyncio.Event()
        self._loop.add_reader(descriptor, ended.set)
        await ended.wait()
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
        self._peer.fail(f"the program did not answer: {end.describe()}", ProgramEndedError)
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
