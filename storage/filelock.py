"""Locks that go with the process that holds them: after ``kill -9`` they are free at once."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def file_lock(path: Path, refusal: Exception) -> Iterator[None]:
    """Hold the lock of a file, which stays; its folder is made if it is not there.

    Raises:
        Exception: ``refusal``, when somebody has the lock, this process included.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise refusal from None
        yield
    finally:
        os.close(descriptor)
