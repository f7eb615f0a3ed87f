"""A disk that is full while a transfer or a compaction writes: a clear error, nothing lost, and the next run heals."""

import os
import resource
import shutil
import subprocess
from contextlib import contextmanager
from datetime import datetime, timedelta

import pytest

from sib.errors import StoreUnavailableError
from storage.bdh import parts
from storage.bdh.compaction import Compaction
from storage.bdh.local import LocalFiles
from tests.contract.history_store.conftest import World

DAY_1, DAY_2 = datetime(2026, 1, 1, 10), datetime(2026, 1, 2, 10)
DISK_BYTES = 2 << 20
COUNT = 40
FOLDER = "S/fecha=2026-01-01"


class Disk:
    """A file system of 2 MiB that other files may fill up."""

    words = "its disk is full; free some space"

    def __init__(self, folder):
        self.files = LocalFiles(folder)
        self._ballast = folder / "ballast"

    @contextmanager
    def full(self):
        self._ballast.write_bytes(bytes(shutil.disk_usage(self.files.root).free - 100_000))
        yield
        self._ballast.unlink()


class Limited(LocalFiles):
    """Files of more than 100 kB are refused by the kernel, in the middle of a write."""

    words = "a limit of the process"

    def __init__(self, folder):
        super().__init__(folder)
        self.files = self
        self._is_full = False

    def put(self, *arguments):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000 if self._is_full else soft, hard))
        try:
            super().put(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    @contextmanager
    def full(self):
        self._is_full = True
        yield
        self._is_full = False


@pytest.fixture(params=[Disk, Limited])
def disk(request, tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param is Limited:
        yield Limited(folder)
        return
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def world(tmp_path, disk):
    world = World(tmp_path, disk.files)
    yield world
    world.close()


def insert(world, numbers, at):
    """Instances of 20 kB that cannot be compressed."""
    for number in numbers:
        world.insert([number], at + timedelta(seconds=number), groupId=os.urandom(10_000).hex())


def is_clean(world):
    """Every file that has a name is whole, and nothing else takes room."""
    names = [entry.name for entry in world.files.entries(FOLDER)]
    assert all(parts.inspect(world.files, f"{FOLDER}/{name}") for name in names)
    return world.files.entries("S/_tmp") == []


def test_a_transfer_ends_and_goes_on_when_there_is_room(world, disk):
    insert(world, range(COUNT), DAY_1)
    with disk.full():
        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match=disk.words):
                world.transfer().run(DAY_2)
            assert is_clean(world)
            assert (world.history(), world.real_time()) == ([], list(range(COUNT)))
            assert world.sql("select count(*) from both.S") == [(COUNT,)]
    result = world.transfer().run(DAY_2)
    assert (result.n_resumed, result.n_moved) == (1, COUNT)
    assert (world.history(), world.real_time()) == (list(range(COUNT)), [])
    assert is_clean(world)


def test_a_compaction_ends_and_is_done_when_there_is_room(world, disk):
    for half in (range(COUNT // 2), range(COUNT // 2, COUNT)):
        insert(world, half, DAY_1)
        world.transfer().run(DAY_2)
    compaction = Compaction("S", world.files, world.manifest, now=lambda: world.now)
    with disk.full():
        with pytest.raises(StoreUnavailableError, match=disk.words):
            compaction.run()
        assert is_clean(world)
        assert (len(world.manifest.files("S")), world.history()) == (2, list(range(COUNT)))
    assert compaction.run().n_new == 1
    assert (len(world.manifest.files("S")), world.history()) == (1, list(range(COUNT)))
    assert is_clean(world)
