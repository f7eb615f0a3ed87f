"""What the platform cannot do now is no failure of a KP: it is tried for ever. Its own failures pause it."""

import asyncio

import pytest

from actors.config import PlatformConfig, Topology
from actors.kp import process
from actors.kp import restarts as restarts_module
from actors.kp.restarts import FAILURES_MAX
from actors.kp.worker import KpWorker
from actors.sandbox.errors import SandboxStartError, SandboxUnavailableError
from actors.sandbox.exits import Exit, Reason
from sib.access import Role
from sib.errors import StoreUnavailableError
from storage.bdc.bdc import open_bdc
from storage.bdc.deployments import RunState
from storage.bdc.records import KpRecord, UserRecord

MANIFEST = {"name": "KP1", "instance": "one", "entry": "main.py"}


class Program:
    """Stands for a child that ends at once."""

    pid = 1

    def __init__(self, status):
        self._status = status

    async def wait(self):
        return Exit(self._status, Reason.EXITED)

    async def close(self):
        """Nothing."""


@pytest.fixture
def bdc(tmp_path):
    bdc = open_bdc(f"sqlite:///{tmp_path}/bdc.db")
    bdc.upgrade()
    with bdc.change() as configuration:
        configuration.users.put(UserRecord("admin", Role.ADMINISTRADOR))
        configuration.kps.put(KpRecord("KP1", "admin"))
        configuration.deployments.deploy("KP1", "one", b"", MANIFEST, user="admin")
    yield bdc
    bdc.close()


async def supervised(bdc, tmp_path, monkeypatch, outcomes):
    """A worker whose starts have these outcomes; gives the deployment when it does not run any more, and how many starts."""
    monkeypatch.setattr(restarts_module, "PAUSE_S_FIRST", 0.01)
    monkeypatch.setattr("actors.kp.worker.logs.configure", lambda *_: None)
    monkeypatch.setattr(KpWorker, "_prepare", lambda *_: None)
    monkeypatch.setattr(process, "open_sandbox", lambda level: None)
    left, ended = list(outcomes), asyncio.Event()

    async def start(*_, **__):
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return Program(outcome)

    monkeypatch.setattr(process, "start", start)
    topology = Topology((), (), (), ("partition-0",), ("query-0",))
    config = PlatformConfig(str(tmp_path), f"sqlite:///{tmp_path}/bdc.db", f"sqlite:{tmp_path}", topology, listeners=())
    worker = KpWorker("kp-one", config, "KP1", "one", 3)
    finish = worker._finish

    async def finished(*arguments):
        await finish(*arguments)
        ended.set()

    monkeypatch.setattr(worker, "_finish", finished)
    async with asyncio.timeout(30):
        await ended.wait()
    stats = await worker.stats()
    await worker.stop()
    with bdc.read() as configuration:
        return configuration.deployments.get("KP1", "one"), stats, left


@pytest.mark.parametrize(
    "error", [SandboxStartError("no memory"), StoreUnavailableError("away"), OSError("no space"), RuntimeError("ours")]
)
async def test_what_the_platform_cannot_do_now_pauses_no_kp(bdc, tmp_path, monkeypatch, error):
    outcomes = [error] * (2 * FAILURES_MAX) + [0]
    deployment, stats, left = await supervised(bdc, tmp_path, monkeypatch, outcomes)
    assert (deployment.state, stats["failures"], left) == (RunState.STOPPED, 0, [])


async def test_it_does_not_count_among_failures_of_the_kp(bdc, tmp_path, monkeypatch):
    outcomes = [1, SandboxStartError("no")] * (FAILURES_MAX - 1) + [0]
    deployment, stats, left = await supervised(bdc, tmp_path, monkeypatch, outcomes)
    assert (deployment.state, stats["failures"], left) == (RunState.STOPPED, FAILURES_MAX - 1, [])


@pytest.mark.parametrize("outcome", [1, SandboxUnavailableError("Node is not installed")])
async def test_its_own_failures_pause_it(bdc, tmp_path, monkeypatch, outcome):
    deployment, stats, left = await supervised(bdc, tmp_path, monkeypatch, [outcome] * (FAILURES_MAX + 1))
    assert (deployment.state, stats["failures"], len(left)) == (RunState.PAUSED, FAILURES_MAX, 1)
