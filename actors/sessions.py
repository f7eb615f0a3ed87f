"""SessionShard: thousands of SSAP sessions and their subscriptions as plain objects in one process.

A batch of requests is answered after one commit in the BDC, so a session or subscription that was answered survives any crash.
Gateways hold leases (what a session is and may do); a lease is asked again whenever the configuration changes, and taken back
when the session ends or speaks through another gateway.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from actors import logs
from actors.config import PlatformConfig
from actors.session_changes import SessionChanges, moment, session_of
from actors.session_news import SessionNews
from actors.without_session import WITHOUT_SESSION, WithoutSession
from sib.access import Identity
from sib.errors import AuthenticationError, LimitError, SibError
from sib.limiter import DELAY_S_FIRST, FailureLimiter
from sib.sessions import Session, Sessions, touch_lag_s
from storage.bdc.bdc import open_bdc
from storage.bdc.records import SubscriptionRecord

log = logging.getLogger("sofia2.sessions")


class Lease(NamedTuple):
    """What a gateway needs to know of a session to serve it without asking again."""

    key: str
    kp: str
    instance: str
    user: str
    is_administrator: bool
    dialect: int
    cipher_key: str
    is_cipher_only: bool
    rights: dict[str, int]
    expiry_s: float
    context: dict[str, str]
    subscriptions: list[SubscriptionRecord]


class JoinRequest(NamedTuple):
    """A JOIN with all that the transport knows; ``renewed_key`` is the live key of a renewal.

    User and password the gateway has checked: argon2 takes long on purpose, and the sessions of all others would wait for it.
    ``proof`` is what came out, an identity or why there is none. ``client`` is None for a JOIN over no connection.
    """

    kp: str
    instance: str
    token: str | None
    proof: Identity | AuthenticationError | None
    dialect: int
    is_ciphered: bool
    client: str | None
    address: str
    renewed_key: str | None

    def __repr__(self) -> str:
        return f"JoinRequest({self.kp}:{self.instance})"


class JoinRefused(NamedTuple):
    """Why a JOIN failed and for how long its answer has to wait."""

    error: SibError
    delay_s: float


class SessionShard:
    """One shard; a sync actor. Requests of one call are answered together, after their commit."""

    def __init__(self, name: str, config: PlatformConfig) -> None:
        logs.configure(config.data, name)
        self._name, self._config = name, config
        self._bdc = open_bdc(config.bdc_url)
        limits = config.limits
        self._sessions = Sessions(limits.sessions_expiry_s)
        self._limiter = FailureLimiter(limits.join_failures_per_minute, limits.join_failure_delay_s_max)
        self._identities: dict[tuple[str, str, str], Identity] = {}
        self._checked: dict[tuple[str, str, str], Identity | None] = {}
        self._rights: dict[tuple[str, str], dict[str, int]] = {}
        self._config_version = -1
        self._without = WithoutSession(self._bdc)
        self._news = SessionNews(config.topology, self._sessions)
        self._counts = {"joins": 0, "join_failures": 0, "join_delays": 0, "leases": 0, "leaves": 0, "expired": 0}
        self._touched: dict[str, float] = {}
        self._refresh()
        self._load()

    def _load(self) -> None:
        mine = {}
        for record in self._bdc.sessions.load():
            if self._config.topology.shard_of(record.session_key) == self._name:
                mine[record.session_key] = session_of(record)
        for subscription in self._bdc.subscriptions.load():
            if subscription.session_key in mine:
                mine[subscription.session_key].subscriptions[subscription.subscription_id] = subscription
        for session in mine.values():
            self._sessions.add(session)

    # ------------------------------------------------------------------ requests

    def handle(self, gateway: str, requests: Sequence[tuple[str, tuple[Any, ...]]]) -> list[Any]:
        """Answer a batch of requests in order: for each its result, or the :class:`SibError` that it met.

        Requests: ``join``, ``leave``, ``lease``, ``renew``, ``subscribe``, ``unsubscribe``, ``touch``, ``configure``, ``report``,
        ``check``; see the methods and ``WithoutSession``. All are idempotent, but that a repeated ``join`` opens another session.

        Raises:
            StoreUnavailableError: The BDC cannot decide; nothing of the batch is known to be stored. Retry it.
        """
        self._refresh()
        self._recheck([arguments[0] for kind, arguments in requests if kind in ("lease", "renew")])
        batch = SessionChanges()
        with batch.undone_on_failure():
            answers = [self._answer(batch, gateway, kind, arguments) for kind, arguments in requests]
            batch.write(self._bdc, self._sessions.expiry_s)
        for session in batch.ended:
            self._news.ended(session)
        for session, previous in batch.moved:
            self._news.moved(session, previous)
        self._news.unsubscribed(batch.unsubscribed)
        return answers

    def _answer(self, batch: SessionChanges, gateway: str, kind: str, arguments: tuple[Any, ...]) -> Any:
        handler: Callable[..., Any] = (
            getattr(self._without, kind) if kind in WITHOUT_SESSION else getattr(self, f"_{kind}")
        )
        try:
            return handler(batch, gateway, *arguments)
        except SibError as error:
            if error.is_retryable:
                raise
            return error

    def _refresh(self) -> None:
        version = self._bdc.config_version()
        if version != self._config_version:
            self._identities.clear()
            self._checked.clear()
            self._rights.clear()
            self._take_settings()
            self._config_version = version

    def _recheck(self, session_keys: Sequence[str]) -> None:
        """After a change of the configuration: is what the sessions were opened with still good? All in one look."""
        now_s = time.time()
        holders = []
        for session_key in session_keys:
            session = self._sessions.get(session_key, now_s)
            if session is not None:
                holder = (session.kp, session.user, session.credential)
                if holder not in self._checked:
                    holders.append(holder)
        if holders:
            self._checked.update(zip(holders, self._bdc.recheck(holders), strict=True))

    def _join(self, batch: SessionChanges, gateway: str, request: JoinRequest) -> Lease | JoinRefused:
        now_s = time.time()
        self._counts["joins"] += 1
        try:
            identity = self._identify(request)
            if identity.cipher_only and not request.is_ciphered:
                raise AuthenticationError(
                    f"the KP {request.kp!r} takes ciphered messages only: encipher them with its key"
                )
            if request.renewed_key is not None:
                session = self._sessions.find(request.renewed_key, now_s)
                if (session.kp, session.instance, session.user) != (request.kp, request.instance, identity.user):
                    raise AuthenticationError("the session belongs to another KP instance: JOIN without a session key")
                session.used_at_s = now_s
                session.credential = identity.credential
                if request.client is not None:
                    self._move(batch, session, gateway, request.client)
            else:
                session = self._open(batch, gateway, request, identity, now_s)
        except LimitError as error:
            return JoinRefused(error, 0.0)
        except AuthenticationError as error:
            self._counts["join_failures"] += 1
            return JoinRefused(error, self._slow_down(request, now_s))
        batch.saved.append(session)
        if request.token is not None:
            batch.tokens.append((request.token, moment(now_s)))
        batch.seen.append((request.kp, request.instance, request.client or request.address, moment(now_s)))
        return self._grant(batch, gateway, session, identity)

    def _slow_down(self, request: JoinRequest, now_s: float) -> float:
        """How long the answer to this failure waits; too many of one address and KP are logged once a minute, and counted."""
        delay_s = self._limiter.failed(request.address, request.kp, now_s)
        if delay_s:
            self._counts["join_delays"] += 1
            if delay_s <= DELAY_S_FIRST:
                log.warning(
                    "too many failed JOINs as KP %r from %s: further ones are slowed down",
                    request.kp[:80],
                    request.address,
                )
        return delay_s

    def _identify(self, request: JoinRequest) -> Identity:
        if request.token is not None:
            key = (request.kp, "token", request.token)
            if key not in self._identities:
                self._identities[key] = self._bdc.identify(request.kp, request.token)
            return self._identities[key]
        if request.proof is None:
            raise AuthenticationError("a JOIN needs a token, or a user and a password")
        if isinstance(request.proof, AuthenticationError):
            raise request.proof
        return request.proof

    def _open(
        self, batch: SessionChanges, gateway: str, request: JoinRequest, identity: Identity, now_s: float
    ) -> Session:
        maximum = self._config.limits.sessions_max
        if len(self._sessions) >= maximum:
            raise LimitError(f"{maximum} sessions are open, as many as may be: LEAVE those not needed, or JOIN later")
        shard_of = self._config.topology.shard_of
        session_key = str(uuid.uuid4())
        while shard_of(session_key) != self._name:
            session_key = str(uuid.uuid4())
        session = Session(
            session_key,
            request.kp,
            request.instance,
            identity.user,
            identity.credential,
            request.dialect,
            request.is_ciphered,
            gateway,
            request.client or "",
            now_s,
            now_s,
        )
        self._sessions.add(session)
        batch.undo.append(lambda: self._sessions.remove(session_key))
        return session

    def _lease(self, batch: SessionChanges, gateway: str, session_key: str, client: str | None) -> Lease:
        """``client``: None for a request that came over no connection: the session goes on speaking where it did."""
        now_s = time.time()
        self._counts["leases"] += 1
        session = self._sessions.find(session_key, now_s)
        identity = self._known(batch, session)
        session.used_at_s = now_s
        if client is not None:
            self._move(batch, session, gateway, client)
        return self._grant(batch, gateway, session, identity)

    def _renew(self, batch: SessionChanges, gateway: str, session_key: str) -> Lease:
        """As ``_lease``, for a gateway that asks by itself: the session has not been used."""
        session = self._sessions.find(session_key, time.time())
        return self._grant(batch, gateway, session, self._known(batch, session))

    def _move(self, batch: SessionChanges, session: Session, gateway: str, client: str) -> None:
        """The session speaks through this gateway as this client. Its callbacks stay where they are."""
        if (session.gateway, session.client) != (gateway, client):
            batch.saved.append(session)
            batch.moved.append((session, session.gateway))
            batch.undo.append(partial(_set_place, session, session.gateway, session.client))
            _set_place(session, gateway, client)

    def _known(self, batch: SessionChanges, session: Session) -> Identity:
        """Check again that the session's token or user is good; if not, the session ends."""
        identity = self._checked.get((session.kp, session.user, session.credential))
        if identity is None:
            self._end(batch, session)
            raise AuthenticationError("the session's token or user is not valid any more: JOIN with a valid one")
        return identity

    def _grant(self, batch: SessionChanges, gateway: str, session: Session, identity: Identity) -> Lease:
        self._news.leased(session.key, gateway)
        who = (session.kp, session.user)
        rights = self._rights.get(who)
        if rights is None:
            rights = self._rights[who] = {name: int(value) for name, value in self._bdc.rights(*who).items()}
        return Lease(
            session.key,
            session.kp,
            session.instance,
            session.user,
            identity.is_administrator,
            session.dialect,
            identity.cipher_key,
            identity.cipher_only,
            rights,
            self._sessions.expiry_s,
            {
                "session_key": session.key,
                "user": session.user,
                "kp": session.kp,
                "kp_instancia": session.instance,
                "timezoneId": "UTC",
            },
            list(session.subscriptions.values()),
        )

    def _leave(self, batch: SessionChanges, gateway: str, session_key: str) -> None:
        session = self._sessions.find(session_key, time.time())
        self._counts["leaves"] += 1
        self._end(batch, session)

    def _end(self, batch: SessionChanges, session: Session) -> None:
        self._sessions.remove(session.key)
        batch.ended.append(session)
        batch.undo.append(lambda: self._sessions.add(session))

    def _subscribe(self, batch: SessionChanges, gateway: str, record: SubscriptionRecord, client: str | None) -> None:
        session = self._sessions.find(record.session_key, time.time())
        maximum = self._config.limits.subscriptions_per_session_max
        if len(session.subscriptions) >= maximum and record.subscription_id not in session.subscriptions:
            raise LimitError(f"a session may have {maximum} subscriptions: UNSUBSCRIBE some, or use another session")
        if client is not None:
            # From now on it matters where the session speaks: other gateways have to ask before they serve it.
            self._move(batch, session, gateway, client)
            self._news.leased_alone(session.key, gateway)
        session.subscriptions[record.subscription_id] = record
        batch.subscribed.append(record)
        batch.undo.append(lambda: session.subscriptions.pop(record.subscription_id, None))

    def _unsubscribe(self, batch: SessionChanges, gateway: str, session_key: str, subscription_id: str) -> str | None:
        """Returns the ontology of the subscription, None if the session has no such one."""
        session = self._sessions.find(session_key, time.time())
        record = session.subscriptions.pop(subscription_id, None)
        if record is None:
            return None
        batch.unsubscribed.append(record)
        batch.undo.append(lambda: session.subscriptions.update({subscription_id: record}))
        return str(record.ontology)

    def _touch(self, batch: SessionChanges, gateway: str, used: dict[str, float]) -> list[str]:
        """Returns the keys that are no sessions (any more): the gateway has missed their end."""
        ended = []
        for session_key, used_at_s in used.items():
            if self._sessions.touch(session_key, used_at_s):
                self._touched[session_key] = used_at_s
            else:
                ended.append(session_key)
        return ended

    # ------------------------------------------------------------------ upkeep

    def tick(self) -> None:
        """Upkeep, about once a second: write down which sessions were used, end the expired ones."""
        if self._touched:
            used = [(key, moment(at_s)) for key, at_s in self._touched.items()]
            self._bdc.sessions.touch(used, expiry_s=self._sessions.expiry_s)
            self._touched = {}
        # Of a use that restarts the expiry a gateway tells with its next touch.
        expired = self._sessions.expired(time.time() - touch_lag_s(self._sessions.expiry_s))
        if expired:
            batch = SessionChanges()
            with batch.undone_on_failure():
                for session in expired:
                    self._end(batch, session)
                batch.write(self._bdc, self._sessions.expiry_s)
            for session in expired:
                self._news.ended(session)
            self._counts["expired"] += len(expired)
        self._news.confirm()

    def reload(self) -> int:
        """Take over the newest configuration; returns its version."""
        self._refresh()
        return self._config_version

    def _take_settings(self) -> None:
        """The hot settings; also at the start: a shard that died is made again with the settings of the platform's start."""
        settings, limits = self._bdc.catalog().settings, self._config.limits
        self._sessions.expiry_s = float(settings.get("sessions.expiry_s", limits.sessions_expiry_s))
        self._limiter.failures_per_minute = int(
            settings.get("limits.join_failures_per_minute", limits.join_failures_per_minute)
        )
        self._limiter.delay_s_max = float(
            settings.get("limits.join_failure_delay_s_max", limits.join_failure_delay_s_max)
        )

    def stats(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "version": self._config_version,
            "sessions": len(self._sessions),
            "bdc_write": self._bdc.last_write,
            **self._counts,
        }


def _set_place(session: Session, gateway: str, client: str) -> None:
    session.gateway, session.client = gateway, client
