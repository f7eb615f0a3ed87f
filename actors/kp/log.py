"""What a KP prints: kept in a bounded, rotated file per KP instance, a line at a time with its moment.

A line is ``MOMENT SOURCE TEXT``, where SOURCE is ``out``, ``err`` or ``---`` (the platform's own remark).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

FILE_BYTES_MAX = 2 << 20
FILES_KEPT = 4
"""With the present one: 8 MiB a KP instance at most."""
LINE_BYTES_MAX = 16 * 1024
"""Longer lines are cut in pieces."""
SOURCES = {1: "out", 2: "err"}
POLL_S = 0.2


def log_path(data: str | Path, worker: str) -> Path:
    """Where the output of a KP instance lies; ``worker``: the name of its actor."""
    return Path(data) / "logs" / "kps" / f"{worker}.log"


class KpLog:
    """Writes one KP instance's log."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._size = self._file.tell()
        self._rest = {source: bytearray() for source in SOURCES}

    def take(self, source: int, data: bytes) -> None:
        """Output of the program, as it comes: 1 standard output, 2 standard error."""
        rest = self._rest[source]
        rest += data
        *lines, last = rest.split(b"\n")
        while len(last) > LINE_BYTES_MAX:
            lines.append(last[:LINE_BYTES_MAX])
            del last[:LINE_BYTES_MAX]
        for line in lines:
            self._write(SOURCES[source], line)
        self._rest[source] = last
        self._file.flush()

    def remark(self, text: str) -> None:
        """A line of the platform's own."""
        self._write("---", text.encode())
        self._file.flush()

    def finish(self) -> None:
        """The program has ended: the beginnings of its last lines are lines."""
        for source, rest in self._rest.items():
            if rest:
                self._write(SOURCES[source], rest)
                self._rest[source] = bytearray()
        self._file.flush()

    def close(self) -> None:
        """Idempotent."""
        self.finish()
        self._file.close()

    def _write(self, source: str, line: bytes | bytearray) -> None:
        moment = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        for begin in range(0, max(1, len(line)), LINE_BYTES_MAX):
            piece = bytes(line[begin : begin + LINE_BYTES_MAX]).removesuffix(b"\r")
            entry = b"%sZ %s %s\n" % (moment.encode(), source.encode(), piece)
            if self._size + len(entry) > FILE_BYTES_MAX:
                self._rotate()
            self._size += self._file.write(entry)

    def _rotate(self) -> None:
        self._file.close()
        for number in range(FILES_KEPT - 1, 0, -1):
            source = numbered(self._path, number - 1)
            with contextlib.suppress(FileNotFoundError):
                source.replace(numbered(self._path, number))
        self._file = self._path.open("ab")
        self._size = self._file.tell()


def numbered(path: Path, number: int) -> Path:
    """The present file (0), or an older one."""
    return path.with_name(f"{path.name}.{number}") if number else path


class LogReader:
    """Reads a KP instance's log: what is kept, and then what is written from there on."""

    def __init__(self, path: Path, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._path, self._sleep = path, sleep
        self._file: IO[bytes] | None = None
        self._rest = b""

    def tail(self, lines_max: int | None = None) -> list[str]:
        """The newest lines, oldest first; None: all that are kept."""
        parts = []
        for number in range(FILES_KEPT - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                parts.append(numbered(self._path, number).read_bytes())
        *lines, self._rest = b"".join([*parts, self._read()]).split(b"\n")
        texts = [line.decode(errors="replace") for line in lines]
        return texts if lines_max is None else texts[max(0, len(texts) - lines_max) :]

    def follow(self) -> Iterator[str]:
        """The lines that are written from now on, for ever; over rotations, too."""
        while True:
            is_rotated = self._is_rotated()
            data = self._read()
            if data:
                *lines, self._rest = (self._rest + data).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
            elif is_rotated and self._file is not None:
                self._file.close()
                self._file = None
            else:
                self._sleep(POLL_S)

    def _read(self) -> bytes:
        if self._file is None:
            try:
                self._file = self._path.open("rb")
            except FileNotFoundError:
                return b""
        return self._file.read()

    def _is_rotated(self) -> bool:
        if self._file is None:
            return False
        try:
            return self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:
            return True
