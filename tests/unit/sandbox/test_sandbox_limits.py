"""Limits and their bounds, the pace, the reasons of an end, and what is ordered of the first program."""

from __future__ import annotations

import marshal
import signal
from dataclasses import fields
from pathlib import Path

import pytest

from actors.sandbox import confinement, interpreter
from actors.sandbox.cgroups import Usage
from actors.sandbox.exits import Exit, Reason, reason_of
from actors.sandbox.limits import Limits
from actors.sandbox.output import OutputBudget
from actors.sandbox.pacing import TokenBucket
from actors.sandbox.program import View
from actors.sandbox.sandbox import Level, Sandbox
from sib.errors import ConfigurationError


class FakeCgroups:
    version = 2

    def create(self, limits, *, helpers=0):
        raise NotImplementedError


BWRAP = Path("/usr/bin/bwrap")
ROOT = Sandbox(Level.FULL, BWRAP, FakeCgroups(), has_own_users=True, landlock_abi=7)
USER = Sandbox(Level.FULL, BWRAP, None, has_own_users=False, landlock_abi=7)
FALLBACK = Sandbox(Level.CONFINED, None, None, has_own_users=False, landlock_abi=7)


def test_the_defaults_are_within_their_bounds():
    assert Limits().timeout_s is None


@pytest.mark.parametrize("name", [field.name for field in fields(Limits) if field.name != "can_fork"])
@pytest.mark.parametrize("value", [0, -1, "1", True, float("nan"), float("inf"), 1e300])
def test_a_limit_out_of_its_bounds_is_refused(name, value):
    with pytest.raises(ConfigurationError, match=name):
        Limits(**{name: value})


def test_tokens_come_back_with_time():
    now_s = 0.0
    bucket = TokenBucket(10.0, 5.0, lambda: now_s)
    assert [bucket.take() for _ in range(4)] == [0.0] * 4
    wait_s = bucket.take()
    assert wait_s == pytest.approx(0.1)
    now_s = wait_s
    assert bucket.take() == pytest.approx(0.1)
    now_s = 100.0
    assert [bucket.take() for _ in range(4)] == [0.0] * 4, "no more than the burst is saved up"
    assert bucket.take() > 0


def test_a_large_take_is_waited_for_afterwards():
    now_s = 0.0
    bucket = TokenBucket(100.0, 100.0, lambda: now_s)
    assert bucket.take(1100) == pytest.approx(10.0, rel=0.01)


def test_output_is_cut_at_its_bound():
    spent = []
    budget = OutputBudget(10, lambda: spent.append(True))
    assert budget.spend(b"123456") == b"123456"
    assert not spent
    assert budget.spend(b"7890") == b"7890"
    assert not spent
    assert budget.spend(b"x") == b""
    assert spent
    assert OutputBudget(None, spent.clear).spend(b"x" * 1000) == b"x" * 1000


@pytest.mark.parametrize(
    ("status", "is_out_of_memory", "reason"),
    [
        (0, False, Reason.EXITED),
        (1, True, Reason.EXITED),
        (127, False, Reason.EXITED),
        (128, False, Reason.EXITED),
        (128 + signal.SIGKILL, True, Reason.MEMORY),
        (128 + signal.SIGKILL, False, Reason.SIGNAL),
        (128 + signal.SIGSYS, False, Reason.SECCOMP),
        (128 + signal.SIGXCPU, False, Reason.CPU),
        (128 + signal.SIGSEGV, True, Reason.SIGNAL),
        (255, False, Reason.EXITED),
    ],
)
def test_reason_of_an_end(status, is_out_of_memory, reason):
    assert reason_of(status, is_out_of_memory=is_out_of_memory) is reason


@pytest.mark.parametrize("reason", Reason)
def test_every_end_can_be_told(reason):
    text = Exit(139, reason, "detail", Usage()).describe()
    assert text.startswith(("it ", "its "))
    assert ("SIGSEGV" in text) == (reason is Reason.SIGNAL)


def test_only_what_is_bounded_together_may_fork():
    assert ROOT.can_fork(Limits())
    assert not ROOT.can_fork(Limits(can_fork=False))
    assert not USER.can_fork(Limits())
    assert not Sandbox(Level.CONFINED, None, FakeCgroups()).can_fork(Limits())


@pytest.mark.parametrize("sandbox", [ROOT, USER, FALLBACK])
def test_an_order_crosses_the_channel(sandbox):
    order = confinement.order(sandbox, Limits(timeout_s=3.0), (View(Path("/srv/kp"), "/kp"),), pid=77)
    assert marshal.loads(marshal.dumps(order)) == order
    place = "/kp" if sandbox.level is Level.FULL else "/srv/kp"
    assert place in order["readable"]
    assert "/" not in order["readable"]
    assert ("RLIMIT_AS" in order["limits"]) == (sandbox.cgroups is None)
    assert order["limits"]["RLIMIT_CPU"] >= 3
    assert (order["uid"] is None) == (not sandbox.has_own_users)
    assert set(order["writable"]) <= {"/work", "/tmp", "/dev/null"}
    assert (order["work"] is None) == (sandbox.level is Level.CONFINED)


def test_filters_differ_in_what_they_forbid():
    from actors.sandbox.seccomp import build_filter

    filters = {build_filter(has_namespaces=a, can_fork=b) for a in (True, False) for b in (True, False)}
    assert len(filters) == 4
    assert all(len(program) % 8 == 0 and len(program) // 8 < 4096 for program in filters), (
        "the kernel takes 4096 instructions"
    )


def test_bubblewrap_gets_no_network_and_no_writable_view():
    for sandbox in (ROOT, USER):
        parts = (
            confinement.bwrap_arguments(sandbox, (View(Path("/srv/kp"), "/kp/a/b"),), information=9)
            .decode()
            .split("\0")
        )
        assert {
            "--unshare-net",
            "--unshare-pid",
            "--unshare-ipc",
            "--unshare-uts",
            "--clearenv",
            "--die-with-parent",
        } <= set(parts)
        assert not {"--bind", "--share-net", "--dev", "--bind-try"} & set(parts)
        assert parts.index("/kp/a") < parts.index("/kp/a/b")
        assert ("--unshare-user" in parts) == (sandbox is USER)


def test_the_command_is_quoted_for_the_shell():
    launch = confinement.launch(
        Sandbox(Level.FULL, Path("/odd place/it's/bwrap")),
        channel=5,
        arguments=6,
        joins=[Path("/sys/a b/cgroup.procs")],
    )
    assert launch.argv[:2] == ("/bin/sh", "-c")
    assert launch.argv[-1] == "/sys/a b/cgroup.procs"
    assert "'/odd place/it'\"'\"'s/bwrap'" in launch.argv[2]
    assert launch.environment == {}


def test_installed_packages_are_not_part_of_the_interpreter():
    assert not [path for path in interpreter.library_parts() if path.name.endswith("-packages")]
    assert all(path.parent == interpreter.library() for path in interpreter.library_parts())
