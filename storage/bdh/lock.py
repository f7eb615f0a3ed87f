"""One transfer of an ontology at a time, on one machine: a lock that goes with the process that holds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sib.errors import StoreUnavailableError
from storage.bdh.layout import folder_of
from storage.filelock import file_lock


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
    refusal = TransferRunningError(f"A transfer of {ontology!r} is under way already: wait for it.")
    with file_lock(folder / f"transfer-{folder_of(ontology)}.lock", refusal):
        yield
