"""One rule's script in its sandbox, seen by its supervisor: batches in, results out, a new process when the old one is no good.

Nothing that a script does has an effect here: what it asks for comes back with its result. So a batch may be run again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from actors.sandbox.child import Child
from actors.sandbox.errors import ProgramEndedError, ProgramError, SandboxTimeoutError
from actors.sandbox.frames import FRAME_BYTES_MAX, FrameError
from actors.sandbox.pool import WarmPool
from actors.sandbox.program import Program
from sib.errors import LimitError, SibError
from sib.rules.effects import Effect, read_effects
from sib.rules.rule import Rule
from sib.rules.trigger import Trigger

FOLDER = Path(__file__).parent / "program"
LOAD_S = 10.0
BATCH_BYTES_MAX = 512 * 1024
BATCH_MAX = 400
"""What they insert goes to a partition in one batch, too."""
OUTPUT_BYTES_MAX = 64 * 1024
ERROR_EFFECTS = 10_000
"""The number of the first effect of the block ERROR: those of the other blocks may have been carried out before."""
GRACE_S = 0.5
"""Beside the rule's own time: for the way to the sandbox and back."""

Calls = Callable[[str, Any], Awaitable[Any] | Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run did not end well: the block, the kind of error, a sentence, the line in the block."""

    block: str
    type: str
    message: str
    line: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {"block": self.block, "type": self.type, "message": self.message, "line": self.line}

    def describe(self) -> str:
        """For the log."""
        place = f", line {self.line}" if self.line else ""
        return f"{self.type} in {self.block.upper()}{place}: {self.message}"


class Result(NamedTuple):
    """How one run ended. Its effects are to be carried out if ``is_ok``."""

    branch: str
    duration_ms: float
    effects: tuple[Effect, ...] = ()
    output: str = ""
    failure: Failure | None = None
    is_handled: bool = False
    """The block ERROR has dealt with the failure."""

    @property
    def is_ok(self) -> bool:
        return self.failure is None or self.is_handled


class Script:
    """The process of one rule; started when it is needed, ended by ``close``. One batch at a time: others wait for it."""

    def __init__(self, rule: Rule, pool: WarmPool, calls: Calls) -> None:
        self._rule, self._pool, self._calls = rule, pool, calls
        self._child: Child | None = None
        self._tail = b""
        self._turn = asyncio.Lock()
        self.starts = 0

    async def run(self, triggers: Sequence[Trigger], *, may_read: bool = True) -> list[Result]:
        """Results for the first triggers, at least one; call again with the rest.

        ``may_read``: False while effects of runs before these are being carried out, which a script that reads must see. Then
        the results end before the first run that wants to read or goes wrong altogether, and there may be none.

        Raises:
            SibError: the platform could not run it; it says nothing about the script.
        """
        async with self._turn:
            return await self._run(triggers, may_read)

    async def _run(self, triggers: Sequence[Trigger], may_read: bool) -> list[Result]:
        events: list[dict[str, Any]] = []
        size = 0
        for trigger in triggers[:BATCH_MAX]:
            event = event_of(trigger)
            size += _size(event)
            if events and size > BATCH_BYTES_MAX:
                break
            events.append(event)
        if _size(events[0]) > FRAME_BYTES_MAX - 4096:
            message = f"what triggered it is larger than {FRAME_BYTES_MAX} bytes"
            return [Result("if", 0.0, failure=Failure("if", "LimitError", message))]
        if len(events) > 1 or not may_read:
            try:
                return await self._ask(events, may_read)
            except (SandboxTimeoutError, ProgramEndedError, ProgramError):
                if not may_read:
                    return []
                events = events[:1]  # which one it was nobody knows: each alone
        return [await self._run_alone(events[0])]

    async def _run_alone(self, event: dict[str, Any]) -> Result:
        self._tail = b""
        try:
            return (await self._ask([event]))[0]
        except SandboxTimeoutError:
            kind, message = "TimeoutError", f"it took longer than {self._rule.timeout_s:g} s"
        except ProgramEndedError as error:
            kind, message = "ScriptEndedError", error.message
        except ProgramError as error:
            kind, message = "ScriptError", error.message
        begin = str(event.get("branch", "if"))
        failure = Failure("then" if begin == "if" and not self._rule.blocks.get("if") else begin, kind, message)
        output = self._tail.decode(errors="replace")
        return await self._handle(event, failure, output)

    async def handle(self, trigger: Trigger, failure: Failure) -> Result:
        """Let the block ERROR deal with a failure that came after the script."""
        async with self._turn:
            return await self._handle(event_of(trigger), failure, "")

    async def _handle(self, event: dict[str, Any], failure: Failure, output: str) -> Result:
        unhandled = Result(failure.block, self._rule.timeout_s * 1000, output=output, failure=failure)
        if not self._rule.blocks.get("error"):
            return unhandled
        try:
            result = (await self._ask([{**event, "error": failure.to_json()}]))[0]
        except (SandboxTimeoutError, ProgramEndedError, ProgramError, FrameError):
            return unhandled
        return Result("error", result.duration_ms, result.effects, output + result.output, failure, result.is_handled)

    async def _ask(self, events: list[dict[str, Any]], may_read: bool = True) -> list[Result]:
        child = await self._ready()
        payload = {"events": events, "is_alone": len(events) == 1, "may_read": may_read}
        try:
            answers = await child.call("run", payload, timeout_s=self._rule.timeout_s + GRACE_S)
        except (SandboxTimeoutError, ProgramEndedError):
            await self.close()
            raise
        if not isinstance(answers, list) or not may_read <= len(answers) <= len(events):
            await self.close()
            raise ProgramError("the sandbox gave no results")
        return [self._read(answer) for answer in answers]

    def _read(self, answer: Any) -> Result:
        """Nothing that comes from a sandbox is believed."""
        given = answer if isinstance(answer, dict) else {}
        branch, duration = str(given.get("branch"))[:8], given.get("ms")
        failure = _failure(given["error"]) if given.get("error") is not None else None
        effects: tuple[Effect, ...] = ()
        is_handled = failure is not None and given.get("is_handled") is True
        try:
            effects = read_effects(given.get("effects") or [], first=0 if failure is None else ERROR_EFFECTS)
        except SibError as error:
            failure, is_handled = Failure(branch, type(error).__name__, error.message), False
        return Result(
            branch,
            float(duration) if isinstance(duration, int | float) else 0.0,
            effects,
            str(given.get("output") or "")[-OUTPUT_BYTES_MAX:],
            failure,
            is_handled,
        )

    async def _ready(self) -> Child:
        if self._child is not None and self._child.is_alive:
            return self._child
        await self.close()
        child = await self._pool.take()
        self.starts += 1
        self._child = child
        child.run(_program(), on_call=self._calls, on_output=self._keep)
        load = {"rule": self._rule.name, "blocks": dict(self._rule.blocks), "legacy": _source("legacy")}
        try:
            await child.call("load", load, timeout_s=LOAD_S)
        except FrameError:
            raise LimitError("the blocks of a rule are at most 900 kB together") from None
        return child

    def _keep(self, _stream: int, data: bytes) -> None:
        self._tail = (self._tail + data)[-OUTPUT_BYTES_MAX:]

    async def close(self) -> None:
        """End the process. Idempotent; ``run`` starts another."""
        child, self._child = self._child, None
        if child is not None:
            await child.close()


def event_of(trigger: Trigger) -> dict[str, Any]:
    """What the sandbox gets."""
    return {**trigger.content, "branch": trigger.branch}


def _size(event: dict[str, Any]) -> int:
    """Bytes in a frame: as it is encoded there, with escapes."""
    return len(orjson.dumps(event)) + 1


def _failure(given: Any) -> Failure:
    given = given if isinstance(given, dict) else {}
    line = given.get("line")
    return Failure(
        str(given.get("block"))[:16],
        str(given.get("type"))[:200],
        str(given.get("message"))[:4000],
        line if isinstance(line, int) else None,
    )


_sources: dict[str, str] = {}


def _source(name: str) -> str:
    if name not in _sources:
        _sources[name] = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    return _sources[name]


def _program() -> Program:
    return Program("rule", source=_source("blocks").encode())


__all__ = ["Calls", "Failure", "Result", "Script", "event_of"]
