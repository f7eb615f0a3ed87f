"""A gateway that takes over a configuration takes over all of it, also when the database stops answering meanwhile."""

from types import SimpleNamespace

import pytest

from actors.gateway import core as module
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


async def test_what_a_session_may_hear_is_asked_until_it_is_known(monkeypatch):
    monkeypatch.setattr(module, "RENEW_RETRY_S", 0)
    answers = [
        StoreUnavailableError("it restarts"),
        StoreUnavailableError("still"),
        SimpleNamespace(rights={}, user="u"),
    ]
    muted = []

    async def request(*_):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    core = SimpleNamespace(
        sessions=SimpleNamespace(request=request),
        notifier=SimpleNamespace(
            has_session=lambda key: True, mute_except=lambda key, heard: muted.append((key, heard))
        ),
        leases={},
        catalog=SimpleNamespace(ontologies={}),
        _cep_outputs={},
    )
    await GatewayCore._renew(core, "s")
    assert muted == [("s", set())]


async def test_of_a_session_that_has_gone_nothing_is_asked_again(monkeypatch):
    monkeypatch.setattr(module, "RENEW_RETRY_S", 0)
    asked = []

    async def request(*_):
        asked.append(1)
        raise StoreUnavailableError("it restarts")

    core = SimpleNamespace(
        sessions=SimpleNamespace(request=request), notifier=SimpleNamespace(has_session=lambda key: False)
    )
    await GatewayCore._renew(core, "s")
    assert asked == [1]
