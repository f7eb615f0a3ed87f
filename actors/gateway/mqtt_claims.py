"""One client id, one session, whichever gateway of the platform the client connects to.

A gateway holds the sessions of the clients that connected to it last. A CONNECT of a client that it does not hold is a claim:
all other gateways are asked to close the client's connection and let its session go; then the session comes from the store.
Claims are numbered by time, and of two at once the later one wins everywhere. Invariants: at most one gateway holds a session;
whoever has to let one go has stored what it knew before it answers; a claim that waits for an answer waits for older claims
only, so that no two wait for each other.
Source: MQTT 3.1.1, section 3.1.4 (a second CONNECT with a client id disconnects the first), MQTT 5, section 4.1.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from actors.gateway.mqtt_store import StoredMessage

if TYPE_CHECKING:
    from actors.gateway.mqtt import MqttEndpoint

GATEWAYS_MAX = 1000


class Claim(NamedTuple):
    """One CONNECT, as the other gateways are told of it."""

    client_id: str
    number: int
    is_clean: bool


class OnItsWay(NamedTuple):
    """A message sent to the client and not finished.

    ``number`` is its place in the stored queue; one that is not stored comes along. Both missing: its PUBREC came.
    """

    packet_id: int
    number: int = 0
    message: StoredMessage | None = None


class Handover(NamedTuple):
    """What a gateway says to a claim."""

    is_refused: bool = False
    """The client has connected here after it did there."""
    is_present: bool = False
    """There was a session here. If it is persistent and holds anything, it is in the store."""
    on_their_way: Sequence[OnItsWay] = ()
    waiting: Sequence[StoredMessage] = ()
    """What waits for the client and is not stored."""


class AskPeers(Protocol):
    """Asks every other gateway; None stands for one that is not there (what it held is in the store)."""

    def __call__(self, claim: Claim) -> Awaitable[list[Handover | None]]: ...


class _Pending:
    """The CONNECTs of one client that are being claimed, one at a time."""

    __slots__ = ("count", "done", "lock", "number")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.count = 0
        self.number = 0
        """Of the claim at work; 0 = none."""
        self.done: asyncio.Event = asyncio.Event()


class Claims:
    """The claims of one gateway. ``place`` is its own among all gateways: it keeps the numbers of two gateways apart."""

    def __init__(self, endpoint: MqttEndpoint, ask: AskPeers, place: int) -> None:
        self._endpoint, self._ask, self._place = endpoint, ask, place
        self._pending: dict[str, _Pending] = {}
        self._latest = 0

    def next_number(self) -> int:
        """A number above all earlier ones of this gateway, and by the clock above those of the others."""
        self._latest = max(time.time_ns() // GATEWAYS_MAX, self._latest + 1)
        return self._latest * GATEWAYS_MAX + self._place

    async def claim(
        self, client_id: str, *, is_clean: bool, is_persistent: bool, settle: Callable[[int | None], None]
    ) -> None:
        """Get a client's session here, if there is one anywhere, and then call ``settle`` with the claim's number.

        ``settle(None)``: the client has connected elsewhere after this. Claims of one client are settled in their order.

        Raises:
            StoreUnavailableError: Retryable; nothing was settled.
        """
        pending = self._pending.setdefault(client_id, _Pending())
        pending.count += 1
        try:
            async with pending.lock:
                claim = Claim(client_id, self.next_number(), is_clean)
                pending.number, pending.done = claim.number, asyncio.Event()
                try:
                    is_won = client_id in self._endpoint.sessions or await self._fetch(claim, is_persistent)
                    settle(claim.number if is_won else None)
                finally:
                    pending.number = 0
                    pending.done.set()
        finally:
            pending.count -= 1
            if not pending.count:
                self._pending.pop(client_id, None)

    async def _fetch(self, claim: Claim, is_persistent: bool) -> bool:
        answers = await self._ask(claim)
        given = [answer for answer in answers if answer is not None]
        # A session that is to end with its connection leaves nothing in the store, unless a gateway died with an earlier one.
        if is_persistent or len(given) < len(answers):
            await self._endpoint.adopt(claim.client_id, next((one for one in given if one.is_present), None))
        return not any(answer.is_refused for answer in given)

    async def settled(self, client_id: str) -> None:
        """Wait for the CONNECT of this client that is being claimed, if there is one."""
        pending = self._pending.get(client_id)
        if pending is not None and pending.number:
            await pending.done.wait()

    async def hand_over(self, claim: Claim, gone: Callable[[], None]) -> Handover:
        """Another gateway claims a client: close its connection here and let its session go.

        ``gone`` is called when from now on the client is there: before anything can be told to it that is not handed over.
        """
        while (pending := self._pending.get(claim.client_id)) is not None and pending.number:
            if pending.number > claim.number:
                return Handover(is_refused=True)
            await pending.done.wait()
        session = self._endpoint.sessions.get(claim.client_id)
        if session is not None and session.claimed_at > claim.number:
            return Handover(is_refused=True)
        gone()
        if session is None:
            return Handover()
        return await self._endpoint.let_go(session, is_clean=claim.is_clean)
