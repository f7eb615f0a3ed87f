"""SUBSCRIBECOMMANDs with an endpoint outlive their gateway, and end with the token that they were asked for with."""

import asyncio
import shutil

import pytest

from actors.config import Topology
from actors.gateway.command_listeners import CommandListeners
from sib.access import Role
from sib.errors import StoreUnavailableError
from sib.ssap.messages import Dialect
from sib.ssap.operations import SubscribeCommand
from storage.bdc.bdc import open_bdc
from storage.bdc.records import KpRecord, TokenRecord, UserRecord

TOPOLOGY = Topology(("mqtt-0",), ("http-0", "http-1"), ("shard-0",), ("partition-0",), ("worker-0",))
TOKEN = "token00000000000000000000000001"


class Gateway:
    """What a gateway does for its listeners."""

    def __init__(self, bdc, name="http-0"):
        self.posted, self.stopped, self.tasks = [], [], []
        self.listeners = CommandListeners(
            name,
            bdc,
            TOPOLOGY,
            send_callback=lambda id_, endpoint, payload: self.posted.append((id_, endpoint)),
            stop_callback=self.stopped.append,
            spawn=lambda work: self.tasks.append(asyncio.ensure_future(work)),
        )

    async def subscribe(self, bdc, id_):
        identity = bdc.identify("KP", TOKEN)
        wish = SubscribeCommand("KP", "KP:one", TOKEN, "STATUS")
        holder = ("KP", identity.user, identity.credential)
        endpoint = f"http://127.0.0.1/{id_}"
        await self.listeners.keep(id_, wish, Dialect.ONE, endpoint, holder)
        self.listeners.commands.add(id_, wish, Dialect.ONE, None, endpoint, holder=holder)

    def told(self):
        self.posted.clear()
        self.listeners.commands.send("KP", "one", "STATUS", {})
        return [id_ for id_, _ in self.posted]


@pytest.fixture
def bdc(tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path / "bdc.db")
    opened = open_bdc(f"sqlite:///{tmp_path}/bdc.db")
    with opened.change() as configuration:
        configuration.users.put(UserRecord("sofia", Role.COLABORADOR))
        configuration.kps.put(KpRecord("KP", "sofia"))
        configuration.tokens.put(TokenRecord(TOKEN, "KP"))
    yield opened
    opened.close()


def turn_off(bdc):
    with bdc.change() as configuration:
        configuration.tokens.put(TokenRecord(TOKEN, "KP", active=False))


async def test_a_gateway_that_starts_again_still_tells_its_endpoints(bdc):
    for name in ("http-0", "http-1", "http-gone"):
        await Gateway(bdc, name).subscribe(bdc, name)
    for name, told in (("http-0", ["http-0", "http-gone"]), ("http-1", ["http-1"])):
        again = Gateway(bdc, name)
        await again.listeners.restore()
        assert again.told() == told
        assert again.posted[0] == (name, f"http://127.0.0.1/{name}")
        assert TOKEN not in repr(bdc.command_listeners.load())


async def test_a_token_that_is_turned_off_ends_them_for_good(bdc):
    gateway = Gateway(bdc)
    await gateway.subscribe(bdc, "a")
    await gateway.listeners.recheck()
    assert gateway.told() == ["a"]
    turn_off(bdc)
    await gateway.listeners.recheck()
    await asyncio.gather(*gateway.tasks)
    assert (gateway.told(), gateway.stopped, bdc.command_listeners.load()) == ([], ["a"], [])


async def test_a_token_that_was_turned_off_meanwhile_is_noticed_at_the_start(bdc):
    await Gateway(bdc).subscribe(bdc, "a")
    turn_off(bdc)
    again = Gateway(bdc)
    await again.listeners.restore()
    await asyncio.gather(*again.tasks)
    assert (again.told(), bdc.command_listeners.load()) == ([], [])


async def test_an_endpoint_that_is_given_up_does_not_come_back(bdc, monkeypatch):
    gateway = Gateway(bdc)
    await gateway.subscribe(bdc, "a")
    gateway.listeners.commands.remove("a")
    await asyncio.gather(*gateway.tasks)
    assert bdc.command_listeners.load() == []

    def fail(*_):
        raise StoreUnavailableError("down")

    await gateway.subscribe(bdc, "b")
    monkeypatch.setattr(bdc.command_listeners, "delete", fail)
    gateway.listeners.commands.remove("b")
    await asyncio.gather(*gateway.tasks)
    assert gateway.told() == []
