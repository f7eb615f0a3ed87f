"""One run of a KP's program in the sandbox: what it sees, and from its start to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.kp.manifest import Manifest
from actors.sandbox.child import Child, OutputHandler
from actors.sandbox.confinement import INSIDE
from actors.sandbox.errors import SandboxUnavailableError
from actors.sandbox.peer import CallHandler
from actors.sandbox.program import Command, Program, View
from actors.sandbox.sandbox import Level, Sandbox, find_sandbox

FOLDER, LAYER, NODE = "/kp", "/packages", "/node/bin/node"
NODE_CLIENT = View(INSIDE / "node_modules", "/node_modules")
"""Where Node looks for ``require("sofia2")`` of a program in ``/kp``."""
NODE_PATHS = (Path("/usr/bin/node"), Path("/usr/local/bin/node"), Path("/usr/bin/nodejs"))
NODE_LIBRARIES = (Path("/usr/share/nodejs"), Path("/usr/share/node_modules"))
"""Debian's node has parts of itself there."""


@dataclass(frozen=True, slots=True)
class Files:
    """Where a release lies on this machine."""

    bundle: Path
    layer: Path | None

    def views(self) -> tuple[View, ...]:
        found = [View(self.bundle, FOLDER)]
        if self.layer is not None:
            found.append(View(self.layer, LAYER))
        return tuple(found)


def find_node() -> Path:
    """The Node of this machine.

    Raises:
        SandboxUnavailableError: there is none.
    """
    for path in NODE_PATHS:
        if path.is_file():
            return path.resolve()
    raise SandboxUnavailableError("this KP is a JavaScript program, and Node is not installed on this machine")


def node_views() -> list[View]:
    """What a JavaScript program sees beside its own files.

    Raises:
        SandboxUnavailableError: there is no Node.
    """
    libraries = [View(path, str(path)) for path in NODE_LIBRARIES if path.is_dir()]
    return [View(find_node(), NODE), NODE_CLIENT, *libraries]


def node_command(entry: str, arguments: Sequence[str]) -> Command:
    """A JavaScript program; ``entry`` is its path inside."""
    return Command((NODE, "--no-warnings", entry, *arguments))


def open_sandbox(level: int) -> Sandbox:
    """The means of isolation at the level that the self-test reached.

    Raises:
        SandboxUnavailableError: it is below the least level.
    """
    return find_sandbox(Level(level))


async def start(
    sandbox: Sandbox,
    manifest: Manifest,
    files: Files,
    *,
    on_output: OutputHandler,
    calls: Callable[[Child], CallHandler],
) -> Child:
    """Start a KP's program; ``calls`` makes the handler of its calls.

    Raises:
        SandboxStartError: the sandbox cannot be made. SandboxUnavailableError: it needs what this machine has not.
    """
    views = list(files.views())
    if manifest.is_node:
        views += node_views()
    child = await Child.start(sandbox, manifest.limits, views=views)
    try:
        child.run(_program(sandbox, manifest, files), on_call=calls(child), on_output=on_output)
    except BaseException:
        await child.close()
        raise
    return child


def _program(sandbox: Sandbox, manifest: Manifest, files: Files) -> Program | Command:
    folder = sandbox.locate(files.bundle, FOLDER)
    entry = f"{folder}/{manifest.entry}"
    if manifest.is_node:
        return node_command(entry, manifest.arguments)
    paths = [str(Path(entry).parent), folder]
    if files.layer is not None:
        paths.append(sandbox.locate(files.layer, LAYER))
    return Program(entry, manifest.arguments, paths=tuple(dict.fromkeys(paths)))
