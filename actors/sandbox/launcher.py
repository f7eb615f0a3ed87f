"""Starts the process of a child, with its descriptors and its group.

All children are started by one thread that lives as long as this process: the kernel ends them with the *thread* that started
them, so that none survives the supervisor.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import orjson

from actors.sandbox import confinement
from actors.sandbox.cgroups import Cgroup
from actors.sandbox.errors import SandboxStartError
from actors.sandbox.inside import bootstrap as _bootstrap  # noqa: F401 - so that it is compiled, once
from actors.sandbox.inside import channel as _channel  # noqa: F401
from actors.sandbox.limits import Limits
from actors.sandbox.program import View
from actors.sandbox.sandbox import Level, Sandbox

thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox-launcher")
_INFORMATION_BYTES_MAX = 4096


@dataclass(slots=True)
class Launched:
    """A started process and the supervisor's ends of what it holds."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    output: int
    errors: int
    information: int
    group: Cgroup | None

    def take_first_pid(self) -> int | None:
        """The host's id of process 1 of the child's namespace, with which all others end; None at the fallback level."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            return int(orjson.loads(os.read(self.information, _INFORMATION_BYTES_MAX))["child-pid"])
        return None

    def discard(self) -> None:
        """End it before anything of it was used."""
        self.process.kill()
        self.process.wait()
        self.abandon()
        os.close(self.output)
        os.close(self.errors)
        if self.group:
            self.group.remove()

    def abandon(self) -> None:
        """Close the supervisor's ends except for the two outputs, which are read to their end. Idempotent."""
        self.channel.close()
        if self.information >= 0:
            os.close(self.information)
            self.information = -1


def launch(sandbox: Sandbox, limits: Limits, views: Sequence[View]) -> Launched:
    """Start a child that waits for its order. Called in ``thread``.

    Raises:
        SandboxStartError: no process could be started.
    """
    channel, inner = socket.socketpair()
    output, output_inner = os.pipe()
    errors, errors_inner = os.pipe()
    information, information_inner = os.pipe()
    os.set_blocking(information, False)
    arguments = _arguments(sandbox, views, information_inner)
    inherited = [inner.fileno(), arguments, information_inner]
    group: Cgroup | None = None
    try:
        group = sandbox.cgroups.create(limits, helpers=confinement.helpers(sandbox)) if sandbox.cgroups else None
        command = confinement.launch(
            sandbox, channel=inner.fileno(), arguments=arguments, joins=group.joins() if group else ()
        )
        process = subprocess.Popen(  # noqa: S603 - the command is ours
            command.argv,
            stdin=subprocess.DEVNULL,
            stdout=output_inner,
            stderr=errors_inner,
            env=command.environment,
            cwd="/",
            pass_fds=inherited,
            start_new_session=True,
        )
    except OSError as error:
        channel.close()
        for descriptor in (output, errors, information):
            os.close(descriptor)
        if group:
            group.remove()
        raise SandboxStartError(f"the sandbox could not be started: {error}") from error
    finally:
        inner.close()
        for descriptor in (output_inner, errors_inner, information_inner, arguments):
            os.close(descriptor)
    channel.setblocking(False)
    return Launched(process, channel, output, errors, information, group)


def _arguments(sandbox: Sandbox, views: Sequence[View], information: int) -> int:
    """A descriptor from which bubblewrap reads its arguments: they are not in its command line, which others can see."""
    descriptor = os.memfd_create("arguments", os.MFD_CLOEXEC)
    if sandbox.level is Level.FULL:
        os.write(descriptor, confinement.bwrap_arguments(sandbox, views, information=information))
        os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
