"""Actors without Ray: objects of this process under their names, called as by Ray."""

import asyncio
import inspect

from actors.runtime import ActorGoneError


class LocalRef:
    """Stands for ``actors.runtime.Ref``; ``actors`` holds the objects by name."""

    actors: dict = {}

    def __init__(self, name):
        self._name = name

    async def call(self, method, *arguments):
        if self._name not in self.actors:
            raise ActorGoneError(self._name)
        result = getattr(self.actors[self._name], method)(*arguments)
        return await result if inspect.isawaitable(result) else result

    def tell(self, method, *arguments):
        actor = self.actors.get(self._name)
        if actor is not None:
            asyncio.get_running_loop().call_soon(getattr(actor, method), *arguments)
