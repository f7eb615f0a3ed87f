"""The Process module: transfers, cleaning, compaction and file loads, on schedules and by hand.

The class of the actor is found here by its name and loaded when it is asked for: a command that runs one process in the
foreground needs none of it.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "ProcessRunner":
        from actors.processes.runner import ProcessRunner

        return ProcessRunner
    raise AttributeError(name)
