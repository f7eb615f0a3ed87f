"""What can go wrong with a sandbox, seen by the supervisor."""

from __future__ import annotations

from sib.errors import SibError


class SandboxUnavailableError(SibError):
    """This machine cannot isolate programs at the level that is asked for."""

    code, status = "sandbox.unavailable", 503


class SandboxStartError(SibError):
    """The sandbox could not be made; nothing of the program has run."""

    code, status = "sandbox.start_failed", 503


class SandboxTimeoutError(SibError):
    """The program did not answer in time and has been ended."""

    code, status = "sandbox.timeout", 504


class ProgramEndedError(SibError):
    """The program ended before it answered; the message says why."""

    code, status = "sandbox.ended", 503


class ProgramError(SibError):
    """The program answered with a failure of its own."""

    code, status = "sandbox.program_error", 400
