"""HTTP for scripts: only to hosts that ``rules.http_allow`` names, only to addresses that may be reached, and bounded.

Invariants: a name is resolved once a connection, the address is checked, and exactly that address is connected to; each redirect
is checked like a first request; no proxy of the environment is used.
The rule of the addresses is that of REST callbacks: ``actors.outgoing``.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import httpcore
import httpx

from actors.outgoing import AddressPolicy, CheckedBackend, Resolve, resolve_name
from sib.errors import AuthorizationError, LimitError, MalformedMessageError, SibError

TIMEOUT_S = 10.0
"""For one request, with its redirects."""
ANSWER_BYTES_MAX = 512 * 1024
REDIRECTS_MAX = 5
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
CONNECTIONS_MAX = 16
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade", "expect", "te", "trailer"})
"""Headers that a script cannot set."""
_SECRETS = frozenset({"authorization", "cookie", "proxy-authorization"})
"""Headers that do not follow a redirect to another host."""


class HttpError(SibError):
    """The other side was not reached, or did not answer in time: it may have got the request."""

    code, status, is_retryable = "rules.http", 502, True


class AllowList:
    """Hosts and networks: ``api.example.org``, ``*.example.org``, ``*`` (every public host), ``10.0.0.0/8``."""

    def __init__(self, items: Iterable[str]) -> None:
        self._names: set[str] = set()
        networks: list[str] = []
        for item in items:
            try:
                networks.append(str(ipaddress.ip_network(item.strip(), strict=False)))
            except ValueError:
                self._names.add(item.strip().lower().rstrip("."))
        self._public = AddressPolicy([])
        self._networks = AddressPolicy(networks)

    def names(self, host: str) -> bool:
        """Whether the host itself is named; if not, only addresses within a named network will do."""
        host = host.lower().rstrip(".")
        parents = (host[at:] for at, character in enumerate(host) if character == ".")
        return "*" in self._names or host in self._names or any(f"*{parent}" in self._names for parent in parents)

    def allows(self, host: str, address: str) -> bool:
        """Whether this host may be reached at this address."""
        if not self._networks.allows(address):
            return False
        return self.names(host) or self._is_in_network(address)

    def _is_in_network(self, address: str) -> bool:
        found = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        return any(found in network for network in self._networks.allow if network.version == found.version)


class Fetcher:
    """Makes the requests of scripts. One per actor, on its event loop."""

    def __init__(self, allow: Sequence[str] = (), *, resolve: Resolve = resolve_name) -> None:
        self._backend = CheckedBackend(partial(_allowed, AllowList(allow)), resolve)
        self._allow = tuple(allow)
        self._pool = self._new_pool()

    def permit(self, allow: Sequence[str]) -> None:
        """Take over another list. Connections that are open and idle are not used any more."""
        if tuple(allow) != self._allow:
            self._allow = tuple(allow)
            self._backend = CheckedBackend(partial(_allowed, AllowList(allow)), self._backend.resolve)
            self._pool = self._new_pool()

    def _new_pool(self) -> httpcore.AsyncConnectionPool:
        return httpcore.AsyncConnectionPool(
            network_backend=self._backend,
            ssl_context=httpx.create_ssl_context(trust_env=False),
            max_connections=CONNECTIONS_MAX,
            max_keepalive_connections=CONNECTIONS_MAX,
            keepalive_expiry=30.0,
        )

    async def __call__(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: str | None = None
    ) -> dict[str, Any]:
        """Make a request: ``status``, ``headers`` and ``body`` (text) of its answer, whatever the status.

        Raises:
            AuthorizationError: the host or its address is not allowed. MalformedMessageError: it is no request.
            LimitError: the answer is too long. HttpError: nobody answered.
        """
        if method not in METHODS:
            raise MalformedMessageError(f"{method[:20]!r} is none of {', '.join(sorted(METHODS))}")
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._follow(method, _url(url), dict(headers or {}), body)
        except (TimeoutError, httpcore.TimeoutException):
            raise HttpError(f"{_host(url)} did not answer within {TIMEOUT_S:g} s") from None
        except (OSError, httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise HttpError(f"{_host(url)} was not reached ({type(error).__name__})") from None

    async def _follow(self, method: str, url: httpx.URL, headers: dict[str, str], body: str | None) -> dict[str, Any]:
        for _ in range(REDIRECTS_MAX + 1):
            answer = await self._request(method, url, headers, body)
            place = answer["headers"].get("location")
            if answer["status"] not in _REDIRECTS or not place:
                return answer
            following = _url(str(url.join(place)))
            if following.host != url.host:
                headers = {name: value for name, value in headers.items() if name.lower() not in _SECRETS}
            if answer["status"] == 303 or (answer["status"] in (301, 302) and method == "POST"):
                method, body = "GET", None
            url = following
        raise LimitError(f"{url.host} redirects more than {REDIRECTS_MAX} times")

    async def _request(self, method: str, url: httpx.URL, headers: dict[str, str], body: str | None) -> dict[str, Any]:
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        sent = [(b"Host", url.netloc), (b"User-Agent", b"sofia2"), (b"Connection", b"keep-alive")]
        for name, value in headers.items():
            if name.lower() in _OURS or not name.isascii() or not value.isprintable():
                raise MalformedMessageError(f"a script cannot send the header {name[:40]!r}")
            sent.append((name.encode(), value.encode()))
        content = b"" if body is None else body.encode()
        if content or method in ("POST", "PUT", "PATCH"):
            sent.append((b"Content-Length", str(len(content)).encode()))
        try:
            return await self._exchange(method, target, sent, content)
        except httpcore.LocalProtocolError as error:
            raise MalformedMessageError(f"this is no HTTP request: {error}") from None

    async def _exchange(
        self, method: str, target: httpcore.URL, sent: list[tuple[bytes, bytes]], content: bytes
    ) -> dict[str, Any]:
        async with self._pool.stream(method, target, headers=sent, content=content) as response:
            text = bytearray()
            async for chunk in response.aiter_stream():
                text += chunk
                if len(text) > ANSWER_BYTES_MAX:
                    raise LimitError(f"the answer is longer than {ANSWER_BYTES_MAX} bytes")
            answered = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            return {"status": response.status, "headers": answered, "body": text.decode(errors="replace")}

    async def close(self) -> None:
        await self._pool.aclose()


def _allowed(allow: AllowList, host: str, addresses: Sequence[str]) -> list[str]:
    allowed = [address for address in addresses if allow.allows(host, address)]
    if not allowed:
        raise AuthorizationError(f"scripts may not reach {host}: rules.http_allow does not name it or its network")
    return allowed


def _url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        raise MalformedMessageError("this is no URL") from None
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise MalformedMessageError("a URL begins with http:// or https:// and has a host, and no user in it")
    return url


def _host(url: str) -> str:
    return httpx.URL(url).host
