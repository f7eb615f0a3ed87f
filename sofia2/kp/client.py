"""``sofia2.KP``: a knowledge processor in Python, over MQTT or WebSocket."""

from __future__ import annotations

import asyncio
import ssl
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from sib.errors import AuthenticationError, ConfigurationError, SibError
from sib.ssap.cipher import decipher, encipher
from sofia2.kp import messages
from sofia2.kp.connection import Connection
from sofia2.kp.connectors import connector_of
from sofia2.kp.errors import ConnectionLostError
from sofia2.kp.messages import BulkItem, BulkResult, Instance, Reply
from sofia2.kp.subscription import QUEUE_MAX, Subscription
from sofia2.kp.transport import Connector

TIMEOUT_S = 35.0
"""For one request, waiting for a connection included: a little more than a query may take."""


class KP:
    """A KP with a session. Requests made at the same time are pipelined; each is answered in its turn.

        async with KP("mqtt://127.0.0.1:1883", kp="KPThermostat:kitchen", token="…") as kp:
            await kp.insert("Thermostat", {"Thermostat": {"celsius": 21.5}})
            async with kp.subscribe("Thermostat", "{Thermostat.celsius: {$gt: 25}}") as hot:
                async for instance in hot:
                    print(instance)

    Rows and notified instances are plain JSON, ids and dates as ``{"$oid": …}`` and ``{"$date": …}``; instances may be given as
    a dict (also with ``datetime`` and ``ObjectId``) or as JSON text. When the session is lost it joins again, when the
    connection is lost it connects again, and subscribes again where needed. Refusals are raised as the ``SibError`` of their
    code.
    """

    def __init__(
        self,
        url: str | None = None,
        kp: str | None = None,
        instance: str | None = None,
        *,
        token: str | None = None,
        user: str | None = None,
        password: str | None = None,
        cipher_key: str | None = None,
        client_id: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
        connector: Connector | None = None,
    ) -> None:
        """See ``connector_of`` for ``url``.

        Args:
            url: Where the platform listens.
            kp: The KP's name, or ``NAME:INSTANCE``.
            instance: The instance's name; absent, a new one.
            token: Of the KP; or ``user`` and ``password``.
            user: The KP's owner, or an ADMINISTRADOR.
            password: Of the user.
            cipher_key: Cipher every message with this key.
            client_id: The MQTT client id; absent, a new one.
            tls: For ``mqtts`` and ``wss``; absent, the machine's certificates.
            timeout_s: For each request.
            connector: Something else to talk over than a URL.
        """
        if connector is None:
            if url is None:
                raise ConfigurationError("a KP needs the URL of a platform, for example mqtt://127.0.0.1:1883")
            connector = connector_of(url, client_id=client_id, tls=tls)
        name, _, part = (kp or "").partition(":")
        if connector.needs_join and not name:
            raise ConfigurationError("a KP needs its name: kp='NAME' or kp='NAME:INSTANCE'")
        self.name, self.instance = name, instance or part or uuid.uuid4().hex
        self._token, self._user, self._password, self._cipher_key = token, user, password, cipher_key
        self._needs_join, self._timeout_s = connector.needs_join, timeout_s
        self._session_key: str | None = None
        self._is_leaving = False
        self._joining = asyncio.Lock()
        self._subscriptions: dict[str, Subscription] = {}
        self._wanted: list[Subscription] = []
        self._connection = Connection(
            connector, read=self._read, opened=self._opened, notified=self._notified, failed=self._fail
        )

    def __repr__(self) -> str:
        return f"KP({self.name}:{self.instance})"

    async def __aenter__(self) -> KP:
        await self.join()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.leave()

    @property
    def session_key(self) -> str | None:
        """The key of the session now."""
        return self._session_key

    async def join(self) -> None:
        """Connect and open a session; ``async with`` does it.

        Raises:
            ConnectionLostError: nobody is there. AuthenticationError: the platform refuses the credentials.
        """
        await self._connection.open()

    async def leave(self) -> None:
        """End the session and the connection; ``async with`` does it. Harmless when they are gone."""
        try:
            if self._session_key is not None and self._needs_join:
                await self._exchange("LEAVE", {}, timeout_s=min(self._timeout_s, 5.0))
        except SibError:
            pass
        finally:
            self._session_key, self._is_leaving = None, True
            await self._connection.close()

    # ------------------------------------------------------------------ operations

    async def insert(self, ontology: str, instance: Instance) -> str:
        """Store an instance; returns its id (24 hexadecimal digits) once it is durable."""
        body = messages.operation_body(None, None, instance)
        return messages.read_id(await self.request("INSERT", body, ontology))

    async def query(
        self,
        text: str = "",
        ontology: str | None = None,
        *,
        type: str | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Any:
        """Run a query: a list of dicts, or the bare number of ``select count(*)``.

        Args:
            text: SQL-like, a native query or a bare criterion (then with ``ontology``), or the name of a predefined query.
            ontology: The ontology of a criterion.
            type: NATIVE, SQLLIKE, SIB_DEFINED, BDC, …; absent, SQLLIKE when the text begins like SQL, else NATIVE.
            params: Of a predefined query.
        """
        body = {"data": None, "query": text, "queryType": messages.query_type(text, type)}
        return await self.request("QUERY", {**body, "queryParams": params}, ontology, is_read=True)

    async def update(
        self, ontology: str | None, query: str, instance: Instance | None = None, *, type: str | None = None
    ) -> list[str]:
        """Replace what matches ``query`` by ``instance``, or run the updating statement ``query``; returns the ids."""
        return messages.read_ids(await self.request("UPDATE", messages.operation_body(query, type, instance), ontology))

    async def delete(self, ontology: str | None, query: str, *, type: str | None = None) -> list[str]:
        """Delete what matches; returns the ids. A query without a condition is refused."""
        return messages.read_ids(await self.request("DELETE", messages.operation_body(query, type, None), ontology))

    async def bulk(self, items: Sequence[BulkItem]) -> BulkResult:
        """Run writes in order, each on its own: what fails is in ``errors``, the others are done."""
        return messages.read_bulk(await self.request("BULK", messages.bulk_body(items)))

    def subscribe(
        self,
        ontology: str | None,
        query: str = "",
        ms_refresh: int = 0,
        *,
        type: str | None = None,
        params: Mapping[str, str] | None = None,
        queue_max: int = QUEUE_MAX,
    ) -> Subscription:
        """The instances that match, as they are stored or changed. Use it with ``async with``.

        Args:
            ontology: The ontology of a criterion.
            query: Texts as in :meth:`query`; only the condition counts; "" is everything.
            ms_refresh: The least time between two notifications, in milliseconds; what matches meanwhile comes together.
            type: As in :meth:`query`.
            params: As in :meth:`query`.
            queue_max: Instances that may wait to be taken.
        """
        body = {"query": query, "msRefresh": ms_refresh, "queryType": messages.query_type(query, type)}
        return self._subscription("SUBSCRIBE", {**body, "queryParams": params}, ontology, queue_max)

    async def command(self, kp: str, instance: str, type: str = "STATUS", args: Mapping[str, Any] | None = None) -> str:
        """Send a command to whoever listens for this KP instance; returns its id, also when nobody does."""
        body = {"thinkp": kp, "thinkpInstance": f"{kp}:{instance}", "type": type, "args": dict(args or {})}
        return str(await self.request("COMMAND", body))

    def commands(self, type: str = "STATUS") -> Subscription:
        """The commands for this instance: dicts with thinkp, thinkpInstance, type and args."""
        body = {
            "thinkp": self.name,
            "thinkpInstance": f"{self.name}:{self.instance}",
            "token": self._token,
            "type": type,
        }
        return self._subscription("SUBSCRIBECOMMAND", body, None, QUEUE_MAX)

    async def request(
        self, message_type: str, body: Mapping[str, Any], ontology: str | None = None, *, is_read: bool = False
    ) -> Any:
        """Any SSAP request; returns the answer's data.

        Raises:
            SibError: The refusal, by its code; ConnectionLostError or RequestTimeoutError when no answer came.
        """
        return (await self._ask(message_type, body, ontology, is_read=is_read)).data

    # ------------------------------------------------------------------ sessions

    async def _ask(
        self,
        message_type: str,
        body: Mapping[str, Any],
        ontology: str | None,
        *,
        is_read: bool,
        on_answer: Callable[[Reply], None] | None = None,
    ) -> Reply:
        """Exchange a request, again where that is harmless: after a lost session, and a read after a lost connection."""
        ends_at_s = asyncio.get_running_loop().time() + self._timeout_s
        is_joined_again = False
        while True:
            left_s = max(0.0, ends_at_s - asyncio.get_running_loop().time())
            await self._wait_ready(left_s)
            session_key = self._session_key
            try:
                reply = await self._exchange(message_type, body, ontology, on_answer=on_answer, timeout_s=left_s)
            except ConnectionLostError:
                if not is_read:
                    raise
                await asyncio.sleep(0)
                continue
            if reply.error is None:
                return reply
            if not isinstance(reply.error, AuthenticationError) or is_joined_again or not self._needs_join:
                raise reply.error
            is_joined_again = True
            await self._join_again(session_key)

    async def _wait_ready(self, left_s: float) -> None:
        try:
            async with asyncio.timeout(left_s):
                await self._connection.ready()
        except TimeoutError:
            raise ConnectionLostError("there is no connection to the platform") from None

    async def _exchange(
        self,
        message_type: str,
        body: Mapping[str, Any],
        ontology: str | None = None,
        *,
        timeout_s: float,
        on_answer: Callable[[Reply], None] | None = None,
    ) -> Reply:
        text = messages.envelope(message_type, body, session_key=self._session_key, ontology=ontology)
        return await self._connection.exchange(self._encoded(message_type, text), timeout_s, on_answer)

    async def _opened(self) -> None:
        """On a new connection: go on with the session if it lives, else open one; then listen again."""
        if not self._needs_join:
            await self._subscribe_all(self._wanted)
            return
        had_session = self._session_key is not None
        if not (had_session and await self._renew()):
            self._session_key = None
            await self._open_session()
            await self._subscribe_all(self._wanted)
        else:
            await self._subscribe_all([s for s in self._wanted if s.message_type == "SUBSCRIBECOMMAND"])

    async def _renew(self) -> bool:
        reply = await self._exchange("JOIN", self._join_body(), timeout_s=self._timeout_s)
        return reply.error is None

    async def _open_session(self) -> None:
        reply = await self._exchange("JOIN", self._join_body(), timeout_s=self._timeout_s)
        if reply.error is not None:
            raise reply.error
        self._session_key = str(reply.data)

    async def _join_again(self, lost_key: str | None) -> None:
        async with self._joining:
            if self._session_key != lost_key:
                return  # another request has done it
            self._session_key = None
            await self._open_session()
            await self._subscribe_all(self._wanted)

    def _join_body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"instance": f"{self.name}:{self.instance}"}
        if self._token is not None:
            return {"@type": "SSAPBodyJoinTokenMessage", **body, "token": self._token}
        return {"@type": "SSAPBodyJoinUserAndPasswordMessage", **body, "user": self._user, "password": self._password}

    # ------------------------------------------------------------------ subscriptions

    def _subscription(
        self, message_type: str, body: Mapping[str, Any], ontology: str | None, queue_max: int
    ) -> Subscription:
        return Subscription(message_type, body, ontology, start=self._start, stop=self._stop, queue_max=queue_max)

    async def _start(self, subscription: Subscription) -> None:
        await self._ask(
            subscription.message_type,
            subscription.body,
            subscription.ontology,
            is_read=True,
            on_answer=lambda reply: self._registered(subscription, reply),
        )
        self._wanted.append(subscription)

    def _registered(self, subscription: Subscription, reply: Reply) -> None:
        """The answer to a SUBSCRIBE: before the reader comes to the first notification."""
        if reply.error is None:
            self._subscriptions.pop(subscription.id or "", None)
            subscription.id = str(reply.data)
            self._subscriptions[subscription.id] = subscription

    async def _subscribe_all(self, subscriptions: Sequence[Subscription]) -> None:
        for subscription in list(subscriptions):
            reply = await self._exchange(
                subscription.message_type,
                subscription.body,
                subscription.ontology,
                timeout_s=self._timeout_s,
                on_answer=lambda reply, subscription=subscription: self._registered(subscription, reply),  # type: ignore[misc]
            )
            if reply.error is not None:
                self._forget(subscription)
                subscription.end(reply.error)

    async def _stop(self, subscription: Subscription) -> None:
        id_ = subscription.id
        self._forget(subscription)
        if id_ is not None and subscription.message_type == "SUBSCRIBE" and self._session_key is not None:
            try:
                await self._exchange("UNSUBSCRIBE", {"idSuscripcion": id_}, timeout_s=self._timeout_s)
            except SibError:
                pass  # the session or the connection is gone, and the subscription with it

    def _forget(self, subscription: Subscription) -> None:
        self._subscriptions.pop(subscription.id or "", None)
        if subscription in self._wanted:
            self._wanted.remove(subscription)

    def _notified(self, reply: Reply) -> None:
        subscription = self._subscriptions.get(str(reply.message_id))
        if subscription is not None:
            subscription.put(reply.data)

    def _fail(self, error: SibError) -> None:
        for subscription in list(self._wanted):
            self._forget(subscription)
            subscription.end(None if self._is_leaving else error)

    # ------------------------------------------------------------------ payloads

    def _encoded(self, message_type: str, text: bytes) -> bytes:
        if self._cipher_key is None:
            return text
        ciphered = encipher(text.decode(), self._cipher_key)
        prefix = f"{len(self.name)}#{self.name}" if message_type == "JOIN" else ""
        return (prefix + ciphered).encode()

    def _read(self, payload: bytes) -> Reply:
        if self._cipher_key is not None and not payload.lstrip().startswith(b"{"):
            return messages.read_reply(decipher(payload.decode(errors="replace"), self._cipher_key))
        return messages.read_reply(payload)
