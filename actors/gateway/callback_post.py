"""One POST to a subscriber's endpoint, to an address that is allowed and to no other.

Invariants: the name of an endpoint is resolved once per connection, the resolved address is checked, and exactly that
address is connected to (a name that changes its address between check and use gains nothing); no redirect is followed
and no proxy of the environment is used; the answer's body is bounded.
Source: Sofia2 SIL-Bridge-Sofia2 Sofia2Bridge.java:183-194 (what the receivers are); the address rule is ours.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias
from urllib.parse import urlsplit

import httpcore
import httpx

from sib.errors import ConfigurationError, MalformedMessageError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]

POST_TIMEOUT_S = 10.0
"""For one POST, name resolution and connection included."""
CONNECTIONS_MAX = 32
IDLE_CONNECTIONS_MAX = 16
IDLE_TIMEOUT_S = 30.0
RESPONSE_BYTES_MAX = 64 * 1024
"""Of an answer's body; a longer one costs its connection."""
ENDPOINT_CHARS_MAX = 2048
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class EndpointRefusedError(Exception):
    """The endpoint's address is not one that callbacks may go to. Trying again later may help: names change."""


class AddressPolicy:
    """Which addresses callbacks may go to: all public ones, and others only in ``allow``.

    Args:
        allow: Networks such as ``127.0.0.0/8`` (setting ``rest.callback_allow``).

    Raises:
        ConfigurationError: An item is not a network.
    """

    def __init__(self, allow: Iterable[str]) -> None:
        self.allow: tuple[Network, ...] = ()
        self.permit(allow)

    def permit(self, allow: Iterable[str]) -> None:
        """Take over other networks; they count from the next connection on.

        Raises:
            ConfigurationError: An item is not a network; nothing is changed.
        """
        self.allow = tuple(_network(text) for text in allow)

    @staticmethod
    def default_allow(listener_hosts: Iterable[str]) -> list[str]:
        """Loopback while every listener is on loopback, else nothing."""
        hosts = [host.strip("[]") for host in listener_hosts]
        if all(host == "localhost" or _is_loopback(host) for host in hosts):
            return [str(network) for network in LOOPBACK]
        return []

    def allows(self, text: str) -> bool:
        """Whether a callback may go to this address (an IPv4 address within IPv6 counts as what it is)."""
        address = _plain(ipaddress.ip_address(text.partition("%")[0]))
        if address.is_global and not address.is_multicast:
            return True
        return any(address in network for network in self.allow if network.version == address.version)


def check_endpoint(endpoint: str, policy: AddressPolicy | None = None) -> None:
    """Refuse an endpoint that can never be called; names are not resolved and nobody is contacted.

    Raises:
        MalformedMessageError: It is no absolute http or https URL, or has an address that callbacks may not go to.
    """
    try:
        parts = urlsplit(endpoint)
        host, _ = parts.hostname, parts.port
        httpx.URL(endpoint)
    except (ValueError, httpx.InvalidURL):
        host = None
    if host is None or parts.scheme not in ("http", "https") or len(endpoint) > ENDPOINT_CHARS_MAX or parts.username:
        raise MalformedMessageError("$endpoint must be a URL such as http://host:port/path, without a user in it")
    if policy is None:
        return
    try:
        is_allowed = policy.allows(host)
    except ValueError:
        return  # a name
    if not is_allowed:
        raise MalformedMessageError(f"Callbacks may not go to {host}: add its network to rest.callback_allow")


class CallbackPoster:
    """POSTs JSON; keeps a bounded pool of connections. ``await post(endpoint, body)`` gives the status."""

    def __init__(
        self, policy: AddressPolicy, *, resolve: Resolve | None = None, timeout_s: float = POST_TIMEOUT_S
    ) -> None:
        self._timeout_s = timeout_s
        self._pool = httpcore.AsyncConnectionPool(
            network_backend=_CheckedBackend(policy, resolve or resolve_name),
            ssl_context=httpx.create_ssl_context(trust_env=False),
            max_connections=CONNECTIONS_MAX,
            max_keepalive_connections=IDLE_CONNECTIONS_MAX,
            keepalive_expiry=IDLE_TIMEOUT_S,
        )

    async def __call__(self, endpoint: str, body: bytes) -> int:
        """The status of the answer, whatever it is.

        Raises:
            EndpointRefusedError: The address is not allowed; nothing was sent.
            OSError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, TimeoutError: The
                endpoint was not reached or did not answer in time; it may have got the body.
        """
        url = httpx.URL(endpoint)
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        host = url.netloc
        headers = [(b"Host", host), (b"Content-Type", b"application/json"), (b"Accept", b"application/json")]
        async with asyncio.timeout(self._timeout_s):
            async with self._pool.stream("POST", target, headers=headers, content=body) as response:
                size_bytes = 0
                async for chunk in response.aiter_stream():
                    size_bytes += len(chunk)
                    if size_bytes > RESPONSE_BYTES_MAX:
                        break
                return int(response.status)

    async def close(self) -> None:
        await self._pool.aclose()


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only. TLS still verifies the name, since that comes from the URL."""

    def __init__(self, policy: AddressPolicy, resolve: Resolve) -> None:
        self._policy = policy
        self._resolve = resolve
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._resolve(host, port)
        allowed = [address for address in addresses if self._policy.allows(address)]
        if not allowed:
            raise EndpointRefusedError(f"{host} is at {', '.join(addresses)}, which rest.callback_allow does not allow")
        for address in allowed[:-1]:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._backend.connect_tcp(allowed[-1], port, timeout, local_address, socket_options)


async def resolve_name(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, or of an address itself. Raises OSError (gaierror) for an unknown name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise ConfigurationError(f"rest.callback_allow: {text!r} is not a network such as 10.0.0.0/8") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _plain(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one, where there is one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
