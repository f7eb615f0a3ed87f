"""``sofia2 sandbox``: run a file exactly as a KP runs, and see how well this machine isolates. Without Ray, in below a second.

Also runnable as ``python -m sofia2.sandbox``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sib.errors import SibError
from sofia2.console import DONE, FAULT, NO, TIMED_OUT, WRONG_INPUT, CliError, output

if TYPE_CHECKING:
    from actors.sandbox.child import Child
    from actors.sandbox.exits import Exit
    from actors.sandbox.limits import Limits
    from actors.sandbox.program import View
    from actors.sandbox.sandbox import Level
    from actors.sandbox.selftest import Report

OUTPUT_BYTES_MAX = 8 * 1024 * 1024
"""What one run may print; a KP's log keeps less, but a KP is not ended for it."""
FOLDER = "/kp"
"""Where a KP's own files are, inside."""
SOURCE_BYTES_MAX = 512 * 1024
"""A larger file is read inside, and has to be readable for everybody."""
INTERRUPTED, TERMINATED = 130, 143
"""Exit statuses after SIGINT and SIGTERM; the program has been ended too."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What a deployed KP has besides its program: dependencies and limits."""

    views: tuple[View, ...] = ()
    """Folders of packages."""
    limits: Limits | None = None
    """None: the defaults."""


def run_file(
    file: Path,
    arguments: list[str],
    *,
    level: int | None = None,
    timeout_s: float | None = None,
    environment: Environment | None = None,
) -> int:
    """Run a Python or JavaScript file in the sandbox; its output goes to our own. Gives the exit status for the shell.

    Args:
        file: The program.
        arguments: Its ``sys.argv[1:]``.
        level: 3 or 2; None: the best that starts.
        timeout_s: Seconds to its end.
        environment: What a KP has besides.

    Returns:
        Its own status, 128 + n after signal n (137 when it was ended), ``TIMED_OUT`` after its time.

    Raises:
        CliError: no such file, or no sandbox of this level here.
    """
    if not file.is_file():
        raise CliError(WRONG_INPUT, f"there is no file {file}")
    source = file.read_bytes() if file.stat().st_size <= SOURCE_BYTES_MAX else None
    try:
        return asyncio.run(
            _run_file(file.resolve(), arguments, _level(level), timeout_s, environment or Environment(), source)
        )
    except KeyboardInterrupt:
        return INTERRUPTED
    except asyncio.CancelledError:
        return TERMINATED


def environment_of(which: str | None, data: str | None = None) -> Environment:
    """What a deployed KP (``NAME`` or ``NAME:INSTANCE``) has besides its program; without a name, nothing.

    Raises:
        CliError: no such KP is deployed on this data folder, or several instances of it.
    """
    if which is None:
        return Environment()
    from actors.kp.layers import install
    from actors.kp.manifest import Manifest
    from actors.kp.places import layers_folder, wheelhouse_of
    from actors.kp.process import LAYER
    from actors.sandbox.program import View
    from sofia2.commands.deployments import find_one
    from sofia2.commands.options import platform_config, settings_of

    settings = settings_of(data)
    platform = platform_config(settings)
    manifest = Manifest.from_json(find_one(settings, which).manifest)
    wheelhouse = wheelhouse_of(platform.data, settings.get("kp.wheelhouse"))
    layer = install(manifest.layer, manifest.dependencies, wheelhouse, layers_folder(platform.data))
    views = () if layer is None else (View(layer, LAYER),)
    return Environment(views, manifest.limits)


def show_check(level: int | None) -> int:
    """Print what the self-test found; gives the exit status."""
    report = check_machine(level)
    output.result(report.to_json(), report.lines())
    return DONE if report.is_enough else NO


def check_machine(level: int | None = None) -> Report:
    """The start-up self-test."""
    from actors.sandbox import selftest

    return asyncio.run(selftest.check(_level(level)))


def _level(number: int | None) -> Level | None:
    from actors.sandbox.sandbox import Level

    if number is None:
        return None
    if number not in (Level.FULL, Level.CONFINED):
        raise CliError(
            WRONG_INPUT, "the level is 3 (full) or 2 (without namespaces); below it no program of a user is run"
        )
    return Level(number)


async def _run_file(
    file: Path,
    arguments: list[str],
    level: Level | None,
    timeout_s: float | None,
    environment: Environment,
    source: bytes | None,
) -> int:
    from dataclasses import replace

    from actors.kp.manifest import NODE_ENDINGS
    from actors.kp.process import node_command, node_views
    from actors.sandbox.limits import Limits
    from actors.sandbox.program import Program, View
    from actors.sandbox.sandbox import Level

    is_node = file.suffix in NODE_ENDINGS
    if is_node and level is Level.CONFINED:
        raise CliError(WRONG_INPUT, "JavaScript programs run at level 3 only")
    limits = replace(environment.limits or Limits(), timeout_s=timeout_s, output_bytes=OUTPUT_BYTES_MAX)
    inside = f"{FOLDER}/{file.name}"
    views = (View(file, inside), *environment.views, *(node_views() if is_node else ()))
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with await _start(Level.FULL if is_node else level, limits, views) as child:
        place = child.sandbox.locate(file, inside)
        packages = (child.sandbox.locate(view.host, view.inside) for view in environment.views)
        paths = (str(Path(place).parent), *packages)
        program = Program(place, tuple(arguments), source=source, paths=paths)
        child.run(
            node_command(place, arguments) if is_node else program,
            on_output=lambda stream, data: _write(child, stream, data),
        )
        return _status(await child.wait())


async def _start(level: Level | None, limits: Limits, views: tuple[View, ...]) -> Child:
    from actors.sandbox.child import Child
    from actors.sandbox.errors import SandboxStartError, SandboxUnavailableError
    from actors.sandbox.sandbox import Level, find_sandbox

    reasons = []
    for candidate in (Level.FULL, Level.CONFINED) if level is None else (level,):
        try:
            return await Child.start(find_sandbox(candidate), limits, views=views)
        except (SandboxStartError, SandboxUnavailableError) as error:
            reasons.append(f"level {candidate.value}: {error.message}")
    raise CliError(FAULT, "programs cannot be isolated here (see 'sofia2 sandbox check'). " + "; ".join(reasons))


def _write(child: Child, stream: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(stream, data) :]
    except OSError:  # nobody reads it any more
        child.kill()


def _status(end: Exit) -> int:
    from actors.sandbox.exits import Reason

    if end.reason is not Reason.EXITED:
        print(f"sofia2: the program was ended: {end.describe()}", file=sys.stderr, flush=True)
    return TIMED_OUT if end.reason is Reason.TIMEOUT else end.status


def main(arguments: list[str]) -> int:
    """The command line ``run`` and ``check``, without the rest of ``sofia2``: that alone takes longer to import."""
    parser = argparse.ArgumentParser(prog="sofia2 sandbox", description="Run programs in isolation, as KPs run.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run FILE as a KP's main; its exit status is passed on (4 after its time)")
    run.add_argument(
        "--level", type=int, metavar="N", help="3 (full) or 2 (without namespaces); default: the best here"
    )
    run.add_argument("--timeout", type=float, metavar="S", help="seconds to its end; default: none")
    run.add_argument("--env-of", metavar="KP", help="with this deployed KP's dependencies and resources")
    run.add_argument("--data", metavar="DIR", help="the platform's data folder, for --env-of")
    run.add_argument("file", type=Path, metavar="FILE")
    run.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARG")
    check = commands.add_parser("check", help="the start-up self-test and the level reached; exit 0 at level 2 or 3")
    check.add_argument("--level", type=int, metavar="N", help="see whether this level holds")
    check.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    output.is_json = getattr(given, "json", False)
    try:
        if given.command == "check":
            return show_check(given.level)
        return run_file(
            given.file,
            given.arguments,
            level=given.level,
            timeout_s=given.timeout,
            environment=environment_of(given.env_of, given.data),
        )
    except CliError as error:
        return output.fail(error.status, error.message)
    except SibError as error:
        return output.fail(WRONG_INPUT, error.message)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
