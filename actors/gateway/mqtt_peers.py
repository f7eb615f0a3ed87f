"""What the MQTT endpoints of one platform tell each other: claims of clients, INDICATIONs for them, ordinary messages.

Everything goes in batches, one way per neighbour and matter. A neighbour that is not there holds no connection, and its
sessions are in the store: a claim takes them from there and tells it later, an INDICATION or message waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from actors.gateway.mqtt_claims import Claim, Claims, Handover
from actors.window import SendWindow
from sib.errors import SibError, StoreUnavailableError
from sib.mqtt.properties import from_json, to_json
from sib.mqtt.session import Message

if TYPE_CHECKING:
    from actors.gateway.mqtt import MqttEndpoint

log = logging.getLogger(__name__)

CLAIM_S = 2.0
"""How long a neighbour may take to answer a claim; after it, it counts as not there."""
GONE_S = 0.3
"""How long a neighbour that was not there is not asked again."""
LATE_CLAIMS_MAX = 100_000
"""Claims that a neighbour has missed; beyond it the oldest are not told: the store tells it when it writes."""
ELSEWHERE_MAX = 50_000
"""Clients of which it is remembered that another gateway has them; beyond it the one heard of longest ago is forgotten."""
LOCATE_S = 10.0
"""How long a gateway that begins waits for its neighbours to say which clients they have."""
UNSENT_MAX = 20_000
"""Messages of QoS 0 that wait for a neighbour; at the bound further ones are dropped and counted."""


class PeerMessage(NamedTuple):
    """An ordinary message on its way to other gateways. ``expires_in_s`` counts from its sending."""

    topic: str
    payload: bytes
    qos: int
    is_retain: bool
    properties: list[list[Any]]
    expires_in_s: float | None
    stamp: int


class Call(Protocol):
    """Calls a method of a neighbour's ``MqttPeers``; raises a SibError when it is not there."""

    def __call__(self, gateway: str, method: str, *arguments: Any) -> Awaitable[Any]: ...


class _Item:
    __slots__ = ("done", "value")
    size_bytes: int = 200

    def __init__(self, value: Any) -> None:
        self.value = value
        self.done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.done.add_done_callback(lambda future: future.cancelled() or future.exception())

    def settle(self, result: Any) -> None:
        if not self.done.done():
            self.done.set_result(result)


class _LargeItem(_Item):
    __slots__ = ("size_bytes",)

    def __init__(self, value: Any, size_bytes: int) -> None:
        super().__init__(value)
        self.size_bytes = size_bytes + 200


class _Neighbour:
    """The ways to one other gateway."""

    def __init__(self, own_name: str, name: str, call: Call, write_timeout_s: float) -> None:
        self.name = name
        self._own_name = own_name
        self._call = call
        self._gone_at_s = float("-inf")
        self._late: OrderedDict[str, Claim] = OrderedDict()
        self._telling: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        # The first failure of a claim settles it: whoever cannot be asked does not serve the client.
        self._claims: SendWindow[_Item] = SendWindow(self._send_claims, self._not_there, give_up_s=-1)
        self.indications: SendWindow[_Item] = SendWindow(
            partial(self._send, "mqtt_indicated"), _undecided, give_up_s=write_timeout_s
        )
        self.messages: SendWindow[_Item] = SendWindow(
            partial(self._send, "mqtt_published"), _undecided, give_up_s=write_timeout_s
        )

    async def claim(self, claim: Claim) -> Handover | None:
        """What the neighbour says to a claim; None: it is not there, and is told as soon as it is."""
        if self._loop.time() - self._gone_at_s < GONE_S:
            self._tell_late(claim)
            return None
        item = _Item(claim)
        self._claims.add(item)
        answer: Handover | None = await item.done
        return answer

    async def _send_claims(self, number: int, items: Sequence[_Item]) -> None:
        claims = [item.value for item in items]
        answers = await asyncio.wait_for(self._call(self.name, "mqtt_claimed", self._own_name, claims), CLAIM_S)
        for item, answer in zip(items, answers, strict=True):
            item.settle(answer)

    def _not_there(self, items: Sequence[_Item], error: SibError) -> None:
        self._gone_at_s = self._loop.time()
        for item in items:
            self._tell_late(item.value)
            item.settle(None)

    def _tell_late(self, claim: Claim) -> None:
        self._late.pop(claim.client_id, None)
        self._late[claim.client_id] = claim
        if len(self._late) > LATE_CLAIMS_MAX:
            self._late.popitem(last=False)
        if self._telling is None:
            self._telling = self._loop.create_task(self._keep_telling())

    async def _keep_telling(self) -> None:
        """Tell of the claims that were missed: what the neighbour loads at its start may be out of date."""
        try:
            while self._late:
                claims = list(self._late.values())
                try:
                    await self._call(self.name, "mqtt_claimed", self._own_name, claims)
                except SibError:
                    await asyncio.sleep(GONE_S)
                    continue
                for claim in claims:
                    if self._late.get(claim.client_id) is claim:
                        del self._late[claim.client_id]
        finally:
            self._telling = None

    async def _send(self, method: str, number: int, items: Sequence[_Item]) -> None:
        answers = await self._call(self.name, method, self._own_name, [item.value for item in items])
        for item, answer in zip(items, answers, strict=True):
            if answer is None:
                raise StoreUnavailableError(f"the gateway {self.name} could not store it; it is sent again")
            item.settle(answer)


def _undecided(items: Sequence[_Item], error: SibError) -> None:
    for item in items:
        if not item.done.done():
            item.done.set_exception(error)


class MqttPeers:
    """The other gateways, as one endpoint sees them, and this endpoint, as they see it (the ``mqtt_*`` methods).

    Args:
        endpoint: whose peers these are.
        name: its gateway.
        gateways: the names of all gateways, in the same order everywhere.
        call: the way to them.
        pubsub: those whose clients publish and subscribe to ordinary topics.
        write_timeout_s: how long a message for another gateway is tried.
    """

    def __init__(
        self,
        endpoint: MqttEndpoint,
        name: str,
        gateways: Sequence[str],
        call: Call,
        *,
        pubsub: Iterable[str] = (),
        write_timeout_s: float = 10.0,
    ) -> None:
        self._endpoint, self._name, self._call = endpoint, name, call
        self._neighbours = {
            other: _Neighbour(name, other, call, write_timeout_s) for other in gateways if other != name
        }
        self._pubsub = [self._neighbours[other] for other in pubsub if other != name]
        self._elsewhere: OrderedDict[str, str] = OrderedDict()
        self._located = asyncio.Event()
        self._ready = asyncio.Event()
        self.claims = Claims(endpoint, self._ask, list(gateways).index(name))

    # To the others

    async def _ask(self, claim: Claim) -> list[Handover | None]:
        return await asyncio.gather(*(neighbour.claim(claim) for neighbour in self._neighbours.values()))

    def indicate(self, client_id: str, payload: bytes) -> Awaitable[None] | None:
        """Pass on an INDICATION for a client that is not here; None: it is nowhere.

        Done when it is delivered or stored there; ``StoreUnavailableError`` when that gateway was not there for too long.
        """
        gateway = self._elsewhere.get(client_id)
        if gateway is not None:
            return self._pass_on(gateway, client_id, payload)
        return None if self._located.is_set() else self._indicate_later(client_id, payload)

    async def _indicate_later(self, client_id: str, payload: bytes) -> None:
        await self._located.wait()
        waiting = self._endpoint.indicate(client_id, payload)
        if waiting is not None:
            await waiting

    async def _pass_on(self, gateway: str, client_id: str, payload: bytes) -> None:
        item = _LargeItem((client_id, payload), len(payload))
        self._neighbours[gateway].indications.add(item)
        self._endpoint.stats.peers_passed_on += 1
        if not await item.done:
            self._endpoint.stats.dropped_offline += 1
            if self._elsewhere.get(client_id) == gateway:
                del self._elsewhere[client_id]

    def publish(self, message: Message, stamp: int) -> asyncio.Future[None] | None:
        """Pass an ordinary message on to the others; at QoS 1 and 2 returns what to wait for until they have stored it."""
        if not self._pubsub:
            return None
        expires_in_s = None if message.expires_at_s is None else message.expires_at_s - self._endpoint.clock()
        passed_on = PeerMessage(
            message.topic,
            message.payload,
            message.qos,
            message.is_retain,
            to_json(message.properties),
            expires_in_s,
            stamp,
        )
        items = []
        for neighbour in self._pubsub:
            if not message.qos and neighbour.messages.depth >= UNSENT_MAX:
                self._endpoint.stats.dropped_peer_busy += 1
                continue
            item = _LargeItem(passed_on, len(message.payload))
            neighbour.messages.add(item)
            items.append(item.done)
        self._endpoint.stats.peers_passed_on += len(items)
        return asyncio.ensure_future(_all_done(items)) if items and message.qos else None

    async def locate(self, client_ids: Iterable[str]) -> None:
        """After a start: learn which of these clients other gateways have; INDICATIONs for them wait meanwhile."""
        wanted = [client_id for client_id in client_ids if client_id and client_id not in self._endpoint.sessions]
        try:
            if wanted:
                await asyncio.gather(*(self._locate_at(name, wanted) for name in self._neighbours))
        finally:
            self._located.set()

    async def _locate_at(self, gateway: str, client_ids: list[str]) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + LOCATE_S
        while loop.time() < until_s:
            try:
                held = await asyncio.wait_for(self._call(gateway, "mqtt_holds", client_ids), LOCATE_S)
            except (SibError, TimeoutError):
                await asyncio.sleep(GONE_S)
                continue
            for client_id in held:
                self._note_elsewhere(client_id, gateway)
            return
        log.warning("%s does not say which clients it has", gateway)

    def _note_elsewhere(self, client_id: str, gateway: str) -> None:
        self._elsewhere.pop(client_id, None)
        self._elsewhere[client_id] = gateway
        if len(self._elsewhere) > ELSEWHERE_MAX:
            self._elsewhere.popitem(last=False)

    # From the others

    def begin(self) -> None:
        """The endpoint has its sessions: the others may be answered."""
        self._ready.set()

    async def mqtt_claimed(self, gateway: str, claims: Sequence[Claim]) -> list[Handover]:
        """These clients have connected to another gateway."""
        await self._ready.wait()
        return await asyncio.gather(*(self._claimed(gateway, Claim(*claim)) for claim in claims))

    async def _claimed(self, gateway: str, claim: Claim) -> Handover:
        return await self.claims.hand_over(claim, partial(self._note_elsewhere, claim.client_id, gateway))

    async def mqtt_indicated(self, gateway: str, indications: Sequence[tuple[str, bytes]]) -> list[bool | None]:
        """INDICATIONs for clients that are here, in order. For each: whether it is here; None when it cannot be stored now."""
        await self._ready.wait()
        waits = []
        known = []
        for client_id, payload in indications:
            await self.claims.settled(client_id)
            known.append(client_id in self._endpoint.sessions)
            waits.append(self._endpoint.indicate(client_id, payload) if known[-1] else None)
        stored = await asyncio.gather(*map(_outcome, waits))
        return [is_known if is_stored else None for is_known, is_stored in zip(known, stored, strict=True)]

    async def mqtt_published(self, gateway: str, messages: Sequence[PeerMessage]) -> list[bool | None]:
        """Ordinary messages that another gateway got, in order."""
        await self._ready.wait()
        return await asyncio.gather(*[_outcome(self._published(PeerMessage(*message))) for message in messages])

    def _published(self, passed_on: PeerMessage) -> asyncio.Future[None] | None:
        expires_in_s = passed_on.expires_in_s
        message = Message(
            passed_on.topic,
            passed_on.payload,
            passed_on.qos,
            is_retain=passed_on.is_retain,
            properties=from_json(passed_on.properties),
            expires_at_s=None if expires_in_s is None else self._endpoint.clock() + expires_in_s,
        )
        return self._endpoint.pubsub.publish_from_peer(message, passed_on.stamp)

    async def mqtt_holds(self, client_ids: Sequence[str]) -> list[str]:
        """Those of these clients that have a session here."""
        await self._ready.wait()
        return [client_id for client_id in client_ids if client_id in self._endpoint.sessions]


async def _outcome(waiting: Awaitable[None] | None) -> bool | None:
    """True when it is stored or nothing had to be; None when it could not be."""
    try:
        if waiting is not None:
            await waiting
    except StoreUnavailableError:
        return None
    return True


async def _all_done(items: Sequence[asyncio.Future[Any]]) -> None:
    for item in items:
        await item


__all__ = ["Call", "MqttPeers", "PeerMessage"]
