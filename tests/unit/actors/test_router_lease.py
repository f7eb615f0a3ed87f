"""Whose connection a session speaks over: a request whose connection has ended moves no session to itself."""

from types import SimpleNamespace

import pytest

from actors.operations import Origin
from actors.router import Router
from sib.ssap.envelope import Request
from sib.ssap.messages import Dialect, MessageType
from sib.ssap.operations import Unsupported


@pytest.mark.parametrize(("is_open", "client"), [(True, "c"), (False, None)])
async def test_who_asks_for_a_lease(is_open, client):
    channel = SimpleNamespace(is_open=is_open, client_id="c")
    asked, held = [], []
    lease = SimpleNamespace(is_cipher_only=False, channel="elsewhere", is_here=False, dialect=Dialect.OBJECT)

    async def request(*arguments):
        asked.append(arguments)

    def hold(granted, speaking):
        held.append(speaking)
        return lease

    core = SimpleNamespace(leases={}, sessions=SimpleNamespace(request=request), hold=hold)
    router = SimpleNamespace(_core=core)
    request_ = Request(MessageType.QUERY, "s", None, None, Dialect.OBJECT, True, Unsupported(MessageType.QUERY))
    await Router.lease(router, request_, Origin("websocket", "p", channel))
    assert asked == [("s", "lease", "s", client)]
    assert held == [channel if is_open else None]
    assert lease.channel is (channel if is_open else "elsewhere")
