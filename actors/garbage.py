"""The garbage collector in actors that hold much: what exists after the start, and what only waits, is never in a cycle."""

from __future__ import annotations

import gc


def settle_memory(young: int = 50_000, middle: int = 20, old: int = 100) -> None:
    """What exists now stays: the collector need not look at it again, and looks more seldom at what comes.

    Args:
        young: new objects that start a collection.
        middle: collections of young objects that start one of middle-aged ones.
        old: of these, so many start one of everything.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(young, middle, old)
