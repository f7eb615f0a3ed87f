"""How a sandboxed program ended, and why."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from enum import StrEnum

from actors.sandbox.cgroups import Usage

SHELL_SIGNAL_BASE = 128
"""A program that a signal ended has this plus the signal's number as its status."""


class Reason(StrEnum):
    """Why it ended."""

    EXITED = "exited"
    """By itself, with a status."""
    SIGNAL = "signal"
    """By a signal that it caused itself."""
    STOPPED = "stopped"
    """The supervisor was asked to stop it."""
    TIMEOUT = "timeout"
    MEMORY = "memory"
    """Out of memory: the kernel ended it."""
    CPU = "cpu"
    """Out of processor time."""
    SECCOMP = "seccomp"
    """It made a system call in a way that is never allowed."""
    PROTOCOL = "protocol"
    """It sent something that is no message, or too long, or answered what was never asked."""
    OUTPUT = "output"
    """It wrote more output than allowed."""
    STALLED = "stalled"
    """It did not read its channel."""


_SENTENCES = {
    Reason.STOPPED: "it was stopped",
    Reason.TIMEOUT: "its time was over",
    Reason.MEMORY: "it used more memory than it may",
    Reason.CPU: "it used more processor time than it may",
    Reason.SECCOMP: "it made a forbidden system call",
    Reason.PROTOCOL: "it sent something that is no message over its channel",
    Reason.OUTPUT: "it wrote more output than it may",
    Reason.STALLED: "it did not read its channel",
}


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a program."""

    status: int
    """As a shell would give it: 128 + n after signal n. Where the supervisor ended it, 137."""
    reason: Reason
    detail: str = ""
    usage: Usage = field(default_factory=Usage)

    @property
    def is_success(self) -> bool:
        return self.reason is Reason.EXITED and self.status == 0

    def describe(self) -> str:
        """Half a sentence for logs and errors."""
        if self.reason is Reason.EXITED:
            return f"it ended with status {self.status}"
        if self.reason is Reason.SIGNAL:
            return f"it was ended by {_name_of(self.status - SHELL_SIGNAL_BASE)}"
        return _SENTENCES[self.reason] + (f" ({self.detail})" if self.detail else "")


def reason_of(status: int, *, is_out_of_memory: bool) -> Reason:
    """The reason of an end that the supervisor did not bring about, from the status."""
    number = status - SHELL_SIGNAL_BASE
    if number == signal.SIGKILL and is_out_of_memory:
        return Reason.MEMORY
    if number == signal.SIGSYS:
        return Reason.SECCOMP
    if number == signal.SIGXCPU:
        return Reason.CPU
    return Reason.SIGNAL if number > 0 and number in signal.valid_signals() else Reason.EXITED


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
