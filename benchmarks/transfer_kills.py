"""Processes that move instances from a BDTR to the history and are killed; and the count of what is left where.

    python -m benchmarks.transfer_kills random FOLDER KILLS SEED    kill -9 at random moments, with a writer
    python -m benchmarks.transfer_kills point FOLDER N              kill -9 of itself at the Nth event
    python -m benchmarks.transfer_kills insert FOLDER N             N instances, without anything else

FOLDER holds ``places.json`` (``Places``): the databases and the history.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import bson
import pyarrow.parquet as pq

from benchmarks.report import ROOT
from sib.errors import StoreUnavailableError
from sib.ontology import compile_ontology
from sib.ontology.templates import template
from storage.bdc.bdc import Bdc, open_bdc
from storage.bdh.adapter import RangeFile
from storage.bdh.compaction import Compaction
from storage.bdh.files import HistoryFiles, open_files
from storage.bdh.transfer import Transfer, TransferStore
from storage.bdh.unknown import UnknownFiles
from storage.bdtr import mongo_moving, moving
from storage.bdtr.model import context_head
from storage.open import Store, open_bdtr, transfer_journal

NOW = datetime(2026, 6, 1)
FIRST = datetime(2026, 1, 1, 23, 59, 59, 900_000)
"""Two batches before midnight: transfers go into several days."""
BATCH, BATCH_MS = 50, 50
MOVED = 120
"""Instances of one transfer: most moments are in the middle of one."""
COMPACTED_BYTES = 600_000
LIFE_S = 1.0
"""The longest life of a process that moves instances."""
WRITER_ENDS_EVERY = 5
"""One of so many kills hits the writer, too."""
WRITE_PAUSE_S = 0.02
TRIES = 20

ONTOLOGY = compile_ontology("S", template("SensorPoint").schema_text)
HEAD = context_head({"user": "u", "kp": "k"})


@dataclass(frozen=True)
class Places:
    """URLs of a BDTR, a BDC and a history."""

    bdtr: str
    bdc: str
    bdh: str

    def save(self, folder: Path) -> None:
        """For the processes to come: URLs may hold passwords, which are no arguments."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "places.json").write_text(json.dumps(asdict(self)))

    @contextmanager
    def opened(self) -> Iterator[World]:
        """All three, as a writer."""
        world = World(self)
        try:
            yield world
        finally:
            world.close()


def local_places(folder: Path) -> Places:
    """SQLite and a local folder."""
    return Places(f"sqlite:{folder}/bdtr.db", f"sqlite:///{folder}/bdc.db", f"file:{folder}/bdh")


class World:
    """A BDTR, a BDC and a history that are open."""

    def __init__(self, places: Places) -> None:
        self.bdc: Bdc = open_bdc(places.bdc)
        self.bdc.upgrade()
        self.store: Store = open_bdtr(places.bdtr, writer=True)
        self.files: HistoryFiles = open_files(places.bdh)

    def close(self) -> None:
        """Close all three."""
        self.files.close()
        self.store.close()
        self.bdc.close()

    def insert(self, number: int, *, again: bool = False) -> None:
        """Insert a batch, once whatever happens: sent again it stores nothing. Every tenth one updates what is older."""
        numbers = range(number * BATCH, (number + 1) * BATCH)
        documents = [{"Sensor": {"measure": float(n), "assetId": str(n)}} for n in numbers]
        now_ms = int((FIRST - datetime(1970, 1, 1)) / timedelta(milliseconds=1)) + number * BATCH_MS
        with self.store.begin() as transaction:
            if again and transaction.recall("writer", number) is not None:
                return
            transaction.append("S", list(map(bson.encode, documents)), documents, [HEAD] * BATCH, now_ms)
            transaction.remember("writer", number, b"done")

    def update(self, asset: int) -> bool:
        """Mark an instance; whether it was (still) in the BDTR."""
        change = {"$set": {"Sensor.groupId": "u"}}
        with self.store.begin() as transaction:
            result = transaction.update("S", {"Sensor.assetId": str(asset)}, change, multi=False, now=NOW)
        return bool(result.modified)

    def transfer(self, **parts: Any) -> Transfer:
        """A transfer, with parts of it replaced."""
        given = {"store": self.store, "steps": transfer_journal(self.store), "files": self.files}
        return Transfer(
            ONTOLOGY, **{**given, "manifest": self.bdc.history, **parts}, now=lambda: NOW, batch_documents=MOVED
        )

    def compaction(self) -> Compaction:
        """A compaction into files of a bounded size."""
        return Compaction("S", self.files, self.bdc.history, now=lambda: NOW, memory_bytes_max=COMPACTED_BYTES)


# ---------------------------------------------------------------------- counting


@dataclass(frozen=True)
class Count:
    """What is where, after all that was interrupted has been finished. ``stray``: files left that nobody knows."""

    n_acknowledged: int
    n_found: int
    n_history: int
    n_lost: int
    n_double: int
    n_unknown: int
    n_updates: int
    n_updates_lost: int
    n_stray: int


def count(places: Places, folder: Path) -> Count:
    """Finish what was interrupted, then look for every instance in the BDTR and in the files that count."""
    with places.opened() as world:
        before = FIRST + timedelta(milliseconds=BATCH_MS)  # some stay where they are
        world.transfer().run(before)
        # What a killed compaction left is nobody's: the sweep takes it once it is old, here by a clock far ahead.
        store = cast(TransferStore, world.store)
        swept = UnknownFiles("S", world.files, world.bdc.history, store, now=lambda: datetime(2126, 1, 1)).sweep()
        real_time = [document["Sensor"] for document in world.store.find("S")]
        history = list(_rows(world))
        stray = len(world.files.entries("S/_tmp")) + swept.n_unknown
    found = Counter(int(sensor["measure"]) for sensor in [*real_time, *history])
    marked = {sensor["assetId"] for sensor in [*real_time, *history] if sensor.get("groupId") == "u"}
    n = int(_read(folder / "acknowledged") or 0) * BATCH
    updated = _read(folder / "updated").split()
    return Count(
        n_acknowledged=n,
        n_found=sum(found.values()),
        n_history=len(history),
        n_lost=sum(number not in found for number in range(n)),
        n_double=sum(times - 1 for times in found.values()),
        n_unknown=sum(number >= n for number in found),
        n_updates=len(updated),
        n_updates_lost=sum(asset not in marked for asset in updated),
        n_stray=stray,
    )


def _rows(world: World) -> Iterator[dict[str, Any]]:
    for record in world.bdc.history.files("S"):
        path = f"S/fecha={record.day}/{record.name}"
        rows = pq.read_table(RangeFile(world.files, path), columns=["Sensor"])["Sensor"].to_pylist()
        stale = set(record.stale_rows)
        yield from (row for at, row in enumerate(rows) if at not in stale)


def _read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


# ---------------------------------------------------------------------- processes


def run(command: str, folder: Path, *arguments: object, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    """Run a command of this module as a process of its own."""
    line = [sys.executable, "-m", "benchmarks.transfer_kills", command, str(folder), *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s)


def kill_at_random(places: Places, folder: Path, n_kills: int, chance: random.Random) -> None:
    """Load everything once, then fork: each child moves instances until it is killed, while another one writes."""
    _warm_up(folder / "warm")
    began, started = os.pipe()
    writer = _child(lambda: _write(places, folder))
    for number in range(n_kills):
        mover = _child(lambda: _move(places, folder, started))
        os.read(began, 1)
        time.sleep(chance.uniform(0.0, LIFE_S))
        _kill(mover)
        if number % WRITER_ENDS_EVERY == WRITER_ENDS_EVERY - 1:
            _kill(writer)
            writer = _child(lambda: _write(places, folder))
    (folder / "stop").touch()
    os.waitpid(writer, 0)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "a process ended by itself"


def _child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    return pid


def _warm_up(folder: Path) -> None:
    """What is loaded and compiled only once is so before the children begin; nothing stays open."""
    folder.mkdir()
    with local_places(folder).opened() as world:
        for number in range(5):
            world.insert(number)
        world.transfer().run(NOW)
        world.compaction().run()


def _write(places: Places, folder: Path) -> None:
    with places.opened() as world, (folder / "updated").open("a") as updated:
        number = int(_read(folder / "acknowledged") or 0)
        while not (folder / "stop").exists():
            _patiently(world.insert, number, again=True)
            number += 1
            _note(folder / "acknowledged", str(number))
            older = (number - 4) * BATCH
            if number % 10 == 0 and _patiently(world.update, older):
                updated.write(f"{older}\n")
                updated.flush()
            time.sleep(WRITE_PAUSE_S)


def _note(file: Path, text: str) -> None:
    """Replace a file as a whole: the writer may be killed at any moment."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)


def _patiently(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """A store may be busy with ending what a killed process has begun: as a gateway does, the same is sent again."""
    for _ in range(TRIES):
        try:
            return call(*arguments, **options)
        except StoreUnavailableError:
            time.sleep(0.1)
    return call(*arguments, **options)


def _move(places: Places, folder: Path, started: int) -> None:
    with places.opened() as world:
        resumed = os.open(folder / "resumed", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(started, b"r")
        result = _patiently(world.transfer().resume)
        os.write(resumed, b"r" * result.n_resumed)
        while True:
            _patiently(world.transfer().run, NOW)
            _patiently(world.compaction().run)
            time.sleep(0.005)


def n_resumed(folder: Path) -> int:
    """Transfers that a kill had interrupted after their plan, and that the next process finished."""
    return len(_read(folder / "resumed"))


def kill_at(places: Places, point: int) -> None:
    """Move all instances, and kill ourselves at an event: before and after each step and each file, and in between."""
    with places.opened() as world:
        events = _Events(point)
        for module, name in ((moving.Moving, "take_out"), (mongo_moving, "_take_out")):
            setattr(module, name, events.after(getattr(module, name)))
        steps, files = events.watched(transfer_journal(world.store)), events.watched(world.files)
        world.transfer(steps=steps, files=files, manifest=events.watched(world.bdc.history)).run(NOW)


class _Events:
    STEPS = frozenset({"plan", "commit", "abandon", "publish", "put", "add", "delete"})

    def __init__(self, point: int) -> None:
        self._left = point

    def happen(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def after(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            self.happen()
            return result

        return call

    def watched(self, inner: Any) -> Any:
        return _Watched(inner, self)


class _Watched:
    def __init__(self, inner: Any, events: _Events) -> None:
        self._inner = inner
        self._events = events

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in _Events.STEPS:
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            self._events.happen()
            if name == "put":
                self._half_written(*arguments)
                self._events.happen()
            result = found(*arguments, **options)
            self._events.happen()
            return result

        return call

    def _half_written(self, _: str, tmp_path: str, data: memoryview) -> None:
        self._inner.delete(tmp_path)
        self._inner.put(tmp_path, f"{tmp_path}.x", data[: len(data) // 2])


def main() -> None:
    """Carry out a command (see above)."""
    command, folder = sys.argv[1], Path(sys.argv[2])
    places = Places(**json.loads((folder / "places.json").read_text()))
    if command == "random":
        kill_at_random(places, folder, int(sys.argv[3]), random.Random(int(sys.argv[4])))
    elif command == "point":
        kill_at(places, int(sys.argv[3]))
    elif command == "insert":
        with places.opened() as world:
            for number in range(int(sys.argv[3]) // BATCH):
                world.insert(number)
                _note(folder / "acknowledged", str(number + 1))
    print("done", flush=True)


if __name__ == "__main__":
    main()
