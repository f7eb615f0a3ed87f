"""Which shard serves a key: rendezvous hashing, so that a changed list of shards moves as few keys as possible."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b


def place(key: str, shards: Sequence[str]) -> str:
    """The shard of a key: the same on every machine for the same list, whatever its order.

    Raises:
        ValueError: The list is empty.
    """
    return shards[0] if len(shards) == 1 else max(shards, key=lambda shard: (_weight(key, shard), shard))


@lru_cache(maxsize=100_000)
def _weight(key: str, shard: str) -> bytes:
    return blake2b(f"{shard}\0{key}".encode(), digest_size=8).digest()
