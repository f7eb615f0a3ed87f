"""What is to run inside a sandbox, and what of the host it may see."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class View:
    """A file or folder of the host that is visible inside, read-only.

    Nothing in it may be a secret, and all of it must be readable for everybody: programs run as users of their own.
    """

    host: Path
    inside: str
    """Absolute. At the fallback level it is not used: there the program sees the host's own path (see ``Sandbox.locate``)."""


@dataclass(frozen=True, slots=True)
class Program:
    """A Python program: a file inside, or source text under a file's name."""

    file: str
    arguments: tuple[str, ...] = ()
    source: bytes | None = None
    """Absent, ``file`` is read inside."""
    paths: tuple[str, ...] = ()
    """Put in front of ``sys.path``; paths inside."""

    def to_message(self) -> dict[str, Any]:
        """The second frame of a child."""
        return {
            "file": self.file,
            "arguments": list(self.arguments),
            "source": self.source,
            "paths": list(self.paths),
            "exec": None,
        }


@dataclass(frozen=True, slots=True)
class Command:
    """A program of another language: what is executed, with absolute paths inside. Not at the fallback level."""

    argv: tuple[str, ...]

    def to_message(self) -> dict[str, Any]:
        """The second frame of a child."""
        return {"exec": list(self.argv)}
