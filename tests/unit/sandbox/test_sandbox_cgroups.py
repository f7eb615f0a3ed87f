"""Control groups of both versions, on folders that look like theirs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from actors.sandbox import cgroups
from actors.sandbox.cgroups import CgroupsV1, CgroupsV2, find_cgroups, memory_bytes, quota_us, sweep
from actors.sandbox.limits import Limits

LIMITS = Limits(memory_mb=64, disk_mb=8, cpu=0.25, processes=10)
FILES_V2 = ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max", "cgroup.procs", "cgroup.kill")


@pytest.fixture
def tree_v2(tmp_path):
    """The unified tree, with this process in one branch of it."""
    own = tmp_path / "system.slice" / "sofia2.service"
    own.mkdir(parents=True)
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    for folder in (tmp_path, own.parent, own):
        (folder / "cgroup.subtree_control").write_text("")
    return tmp_path


def test_version_2_limits(tree_v2):
    place = CgroupsV2(tree_v2)
    group = place.create(LIMITS, helpers=2)
    (join,) = group.joins()
    folder = join.parent
    assert (tree_v2 / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert (folder / "memory.max").read_text() == str(memory_bytes(LIMITS))
    assert (folder / "memory.swap.max").read_text() == "0"
    assert (folder / "memory.oom.group").read_text() == "1"
    assert (folder / "pids.max").read_text() == "12"
    assert (folder / "cpu.max").read_text() == "25000 100000"


def test_version_2_usage(tree_v2):
    group = CgroupsV2(tree_v2).create(LIMITS)
    folder = group.joins()[0].parent
    assert group.usage() == cgroups.Usage()
    assert group.out_of_memory_count() == 0
    (folder / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    (folder / "memory.current").write_text("4096\n")
    (folder / "memory.peak").write_text("8192\n")
    (folder / "pids.current").write_text("3\n")
    (folder / "memory.events").write_text("low 0\noom 2\noom_kill 2\n")
    assert group.usage() == cgroups.Usage(1.5, 4096, 8192, 3)
    assert group.out_of_memory_count() == 2
    group.kill()
    assert (folder / "cgroup.kill").read_text() == "1"


def test_version_1_limits_and_usage(tmp_path):
    place = CgroupsV1({name: tmp_path / name for name in ("memory", "pids", "cpu", "cpuacct")})
    for name in ("memory", "pids", "cpu", "cpuacct"):
        (tmp_path / name).mkdir()
    group = place.create(LIMITS, helpers=2)
    memory, pids, cpu, account = (path.parent for path in group.joins())
    assert (memory / "memory.limit_in_bytes").read_text() == str(memory_bytes(LIMITS))
    assert (pids / "pids.max").read_text() == "12"
    assert (cpu / "cpu.cfs_quota_us").read_text() == "25000"
    (account / "cpuacct.usage").write_text("2500000000\n")
    (memory / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    assert group.usage().cpu_s == 2.5
    assert group.out_of_memory_count() == 1


def test_a_group_that_cannot_be_limited_is_not_left(tmp_path, monkeypatch):
    (tmp_path / "cgroup.subtree_control").write_text("memory pids cpu")

    def refuse(file, text):
        raise PermissionError(file)

    monkeypatch.setattr(cgroups, "_write", refuse)
    with pytest.raises(PermissionError):
        CgroupsV2(tmp_path).create(LIMITS)
    assert list(tmp_path.glob("sofia2-*")) == []


def test_the_own_branch_is_tried_first_then_what_is_above(tree_v2, monkeypatch):
    tried = []

    class Place:
        version = 2

        def __init__(self, base):
            self.base = base

        def create(self, limits, *, helpers=0):
            tried.append(self.base)
            raise PermissionError

    monkeypatch.setattr(cgroups, "CgroupsV2", Place)
    assert find_cgroups(tree_v2, "0::/system.slice/sofia2.service\n") is None
    assert tried == [tree_v2 / "system.slice/sofia2.service", tree_v2 / "system.slice", tree_v2]


def test_without_the_controllers_there_is_no_place(tmp_path):
    (tmp_path / "memory").mkdir()
    assert find_cgroups(tmp_path, "3:memory:/\n0::/\n") is None


def test_the_smallest_quota_is_the_kernel_s():
    assert quota_us(Limits(cpu=0.01)) == 1000
    assert quota_us(Limits(cpu=2.5)) == 250_000


def test_groups_of_dead_supervisors_are_swept(tmp_path):
    dead = 2**22 + 1
    assert not Path(f"/proc/{dead}").exists()
    for name in (f"sofia2-sandbox-{dead}-1", f"sofia2-sandbox-{os.getpid()}-1", "sofia2-sandbox-x", "other"):
        (tmp_path / name).mkdir()
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["other", f"sofia2-sandbox-{os.getpid()}-1", "sofia2-sandbox-x"]
    )
