"""Who listens for COMMANDs, beyond the life of a gateway: those with a REST endpoint are kept in the BDC.

Invariant: whoever could not SUBSCRIBECOMMAND any more (token, user, KP) is told nothing once the configuration says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from actors.config import Topology
from actors.gateway.commands import Commands, Holder
from sib.errors import StoreUnavailableError
from sib.ssap.messages import Dialect
from sib.ssap.operations import SubscribeCommand
from storage.bdc.bdc import Bdc, utc_now
from storage.bdc.records import CommandListenerRecord

log = logging.getLogger("sofia2.gateway")


class CommandListeners:
    """The listeners of one gateway: in memory (``commands``) and, as far as they have an endpoint, in the BDC.

    Args:
        name: The gateway's.
        bdc: Where they are kept.
        topology: The gateways there are.
        send_callback: POSTs to an endpoint: (id, endpoint, payload).
        stop_callback: Ends what waits for the endpoint of a listener, by its id.
        spawn: Runs work aside.
    """

    def __init__(
        self,
        name: str,
        bdc: Bdc,
        topology: Topology,
        *,
        send_callback: Callable[[str, str, bytes], Awaitable[None] | None],
        stop_callback: Callable[[str], None],
        spawn: Callable[[Coroutine[Any, Any, Any]], object],
    ) -> None:
        self.commands = Commands(send_callback, self._forget)
        self._name, self._bdc, self._gateways = name, bdc, topology.http_gateways + topology.serve_gateways
        self._stop_callback, self._spawn = stop_callback, spawn

    async def keep(self, id_: str, wish: SubscribeCommand, dialect: Dialect, endpoint: str, holder: Holder) -> None:
        """Keep a new listener; durable when it returns. ``commands.add`` makes it listen.

        Raises:
            StoreUnavailableError: the BDC cannot be written.
        """
        kp, user, credential = holder
        record = CommandListenerRecord(
            id_,
            kp,
            wish.instance_name or "",
            wish.command_type or "",
            user,
            credential,
            self._name,
            int(dialect),
            endpoint,
            utc_now(),
        )
        await asyncio.to_thread(self._bdc.command_listeners.save, record)

    async def restore(self) -> None:
        """After a start: those that were this gateway's, and the first gateway takes over those of gateways that are gone."""
        for record in await asyncio.to_thread(self._bdc.command_listeners.load):
            is_orphan = record.gateway not in self._gateways and self._name == self._gateways[0]
            if record.gateway == self._name or is_orphan:
                wish = SubscribeCommand(record.kp, record.instance, None, record.command_type or None)
                holder = record.kp, record.user, record.credential
                dialect = Dialect(record.dialect)
                self.commands.add(record.listener_id, wish, dialect, None, record.endpoint, holder=holder)
        await self.recheck()

    async def recheck(self) -> None:
        """After a change of the configuration: who must not listen any more is told nothing."""
        holders = list(self.commands.holders())
        identities = await asyncio.to_thread(self._bdc.recheck, holders) if holders else []
        for holder, identity in zip(holders, identities, strict=True):
            if identity is None:
                self.commands.remove_holder(holder)

    def _forget(self, id_: str) -> None:
        self._stop_callback(id_)
        self._spawn(self._delete(id_))

    async def _delete(self, id_: str) -> None:
        try:
            await asyncio.to_thread(self._bdc.command_listeners.delete, [id_])
        except StoreUnavailableError as error:
            log.warning("a SUBSCRIBECOMMAND that has ended comes back with the next start: %s", error)
