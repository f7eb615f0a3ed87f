"""A gateway that takes over a configuration takes over all of it, also when the database stops answering meanwhile."""

from types import SimpleNamespace

import pytest

from actors.gateway.core import GatewayCore
from sib.errors import StoreUnavailableError


async def test_a_reload_that_failed_halfway_is_repeated_as_a_whole():
    done, down = [], [True]

    async def refresh_aside():
        is_new, catalog.version = catalog.version != 2, 2
        return is_new

    def cipher_keys():
        if down.pop() if down else False:
            raise StoreUnavailableError("it restarts")
        return {}

    async def recheck():
        done.append("rechecked")

    catalog = SimpleNamespace(version=1, refresh_aside=refresh_aside)
    core = SimpleNamespace(
        catalog=catalog,
        bdc=SimpleNamespace(cipher_keys=cipher_keys),
        has_cep=False,
        listeners=SimpleNamespace(recheck=recheck),
        _applied_version=1,
        _take_login_limits=lambda: None,
        _renew_leases=lambda: done.append("renewed"),
    )
    with pytest.raises(StoreUnavailableError):
        await GatewayCore.reload(core)
    for _ in range(2):
        assert await GatewayCore.reload(core) == 2
        assert done == ["renewed", "rechecked"]
