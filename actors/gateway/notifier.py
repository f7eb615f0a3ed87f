"""INDICATIONs on their last way: from a partition's announcements to the connections of this gateway.

Invariants: an INDICATION never precedes the answer to its SUBSCRIBE, never follows the answer to its UNSUBSCRIBE or LEAVE; two
INDICATIONs of one subscription are at least ``ms_refresh`` apart and nothing that matched in between is lost; a change counts as
delivered only when all its INDICATIONs are written, queued durably or given up.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence, Set
from typing import Any

from actors.feed import Indication
from sib.errors import StoreUnavailableError
from sib.ssap.answers import Rows, format_cep_indication, format_indication, format_indication_rest
from sib.ssap.cipher import encipher
from sib.ssap.messages import Dialect

CEP = "cep:"
"""Before the name of an output of CEP rules where other subscriptions have their ontology."""
ROWS_PER_INDICATION_MAX = 1000
"""Instances in one INDICATION; more make further INDICATIONs."""
ROWS_COLLECTED_MAX = 10_000
"""Instances that one subscription collects during ``ms_refresh``; at the bound they are sent early rather than lost."""
RETRY_S = 0.5
LINGER_S = 5.0
"""How long what was announced before a session went to another gateway may still come here."""
EARLY_S = 5.0
"""How long what is announced for a session that comes from another gateway waits for it."""
EARLY_ROWS_MAX = 10_000
"""Instances that wait so; at the bound further ones are dropped and counted."""
ENDED_MAX = 10_000
"""Subscriptions that have ended of which it is remembered: nothing waits for them."""


class _Early:
    """What was announced for a subscription that is not here yet."""

    __slots__ = ("done", "ontology", "rows")

    def __init__(self, ontology: str, done: asyncio.Future[None]) -> None:
        self.ontology = ontology
        self.rows: list[tuple[str | None, bytes | None]] = []
        self.done = done


class LocalSubscription:
    """A subscription whose session speaks through this gateway."""

    __slots__ = (
        "cipher_key", "client", "dialect", "endpoint", "flushed", "id", "is_announced", "is_muted", "last_at_s", "ms_refresh",
        "ontology", "output", "pending", "session_key", "timer",
    )  # fmt: skip

    def __init__(
        self,
        id_: str,
        session_key: str,
        ontology: str,
        dialect: Dialect,
        ms_refresh: int,
        *,
        cipher_key: str | None = None,
        endpoint: str | None = None,
        client: str = "",
        is_announced: bool = True,
        output: str | None = None,
    ) -> None:
        self.client = client
        self.output = output
        """The output of CEP rules that it is about, as the SUBSCRIBE named it; None for an ontology."""
        self.id, self.session_key, self.ontology, self.dialect = id_, session_key, ontology, dialect
        self.ms_refresh, self.cipher_key, self.endpoint = ms_refresh, cipher_key, endpoint
        self.is_announced = is_announced
        self.is_muted = False
        self.last_at_s = -1e9
        self.pending: list[Any] = []
        self.timer: asyncio.TimerHandle | None = None
        self.flushed: asyncio.Future[None] | None = None


class Notifier:
    """All subscriptions of this gateway.

    ``deliver(subscription, payload)`` hands one INDICATION to its connection or endpoint; it returns an awaitable when delivery
    takes time and has to be waited for (a durable queue, a REST callback), None when it is done or nobody is there.
    """

    def __init__(self, deliver: Callable[[LocalSubscription, bytes], Awaitable[None] | None]) -> None:
        self._deliver = deliver
        self._subscriptions: dict[str, LocalSubscription] = {}
        self._of_session: dict[str, set[str]] = {}
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time
        self._waiters: set[asyncio.Future[None]] = set()
        self._leaving: dict[str, asyncio.TimerHandle] = {}
        """Sessions that speak through another gateway now."""
        self._early: dict[str, _Early] = {}
        self._early_rows = 0
        self._ended: OrderedDict[str, None] = OrderedDict()
        self.indications = self.stale = 0

    def __len__(self) -> int:
        return len(self._subscriptions)

    def add(self, subscription: LocalSubscription) -> None:
        """Register; one that is known keeps its state. What was announced before is sent now."""
        leaving = self._leaving.pop(subscription.session_key, None) if subscription.endpoint is None else None
        if leaving is not None:
            leaving.cancel()
        known = self._subscriptions.get(subscription.id)
        if known is not None:
            known.client = subscription.client or known.client
            return
        self._subscriptions[subscription.id] = subscription
        self._of_session.setdefault(subscription.session_key, set()).add(subscription.id)
        early = self._early.pop(subscription.id, None)
        if early is not None:
            self._catch_up(subscription, early)

    def _catch_up(self, subscription: LocalSubscription, early: _Early) -> None:
        self._early_rows -= len(early.rows)
        is_one = subscription.dialect is Dialect.ONE
        subscription.pending += [row for legacy, one in early.rows if (row := one if is_one else legacy) is not None]
        waits = self._flush(subscription) if subscription.is_announced else []
        asyncio.ensure_future(_all(waits)).add_done_callback(lambda _: early.done.set_result(None))

    def announce(self, subscription_id: str) -> None:
        """The answer to its SUBSCRIBE is written: from now on INDICATIONs may follow, those held back at once."""
        subscription = self._subscriptions.get(subscription_id)
        if subscription is not None and not subscription.is_announced:
            subscription.is_announced = True
            if subscription.pending:
                self._flush(subscription)

    def remove(self, subscription_id: str) -> LocalSubscription | None:
        """No INDICATION of it is sent from now on; what is pending is dropped."""
        subscription = self._subscriptions.pop(subscription_id, None)
        if subscription is None:
            return None
        self._of_session.get(subscription.session_key, set()).discard(subscription_id)
        if subscription.timer is not None:
            subscription.timer.cancel()
        subscription.pending.clear()
        _settle(subscription, [])
        self._ended[subscription_id] = None
        if len(self._ended) > ENDED_MAX:
            self._ended.popitem(last=False)
        return subscription

    def has_session(self, session_key: str) -> bool:
        return bool(self._of_session.get(session_key))

    def sessions(self) -> list[str]:
        """The sessions with subscriptions here."""
        return [
            session_key
            for session_key, ids in self._of_session.items()
            if ids and (session_key not in self._leaving or len(ids) > len(self._leaving_of(session_key)))
        ]

    def clients(self) -> set[str]:
        """The MQTT clients (by id) whose sessions have subscriptions here."""
        return {subscription.client for subscription in self._subscriptions.values() if subscription.client}

    def mute_except(self, session_key: str, ontologies: Set[str]) -> None:
        """The session may read only these ontologies now: its other subscriptions are silent until it may again."""
        for id_ in self._of_session.get(session_key, ()):
            subscription = self._subscriptions[id_]
            subscription.is_muted = subscription.ontology not in ontologies
            if subscription.is_muted:
                subscription.pending.clear()
                _settle(subscription, [])

    def leave_session(self, session_key: str) -> None:
        """The session speaks through another gateway now: what was announced to this one before is still delivered.

        Subscriptions with an endpoint stay.
        """
        ids = self._leaving_of(session_key)
        for id_ in ids:
            subscription = self._subscriptions[id_]
            if subscription.timer is not None:
                subscription.timer.cancel()
            self._flush_later(subscription)
        if ids and session_key not in self._leaving:
            self._leaving[session_key] = self._loop.call_later(LINGER_S, self._left, session_key)

    def _leaving_of(self, session_key: str) -> list[str]:
        ids = self._of_session.get(session_key, ())
        return [id_ for id_ in ids if self._subscriptions[id_].endpoint is None]

    def _left(self, session_key: str) -> None:
        self._leaving.pop(session_key, None)
        for id_ in self._leaving_of(session_key):
            self.remove(id_)
            self._ended.pop(id_, None)  # it has only gone, and may come back
        if not self._of_session.get(session_key):
            self._of_session.pop(session_key, None)

    def remove_session(self, session_key: str) -> list[LocalSubscription]:
        leaving = self._leaving.pop(session_key, None)
        if leaving is not None:
            leaving.cancel()
        ids = self._of_session.pop(session_key, set())
        return [removed for id_ in list(ids) if (removed := self.remove(id_)) is not None]

    def apply(self, seq: int, indications: list[Indication]) -> Awaitable[None] | None:
        """Send or collect what a partition announced; the awaitable ends when everything of it is delivered."""
        waits: list[Awaitable[None]] = []
        for ontology, legacy, one, ids in indications:
            for id_ in ids:
                subscription = self._subscriptions.get(id_)
                if subscription is None and (early := self._keep_early(id_, ontology, legacy, one)) is not None:
                    waits.append(early)
                    continue
                if subscription is None or subscription.is_muted or subscription.ontology != ontology:
                    self.stale += 1
                    continue
                subscription.pending.append(one if subscription.dialect is Dialect.ONE else legacy)
                wait_s = subscription.last_at_s + subscription.ms_refresh / 1000 - self._clock()
                if subscription.timer is not None and len(subscription.pending) >= ROWS_COLLECTED_MAX:
                    subscription.timer.cancel()
                    self._flush_later(subscription)
                    continue
                if subscription.is_announced and subscription.timer is None and wait_s <= 0:
                    waits += self._flush(subscription)
                    continue
                if subscription.is_announced and subscription.timer is None:
                    subscription.timer = self._loop.call_later(wait_s, self._flush_later, subscription)
                if subscription.flushed is None:
                    subscription.flushed = self._loop.create_future()
                waits.append(subscription.flushed)
        return _all(waits) if waits else None

    def tell(self, ontology: str, rows: Sequence[bytes]) -> Awaitable[None] | None:
        """Send every subscription of this ontology (here: an output of CEP rules) JSON values, one after the other."""
        ids = [subscription.id for subscription in self._subscriptions.values() if subscription.ontology == ontology]
        return self.apply(0, [Indication(ontology, row.decode(), row, ids) for row in rows]) if ids else None

    def _keep_early(
        self, subscription_id: str, ontology: str, legacy: str | None, one: bytes | None
    ) -> Awaitable[None] | None:
        """Its session may be on its way here from another gateway. None: it has ended, or too much waits already."""
        if subscription_id in self._ended or self._early_rows >= EARLY_ROWS_MAX:
            return None
        early = self._early.get(subscription_id)
        if early is None:
            early = self._early[subscription_id] = _Early(ontology, self._loop.create_future())
            self._loop.call_later(EARLY_S, self._give_up, subscription_id, early)
        early.rows.append((legacy, one))
        self._early_rows += 1
        return early.done

    def _give_up(self, subscription_id: str, early: _Early) -> None:
        if self._early.get(subscription_id) is early:
            del self._early[subscription_id]
            self._early_rows -= len(early.rows)
            self.stale += len(early.rows)
            early.done.set_result(None)

    def _flush_later(self, subscription: LocalSubscription) -> None:
        subscription.timer = None
        self._flush(subscription)

    def _flush(self, subscription: LocalSubscription) -> list[Awaitable[None]]:
        rows, subscription.pending = subscription.pending, []
        if not rows:
            return []
        subscription.last_at_s = self._clock()
        is_single = not subscription.ms_refresh or subscription.output is not None
        size = 1 if is_single else ROWS_PER_INDICATION_MAX
        waits: list[Awaitable[None]] = []
        for start in range(0, len(rows), size):
            payload = self._format(subscription, rows[start : start + size])
            self.indications += 1
            wait = self._deliver(subscription, payload)
            if wait is not None:
                future = asyncio.ensure_future(self._insist(subscription, payload, wait))
                self._waiters.add(future)
                future.add_done_callback(self._waiters.discard)
                waits.append(future)
        _settle(subscription, waits)
        return waits

    async def _insist(self, subscription: LocalSubscription, payload: bytes, wait: Awaitable[None]) -> None:
        """Wait for a delivery; one that the store could not keep is tried again while the subscription exists."""
        pending: Awaitable[None] | None = wait
        while pending is not None:
            try:
                await pending
                return
            except StoreUnavailableError:
                await asyncio.sleep(RETRY_S)
            is_wanted = self._subscriptions.get(subscription.id) is subscription
            pending = self._deliver(subscription, payload) if is_wanted else None

    @staticmethod
    def _format(subscription: LocalSubscription, rows: list[Any]) -> bytes:
        if subscription.output is not None:
            data = rows[0] if isinstance(rows[0], bytes) else rows[0].encode()
            payload = format_cep_indication(
                subscription.id, subscription.session_key, subscription.output, subscription.dialect, data
            )
            return _ciphered(subscription, payload)
        is_one = subscription.dialect is Dialect.ONE
        printed = Rows(one=b"[" + b",".join(rows) + b"]") if is_one else Rows(legacy=f"[ {' , '.join(rows)}]")
        head = subscription.id, subscription.session_key, subscription.ontology
        if subscription.endpoint is not None:
            return format_indication_rest(*head, printed, is_one=is_one)
        return _ciphered(subscription, format_indication(*head, subscription.dialect, printed))


def _ciphered(subscription: LocalSubscription, payload: bytes) -> bytes:
    if subscription.cipher_key is None:
        return payload
    return encipher(payload.decode(), subscription.cipher_key).encode()


def _settle(subscription: LocalSubscription, waits: list[Awaitable[None]]) -> None:
    """What was collected counts as delivered when all of it is."""
    flushed, subscription.flushed = subscription.flushed, None
    if flushed is None:
        return
    if waits:
        asyncio.ensure_future(_all(waits)).add_done_callback(lambda _: flushed.set_result(None))
    else:
        flushed.set_result(None)


async def _all(waits: list[Awaitable[None]]) -> None:
    await asyncio.gather(*waits, return_exceptions=True)
