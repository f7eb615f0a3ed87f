"""A gateway behind a relay is told what any gateway is told."""

import pytest

from actors.gateway.relay import GatewayRelay

TOLD = {
    "indicate": ("partition-0", None),
    "cep_outputs": ([],),
    "forget": (["key"],),
    "moved": (["key"],),
    "end_subscription": ("id",),
    "command": ("KP", "one", "STATUS", {}),
}


@pytest.mark.parametrize(("method", "arguments"), TOLD.items())
async def test_a_relay_hands_on_what_gateways_are_told(method, arguments):
    relay = GatewayRelay("serve-0", None)
    await getattr(relay, method)(*arguments)
    assert await relay.take() == [(None, method, arguments)]
