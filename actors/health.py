"""Whether the databases answer, asked in threads and in bounded time: one that is frozen holds up nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

from actors.config import PlatformConfig
from sib.errors import SibError
from storage.bdc.bdc import Bdc
from storage.bdc.engine import LastWrite
from storage.open import Store, open_bdtr

ANSWER_S = 2.0
"""How long whoever asks waits; a question that is still open then is not asked again but waited for."""


class Probe:
    """One database: asked by one thread at most, whatever the number of those who want to know."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._asked: asyncio.Task[float] | None = None
        self._began = 0.0

    async def health(self) -> dict[str, Any]:
        """{"state": "ok", "latency_ms": …} or {"state": "failed", "detail": a sentence}; within ``ANSWER_S``."""
        if self._asked is None:
            self._began = time.monotonic()
            self._asked = asyncio.create_task(asyncio.to_thread(self._timed))
        asked = self._asked
        done, _ = await asyncio.wait({asked}, timeout=ANSWER_S)
        if not done:
            waited_s = time.monotonic() - self._began
            return {"state": "failed", "detail": f"it has not answered for {waited_s:.0f} s; look whether it is frozen"}
        if self._asked is asked:
            self._asked = None
        try:
            return {"state": "ok", "latency_ms": round(asked.result() * 1000, 2)}
        except SibError as error:
            return {"state": "failed", "detail": error.message}
        except Exception as error:
            return {"state": "failed", "detail": f"it cannot be asked ({type(error).__name__})"}

    def _timed(self) -> float:
        began = time.perf_counter()
        self._ask()
        return time.perf_counter() - began


class Databases:
    """The three databases of one platform."""

    def __init__(self, config: PlatformConfig, bdc: Bdc) -> None:
        self._config = config
        self._stores: dict[str, Store] = {}
        self._files: Any = None
        self._bdc = Probe(lambda: void(bdc.config_version()))
        self._bdtr = {name: Probe(lambda name=name: self._ask_bdtr(name)) for name in config.topology.partitions}  # type: ignore[misc]
        self._bdh = Probe(self._ask_bdh)

    async def health(self) -> dict[str, dict[str, Any]]:
        """The health of each by its name; the BDTR is as its worst partition."""
        bdc, bdh, *partitions = await asyncio.gather(
            self._bdc.health(), self._bdh.health(), *(probe.health() for probe in self._bdtr.values())
        )
        bdtr = next((found for found in partitions if found["state"] != "ok"), None)
        if bdtr is None:
            bdtr = max(partitions, key=lambda found: float(found["latency_ms"]))
        return {"bdc": bdc, "bdtr": {**bdtr, "partitions": len(partitions)}, "bdh": bdh}

    def _ask_bdtr(self, name: str) -> None:
        if name not in self._stores:
            self._stores[name] = open_bdtr(self._config.partition_url(name), writer=False)
        void(self._stores[name].seq)

    def _ask_bdh(self) -> None:
        if self._files is None:
            from storage.bdh.files import open_files

            self._files = open_files(self._config.history_url)
        void(self._files.entries(""))


def failure_of_last(writes: Iterable[LastWrite]) -> str | None:
    """Why the last of the writes of several processes into one database failed; None if it did not."""
    return max(writes, default=(0.0, None), key=lambda write: write[0])[1]


def with_failed_writes(database: dict[str, Any], failures: Iterable[str | None]) -> dict[str, Any]:
    """The health of a database that may read but not write: a question only reads, so the last write counts.

    ``failures``: why it failed, None where it did not. It counts until a write succeeds.
    """
    failure = next(filter(None, failures), None)
    if failure is None or database["state"] != "ok":
        return database
    return {**database, "state": "failed", "detail": f"the last write failed: {failure}"}


def void(_answer: object) -> None:
    """Only that there is an answer counts."""
