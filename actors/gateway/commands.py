"""SUBSCRIBECOMMANDs of this gateway: who wants the COMMANDs of which KP instance and type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from sib.ssap.answers import format_command_indication
from sib.ssap.cipher import encipher
from sib.ssap.messages import Dialect
from sib.ssap.operations import Command, SubscribeCommand, without_kp

if TYPE_CHECKING:
    from actors.gateway.channel import Channel

ENDPOINTS_MAX = 10_000
"""SUBSCRIBECOMMANDs with a REST endpoint: nothing tells that their client is gone, so at the bound the oldest ends."""


Holder: TypeAlias = tuple[str, str, str]
"""KP, user and credential of whoever asked."""


@dataclass(frozen=True, slots=True)
class _Listener:
    """``cipher_key``: what its KP is told in; None in clear."""

    id: str
    holder: Holder
    kp: str
    instance: str
    command_type: str | None
    dialect: Dialect
    channel: Channel | None
    endpoint: str | None
    cipher_key: str | None


class Commands:
    """A listener lives until its connection closes, its REST endpoint is given up, or its token is no longer good.

    ``ended`` is told the id of each listener with an endpoint that ends.
    """

    def __init__(
        self, send_callback: Callable[[str, str, bytes], Awaitable[None] | None], ended: Callable[[str], None]
    ) -> None:
        self._send_callback = send_callback
        self._ended = ended
        self._listeners: dict[str, _Listener] = {}
        self._with_endpoint: dict[str, None] = {}
        self._of_channel: Counter[Channel] = Counter()

    def count(self, channel: Channel) -> int:
        return self._of_channel[channel]

    def add(
        self,
        id_: str,
        wish: SubscribeCommand,
        dialect: Dialect,
        channel: Channel | None,
        endpoint: str | None,
        *,
        holder: Holder,
        cipher_key: str | None = None,
    ) -> None:
        """Register a listener, by its connection or by its endpoint; with ``cipher_key`` its commands come in cipher."""
        self._listeners[id_] = _Listener(
            id_,
            holder,
            wish.kp or "",
            wish.instance_name or "",
            wish.command_type,
            dialect,
            channel,
            endpoint,
            cipher_key,
        )
        if channel is not None:
            self._of_channel[channel] += 1
            return
        self._with_endpoint[id_] = None
        if len(self._with_endpoint) > ENDPOINTS_MAX:
            self.remove(next(iter(self._with_endpoint)))

    def remove_channel(self, channel: Channel) -> None:
        if self._of_channel.pop(channel, 0):
            self._listeners = {
                id_: listener for id_, listener in self._listeners.items() if listener.channel is not channel
            }

    def remove(self, id_: str) -> None:
        """End a listener with an endpoint; an unknown id is no error."""
        if id_ in self._with_endpoint:
            del self._with_endpoint[id_], self._listeners[id_]
            self._ended(id_)

    def holders(self) -> set[Holder]:
        """Who listens."""
        return {listener.holder for listener in self._listeners.values()}

    def remove_holder(self, holder: Holder) -> None:
        """What this one listens for is not for him any more."""
        for listener in [each for each in self._listeners.values() if each.holder == holder]:
            if listener.channel is None:
                self.remove(listener.id)
            else:
                del self._listeners[listener.id]
                self._of_channel[listener.channel] -= 1

    def send(self, kp: str | None, instance: str | None, command_type: str | None, args: dict[str, object]) -> int:
        """Tell every listener of this instance and type; returns how many. A command without a type reaches nobody."""
        if command_type is None:
            return 0
        reached = 0
        command = Command(kp, instance, command_type, args)
        for listener in list(self._listeners.values()):
            same = listener.command_type == command_type and listener.instance == without_kp(instance, listener.kp)
            if not same or (kp is not None and kp != listener.kp):
                continue
            payload = format_command_indication(listener.id, listener.dialect, command)
            if listener.cipher_key is not None:
                payload = encipher(payload.decode(), listener.cipher_key).encode()
            reached += 1
            if listener.channel is not None:
                listener.channel.transport.command(payload)
            elif listener.endpoint is not None:
                self._send_callback(listener.id, listener.endpoint, payload)
        return reached
