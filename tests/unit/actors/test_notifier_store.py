"""An INDICATION that the store of queues could not keep is tried again: it is not given up for a passing fault."""

import asyncio

from actors.feed import Indication
from actors.gateway import notifier as module
from actors.gateway.notifier import LocalSubscription, Notifier
from sib.errors import StoreUnavailableError
from sib.ssap.messages import Dialect


async def fails():
    raise StoreUnavailableError("the disk is full")


async def succeeds():
    return None


async def applied(monkeypatch, outcomes):
    monkeypatch.setattr(module, "RETRY_S", 0)
    tried = []

    def deliver(subscription, payload):
        tried.append(payload)
        return outcomes[min(len(tried), len(outcomes)) - 1]()

    notifier = Notifier(deliver)
    notifier.add(LocalSubscription("s", "k", "A", Dialect.STRING, 0))
    await asyncio.wait_for(notifier.apply(1, [Indication("A", "{}", None, ["s"])]), 5)
    return tried


async def test_a_delivery_is_tried_until_the_store_takes_it(monkeypatch):
    tried = await applied(monkeypatch, [fails, fails, succeeds])
    assert len(tried) == 3
    assert len(set(tried)) == 1


async def test_a_subscription_that_ends_is_not_insisted_on(monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0)
    tried = []

    def deliver(subscription, payload):
        tried.append(payload)
        if len(tried) == 2:
            notifier.remove("s")
        return fails()

    notifier = Notifier(deliver)
    notifier.add(LocalSubscription("s", "k", "A", Dialect.STRING, 0))
    await asyncio.wait_for(notifier.apply(1, [Indication("A", "{}", None, ["s"])]), 5)
    assert len(tried) == 2
