"""An ontology's two ways of losing instances must not compete: what expires before it moves is never in the history."""

from __future__ import annotations

from collections.abc import Iterable

from actors.processes.definitions import Action, transfer_of, transfer_options
from sofia2.export import window_text
from storage.bdc.processes import ProcessRecord
from storage.bdc.records import OntologyRecord


def fault_of_expiry(ontology: OntologyRecord, processes: Iterable[ProcessRecord]) -> str | None:
    """Why instances would expire before a transfer moves them to the history; None if they do not.

    A transfer that deletes, or none at all (no window), has nothing to lose.
    """
    expiring = [index for index in ontology.indexes if index.expire_after_s is not None]
    if ontology.window_s is None or not expiring:
        return None
    transfer = transfer_of({process.name: process for process in processes}, ontology.name)
    first = min(expiring, key=lambda index: index.expire_after_s or 0)
    after_s = first.expire_after_s or 0
    if after_s > ontology.window_s or transfer_options(transfer).action is Action.DELETE:
        return None
    return (
        f"instances of {ontology.name!r} would expire {window_text(after_s)} after {first.fields[0]}, before they move to the "
        f"history at the age of {window_text(ontology.window_s)}: make expire_after longer than the window and the time until the "
        "next transfer, leave one of the two out, or give the ontology a transfer with action: delete."
    )
