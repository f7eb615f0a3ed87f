# ruff: noqa: PTH118, PTH120, PTH123 -- pathlib costs 5 ms
"""From the first frame to the user's program, which runs as ``__main__`` in this process."""

from __future__ import annotations

import marshal
import os
import sys

from . import jail
from .frames import frame, read_frame, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import CodeType
    from typing import Any

READY = b'{"ready": true}'
FAILED = b'{"failed": "%s"}'
START_FAILED = 70
"""Exit status when the sandbox could not be made; the channel has the reason."""


def main(descriptor: int) -> None:
    """Enter the jail, say so, wait for the program and run it. Ends the process when the supervisor closes instead.

    The supervisor's first two frames are in marshal's format: json costs every start 5 ms, and they are trusted.
    """
    try:
        order = _next(descriptor)
        jail.enter(order, descriptor)
        for name in order["imports"]:
            __import__(name)
    except (OSError, ImportError) as error:
        text = f"{type(error).__name__}: {error}"
        write_all(descriptor, frame(FAILED % text.translate({34: "'", 92: "/"}).encode()))
        os._exit(START_FAILED)
    write_all(jail.CHANNEL, frame(READY))
    program = _next(jail.CHANNEL)
    if program["exec"]:
        os.set_inheritable(jail.CHANNEL, True)
        os.execve(program["exec"][0], program["exec"], dict(os.environ))  # noqa: S606 - it is what was ordered
    _run(program)


def _next(descriptor: int) -> dict[str, Any]:
    body = read_frame(descriptor)
    if body is None:
        os._exit(0)
    message: dict[str, Any] = marshal.loads(body)  # noqa: S302 - the supervisor wrote it
    return message


def _run(program: Mapping[str, Any]) -> None:
    """As ``python FILE ARG…`` would: ``SystemExit`` gives the status, a traceback on standard error and 1 anything else."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.argv = [program["file"], *program["arguments"]]
    sys.path[:0] = program["paths"]
    sys.path.append(os.path.join(os.path.dirname(__file__), "modules"))
    try:
        code = _compile(program)
    except (OSError, SyntaxError, ValueError) as error:
        _print(error.with_traceback(None))
        sys.exit(1)
    module = type(sys)("__main__")
    module.__dict__.update(__file__=program["file"], __builtins__=__builtins__)
    sys.modules["__main__"] = module
    try:
        exec(code, module.__dict__)  # noqa: S102 - this is what the sandbox is for
    except Exception as error:
        _print(error)
        sys.exit(1)


def _compile(program: Mapping[str, Any]) -> CodeType:
    source = program["source"]
    if source is None:
        with open(program["file"], "rb") as file:
            source = file.read()
    code: CodeType = compile(source, program["file"], "exec", dont_inherit=True)
    return code


def _print(error: BaseException) -> None:
    import traceback

    trace = error.__traceback__.tb_next if error.__traceback__ else None
    traceback.print_exception(type(error), error, trace)
