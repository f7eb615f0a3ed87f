"""Actors without Ray: objects of this process under their names, called as by Ray."""

import asyncio


class LocalRef:
    """Stands for ``actors.runtime.Ref``; ``actors`` holds the objects by name."""

    actors: dict = {}

    def __init__(self, name):
        self._name = name

    async def call(self, method, *arguments):
        return getattr(self.actors[self._name], method)(*arguments)

    def tell(self, method, *arguments):
        actor = self.actors.get(self._name)
        if actor is not None:
            asyncio.get_running_loop().call_soon(getattr(actor, method), *arguments)
