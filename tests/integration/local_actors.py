"""Actors without Ray: objects of this process under their names, called as by Ray."""

import asyncio
import inspect
import time

from actors.runtime import ActorGoneError, Ref


class LocalRef:
    """What ``actors.runtime.Ref`` does in a test; ``actors`` holds the objects by name."""

    actors: dict = {}

    async def call(self, method, *arguments):
        if self.name not in LocalRef.actors:
            raise ActorGoneError(self.name)
        result = getattr(LocalRef.actors[self.name], method)(*arguments)
        return await result if inspect.isawaitable(result) else result

    def tell(self, method, *arguments):
        actor = LocalRef.actors.get(self.name)
        if actor is not None:
            asyncio.get_running_loop().call_soon(getattr(actor, method), *arguments)


def use_local_actors(monkeypatch, actors):
    """From here to the end of the test every reference means these objects; more may be put into the map."""
    monkeypatch.setattr(LocalRef, "actors", actors)
    for name in ("call", "tell"):
        monkeypatch.setattr(Ref, name, getattr(LocalRef, name))


async def until(is_done, timeout_s=20):
    """Wait for something; what it gives at last."""
    end = time.monotonic() + timeout_s
    while True:
        found = is_done()
        if asyncio.iscoroutine(found):
            found = await found
        if found or time.monotonic() > end:
            assert found, "it did not come about"
            return found
        await asyncio.sleep(0.01)
