"""One transfer of an ontology at a time, on one machine: a lock that goes with the process that holds it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sib.errors import StoreUnavailableError
from storage.bdh.layout import folder_of


class TransferRunningError(StoreUnavailableError):
    """A transfer of this ontology is under way in another process."""

    code = "history.running"


@contextmanager
def transfer_lock(folder: Path, ontology: str) -> Iterator[None]:
    """Hold the lock of an ontology. The file stays; after ``kill -9`` the lock is free at once.

    Args:
        folder: where lock files lie (of the platform's data folder); made if it is not there.
        ontology: its name.

    Raises:
        TransferRunningError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / f"transfer-{folder_of(ontology)}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TransferRunningError(f"A transfer of {ontology!r} is under way already: wait for it.") from None
        yield
    finally:
        os.close(descriptor)
